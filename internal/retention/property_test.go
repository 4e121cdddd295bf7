package retention_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// histories has rapid try so many histories: the same ones in every
// `make check`, 50 times as many new ones in `make faults`. A seed that fails
// is printed, and what it made is shrunk.
func histories(t *testing.T, checks int, property func(*rapid.T)) {
	t.Helper()
	seed := "20261122"
	if os.Getenv("BACKSNAP_FAULTS") == "all" {
		checks, seed = 50*checks, "0"
	}
	for name, value := range map[string]string{"rapid.checks": strconv.Itoa(checks), "rapid.seed": seed} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, property)
}

// history is what a cluster may hold, and what it is judged by.
type history struct {
	points []retention.Point
	rules  retention.Rules
}

var (
	zones    = []*time.Location{time.UTC, mustZone("Europe/Berlin"), mustZone("America/New_York"), mustZone("Pacific/Apia")}
	states   = []retention.State{retention.Partial, retention.Unready, retention.Failed, retention.Safety, retention.Foreign}
	retains  = []string{"calendar", "calendar", "calendar", "calendar", "days", "copied", "", "forever"}
	unusable = []string{"x", "0", "2026-13-01", "w47"}
)

func mustZone(name string) *time.Location {
	zone, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return zone
}

// draw makes a history: mostly what runs leave behind, here and there what a
// person, a crash or a broken storage makes of it.
func draw(t *rapid.T) history {
	h := history{rules: retention.Rules{
		Policy:  retention.Policy{},
		Grace:   time.Duration(rapid.IntRange(0, 3).Draw(t, "grace")) * 12 * time.Hour,
		MinKeep: rapid.IntRange(0, 3).Draw(t, "minKeep"),
	}}
	for _, p := range catalog.Periods {
		if n := rapid.IntRange(0, 4).Draw(t, string(p)); n > 0 {
			h.rules.Policy[p] = n
		}
	}
	cut := now
	for i := range rapid.IntRange(0, 14).Draw(t, "points") {
		cut = cut.Add(-time.Duration(rapid.SampledFrom([]int{1, 5, 23, 24, 24, 24, 25, 47, 24 * 6, 24 * 20}).Draw(t, "hours")) * time.Hour)
		h.points = append(h.points, drawPoint(t, i, cut))
	}
	h.points = label(h.points)
	for i := range h.points {
		for m := range h.points[i].Members {
			tamper(t, &h.points[i], &h.points[i].Members[m])
		}
	}
	return h
}

func drawPoint(t *rapid.T, i int, cut time.Time) retention.Point {
	kind := rapid.IntRange(0, 1<<20-1).Draw(t, "point")
	take := func(n int) int { // a part of kind: fewer draws make more histories
		part := kind % n
		kind /= n
		return part
	}
	p := retention.Point{
		Namespace: "shop", Name: fmt.Sprintf("%02d", i), App: "statefulset/mysql", Cut: cut, State: retention.Good, Consistency: catalog.Application,
		Zone: zones[take(len(zones))],
	}
	if take(4) == 3 {
		p.State, p.Because = states[take(len(states))], "because"
	}
	if take(3) == 2 {
		p.Consistency = catalog.Crash
	}
	claims := [][]string{{"data"}, {"data", "wal"}, {"wal"}, {"data"}}[take(4)]
	for _, claim := range claims {
		p.Members = append(p.Members, retention.Member{Name: claim + p.Name, Claim: claim, UID: []string{"1", "1", "1", "2"}[take(4)], Retain: "calendar"})
	}
	if take(40) == 39 {
		p.Cut = now.Add(9 * time.Hour)
	}
	return p
}

// label is points with the labels that their runs would have given them.
func label(points []retention.Point) []retention.Point { return retention.Calendar(points) }

