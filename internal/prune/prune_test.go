package prune_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

var now = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

// point is a restore point of claim, cut that day of November 2026.
func point(claim string, day int) catalog.Snapshot {
	cut := time.Date(2026, 11, day, 1, 15, 0, 0, time.UTC)
	s := catalog.Snapshot{
		Namespace: "shop", Name: fmt.Sprintf("%s-%02d", claim, day), Claim: claim, Run: catalog.Run(cut.Format("20060102-150405") + "-aaaa"),
		Consistency: catalog.Crash, Retain: "calendar", Cut: cut, Created: cut, Ready: true, ResourceVersion: "1", Periods: map[catalog.Period]string{},
	}
	s.UID, s.Content = "uid-"+s.Name, "content-"+s.Name
	s.Record = &catalog.Record{
		Version: 1, Run: s.Run, App: "statefulset/db", Members: []string{claim}, TimeZone: "UTC", Cut: cut, Consistency: catalog.Crash,
		Claim: catalog.ClaimRecord{Name: claim, UID: "uid-" + claim},
	}
	return s
}

func daily(s catalog.Snapshot) catalog.Snapshot {
	return s.WithPeriods(map[catalog.Period]string{catalog.Daily: s.Cut.Format(time.DateOnly)})
}

// due is s marked two days ago, to be swept by now.
func due(s catalog.Snapshot) catalog.Snapshot {
	s.DeleteAfter, s.Marked = "20261121T090000Z", now.AddDate(0, 0, -2)
	return s
}

func request() prune.Request {
	return prune.Request{
		Run: "20261122-090000-x7k2", Policy: retention.Policy{catalog.Daily: 7}, Grace: 24 * time.Hour, MinKeep: 1, Limit: prune.Limit{Number: 100}, Now: now,
		Parallel: 4, Timeout: time.Minute,
	}
}

// run plans and runs; the outcomes are by name.
func run(t *testing.T, ctx context.Context, f *fake, r prune.Request) (prune.Result, map[string]prune.Outcome) {
	t.Helper()
	plan, err := prune.MakePlan(ctx, f, r)
	if err != nil {
		t.Fatal(err)
	}
	return runPlan(t, ctx, f, plan)
}

func runPlan(t *testing.T, ctx context.Context, f *fake, plan prune.Plan) (prune.Result, map[string]prune.Outcome) {
	t.Helper()
	result, err := prune.Run(ctx, f, func() time.Time { return now }, plan, quiet{})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[string]prune.Outcome{}
	for _, item := range result.Items {
		outcomes[item.Snapshot.Name] = item.Outcome
	}
	return result, outcomes
}

