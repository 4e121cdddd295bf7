package cli

import (
	"context"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// tried is the plan as a document. With --dry-run=server the server has checked
// what would be made: what it would refuse has failed, with the exit code that
// the run would have.
func (r *restoring) tried(ctx context.Context) (restoreDoc, error) {
	doc := r.planned()
	if r.options.dryRun != "server" {
		return doc, nil
	}
	usable := false
	for i, v := range r.plan.Volumes {
		err := r.plan.Try(ctx, r.cluster, v)
		if ctx.Err() != nil {
			return doc, context.Cause(ctx)
		}
		if err == nil {
			usable = true
			continue
		}
		s := v.Snapshot
		err = refused(err, fmt.Sprintf("%s not restored to %s/%s: the server would refuse it", s.Claim, v.Claim.Namespace, v.Claim.Name))
		doc.Items[i].State = string(restore.Failed)
		doc.Items[i].blame(err)
		doc.failures = append(doc.failures, err)
	}
	doc.ExitCode = exitOf(usable, doc.failures)
	return doc, nil
}
