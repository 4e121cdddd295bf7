package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// listTimeout is the longest that a repository may take to be listed.
const listTimeout = 10 * time.Minute

// list has repositories listed, where the plan wants that. One of several that
// cannot be listed may hold what is newest: nothing is taken without it, unless
// somebody says so.
func (r *restoring) list(ctx context.Context, recorded []catalog.Snapshot, names []string) (restore.Listed, error) {
	flags := workFlags{podFlags: r.options.podFlags, backupNamespace: r.options.backupNamespace, namespace: r.request.Target.Namespace, timeout: listTimeout}
	requests, err := flags.requestsOf(ctx, r.env, r.cluster, r.request.Run, names...)
	if err != nil {
		return restore.Listed{}, err
	}
	for i := range requests {
		requests[i].Of = []string{r.request.Target.Namespace}
	}
	listed, err := listCopies(ctx, r.env, r.cluster, requests, r.options.cluster, r.progress)
	if err != nil {
		for _, one := range split(err) {
			if f, ok := one.(*catalog.Failure); ok && len(names) > 1 {
				f.Next += "; or name another repository with --from copy:REPOSITORY"
			}
		}
		return restore.Listed{}, err
	}
	return restore.Listed{Snapshots: offsite.Merge(recorded, listed.Snapshots, names), Clusters: listed.Clusters}, nil
}

// prepare makes the namespace that the plan wants.
func (r *restoring) prepare(ctx context.Context) (err error) {
	r.made, err = restore.Prepare(ctx, r.cluster, r.env.Now, r.plan, r.progress)
	return err
}

// printSource writes where the sets were found, and what is to be made first.
func (r *restoring) printSource(w io.Writer) {
	p := r.plan
	if len(p.Asked.Repositories) > 0 {
		fmt.Fprintf(w, "  asked     %s\n", p.Asked)
	}
	if p.Makes {
		fmt.Fprintf(w, "  make      namespace %s, without the labels, quotas and policies that it may have had\n", p.ToNamespace)
	}
}

// printLacking writes of which apps nothing is restored.
func (r *restoring) printLacking(w io.Writer) {
	for _, l := range r.plan.Lacking {
		fmt.Fprintf(w, "  lacking   %s (%s): %s\n", l.App, strings.Join(l.Claims, ", "), printable(l.Err.Error()))
	}
}

// without names what is not taken of a set of the namespace: newer ones hold it.
func (r *restoring) without(chosen restore.Chosen) string {
	var newer []string
	if r.request.Target.Kind != "namespace" {
		return ""
	}
	for _, shot := range chosen.Set.Snapshots {
		if !slices.ContainsFunc(chosen.Points, func(p restore.Point) bool { return p.Snapshot.Claim == shot.Claim }) {
			newer = append(newer, shot.Claim)
		}
	}
	if len(newer) == 0 {
		return ""
	}
	return ", without " + strings.Join(newer, ", ")
}

// lacking calls add with each claim of the apps of which nothing is restored, and
// returns why, an error an app.
func lacking(p restore.Plan, add func(from fromDoc, why blamed)) (failures []error) {
	for _, l := range p.Lacking {
		var why blamed
		why.blame(l.Err)
		for _, claim := range l.Claims {
			add(fromDoc{App: l.App, Claim: claim}, why)
		}
		failures = append(failures, l.Err)
	}
	return failures
}

// lack adds the apps of which nothing is restored to the document.
func (d *restoreDoc) lack(p restore.Plan) {
	d.failures = append(d.failures, lacking(p, func(from fromDoc, why blamed) {
		d.Items = append(d.Items, restoreItem{Namespace: p.ToNamespace, Claim: from.Claim, State: string(restore.Failed), From: from, blamed: why})
	})...)
}

// lack is the same of files.
func (d *filesDoc) lack(p restore.Plan) {
	d.failures = append(d.failures, lacking(p, func(from fromDoc, why blamed) {
		d.Items = append(d.Items, filesItem{Namespace: p.Target.Namespace, Claim: from.Claim, State: string(restore.Failed), From: from, blamed: why})
	})...)
}
