package cli

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

// checkRepositories reads and checks what the flags say of repositories.
func (o *listOptions) checkRepositories() (err error) {
	if o.from == "none" {
		return errors.New("--from-repository none: want names of repositories")
	}
	if o.repositories, err = offsite.ParseRepositories(o.from); err != nil {
		return err
	}
	if o.cluster != "" && len(o.repositories) == 0 {
		return errors.New("--from-cluster: want --from-repository with it")
	}
	if o.watch && len(o.repositories) > 0 {
		return errors.New("--from-repository together with --watch: a repository cannot be watched")
	}
	return o.workFlags.check()
}

// restorePoints are those that are chosen, of the cluster and of the
// repositories that are asked for.
func (o *listOptions) restorePoints(ctx context.Context, env *Env, cluster Cluster, chosen selection, w catalog.Watcher) ([]catalog.Snapshot, error) {
	if len(o.repositories) == 0 {
		return restorePoints(ctx, cluster, chosen)
	}
	var all []catalog.Snapshot
	var err error
	if o.cluster == "" {
		if all, err = cluster.Snapshots(ctx, chosen.scope); err != nil {
			return nil, err
		}
	}
	flags := o.workFlags
	if flags.namespace == "" && !chosen.scope.All && len(chosen.scope.Namespaces) == 1 {
		flags.namespace = chosen.scope.Namespaces[0]
	}
	requests, err := flags.requests(ctx, env, cluster, o.repositories...)
	if err != nil {
		return nil, err
	}
	for i := range requests {
		requests[i].Of = chosen.scope.Namespaces // none for all
	}
	listed, err := listCopies(ctx, env, cluster, requests, o.cluster, w)
	if err != nil {
		return nil, err
	}
	o.others = listed.Clusters
	listed.Snapshots = slices.DeleteFunc(listed.Snapshots, func(s catalog.Snapshot) bool {
		return !chosen.scope.All && !slices.Contains(chosen.scope.Namespaces, s.Namespace)
	})
	return chosen.restorePoints(offsite.Merge(all, listed.Snapshots, o.repositories)), nil
}

// listCopies has all of the repositories listed at once: what lies there of
// the cluster of that name, "" for this one, or an error.
func listCopies(ctx context.Context, env *Env, cluster Cluster, requests []offsite.WorkRequest, of string, w catalog.Watcher) (all offsite.Listed, err error) {
	if err := mayList(ctx, cluster, requests); err != nil {
		return all, err
	}
	found := make([]offsite.Listed, len(requests))
	errs := make([]error, len(requests))
	var running sync.WaitGroup
	for i, r := range requests {
		running.Go(func() { found[i], errs[i] = offsite.List(ctx, cluster, env.Now, r, of, w) })
	}
	running.Wait()
	for _, one := range found {
		all.Snapshots = append(all.Snapshots, one.Snapshots...)
		all.Clusters = append(all.Clusters, one.Clusters...)
	}
	slices.Sort(all.Clusters)
	all.Clusters = slices.Compact(all.Clusters)
	return all, errors.Join(errs...)
}

// mayList asks for all rights that it takes to list the repositories: one that
// is missed on the way would leave a mover behind.
func mayList(ctx context.Context, cluster Cluster, requests []offsite.WorkRequest) error {
	var rights []catalog.Right
	for _, r := range requests {
		rights = append(rights, r.ListRights()...)
	}
	slices.SortFunc(rights, func(a, b catalog.Right) int { return strings.Compare(a.String(), b.String()) })
	return permitted(ctx, cluster, slices.Compact(rights), "")
}

// nameOf is how s is called in a pipe: as kubectl calls it, or, where copies
// are all there is, by the first of them.
func nameOf(s catalog.Snapshot) string {
	if s.CopyOnly {
		return "copy/" + s.Copies[0].Repository + "/" + short(s.Copies[0].Snapshot)
	}
	return snapshotResource + "/" + s.Name
}

// readyOf is whether s can be restored from: `copy` where a copy is all there
// is, `partial` where that is not whole.
func readyOf(s catalog.Snapshot) string {
	switch {
	case s.CopyOnly && s.Copies[0].Partial: // those that are whole come first
		return "partial"
	case s.CopyOnly:
		return "copy"
	}
	return strconv.FormatBool(s.Ready)
}
