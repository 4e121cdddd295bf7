package restore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// refillWorld is a restore.RefillCluster in memory: a swapWorld whose movers
// write into the volumes, and whose snapshots hold what these held.
type refillWorld struct {
	*swapWorld
	took   map[string]string // what a safety snapshot holds, by its name
	jobs   map[string]string // claim that a mover writes into, by the mover's name
	end    restic.End
	raised chan struct{} // closed once somebody has scaled the app up
	// scalesUp: somebody does, while a mover works.
	scalesUp bool
	denied   error // what the server says of movers
}

func newRefillWorld(t *testing.T) *refillWorld {
	w := &refillWorld{swapWorld: newSwapWorld(t), took: map[string]string{}, jobs: map[string]string{}, end: restic.End{Pod: "pod", Text: report(3, 4096)}, raised: make(chan struct{})}
	w.inventory.Repositories = []catalog.Repository{{Name: "main", Namespace: "shop", Secret: "main-secret"}}
	for i := range w.snapshots {
		w.snapshots[i].Copies = []catalog.Copy{{Repository: "main", Snapshot: "id-of-" + w.snapshots[i].Claim, Bytes: 4096, Files: 3}}
	}
	for name, claim := range w.held {
		claim.Driver, claim.Capacity, claim.VolumeMode = "csi.example.com", 1<<20, "Filesystem"
		w.held[name] = claim
	}
	return w
}

func (w *refillWorld) Inventory(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	v, err := w.swapWorld.Inventory(ctx, scope)
	v.Classes = []catalog.SnapshotClass{{Name: "snap", Driver: "csi.example.com"}, {Name: "none", Driver: ""}}
	return v, err
}

func (w *refillWorld) Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	s.Cut = now()
	s, err := w.swapWorld.Create(ctx, s)
	if err == nil {
		w.took[s.Name] = w.volumes[w.held[s.Claim].Volume].data
		if w.app.Replicas > 0 {
			w.t.Errorf("%s is taken while the app runs", s.Name)
		}
	}
	return s, err
}

func (w *refillWorld) MakeClaim(ctx context.Context, claim catalog.Claim, snapshot string) (string, error) {
	uid, err := w.swapWorld.MakeClaim(ctx, claim, snapshot)
	if data, safety := w.took[snapshot]; safety && err == nil {
		w.volumes["pv-of-"+claim.Name].data = data
	}
	return uid, err
}

func (w *refillWorld) RemakeClaim(ctx context.Context, manifest, volume string) error {
	err := w.swapWorld.RemakeClaim(ctx, manifest, volume)
	name := strings.TrimPrefix(manifest, "manifest of ")
	if claim, there := w.held[name]; err == nil && there {
		claim.Driver, claim.VolumeMode = "csi.example.com", "Filesystem"
		w.held[name] = claim
	}
	return err
}

func (w *refillWorld) TryMover(_ context.Context, job restic.Job) error {
	if _, there := w.jobs[job.Name]; there {
		return catalog.ErrTaken
	}
	return errors.Join(w.read(), w.denied)
}

func (w *refillWorld) NoteRefill(_ context.Context, claim catalog.Claim, r *catalog.Refill) error {
	there := w.held[claim.Name]
	if there.UID != claim.UID || r == nil && there.Annotations == nil {
		return nil
	}
	what := "nothing"
	if r != nil {
		what = string(r.Stage)
	}
	if err := w.write("note %s on %s", what, claim.Name); err != nil {
		return err
	}
	there.Annotations = nil
	if r != nil {
		text, _ := json.Marshal(r)
		there.Annotations = map[string]string{catalog.AnnotationRefill: string(text)}
	}
	w.held[claim.Name] = there
	return nil
}

func (w *refillWorld) NotePause(_ context.Context, _ catalog.App, p *catalog.Pause) error {
	what := "off"
	if p != nil {
		what = fmt.Sprint(*p)
	}
	if err := w.write("note pause %s", what); err != nil {
		return err
	}
	w.app.Annotations = maps.Clone(w.app.Annotations)
	delete(w.app.Annotations, catalog.AnnotationRefill)
	if p != nil {
		text, _ := json.Marshal(p)
		w.app.Annotations = map[string]string{catalog.AnnotationRefill: string(text)}
	}
	return nil
}