// tamper does to a member's labels what persons and prune do.
func tamper(t *rapid.T, p *retention.Point, m *retention.Member) {
	kind := rapid.IntRange(0, 1<<20-1).Draw(t, "tamper")
	take := func(n int) int {
		part := kind % n
		kind /= n
		return part
	}
	if take(3) == 2 {
		m.Retain = retains[take(len(retains))]
	}
	switch take(13) { // 0 and the highest change nothing
	case 10:
		m.Pinned = true
	case 1:
		m.DeleteAfter = p.Cut.AddDate(0, 0, take(60)).Format(time.DateOnly)
	case 2:
		m.DeleteAfter = catalog.MarkUntil(p.Cut.Add(time.Duration(take(60)) * 12 * time.Hour))
	case 3, 4:
		m.Marked = now.Add(-time.Duration(take(9)) * 7 * time.Hour)
		m.DeleteAfter = catalog.MarkUntil(m.Marked.Add(24 * time.Hour))
	case 5:
		m.Marked = now.Add(-time.Hour)
	case 6:
		m.Periods = nil
	case 7:
		m.Periods = map[catalog.Period]string{catalog.Daily: now.AddDate(0, 0, -take(9)).Format(time.DateOnly)}
	case 8:
		if take(4) == 0 {
			m.DeleteAfter = unusable[take(len(unusable))]
		}
	case 9:
		m.Copied = take(2) == 0
	}
}

// TestProperties holds the promises of the judging against random histories.
func TestProperties(t *testing.T) {
	histories(t, 20000, func(t *rapid.T) {
		h := draw(t)
		verdicts := retention.Judge(h.points, h.rules, now)
		everyPointIsDecided(t, h, verdicts)
		theNewestGoodStays(t, h, verdicts)
		noMoreThanThePolicy(t, h, verdicts)
		thePinnedStay(t, verdicts)
		onlyWhatMayGoes(t, verdicts)
		theOrderDoesNotMatter(t, h, verdicts)
		twiceChangesNothing(t, h, verdicts)
		laterSweepsMore(t, h, verdicts)
	})
}

// everyPointIsDecided: keep, mark, sweep and what is left are all there is,
// each once and with a reason.
func everyPointIsDecided(t *rapid.T, h history, verdicts []retention.Verdict) {
	seen := map[string]bool{}
	for _, v := range verdicts {
		switch v.Decision {
		case retention.Keep, retention.Mark, retention.Marked, retention.Unmark, retention.Sweep, retention.Leave:
		default:
			t.Fatalf("%s: decision %q", v.Point.Name, v.Decision)
		}
		if v.Reason == "" || seen[v.Point.Name] {
			t.Fatalf("%s: reason %q, seen before: %t", v.Point.Name, v.Reason, seen[v.Point.Name])
		}
		seen[v.Point.Name] = true
	}
	if len(seen) != len(h.points) {
		t.Fatalf("%d verdicts on %d points", len(seen), len(h.points))
	}
}

// theNewestGoodStays: of each claim the newest good points are not marked, and
// not swept, and neither is the newest that is consistent for the application.
func theNewestGoodStays(t *rapid.T, h history, verdicts []retention.Verdict) {
	for _, claim := range []string{"data", "wal"} {
		for _, uid := range []string{"1", "2"} {
			good, proven := 0, false
			for _, v := range verdicts { // the newest first
				of := func(m retention.Member) bool { return m.Claim == claim && m.UID == uid }
				if v.Point.State != retention.Good || v.Err != nil || !slices.ContainsFunc(v.Point.Members, of) {
					continue
				}
				good++
				first := v.Point.Consistency == catalog.Application && !proven
				proven = proven || first
				if (good <= max(h.rules.MinKeep, 1) || first) && v.Decision != retention.Keep && v.Decision != retention.Unmark {
					t.Fatalf("%s is number %d of the good ones of %s, and %s", v.Point.Name, good, claim, said(v))
				}
			}
		}
	}
}

// noMoreThanThePolicy: periods keep no more keys of a claim than the policy has
// numbers.
func noMoreThanThePolicy(t *rapid.T, h history, verdicts []retention.Verdict) {
	type scope struct {
		claim  string
		period catalog.Period
	}
	keys := map[scope]map[string]bool{}
	for _, v := range verdicts {
		period := catalog.Period(v.KeptAs)
		if !slices.Contains(catalog.Periods, period) || v.Point.State != retention.Good || len(v.Point.Members) > 1 {
			continue
		}
		at := scope{v.Point.Members[0].Claim, period}
		if keys[at] == nil {
			keys[at] = map[string]bool{}
		}
		keys[at][v.Point.Members[0].Periods[period]] = true
	}
	for at, kept := range keys {
		if len(kept) > h.rules.Policy[at.period] {
			t.Fatalf("%s keeps %d %s keys by %s", at.claim, len(kept), at.period, h.rules.Policy)
		}
	}
}

func thePinnedStay(t *rapid.T, verdicts []retention.Verdict) {
	for _, v := range verdicts {
		removed := v.Decision == retention.Mark || v.Decision == retention.Marked || v.Decision == retention.Sweep
		if removed && slices.ContainsFunc(v.Point.Members, func(m retention.Member) bool { return m.Pinned }) {
			t.Fatalf("%s is pinned, and %s", v.Point.Name, said(v))
		}
	}
}

