package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

type abortOptions struct {
	progressFlags
	all             bool
	yes             bool
	backupNamespace string
	dryRun          string
	output          *output
}

const abortLong = `
	Stop a run and remove what it made that is no restore point. Snapshots that are ready stay, and so do copies that
	were made. Movers are told to end, so that restic removes its lock. If the run's client still works, on whatever
	machine, its hold on the namespaces is ended first: it stops before its next write.

	A run is looked for in the namespace, or with -A in all, and in the backup namespace. One that is found is stopped
	as a whole: in every namespace that it works in, as far as you may see them.`

const abortExample = `
	# See what would be stopped and removed
	kubectl backsnap abort run/20261122-011500-x7k2 -n shop --dry-run=client

	# Stop it, without a question
	kubectl backsnap abort run/20261122-011500-x7k2 -n shop --yes`

func newAbort(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &abortOptions{dryRun: "none"}
	cmd := &cobra.Command{
		Use:     "abort run/ID",
		Short:   "Stop a run and remove what it made that is no restore point",
		Long:    templates.LongDesc(abortLong),
		Example: templates.Examples(abortExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runAbort(cmd, env, config, o, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "Look in every namespace of the cluster")
	addBackupNamespace(cmd, &o.backupNamespace)
	o.progressFlags.add(f)
	f.StringVar(&o.dryRun, "dry-run", o.dryRun, "none; client: print what would be done; server: let the server check that too")
	f.BoolVarP(&o.yes, "yes", "y", false, "Do not ask")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// readRun reads the one argument of a command that is about a run.
func readRun(args []string) (catalog.Run, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("%d arguments: want one run, run/20261122-011500-x7k2", len(args))
	}
	return catalog.ParseRun(strings.TrimPrefix(args[0], "run/"))
}

// runScope is where a run is looked for.
func runScope(config *genericclioptions.ConfigFlags, all bool, backupNamespace string) (catalog.Scope, error) {
	namespace, err := currentNamespace(config)
	scope := catalog.Scope{All: all, BackupNamespace: backupNamespace}
	if !all {
		scope.Namespaces = []string{namespace}
	}
	return scope, err
}

func runAbort(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *abortOptions, args []string) error {
	run, err := readRun(args)
	if err != nil {
		return usageError(cmd, err)
	}
	if o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server" {
		return usageError(cmd, fmt.Errorf("dry-run %q: want none, client or server", o.dryRun))
	}
	a := &abortion{env: env, options: o}
	if a.printer, err = o.output.printer(); err != nil {
		return usageError(cmd, err)
	}
	if a.progress, err = o.progressFlags.show(env); err != nil {
		return usageError(cmd, err)
	}
	if a.scope, err = runScope(config, o.all, o.backupNamespace); err != nil {
		return err
	}
	if a.cluster, err = env.Connect(config); err != nil {
		return err
	}
	return a.do(cmd.Context(), run)
}

// abortion is one `abort`.
type abortion struct {
	env      *Env
	options  *abortOptions
	scope    catalog.Scope
	cluster  Cluster
	progress progress
	printer  printers.ResourcePrinter
}

func (a *abortion) do(ctx context.Context, run catalog.Run) error {
	t, err := a.find(ctx, run)
	if err != nil {
		return err
	}
	switch a.options.dryRun {
	case "server":
		for _, item := range t.condemned() {
			if err := a.cluster.TryRemove(ctx, item.object); err != nil {
				return err
			}
		}
		return a.print(t, "DryRun", " (server dry run)")
	case "client":
		return a.print(t, "DryRun", " (dry run)")
	}
	if len(t.condemned())+len(t.holdings) == 0 {
		fmt.Fprintf(a.env.Err, "run %s has ended; nothing is left of it but restore points\n", run)
		return a.print(t, "Ok", "")
	}
	if !a.options.yes || a.progress.text() {
		t.describe(a.env.Err)
	}
	command := fmt.Sprintf("kubectl backsnap abort run/%s%s", run, whereFlags(a.scope))
	if err := confirm(ctx, a.env, a.options.yes, "Stop it?", command); err != nil {
		return err
	}
	return a.abort(ctx, t)
}

// find finds the run, and then all of it: one that was started with -A works in
// many namespaces, and half of it is no run. Who may not look into all of them
// stops what they see; its client, which has lost a namespace, stops whole.
func (a *abortion) find(ctx context.Context, run catalog.Run) (*traces, error) {
	t, err := findRun(ctx, a.cluster, a.scope, run)
	if err != nil || a.scope.All {
		return t, err
	}
	everywhere := catalog.Scope{All: true, BackupNamespace: a.scope.BackupNamespace}
	all, err := findRun(ctx, a.cluster, everywhere, run)
	switch {
	case catalog.Has(err, catalog.CodeForbidden):
		return t, nil
	case err != nil:
		return nil, err
	case len(all.holdings) == len(t.holdings) && len(all.snapshots) == len(t.snapshots): // it is all here
		return t, nil
	}
	a.scope = everywhere
	return all, nil
}

// abort ends the run's hold on its namespaces, and removes what it has made by
// then.
func (a *abortion) abort(ctx context.Context, t *traces) error {
	own, err := catalog.NewRun(a.env.Now(), a.env.Random)
	if err != nil {
		return err
	}
	release := func() error { return nil }
	if namespaces := t.held(); len(namespaces) > 0 {
		if ctx, release, err = a.env.Lock(ctx, a.cluster, Lock{Run: own, Namespaces: namespaces, Over: t.run}); err != nil {
			return err
		}
	}
	last, err := a.clear(ctx, own, t)
	a.progress.Close()
	if err = errors.Join(err, release()); err != nil {
		return err
	}
	return a.print(last, "Ok", "")
}

// clear removes what the run has made; what that was is as of its end.
func (a *abortion) clear(ctx context.Context, own catalog.Run, t *traces) (*traces, error) {
	last, err := findRun(ctx, a.cluster, a.scope, t.run)
	if catalog.CodeOf(err) == catalog.CodeNotFound { // its client has cleaned up itself
		return &traces{run: t.run}, nil
	}
	if err != nil {
		return nil, err
	}
	for _, place := range last.places() {
		err = errors.Join(err, offsite.Abort(ctx, a.cluster, a.env.Now, place, t.run, a.progress))
	}
	sweeping := snapshot.Sweeping{
		Run: own, Only: t.run, Namespaces: last.namespaces(),
		Working: func(context.Context) (map[catalog.Run]bool, error) { return map[catalog.Run]bool{}, nil },
	}
	return last, errors.Join(err, snapshot.Sweep(ctx, a.cluster, a.env.Now, sweeping, a.progress))
}

// traces are what is there of a run.
type traces struct {
	run       catalog.Run
	holdings  []catalog.Holding
	snapshots []catalog.Snapshot
	movers    []restic.Mover
}

// findRun looks for a run in scope and in the backup namespace. That nothing
// is there is a catalog.Failure of CodeNotFound.
func findRun(ctx context.Context, c Cluster, scope catalog.Scope, run catalog.Run) (*traces, error) {
	t := &traces{run: run}
	var err error
	if t.snapshots, err = c.Snapshots(ctx, scope); err != nil {
		return nil, err
	}
	t.snapshots = slices.DeleteFunc(t.snapshots, func(s catalog.Snapshot) bool { return s.Run != run || s.Role != "" })
	var unseen error
	if t.movers, unseen, err = findMovers(ctx, c, slices.Concat(t.namespaces(), scope.Namespaces, []string{scope.BackupNamespace}), run); err != nil {
		return nil, err
	}
	if t.holdings, err = c.Holdings(ctx, scope); err != nil {
		return nil, err
	}
	t.holdings = slices.DeleteFunc(t.holdings, func(h catalog.Holding) bool { return h.Run != run })
	switch {
	case len(t.holdings)+len(t.snapshots)+len(t.movers) > 0:
		return t, nil
	case unseen != nil:
		return nil, unseen
	}
	where, next := "all namespaces", "see which runs there are: kubectl backsnap list -A -o wide"
	if !scope.All {
		where, next = "namespace "+strings.Join(scope.Namespaces, ", "), "look in every namespace: the same command with -A; or "+next
	}
	return nil, &catalog.Failure{
		Code:    catalog.CodeNotFound,
		Message: fmt.Sprintf("no trace of run %s in %s, nor in backup namespace %s", run, where, scope.BackupNamespace),
		State:   "nothing changed",
		Next:    next,
	}
}

// findMovers looks for those of run in places: beside the snapshots too, for a
// run may have been told to keep them there. unseen is why there may be more
// where the user may not look, and so has started none.
func findMovers(ctx context.Context, c Cluster, places []string, run catalog.Run) (found []restic.Mover, unseen, err error) {
	slices.Sort(places)
	for _, place := range slices.Compact(places) {
		standing, err := c.Movers(ctx, place)
		switch {
		case catalog.CodeOf(err) == catalog.CodeForbidden:
			unseen = errors.Join(unseen, err)
		case err != nil:
			return nil, nil, err
		}
		found = append(found, slices.DeleteFunc(standing, func(m restic.Mover) bool { return m.Run != run })...)
	}
	return found, unseen, nil
}

// places are the namespaces in which movers of the run stand.
func (t *traces) places() []string {
	var names []string
	for _, m := range t.movers {
		names = append(names, m.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// held are the namespaces that the run holds.
func (t *traces) held() []string {
	var names []string
	for _, h := range t.holdings {
		names = append(names, h.Namespace)
	}
	return names
}

// namespaces are those in which the run has snapshots.
func (t *traces) namespaces() []string {
	var names []string
	for _, s := range t.snapshots {
		names = append(names, s.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// trace is one object of a run, and what abort does with it.
type trace struct {
	object catalog.Object
	verb   string // deleted, kept
	what   string
}

// items are the objects of the run, in the order in which they go.
func (t *traces) items() []trace {
	var all []trace
	for _, m := range t.movers {
		object := func(kind string) catalog.Object {
			return catalog.Object{Kind: kind, Namespace: m.Namespace, Name: m.Name}
		}
		if m.Job {
			all = append(all, trace{object(catalog.KindJob), "deleted", jobWords(m)})
		}
		if m.Clone {
			all = append(all, trace{object(catalog.KindClaim), "deleted", "clone"})
		}
		if m.Static {
			all = append(all, trace{object(catalog.KindSnapshot), "deleted", "static copy, with its content"})
		}
	}
	for _, s := range t.snapshots {
		item := trace{catalog.Object{Kind: catalog.KindSnapshot, Namespace: s.Namespace, Name: s.Name}, "kept", "restore point of " + s.Claim}
		if s.Unfinished() {
			item.verb, item.what = "deleted", "unfinished snapshot of "+s.Claim
		}
		all = append(all, item)
	}
	return all
}

func jobWords(m restic.Mover) string {
	words := "mover that copies nothing"
	if m.Source.Repository != "" {
		words = fmt.Sprintf("mover of %s/%s to %s", m.Source.Namespace, m.Source.Claim, m.Source.Repository)
	}
	switch {
	case m.Finished:
		words += ", finished"
	case m.Ending:
		words += ", ending"
	}
	return words
}

// condemned are the items that go.
func (t *traces) condemned() []trace {
	return slices.DeleteFunc(t.items(), func(i trace) bool { return i.verb != "deleted" })
}

// describe writes what will be done, for a person.
func (t *traces) describe(w io.Writer) {
	fmt.Fprintf(w, "Run %s\n", t.run)
	for _, h := range t.holdings {
		text := "  held     namespace " + h.Namespace
		if h.Holder != "" {
			text += " by " + h.Holder
		}
		fmt.Fprintln(w, printable(text+": told to stop, which may take half a minute"))
	}
	for _, i := range t.items() {
		fmt.Fprintf(w, "  %-8s %s/%s in %s  (%s)\n", i.verb, i.object.Kind, i.object.Name, i.object.Namespace, i.what)
	}
}

// abortDoc is what `abort -o json` prints.
type abortDoc struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Run        catalog.Run    `json:"run"`
	Result     string         `json:"result"` // Ok, DryRun
	Items      []abortItemDoc `json:"items"`
}

type abortItemDoc struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	State     string `json:"state"` // deleted, kept
	What      string `json:"what"`
}

// print writes what was, or would be, done.
func (a *abortion) print(t *traces, result, note string) error {
	if a.printer != nil {
		doc := abortDoc{APIVersion: apiVersion, Kind: "AbortRun", Run: t.run, Result: result, Items: []abortItemDoc{}}
		for _, i := range t.items() {
			doc.Items = append(doc.Items, abortItemDoc{i.object.Kind, i.object.Namespace, i.object.Name, i.verb, i.what})
		}
		return printDocument(a.env.Out, a.printer, doc)
	}
	if note != "" && a.options.output.human() {
		t.describe(a.env.Err)
	}
	for _, i := range t.condemned() {
		line := fmt.Sprintf("%s/%s %s%s", i.object.Kind, i.object.Name, i.verb, note)
		if a.options.output.format == "name" {
			line = fmt.Sprintf("%s/%s", i.object.Kind, i.object.Name)
		}
		if _, err := fmt.Fprintln(a.env.Out, line); err != nil {
			return err
		}
	}
	return nil
}