func (w *refillWorld) AwaitRaised(ctx context.Context, _ []catalog.App) error {
	select {
	case <-w.raised:
		return catalog.ErrRaised
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// StartMover starts one that writes; those that only look are swapWorld's.
func (w *refillWorld) StartMover(ctx context.Context, job restic.Job) error {
	if slices.ContainsFunc(job.Env, func(e restic.Env) bool { return e.Name == "BACKSNAP_SUMS" }) {
		return w.swapWorld.StartMover(ctx, job)
	}
	if err := w.write("start mover of %s", job.Claim); err != nil {
		return err
	}
	if w.app.Replicas > 0 {
		w.t.Errorf("a mover writes into %s while the app runs", job.Claim)
	}
	w.jobs[job.Name] = job.Claim
	w.volumes[w.held[job.Claim].Volume].data = "mixed " + job.Claim
	return nil
}

func (w *refillWorld) RemoveMover(ctx context.Context, namespace, name string) error {
	if _, looks := w.checks[name]; looks {
		return w.swapWorld.RemoveMover(ctx, namespace, name)
	}
	if _, there := w.jobs[name]; !there {
		return w.read()
	}
	err := w.write("remove mover of %s", w.jobs[name])
	if err == nil {
		delete(w.jobs, name)
	}
	return err
}

func (w *refillWorld) AwaitIdle(ctx context.Context, namespace string, claims, volumes []string, apps []catalog.App) error {
	for _, claim := range w.jobs {
		if slices.Contains(claims, claim) {
			return fmt.Errorf("a mover uses claim %s: it would wait for ever", claim)
		}
	}
	return w.swapWorld.AwaitIdle(ctx, namespace, claims, volumes, apps)
}

func (w *refillWorld) follow(ctx context.Context, namespace, name, nonce string, tell func(catalog.Event)) (restic.End, error) {
	if _, looks := w.checks[name]; looks {
		return w.swapWorld.follow(ctx, namespace, name, nonce, tell)
	}
	if err := errors.Join(w.read(), context.Cause(ctx)); err != nil {
		return restic.End{}, err
	}
	if w.scalesUp {
		w.scalesUp, w.app.Replicas = false, 3
		close(w.raised)
		<-ctx.Done()
		return restic.End{}, context.Cause(ctx)
	}
	if w.end.Exit == 0 {
		claim := w.jobs[name]
		w.volumes[w.held[claim].Volume].data = "copy " + claim
	}
	return w.end, nil
}

// list is a repository that has what is on record.
func list(_ context.Context, recorded []catalog.Snapshot, _ []string) (restore.Listed, error) {
	return restore.Listed{Snapshots: recorded}, nil
}

func (w *refillWorld) request(run catalog.Run) restore.SwapRequest {
	r := swapRequest(run)
	r.List = list
	return r
}

// refill is the command `restore statefulset/mysql --into-claim`, as run.
func (w *refillWorld) refill(ctx context.Context, run catalog.Run) (restore.RefillResult, error) {
	p, err := restore.MakeRefillPlan(ctx, w, w.request(run))
	if err != nil {
		return restore.RefillResult{}, err
	}
	return restore.RunRefill(ctx, w, w.follow, now, p, &watcher{})
}

// back is the command `restore --rollback RUN`.
func (w *refillWorld) back(ctx context.Context, run, own catalog.Run) error {
	f, err := restore.FindRefill(ctx, w, "shop", run)
	if err != nil || !f.Found() {
		return err
	}
	if err := f.CanUndo(ctx, w); err != nil {
		return err
	}
	if f.Replaced() {
		p, err := restore.MakeUndoPlan(ctx, w, w.request(own), f)
		if err != nil {
			return err
		}
		if err := restore.StopMovers(ctx, w, f); err != nil {
			return err
		}
		if _, err := restore.RunSwap(ctx, w, w.follow, now, p, &watcher{}); err != nil {
			return err
		}
		if f, err = restore.FindRefill(ctx, w, "shop", run); err != nil || f.Ended() {
			return err
		}
	}
	return restore.PutBack(ctx, w, now, f, time.Minute, &watcher{})
}

// notes are what stands on claims and app.
func (w *refillWorld) notes() []string {
	var found []string
	for name, claim := range w.held {
		for key, note := range claim.Annotations {
			found = append(found, name+" "+key+" "+note)
		}
	}
	for key, note := range w.app.Annotations {
		found = append(found, "app "+key+" "+note)
	}
	for name := range w.jobs {
		found = append(found, "mover "+name)
	}
	return found
}

func (w *refillWorld) revive() {
	w.swapWorld.revive()
	w.end, w.denied, w.raised = restic.End{Pod: "pod", Text: report(3, 4096)}, nil, make(chan struct{})
}

const (
	copyNow  = "copy data (Delete), copy logs (Delete), 2 replicas"
	brokenUp = "mixed data (Delete), live logs (Delete), 0 replicas"
)

func TestRefill(t *testing.T) {
	w := newRefillWorld(t)
	result, err := w.refill(t.Context(), run)
	must(t, "refill", err)
	is(t, result.Done, true)
	is(t, w.serves(), copyNow)
	is(t, len(w.notes()), 0)
	want := []string{
		"note begun on data", "note begun on logs", "note pause {20261122-091500-x7k2 2}", "scale to 0", "snapshot data", "snapshot logs",
		"note partial on data", "start mover of data", "remove mover of data", "note filled on data",
		"note partial on logs", "start mover of logs", "remove mover of logs", "note filled on logs",
		"scale to 2", "note pause off", "note nothing on data", "note nothing on logs",
	}
	if diff := slices.Compare(want, w.writes); diff != 0 {
		t.Errorf("writes %q\nwant %q", w.writes, want)
	}
	for _, s := range w.safety {
		is(t, s.Role, catalog.RoleSafety)
		is(t, s.DeleteAfter, "2026-11-29")
		is(t, s.Record.Claim.UID, w.held[s.Claim].UID)
	}
	must(t, "go back", w.back(t.Context(), run, otherRun))
	is(t, w.serves(), liveNow)
	is(t, len(w.notes()), 0)
	w.stands("gone back", liveNow, []string{"copy data (Retain)", "copy logs (Retain)"})
}

// TestRefillKilledAfterEachWrite ends the client after each of its writes: the
// same command finishes what it has begun, and a rollback undoes it.
func TestRefillKilledAfterEachWrite(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, w *refillWorld){
		"the same again": func(t *testing.T, w *refillWorld) {
			_, err := w.refill(t.Context(), otherRun)
			must(t, "again", err)
			is(t, w.serves(), copyNow)
		},
		"rolled back": func(t *testing.T, w *refillWorld) {
			must(t, "roll back", w.back(t.Context(), run, otherRun))
			is(t, w.serves(), liveNow)
		},
	} {
		t.Run(name, func(t *testing.T) {
			killedAfterEachWrite(t, func(n int) (*refillWorld, error) {
				w := newRefillWorld(t)
				w.killAt = n
				_, err := w.refill(t.Context(), run)
				return w, err
			}, func(when string, w *refillWorld) bool {
				w.revive()
				return t.Run(when, func(t *testing.T) {
					w.t = t
					next(t, w)
					if notes := w.notes(); len(notes) > 0 {
						t.Errorf("left: %s", notes)
					}
				})
			})
		})
	}
}

// TestUndoKilledAfterEachWrite: so is the way back, if that is killed: the
// command that the error of the next one prints ends it.
func TestUndoKilledAfterEachWrite(t *testing.T) {
	const third = catalog.Run("20261122-111500-z9m4")
	killedAfterEachWrite(t, func(n int) (*refillWorld, error) {
		w := newRefillWorld(t)
		w.end.Exit, w.end.Text = 1, "backsnap step=restore exit=1\nFatal: There were 1 errors\n"
		_, err := w.refill(t.Context(), run)
		is(t, catalog.CodeOf(err), catalog.CodePartial)
		w.revive()
		w.killAt = n
		return w, w.back(t.Context(), run, otherRun)
	}, func(when string, w *refillWorld) bool {
		w.revive()
		if err := w.back(t.Context(), run, third); catalog.CodeOf(err) == catalog.CodeNotNow {
			swap, err := restore.FindSwap(t.Context(), w, "shop", otherRun)
			must(t, when, err)
			_, err = restore.Finish(t.Context(), w, now, swap, terms, &watcher{})
			must(t, when, err)
			must(t, when, w.back(t.Context(), run, third))
		} else {
			must(t, when, err)
		}
		is(t, w.serves(), liveNow)
		if notes := w.notes(); len(notes) > 0 {
			t.Errorf("%s: left %s", when, notes)
		}
		return true
	})
}

// TestRefillThatFails: a mover that fails leaves the app at 0 and the claim
// marked, with both ways out; before there is a mover all is put back.
func TestRefillThatFails(t *testing.T) {
	damaged := func(w *refillWorld) {
		w.end.Exit, w.end.Text = 1, "backsnap step=restore exit=1\nerrors=1\nFatal: There were 1 errors\n"
	}
	for _, c := range []struct {
		name   string
		with   func(*refillWorld)
		hearAt int // ^C
		code   catalog.Code
		serves string
	}{
		{name: "a damaged pack", with: damaged, code: catalog.CodePartial, serves: "mixed data (Delete), mixed logs (Delete), 0 replicas"},
		{name: "fewer files than the copy has", with: func(w *refillWorld) { w.end.Text = report(2, 4096) }, code: catalog.CodePartial, serves: "copy data (Delete), copy logs (Delete), 0 replicas"},
		{name: "somebody scales it up", with: func(w *refillWorld) { w.scalesUp = true }, code: catalog.CodePartial, serves: brokenUp},
		{name: "^C while a mover works", hearAt: 8, code: catalog.CodeInterrupted, serves: brokenUp},
		{name: "^C before", hearAt: 4, code: catalog.CodeInterrupted, serves: liveNow},
		{name: "the server takes no mover", with: func(w *refillWorld) { w.denied = &restic.Denied{Err: errors.New("privileged")} }, code: catalog.CodeStorage, serves: liveNow},
		{name: "no safety snapshot", with: func(w *refillWorld) { w.failAt = 5 }, code: catalog.CodeStorage, serves: liveNow},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRefillWorld(t)
			if c.with != nil {
				c.with(w)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.hear, w.hearAt = cancel, c.hearAt
			result, err := w.refill(ctx, run)
			is(t, catalog.CodeOf(err), c.code)
			is(t, result.Done, false)
			if c.serves != "" {
				is(t, w.serves(), c.serves)
			}
			var f *catalog.Failure
			if !errors.As(err, &f) || f.State == "" || f.Next == "" {
				t.Errorf("failure %+v", f)
			}
			t.Logf("%s\nstate: %s\nnext: %s", err, f.State, f.Next)
			if c.serves == liveNow {
				if left := append(w.notes(), slices.Collect(maps.Keys(w.safety))...); len(left) > 0 {
					t.Errorf("left: %s", left)
				}
				return
			}
			is(t, w.app.Replicas, 0)
			is(t, strings.Contains(f.Next, "--rollback "+string(run)), true)
			w.revive()
			for _, s := range w.safety {
				is(t, w.took[s.Name], "live "+s.Claim)
			}
			_, err = w.refill(t.Context(), otherRun)
			must(t, "the same again", err)
			is(t, w.serves(), copyNow)
			is(t, len(w.safety), 2) // those of the mix were never taken
			must(t, "go back", w.back(t.Context(), run, otherRun))
			is(t, w.serves(), liveNow)
		})
	}
}

