package cli

import (
	"context"
	"errors"
	"slices"
	"strconv"
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
	copies, err := o.copies(ctx, env, cluster, chosen.scope, w)
	if err != nil {
		return nil, err
	}
	return chosen.restorePoints(offsite.Merge(all, copies, o.repositories)), nil
}

// copies are what lies in the repositories of the namespaces in scope: all of
// it, or an error.
func (o *listOptions) copies(ctx context.Context, env *Env, cluster Cluster, scope catalog.Scope, w catalog.Watcher) ([]catalog.Snapshot, error) {
	flags := o.workFlags
	if flags.namespace == "" && !scope.All && len(scope.Namespaces) == 1 {
		flags.namespace = scope.Namespaces[0]
	}
	requests, err := flags.requests(ctx, env, cluster, o.repositories...)
	if err != nil {
		return nil, err
	}
	found := make([][]catalog.Snapshot, len(requests))
	errs := make([]error, len(requests))
	var running sync.WaitGroup
	for i, r := range requests {
		running.Go(func() { found[i], errs[i] = offsite.List(ctx, cluster, env.Now, r, o.cluster, w) })
	}
	running.Wait()
	return slices.DeleteFunc(slices.Concat(found...), func(s catalog.Snapshot) bool {
		return !scope.All && !slices.Contains(scope.Namespaces, s.Namespace)
	}), errors.Join(errs...)
}

// nameOf is how s is called in a pipe: as kubectl calls it, or, where copies
// are all there is, by the first of them.
func nameOf(s catalog.Snapshot) string {
	if s.CopyOnly {
		return "copy/" + s.Copies[0].Repository + "/" + short(s.Copies[0].Snapshot)
	}
	return snapshotResource + "/" + s.Name
}

// readyOf is whether s can be restored from: `copy` where a copy is all there is.
func readyOf(s catalog.Snapshot) string {
	if s.CopyOnly {
		return "copy"
	}
	return strconv.FormatBool(s.Ready)
}
