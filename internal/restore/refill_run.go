package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// RefillResult is what became of a restore into the file systems of claims.
type RefillResult struct {
	Claims []Refilled // in the order of the plan
	// Done: all claims hold what they were to hold.
	Done bool
	// Downtime is from the first app that was scaled down until all were ready;
	// 0 if none was, or that is not known.
	Downtime time.Duration
}

// Refilled is one claim.
type Refilled struct {
	Volume Volume
	Stage  catalog.Stage // "" where nothing was begun, or all was put back
	Bytes  int64         // that it holds, 0 where nobody counted
	Files  int64
}

// RunRefill scales the apps to 0, takes snapshots of their claims, restores the
// copies into these, and scales the apps back. Until a mover starts, the end of
// ctx and every failure put everything back. After that the apps stay at 0
// until all claims hold their copy: the same again ends it, and RollBack goes
// back to the snapshots. The error is a catalog.Failure that says how things
// stand.
func RunRefill(ctx context.Context, c RefillCluster, follow Follow, now func() time.Time, p RefillPlan, w catalog.Watcher) (RefillResult, error) {
	r := newRefilling(c, now, p, w)
	r.follow = follow
	err := r.run(ctx)
	return RefillResult{Claims: r.claims, Done: err == nil || r.ended, Downtime: r.down}, err
}

// refilling is a refill on its way.
type refilling struct {
	cluster RefillCluster
	follow  Follow
	now     func() time.Time
	plan    RefillPlan
	watcher catalog.Watcher

	mu      sync.Mutex
	claims  []Refilled
	stopped time.Time // when the first app was scaled down, zero before
	down    time.Duration
	ended   bool
}

func newRefilling(c RefillCluster, now func() time.Time, p RefillPlan, w catalog.Watcher) *refilling {
	r := &refilling{cluster: c, now: now, plan: p, watcher: w, claims: make([]Refilled, len(p.Volumes))}
	for i, v := range p.Volumes {
		r.claims[i].Volume = v
		if noted, ok := v.Claim.Refill(); ok {
			r.claims[i].Stage = noted.Stage
			if noted.Stage == catalog.StageFilled && (noted.Copy != v.Copy.Snapshot || noted.Repository != v.Copy.Repository) {
				r.claims[i].Stage = catalog.StagePartial // it holds another copy, and is to hold this one
			}
		}
	}
	return r
}

func (r *refilling) run(ctx context.Context) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	if !r.all(catalog.StageFilled) {
		for _, step := range []func(context.Context) error{r.begin, r.stop, r.secure, r.fill} {
			if err := step(ctx); err != nil {
				return r.giveUp(ctx, err)
			}
		}
	}
	return r.start(ctx)
}

// look sees whether things are as they were planned with: the namespace is held
// only since. How many replicas the apps have, nobody else is held to.
func (r *refilling) look(ctx context.Context) error {
	for _, v := range r.plan.Volumes {
		live, _, err := r.cluster.ReadClaim(ctx, v.Claim.Namespace, v.Claim.Name)
		if err != nil {
			return err
		}
		if live.UID != v.Claim.UID || live.Volume != v.Claim.Volume || live.Annotations[catalog.AnnotationRefill] != v.Claim.Annotations[catalog.AnnotationRefill] {
			return r.changed("claim " + live.Name)
		}
	}
	apps, err := r.cluster.Apps(ctx, r.plan.Target.Namespace)
	if err != nil {
		return err
	}
	for i, a := range r.plan.Apps {
		at := slices.IndexFunc(apps, func(now catalog.App) bool { return now.Workload == a.Workload && now.UID == a.UID })
		if at < 0 || apps[at].Annotations[catalog.AnnotationRefill] != a.Annotations[catalog.AnnotationRefill] {
			return r.changed(a.String())
		}
		r.plan.Apps[i] = apps[at]
	}
	return nil
}

// all reports whether all claims have come that far.
func (r *refilling) all(stage catalog.Stage) bool {
	return !slices.ContainsFunc(r.claims, func(c Refilled) bool { return c.Stage != stage })
}

// touched reports whether any claim holds other data than before.
func (r *refilling) touched() bool {
	return slices.ContainsFunc(r.claims, func(c Refilled) bool { return c.Stage == catalog.StagePartial || c.Stage == catalog.StageFilled })
}

// set notes how far a claim is.
func (r *refilling) set(ctx context.Context, i int, stage catalog.Stage) error {
	v := r.plan.Volumes[i]
	noted := &catalog.Refill{Run: r.plan.Run, Volume: v.Claim.Volume, Stage: stage}
	if stage != catalog.StageBegun {
		noted.Repository, noted.Copy = v.Copy.Repository, v.Copy.Snapshot
	}
	if err := r.cluster.NoteRefill(ctx, v.Claim, noted); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims[i].Stage = stage
	return nil
}

