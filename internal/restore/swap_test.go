package restore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

const (
	liveNow  = "live data (Delete), live logs (Delete), 2 replicas"
	setNow   = "set data (Delete), set logs (Delete), 2 replicas"
	otherRun = catalog.Run("20261122-091500-y8l3") // in the same second
)

var (
	keptLive = []string{"live data (Retain)", "live logs (Retain)"}
	keptSet  = []string{"set data (Retain)", "set logs (Retain)"}
)

func swapRequest(run catalog.Run) restore.SwapRequest {
	r := request()
	r.Run, r.Target, r.Parallel = run, restore.Target{Namespace: "shop", Kind: "statefulset", Name: "mysql"}, 1
	return restore.SwapRequest{Request: r, Terms: terms, Now: now()}
}

var terms = restore.Terms{AppTimeout: time.Minute, Grace: restore.DefaultGrace}

// inPlace is the command `restore statefulset/mysql --in-place`, as run.
func (w *swapWorld) inPlace(ctx context.Context, run catalog.Run) (restore.SwapResult, error) {
	begun, err := restore.Unfinished(ctx, w, swapRequest(run).Target)
	if err != nil {
		return restore.SwapResult{}, err
	}
	if begun != nil {
		return restore.Finish(ctx, w, now, *begun, terms, &watcher{})
	}
	p, err := restore.MakeSwapPlan(ctx, w, swapRequest(run))
	if err != nil {
		return restore.SwapResult{}, err
	}
	return restore.RunSwap(ctx, w, w.follow, now, p, &watcher{})
}

func (w *swapWorld) rollBack(ctx context.Context, run catalog.Run) error {
	s, err := restore.FindSwap(ctx, w, "shop", run)
	if err == nil {
		_, err = restore.RollBack(ctx, w, now, s, terms, &watcher{})
	}
	return err
}

func (w *swapWorld) commit(ctx context.Context, run catalog.Run) error {
	s, err := restore.FindSwap(ctx, w, "shop", run)
	if err == nil {
		err = restore.Commit(ctx, w, s, now().Add(terms.Grace), false, time.Minute)
	}
	return err
}

// stands compares what the app serves and what there is besides.
func (w *swapWorld) stands(when, serves string, aside []string) {
	w.t.Helper()
	if got := w.serves(); got != serves {
		w.t.Errorf("%s: the app serves %s, want %s", when, got, serves)
	}
	if diff := cmp.Diff(aside, w.aside()); diff != "" {
		w.t.Errorf("%s: besides (-want +got):\n%s", when, diff)
	}
}

func must(t *testing.T, when string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

func TestInPlace(t *testing.T) {
	w := newSwapWorld(t)
	result, err := w.inPlace(t.Context(), run)
	must(t, "restore", err)
	is(t, result.Done, true)
	w.stands("restored", setNow, keptLive)
	is(t, len(w.safety), 2)
	for _, s := range w.safety {
		is(t, s.DeleteAfter, "2026-11-29")
		is(t, s.Role, catalog.RoleSafety)
	}
	// The app stands still as shortly as can be.
	i := slices.Index(w.writes, "scale to 0")
	want := []string{"scale to 0", "remove claim data", "make claim data again", "remove claim logs", "make claim logs again", "scale to 2"}
	if diff := cmp.Diff(want, w.writes[i:i+len(want)]); diff != "" {
		t.Errorf("downtime (-want +got):\n%s", diff)
	}
	must(t, "roll back", w.rollBack(t.Context(), run))
	w.stands("rolled back", liveNow, keptSet)
	must(t, "roll back again", w.rollBack(t.Context(), run))
	w.stands("rolled back again", liveNow, keptSet)
	must(t, "commit", w.commit(t.Context(), run))
	w.stands("committed", liveNow, nil)
	is(t, catalog.CodeOf(w.commit(t.Context(), run)), catalog.CodeNotFound)
}

// What was replaced has its grace, counted from the last exchange, unless a
// person gives it another or none.
func TestCommitInGrace(t *testing.T) {
	for name, c := range map[string]struct {
		label  string // a person's, on one volume; "" for that of the run
		passed time.Duration
		atOnce bool
		want   catalog.Code
	}{
		"at once":                        {"", 0, false, catalog.CodeGrace},
		"a second too early":             {"", restore.DefaultGrace - time.Second, false, catalog.CodeGrace},
		"when it is over":                {"", restore.DefaultGrace, false, ""},
		"at once, on purpose":            {"", 0, true, ""},
		"a person's day is kept through": {"2026-12-24", 3 * restore.DefaultGrace, false, catalog.CodeGrace},
		"a person's word nobody reads":   {"christmas", 90 * restore.DefaultGrace, false, catalog.CodeGrace},
		"that on purpose":                {"christmas", 0, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSwapWorld(t)
			_, err := w.inPlace(t.Context(), run)
			must(t, "restore", err)
			is(t, w.volumes["pv-data"].DeleteAfter, catalog.MarkUntil(now().Add(restore.DefaultGrace)))
			if c.label != "" {
				w.volumes["pv-logs"].DeleteAfter = c.label
			}
			s, err := restore.FindSwap(t.Context(), w, "shop", run)
			must(t, "find", err)
			err = restore.Commit(t.Context(), w, s, now().Add(c.passed), c.atOnce, time.Minute)
			is(t, catalog.CodeOf(err), c.want)
			if c.want != "" {
				w.stands("refused", setNow, keptLive)
			} else {
				w.stands("committed", setNow, nil)
			}
		})
	}
	w := newSwapWorld(t)
	_, err := w.inPlace(t.Context(), run)
	must(t, "restore", err)
	must(t, "roll back", w.rollBack(t.Context(), run))
	is(t, w.volumes["pv-data"].DeleteAfter, "")
	kept := 0
	for _, v := range w.volumes {
		if v.DeleteAfter == catalog.MarkUntil(now().Add(restore.DefaultGrace)) {
			kept++
		}
	}
	is(t, kept, 2) // those that the run had made
}