// TestRefillRefused is what is known before anything is touched.
func TestRefillRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		with func(*refillWorld, *restore.SwapRequest)
		code catalog.Code
	}{
		{"no repository beside", func(w *refillWorld, _ *restore.SwapRequest) { w.inventory.Repositories = nil }, catalog.CodeNoSecret},
		{"the copy is not there", func(_ *refillWorld, r *restore.SwapRequest) {
			r.List = func(_ context.Context, recorded []catalog.Snapshot, _ []string) (restore.Listed, error) {
				for i := range recorded {
					recorded[i].Copies = nil
				}
				return restore.Listed{Snapshots: recorded}, nil
			}
		}, catalog.CodeNoSet},
		{"a time before the first set", func(_ *refillWorld, r *restore.SwapRequest) { r.At = at("00:30") }, catalog.CodeNoSet},
		{"no snapshots of that driver", func(w *refillWorld, _ *restore.SwapRequest) {
			claim := w.held["logs"]
			claim.Driver = "nfs.example.com"
			w.held["logs"] = claim
		}, catalog.CodeNoClass},
		{"too small", func(w *refillWorld, _ *restore.SwapRequest) {
			claim := w.held["logs"]
			claim.Capacity = 4095
			w.held["logs"] = claim
		}, catalog.CodeNotNow},
		{"a device", func(w *refillWorld, _ *restore.SwapRequest) {
			claim := w.held["logs"]
			claim.VolumeMode = catalog.BlockMode
			w.held["logs"] = claim
		}, catalog.CodeNotNow},
		{"a claim that is gone", func(w *refillWorld, _ *restore.SwapRequest) { delete(w.held, "logs") }, catalog.CodeNotNow},
		{"an autoscaler", func(w *refillWorld, _ *restore.SwapRequest) { w.app.Autoscalers = []string{"h"} }, catalog.CodeFought},
		{"a snapshot", func(_ *refillWorld, r *restore.SwapRequest) {
			r.Target = restore.Target{Namespace: "shop", Kind: "vs", Name: "x"}
		}, catalog.CodeUsage},
		{"one claim of two that were begun", func(w *refillWorld, r *restore.SwapRequest) {
			w.killAt = 8
			w.refill(w.t.Context(), otherRun)
			w.revive()
			r.Target = restore.Target{Namespace: "shop", Kind: "pvc", Name: "data"}
		}, catalog.CodeNotNow},
		{"a note that nobody can read", func(w *refillWorld, _ *restore.SwapRequest) {
			claim := w.held["data"]
			claim.Annotations = map[string]string{catalog.AnnotationRefill: "yes"}
			w.held["data"] = claim
		}, catalog.CodeNotNow},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRefillWorld(t)
			r := w.request(run)
			c.with(w, &r)
			before := len(w.writes)
			_, err := restore.MakeRefillPlan(t.Context(), w, r)
			is(t, catalog.CodeOf(err), c.code)
			is(t, len(w.writes), before)
			var f *catalog.Failure
			if errors.As(err, &f) && f.Code == catalog.CodeNoSet && strings.Contains(f.Next, "--at ") && !strings.HasSuffix(f.Next, " --from copy --into-claim --in-namespace") {
				t.Errorf("next: %s", f.Next)
			}
		})
	}
}

