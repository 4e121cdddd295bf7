package prune_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

var errKilled = errors.New("killed")

// shelf is a repository, and the cluster that has copies in it on record. After
// so many writes as allowed it fails each, done or not.
type shelf struct {
	copies    map[string]catalog.Snapshot // by restic's id
	snapshots map[string]catalog.Snapshot // by name
	marks     map[string]string
	claims    catalog.Inventory

	allowed   int  // writes; -1 for any number
	lost      bool // the write that is one too many is done, its answer lost
	refuses   bool // append-only
	short     bool // the listing fails
	empty     bool // the listing has nothing
	doubtful  []string
	forgotten []string
	pruned    int
	meanwhile func() // somebody does something before a second look
}

func newShelf() *shelf {
	return &shelf{copies: map[string]catalog.Snapshot{}, snapshots: map[string]catalog.Snapshot{}, marks: map[string]string{}, allowed: -1}
}

// write does a write, unless the client is dead.
func (s *shelf) write(do func()) error {
	if s.allowed == 0 {
		if s.lost {
			do()
			s.lost = false
		}
		return errKilled
	}
	s.allowed--
	do()
	return nil
}

func (s *shelf) Snapshots(context.Context, catalog.Scope) ([]catalog.Snapshot, error) {
	return slices.SortedFunc(maps.Values(s.snapshots), func(a, b catalog.Snapshot) int { return strings.Compare(a.Name, b.Name) }), nil
}

func (s *shelf) Policies(context.Context, catalog.Scope) (catalog.Inventory, error) {
	return s.claims, nil
}

func (s *shelf) Marks(context.Context, catalog.Repository) (catalog.Marks, error) {
	return catalog.ReadMarks(s.marks), nil
}

func (s *shelf) ChangeMarks(_ context.Context, _ catalog.Repository, _ catalog.Run, c catalog.MarkChange) error {
	if c.Empty() {
		return nil
	}
	return s.write(func() {
		for key, text := range c.Entries() {
			if delete(s.marks, key); text != nil {
				s.marks[key] = *text
			}
		}
	})
}

func (s *shelf) DropCopies(_ context.Context, of catalog.Snapshot, repository string, ids []string) error {
	return s.write(func() {
		there := s.snapshots[of.Name]
		there.Copies = slices.DeleteFunc(slices.Clone(there.Copies), func(c catalog.Copy) bool { return c.Repository == repository && slices.Contains(ids, c.Snapshot) })
		s.snapshots[of.Name] = there
	})
}

func (s *shelf) List(context.Context) ([]catalog.Snapshot, []string, error) {
	if s.short {
		return nil, nil, &catalog.Failure{Code: catalog.CodeListing, Message: "cut"}
	}
	if s.empty {
		return nil, s.doubtful, nil
	}
	return slices.SortedFunc(maps.Values(s.copies), func(a, b catalog.Snapshot) int { return strings.Compare(a.Name, b.Name) }), s.doubtful, nil
}

func (s *shelf) Hold(ctx context.Context) (context.Context, func() error, error) {
	if s.meanwhile != nil {
		s.meanwhile()
	}
	return ctx, func() error { return nil }, nil
}

func (s *shelf) Forget(_ context.Context, ids []string) (bool, error) {
	if s.refuses {
		return true, nil
	}
	return false, s.write(func() {
		for _, id := range ids {
			delete(s.copies, id)
			s.forgotten = append(s.forgotten, id)
		}
	})
}

func (s *shelf) Prune(context.Context) (string, error) {
	return "1 KiB", s.write(func() { s.pruned++ })
}

func (s *shelf) Event(catalog.Event) {}

// add puts the copies of one nightly set there; with stays, its snapshots too.
func (s *shelf) add(cut time.Time, stays bool, change func(*catalog.Snapshot), claims ...string) {
	run := catalog.Run(cut.UTC().Format("20060102-150405") + "-x7k2")
	for _, claim := range claims {
		name := claim + "-" + string(run)
		copy := catalog.Copy{Repository: "main", Snapshot: name}
		shot := catalog.Snapshot{
			Namespace: "shop", Name: name, UID: "uid-" + name, Claim: claim, Run: run, Retain: "calendar", Consistency: catalog.Crash, Cut: cut,
			Record: &catalog.Record{
				Version: 1, Run: run, App: "statefulset/db", Members: []string{"data", "log"}, Claim: catalog.ClaimRecord{Name: claim, UID: "uid-" + claim},
				TimeZone: "Europe/Berlin", Cut: cut, Consistency: catalog.Crash,
			},
			Copies: []catalog.Copy{copy},
		}
		if change != nil {
			change(&shot)
		}
		stored := shot
		stored.CopyOnly, stored.Created = true, cut
		s.copies[copy.Snapshot] = stored
		if stays {
			shot.Ready = true
			s.snapshots[name] = shot
		}
	}
}

