package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// try has the server check what would be made for each volume of the plan, where
// that was asked for, and calls refuse with the index of each that it would
// refuse. usable: it would not refuse all of them.
func (r *restoring) try(ctx context.Context, refuse func(i int, err error)) (refusals []error, usable bool, err error) {
	if r.options.dryRun != "server" {
		return nil, true, nil
	}
	for i, v := range r.plan.Volumes {
		err := r.plan.Try(ctx, r.cluster, v)
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		if err == nil {
			usable = true
			continue
		}
		message := fmt.Sprintf("%s not restored to %s/%s: the server would refuse it", v.Snapshot.Claim, v.Claim.Namespace, v.Claim.Name)
		if r.plan.Local != nil {
			message = fmt.Sprintf("files of %s not brought to %s: the server would refuse what it takes", v.Snapshot.Claim, v.To)
		}
		err = refused(err, message)
		refuse(i, err)
		refusals = append(refusals, err)
	}
	return refusals, usable, nil
}

// mayTry is try where the first refusal is the end.
func (r *restoring) mayTry(ctx context.Context) error {
	refusals, _, err := r.try(ctx, func(int, error) {})
	return errors.Join(append(refusals, err)...)
}

// tried is the plan as a document. What the server would refuse has failed, with
// the exit code that the run would have.
func (r *restoring) tried(ctx context.Context) (restoreDoc, error) {
	doc := r.planned()
	refusals, usable, err := r.try(ctx, func(i int, err error) {
		doc.Items[i].State = string(restore.Failed)
		doc.Items[i].blame(err)
	})
	doc.failures = append(doc.failures, refusals...)
	doc.ExitCode = exitOf(usable, doc.failures)
	return doc, err
}

// triedFiles is tried of what comes to this machine.
func (r *restoring) triedFiles(ctx context.Context) (filesDoc, error) {
	doc := r.plannedFiles()
	refusals, usable, err := r.try(ctx, func(i int, err error) {
		doc.Items[i].State = string(restore.Failed)
		doc.Items[i].blame(err)
	})
	doc.failures = append(doc.failures, refusals...)
	doc.ExitCode = exitOf(usable, doc.failures)
	return doc, err
}
