package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// exchangeTimeout bounds what is done while a claim is not there.
const exchangeTimeout = 3 * time.Minute

func gone(err error) bool { return errors.Is(err, catalog.ErrGone) }

// turning exchanges the volumes of a Swap. Each step may have been done before,
// by a run that died; none is done twice.
type turning struct {
	cluster SwapCluster
	now     func() time.Time
	watcher catalog.Watcher
	timeout time.Duration // of the app
	grace   time.Duration // of what is kept in the end
	swap    Swap
	turn    catalog.Turn

	stopped time.Time     // when the first app was scaled down, zero before
	down    time.Duration // from then until all were ready again
}

func (t *turning) reverse() catalog.Turn {
	if t.turn == catalog.Forth {
		return catalog.Back
	}
	return catalog.Forth
}

// run exchanges the volumes and starts the apps again. Until a claim is removed
// the end of ctx puts everything back; after that it is heard when the app
// starts. The error is a catalog.Failure that says how things stand.
func (t *turning) run(ctx context.Context) error {
	if !t.swap.Placed(t.turn) {
		for _, step := range []func(context.Context) error{t.mark, t.free, t.stop, t.exchange} {
			if err := step(ctx); err != nil {
				return t.undo(ctx, err)
			}
		}
	}
	return t.start(ctx)
}

// mark makes both volumes outlive their claims, and writes down on them what
// is under way and how to make the claim again.
func (t *turning) mark(ctx context.Context) error {
	for i := range t.swap.Pairs {
		p := &t.swap.Pairs[i]
		p.New.Role, p.Old.Role = catalog.RoleNew, catalog.RoleOld
		for _, v := range []*catalog.SwapVolume{&p.New, &p.Old} {
			v.Run, v.Turn, v.Namespace, v.Of, v.Manifest = t.swap.Run, t.turn, t.swap.Namespace, p.Claim, p.Manifest
			if err := t.cluster.MarkVolume(ctx, *v); err != nil {
				return err
			}
		}
	}
	return nil
}

// free takes the wanted volumes from the claims that they come from, and leaves
// them to those of the app, which have another one still.
func (t *turning) free(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errTimeout) // somebody may have mounted the claim
	defer cancel()
	for i := range t.swap.Pairs {
		p := &t.swap.Pairs[i]
		if p.placed(t.turn) {
			continue
		}
		if t.turn == catalog.Forth && p.Temp.UID != "" {
			if err := t.cluster.RemoveClaim(ctx, p.Temp.Namespace, p.Temp.Name, p.Temp.UID); err != nil {
				return err
			}
			p.Temp = catalog.Claim{}
		}
		wanted, _ := p.wanted(t.turn)
		if err := t.cluster.OfferVolume(ctx, *wanted, catalog.Claim{Namespace: t.swap.Namespace, Name: p.Claim}); err != nil {
			return err
		}
	}
	return nil
}

// stop scales the apps to 0 and waits until nothing holds claims and volumes.
func (t *turning) stop(ctx context.Context) error {
	for i := range t.swap.Apps {
		a := &t.swap.Apps[i]
		if _, remembered := a.Remembered(t.swap.Run); !remembered {
			if err := t.cluster.Remember(ctx, *a, t.swap.Run, a.Replicas); err != nil {
				return err
			}
			a.Annotations = map[string]string{catalog.AnnotationInPlace: string(t.swap.Run), catalog.AnnotationReplicas: fmt.Sprint(a.Replicas)}
		}
		if t.stopped.IsZero() {
			t.stopped = t.now()
		}
		if err := t.cluster.Scale(ctx, *a, 0); err != nil {
			return err
		}
		replicas, _ := a.Remembered(t.swap.Run)
		t.tell(catalog.PhaseScale, catalog.OK, "", fmt.Sprintf("%s scaled to 0, %d remembered", a, replicas))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, errTimeout)
	defer cancel()
	var volumes []string
	for _, p := range t.swap.Pairs {
		volumes = append(volumes, p.Old.Name, p.New.Name)
	}
	return t.cluster.AwaitIdle(ctx, t.swap.Namespace, t.swap.Claims(), volumes, t.swap.Apps)
}