// begin ends a mover that works still for a client that died, asks the server
// for what it may refuse, and notes on the claims that this run is at work.
func (r *refilling) begin(ctx context.Context) error {
	if r.plan.Begun != nil {
		for _, v := range r.plan.Volumes {
			if err := r.cluster.RemoveMover(ctx, v.Claim.Namespace, v.Name); err != nil {
				return err
			}
		}
	}
	if err := r.plan.Try(ctx, r.cluster); err != nil {
		return err
	}
	for i := range r.plan.Volumes {
		if r.claims[i].Stage == "" {
			if err := r.set(ctx, i, catalog.StageBegun); err != nil {
				return err
			}
		}
	}
	return nil
}

// stop scales the apps to 0 and waits until no pod has the claims.
func (r *refilling) stop(ctx context.Context) error {
	var claims []string
	for _, v := range r.plan.Volumes {
		claims = append(claims, v.Claim.Name)
	}
	for i := range r.plan.Apps {
		a := &r.plan.Apps[i]
		pause, noted := a.Pause()
		if !noted {
			pause = catalog.Pause{Run: r.plan.Run, Replicas: a.Replicas}
			if err := r.cluster.NotePause(ctx, *a, &pause); err != nil {
				return err
			}
			a.Annotations = map[string]string{catalog.AnnotationRefill: fmt.Sprintf(`{"run":%q,"replicas":%d}`, pause.Run, pause.Replicas)}
		}
		if r.stopped.IsZero() {
			r.stopped = r.now()
		}
		if err := r.cluster.Scale(ctx, *a, 0); err != nil {
			return err
		}
		r.tell(catalog.PhaseScale, catalog.OK, "", fmt.Sprintf("%s scaled to 0, %d remembered", a, pause.Replicas))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.plan.AppTimeout, errTimeout)
	defer cancel()
	return r.cluster.AwaitIdle(ctx, r.plan.Target.Namespace, claims, nil, r.plan.Apps)
}

