package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

type repoCheckOptions struct {
	workFlags
	subset string
	output *output
}

const repoCheckLong = `
	Run restic check in a Job in the backup namespace. It holds the repository exclusively: copies wait meanwhile.

	The structure alone is examined, unless a part of the data is to be read too. A lock that a mover of this cluster has
	left which is not there any more is removed first.`

const repoCheckExample = `
	# The structure of the repository
	kubectl backsnap repo check main

	# And a seventh of its data, another each day of the week
	kubectl backsnap repo check main --read-data-subset=1/7`

func newRepoCheck(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &repoCheckOptions{}
	cmd := &cobra.Command{
		Use:     "check NAME",
		Short:   "Examine a repository, with restic in the cluster",
		Long:    templates.LongDesc(repoCheckLong),
		Example: templates.Examples(repoCheckExample),
		Args:    oneName,
		RunE:    func(cmd *cobra.Command, args []string) error { return runRepoCheck(cmd, env, config, o, args[0]) },
	}
	o.workFlags.add(cmd, 24*time.Hour, true)
	cmd.Flags().StringVar(&o.subset, "read-data-subset", "", "Read so much of the data too: a part as 1/7, a share as 5%, a size as 10G")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// checkDoc is what `repo check -o json` prints.
type checkDoc struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Repository string `json:"repository"`
	Address    string `json:"address"`
	Subset     string `json:"readDataSubset,omitempty"`
	restic.Findings
}

func runRepoCheck(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *repoCheckOptions, name string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	if err := restic.CheckSubset(o.subset); err != nil {
		return usageError(cmd, err)
	}
	return o.tend(cmd, env, config, name, func(cluster Cluster, r offsite.WorkRequest, w catalog.Watcher) error {
		findings, err := offsite.Check(cmd.Context(), cluster, env.Now, r, o.subset, w)
		if printer != nil && (err == nil || catalog.CodeOf(err) == catalog.CodeDamaged) {
			if printErr := printDocument(env.Out, printer, checkDoc{apiVersion, "RepositoryCheck", name, r.Repository.Address, o.subset, findings}); printErr != nil {
				return printErr
			}
		}
		switch {
		case err != nil || printer != nil:
			return err
		case o.output.format == "name":
			fmt.Fprintf(env.Out, "secret/%s\n", r.Repository.Secret)
			return nil
		}
		fmt.Fprintf(env.Out, "repository/%s has no errors\n", name)
		if findings.RepairIndex || findings.Prune {
			fmt.Fprintln(env.Err, "restic would tidy it up: its index, or data that is in it twice. That is no fault.")
		}
		return nil
	})
}
