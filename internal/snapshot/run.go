package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// cleanupTimeout bounds what is still done after ^C.
const cleanupTimeout = 30 * time.Second

// Outcome is how a claim ended.
type Outcome string

// The outcomes.
const (
	Protected Outcome = "Protected"
	Skipped   Outcome = "Skipped"
	Failed    Outcome = "Failed"
)

// Result is what became of a plan: one item a claim in scope, those of the
// apps first, in the plan's order.
type Result struct {
	Run   catalog.Run
	Items []Item
}

// Item is one claim and what became of it.
type Item struct {
	Namespace, App, Claim string
	Outcome               Outcome
	// Snapshot is the restore point of a protected claim; of a failed one it
	// is what may still become ready, or nil.
	Snapshot *catalog.Snapshot
	// Err is why it is not protected, or, of a protected one, what kept it
	// from better consistency. It is a catalog.Failure wherever a person can
	// do something about it.
	Err error
	// Reason is why a claim was skipped; Wanted that somebody asked for it.
	Reason string
	Wanted bool
}

// Run takes the snapshots of plan: apps side by side, at most plan.Parallel at
// once, the volumes of one app always together. An app that fails stops no
// other. When ctx ends, what is not ready is removed, and the result still
// says what became of every claim. now is the caller's clock.
func Run(ctx context.Context, c Cluster, now func() time.Time, plan Plan, w catalog.Watcher) Result {
	items := make([][]Item, len(plan.Apps))
	free := make(chan struct{}, max(plan.Parallel, 1))
	var running sync.WaitGroup
	for i, app := range plan.Apps {
		running.Go(func() {
			free <- struct{}{}
			a := &taking{cluster: c, now: now, plan: plan, app: app, watcher: w, leave: sync.OnceFunc(func() { <-free })}
			defer a.leave()
			items[i] = a.take(ctx)
		})
	}
	running.Wait()
	result := Result{Run: plan.Run}
	for _, of := range items {
		result.Items = append(result.Items, of...)
	}
	for _, s := range plan.Skips {
		result.Items = append(result.Items, Item{
			Namespace: s.Claim.Namespace, Claim: s.Claim.Name, Outcome: Skipped, Reason: s.Reason, Wanted: s.Wanted(), Err: s.Err(),
		})
	}
	return result
}

// taking is one app on its way.
type taking struct {
	cluster Cluster
	now     func() time.Time
	plan    Plan
	app     App
	watcher catalog.Watcher
	// leave gives the app's place to the next one: waiting for the storage to
	// make a cut usable takes no place.
	leave func()

	consistency catalog.Consistency
	reason      string
	barrier     string
	proofs      []proof
	requested   time.Time
	// behind is how far the clock of this machine is behind the API server's,
	// negative where it is ahead of it; 0 within skew.
	behind time.Duration
}

// take is the whole way of one app. It always returns one item a volume.
func (a *taking) take(ctx context.Context) []Item {
	if a.app.Err != nil {
		return a.all(nil, a.app.Err)
	}
	if err := context.Cause(ctx); err != nil {
		return a.all(nil, a.interrupted(err))
	}
	hookErr := a.prepare(ctx)
	if hookErr != nil && (a.app.Effort == Application || ctx.Err() != nil) {
		return a.all(nil, hookErr)
	}
	snapshots, err := a.cut(ctx)
	if err == nil {
		a.leave()
		snapshots, err = a.finish(ctx, snapshots)
	}
	if err != nil {
		return a.all(snapshots, err)
	}
	if a.plan.RemoveDump {
		a.removeDumps(ctx)
	}
	return a.all(snapshots, hookErr)
}

// all are the items of the app's volumes: protected where their snapshot is
// labelled as a restore point.
func (a *taking) all(snapshots []catalog.Snapshot, err error) []Item {
	var items []Item
	for i, v := range a.app.Volumes {
		item := Item{Namespace: a.app.Namespace, App: a.app.Name, Claim: v.Claim.Name, Outcome: Failed, Err: err}
		if i < len(snapshots) && snapshots[i].Name != "" {
			item.Snapshot = &snapshots[i]
			if snapshots[i].Consistency != "" {
				item.Outcome = Protected
			}
		}
		items = append(items, item)
	}
	return items
}

