package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// SwapResult is what became of a restore in place.
type SwapResult struct {
	Swap Swap
	// Done: the claims have the volumes that they were to have.
	Done bool
	// Downtime is from the first app that was scaled down until all were ready;
	// 0 if none was, or that is not known.
	Downtime time.Duration
}

// CheckSwap asks for all rights that p needs, as Check does.
func CheckSwap(ctx context.Context, c SwapCluster, p SwapPlan) error {
	return lackNone(ctx, c, p.Rights())
}

// CheckTurn asks for all rights that s needs, as Check does.
func CheckTurn(ctx context.Context, c SwapCluster, s Swap) error {
	return lackNone(ctx, c, s.Rights())
}

// Rights are what Finish, RollBack and Commit of s need to be allowed to do.
func (s Swap) Rights() []catalog.Right {
	var rights catalog.Rights
	turnRights(s.Namespace, s.Apps, &rights)
	rights.Add("", "persistentvolumes", "", "watch")
	return rights
}

func lackNone(ctx context.Context, c Cluster, rights []catalog.Right) error {
	lacking, err := c.Missing(ctx, rights)
	if err != nil || len(lacking) == 0 {
		return err
	}
	return missing(lacking)
}

// RunSwap fills new volumes while the app runs, and exchanges them for those
// that it has. What a dead run has left that touched nothing of the app is
// removed first. The error is a catalog.Failure that says how things stand.
func RunSwap(ctx context.Context, c SwapCluster, follow Follow, now func() time.Time, p SwapPlan, w catalog.Watcher) (SwapResult, error) {
	r := &replacing{cluster: c, follow: follow, now: now, plan: p, watcher: w}
	if err := r.sweep(ctx); err != nil {
		return SwapResult{}, r.unprepared(ctx, err)
	}
	swap, err := r.prepare(ctx)
	if err != nil {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		return SwapResult{}, r.unprepared(ctx, errors.Join(err, discard(cleaning, c, p.Target.Namespace, p.Run)))
	}
	return turn(ctx, c, now, swap, catalog.Forth, p.Terms, w)
}

// turn exchanges the volumes of s.
func turn(ctx context.Context, c SwapCluster, now func() time.Time, s Swap, to catalog.Turn, terms Terms, w catalog.Watcher) (SwapResult, error) {
	t := &turning{cluster: c, now: now, watcher: w, timeout: terms.AppTimeout, grace: terms.Grace, swap: s, turn: to}
	err := t.run(ctx)
	return SwapResult{Swap: t.swap, Done: t.swap.Turn == "" && t.swap.Placed(to), Downtime: t.down}, err
}

// Finish ends the restore in place that a dead run has begun.
func Finish(ctx context.Context, c SwapCluster, now func() time.Time, s Swap, terms Terms, w catalog.Watcher) (SwapResult, error) {
	if err := s.CanTurn(catalog.Forth); err != nil {
		return SwapResult{Swap: s}, err
	}
	return turn(ctx, c, now, s, catalog.Forth, terms, w)
}

// RollBack gives the claims the volumes again that they had before, whether the
// run has ended or died. The new ones are kept: the app has written to them.
// What a run has made that died before it touched the app is removed.
func RollBack(ctx context.Context, c SwapCluster, now func() time.Time, s Swap, terms Terms, w catalog.Watcher) (SwapResult, error) {
	if err := s.CanTurn(catalog.Back); err != nil {
		return SwapResult{Swap: s}, err
	}
	switch {
	case !s.begun():
		err := discard(ctx, c, s.Namespace, s.Run)
		return SwapResult{Swap: s, Done: err == nil}, err
	case s.Turn == "" && s.Placed(catalog.Back):
		return SwapResult{Swap: s, Done: true}, nil
	}
	return turn(ctx, c, now, s, catalog.Back, terms, w)
}

// CanCommit says why the volumes that are kept may not go; nil if they may. At
// once: what is left of their grace is not waited for. The error is a
// catalog.Failure.
func (s Swap) CanCommit(now time.Time, atOnce bool) error {
	if len(s.Pairs) == 0 {
		return s.CanTurn(catalog.Back)
	}
	if s.Turn != "" || !s.begun() {
		return &catalog.Failure{
			Code: catalog.CodeNotNow, Message: fmt.Sprintf("run %s has not ended: its volumes cannot be removed", s.Run), State: "nothing changed",
			Next: fmt.Sprintf("finish it: kubectl backsnap restore %s -n %s --in-place, or kubectl backsnap restore --rollback %s -n %s", s.Pairs[0].Claim, s.Namespace, s.Run, s.Namespace),
		}
	}
	for _, p := range s.Pairs {
		if p.Live.Phase != "Bound" || p.Live.Terminating {
			return &catalog.Failure{
				Code: catalog.CodeNotNow, Message: fmt.Sprintf("%s/%s is not there, or has no volume: what is kept may be the last of its data", s.Namespace, p.Claim), State: "nothing changed",
				Next: fmt.Sprintf("kubectl backsnap restore --rollback %s -n %s", s.Run, s.Namespace),
			}
		}
	}
	if atOnce {
		return nil
	}
	return s.inGrace(now)
}

// Kept are the volumes of s that no claim of the app has.
func (s Swap) Kept() []catalog.SwapVolume {
	var kept []catalog.SwapVolume
	for _, p := range s.Pairs {
		for _, v := range []catalog.SwapVolume{p.Old, p.New} {
			if v.Name != "" && v.Role != "" && v.Name != p.Live.Volume {
				kept = append(kept, v)
			}
		}
	}
	return kept
}

