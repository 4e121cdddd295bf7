package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

// workFlags are those of commands that have a mover work on a repository.
type workFlags struct {
	progressFlags
	podFlags
	lockWait
	backupNamespace, namespace string
	timeout                    time.Duration
}

// add adds the flags; waits says that the work may have to wait for a lock.
func (f *workFlags) add(cmd *cobra.Command, timeout time.Duration, waits bool) {
	flags := cmd.Flags()
	f.progressFlags.add(flags)
	addBackupNamespace(cmd, &f.backupNamespace)
	flags.StringVar(&f.namespace, "for-namespace", "", "What {namespace} in the address stands for")
	f.podFlags.add(flags)
	f.addUser(flags)
	flags.DurationVar(&f.timeout, "timeout", timeout, "The longest it may take")
	if waits {
		f.lockWait.add(flags)
	}
}

// check refuses values that make no sense.
func (f *workFlags) check() error {
	if f.timeout < time.Second {
		return fmt.Errorf("timeout %s: want at least 1s", f.timeout)
	}
	return cmp.Or(f.podFlags.check(), f.lockWait.check())
}

// requests are the work on the repositories of these names, a run of its own.
func (f *workFlags) requests(ctx context.Context, env *Env, cluster Cluster, names ...string) ([]offsite.WorkRequest, error) {
	run, err := catalog.NewRun(env.Now(), env.Random)
	if err != nil {
		return nil, err
	}
	return f.requestsOf(ctx, env, cluster, run, names...)
}

// requestsOf are the same as work of that run.
func (f *workFlags) requestsOf(ctx context.Context, env *Env, cluster Cluster, run catalog.Run, names ...string) ([]offsite.WorkRequest, error) {
	repositories, err := cluster.Repositories(ctx, f.backupNamespace, names...)
	if err != nil {
		return nil, err
	}
	var nonce [16]byte
	if _, err := io.ReadFull(env.Random, nonce[:]); err != nil {
		return nil, fmt.Errorf("draw nonce: %w", err)
	}
	var requests []offsite.WorkRequest
	for _, name := range names {
		repository, err := offsite.Find(repositories, name)
		if err != nil {
			return nil, err
		}
		requests = append(requests, offsite.WorkRequest{
			Run: run, Repository: repository, Namespace: f.namespace, Image: f.image, Pod: f.pod, Deadline: f.timeout, RetryLock: f.retryLock,
			Nonce: hex.EncodeToString(nonce[:]),
		})
	}
	return requests, nil
}

// working says that movers are at work, of which nothing else is to be seen.
func working(requests []offsite.WorkRequest) string {
	var names []string
	for _, r := range requests {
		names = append(names, r.Repository.Name)
	}
	return fmt.Sprintf("restic works on %s, in a Job in namespace %s; Ctrl-C stops it", strings.Join(names, ", "), requests[0].Repository.Namespace)
}

// tend reads the flags and has work done on the repository of that name.
func (f *workFlags) tend(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, name string, work func(Cluster, offsite.WorkRequest, catalog.Watcher) error) error {
	if err := f.check(); err != nil {
		return usageError(cmd, err)
	}
	show, err := f.progressFlags.show(env)
	if err != nil {
		return usageError(cmd, err)
	}
	defer show.Close()
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	requests, err := f.requests(cmd.Context(), env, cluster, name)
	if err != nil {
		return err
	}
	show.Note(working(requests))
	return work(cluster, requests[0], show)
}
