package snapshot_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

const deadRun = catalog.Run("20261120-011500-dead")

// unfinished is a snapshot that deadRun has left, bent.
func unfinished(f *fake, name string, bend func(*catalog.Snapshot)) {
	s := catalog.Snapshot{Namespace: "shop", Name: name, UID: "uid-" + name, Claim: name, Run: deadRun, Retain: "days"}
	bend(&s)
	f.snapshots[s.Namespace+"/"+s.Name] = s
}

// sweeping is for a run that holds shop, while those runs work.
func sweeping(working ...catalog.Run) snapshot.Sweeping {
	return snapshot.Sweeping{
		Run: "20261122-011500-x7k2", Namespaces: []string{"shop"},
		Working: func(context.Context) (map[catalog.Run]bool, error) {
			set := map[catalog.Run]bool{}
			for _, run := range working {
				set[run] = true
			}
			return set, nil
		},
	}
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s:\n-want %v\n+got  %v", what, want, got)
	}
}

func TestSweepDeletesWhatDeadRunsLeftUnfinished(t *testing.T) {
	f, w := newFake(nil), &seen{}
	unfinished(f, "left", func(*catalog.Snapshot) {})
	unfinished(f, "good", func(s *catalog.Snapshot) { s.Consistency = catalog.Crash })
	unfinished(f, "unlabelled by hand", func(s *catalog.Snapshot) { s.Record = &catalog.Record{} })
	unfinished(f, "static", func(s *catalog.Snapshot) { s.Role = catalog.RoleStatic })
	unfinished(f, "own", func(s *catalog.Snapshot) { s.Run = "20261122-011500-x7k2" })
	unfinished(f, "going", func(s *catalog.Snapshot) { s.Terminating = true })
	unfinished(f, "working", func(s *catalog.Snapshot) { s.Run = "20261121-011500-busy" })
	unfinished(f, "elsewhere", func(s *catalog.Snapshot) { s.Namespace = "crm" })
	if err := snapshot.Sweep(t.Context(), f, time.Now, sweeping("20261121-011500-busy"), w); err != nil {
		t.Error(err)
	}
	same(t, "calls", []string{"delete shop/left"}, f.calls)
	same(t, "told", []string{"sweep: run " + string(deadRun) + " has ended without it: removing the unfinished snapshot"}, w.warnings())
}

// Which runs work is asked only when that matters.
func TestSweepOfNothingAsksNothing(t *testing.T) {
	f := newFake(nil)
	unfinished(f, "good", func(s *catalog.Snapshot) { s.Consistency = catalog.Crash })
	s := sweeping()
	s.Working = func(context.Context) (map[catalog.Run]bool, error) {
		t.Error("it was asked which runs work")
		return nil, nil
	}
	if err := snapshot.Sweep(t.Context(), f, time.Now, s, &seen{}); err != nil {
		t.Error(err)
	}
}

func TestSweepOfOneRun(t *testing.T) {
	f := newFake(nil)
	unfinished(f, "left", func(*catalog.Snapshot) {})
	unfinished(f, "other", func(s *catalog.Snapshot) { s.Run = "20261121-011500-aaaa" })
	s := sweeping()
	s.Only = deadRun
	if err := snapshot.Sweep(t.Context(), f, time.Now, s, &seen{}); err != nil {
		t.Error(err)
	}
	same(t, "calls", []string{"delete shop/left"}, f.calls)
}

// One that cannot be deleted stops no other.
func TestSweepGoesOn(t *testing.T) {
	f := newFake(nil)
	unfinished(f, "a", func(*catalog.Snapshot) {})
	unfinished(f, "b", func(*catalog.Snapshot) {})
	f.failDelete = "a"
	if err := snapshot.Sweep(t.Context(), f, time.Now, sweeping(), &seen{}); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	same(t, "calls", []string{"delete shop/b"}, f.calls)
}

// What others hold counts as removed after half a minute, and is named.
func TestSweepNamesWhoHoldsASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, w := newFake(nil), &seen{}
		unfinished(f, "left", func(*catalog.Snapshot) {})
		f.holds = []string{"example.com/hold"}
		began := time.Now()
		if err := snapshot.Sweep(t.Context(), f, time.Now, sweeping(), w); err != nil {
			t.Error(err)
		}
		same(t, "took", 30*time.Second, time.Since(began))
		same(t, "told", []string{
			"sweep: it is deleted, and held by another's finalizer: example.com/hold",
			"sweep: run " + string(deadRun) + " has ended without it: removing the unfinished snapshot",
		}, w.warnings())
	})
}
