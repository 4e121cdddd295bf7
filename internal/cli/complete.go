package cli

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// completer is the name under which kubectl looks for what completes us: this
// program, called so, answers instead of working.
const completer = "kubectl_complete-backsnap"

// Arguments are those of a command line that Main takes. Called as kubectl calls
// what completes a plugin, they are those that ask for what a shell may offer.
func Arguments(argv []string) []string {
	if name := strings.TrimSuffix(filepath.Base(argv[0]), ".exe"); name == completer {
		return append([]string{cobra.ShellCompRequestCmd}, argv[1:]...)
	}
	return argv[1:]
}

// patience is how long somebody who has pressed the tabulator waits.
const patience = 5 * time.Second

// choices are the values of flags that take one of a few.
var choices = map[string][]string{
	"color":       {"auto", "always", "never"},
	"consistency": {string(snapshot.Auto), string(snapshot.Application), string(snapshot.Crash)},
	"dry-run":     {"none", "client", "server"},
	"from":        {"auto", "snapshot", "copy"},
	"progress":    {"auto", "tty", "plain", "json", "none"},
	"retain":      {"30d", "calendar", "copied"},
}

// files are the flags whose values are files or folders of this machine: the
// shell knows them.
var files = []string{
	"ca-cert", "cache-dir", "certificate-authority", "client-certificate", "client-key", "env-file", "filename", "kubeconfig", "lock-dir", "template", "to-dir", "dump-to",
}

// offer makes every command under root say what may come next.
func offer(root *cobra.Command, env *Env, config *genericclioptions.ConfigFlags) {
	o := offers{env: env, config: config}
	visit(root, func(cmd *cobra.Command) {
		cmd.ValidArgsFunction = o.targets
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if from := o.flag(f); from != nil {
				must(cmd.RegisterFlagCompletionFunc(f.Name, o.values(from)))
			}
		})
	})
}

// must is for what only a mistake of ours can make fail: a flag that has a
// function already, or that there is not.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// source is where values come from, in the order in which they are shown: what it has found
// stands beside its failure. A tabulator parts a value from what explains it.
type source func(ctx context.Context, cmd *cobra.Command) ([]string, error)

// offers knows what is there.
type offers struct {
	env    *Env
	config *genericclioptions.ConfigFlags
}

// flag is where the values of a flag come from; nil where the shell knows, or
// nobody.
func (o offers) flag(f *pflag.Flag) source {
	switch name := f.Name; {
	case slices.Contains(files, name):
		return nil
	case name == "output": // its usage lists them
		_, formats, _ := strings.Cut(f.Usage, ": ")
		return fixed(strings.Split(formats, ", "))
	case choices[name] != nil:
		return fixed(choices[name])
	case name == "namespace" || strings.HasSuffix(name, "-namespace") && name != "in-namespace":
		return o.namespaces
	case name == "context":
		return o.contexts
	case name == "cluster":
		return o.clusters
	case name == "user":
		return o.users
	case name == "repository" || name == "from-repository":
		return o.repositories
	}
	return fixed(nil)
}

func fixed(values []string) source {
	return func(context.Context, *cobra.Command) ([]string, error) { return values, nil }
}

// values are a flag's: of several with commas between them, what the last may be.
func (o offers) values(from source) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		var found []string
		for _, value := range o.ask(cmd, from) {
			if !slices.Contains(strings.Split(before, ","), value) {
				found = append(found, before+value)
			}
		}
		return begun(found, typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// ask asks within a person's patience. What cannot be had is not offered: an
// error would stand in the middle of a line that somebody types.
func (o offers) ask(cmd *cobra.Command, from source) []string {
	if err := fromEnvironment(cmd.Flags(), o.env.Getenv); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), patience)
	defer cancel()
	found, err := from(ctx, cmd)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	return slices.Clone(found)
}

func begun(all []string, typed string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, typed) })
}

// form is one form of an argument in the usage line of a command: TYPE/NAME, CLAIM,
// vs/NAME, run/ID, namespace/NAME, NAME, CONTENT.
var form = regexp.MustCompile(`\b(?:TYPE/NAME|CLAIM|CONTENT|vs/NAME|run/ID|namespace/NAME|NAME)\b`)

// targets are what the usage line of a command promises, as far as it is there
// and not yet on the command line.
func (o offers) targets(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if cmd.Name() == "create" && len(args) == 0 {
		return nil, directive // a new name
	}
	if len(args) > 0 && !strings.Contains(cmd.Use, "|") && !strings.Contains(cmd.Use, "...") {
		return nil, directive // it takes one
	}
	found := o.ask(cmd, o.forms)
	found = slices.DeleteFunc(found, func(s string) bool {
		name, _, _ := strings.Cut(s, "\t")
		return slices.Contains(args, name)
	})
	return begun(found, typed), directive
}

// forms are all arguments that cmd takes, form after form.
func (o offers) forms(ctx context.Context, cmd *cobra.Command) (all []string, err error) {
	of := map[string]source{
		"TYPE/NAME": o.apps, "CLAIM": o.claims, "vs/NAME": o.snapshots, "run/ID": o.runs, "namespace/NAME": o.namespaces, "NAME": o.names,
		"CONTENT": o.orphans,
	}
	_, usage, _ := strings.Cut(cmd.Use, " ")
	for _, form := range form.FindAllString(usage, -1) {
		found, failed := of[form](ctx, cmd)
		prefix := ""
		if form == "namespace/NAME" {
			prefix = "namespace/"
		}
		for _, name := range found {
			all = append(all, prefix+name)
		}
		err = errors.Join(err, failed)
	}
	return all, err
}

