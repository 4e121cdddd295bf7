package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

type listOptions struct {
	scopeFlags
	noHeaders bool
	output    *output
}

const listExample = `
	# Restore points of a namespace
	kubectl backsnap list -n shop

	# Of the whole cluster, with driver, handle and run
	kubectl backsnap list -A -o wide

	# Names for a pipe
	kubectl backsnap list -n shop -o name`

func newList(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &listOptions{}
	cmd := &cobra.Command{
		Use:     "list [TYPE/NAME | CLAIM | -l SELECTOR | -A]",
		Aliases: []string{"ls"},
		Short:   "List restore points: snapshots and their copies",
		Long:    templates.LongDesc("List the restore points that the labels in the cluster tell of, newest first. A selector is matched against the labels of the VolumeSnapshots."),
		Example: templates.Examples(listExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runList(cmd, env, config, o, args) },
	}
	o.scopeFlags.add(cmd, "snapshots")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "Leave the column names out")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

func runList(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *listOptions, args []string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	selects, err := o.selects()
	if err != nil {
		return usageError(cmd, err)
	}
	namespace, err := currentNamespace(config)
	if err != nil {
		return err
	}
	wanted, scope, err := o.targets(args, namespace)
	if err != nil {
		return usageError(cmd, err)
	}
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	found, err := restorePoints(cmd.Context(), cluster, scope, selects, wanted)
	if err != nil {
		return err
	}
	if printer != nil {
		return printDocument(env.Out, printer, listDocument(found))
	}
	return o.print(env, scope, found)
}

// restorePoints are the snapshots of scope that are restore points, newest
// first; those of one run stay together.
func restorePoints(ctx context.Context, cluster Cluster, scope catalog.Scope, selects func(map[string]string) bool, wanted []snapshot.Target) ([]catalog.Snapshot, error) {
	all, err := cluster.Snapshots(ctx, scope)
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(all, func(s catalog.Snapshot) bool {
		return s.Role != "" || selects != nil && !selects(s.Labels()) || !isWanted(s, wanted)
	})
	slices.SortStableFunc(found, func(a, b catalog.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(b.Run, a.Run), cmp.Compare(a.App(), b.App()), cmp.Compare(a.Claim, b.Claim))
	})
	return found, nil
}

func isWanted(s catalog.Snapshot, wanted []snapshot.Target) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, func(t snapshot.Target) bool {
		switch {
		case t.Kind == "namespace":
			return s.Namespace == t.Name
		case t.Kind == "pvc":
			return s.Namespace == t.Namespace && s.Claim == t.Name
		}
		return s.Namespace == t.Namespace && slices.Contains(strings.Split(s.App(), "+"), t.String())
	})
}

func (o *listOptions) print(env *Env, scope catalog.Scope, found []catalog.Snapshot) error {
	if o.output.format == "name" {
		for _, s := range found {
			fmt.Fprintf(env.Out, "%s/%s\n", snapshotResource, s.Name)
		}
		return nil
	}
	if len(found) == 0 {
		where := "in the cluster"
		if !scope.All {
			where = "in namespace " + strings.Join(scope.Namespaces, ", ")
		}
		fmt.Fprintf(env.Err, "No restore points found %s.\n", where)
		return nil
	}
	table := printers.NewTablePrinter(printers.PrintOptions{
		NoHeaders: o.noHeaders, WithNamespace: scope.All || len(scope.Namespaces) > 1, Wide: o.output.format == "wide",
	})
	return table.PrintObj(listTable(found, env.Now()), env.Out)
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
	{"Ready", false, func(s catalog.Snapshot, _ time.Time) string { return strconv.FormatBool(s.Ready) }},
	{"Offsite", false, func(s catalog.Snapshot, _ time.Time) string { return offsiteIDs(s) }},
	{"Age", false, func(s catalog.Snapshot, now time.Time) string { return age(s, now) }},
	{"Delete-After", false, func(s catalog.Snapshot, _ time.Time) string { return s.DeleteAfter }},
	{"Size", true, func(s catalog.Snapshot, _ time.Time) string { return sizeOf(s) }},
	{"Class", true, func(s catalog.Snapshot, _ time.Time) string { return s.Class }},
	{"Driver", true, func(s catalog.Snapshot, _ time.Time) string { return driverOf(s) }},
	{"Content", true, func(s catalog.Snapshot, _ time.Time) string { return s.Content }},
	{"Run", true, func(s catalog.Snapshot, _ time.Time) string { return string(s.Run) }},
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
		ids = append(ids, short(c.Snapshot))
	}
	return strings.Join(ids, ",")
}

func age(s catalog.Snapshot, now time.Time) string {
	if s.Cut.IsZero() {
		return duration.HumanDuration(now.Sub(s.Created))
	}
	return duration.HumanDuration(now.Sub(s.Cut))
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
	Record      *catalog.Record           `json:"record,omitempty"`
	Error       string                    `json:"error,omitempty"`
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
		list.Items = append(list.Items, restorePointDoc{
			APIVersion: apiVersion, Kind: "RestorePoint", Metadata: metadataDoc{s.Namespace, s.Name, s.UID, s.Labels()},
			App: s.App(), Claim: s.Claim, Run: s.Run, Consistency: s.Consistency, Ready: s.Ready, Cut: s.Cut, Retain: s.Retain,
			DeleteAfter: s.DeleteAfter, Pinned: s.Pinned, Periods: s.Periods, Copies: s.Copies, Record: s.Record, Error: s.Err,
		})
	}
	return list
}