// cut creates the snapshots of all volumes at once and returns when the
// storage has taken them.
func (a *taking) cut(ctx context.Context) ([]catalog.Snapshot, error) {
	a.requested = a.now()
	snapshots, err := a.create(ctx)
	if err == nil {
		a.compareClocks(snapshots[0].Created)
		err = a.await(ctx, snapshots, catalog.Cut, func(s catalog.Snapshot) bool { return !s.Cut.IsZero() })
	}
	if err != nil {
		return a.leftover(ctx, snapshots, err)
	}
	return snapshots, nil
}

// create asks for the snapshots of all volumes side by side.
func (a *taking) create(ctx context.Context) ([]catalog.Snapshot, error) {
	snapshots := make([]catalog.Snapshot, len(a.app.Volumes))
	failed := make([]error, len(snapshots))
	var creating sync.WaitGroup
	for i, v := range a.app.Volumes {
		creating.Go(func() {
			a.event(catalog.Event{Phase: catalog.PhaseSnapshot, State: catalog.Started, Claim: v.Claim.Name, Name: v.Name})
			snapshots[i], failed[i] = a.cluster.Create(ctx, a.request(v))
		})
	}
	creating.Wait()
	if err := errors.Join(failed...); err != nil {
		return snapshots, a.failure(ctx, catalog.CodeStorage, "create VolumeSnapshot", err)
	}
	return snapshots, nil
}

// request is the snapshot of v as it is asked for: without consistency and
// periods, which it gets when it has earned them.
func (a *taking) request(v Volume) catalog.Snapshot {
	return catalog.Snapshot{
		Namespace: a.app.Namespace, Name: v.Name, Claim: v.Claim.Name, Class: v.Class, Run: a.plan.Run,
		Retain: v.Retain.Label(), DeleteAfter: v.Retain.DeleteAfter(a.requested.In(a.plan.Zone)), Pinned: a.plan.Pin,
	}
}

// await waits until every one of snapshots is as wanted, and brings it up to
// date in place.
func (a *taking) await(ctx context.Context, snapshots []catalog.Snapshot, state catalog.State, wanted func(catalog.Snapshot) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.plan.Timeout, errTimeout)
	defer cancel()
	seen := make([]bool, len(snapshots))
	err := a.cluster.Await(ctx, a.app.Namespace, func(all []catalog.Snapshot) (bool, error) {
		missing := 0
		for i := range snapshots {
			now, ok := find(all, snapshots[i])
			if !ok {
				if seen[i] {
					return false, fmt.Errorf("snapshot %s was deleted by somebody else", snapshots[i].Name)
				}
				missing++
				continue
			}
			done := seen[i] && wanted(snapshots[i])
			snapshots[i], seen[i] = now, true
			if a.app.Volumes[i].Class == "" && strings.Contains(now.Err, "default snapshot class") {
				return false, a.noClass(now)
			}
			if !wanted(now) {
				missing++
			} else if !done {
				a.event(catalog.Event{Phase: catalog.PhaseSnapshot, State: state, Claim: now.Claim, Name: now.Name, Took: a.now().Sub(a.requested)})
			}
		}
		return missing == 0, nil
	})
	if err != nil {
		return a.notReady(ctx, snapshots, state, err)
	}
	return nil
}

func find(all []catalog.Snapshot, want catalog.Snapshot) (catalog.Snapshot, bool) {
	for _, s := range all {
		if s.UID == want.UID {
			return s, true
		}
	}
	return catalog.Snapshot{}, false
}

// leftover tells that err has ended the snapshots, and removes what is
// unfinished, also after ^C. After a time-out it is
// left and returned: the storage may still be at it, and the error says so.
func (a *taking) leftover(ctx context.Context, snapshots []catalog.Snapshot, err error) ([]catalog.Snapshot, error) {
	for _, v := range a.app.Volumes {
		a.event(catalog.Event{Phase: catalog.PhaseSnapshot, State: catalog.Failed, Claim: v.Claim.Name, Name: v.Name, Message: rootCause(err)})
	}
	if errors.Is(err, errTimeout) {
		return snapshots, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for _, s := range snapshots {
		if s.UID == "" { // never created
			continue
		}
		if e := a.cluster.Delete(ctx, s); e != nil {
			err = errors.Join(err, fmt.Errorf("remove unfinished snapshot %s/%s: %w", s.Namespace, s.Name, e))
		}
	}
	return nil, err
}

func (a *taking) event(e catalog.Event) {
	e.Time, e.Run, e.Namespace, e.App = a.now(), a.plan.Run, a.app.Namespace, a.app.Name
	a.watcher.Event(e)
}