// A second restore takes the place of the first: that is rolled back after it.
func TestInPlaceTwice(t *testing.T) {
	w := newSwapWorld(t)
	_, err := w.inPlace(t.Context(), run)
	must(t, "restore", err)
	_, err = w.inPlace(t.Context(), otherRun)
	must(t, "restore again", err)
	w.stands("restored twice", setNow, append(slices.Clone(keptLive), keptSet...))
	is(t, catalog.CodeOf(w.rollBack(t.Context(), run)), catalog.CodeNotNow)
	must(t, "roll the second back", w.rollBack(t.Context(), otherRun))
	must(t, "commit the second", w.commit(t.Context(), otherRun))
	w.stands("the second is gone", setNow, keptLive)
	must(t, "roll the first back", w.rollBack(t.Context(), run))
	w.stands("rolled back", liveNow, keptSet)
	must(t, "commit", w.commit(t.Context(), run))
	w.stands("committed", liveNow, nil)
}

// TestKilledAfterEachWrite ends the client after each of its writes: the same
// command finishes what it has begun, and a rollback undoes it.
func TestKilledAfterEachWrite(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, w *swapWorld){
		"the same again": func(t *testing.T, w *swapWorld) {
			if begun, err := restore.Unfinished(t.Context(), w, swapRequest(run).Target); err == nil && begun == nil && w.serves() == setNow {
				return // it had ended: the same again is another restore
			}
			result, err := w.inPlace(t.Context(), otherRun)
			must(t, "again", err)
			w.stands("again", setNow, keptLive)
			must(t, "roll back", w.rollBack(t.Context(), result.Swap.Run))
			w.stands("rolled back", liveNow, keptSet)
			must(t, "commit", w.commit(t.Context(), result.Swap.Run))
			w.stands("committed", liveNow, nil)
		},
		"rolled back": func(t *testing.T, w *swapWorld) {
			if err := w.rollBack(t.Context(), run); err != nil && catalog.CodeOf(err) != catalog.CodeNotFound {
				t.Fatal(err)
			}
			is(t, w.serves(), liveNow)
			if err := w.commit(t.Context(), run); err != nil && catalog.CodeOf(err) != catalog.CodeNotFound {
				t.Fatal(err)
			}
			w.stands("committed", liveNow, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			killedAfterEachWrite(t, func(n int) (*swapWorld, error) {
				w := newSwapWorld(t)
				w.killAt = n
				_, err := w.inPlace(t.Context(), run)
				return w, err
			}, func(when string, w *swapWorld) bool {
				w.lives(when)
				w.revive()
				return t.Run(when, func(t *testing.T) { w.t = t; next(t, w) })
			})
		})
	}
}

