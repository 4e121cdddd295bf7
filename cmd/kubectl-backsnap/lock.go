package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/backsnap/kubectl-backsnap/internal/cli"
	"github.com/backsnap/kubectl-backsnap/internal/lock"
)

// leaseDuration is how long an API server may be away before a run stops to
// write, until it is back, and how long the next run waits for a dead one's.
const leaseDuration = 30 * time.Second

// lockRun takes a slot of this machine, then the namespaces in the cluster.
func lockRun(ctx context.Context, c cli.Cluster, l cli.Lock) (context.Context, func() error, error) {
	cluster, ok := c.(interface {
		Core() kubernetes.Interface
		Suspend(bool)
	})
	if !ok {
		return nil, nil, fmt.Errorf("lock namespaces: %T has no client", c)
	}
	leave, err := takeSlot(ctx, l)
	if err != nil {
		return nil, nil, err
	}
	options := lock.Options{Timeout: l.Timeout, Duration: leaseDuration, Over: l.Over, Name: l.Lease}
	if l.Lease == "" { // one that doubts is enough: two would release each other's doubt
		options.Doubt = cluster.Suspend
	}
	held, release, err := lock.Namespaces(ctx, cluster.Core(), l.Namespaces, l.Run, options)
	if err != nil {
		return nil, nil, errors.Join(err, leave())
	}
	return held, func() error { return errors.Join(release(), leave()) }, nil
}

func takeSlot(ctx context.Context, l cli.Lock) (func() error, error) {
	dir := l.Dir
	if dir == "" && l.Slots > 0 {
		var err error
		if dir, err = lock.Dir(); err != nil {
			return nil, err
		}
	}
	return lock.Slot(ctx, dir, l.Slots, l.Timeout, l.Run)
}