// TestRefillOfWhatHasChanged: between plan and run another run has begun.
func TestRefillOfWhatHasChanged(t *testing.T) {
	w := newRefillWorld(t)
	p, err := restore.MakeRefillPlan(t.Context(), w, w.request(run))
	must(t, "plan", err)
	w.end.Exit = 1
	_, err = w.refill(t.Context(), otherRun)
	is(t, catalog.CodeOf(err), catalog.CodePartial)
	w.revive()
	_, err = restore.RunRefill(t.Context(), w, w.follow, now, p, &watcher{})
	is(t, catalog.CodeOf(err), catalog.CodeNotNow)
	is(t, len(w.writes), 0)
}

// TestRestoreFromASafetySnapshot: what was there before a refill can be had
// beside it, too.
func TestRestoreFromASafetySnapshot(t *testing.T) {
	w := newRefillWorld(t)
	_, err := w.refill(t.Context(), run)
	must(t, "refill", err)
	r := request()
	r.Run, r.Target = otherRun, restore.Target{Namespace: "shop", Kind: "vs", Name: catalog.SnapshotName("data-pre-restore", run)}
	p, err := restore.MakePlan(t.Context(), w, r)
	must(t, "plan", err)
	is(t, p.Volumes[0].Snapshot.Role, catalog.RoleSafety)
	r.Target = restore.Target{Namespace: "shop", Kind: "statefulset", Name: "mysql"}
	p, err = restore.MakePlan(t.Context(), w, r)
	must(t, "plan", err)
	is(t, p.Volumes[0].Snapshot.Role, catalog.Role("")) // never the latest
}
