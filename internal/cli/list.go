package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/cmd/get"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

type listOptions struct {
	scopeFlags
	workFlags
	from, cluster string
	repositories  []string // what from says
	others        []string // clusters that have copies there too
	noHeaders     bool
	watch         bool
	sortBy        string
	output        *output
}

const listExample = `
	# Restore points of a namespace
	kubectl backsnap list -n shop

	# Of the whole cluster, with driver, handle and run
	kubectl backsnap list -A -o wide

	# Those of one run, the largest last
	kubectl backsnap list run/20261121-011500-p9aa --sort-by=.restoreSize

	# Names for a pipe
	kubectl backsnap list -n shop -o name

	# What lies in a repository too, also of snapshots that are gone
	kubectl backsnap list -n shop --from-repository=main

	# What another cluster has copied there
	kubectl backsnap list -A --from-repository=main --from-cluster=prod-us`

const listLong = `
	List the restore points that the labels in the cluster tell of, newest first. A selector is matched against the labels
	of the VolumeSnapshots.

	With --from-repository movers list what lies in the repositories as well. Copies whose snapshots are gone are shown
	with READY copy; one into which not every file could be read is called partial. It is all that lies there or an error,
	never a part of it.

	With -o wide the contents of the snapshots are read too, for HANDLE. PROVEN is how long ago a restore from it was tried.`

func newList(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &listOptions{}
	cmd := &cobra.Command{
		Use:     "list [TYPE/NAME | CLAIM | vs/NAME | run/ID | -l SELECTOR | -A]",
		Aliases: []string{"ls"},
		Short:   "List restore points: snapshots and their copies",
		Long:    templates.LongDesc(listLong),
		Example: templates.Examples(listExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runList(cmd, env, config, o, args) },
	}
	o.addSnapshots(cmd)
	o.workFlags.add(cmd, 10*time.Minute, false)
	cmd.Flags().StringVar(&o.from, "from-repository", "", "Repositories to list as well, `NAME,...`")
	cmd.Flags().StringVar(&o.cluster, "from-cluster", "", "List what the cluster of that name has copied to those repositories, and nothing else")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave the column names out")
	cmd.Flags().StringVar(&o.sortBy, "sort-by", "", "`JSONPath` of what to sort by, of the documents that -o json shows, such as .cut")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "Go on and show each that is new or changes, until ^C")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

func runList(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *listOptions, args []string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	show, err := o.progressFlags.show(env)
	if err != nil {
		return usageError(cmd, err)
	}
	defer show.Close()
	namespace, err := currentNamespace(config)
	if err != nil {
		return err
	}
	chosen, err := o.choose(args, namespace)
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return usageError(cmd, err)
	}
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	if o.watch {
		return o.follow(cmd.Context(), env, cluster, printer, chosen)
	}
	found, err := o.restorePoints(cmd.Context(), env, cluster, chosen, show)
	show.Close()
	if err == nil {
		found, err = o.complete(cmd.Context(), cluster, found)
	}
	if err != nil {
		return err
	}
	if err := sortBy(found, o.sortBy); err != nil {
		return usageError(cmd, err)
	}
	if printer != nil {
		return printDocument(env.Out, printer, listDocument(found))
	}
	return o.print(env, chosen.scope, found)
}

func (o *listOptions) check() error {
	if err := o.checkRepositories(); err != nil {
		return err
	}
	if o.sortBy == "" {
		return nil
	}
	if o.watch {
		return errors.New("--sort-by together with --watch: what comes later cannot be sorted in")
	}
	_, err := get.RelaxedJSONPathExpression(o.sortBy)
	return err
}

// sortBy sorts by a JSONPath of the snapshots' documents; "" leaves the order
// as it is.
func sortBy(found []catalog.Snapshot, field string) error {
	if field == "" || len(found) == 0 {
		return nil
	}
	objects := make([]runtime.Object, len(found))
	for i, s := range found {
		var err error
		if objects[i], err = document(restorePointDocument(s)); err != nil {
			return err
		}
	}
	order, err := get.SortObjects(unstructured.UnstructuredJSONScheme, objects, field)
	if err != nil {
		return fmt.Errorf("sort by %q: %w", field, err)
	}
	unsorted := slices.Clone(found)
	for i := range found {
		found[i] = unsorted[order.OriginalPosition(i)]
	}
	return nil
}

// restorePoints are those that are chosen, newest first; those of one run stay
// together.
func restorePoints(ctx context.Context, cluster Cluster, chosen selection) ([]catalog.Snapshot, error) {
	all, err := cluster.Snapshots(ctx, chosen.scope)
	if err != nil {
		return nil, err
	}
	return chosen.restorePoints(all), nil
}

// restorePoints are those of all that are chosen, in the order of restorePoints.
func (s selection) restorePoints(all []catalog.Snapshot) []catalog.Snapshot {
	found := slices.DeleteFunc(all, func(v catalog.Snapshot) bool { return v.Role != "" || !s.snapshot(v) })
	slices.SortStableFunc(found, func(a, b catalog.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(b.Run, a.Run), cmp.Compare(a.App(), b.App()), cmp.Compare(a.Claim, b.Claim))
	})
	return found
}