// secure takes snapshots of the claims as the app has left them. Once a claim
// is touched there is nothing left to take one of: then those that there are
// have to do. Ones that were taken before and not used are of no use any more,
// for the app may have run since.
func (r *refilling) secure(ctx context.Context) error {
	if r.touched() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.plan.Timeout, errTimeout)
	defer cancel()
	if err := takeSafety(ctx, r.cluster, r.plan.Target.Namespace, r.plan.Safety, r.tell); err != nil {
		return err
	}
	if r.plan.Begun == nil {
		return nil
	}
	for _, s := range r.plan.Begun.Safety {
		if !slices.ContainsFunc(r.plan.Safety, func(taken catalog.Snapshot) bool { return taken.Name == s.Name }) {
			if err := r.cluster.Delete(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill restores into all claims, and sees to it that no app runs meanwhile.
func (r *refilling) fill(ctx context.Context) error {
	watched, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait() // after cancel
	defer cancel(nil)
	watching.Go(func() { cancel(r.cluster.AwaitRaised(watched, r.plan.Apps)) })
	errs := make([]error, len(r.plan.Volumes))
	each(watched, len(errs), r.plan.Parallel, func(i int) { errs[i] = r.one(watched, i) })
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.still(ctx)
}

// still fails if an app is to have replicas: it may have written between
// restic's files, and no claim counts as filled.
func (r *refilling) still(ctx context.Context) error {
	for _, a := range r.plan.Apps {
		replicas, err := r.cluster.Replicas(ctx, a)
		if err != nil {
			return err
		}
		if replicas == 0 {
			continue
		}
		err = fmt.Errorf("%s: %w to %d", a, catalog.ErrRaised, replicas)
		for i := range r.plan.Volumes {
			err = errors.Join(err, r.set(ctx, i, catalog.StagePartial))
		}
		return err
	}
	return nil
}

// one restores into one claim.
func (r *refilling) one(ctx context.Context, i int) error {
	if r.claims[i].Stage == catalog.StageFilled {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m := &making{cluster: r.cluster, follow: r.follow, now: r.now, plan: r.plan.Plan, volume: r.plan.Volumes[i], watcher: r.watcher, began: r.now()}
	before := r.claims[i].Stage
	if err := r.set(ctx, i, catalog.StagePartial); err != nil {
		return err
	}
	m.tell(catalog.Event{State: catalog.Started})
	err := r.move(ctx, m)
	e := catalog.Event{State: catalog.OK, Took: r.now().Sub(m.began), Bytes: m.bytes}
	if err != nil {
		e.State, e.Message = catalog.Failed, err.Error()
	}
	m.tell(e)
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	var denied *restic.Denied
	switch {
	case err == nil:
		r.claims[i].Bytes, r.claims[i].Files = m.bytes, m.files
		return r.set(write, i, catalog.StageFilled)
	case errors.As(err, &denied) && before == catalog.StageBegun: // there never was a mover
		return errors.Join(err, r.set(write, i, before))
	}
	return err
}

// move runs the mover to its end, and is content with nothing but the whole
// copy. The mover is gone when it returns.
func (r *refilling) move(ctx context.Context, m *making) (err error) {
	job, err := r.plan.job(m.volume)
	if err != nil {
		return err
	}
	defer func() {
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if !errors.Is(err, catalog.ErrTaken) {
			err = errors.Join(err, r.cluster.RemoveMover(removing, job.Namespace, job.Name))
		}
	}()
	if err := r.cluster.StartMover(ctx, job); err != nil {
		return fmt.Errorf("start mover %s/%s: %w", job.Namespace, job.Name, err)
	}
	end, err := r.follow(ctx, job.Namespace, job.Name, m.volume.Claim.Name, m.tell)
	if err != nil {
		return err
	}
	return m.prove(end)
}

// start scales the apps back, waits until they are ready, and takes the notes
// off. An app that is not ready in time does not keep it from that.
func (r *refilling) start(ctx context.Context) error {
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := r.scaleBack(write); err != nil {
		return r.halfway(err)
	}
	unready := r.ready(ctx)
	write, cancel = context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := r.forget(write); err != nil {
		return r.halfway(err)
	}
	r.ended = true
	return unready
}

// scaleBack gives each app the replicas it had. One that somebody has scaled
// since stays as it is.
func (r *refilling) scaleBack(ctx context.Context) error {
	for i := range r.plan.Apps {
		a := &r.plan.Apps[i]
		pause, noted := a.Pause()
		if !noted {
			continue
		}
		now, err := r.cluster.Replicas(ctx, *a)
		if err == nil && now == 0 {
			now, err = pause.Replicas, r.cluster.Scale(ctx, *a, pause.Replicas)
		}
		if err != nil {
			return err
		}
		a.Replicas = now
	}
	return nil
}

// ready waits for the pods; the error is a catalog.Failure.
func (r *refilling) ready(ctx context.Context) error {
	began := r.now()
	wait, cancel := context.WithTimeoutCause(ctx, r.plan.AppTimeout, errTimeout)
	defer cancel()
	for _, a := range r.plan.Apps {
		if _, noted := a.Pause(); !noted {
			continue
		}
		if err := r.cluster.AwaitReady(wait, a, a.Replicas); err != nil {
			return r.unready(ctx, err)
		}
		r.tell(catalog.PhaseScale, catalog.OK, "", fmt.Sprintf("%s scaled to %d, ready in %s", a, a.Replicas, r.now().Sub(began).Round(100*time.Millisecond)))
	}
	if !r.stopped.IsZero() {
		r.down = r.now().Sub(r.stopped)
	}
	return nil
}

// forget takes the notes off, those of the claims last: by them a later run
// finds the rest.
func (r *refilling) forget(ctx context.Context) error {
	for _, a := range r.plan.Apps {
		if _, noted := a.Pause(); noted {
			if err := r.cluster.NotePause(ctx, a, nil); err != nil {
				return err
			}
		}
	}
	for _, v := range r.plan.Volumes {
		if err := r.cluster.NoteRefill(ctx, v.Claim, nil); err != nil {
			return err
		}
	}
	return nil
}

// giveUp puts everything back where no data was touched; else it leaves the
// apps at 0. The error is a catalog.Failure.
func (r *refilling) giveUp(ctx context.Context, cause error) error {
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if r.touched() {
		for _, a := range r.plan.Apps {
			cause = errors.Join(cause, r.cluster.Scale(undoing, a, 0)) // somebody may have raised it
		}
		return r.halted(ctx, cause)
	}
	r.tell(catalog.PhaseScale, catalog.Warning, "", "putting everything back: "+cause.Error())
	if err := r.putBack(undoing); err != nil {
		return r.halfway(errors.Join(cause, err))
	}
	return r.undone(ctx, cause)
}

// putBack is of a refill that has touched no data.
func (r *refilling) putBack(ctx context.Context) error {
	snapshots, err := r.cluster.Snapshots(ctx, catalog.Scope{Namespaces: []string{r.plan.Target.Namespace}})
	if err != nil {
		return err
	}
	if err := r.scaleBack(ctx); err != nil {
		return err
	}
	for _, s := range snapshots {
		if s.Role == catalog.RoleSafety && s.Run == r.plan.Run {
			if err := r.cluster.Delete(ctx, s); err != nil {
				return err
			}
		}
	}
	if err := r.forget(ctx); err != nil {
		return err
	}
	for i := range r.claims {
		r.claims[i].Stage = ""
	}
	return nil
}

func (r *refilling) tell(phase catalog.Phase, state catalog.State, claim, message string) {
	r.watcher.Event(claimEvent(r.now(), r.plan.Run, r.plan.Target.Namespace, phase, state, claim, message))
}