// TestRollbackKilledAfterEachWrite: so is a rollback, and a commit, that was
// killed.
func TestRollbackKilledAfterEachWrite(t *testing.T) {
	restored := func(n int) *swapWorld {
		w := newSwapWorld(t)
		_, err := w.inPlace(t.Context(), run)
		must(t, "restore", err)
		w.revive()
		w.killAt = n
		return w
	}
	killedAfterEachWrite(t, func(n int) (*swapWorld, error) {
		w := restored(n)
		return w, w.rollBack(t.Context(), run)
	}, func(when string, w *swapWorld) bool {
		w.revive()
		w.lives(when)
		begun, err := restore.Unfinished(t.Context(), w, swapRequest(run).Target)
		if err != nil || begun != nil && begun.Turn != catalog.Back {
			t.Errorf("%s: unfinished %+v, %v", when, begun, err)
		}
		must(t, when, w.rollBack(t.Context(), run))
		w.stands(when, liveNow, keptSet)
		return true
	})
	killedAfterEachWrite(t, func(n int) (*swapWorld, error) {
		w := restored(n)
		return w, w.commit(t.Context(), run)
	}, func(when string, w *swapWorld) bool {
		w.revive()
		if err := w.commit(t.Context(), run); err != nil && catalog.CodeOf(err) != catalog.CodeNotFound {
			t.Errorf("%s: commit again: %v", when, err)
		}
		w.stands(when, setNow, nil)
		return true
	})
}

// killedAfterEachWrite makes one attempt after another, whose client is killed
// after its nth write, until one makes fewer. next gets what each leaves, and
// says whether to go on.
func killedAfterEachWrite[W interface{ wrote() []string }](t *testing.T, attempt func(n int) (W, error), next func(when string, w W) bool) {
	t.Helper()
	for n := 1; ; n++ {
		w, err := attempt(n)
		writes := w.wrote()
		if len(writes) < n {
			must(t, "without an end", err)
			t.Logf("%d writes", n-1)
			return
		}
		if !next(fmt.Sprintf("killed after write %d, %s", n, writes[n-1]), w) {
			return
		}
	}
}

// TestEachWriteFails: what fails is put back, or says that it stands half-way;
// the same again ends well.
func TestEachWriteFails(t *testing.T) {
	for n := 1; ; n++ {
		w := newSwapWorld(t)
		w.failAt = n
		_, err := w.inPlace(t.Context(), run)
		if len(w.writes) < n {
			must(t, "whole run", err)
			return
		}
		when := fmt.Sprintf("write %d fails, %s", n, w.writes[n-1])
		w.lives(when)
		switch catalog.CodeOf(err) {
		case catalog.CodeStorage:
			w.stands(when, liveNow, nil)
			is(t, len(w.safety), 0)
		case catalog.CodeHalfway:
			if !strings.Contains(w.writes[n-1], "scale to 2") && !strings.Contains(w.writes[n-1], "forget") && !strings.Contains(w.writes[n-1], "settle") {
				t.Errorf("%s: half-way: %v", when, err)
			}
		default:
			t.Errorf("%s: %v", when, err)
		}
		w.revive()
		_, err = w.inPlace(t.Context(), otherRun)
		must(t, when+", again", err)
		w.stands(when+", again", setNow, keptLive)
	}
}

// TestInterrupted: ^C before the volumes are exchanged puts everything back;
// after that the restore ends well, but the app is not waited for.
func TestInterrupted(t *testing.T) {
	for n := 1; ; n++ {
		w := newSwapWorld(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		w.hearAt, w.hear = n, func() { cancel(&catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal"}) }
		result, err := w.inPlace(ctx, run)
		cancel(nil)
		if len(w.writes) < n {
			must(t, "whole run", err)
			return
		}
		when := fmt.Sprintf("^C at write %d, %s", n, w.writes[n-1])
		if result.Done {
			w.stands(when, setNow, keptLive)
			continue
		}
		is(t, catalog.CodeOf(err), catalog.CodeInterrupted)
		w.stands(when, liveNow, nil)
		is(t, len(w.safety), 0)
	}
}

// What does not go as it should is put back, and says why.
func TestPutBack(t *testing.T) {
	for _, c := range []struct {
		name   string
		bend   func(*swapWorld)
		code   catalog.Code
		serves string
		aside  []string
	}{
		{name: "the app does not stop", bend: func(w *swapWorld) { w.stuck = true }, code: catalog.CodeInUse, serves: liveNow},
		{name: "the app does not get ready", bend: func(w *swapWorld) { w.unready = true }, code: catalog.CodeUnready, serves: setNow, aside: keptLive},
		{
			name: "somebody scales it up", code: catalog.CodeFought, serves: "live data (Delete), live logs (Delete), 3 replicas",
			bend: func(w *swapWorld) { w.raise = "data" },
		},
		{
			name: "somebody scales it up half-way", code: catalog.CodeFought, serves: liveNow,
			bend: func(w *swapWorld) { w.raise = "logs" },
		},
		{
			name: "somebody makes the claim", code: catalog.CodeHalfway, serves: "nothing, live logs (Delete), 0 replicas",
			bend: func(w *swapWorld) { w.steal = true },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSwapWorld(t)
				c.bend(w)
				_, err := w.inPlace(t.Context(), run)
				if catalog.CodeOf(err) != c.code {
					t.Errorf("got %v of code %s, want %s, after:\n%s", err, catalog.CodeOf(err), c.code, strings.Join(w.writes, "\n"))
				}
				w.lives(c.name)
				if c.code == catalog.CodeHalfway {
					return
				}
				w.stands(c.name, c.serves, c.aside)
			})
		})
	}
}

