package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

type repoStatsOptions struct {
	workFlags
	noHeaders bool
	output    *output
}

func newRepoStats(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &repoStatsOptions{}
	cmd := &cobra.Command{
		Use:     "stats NAME",
		Short:   "Count what a repository holds, with restic in the cluster",
		Long:    templates.LongDesc("Run restic stats in a Job in the backup namespace: how many snapshots there are, of all clusters, and how much data they have together. It takes no lock."),
		Example: templates.Examples("# How much is stored\nkubectl backsnap repo stats main"),
		Args:    oneName,
		RunE:    func(cmd *cobra.Command, args []string) error { return runRepoStats(cmd, env, config, o, args[0]) },
	}
	o.workFlags.add(cmd, time.Hour, false)
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave the column names out")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// statsDoc is what `repo stats -o json` prints.
type statsDoc struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Repository string `json:"repository"`
	Address    string `json:"address"`
	restic.Stats
}

func runRepoStats(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *repoStatsOptions, name string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	return o.tend(cmd, env, config, name, func(cluster Cluster, r offsite.WorkRequest, w catalog.Watcher) error {
		stats, err := offsite.ReadStats(cmd.Context(), cluster, env.Now, r, w)
		switch {
		case err != nil:
			return err
		case printer != nil:
			return printDocument(env.Out, printer, statsDoc{apiVersion, "RepositoryStats", name, r.Repository.Address, stats})
		case o.output.format == "name":
			fmt.Fprintf(env.Out, "secret/%s\n", r.Repository.Secret)
			return nil
		}
		return o.print(env, r.Repository, stats)
	})
}

func (o *repoStatsOptions) print(env *Env, r catalog.Repository, stats restic.Stats) error {
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string"}, {Name: "Snapshots", Type: "integer"}, {Name: "Stored", Type: "string"}, {Name: "Data", Type: "string"},
		{Name: "Blobs", Type: "integer", Priority: 1}, {Name: "Address", Type: "string", Priority: 1},
	}}
	table.Rows = []metav1.TableRow{{Cells: []any{r.Name, stats.Snapshots, size(stats.Stored), size(stats.Uncompressed), stats.Blobs, r.Address}}}
	return printers.NewTablePrinter(printers.PrintOptions{NoHeaders: o.noHeaders, Wide: o.output.format == "wide"}).PrintObj(table, env.Out)
}