func TestRun(t *testing.T) {
	retained := func(f *fake, name string) {
		content := f.contents[name]
		content.Policy = "Retain"
		f.contents[name] = content
	}
	both := func(s catalog.Snapshot) catalog.Snapshot {
		record := *s.Record
		record.Members, s.Record = []string{"data", "logs"}, &record
		return s
	}
	for _, c := range []struct {
		name      string
		snapshots []catalog.Snapshot
		prepare   func(f *fake, r *prune.Request)
		want      map[string]prune.Outcome
		did       []string // sorted
	}{
		{
			name:      "one is marked, one swept, the newest stays",
			snapshots: []catalog.Snapshot{due(point("data", 1)), point("data", 2), daily(point("data", 21))},
			want:      map[string]prune.Outcome{"data-01": prune.Deleted, "data-02": prune.Marked},
			did:       []string{"delete data-01", "label data-02", "mirror content-data-02"},
		},
		{
			name:      "a retained content is made to go",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare:   func(f *fake, _ *prune.Request) { retained(f, "content-data-01") },
			want:      map[string]prune.Outcome{"data-01": prune.Deleted},
			did:       []string{"Delete content-data-01", "delete data-01"},
		},
		{
			name:      "a retained content that the controller lets stand is deleted all the same",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare: func(f *fake, _ *prune.Request) {
				retained(f, "content-data-01")
				f.late = true
			},
			want: map[string]prune.Outcome{"data-01": prune.Deleted},
			did:  []string{"Delete content-data-01", "delete content-data-01", "delete data-01"},
		},
		{
			name:      "what a dead run has left of a sweep goes",
			snapshots: []catalog.Snapshot{daily(point("data", 21))},
			prepare: func(f *fake, r *prune.Request) {
				r.Scope.Namespaces = []string{"shop"}
				for name, lent := range map[string]bool{"left": true, "retained": false} {
					f.contents[name] = catalog.Content{Name: name, Ours: true, Policy: "Delete", Lent: lent, Namespace: "shop", Snapshot: "gone", SnapshotUID: "uid-gone"}
				}
			},
			want: map[string]prune.Outcome{},
			did:  []string{"delete left"},
		},
		{
			name:      "one that is relabelled at the last moment stays, and its content is retained again",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare: func(f *fake, _ *prune.Request) {
				retained(f, "content-data-01")
				f.before = func(f *fake, verb, name string) {
					if verb == "delete" {
						f.touch(name, func(s *catalog.Snapshot) { s.DeleteAfter = "" })
					}
				}
			},
			want: map[string]prune.Outcome{"data-01": prune.Kept},
			did:  []string{"Delete content-data-01", "Retain content-data-01"},
		},
		{
			name:      "one member that was relabelled keeps its set",
			snapshots: []catalog.Snapshot{both(due(point("data", 1))), both(due(point("logs", 1))), daily(point("data", 21)), daily(point("logs", 20))},
			prepare: func(f *fake, r *prune.Request) {
				r.Selects = func(s catalog.Snapshot) bool { // what is called last of all reading
					f.touch("logs-01", func(s *catalog.Snapshot) { s.DeleteAfter = "" })
					return true
				}
			},
			want: map[string]prune.Outcome{"data-01": prune.Kept, "logs-01": prune.Kept},
		},
		{
			name:      "what a mover copies stays",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare: func(f *fake, _ *prune.Request) {
				static := f.contents["content-data-01"]
				static.Name, static.Role, static.Namespace, static.Policy = "static", catalog.RoleStatic, "backsnap", "Retain"
				f.contents["static"] = static
			},
			want: map[string]prune.Outcome{},
		},
		{
			name:      "what a claim is being filled from stays",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare: func(f *fake, _ *prune.Request) {
				f.claims = []catalog.Claim{{Namespace: "shop", Name: "clone", Phase: "Pending", FilledFrom: "shop/data-01"}}
			},
			want: map[string]prune.Outcome{},
		},
		{
			name:      "what a dead run was about to sweep, and nobody sweeps any more, is retained again",
			snapshots: []catalog.Snapshot{daily(point("data", 20)), daily(point("data", 21))},
			prepare: func(f *fake, _ *prune.Request) {
				content := f.contents["content-data-20"]
				content.Lent = true
				f.contents["content-data-20"] = content
			},
			want: map[string]prune.Outcome{},
			did:  []string{"Retain content-data-20"},
		},
		{
			name:      "labels that were taken off are taken off contents",
			snapshots: []catalog.Snapshot{daily(point("data", 21))},
			prepare: func(f *fake, _ *prune.Request) {
				f.contents["content-data-21"].Labels[catalog.LabelDeleteAfter] = "2026-11-01"
			},
			want: map[string]prune.Outcome{},
			did:  []string{"mirror content-data-21"},
		},
		{
			name:      "a snapshot that is bound to no content stops nothing",
			snapshots: []catalog.Snapshot{func() catalog.Snapshot { s := due(point("data", 1)); s.Content = ""; return s }(), due(point("data", 2)), daily(point("data", 21))},
			want:      map[string]prune.Outcome{"data-01": prune.Deleted, "data-02": prune.Deleted},
			did:       []string{"delete data-01", "delete data-02"},
		},
		{
			name:      "who may not read contents sweeps all the same",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare:   func(f *fake, _ *prune.Request) { f.forbidden = "Contents" },
			want:      map[string]prune.Outcome{"data-01": prune.Deleted},
			did:       []string{"delete data-01"},
		},
		{
			name:      "who may not watch contents is told that nobody has seen them go",
			snapshots: []catalog.Snapshot{due(point("data", 1)), daily(point("data", 21))},
			prepare:   func(f *fake, _ *prune.Request) { f.forbidden = "FollowContents" },
			want:      map[string]prune.Outcome{"data-01": prune.Stuck},
			did:       []string{"delete data-01"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFake(c.snapshots...), request()
				if c.prepare != nil {
					c.prepare(f, &r)
				}
				_, got := run(t, t.Context(), f, r)
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("outcomes (-want +got):\n%s", diff)
				}
				slices.Sort(f.did)
				if diff := cmp.Diff(c.did, f.did); diff != "" {
					t.Errorf("writes (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A storage that lets go of nothing costs one time-out a place, not one a
// snapshot; what another driver has goes.
func TestAStorageThatKeepsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []catalog.Snapshot
		for day := 1; day <= 18; day++ {
			all = append(all, due(point("data", day)))
		}
		f, r := newFake(append(all, daily(point("data", 21)), due(point("logs", 1)), daily(point("logs", 20)))...), request()
		for day := 1; day <= 18; day++ {
			f.keeps[fmt.Sprintf("content-data-%02d", day)] = true
		}
		other := f.contents["content-logs-01"]
		other.Driver = "other.example.com"
		f.contents["content-logs-01"] = other
		began := time.Now()
		result, got := run(t, t.Context(), f, r)
		count := map[prune.Outcome]int{}
		for _, o := range got {
			count[o]++
		}
		// While the first four time out, at most three more take their places.
		if stuck := count[prune.Stuck]; stuck < 4 || stuck > 7 || stuck+count[prune.PutOff] != 18 || count[prune.Deleted] != 1 {
			t.Errorf("outcomes %v", count)
		}
		if took := time.Since(began); took > 2*r.Timeout {
			t.Errorf("took %s", took)
		}
		for _, item := range result.Items {
			if item.Outcome != prune.Stuck {
				continue
			}
			if catalog.CodeOf(item.Err) != catalog.CodeStuck || !strings.HasSuffix(item.Err.Error(), ": SnapshotDeleteError: Failed to delete snapshot") {
				t.Errorf("%s: %v", item.Snapshot.Name, item.Err)
			}
		}
	})
}

// ^C while the storage is waited for ends the wait, and says what is not known.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(due(point("data", 1)), daily(point("data", 21)))
		f.keeps["content-data-01"] = true
		ctx, cancel := context.WithCancelCause(t.Context())
		f.before = func(_ *fake, verb, _ string) {
			if verb == "delete" {
				time.AfterFunc(time.Second, func() { cancel(&catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal interrupt"}) })
			}
		}
		result, got := run(t, ctx, f, request())
		if got["data-01"] != prune.Stuck || catalog.CodeOf(result.Items[0].Err) != catalog.CodeInterrupted {
			t.Errorf("%v: %v", got, result.Items[0].Err)
		}
	})
}

func TestBrakes(t *testing.T) {
	week := func() []catalog.Snapshot {
		all := []catalog.Snapshot{daily(point("data", 21))}
		for day := 1; day <= 7; day++ {
			all = append(all, due(point("data", day)))
		}
		return all
	}
	future := daily(point("data", 21))
	future.Created = now.Add(6 * time.Minute)
	for _, c := range []struct {
		name      string
		snapshots []catalog.Snapshot
		limit     prune.Limit
		want      catalog.Code
	}{
		{"more than a share", week(), prune.Limit{Percent: 25}, catalog.CodeTooMany},
		{"more than a number", week(), prune.Limit{Number: 6}, catalog.CodeTooMany},
		{"as many as the number", week(), prune.Limit{Number: 7}, ""},
		{"more marks than a share", []catalog.Snapshot{point("data", 1), point("data", 2), daily(point("data", 21))}, prune.Limit{Percent: 25}, catalog.CodeTooMany},
		{"one of three is no more than a quarter", []catalog.Snapshot{point("data", 1), daily(point("data", 20)), daily(point("data", 21))}, prune.Limit{Percent: 25}, ""},
		{"the clock is behind what was cut", []catalog.Snapshot{future}, prune.Limit{Percent: 25}, catalog.CodeClock},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, r := newFake(c.snapshots...), request()
			r.Limit = c.limit
			if _, err := prune.MakePlan(t.Context(), f, r); catalog.CodeOf(err) != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

func TestOneIsRemovedNow(t *testing.T) {
	named := func(name string) func(catalog.Snapshot) bool {
		return func(s catalog.Snapshot) bool { return s.Name == name }
	}
	pinned := daily(point("data", 20))
	pinned.Pinned = true
	f := newFake(daily(point("data", 19)), pinned, daily(point("logs", 21)))
	for _, c := range []struct {
		name string
		last bool
		code catalog.Code
	}{{"data-19", false, ""}, {"data-20", false, catalog.CodeUsage}, {"logs-21", true, ""}, {"none", false, catalog.CodeNotFound}} {
		r := request()
		r.Selects = named(c.name)
		plan, last, err := prune.MakeNowPlan(t.Context(), f, r, "vs/"+c.name)
		if last != c.last || catalog.CodeOf(err) != c.code {
			t.Errorf("%s: last %v, %v", c.name, last, err)
		}
		if c.code == "" && (len(plan.Rows) != 1 || plan.Rows[0].Does != retention.Sweep) {
			t.Errorf("%s: %+v", c.name, plan.Rows)
		}
	}
	r := request()
	r.Selects = named("logs-21")
	plan, _, err := prune.MakeNowPlan(t.Context(), f, r, "vs/logs-21")
	if err != nil {
		t.Fatal(err)
	}
	if _, got := runPlan(t, t.Context(), f, plan); got["logs-21"] != prune.Deleted {
		t.Errorf("%v", got)
	}
}

func TestUnmarkPins(t *testing.T) {
	f := newFake(due(point("data", 1)), daily(point("data", 21)))
	r := request()
	r.Selects = func(s catalog.Snapshot) bool { return s.Name == "data-01" }
	plan, err := prune.MakeUnmarkPlan(t.Context(), f, r, "vs/data-01")
	if err != nil {
		t.Fatal(err)
	}
	_, got := runPlan(t, t.Context(), f, plan)
	want := point("data", 1)
	want.Pinned, want.PinnedAs, want.ResourceVersion = true, catalog.Unmarked, "1+"
	if diff := cmp.Diff(want, f.snapshots["data-01"]); diff != "" || got["data-01"] != prune.Unmarked {
		t.Errorf("%v, snapshot (-want +got):\n%s", got, diff)
	}
	// And nothing moves it.
	if _, got := run(t, t.Context(), f, request()); len(got) > 0 {
		t.Errorf("then %v", got)
	}
}

func TestLimit(t *testing.T) {
	for text, want := range map[string]prune.Limit{"25%": {Percent: 25}, "100%": {Percent: 100}, "0": {}, "12": {Number: 12}} {
		if got, err := prune.ParseLimit(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "0%", "101%", "-1", "a quarter"} {
		if got, err := prune.ParseLimit(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
