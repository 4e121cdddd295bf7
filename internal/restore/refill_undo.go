package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// kindSafety is the Kind of a Target that is the safety snapshots of a run.
const kindSafety = "safety"

// safety takes the snapshots that a run has taken of what it was about to
// overwrite.
func (c chooser) safety(snapshots []catalog.Snapshot) (Choice, error) {
	taken := safetyOf(snapshots, catalog.Run(c.Target.Name))
	if len(taken) == 0 {
		return Choice{}, c.none("it has none any more")
	}
	chosen := Chosen{Set: catalog.Set{Namespace: c.Target.Namespace, Run: taken[0].Run, App: taken[0].App(), Members: taken[0].Record.Members, Snapshots: taken}}
	for _, s := range taken {
		point, reason := c.point(s)
		if reason != "" {
			return Choice{}, c.none(s.Name + ": " + reason)
		}
		point.Snapshot.Consistency = s.Record.Consistency // as no restore point, it has no label of it
		chosen.Points = append(chosen.Points, point)
	}
	chosen.Cut = chosen.Set.CutAt()
	return Choice{Chosen: []Chosen{chosen}}, nil
}

// paused notes that an app is stopped by a refill that has not ended.
func (p *swapPlanner) paused() {
	for _, a := range p.plan.Apps {
		if pause, noted := a.Pause(); noted {
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("%s was scaled to 0 by run %s, and stays so until that is rolled back", a, pause.Run))
		}
	}
}

// MakeUndoPlan plans the way back from a refill that has changed the data: new
// volumes are made from its safety snapshots, and take the place of those that
// the claims have. It is a restore in place of its own, with its own run.
func MakeUndoPlan(ctx context.Context, c SwapCluster, r SwapRequest, f Refill) (SwapPlan, error) {
	for _, claim := range f.Claims {
		found := false
		for _, s := range f.Safety {
			found = found || s.Claim == claim.Name && s.Ready
		}
		if !found {
			return SwapPlan{}, &catalog.Failure{
				Code: catalog.CodeNotNow, Message: fmt.Sprintf("%s/%s cannot go back: run %s has no safety snapshot of it any more", f.Namespace, claim.Name, f.Run),
				State: "nothing changed", Next: fmt.Sprintf("restore a copy, of an older set too: kubectl backsnap restore %s -n %s --into-claim --in-namespace", claim.Name, f.Namespace),
			}
		}
	}
	r.Target = Target{Namespace: f.Namespace, Kind: kindSafety, Name: string(f.Run)}
	r.From, r.At, r.Cluster, r.List = From{Kind: Snapshot}, time.Time{}, "", nil
	r.ToNamespace = f.Namespace
	return MakeSwapPlan(ctx, c, r)
}

// StopMovers ends what the movers of a refill still do.
func StopMovers(ctx context.Context, c RefillCluster, f Refill) error {
	var errs []error
	for _, claim := range f.Claims {
		errs = append(errs, c.RemoveMover(ctx, f.Namespace, workName(f.Run, f.Namespace, claim.Name)))
	}
	return errors.Join(errs...)
}

// CheckPutBack asks for all rights that PutBack needs, as Check does.
func CheckPutBack(ctx context.Context, c RefillCluster, f Refill) error {
	return CheckRefill(ctx, c, RefillPlan{Plan: Plan{Request: Request{Target: Target{Namespace: f.Namespace}}}, Apps: f.Apps})
}

// PutBack ends a refill that has touched no data, or whose claims have got
// other volumes since: the apps get their replicas again. The error is a
// catalog.Failure.
func PutBack(ctx context.Context, c RefillCluster, now func() time.Time, f Refill, timeout time.Duration, w catalog.Watcher) error {
	p := RefillPlan{Plan: Plan{Request: Request{Run: f.Run, Target: Target{Namespace: f.Namespace, Kind: kindSafety, Name: string(f.Run)}}}, Apps: f.Apps, AppTimeout: timeout}
	for _, claim := range f.Claims {
		p.Volumes = append(p.Volumes, Volume{Claim: claim})
	}
	r := &refilling{cluster: c, now: now, plan: p, watcher: w}
	if err := StopMovers(ctx, c, f); err != nil {
		return r.halfway(err)
	}
	if len(f.Claims) > 0 { // begun, and nothing else: nobody needs the snapshots
		for _, s := range f.Safety {
			if err := c.Delete(ctx, s); err != nil {
				return r.halfway(err)
			}
		}
	}
	return r.start(ctx)
}
