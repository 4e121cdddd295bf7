package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// goneTimeout is how long a deleted snapshot is watched until it is gone.
const goneTimeout = 30 * time.Second

// Sweeping says whose leavings Sweep may touch.
type Sweeping struct {
	Run catalog.Run // the caller's own, which is left alone
	// Only is the run whose snapshots are swept; "" for all.
	Only catalog.Run
	// Namespaces are those that the caller holds: no other client takes
	// snapshots there.
	Namespaces []string
	// Working are the runs that live whatever has become of their clients. It
	// is asked only when there is something to remove.
	Working func(context.Context) (map[catalog.Run]bool, error)
}

// Sweep deletes the snapshots that dead runs have left unfinished, and tells
// of each. It returns when they are gone, or half a minute later: what is held
// by others then is named. That something could not be deleted stops nothing
// else; the error joins why.
func Sweep(ctx context.Context, c Cluster, now func() time.Time, s Sweeping, w catalog.Watcher) error {
	sw := &sweeping{Sweeping: s, cluster: c, now: now, watcher: w}
	var errs []error
	for _, namespace := range s.Namespaces {
		errs = append(errs, sw.namespace(ctx, namespace))
	}
	return errors.Join(errs...)
}

type sweeping struct {
	Sweeping
	cluster Cluster
	now     func() time.Time
	watcher catalog.Watcher
	working map[catalog.Run]bool // nil until it was asked for
}

func (s *sweeping) namespace(ctx context.Context, namespace string) error {
	var left []catalog.Snapshot
	err := s.cluster.Await(ctx, namespace, func(all []catalog.Snapshot) (bool, error) {
		for _, shot := range all {
			if shot.Unfinished() && !shot.Terminating && s.of(shot.Run) {
				left = append(left, shot)
			}
		}
		return true, nil
	})
	if err != nil || len(left) == 0 {
		return err
	}
	if s.working == nil {
		if s.working, err = s.Working(ctx); err != nil {
			return err
		}
	}
	var errs []error
	deleted := map[string]bool{}
	for _, shot := range left {
		if s.working[shot.Run] {
			continue
		}
		s.tell(shot, fmt.Sprintf("run %s has ended without it: removing the unfinished snapshot", shot.Run))
		if err := s.cluster.Delete(ctx, shot); err != nil {
			errs = append(errs, fmt.Errorf("remove unfinished snapshot %s/%s: %w", shot.Namespace, shot.Name, err))
			continue
		}
		deleted[shot.UID] = true
	}
	return errors.Join(append(errs, s.gone(ctx, namespace, deleted))...)
}

// of reports whether the snapshots of run may be swept.
func (s Sweeping) of(run catalog.Run) bool {
	return run != s.Run && (s.Only == "" || run == s.Only)
}

// gone waits until those with these UIDs are gone, and tells what others hold.
func (s *sweeping) gone(ctx context.Context, namespace string, deleted map[string]bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, goneTimeout, errTimeout)
	defer cancel()
	var standing []catalog.Snapshot
	err := s.cluster.Await(ctx, namespace, func(all []catalog.Snapshot) (bool, error) {
		standing = nil
		for _, shot := range all {
			if deleted[shot.UID] {
				standing = append(standing, shot)
			}
		}
		return len(standing) == 0, nil
	})
	if !errors.Is(err, errTimeout) {
		return err
	}
	for _, shot := range standing {
		if len(shot.Held) > 0 {
			s.tell(shot, (&catalog.Held{Finalizers: shot.Held}).Error())
		}
	}
	return nil
}

func (s *sweeping) tell(shot catalog.Snapshot, message string) {
	s.watcher.Event(catalog.Event{
		Time: s.now(), Run: shot.Run, Phase: catalog.PhaseSweep, State: catalog.Warning,
		Namespace: shot.Namespace, Claim: shot.Claim, Name: shot.Name, Message: message,
	})
}
