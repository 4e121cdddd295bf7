package retention_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// TestFiveYears runs a snapshot every night and prune every noon for five
// years, with nights that are missed and nights with two runs, and compares
// each day what is there and what is kept with a simulator that knows neither
// labels nor keys.
func TestFiveYears(t *testing.T) {
	seeds := 1
	if os.Getenv("BACKSNAP_FAULTS") == "all" {
		seeds = 100
	}
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe"} { // the last turns its clocks by half an hour
		for _, keep := range []string{"daily=7,weekly=4,monthly=12", "hourly=3,daily=2,weekly=6,monthly=2,yearly=3"} {
			t.Run(zone+" "+keep, func(t *testing.T) {
				for seed := range seeds {
					fiveYears(t, mustZone(zone), policy(t, keep), uint64(seed))
				}
			})
		}
	}
}

func fiveYears(t *testing.T, zone *time.Location, keep retention.Policy, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 5))
	rules := retention.Rules{Policy: keep, Grace: 24 * time.Hour}
	plain := simulator{keep: keep, condemned: map[int]time.Time{}, gone: map[int]bool{}}
	var points []retention.Point
	for day := 0; day < 5*365; day++ {
		for range []int{0, 1, 1, 1, 1, 1, 1, 2}[random.IntN(8)] {
			cut := time.Date(2024, 1, 1+day, random.IntN(4), random.IntN(60), 0, 0, zone)
			if last := len(plain.cuts); last > 0 && !cut.After(plain.cuts[last-1]) {
				continue // the second run of a night is the later one
			}
			points = append(points, nightly(points, len(plain.cuts), cut))
			plain.run(cut, zone)
		}
		noon := time.Date(2024, 1, 1+day, 11, 36, 0, 0, zone)
		verdicts := retention.Judge(points, rules, noon)
		points = done(verdicts, noon)
		kept := map[string]bool{}
		for _, v := range verdicts {
			if v.Decision == retention.Keep {
				kept[v.Point.Name] = true
			}
		}
		there := map[string]bool{}
		for _, p := range points {
			there[p.Name] = true
		}
		wantKept, wantThere := plain.prune(noon)
		if diff := cmp.Diff(wantKept, kept); diff != "" {
			t.Fatalf("seed %d, %s: kept (-want +got):\n%s", seed, noon, diff)
		}
		if diff := cmp.Diff(wantThere, there); diff != "" {
			t.Fatalf("seed %d, %s: there (-want +got):\n%s", seed, noon, diff)
		}
	}
}

// nightly is the point of one run beside those that are there, labelled as the
// run does it.
func nightly(there []retention.Point, number int, cut time.Time) retention.Point {
	var taken []catalog.Snapshot
	for _, p := range there {
		taken = append(taken, catalog.Snapshot{Namespace: "shop", Claim: "data", Ready: true, Periods: p.Members[0].Periods})
	}
	return retention.Point{
		Namespace: "shop", Name: fmt.Sprint(number), App: "statefulset/mysql", Cut: cut, Zone: cut.Location(), State: retention.Good, Consistency: catalog.Application,
		Members: []retention.Member{{
			Name: fmt.Sprint(number), Claim: "data", UID: "1", Retain: "calendar", Periods: catalog.FreePeriods(cut, []string{"data"}, taken),
		}},
	}
}

// simulator is retention in the plainest way: all runs that ever were, and for
// each period the first run of each of the newest stretches of the calendar
// that had one.
type simulator struct {
	keep      retention.Policy
	cuts      []time.Time
	stretches []map[catalog.Period]string // of each run
	condemned map[int]time.Time
	gone      map[int]bool
}

func (s *simulator) run(cut time.Time, zone *time.Location) {
	year, month, day := cut.In(zone).Date()
	monday := time.Date(year, month, day, 12, 0, 0, 0, time.UTC)
	for monday.Weekday() != time.Monday {
		monday = monday.AddDate(0, 0, -1)
	}
	s.cuts = append(s.cuts, cut)
	s.stretches = append(s.stretches, map[catalog.Period]string{
		catalog.Hourly: fmt.Sprint(cut.Unix() / 3600), catalog.Daily: fmt.Sprint(year, month, day), catalog.Weekly: fmt.Sprint(monday),
		catalog.Monthly: fmt.Sprint(year, month), catalog.Yearly: fmt.Sprint(year),
	})
}

// kept are the runs that the policy keeps, and the newest of all.
func (s *simulator) kept() map[int]bool {
	kept := map[int]bool{}
	if len(s.cuts) > 0 {
		kept[len(s.cuts)-1] = true
	}
	for period, n := range s.keep {
		first := map[string]int{} // of the newest n stretches
		for i := len(s.cuts) - 1; i >= 0; i-- {
			stretch := s.stretches[i][period]
			if _, known := first[stretch]; !known && len(first) == n {
				break
			}
			first[stretch] = i
		}
		for i := range maps.Values(first) {
			kept[i] = true
		}
	}
	return kept
}

// prune condemns what is not kept, removes what was condemned a day ago, and
// tells by name what is kept and what is there.
func (s *simulator) prune(now time.Time) (keptNames, thereNames map[string]bool) {
	kept := s.kept()
	keptNames, thereNames = map[string]bool{}, map[string]bool{}
	for i := range s.cuts {
		since, condemned := s.condemned[i]
		switch {
		case kept[i]:
			keptNames[fmt.Sprint(i)] = true
		case !condemned:
			s.condemned[i] = now
		case now.Sub(since) >= 24*time.Hour:
			s.gone[i] = true
		}
		if !s.gone[i] {
			thereNames[fmt.Sprint(i)] = true
		}
	}
	return keptNames, thereNames
}

// Copies in a repository have no labels: the calendar alone gives them what
// the runs would have given.
func TestCalendarIsWhatTheRunsWouldHaveGiven(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	berlin := mustZone("Europe/Berlin")
	var labelled, bare []retention.Point
	for day := range 800 {
		for run := range 1 + random.IntN(2) {
			p := nightly(labelled, len(labelled), time.Date(2026, 1, 1+day, 1+run, random.IntN(60), 0, 0, berlin))
			labelled = append(labelled, p)
			p.Members = slices.Clone(p.Members)
			p.Members[0].Periods, p.Members[0].Retain = nil, "days"
			bare = append(bare, p)
		}
	}
	random.Shuffle(len(bare), func(i, j int) { bare[i], bare[j] = bare[j], bare[i] })
	got := map[string]map[catalog.Period]string{}
	for _, p := range retention.Calendar(bare) {
		got[p.Name] = p.Members[0].Periods
	}
	for _, p := range labelled {
		if diff := cmp.Diff(p.Members[0].Periods, got[p.Name]); diff != "" {
			t.Fatalf("%s: periods (-want +got):\n%s", p.Cut, diff)
		}
	}
	if bare[0].Members[0].Periods != nil {
		t.Error("the points given are changed")
	}
}
