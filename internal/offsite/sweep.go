package offsite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// removals is how many are removed at once.
const removals = 4

// Sweeping says whose leavings Sweep may touch.
type Sweeping struct {
	Run             catalog.Run // the caller's own, which is left alone
	BackupNamespace string
	// Namespaces are those that the caller holds: no other client works for
	// claims there, so that what stands without a mover is a dead one's.
	Namespaces []string
}

// Sweep writes down what movers of earlier runs have done since nobody waited
// for them, and removes what was made for them; and, of Sweeping.Namespaces,
// what clients that died have left, unless a mover of their run works still.
// Movers that have not finished are left alone, and so are those that copy
// nothing: their clients may still read what they said, and Kubernetes removes
// them soon. That the snapshot of a copy is gone is no error.
//
// A run that waits for its mover at the same moment loses nothing: it has seen
// the mover's end before, and both write the same.
//
// The outcomes are those of movers that made a copy, or should have, in the
// order of their names; of each Copy only what the mover knows of it is filled
// in. The error joins theirs; that something could not be removed is told.
func Sweep(ctx context.Context, c Cluster, now func() time.Time, s Sweeping, w catalog.Watcher) ([]Outcome, error) {
	standing, err := c.Movers(ctx, s.BackupNamespace)
	if err != nil {
		return nil, fmt.Errorf("look for what earlier runs left in %s: %w", s.BackupNamespace, err)
	}
	working := Working(standing)
	standing = slices.DeleteFunc(standing, func(m restic.Mover) bool { return m.Run == s.Run || m.Unfinished() })
	orphan := func(m restic.Mover) bool { return slices.Contains(s.Namespaces, m.Source.Namespace) && !working[m.Run] }
	outcomes, _ := takeIn(ctx, c, now, s.BackupNamespace, standing, orphan, w) // what is left is told
	return outcomes, join(outcomes)
}

// Leavings are those of what stands that Sweep takes in or removes for who holds
// the namespaces for which here is true.
func Leavings(standing []restic.Mover, own catalog.Run, here func(namespace string) bool) []restic.Mover {
	working := Working(standing)
	var left []restic.Mover
	for _, m := range standing {
		if m.Run != own && !m.Unfinished() && here(m.Source.Namespace) && (m.Finished && m.Copies() || !working[m.Run]) {
			left = append(left, m)
		}
	}
	return left
}

// Abort stops the movers of a run and removes what was made for them. What
// they have copied before is written down, and told. The error is what could
// not be removed.
func Abort(ctx context.Context, c Cluster, now func() time.Time, backupNamespace string, run catalog.Run, w catalog.Watcher) error {
	standing, err := c.Movers(ctx, backupNamespace)
	if err != nil {
		return fmt.Errorf("look for movers in %s: %w", backupNamespace, err)
	}
	standing = slices.DeleteFunc(standing, func(m restic.Mover) bool { return m.Run != run })
	_, left := takeIn(ctx, c, now, backupNamespace, standing, func(restic.Mover) bool { return true }, w)
	return left
}

// takeIn collects the movers that have finished, and removes the rest of what
// is left. The error is what could not be removed.
func takeIn(ctx context.Context, c Cluster, now func() time.Time, backupNamespace string,
	standing []restic.Mover, orphan func(restic.Mover) bool, w catalog.Watcher,
) ([]Outcome, error) {
	found := make([]*Outcome, len(standing))
	left := make([]error, len(standing))
	places := make(chan struct{}, removals)
	var taking sync.WaitGroup
	for i, of := range standing {
		leave := enter(ctx, places)
		taking.Go(func() {
			defer leave()
			m := late(c, now, backupNamespace, of, w)
			if of.Finished && of.Copies() {
				found[i], left[i] = m.collect(ctx)
			}
			if found[i] == nil && orphan(of) {
				left[i] = m.sweep(ctx, of)
			}
		})
	}
	taking.Wait()
	var outcomes []Outcome
	for _, o := range found {
		if o != nil {
			outcomes = append(outcomes, *o)
		}
	}
	return outcomes, errors.Join(left...)
}

// Working are the runs of which a mover has not finished: they live, whatever
// has become of their clients.
func Working(standing []restic.Mover) map[catalog.Run]bool {
	working := map[catalog.Run]bool{}
	for _, m := range standing {
		if m.Unfinished() {
			working[m.Run] = true
		}
	}
	return working
}

// late is a copy that an earlier run has begun.
func late(c Cluster, now func() time.Time, backupNamespace string, of restic.Mover, w catalog.Watcher) *making {
	return &making{
		cluster: c, now: now, watcher: w, began: now(), stage: mover, late: true,
		// It is not known whether the class retains volumes: look, but beside
		// the app, where nobody may be allowed to.
		class:   catalog.StorageClass{Retains: of.Source.Namespace != backupNamespace},
		request: Request{Run: of.Run, BackupNamespace: backupNamespace},
		copy: Copy{
			Name:       of.Name,
			Repository: catalog.Repository{Name: of.Source.Repository, Namespace: backupNamespace},
			Snapshot: catalog.Snapshot{
				Namespace: of.Source.Namespace, Name: of.Source.Snapshot, UID: of.Source.UID,
				Claim: of.Source.Claim, Run: of.Run,
			},
		},
	}
}

// collect takes in a mover that has finished; nil if somebody else has. The
// error is why something of it is left.
func (m *making) collect(ctx context.Context) (*Outcome, error) {
	outcome := Outcome{Copy: m.copy, State: Failed}
	end, err := m.follow(ctx)
	if errors.Is(err, catalog.ErrGone) {
		return nil, nil
	}
	if err != nil {
		outcome.State, outcome.Err = Detached, m.detached(ctx, err)
		return &outcome, outcome.Err
	}
	outcome.State, outcome.Result, err = m.result(end)
	outcome.Err = m.failed(err)
	made := outcome.Err == nil
	outcome = m.finish(ctx, outcome)
	if made && outcome.Err != nil { // its mover is the only trace of it, and stays
		return &outcome, outcome.Err
	}
	return &outcome, outcome.Left
}

// sweep removes what stands of a copy that nobody will make any more.
func (m *making) sweep(ctx context.Context, found restic.Mover) error {
	if err := context.Cause(ctx); err != nil { // the namespace may be another's by now
		return err
	}
	m.tell(catalog.Event{State: catalog.Warning, Message: fmt.Sprintf("remove what run %s has left: %s", found.Run, Parts(found))})
	return m.cleanUp(ctx)
}

// Parts is what stands of m, in words: `mover, clone backsnap/data-...`.
func Parts(m restic.Mover) string {
	var what []string
	note := func(stands bool, name string) {
		if stands {
			what = append(what, name)
		}
	}
	note(m.Job, "mover")
	note(m.Clone, "clone")
	note(m.Static, "static copy")
	return fmt.Sprintf("%s %s/%s", strings.Join(what, ", "), m.Namespace, m.Name)
}
