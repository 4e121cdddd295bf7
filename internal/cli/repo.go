package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

const repoLong = `
	A repository is a Secret in the backup namespace with the label backsnap.sh/repository=NAME. Its keys are restic's
	environment: RESTIC_REPOSITORY, RESTIC_PASSWORD, AWS_ACCESS_KEY_ID and so on. {namespace} in the address gives
	every namespace its own. The entries lie in /repository too, one file each: RESTIC_CACERT=/repository/ca.crt.`

const repoExample = `
	# Make the Secret of a repository called main, and initialise it
	kubectl backsnap repo create main --env-file=main.env --init

	# See whether it is whole
	kubectl backsnap repo check main`

func newRepo(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "repo",
		Short:   "Create, initialise, examine, unlock and list restic repositories",
		Long:    templates.LongDesc(repoLong),
		Example: templates.Examples(repoExample),
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newRepoCreate(env, config), newRepoInit(env, config), newRepoList(env, config),
		newRepoCheck(env, config), newRepoUnlock(env, config), newRepoStats(env, config),
	)
	return cmd
}

type repoInitOptions struct {
	workFlags
	clusterName string
	output      *output
}

// addClusterName adds the flag of commands that name this cluster.
func addClusterName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "cluster-name", "", "What this cluster is called in restic's host names; default: the beginning of kube-system's UID")
}

func newRepoInit(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &repoInitOptions{}
	cmd := &cobra.Command{
		Use:     "init NAME",
		Short:   "Initialise a repository, with restic in the cluster",
		Long:    templates.LongDesc("Run restic init in a Job in the backup namespace. A repository that is initialised already is left as it is."),
		Example: templates.Examples("# Initialise the repository of Secret backsnap/main\nkubectl backsnap repo init main"),
		Args:    oneName,
		RunE:    func(cmd *cobra.Command, args []string) error { return runRepoInit(cmd, env, config, o, args[0]) },
	}
	o.workFlags.add(cmd, 10*time.Minute, false)
	addClusterName(cmd, &o.clusterName)
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// oneName wants one argument.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(cmd, fmt.Errorf("%d arguments: want the name of one repository", len(args)))
	}
	return nil
}

// repositoryDoc is a repository as -o json prints it.
type repositoryDoc struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Name       string   `json:"name"`
	Namespace  string   `json:"namespace"`
	Secret     string   `json:"secret"`
	Address    string   `json:"address"`
	Cluster    string   `json:"cluster,omitempty"`
	Keys       []string `json:"keys"`
	Existed    *bool    `json:"existed,omitempty"`
	State      string   `json:"state,omitempty"` // of its Secret after create: created, unchanged

	ServiceAccount string `json:"moverServiceAccount,omitempty"`
	Claim          string `json:"claim,omitempty"`
}

func repositoryDocument(r catalog.Repository) repositoryDoc {
	return repositoryDoc{
		APIVersion: apiVersion, Kind: "Repository", Name: r.Name, Namespace: r.Namespace, Secret: r.Secret, Address: r.Address, Cluster: r.Cluster, Keys: r.Keys,
		ServiceAccount: r.ServiceAccount, Claim: r.Claim,
	}
}

func runRepoInit(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *repoInitOptions, name string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	return o.tend(cmd, env, config, name, func(cluster Cluster, r offsite.WorkRequest, w catalog.Watcher) error {
		made, err := offsite.Init(cmd.Context(), cluster, env.Now, offsite.InitRequest{
			Run: r.Run, Repository: r.Repository, Namespace: r.Namespace, ClusterName: o.clusterName, Image: r.Image, Pod: r.Pod, Deadline: r.Deadline,
		}, w)
		switch {
		case err != nil:
			return err
		case printer != nil:
			doc := repositoryDocument(made.Repository)
			doc.Existed = &made.Existed
			return printDocument(env.Out, printer, doc)
		case o.output.format == "name":
			fmt.Fprintf(env.Out, "secret/%s\n", made.Repository.Secret)
			return nil
		}
		verb := "initialised"
		if made.Existed {
			verb = "was initialised already"
		}
		fmt.Fprintf(env.Out, "repository/%s %s at %s, this cluster is %s in it\n", name, verb, made.Repository.Address, made.Repository.Cluster)
		return nil
	})
}

type repoListOptions struct {
	backupNamespace string
	noHeaders       bool
	output          *output
}

func newRepoList(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &repoListOptions{}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the repositories that are configured",
		Example: templates.Examples("# Repositories and where they are\nkubectl backsnap repo list"),
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runRepoList(cmd, env, config, o) },
	}
	addBackupNamespace(cmd, &o.backupNamespace)
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave the column names out")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// repositoryList is what `repo list -o json` prints.
type repositoryList struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Items      []repositoryDoc `json:"items"`
}

func runRepoList(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *repoListOptions) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	repositories, err := cluster.Repositories(cmd.Context(), o.backupNamespace)
	if err != nil {
		return err
	}
	if printer != nil {
		list := repositoryList{APIVersion: apiVersion, Kind: "RepositoryList", Items: []repositoryDoc{}}
		for _, r := range repositories {
			list.Items = append(list.Items, repositoryDocument(r))
		}
		return printDocument(env.Out, printer, list)
	}
	return o.print(env, repositories)
}

func (o *repoListOptions) print(env *Env, repositories []catalog.Repository) error {
	if o.output.format == "name" {
		for _, r := range repositories {
			fmt.Fprintf(env.Out, "secret/%s\n", r.Secret)
		}
		return nil
	}
	if len(repositories) == 0 {
		fmt.Fprintf(env.Err, "No repositories found in namespace %s; see kubectl backsnap repo --help.\n", o.backupNamespace)
		return nil
	}
	table := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string"}, {Name: "Address", Type: "string"}, {Name: "Cluster", Type: "string"},
		{Name: "Secret", Type: "string", Priority: 1}, {Name: "Keys", Type: "string", Priority: 1},
	}}
	for _, r := range repositories {
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{
			r.Name, r.Address, cmp.Or(r.Cluster, "<not initialised>"), r.Namespace + "/" + r.Secret, strings.Join(r.Keys, ","),
		}})
	}
	return printers.NewTablePrinter(printers.PrintOptions{NoHeaders: o.noHeaders, Wide: o.output.format == "wide"}).PrintObj(table, env.Out)
}
