package cli

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// sweeper removes what dead runs have left in the namespaces that a run holds.
type sweeper struct {
	cluster    Cluster
	now        func() time.Time
	watcher    catalog.Watcher
	run        catalog.Run // its own
	namespaces []string
	places     []string // where movers are
}

// start begins sweeps beside what else the run does, and returns how to wait
// until they are over. That one fails is told, and no reason not to make a new
// restore point.
func (s *sweeper) start(ctx context.Context, sweeps ...func(context.Context) error) (wait func()) {
	var sweeping sync.WaitGroup
	for _, sweep := range sweeps {
		sweeping.Go(func() {
			s.tell(sweep(ctx))
		})
	}
	return sweeping.Wait
}

// tell tells of err, if there is any.
func (s *sweeper) tell(err error) {
	if err != nil {
		s.watcher.Event(catalog.Event{
			Time: s.now(), Run: s.run, Phase: catalog.PhaseSweep, State: catalog.Warning,
			Message: "take in what earlier runs left: " + err.Error(),
		})
	}
}

// snapshots removes those that were left unfinished.
func (s *sweeper) snapshots(ctx context.Context) error {
	return snapshot.Sweep(ctx, s.cluster, s.now, snapshot.Sweeping{Run: s.run, Namespaces: s.namespaces, Working: s.working}, s.watcher)
}

// working are the runs of which a mover works still. Who may not see movers
// has none.
func (s *sweeper) working(ctx context.Context) (map[catalog.Run]bool, error) {
	var all []restic.Mover
	for _, place := range s.places {
		standing, err := s.cluster.Movers(ctx, place)
		if err != nil && catalog.CodeOf(err) != catalog.CodeForbidden {
			return nil, err
		}
		all = append(all, standing...)
	}
	return offsite.Working(all), nil
}

// copies takes in what movers have done, and removes what was made for copies.
func (s *sweeper) copies(ctx context.Context) error {
	var err error
	for _, place := range s.places {
		_, failed := offsite.Sweep(ctx, s.cluster, s.now, offsite.Sweeping{Run: s.run, BackupNamespace: place, Namespaces: s.namespaces}, s.watcher)
		err = errors.Join(err, failed)
	}
	return err
}
