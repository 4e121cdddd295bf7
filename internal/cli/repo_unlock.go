package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

type repoUnlockOptions struct {
	workFlags
	all, yes bool
	output   *output
}

const repoUnlockLong = `
	Remove locks from a repository, with restic in a Job in the backup namespace.

	Removed are the locks that movers of this cluster have left whose pods are not there any more, and those that nobody
	has renewed for half an hour. Others belong to somebody who may be at work: they are named and stay, but for
	--remove-all.`

const repoUnlockExample = `
	# What nobody needs any more
	kubectl backsnap repo unlock main

	# Everything, whoever holds it
	kubectl backsnap repo unlock main --remove-all --yes`

func newRepoUnlock(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &repoUnlockOptions{}
	cmd := &cobra.Command{
		Use:     "unlock NAME",
		Short:   "Remove locks that nobody holds any more",
		Long:    templates.LongDesc(repoUnlockLong),
		Example: templates.Examples(repoUnlockExample),
		Args:    oneName,
		RunE:    func(cmd *cobra.Command, args []string) error { return runRepoUnlock(cmd, env, config, o, args[0]) },
	}
	o.workFlags.add(cmd, 10*time.Minute, false)
	cmd.Flags().BoolVar(&o.all, "remove-all", false, "Every lock, also of those who are at work: their work fails")
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "Do not ask before locks go whose holders may be at work")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// unlockDoc is what `repo unlock -o json` prints.
type unlockDoc struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Repository string         `json:"repository"`
	Removed    []offsite.Held `json:"removed"`
	Left       []offsite.Held `json:"left"`
}

func runRepoUnlock(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *repoUnlockOptions, name string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	return o.tend(cmd, env, config, name, func(cluster Cluster, r offsite.WorkRequest, w catalog.Watcher) error {
		done, err := o.unlock(cmd, env, cluster, r, w)
		switch {
		case err != nil:
			return err
		case printer != nil:
			doc := unlockDoc{apiVersion, "RepositoryUnlock", name, append([]offsite.Held{}, done.Removed...), append([]offsite.Held{}, done.Left...)}
			return printDocument(env.Out, printer, doc)
		case o.output.format == "name":
			fmt.Fprintf(env.Out, "secret/%s\n", r.Repository.Secret)
			return nil
		}
		o.print(env, name, done)
		return nil
	})
}

// unlock looks at the locks, asks where that is due, and removes them.
func (o *repoUnlockOptions) unlock(cmd *cobra.Command, env *Env, cluster Cluster, r offsite.WorkRequest, w catalog.Watcher) (offsite.Unlocked, error) {
	there, err := offsite.Locks(cmd.Context(), cluster, env.Now, r, w)
	if err != nil || len(there) == 0 {
		return offsite.Unlocked{}, err
	}
	if o.all {
		for _, held := range there {
			fmt.Fprintf(env.Err, "  locked by %s\n", printable(held.String()))
		}
		what := fmt.Sprintf("Remove %d locks of repository %s; who holds one and is at work will fail?", len(there), r.Repository.Name)
		if err := confirm(cmd.Context(), env, o.yes, what, "kubectl backsnap repo unlock "+r.Repository.Name+" --remove-all"); err != nil {
			return offsite.Unlocked{}, err
		}
	}
	return offsite.Unlock(cmd.Context(), cluster, env.Now, r, there, o.all, w)
}

func (o *repoUnlockOptions) print(env *Env, name string, done offsite.Unlocked) {
	for _, held := range done.Removed {
		fmt.Fprintf(env.Out, "repository/%s unlocked: %s\n", name, printable(held.String()))
	}
	for _, held := range done.Left {
		fmt.Fprintf(env.Out, "repository/%s stays locked: %s\n", name, printable(held.String()))
	}
	if len(done.Removed)+len(done.Left) == 0 {
		fmt.Fprintf(env.Out, "repository/%s has no locks\n", name)
	}
	if len(done.Left) > 0 {
		fmt.Fprintf(env.Err, "If nobody works on it: kubectl backsnap repo unlock %s --remove-all\n", name)
	}
}