// What cannot or should not be done is refused before anything is changed.
func TestRefusedInPlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		bend  func(*swapWorld, *restore.SwapRequest)
		code  catalog.Code
		says  string // "" for what is not refused
		force bool   // --ignore-controller goes on
	}{
		{name: "nothing in the way", bend: func(*swapWorld, *restore.SwapRequest) {}},
		{name: "an autoscaler", bend: func(w *swapWorld, _ *restore.SwapRequest) { w.app.Autoscalers = []string{"h"} }, code: catalog.CodeFought, says: "HorizontalPodAutoscaler h scales statefulset/mysql", force: true},
		{name: "Argo CD", bend: func(w *swapWorld, _ *restore.SwapRequest) {
			w.app.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "shop:apps/StatefulSet:shop/mysql"}
		}, code: catalog.CodeFought, says: `Argo CD app "shop"`, force: true},
		{name: "Flux", bend: func(w *swapWorld, _ *restore.SwapRequest) {
			w.app.Labels = map[string]string{"kustomize.toolkit.fluxcd.io/name": "apps"}
		}, code: catalog.CodeFought, says: `Flux kustomization "apps"`, force: true},
		{name: "an operator", bend: func(w *swapWorld, _ *restore.SwapRequest) { w.app.Owner = "Cluster/pg of postgresql.cnpg.io" }, code: catalog.CodeFought, says: "is kept by Cluster/pg", force: true},
		{name: "claims that go when it is scaled down", bend: func(w *swapWorld, _ *restore.SwapRequest) { w.app.DeletesClaims = true }, code: catalog.CodeFought, says: "whenScaled"},
		{name: "a workload that cannot be scaled", bend: func(w *swapWorld, _ *restore.SwapRequest) { w.app.Kind = "daemonset" }, code: catalog.CodeFought, says: "cannot be scaled to 0 and back"},
		{name: "a pod that nothing keeps", bend: func(w *swapWorld, _ *restore.SwapRequest) {
			w.inventory.Pods = []catalog.Pod{{Namespace: "shop", Name: "loner", Owner: catalog.Workload{Kind: "pod", Name: "loner"}, Containers: []catalog.Container{{Mounts: []catalog.Mount{{Claim: "data"}}}}}}
		}, code: catalog.CodeFought, says: "pod/loner"},
		{name: "an operator's own pods", bend: func(w *swapWorld, _ *restore.SwapRequest) {
			w.inventory.Pods = []catalog.Pod{{Namespace: "shop", Name: "pg-1", Owner: catalog.Workload{Kind: "cluster", Name: "pg"}, Containers: []catalog.Container{{Mounts: []catalog.Mount{{Claim: "data"}}}}}}
		}, code: catalog.CodeFought, says: "is kept by cluster/pg"},
		{name: "a claim that is gone", bend: func(w *swapWorld, _ *restore.SwapRequest) { delete(w.held, "data") }, code: catalog.CodeNotNow, says: "it is not there"},
		{name: "one snapshot", bend: func(_ *swapWorld, r *restore.SwapRequest) {
			r.Target = restore.Target{Namespace: "shop", Kind: "vs", Name: "data-1"}
		}, code: catalog.CodeUsage, says: "want the claim or the workload"},
		{name: "a run of that claim that has not ended", bend: func(w *swapWorld, _ *restore.SwapRequest) {
			v := w.volumes["pv-data"]
			v.Role, v.Run, v.Turn, v.Of = catalog.RoleOld, "20261101-000000-aaaa", catalog.Forth, "data"
		}, code: catalog.CodeNotNow, says: "in the middle of exchanging"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, ignore := range []bool{false, true} {
				w := newSwapWorld(t)
				r := swapRequest(run)
				r.IgnoreController = ignore
				c.bend(w, &r)
				_, err := restore.MakeSwapPlan(t.Context(), w, r)
				if c.says == "" || c.force && ignore {
					must(t, "plan", err)
					continue
				}
				is(t, catalog.CodeOf(err), c.code)
				var f *catalog.Failure
				if !errors.As(err, &f) || !strings.Contains(f.Error(), c.says) || f.Next == "" {
					t.Errorf("got %v, want it to say %q and what to do", err, c.says)
				}
				if len(w.writes) > 0 {
					t.Errorf("planning has written %q", w.writes)
				}
			}
		})
	}
}
