package restore

import (
	"context"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// TryCluster is what a plan is tried on.
type TryCluster interface {
	// CreateNamespace asks, where dry is true, whether the server would make it.
	CreateNamespace(ctx context.Context, n catalog.Meta, dry bool) (made bool, err error)
	TryClaim(ctx context.Context, claim catalog.Claim) error
	// TryMover asks the server whether it would make the Job, and makes nothing.
	TryMover(ctx context.Context, job restic.Job) error
}

// Try has the server check what Run, or Fetch, would make for v, and store none
// of it. Of a static copy it is not asked: that needs what is read of the
// snapshot only when it is made.
func (p Plan) Try(ctx context.Context, c TryCluster, v Volume) error {
	if p.Local != nil {
		return p.tryLocal(ctx, c, v)
	}
	if err := p.tryTarget(ctx, c, v); err != nil || v.Way != Fill {
		return err
	}
	return p.tryFill(ctx, c, v)
}

// tryFill tries the claim that a mover fills, and the mover.
func (p Plan) tryFill(ctx context.Context, c TryCluster, v Volume) error {
	m := &making{plan: p, volume: v}
	filled := m.filledClaim()
	if err := c.TryClaim(ctx, filled); err != nil {
		return fmt.Errorf("make claim %s/%s: %w", filled.Namespace, filled.Name, err)
	}
	job, err := v.job(p)
	if err != nil {
		return err
	}
	return c.TryMover(ctx, job)
}

// tryLocal tries the claim that is read from, and the pod that reads it.
func (p Plan) tryLocal(ctx context.Context, c TryCluster, v Volume) error {
	var err error
	if v.Way == Fill {
		err = p.tryFill(ctx, c, v)
	} else {
		err = c.TryClaim(ctx, v.Claim)
	}
	if err != nil {
		return err
	}
	job, err := v.serving(p)
	if err != nil {
		return err
	}
	return c.TryMover(ctx, job)
}

// tryTarget tries the claim that is asked for, or its namespace where that is
// to be made: the server takes no claim into one that is not there.
func (p Plan) tryTarget(ctx context.Context, c TryCluster, v Volume) error {
	if !p.Makes {
		return c.TryClaim(ctx, v.Claim)
	}
	_, err := c.CreateNamespace(ctx, p.namespace(), true)
	return err
}
