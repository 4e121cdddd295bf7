package cli

import (
	"context"
	"errors"
	"os"

	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// planFiles plans how the dump comes to this machine, into a folder that goes
// with the run, where it does not lie beside the server.
func (r *restoring) planFiles(ctx context.Context, plan restore.LoadPlan) (err error) {
	if !plan.Live {
		r.plan, err = plan.PlanFiles(ctx, r.cluster)
	}
	return err
}

// tryLoad asks the server whether it would make what it takes to bring the dump
// here, where that was asked for.
func (r *restoring) tryLoad(ctx context.Context, plan restore.LoadPlan) error {
	if r.options.dryRun != "server" {
		return nil
	}
	if err := r.planFiles(ctx, plan); err != nil {
		return err
	}
	if err := restore.CheckLoad(ctx, r.cluster, plan, r.plan); err != nil {
		return err
	}
	return r.mayTry(ctx)
}

// dumpFiles brings the dumps here.
func (r *restoring) dumpFiles(ctx context.Context) (names map[string]string, remove func() error, err error) {
	dir, err := os.MkdirTemp("", "backsnap-load-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	plan := r.plan
	plan.Local = &restore.Local{File: dir, Folder: true}
	names = map[string]string{}
	f := restore.Fetching{Cluster: r.cluster, Follow: r.follow, Reach: r.reach, Now: r.env.Now}
	for i := range plan.Volumes {
		plan.Volumes[i].To = dir
	}
	brought, err := f.Fetch(ctx, plan, r.progress)
	for _, b := range brought {
		for i, name := range b.Dumps {
			names[b.Volume.Dumps[i].Path] = name
		}
		err = errors.Join(err, b.Left)
	}
	return names, remove, err
}