// complete is found with all that a wide table shows.
func (o *listOptions) complete(ctx context.Context, cluster Cluster, found []catalog.Snapshot) ([]catalog.Snapshot, error) {
	if o.output.format != "wide" || len(found) == 0 {
		return found, nil
	}
	return cluster.CompleteAll(ctx, found)
}

func printSnapshotNames(w io.Writer, found []catalog.Snapshot) error {
	for _, s := range found {
		if _, err := fmt.Fprintln(w, nameOf(s)); err != nil {
			return err
		}
	}
	return nil
}

func (o *listOptions) print(env *Env, scope catalog.Scope, found []catalog.Snapshot) error {
	if o.output.format == "name" {
		return printSnapshotNames(env.Out, found)
	}
	if len(found) == 0 {
		where := "in the cluster"
		if !scope.All {
			where = "in namespace " + strings.Join(scope.Namespaces, ", ")
		}
		fmt.Fprintf(env.Err, "No restore points found %s.\n", where)
		if len(o.others) > 0 {
			fmt.Fprintf(env.Err, "Other clusters have copies there: %s; --from-cluster shows them.\n", strings.Join(o.others, ", "))
		}
		return nil
	}
	return o.table(scope).PrintObj(listTable(found, env.Now()), env.Out)
}

func (o *listOptions) table(scope catalog.Scope) printers.ResourcePrinter {
	return printers.NewTablePrinter(printers.PrintOptions{
		NoHeaders: o.noHeaders, WithNamespace: scope.All || len(scope.Namespaces) > 1, Wide: o.output.format == "wide",
	})
}

// follow shows what there is, and then each restore point that is new or has
// changed, until ctx is done or nobody reads any more.
func (o *listOptions) follow(ctx context.Context, env *Env, cluster Cluster, printer printers.ResourcePrinter, chosen selection) error {
	table := o.table(chosen.scope)
	if printer != nil {
		table = nil
	}
	shown := map[string]string{} // UID -> resourceVersion
	show := func(all []catalog.Snapshot) error {
		news := slices.DeleteFunc(chosen.restorePoints(all), func(s catalog.Snapshot) bool {
			version, known := shown[s.UID]
			shown[s.UID] = s.ResourceVersion
			return known && version == s.ResourceVersion
		})
		news, err := o.complete(ctx, cluster, news)
		switch {
		case err != nil || len(news) == 0:
			return err
		case o.output.format == "name":
			return printSnapshotNames(env.Out, news)
		case table != nil:
			return table.PrintObj(listTable(news, env.Now()), env.Out) // the headers once
		}
		for _, s := range news {
			if err := printDocument(env.Out, printer, restorePointDocument(s)); err != nil {
				return err
			}
		}
		return nil
	}
	ctx, stop := whileRead(ctx, env.Out)
	defer stop()
	err := watch(ctx, cluster, chosen.scope, func(all []catalog.Snapshot) (bool, error) {
		err := show(all)
		return closed(env.Out), err
	})
	if errors.Is(err, context.Canceled) || catalog.Has(err, catalog.CodeInterrupted) {
		return &finished{code: exitOK} // ^C is the way to end it, or that nobody reads any more
	}
	return err
}

// watch calls changed with the snapshots of scope and at each change of one,
// never twice at once, until it says true or fails, or ctx is done.
func watch(ctx context.Context, cluster Cluster, scope catalog.Scope, changed func([]catalog.Snapshot) (bool, error)) error {
	namespaces := scope.Namespaces
	if scope.All {
		namespaces = []string{""}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var watching sync.WaitGroup
	for _, namespace := range namespaces {
		watching.Go(func() {
			err := cluster.Await(ctx, namespace, func(all []catalog.Snapshot) (bool, error) {
				mu.Lock()
				defer mu.Unlock()
				return changed(all)
			})
			cancel(err) // one is enough; without an error it was said to be over
		})
	}
	watching.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) || catalog.CodeOf(err) != "" {
		return err
	}
	return nil
}

// column is one of the table, with what it says of a snapshot.
type column struct {
	name  string
	wide  bool
	value func(s catalog.Snapshot, now time.Time) string
}