// exchange makes each claim again with the wanted volume. ^C does not come in
// between.
func (t *turning) exchange(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), exchangeTimeout, errTimeout)
	defer cancel()
	for i := range t.swap.Pairs {
		p := &t.swap.Pairs[i]
		if err := t.place(ctx, p); err != nil {
			return err
		}
	}
	for i := range t.swap.Pairs {
		p := &t.swap.Pairs[i]
		if err := t.cluster.AwaitBound(ctx, t.swap.Namespace, p.Claim, func(restic.Trouble) {}); err != nil {
			return err
		}
		wanted, other := p.wanted(t.turn)
		p.Live.Volume = wanted.Name
		t.tell(catalog.PhaseSwap, catalog.OK, p.Claim, fmt.Sprintf("has volume %s; %s is kept", wanted.Name, other.Name))
	}
	return nil
}

// place gives one claim its volume. It does not wait until it is bound.
func (t *turning) place(ctx context.Context, p *Pair) error {
	wanted, other := p.wanted(t.turn)
	live, _, err := t.cluster.ReadClaim(ctx, t.swap.Namespace, p.Claim)
	switch {
	case err != nil && !gone(err):
		return err
	case err == nil && live.Volume == wanted.Name:
	case err == nil && live.Volume != other.Name:
		return fmt.Errorf("claim %s/%s was made by somebody else, with volume %q: %w", t.swap.Namespace, p.Claim, live.Volume, catalog.ErrTaken)
	default:
		if err := t.still(ctx); err != nil {
			return err
		}
		if err == nil {
			if err := t.cluster.RemoveClaim(ctx, t.swap.Namespace, p.Claim, live.UID); err != nil {
				return err
			}
		}
		if err := t.cluster.RemakeClaim(ctx, p.Manifest, wanted.Name); err != nil {
			return err
		}
	}
	return nil
}

// still fails if an app is to have replicas.
func (t *turning) still(ctx context.Context) error {
	for _, a := range t.swap.Apps {
		replicas, err := t.cluster.Replicas(ctx, a)
		if err != nil {
			return err
		}
		if replicas > 0 {
			return fmt.Errorf("%s: %w to %d", a, catalog.ErrRaised, replicas)
		}
	}
	return nil
}

// start scales the apps back, waits until they are ready, and notes that
// nothing is under way any more. An app that is not ready in time, or not
// waited for, does not keep it from that: the volumes are where they should be.
func (t *turning) start(ctx context.Context) error {
	write, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	scaled, err := t.scaleBack(write)
	if err != nil {
		return t.halfway(err)
	}
	unready := t.ready(ctx, scaled)
	write, cancel = context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := t.forget(write); err != nil {
		return t.halfway(err)
	}
	if err := t.settle(write); err != nil {
		return t.halfway(err)
	}
	t.swap.Turn = ""
	return unready
}

// scaleBack gives each app that was scaled down the replicas it had. One that
// somebody has scaled since stays as it is. It returns how many each is to have.
func (t *turning) scaleBack(ctx context.Context) (map[string]int, error) {
	scaled := map[string]int{}
	for _, a := range t.swap.Apps {
		replicas, remembered := a.Remembered(t.swap.Run)
		if !remembered {
			continue
		}
		now, err := t.cluster.Replicas(ctx, a)
		if err == nil && now == 0 {
			now, err = replicas, t.cluster.Scale(ctx, a, replicas)
		}
		if err != nil {
			return nil, err
		}
		scaled[a.String()] = now
	}
	return scaled, nil
}

// ready waits for the pods; the error is a catalog.Failure.
func (t *turning) ready(ctx context.Context, scaled map[string]int) error {
	began := t.now()
	wait, cancel := context.WithTimeoutCause(ctx, t.timeout, errTimeout)
	defer cancel()
	for _, a := range t.swap.Apps {
		replicas, ok := scaled[a.String()]
		if !ok {
			continue
		}
		if err := t.cluster.AwaitReady(wait, a, replicas); err != nil {
			return t.unready(ctx, err)
		}
		t.tell(catalog.PhaseScale, catalog.OK, "", fmt.Sprintf("%s scaled to %d, ready in %s", a, replicas, t.now().Sub(began).Round(100*time.Millisecond)))
	}
	if !t.stopped.IsZero() {
		t.down = t.now().Sub(t.stopped)
	}
	return nil
}