// onlyWhatMayGoes: nothing is swept that is not ready or not ours, whose labels
// are wrong, or, where there is a grace, that carries no date or one to come.
func onlyWhatMayGoes(t *rapid.T, verdicts []retention.Verdict) {
	for _, v := range verdicts {
		if v.Decision != retention.Sweep {
			continue
		}
		if v.Err != nil || v.Point.State == retention.Unready || v.Point.State == retention.Foreign || v.When.After(now) {
			t.Fatalf("%s is %s, wrong by %v, due %s, and %s", v.Point.Name, v.Point.State, v.Err, v.When, said(v))
		}
	}
}

func theOrderDoesNotMatter(t *rapid.T, h history, verdicts []retention.Verdict) {
	shuffled := slices.Clone(h.points)
	random := rand.New(rand.NewPCG(uint64(len(h.points)), 1))
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	again := retention.Judge(shuffled, h.rules, now)
	for i := range verdicts {
		if said(again[i]) != said(verdicts[i]) || again[i].Point.Name != verdicts[i].Point.Name {
			t.Fatalf("%s: %s; in another order %s: %s", verdicts[i].Point.Name, said(verdicts[i]), again[i].Point.Name, said(again[i]))
		}
	}
}

// twiceChangesNothing: once done, nothing is left to do.
func twiceChangesNothing(t *rapid.T, h history, verdicts []retention.Verdict) {
	for _, v := range retention.Judge(done(verdicts, now), h.rules, now) {
		switch v.Decision {
		case retention.Mark, retention.Unmark, retention.Sweep:
			t.Fatalf("%s: %s, and then: %s", v.Point.Name, said(of(verdicts, v.Point.Name)), said(v))
		}
	}
}

// laterSweepsMore: what is swept now would be swept the day after tomorrow.
func laterSweepsMore(t *rapid.T, h history, verdicts []retention.Verdict) {
	later := retention.Judge(h.points, h.rules, now.Add(48*time.Hour))
	for _, v := range verdicts {
		if v.Decision == retention.Sweep && of(later, v.Point.Name).Decision != retention.Sweep {
			t.Fatalf("%s: %s, and the day after tomorrow: %s", v.Point.Name, said(v), said(of(later, v.Point.Name)))
		}
	}
}

func of(verdicts []retention.Verdict, name string) retention.Verdict {
	i := slices.IndexFunc(verdicts, func(v retention.Verdict) bool { return v.Point.Name == name })
	return verdicts[i]
}

// done is what is left of the points once what was decided is done, as the
// verb does it.
func done(verdicts []retention.Verdict, now time.Time) []retention.Point {
	var left []retention.Point
	for _, v := range verdicts {
		p := v.Point
		p.Members = slices.Clone(p.Members)
		for i := range p.Members {
			if m := &p.Members[i]; slices.Contains(v.On, m.Name) {
				m.Marked, m.DeleteAfter = time.Time{}, ""
				if v.Decision == retention.Mark {
					m.Marked, m.DeleteAfter = now, catalog.MarkUntil(v.When)
				}
			}
		}
		if v.Decision != retention.Sweep {
			left = append(left, p)
		}
	}
	return left
}

// The drawing itself must reach what the properties speak of.
func TestHistoriesHoldEverything(t *testing.T) {
	seen := map[string]bool{}
	generator := rapid.Custom(draw)
	for seed := range 3000 {
		h := generator.Example(seed)
		for _, v := range retention.Judge(h.points, h.rules, now) {
			seen[string(v.Decision)] = true
			seen[string(v.Point.State)] = true
			seen["as "+v.KeptAs] = true
			seen[fmt.Sprintf("wrong %t", v.Err != nil)] = true
			seen[fmt.Sprintf("protected %t", v.Protected)] = true
		}
	}
	for _, want := range []string{
		"keep", "mark", "marked", "unmark", "sweep", "leave", "good", "partial", "unready", "failed", "safety", "foreign",
		"as hourly", "as daily", "as weekly", "as monthly", "as yearly", "as pinned", "as newest", "as unmarked", "as copied", "as days", "wrong true", "protected true",
	} {
		if !seen[want] {
			t.Errorf("no history of 3000 has %q: %v", want, reflect.ValueOf(seen).MapKeys())
		}
	}
}