func (s *shelf) request(now time.Time) prune.CopyRequest {
	return prune.CopyRequest{
		Request: prune.Request{
			Run: "20270101-000000-abcd", Scope: catalog.Scope{Namespaces: []string{"shop"}}, Policy: retention.Policy{catalog.Daily: 7, catalog.Weekly: 4, catalog.Monthly: 12},
			Grace: 24 * time.Hour, MinKeep: 1, Limit: prune.Limit{Percent: 100}, Now: now,
		},
		Repository: catalog.Repository{Name: "main", Namespace: "backsnap", Address: "s3:main", Cluster: "prod-eu"}, Store: s,
	}
}

// prune is one run at now.
func (s *shelf) prune(now time.Time, change func(*prune.CopyRequest)) (prune.CopyResult, error) {
	r := s.request(now)
	if change != nil {
		change(&r)
	}
	plan, err := prune.PlanCopies(context.Background(), s, r)
	if err != nil {
		return prune.CopyResult{}, err
	}
	return prune.RunCopies(context.Background(), s, func() time.Time { return now }, plan, s), nil
}

// days are the days whose copies are there, each claim's by itself.
func (s *shelf) days(claim string) []string {
	var days []string
	for _, c := range s.copies {
		if c.Claim == claim {
			days = append(days, c.Cut.Format(time.DateOnly))
		}
	}
	slices.Sort(days)
	return days
}

var (
	berlin, _ = time.LoadLocation("Europe/Berlin")
	first     = time.Date(2026, 9, 24, 1, 15, 0, 0, berlin)
	last      = first.AddDate(0, 0, 59) // 2026-11-22
	evening   = last.Add(20 * time.Hour)
)

// sixty are sixty nights of copies; of the last ten the snapshots stand.
func sixty() *shelf {
	s := newShelf()
	for day := range 60 {
		s.add(first.AddDate(0, 0, day), day >= 50, nil, "data", "log")
	}
	return s
}

// kept is what a person would keep by hand: the last seven days, the first of
// the last four weeks, the first of each month. (That of September is the
// first there is.)
var kept = []string{
	"2026-09-24", "2026-10-01", "2026-10-26", "2026-11-01", "2026-11-02", "2026-11-09", "2026-11-16", "2026-11-17", "2026-11-18", "2026-11-19", "2026-11-20", "2026-11-21", "2026-11-22",
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if fmt.Sprintf("%+v", want) != fmt.Sprintf("%+v", got) {
		t.Errorf("%s:\n-want %+v\n+got  %+v", what, want, got)
	}
}

func TestSixtyDaysOfCopies(t *testing.T) {
	s := sixty()
	result, err := s.prune(evening, nil)
	equal(t, "first run", "<nil> <nil> 47 0 0", fmt.Sprint(err, " ", result.Err, " ", len(result.Marked), " ", len(result.Forgotten), " ", s.pruned))
	equal(t, "nothing goes the moment it is condemned", 60, len(s.days("data")))
	result, err = s.prune(evening.Add(23*time.Hour), nil)
	equal(t, "within the grace", "<nil> <nil> 0 0", fmt.Sprint(err, " ", result.Err, " ", len(result.Marked), " ", len(result.Forgotten)))
	result, err = s.prune(evening.Add(24*time.Hour), nil)
	equal(t, "after it", "<nil> <nil> 0 47 true 1 KiB", fmt.Sprint(err, " ", result.Err, " ", len(result.Marked), " ", len(result.Forgotten), " ", result.Pruned, " ", result.Freed))
	for _, claim := range []string{"data", "log"} {
		equal(t, claim, kept, s.days(claim))
	}
	equal(t, "marks left", map[string]string{}, s.marks)
	for name, shot := range s.snapshots {
		if _, there := s.copies[name]; there != (len(shot.Copies) == 1) {
			t.Errorf("%s has %d copies on record, and there is one: %v", name, len(shot.Copies), there)
		}
	}
	result, err = s.prune(evening.Add(25*time.Hour), nil)
	if err != nil {
		t.Error(err)
	}
	equal(t, "again", prune.CopyResult{}, result)
}

