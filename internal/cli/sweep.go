package cli

import (
	"context"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// sweeper removes what dead runs have left in the namespaces that a run holds.
type sweeper struct {
	cluster         Cluster
	now             func() time.Time
	watcher         catalog.Watcher
	run             catalog.Run // its own
	namespaces      []string
	backupNamespace string
}

// start begins sweeps beside what else the run does, and returns how to wait
// until they are over. That one fails is told, and no reason not to make a new
// restore point.
func (s *sweeper) start(ctx context.Context, sweeps ...func(context.Context) error) (wait func()) {
	var sweeping sync.WaitGroup
	for _, sweep := range sweeps {
		sweeping.Go(func() {
			if err := sweep(ctx); err != nil {
				s.watcher.Event(catalog.Event{
					Time: s.now(), Run: s.run, Phase: catalog.PhaseSweep, State: catalog.Warning,
					Message: "take in what earlier runs left: " + err.Error(),
				})
			}
		})
	}
	return sweeping.Wait
}

// snapshots removes those that were left unfinished.
func (s *sweeper) snapshots(ctx context.Context) error {
	return snapshot.Sweep(ctx, s.cluster, s.now, snapshot.Sweeping{Run: s.run, Namespaces: s.namespaces, Working: s.working}, s.watcher)
}

// working are the runs of which a mover works still. Who may not see movers
// has none.
func (s *sweeper) working(ctx context.Context) (map[catalog.Run]bool, error) {
	standing, err := s.cluster.Movers(ctx, s.backupNamespace)
	if catalog.CodeOf(err) == catalog.CodeForbidden {
		return map[catalog.Run]bool{}, nil
	}
	return offsite.Working(standing), err
}

// copies takes in what movers have done, and removes what was made for copies.
func (s *sweeper) copies(ctx context.Context) error {
	_, err := offsite.Sweep(ctx, s.cluster, s.now, offsite.Sweeping{Run: s.run, BackupNamespace: s.backupNamespace, Namespaces: s.namespaces}, s.watcher)
	return err
}