func (t *turning) forget(ctx context.Context) error {
	for _, a := range t.swap.Apps {
		if _, remembered := a.Remembered(t.swap.Run); remembered {
			if err := t.cluster.Forget(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle notes on the volumes that nothing is under way. A new volume that no
// claim of the app has had yet holds nothing that is not in the set: it goes.
func (t *turning) settle(ctx context.Context) error {
	until := ""
	if t.grace > 0 {
		until = catalog.MarkUntil(t.now().Add(t.grace))
	}
	for i := range t.swap.Pairs {
		p := &t.swap.Pairs[i]
		wanted, other := p.wanted(t.turn)
		if t.turn == catalog.Back && p.Temp.UID != "" {
			if err := dispose(ctx, t.cluster, p.Temp); err != nil {
				return err
			}
		} else if err := t.cluster.SettleVolume(ctx, other.Name, false, until); err != nil {
			return err
		}
		if err := t.cluster.SettleVolume(ctx, wanted.Name, true, ""); err != nil {
			return err
		}
		other.DeleteAfter, wanted.DeleteAfter = until, ""
	}
	return nil
}

// undo puts everything back as it was before the turn, and is the failure that
// says why.
func (t *turning) undo(ctx context.Context, cause error) error {
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout+t.timeout)
	defer cancel()
	t.tell(catalog.PhaseSwap, catalog.Warning, "", "putting everything back: "+cause.Error())
	if err := t.putBack(undoing); err != nil {
		return t.halfway(errors.Join(cause, err))
	}
	return t.undone(ctx, cause)
}

func (t *turning) putBack(ctx context.Context) error {
	fresh, err := FindSwap(ctx, t.cluster, t.swap.Namespace, t.swap.Run)
	if err != nil {
		return err
	}
	back := &turning{cluster: t.cluster, now: t.now, watcher: t.watcher, timeout: t.timeout, grace: t.grace, swap: fresh, turn: t.reverse(), stopped: t.stopped}
	if !fresh.Placed(back.turn) {
		for _, step := range []func(context.Context) error{back.free, back.stop, back.exchange} {
			if err := step(ctx); err != nil {
				return err
			}
		}
	}
	if _, err := back.scaleBack(ctx); err != nil {
		return err
	}
	if err := back.forget(ctx); err != nil {
		return err
	}
	if t.turn == catalog.Back {
		return back.settle(ctx)
	}
	return back.withdraw(ctx)
}

// withdraw takes the marks off the old volumes, and removes the new ones: also
// where their claims seem to be there still, for those may be going.
func (t *turning) withdraw(ctx context.Context) error {
	for _, p := range t.swap.Pairs {
		if p.Old.Role != "" {
			if err := t.cluster.LetVolume(ctx, p.Old.Name, p.Old.Reclaim); err != nil {
				return err
			}
		}
		if p.New.Name != "" {
			if err := t.cluster.LetVolume(ctx, p.New.Name, "Delete"); err != nil {
				return err
			}
		}
	}
	return discard(ctx, t.cluster, t.swap.Namespace, t.swap.Run)
}

// discard removes what a run has made before it touched anything of the app:
// the movers that look, the safety snapshots, the new volumes with their claims.
// The claims go last: by them a later run finds the rest.
func discard(ctx context.Context, c SwapCluster, namespace string, run catalog.Run) error {
	scope := catalog.Scope{Namespaces: []string{namespace}}
	if err := removeMovers(ctx, c, namespace, run); err != nil {
		return err
	}
	snapshots, err := c.Snapshots(ctx, scope)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		if s.Role == catalog.RoleSafety && s.Run == run {
			if err := c.Delete(ctx, s); err != nil {
				return err
			}
		}
	}
	inventory, err := c.Inventory(ctx, scope)
	if err != nil {
		return err
	}
	for _, claim := range inventory.Claims {
		if claim.Role == catalog.RoleNew && claim.Labels[catalog.LabelRun] == string(run) {
			if err := dispose(ctx, c, claim); err != nil {
				return err
			}
		}
	}
	return nil
}

// dispose removes a claim together with its volume.
func dispose(ctx context.Context, c SwapCluster, claim catalog.Claim) error {
	if claim.Volume != "" {
		if err := c.LetVolume(ctx, claim.Volume, "Delete"); err != nil {
			return err
		}
	}
	return c.RemoveClaim(ctx, claim.Namespace, claim.Name, claim.UID)
}

func (t *turning) tell(phase catalog.Phase, state catalog.State, claim, message string) {
	t.watcher.Event(claimEvent(t.now(), t.swap.Run, t.swap.Namespace, phase, state, claim, message))
}
