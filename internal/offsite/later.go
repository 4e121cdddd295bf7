package offsite

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Follow watches the movers of an earlier run, those that are started
// meanwhile too, until ended is closed and all of them have finished, and
// takes them in as Sweep does. The error joins those of the outcomes, which
// are in the order in which the movers ended.
func Follow(ctx context.Context, c Cluster, now func() time.Time, backupNamespace string, run catalog.Run, ended <-chan struct{}, w catalog.Watcher) ([]Outcome, error) {
	f := &following{taken: map[string]bool{}, take: func(of restic.Mover) (*Outcome, error) {
		return late(c, now, backupNamespace, of, w).collect(ctx)
	}}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watched := make(chan error, 1)
	go func() { watched <- c.EachMover(watching, backupNamespace, run, f.begin) }()
	select {
	case err := <-watched:
		watched <- err
	case <-ended:
	case <-ctx.Done():
	}
	stop()
	err := <-watched
	standing, listed := c.Movers(ctx, backupNamespace) // the watch may not have come to the last ones
	for _, of := range standing {
		if of.Run == run {
			f.begin(of)
		}
	}
	f.running.Wait()
	return f.outcomes, errors.Join(err, listed, join(f.outcomes))
}

// following are the movers that Follow has taken.
type following struct {
	take    func(restic.Mover) (*Outcome, error)
	running sync.WaitGroup

	mu       sync.Mutex
	taken    map[string]bool // by name
	outcomes []Outcome
}

// begin takes a mover that makes a copy, once.
func (f *following) begin(of restic.Mover) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !of.Copies() || f.taken[of.Name] {
		return
	}
	f.taken[of.Name] = true
	f.running.Go(func() {
		outcome, _ := f.take(of) // what is left is told
		if outcome != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.outcomes = append(f.outcomes, *outcome)
		}
	})
}