var columns = []column{
	{"Name", false, func(s catalog.Snapshot, _ time.Time) string { return s.Name }},
	{"App", false, func(s catalog.Snapshot, _ time.Time) string { return s.App() }},
	{"Tier", false, func(s catalog.Snapshot, _ time.Time) string { return s.Tier() }},
	{"Consistency", false, func(s catalog.Snapshot, _ time.Time) string { return string(s.Consistency) }},
	{"Ready", false, func(s catalog.Snapshot, _ time.Time) string { return readyOf(s) }},
	{"Offsite", false, func(s catalog.Snapshot, _ time.Time) string { return offsiteIDs(s) }},
	{"Age", false, func(s catalog.Snapshot, now time.Time) string { return age(s, now) }},
	{"Delete-After", false, func(s catalog.Snapshot, _ time.Time) string { return s.DeleteAfter }},
	{"Size", true, func(s catalog.Snapshot, _ time.Time) string { return sizeOf(s) }},
	{"Class", true, func(s catalog.Snapshot, _ time.Time) string { return s.Class }},
	{"Driver", true, func(s catalog.Snapshot, _ time.Time) string { return driverOf(s) }},
	{"Handle", true, func(s catalog.Snapshot, _ time.Time) string { return s.Handle }},
	{"Run", true, func(s catalog.Snapshot, _ time.Time) string { return string(s.Run) }},
	{"Proven", true, proven},
}

func listTable(found []catalog.Snapshot, now time.Time) *metav1.Table {
	table := &metav1.Table{}
	for _, c := range columns {
		priority := int32(0)
		if c.wide {
			priority = 1
		}
		table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{Name: c.name, Type: "string", Priority: priority})
	}
	for _, s := range found {
		var cells []any
		for _, c := range columns {
			cells = append(cells, cmp.Or(c.value(s, now), "<none>"))
		}
		row := metav1.TableRow{Cells: cells}
		row.Object.Object = &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		table.Rows = append(table.Rows, row)
	}
	return table
}

func offsiteIDs(s catalog.Snapshot) string {
	var ids []string
	for _, c := range s.Copies {
		id := short(c.Snapshot)
		if c.Partial {
			id += "(partial)"
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, ",")
}

func age(s catalog.Snapshot, now time.Time) string {
	if s.Cut.IsZero() {
		return duration.HumanDuration(now.Sub(s.Created))
	}
	return duration.HumanDuration(now.Sub(s.Cut))
}

// proven is how long ago a restore from s was tried, `-` where none was.
func proven(s catalog.Snapshot, now time.Time) string {
	if s.Proof == nil {
		return "-"
	}
	return duration.HumanDuration(now.Sub(s.Proof.At))
}

func sizeOf(s catalog.Snapshot) string {
	switch {
	case s.RestoreSize > 0:
		return size(s.RestoreSize)
	case s.Record != nil:
		return size(s.Record.Claim.Capacity)
	}
	return ""
}

func driverOf(s catalog.Snapshot) string {
	if s.Record == nil {
		return s.Driver
	}
	return s.Record.Claim.Driver
}

// restorePointList is what `list -o json` prints.
type restorePointList struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []restorePointDoc `json:"items"`
}

type restorePointDoc struct {
	APIVersion  string                    `json:"apiVersion"`
	Kind        string                    `json:"kind"`
	Metadata    metadataDoc               `json:"metadata"`
	App         string                    `json:"app,omitempty"`
	Claim       string                    `json:"pvc"`
	Run         catalog.Run               `json:"run"`
	Consistency catalog.Consistency       `json:"consistency,omitempty"`
	Ready       bool                      `json:"ready"`
	Cut         time.Time                 `json:"cut,omitzero"`
	Retain      string                    `json:"retain,omitempty"`
	DeleteAfter string                    `json:"deleteAfter,omitempty"`
	Pinned      bool                      `json:"pinned,omitempty"`
	Periods     map[catalog.Period]string `json:"periods,omitempty"`
	Copies      []catalog.Copy            `json:"copies,omitempty"`
	Class       string                    `json:"volumeSnapshotClass,omitempty"`
	Content     string                    `json:"volumeSnapshotContent,omitempty"`
	RestoreSize int64                     `json:"restoreSize,omitempty"`
	Record      *catalog.Record           `json:"record,omitempty"`
	Proof       *catalog.Proof            `json:"proof,omitempty"`
	Error       string                    `json:"error,omitempty"`
	CopyOnly    bool                      `json:"copyOnly,omitempty"` // the cluster has no such snapshot any more
}

type metadataDoc struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	UID       string            `json:"uid"`
	Labels    map[string]string `json:"labels"`
}

func listDocument(found []catalog.Snapshot) restorePointList {
	list := restorePointList{APIVersion: apiVersion, Kind: "RestorePointList", Items: []restorePointDoc{}}
	for _, s := range found {
		list.Items = append(list.Items, restorePointDocument(s))
	}
	return list
}

func restorePointDocument(s catalog.Snapshot) restorePointDoc {
	return restorePointDoc{
		APIVersion: apiVersion, Kind: "RestorePoint", Metadata: metadataDoc{s.Namespace, s.Name, s.UID, s.Labels()},
		App: s.App(), Claim: s.Claim, Run: s.Run, Consistency: s.Consistency, Ready: s.Ready, Cut: s.Cut, Retain: s.Retain,
		DeleteAfter: s.DeleteAfter, Pinned: s.Pinned, Periods: s.Periods, Copies: s.Copies,
		Class: s.Class, Content: s.Content, RestoreSize: s.RestoreSize, Record: s.Record, Proof: s.Proof, Error: s.Err, CopyOnly: s.CopyOnly,
	}
}
