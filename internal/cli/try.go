package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

// try has the server check what the plan would make, and store none of it:
// what it would refuse becomes a failure of the plan. Of a copy its static
// snapshot is left out, for it needs the handle of a snapshot that is not
// there yet.
func (s *session) try(ctx context.Context) error {
	for i, app := range s.cuts.Apps {
		for _, v := range app.Volumes {
			if s.cuts.Apps[i].Err != nil {
				break
			}
			err := s.cluster.TrySnapshot(ctx, catalog.Snapshot{
				Namespace: app.Namespace, Name: v.Name, Claim: v.Claim.Name, Class: v.Class, Run: s.id,
				Retain: v.Retain.Label(), DeleteAfter: v.Retain.DeleteAfter(s.started.In(s.request.Zone)), Pinned: s.request.Pin,
			})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			s.cuts.Apps[i].Err = refused(err, fmt.Sprintf("snapshot of %s/%s not taken: the server would refuse VolumeSnapshot %s", app.Namespace, app.Name, v.Name))
		}
	}
	return s.tryCopies(ctx)
}

// tryCopies is try of the copies in the plan.
func (c *copying) tryCopies(ctx context.Context) error {
	trials, err := offsite.Trials(ctx, c.cluster, c.env.Now, c.copies, c.progress)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.uncopied = errors.Join(c.uncopied, err)
	for _, t := range trials {
		err := c.cluster.TryClone(ctx, t.Clone)
		if err == nil {
			err = c.cluster.TryMover(ctx, t.Job)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.uncopied = errors.Join(c.uncopied, refused(err, fmt.Sprintf("copy of %s not made: the server would refuse it", t.Copy)))
	}
	return nil
}

// refused is err, with which the server has refused an object that was only
// tried; nil for nil.
func refused(err error, message string) error {
	if err == nil {
		return nil
	}
	f := &catalog.Failure{
		Code: catalog.CodeStorage, Message: message, Cause: err, State: "nothing changed",
		Next: "see what the cause names: an admission policy, a quota, or a right",
	}
	var inner *catalog.Failure
	if errors.As(err, &inner) {
		f.Code, f.Next = inner.Code, inner.Next
	}
	return f
}