// Whichever write is the last that a client does, and whether or not its answer
// comes: the next runs end where an undisturbed one ends, and nothing that is
// kept is lost on the way.
func TestAPruneThatIsKilledConverges(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for writes := 0; ; writes++ {
			s := sixty()
			if _, err := s.prune(evening, nil); err != nil {
				t.Fatal(err)
			}
			s.allowed, s.lost = writes, lost
			result, err := s.prune(evening.Add(24*time.Hour), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, day := range kept {
				if !slices.Contains(s.days("data"), day) {
					t.Fatalf("killed after %d writes: that of %s is lost", writes, day)
				}
			}
			ended := result.Err == nil
			s.allowed = -1
			for i := range 2 {
				if result, err := s.prune(evening.Add(25*time.Hour+time.Duration(i)*time.Minute), nil); err != nil || result.Err != nil {
					t.Fatalf("after %d writes: %v, %v", writes, err, result.Err)
				}
			}
			equal(t, fmt.Sprintf("after %d writes, the last one lost %v", writes, lost), kept, s.days("log"))
			if len(s.marks) > 0 || s.pruned == 0 {
				t.Errorf("after %d writes: marks %v, pruned %d times", writes, s.marks, s.pruned)
			}
			for name, shot := range s.snapshots {
				if _, there := s.copies[name]; there != (len(shot.Copies) == 1) {
					t.Errorf("after %d writes: %s has %d copies on record", writes, name, len(shot.Copies))
				}
			}
			if ended {
				break
			}
		}
	}
}

// What is not known is not judged.
func TestCopiesThatAreNotJudged(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*shelf)
		code   catalog.Code
	}{
		{"the listing was cut", func(s *shelf) { s.short = true }, catalog.CodeListing},
		{"the listing is empty, and copies are on record", func(s *shelf) { s.empty = true }, catalog.CodeCopiesGone},
		{"a copy from tomorrow", func(s *shelf) { s.add(evening.Add(30*time.Hour), false, nil, "data", "log") }, catalog.CodeClock},
	} {
		s := sixty()
		test.change(s)
		_, err := s.prune(evening, nil)
		equal(t, test.name, test.code, catalog.CodeOf(err))
		equal(t, test.name+": marks", map[string]string{}, s.marks)
	}
	s := sixty()
	if _, err := s.prune(evening, func(r *prune.CopyRequest) { r.Limit = prune.Limit{Number: 3} }); catalog.CodeOf(err) != catalog.CodeTooMany || !strings.Contains(err.Error(), "copies in repository main: ") {
		t.Errorf("a brake: %v", err)
	}
	// Some that are missing are said, and no reason to leave the rest.
	delete(s.copies, slices.Sorted(maps.Keys(s.snapshots))[0])
	plan, err := prune.PlanCopies(t.Context(), s, s.request(evening))
	equal(t, "missing", "1 <nil>", fmt.Sprint(plan.Missing, " ", err))
	// What lies there, whosever it says it is, is not missing.
	s.empty, s.doubtful = true, slices.Sorted(maps.Keys(s.snapshots))
	for i, name := range s.doubtful {
		s.doubtful[i] = s.snapshots[name].Copies[0].Snapshot
	}
	plan, err = prune.PlanCopies(t.Context(), s, s.request(evening))
	equal(t, "doubtful", "20 0 0 <nil>", fmt.Sprint(len(plan.Doubtful), " ", plan.Missing, " ", len(plan.Rows), " ", err))
}

func TestAppendOnlyRepositoriesAreLeft(t *testing.T) {
	s := sixty()
	s.refuses = true
	s.prune(evening, nil)
	result, err := s.prune(evening.Add(25*time.Hour), nil)
	equal(t, "result", "<nil> <nil> true false 0 60", fmt.Sprint(err, " ", result.Err, " ", result.Refused, " ", result.Pruned, " ", len(result.Forgotten), " ", len(s.days("data"))))
}