// Commit removes the volumes that are kept, and the marks off the others.
func Commit(ctx context.Context, c SwapCluster, s Swap, now time.Time, atOnce bool, timeout time.Duration) error {
	if err := s.CanCommit(now, atOnce); err != nil {
		return err
	}
	kept := s.Kept()
	for _, v := range kept {
		if err := c.LetVolume(ctx, v.Name, "Delete"); err != nil {
			return err
		}
	}
	for _, p := range s.Pairs {
		for _, v := range []catalog.SwapVolume{p.Old, p.New} {
			if v.Role != "" && v.Name == p.Live.Volume {
				if err := c.LetVolume(ctx, v.Name, v.Reclaim); err != nil {
					return err
				}
			}
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	for _, v := range kept {
		if err := c.AwaitVolumeGone(ctx, v.Name); err != nil {
			return uncommitted(v, err)
		}
	}
	return nil
}

// replacing is a restore in place until the volumes are exchanged.
type replacing struct {
	cluster SwapCluster
	follow  Follow
	now     func() time.Time
	plan    SwapPlan
	watcher catalog.Watcher
}

// sweep removes what runs have left that died before they touched an app. The
// caller holds the namespace: none of them is at work.
func (r *replacing) sweep(ctx context.Context) error {
	namespace := r.plan.Target.Namespace
	inventory, err := r.cluster.Inventory(ctx, catalog.Scope{Namespaces: []string{namespace}})
	if err != nil {
		return err
	}
	volumes, err := r.cluster.SwapVolumes(ctx, namespace)
	if err != nil {
		return err
	}
	done := map[catalog.Run]bool{r.plan.Run: true}
	for _, v := range volumes {
		done[v.Run] = true
		if v.Turn != "" && slices.ContainsFunc(r.plan.Live, func(c catalog.Claim) bool { return c.Name == v.Of }) {
			return halfDone(v, namespace) // begun since the plan was made
		}
	}
	for _, claim := range inventory.Claims {
		run := catalog.Run(claim.Labels[catalog.LabelRun])
		if claim.Role != catalog.RoleNew || done[run] {
			continue
		}
		done[run] = true
		r.tell(catalog.PhaseSweep, catalog.Warning, "", fmt.Sprintf("run %s has ended before it touched the app: removing what it made", run))
		if err := discard(ctx, r.cluster, namespace, run); err != nil {
			return err
		}
	}
	return nil
}

// prepare fills and checks the new volumes and takes the safety snapshots: the
// app notices nothing.
func (r *replacing) prepare(ctx context.Context) (Swap, error) {
	if _, err := Run(ctx, r.cluster, r.follow, r.now, r.plan.Plan, r.watcher); err != nil {
		return Swap{}, err
	}
	if err := r.check(ctx); err != nil {
		return Swap{}, err
	}
	if err := r.safety(ctx); err != nil {
		return Swap{}, err
	}
	swap, err := FindSwap(ctx, r.cluster, r.plan.Target.Namespace, r.plan.Run)
	if err != nil {
		return swap, err
	}
	if len(swap.Pairs) != len(r.plan.Volumes) {
		return swap, fmt.Errorf("%d new volumes are there, want %d: %w", len(swap.Pairs), len(r.plan.Volumes), catalog.ErrGone)
	}
	for _, p := range swap.Pairs {
		if p.New.Name == "" || p.Old.Name == "" {
			return swap, fmt.Errorf("claim %s/%s, or what is to replace its volume: %w", swap.Namespace, p.Claim, catalog.ErrGone)
		}
	}
	return swap, nil
}

// safety takes the snapshots of what is about to be replaced.
func (r *replacing) safety(ctx context.Context) error {
	if len(r.plan.Safety) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.plan.Timeout, errTimeout)
	defer cancel()
	return takeSafety(ctx, r.cluster, r.plan.Target.Namespace, r.plan.Safety, r.tell)
}

// takeSafety takes the snapshots, waits until they are ready, and tells of each.
func takeSafety(ctx context.Context, c SwapCluster, namespace string, snapshots []catalog.Snapshot, tell func(phase catalog.Phase, state catalog.State, claim, message string)) error {
	var names []string
	for _, s := range snapshots {
		if _, err := c.Create(ctx, s); err != nil {
			return fmt.Errorf("take safety snapshot %s: %w", s.Name, err)
		}
		names = append(names, s.Name)
	}
	said := ""
	err := c.Await(ctx, namespace, func(there []catalog.Snapshot) (bool, error) {
		ready := 0
		for _, s := range there {
			if slices.Contains(names, s.Name) {
				said = s.Err
				if s.Ready {
					ready++
				}
			}
		}
		return ready == len(names), nil
	})
	if err != nil {
		if said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return fmt.Errorf("wait for safety snapshots: %w", err)
	}
	for _, s := range snapshots {
		tell(catalog.PhaseSafety, catalog.OK, s.Claim, "snapshot "+s.Name+", kept through "+s.DeleteAfter)
	}
	return nil
}

// claimEvent is an event of a run that restores where the data is; claim is "" for the
// app.
func claimEvent(now time.Time, run catalog.Run, namespace string, phase catalog.Phase, state catalog.State, claim, message string) catalog.Event {
	return catalog.Event{Time: now, Run: run, Phase: phase, State: state, Namespace: namespace, Claim: claim, Message: message}
}

func (r *replacing) tell(phase catalog.Phase, state catalog.State, claim, message string) {
	r.watcher.Event(claimEvent(r.now(), r.plan.Run, r.plan.Target.Namespace, phase, state, claim, message))
}
