package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// skew is how far the clock of the storage may be off before its word for the
// time of the cut is not taken: drivers that give none say 1970.
const skew = 5 * time.Minute

// compareClocks notes how far the clock of this machine is off that of the API
// server, which has just created a snapshot: all that is judged by time goes
// by the cluster's. An app that is told of it is told once.
func (a *taking) compareClocks(created time.Time) {
	switch now := a.now(); {
	case created.IsZero():
	case created.Before(a.requested.Add(-skew)):
		a.behind = created.Sub(a.requested)
	case created.After(now.Add(skew)):
		a.behind = created.Sub(now)
	}
	if a.behind != 0 {
		a.event(catalog.Event{
			Phase: catalog.PhaseSnapshot, State: catalog.Warning,
			Message: fmt.Sprintf("the clock of this machine is %s off the cluster's: records and days go by the cluster's", a.behind.Abs().Round(time.Second)),
		})
	}
}

// clusterTime is the time of the cluster at t of this machine, in UTC.
func (a *taking) clusterTime(t time.Time) time.Time { return t.Add(a.behind).UTC() }

// finish waits until the storage has made the cut usable, and labels it: only
// then is it a restore point.
func (a *taking) finish(ctx context.Context, snapshots []catalog.Snapshot) ([]catalog.Snapshot, error) {
	err := a.await(ctx, snapshots, catalog.OK, func(s catalog.Snapshot) bool { return s.Ready })
	if err != nil {
		return a.leftover(ctx, snapshots, err)
	}
	ready := a.now()
	taken, err := a.taken(ctx)
	if err != nil {
		return a.leftover(ctx, snapshots, a.failure(ctx, catalog.CodeStorage, "list snapshots", err))
	}
	failed := make([]error, len(snapshots))
	var completing sync.WaitGroup
	for i := range snapshots {
		completing.Go(func() {
			snapshots[i], failed[i] = a.complete(ctx, snapshots[i], ready)
		})
	}
	completing.Wait()
	if err := errors.Join(failed...); err != nil {
		return a.leftover(ctx, snapshots, a.failure(ctx, catalog.CodeStorage, "read VolumeSnapshotContent", err))
	}
	return a.label(ctx, snapshots, taken, ready)
}

// taken are the snapshots of the namespace as they stand now: which periods
// are free is only known under the lock, not when the plan was made.
func (a *taking) taken(ctx context.Context) (taken []catalog.Snapshot, err error) {
	err = a.cluster.Await(ctx, a.app.Namespace, func(all []catalog.Snapshot) (bool, error) {
		taken = all
		return true, nil
	})
	return taken, err
}

// complete is s with what its content says, and a time of its cut that can be.
func (a *taking) complete(ctx context.Context, s catalog.Snapshot, ready time.Time) (catalog.Snapshot, error) {
	completed, err := a.cluster.Complete(ctx, s)
	if err != nil {
		return s, err
	}
	if completed.Cut.Before(completed.Created.Add(-skew)) || completed.Cut.After(a.clusterTime(ready).Add(skew)) {
		completed.Cut = completed.Created
	}
	return completed, nil
}

// label writes what the set has earned onto all its members. If one of them
// cannot be labelled all are removed: half a set is no restore point.
func (a *taking) label(ctx context.Context, snapshots []catalog.Snapshot, taken []catalog.Snapshot, ready time.Time) ([]catalog.Snapshot, error) {
	periods := catalog.FreePeriods(snapshots[0].Cut.In(a.plan.Zone), a.claims(), taken)
	labelled := make([]catalog.Snapshot, len(snapshots))
	failed := make([]error, len(snapshots))
	note := sync.OnceFunc(func() {
		a.event(catalog.Event{Phase: catalog.PhaseSnapshot, State: catalog.Warning, Message: catalog.ErrUnmirrored.Error()})
	})
	var labelling sync.WaitGroup
	for i, s := range snapshots {
		labelling.Go(func() {
			var err error
			labelled[i], err = a.cluster.Label(ctx, a.earned(a.app.Volumes[i], s, periods, ready))
			if errors.Is(err, catalog.ErrUnmirrored) {
				note()
				err = nil
			}
			if err != nil {
				failed[i] = fmt.Errorf("label %s: %w", s.Name, err)
			}
		})
	}
	labelling.Wait()
	if err := errors.Join(failed...); err != nil {
		return a.leftover(ctx, snapshots, a.failure(ctx, catalog.CodeStorage, "label VolumeSnapshot", err))
	}
	return labelled, nil
}

// earned is s as a restore point: consistency, periods, day of removal, record.
func (a *taking) earned(v Volume, s catalog.Snapshot, periods map[catalog.Period]string, ready time.Time) catalog.Snapshot {
	s.Consistency = a.consistency
	s.Claim, s.Run, s.Retain, s.Pinned = v.Claim.Name, a.plan.Run, v.Retain.Label(), a.plan.Pin
	s.DeleteAfter = v.Retain.DeleteAfter(s.Cut.In(a.plan.Zone))
	if v.Retain.Calendar {
		s = s.WithPeriods(periods)
	}
	s.Record = a.record(v, s, ready)
	return s
}

func (a *taking) record(v Volume, s catalog.Snapshot, ready time.Time) *catalog.Record {
	r := &catalog.Record{
		Version: catalog.RecordVersion, Run: a.plan.Run, App: a.app.Name, Members: a.claims(),
		Claim:         v.Claim.Record(),
		SnapshotClass: v.Class, RestoreSize: s.RestoreSize, TimeZone: a.plan.Zone.String(),
		Consistency: a.consistency, Reason: a.reason, Barrier: a.barrier, User: a.app.User, Wanted: v.Wanted,
		Requested: a.clusterTime(a.requested), Cut: s.Cut.UTC(), Ready: a.clusterTime(ready),
	}
	r.Claim.Node = v.Node
	for _, p := range a.proofs {
		p.enter(r)
		r.DumpBegan, r.Dumped = a.clusterTime(p.began), a.clusterTime(p.done)
	}
	return r
}

// claims are the names of the app's volumes, sorted as the plan has them.
func (a *taking) claims() []string {
	var names []string
	for _, v := range a.app.Volumes {
		names = append(names, v.Claim.Name)
	}
	return names
}