// scope is the namespace that the command line names so far, and the cluster.
func (o offers) scope() (Cluster, catalog.Scope, error) {
	namespace, err := currentNamespace(o.config)
	if err != nil {
		return nil, catalog.Scope{}, err
	}
	cluster, err := o.env.Connect(o.config)
	return cluster, catalog.Scope{Namespaces: []string{namespace}}, err
}

func (o offers) apps(ctx context.Context, _ *cobra.Command) ([]string, error) {
	cluster, scope, err := o.scope()
	if err != nil {
		return nil, err
	}
	apps, err := cluster.Apps(ctx, scope.Namespaces[0])
	var names []string
	for _, a := range apps {
		names = append(names, a.String())
	}
	slices.Sort(names)
	return names, err
}

func (o offers) claims(ctx context.Context, _ *cobra.Command) ([]string, error) {
	cluster, scope, err := o.scope()
	if err != nil {
		return nil, err
	}
	inventory, err := cluster.Policies(ctx, scope)
	var names []string
	for _, c := range inventory.Claims {
		if c.Role == "" {
			names = append(names, c.Name)
		}
	}
	return names, err
}

// snapshots are the newest first, each with its claim.
func (o offers) snapshots(ctx context.Context, _ *cobra.Command) (names []string, err error) {
	all, err := o.taken(ctx)
	for _, s := range all {
		names = append(names, "vs/"+s.Name+"\t"+s.Claim)
	}
	return names, err
}

// runs are the newest first, each with the claims of its restore points.
func (o offers) runs(ctx context.Context, _ *cobra.Command) (names []string, err error) {
	all, err := o.taken(ctx)
	claims := map[catalog.Run][]string{}
	var runs []catalog.Run
	for _, s := range all {
		if s.Run != "" && claims[s.Run] == nil {
			runs = append(runs, s.Run)
		}
		claims[s.Run] = append(claims[s.Run], s.Claim)
	}
	for _, run := range runs {
		names = append(names, "run/"+string(run)+"\t"+strings.Join(claims[run], ", "))
	}
	return names, err
}

// taken are the restore points of the namespace, the newest first.
func (o offers) taken(ctx context.Context) ([]catalog.Snapshot, error) {
	cluster, scope, err := o.scope()
	if err != nil {
		return nil, err
	}
	all, err := cluster.Snapshots(ctx, scope)
	all = slices.DeleteFunc(all, func(s catalog.Snapshot) bool { return s.Role != "" })
	slices.SortStableFunc(all, func(a, b catalog.Snapshot) int { return b.CutAt().Compare(a.CutAt()) })
	return all, err
}

// names are those of what cmd's own group is about.
func (o offers) names(ctx context.Context, cmd *cobra.Command) (names []string, err error) {
	if cmd.Name() == "create" {
		return nil, nil
	}
	if cmd.Parent().Name() == "repo" {
		return o.repositories(ctx, cmd)
	}
	cluster, scope, err := o.scope()
	if err != nil {
		return nil, err
	}
	all, err := cluster.Schedules(ctx, scope)
	for _, s := range all {
		names = append(names, s.Of)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// repositories are those of the namespace that the command line names for them.
func (o offers) repositories(ctx context.Context, cmd *cobra.Command) ([]string, error) {
	cluster, scope, err := o.scope()
	if err != nil {
		return nil, err
	}
	namespace := scope.Namespaces[0]
	if inside, err := cmd.Flags().GetBool("in-namespace"); err != nil || !inside {
		namespace, _ = cmd.Flags().GetString("backup-namespace")
	}
	found, err := cluster.Repositories(ctx, namespace)
	var names []string
	for _, r := range found {
		names = append(names, r.Name)
	}
	return names, err
}

// orphans are our contents whose snapshots are gone.
func (o offers) orphans(ctx context.Context, _ *cobra.Command) (names []string, err error) {
	cluster, _, err := o.scope()
	if err != nil {
		return nil, err
	}
	snapshots, err := cluster.Snapshots(ctx, catalog.Scope{All: true})
	if err != nil {
		return nil, err
	}
	contents, err := cluster.Contents(ctx)
	for _, c := range contents {
		if c.Ours && c.Role == "" && !slices.ContainsFunc(snapshots, func(s catalog.Snapshot) bool { return s.Namespace == c.Namespace && s.Name == c.Snapshot }) {
			names = append(names, c.Name+"\t"+c.Namespace+"/"+c.Snapshot)
		}
	}
	return names, err
}

func (o offers) namespaces(ctx context.Context, _ *cobra.Command) ([]string, error) {
	cluster, _, err := o.scope()
	if err != nil {
		return nil, err
	}
	inventory, err := cluster.Policies(ctx, catalog.Scope{All: true})
	return slices.Sorted(maps.Keys(inventory.Namespaces)), err
}

func (o offers) contexts(context.Context, *cobra.Command) ([]string, error) {
	raw, err := o.config.ToRawKubeConfigLoader().RawConfig()
	return slices.Sorted(maps.Keys(raw.Contexts)), err
}

func (o offers) clusters(context.Context, *cobra.Command) ([]string, error) {
	raw, err := o.config.ToRawKubeConfigLoader().RawConfig()
	return slices.Sorted(maps.Keys(raw.Clusters)), err
}

func (o offers) users(context.Context, *cobra.Command) ([]string, error) {
	raw, err := o.config.ToRawKubeConfigLoader().RawConfig()
	return slices.Sorted(maps.Keys(raw.AuthInfos)), err
}
