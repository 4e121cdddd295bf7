package offsite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Collect writes down what movers of earlier runs have done since nobody
// waited for them, and removes what was made for them. Movers that have not
// finished are left alone. That the snapshot of a copy is gone is no error.
//
// A run that waits for its mover at the same moment loses nothing: it has seen
// the mover's end before, and both write the same.
//
// The outcomes are in the order of the movers' names; of each Copy only what
// the mover knows of it is filled in. The error joins those of the outcomes.
func Collect(ctx context.Context, c Cluster, now func() time.Time, backupNamespace string, w catalog.Watcher) ([]Outcome, error) {
	movers, err := c.Movers(ctx, backupNamespace)
	if err != nil {
		return nil, fmt.Errorf("look for finished movers in %s: %w", backupNamespace, err)
	}
	var outcomes []Outcome
	var errs []error
	for _, found := range movers {
		if !found.Finished {
			continue
		}
		m := &making{
			cluster: c, now: now, watcher: w, began: now(), stage: mover, late: true,
			request: Request{Run: found.Run, BackupNamespace: backupNamespace},
			copy: Copy{
				Name:       found.Name,
				Repository: catalog.Repository{Name: found.Source.Repository, Namespace: backupNamespace},
				Snapshot: catalog.Snapshot{
					Namespace: found.Source.Namespace, Name: found.Source.Snapshot, UID: found.Source.UID,
					Claim: found.Source.Claim, Run: found.Run,
				},
			},
		}
		outcome, ok := m.collect(ctx, found)
		if !ok {
			continue
		}
		outcomes = append(outcomes, outcome)
		errs = append(errs, outcome.Err)
	}
	return outcomes, errors.Join(errs...)
}

// collect takes in one mover that has finished. One that copied nothing, but
// made a repository, is only removed, and is no outcome.
func (m *making) collect(ctx context.Context, found restic.Mover) (Outcome, bool) {
	outcome := Outcome{Copy: m.copy, State: Failed}
	if found.Source == (catalog.Source{}) {
		err := m.cluster.RemoveMover(ctx, found.Namespace, found.Name)
		if err != nil {
			m.tell(catalog.Event{State: catalog.Warning, Message: err.Error()})
		}
		return outcome, false
	}
	end, err := m.follow(ctx)
	if errors.Is(err, catalog.ErrGone) { // somebody else was quicker
		return outcome, false
	}
	if err != nil {
		outcome.State, outcome.Err = Detached, m.detached(ctx, err)
		return outcome, true
	}
	outcome.State, outcome.Result, err = m.result(end)
	outcome.Err = m.failed(err)
	m.class.Retains = true // it is not known whether the class does: look
	return m.finish(ctx, outcome), true
}