// What a person does to a snapshot that stands counts for its copies, up to the
// last moment.
func TestAPersonSavesCopies(t *testing.T) {
	s := sixty()
	s.prune(evening, nil)
	day := "2026-11-14"
	pin := func() {
		for name, shot := range s.snapshots {
			if shot.Cut.Format(time.DateOnly) == day && shot.Claim == "data" {
				shot.Pinned = true
				s.snapshots[name] = shot
			}
		}
	}
	s.meanwhile = pin
	result, err := s.prune(evening.Add(24*time.Hour), nil)
	equal(t, "pinned between plan and sweep", "<nil> <nil> 46", fmt.Sprint(err, " ", result.Err, " ", len(result.Forgotten)))
	if !slices.Contains(s.days("log"), day) {
		t.Error("a set is judged whole: its other copy is gone")
	}
	result, err = s.prune(evening.Add(25*time.Hour), nil)
	equal(t, "its mark is taken off", "<nil> <nil> 1 map[]", fmt.Sprint(err, " ", result.Err, " ", len(result.Unmarked), " ", s.marks))
}

// Copies of what is kept for some days are kept for those days; after that a
// policy that is given for copies holds. What lacks a volume is judged, and
// never pushes out what is whole.
func TestDatesAndPoliciesOfCopies(t *testing.T) {
	days := func(s *catalog.Snapshot) {
		s.Retain, s.DeleteAfter = "days", s.Cut.AddDate(0, 0, 3).Format(time.DateOnly)
	}
	s := newShelf()
	for day := range 10 {
		s.add(last.AddDate(0, 0, day-9), false, days, "data", "log")
	}
	s.prune(evening, nil)
	equal(t, "by their date, at once", []string{"2026-11-19", "2026-11-20", "2026-11-21", "2026-11-22"}, s.days("data"))
	s = newShelf()
	for day := range 10 {
		s.add(last.AddDate(0, 0, day-9), false, days, "data", "log")
	}
	daily := func(r *prune.CopyRequest) { r.Explicit, r.Policy = true, retention.Policy{catalog.Daily: 5} }
	s.prune(evening, daily)
	s.prune(evening.Add(24*time.Hour), daily)
	equal(t, "beyond their date, by the policy of copies", 9, len(s.days("data")))

	s = newShelf()
	s.claims = catalog.Inventory{Claims: []catalog.Claim{{Namespace: "shop", Name: "data", Annotations: map[string]string{catalog.AnnotationKeep: "daily=1", catalog.AnnotationKeepCopies: "daily=3"}}},
		Namespaces: map[string]map[string]string{"shop": {catalog.AnnotationKeepCopies: "daily=2"}}}
	for day := range 10 {
		s.add(last.AddDate(0, 0, day-9), false, nil, "data", "log")
	}
	s.prune(evening, nil)
	s.prune(evening.Add(24*time.Hour), nil)
	equal(t, "kept as long as the claim that is kept longest", []string{"2026-11-20", "2026-11-21", "2026-11-22"}, s.days("log"))
}

// The date that a person has set on a snapshot is that of its copies, also when
// the snapshot has just gone by it.
func TestCopiesGoWithTheirSnapshot(t *testing.T) {
	s := newShelf()
	for day := range 3 {
		s.add(last.AddDate(0, 0, day-2), true, func(s *catalog.Snapshot) { s.Retain, s.DeleteAfter = "days", "2026-12-24" }, "data")
	}
	for name, shot := range s.snapshots {
		if shot.Cut.Before(last.AddDate(0, 0, -1)) {
			shot.DeleteAfter = "2026-11-21"
			s.snapshots[name] = shot
			s.meanwhile = func() { delete(s.snapshots, name) }
		}
	}
	result, err := s.prune(evening, nil)
	equal(t, "result", "<nil> <nil> 1", fmt.Sprint(err, " ", result.Err, " ", len(result.Forgotten)))
	equal(t, "left", []string{"2026-11-21", "2026-11-22"}, s.days("data"))
}

// One restore point goes at once where that is asked for, and no other.
func TestCopiesGoAtOnce(t *testing.T) {
	s := sixty()
	now := func(r *prune.CopyRequest) {
		r.AtOnce = true
		r.Selects = func(s catalog.Snapshot) bool { return s.Cut.Equal(last) }
	}
	result, err := s.prune(evening, now)
	equal(t, "result", "<nil> <nil> 1 2", fmt.Sprint(err, " ", result.Err, " ", len(result.Forgotten), " ", len(s.forgotten)))
	equal(t, "the rest", 59, len(s.days("data")))
	equal(t, "marks", map[string]string{}, s.marks)
}
