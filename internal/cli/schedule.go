package cli

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/schedule"
)

const scheduleLong = `
	Unattended work, as plain CronJobs: nothing of ours has to run in the cluster for them. What they are made of carries
	labels, and delete removes exactly that.`

func newSchedule(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "schedule",
		Short:   "Create, list, run, suspend, resume and delete CronJobs",
		Long:    templates.LongDesc(scheduleLong),
		Example: templates.Examples("# The schedules of all namespaces\nkubectl backsnap schedule list -A"),
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newScheduleCreate(env, config), newScheduleList(env, config), newScheduleRun(env, config),
		newScheduleSuspend(env, config, "suspend", "Have a schedule begin nothing by itself", "suspended", true),
		newScheduleSuspend(env, config, "resume", "Have a suspended schedule begin again", "resumed", false),
		newScheduleDelete(env, config),
	)
	return cmd
}

// oneSchedule wants one argument.
func oneSchedule(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(cmd, fmt.Errorf("%d arguments: want the name of one schedule", len(args)))
	}
	return nil
}

// scheduleDoc is a CronJob of a schedule as -o json prints it.
type scheduleDoc struct {
	Name      string     `json:"name"`
	Namespace string     `json:"namespace"`
	Of        string     `json:"of"` // the schedule
	Schedule  string     `json:"schedule"`
	TimeZone  string     `json:"timeZone,omitempty"`
	Target    string     `json:"target,omitempty"`
	LastOK    *time.Time `json:"lastOK,omitempty"`
	Last      *time.Time `json:"last,omitempty"`
	Next      *time.Time `json:"next,omitempty"`
	Suspended bool       `json:"suspended"`
}

type scheduleList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Items      []scheduleDoc `json:"items"`
}

func newScheduleList(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	var all, noHeaders bool
	var o *output
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List schedules: when each was last good, and when it comes next",
		Example: templates.Examples("# Of all namespaces\nkubectl backsnap schedule list -A"),
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := o.printer()
			if err != nil {
				return usageError(cmd, err)
			}
			cluster, namespace, err := reach(env, config)
			if err != nil {
				return err
			}
			found, err := cluster.Schedules(cmd.Context(), catalog.Scope{All: all, Namespaces: []string{namespace}})
			if err != nil {
				return err
			}
			return printSchedules(env, o, printer, scheduleDocuments(found, env.Now()), all, noHeaders)
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "Every namespace of the cluster")
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "Print no headers")
	o = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// reach is the cluster and the namespace that is meant.
func reach(env *Env, config *genericclioptions.ConfigFlags) (Cluster, string, error) {
	namespace, err := currentNamespace(config)
	if err != nil {
		return nil, "", err
	}
	cluster, err := env.Connect(config)
	return cluster, namespace, err
}

func scheduleDocuments(found []catalog.Schedule, now time.Time) []scheduleDoc {
	docs := []scheduleDoc{}
	for _, s := range found {
		d := scheduleDoc{
			Name: s.Name, Namespace: s.Namespace, Of: s.Of, Schedule: s.Cron, TimeZone: s.Zone, Target: s.Target, Suspended: s.Suspended,
			LastOK: timeOf(s.LastOK), Last: timeOf(s.Last),
		}
		zone, err := named(s.Zone)
		if table, bad := schedule.ParseCron(s.Cron); err == nil && bad == nil && !s.Suspended {
			d.Next = timeOf(table.Next(now.In(zone)).UTC())
		}
		docs = append(docs, d)
	}
	return docs
}

// timeOf is t, nil for the zero time.
func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func printSchedules(env *Env, o *output, printer printers.ResourcePrinter, docs []scheduleDoc, all, noHeaders bool) error {
	switch {
	case printer != nil:
		return printDocument(env.Out, printer, scheduleList{APIVersion: apiVersion, Kind: "ScheduleList", Items: docs})
	case o.format == "name":
		for _, d := range docs {
			fmt.Fprintf(env.Out, "cronjob.batch/%s\n", d.Name)
		}
		return nil
	case len(docs) == 0:
		fmt.Fprintln(env.Err, "No schedules found.")
		return nil
	}
	table := &metav1.Table{}
	for _, name := range []string{"Name", "Schedule", "TZ", "Target", "Last-OK", "Next", "Suspended"} {
		table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{Name: name, Type: "string"})
	}
	for _, d := range docs {
		row := metav1.TableRow{Cells: []any{d.Name, d.Schedule, d.TimeZone, d.Target, since(d.LastOK, env.Now()), until(d.Next, env.Now()), d.Suspended}}
		row.Object.Object = &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Namespace: d.Namespace}}
		table.Rows = append(table.Rows, row)
	}
	return printers.NewTablePrinter(printers.PrintOptions{WithNamespace: all, NoHeaders: noHeaders}).PrintObj(table, env.Out)
}

func since(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return duration.HumanDuration(now.Sub(*t))
}

func until(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return duration.HumanDuration(t.Sub(now))
}

const scheduleRunLong = `
	Make a Job of the schedule's CronJob now, as kubectl create job --from does, and follow its log to the end. The exit
	code is that of the Job's pod.`

func newScheduleRun(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	return withEnvironment(env, &cobra.Command{
		Use:     "run NAME",
		Short:   "Run a schedule now and follow it",
		Long:    templates.LongDesc(scheduleRunLong),
		Example: templates.Examples("# Run it now\nkubectl backsnap schedule run nightly -n shop\n\n# Its prune\nkubectl backsnap schedule run nightly-prune -n shop"),
		Args:    oneSchedule,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSchedule(cmd, env, config, args[0])
		},
	})
}

func runSchedule(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, name string) error {
	cluster, namespace, err := reach(env, config)
	if err != nil {
		return err
	}
	found, err := schedule.Find(cmd.Context(), cluster, namespace, name)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(found, func(s catalog.Schedule) bool { return s.Name == name }) {
		name = found[0].Name
	}
	var random [4]byte
	if _, err := io.ReadFull(env.Random, random[:]); err != nil {
		return fmt.Errorf("make name of a job: %w", err)
	}
	job := name + "-" + hex.EncodeToString(random[:])
	if err := cluster.StartSchedule(cmd.Context(), namespace, name, job); err != nil {
		return err
	}
	fmt.Fprintf(env.Err, "job.batch/%s created\n", job)
	code, err := cluster.FollowJob(cmd.Context(), namespace, job, env.Out)
	if cmd.Context().Err() != nil {
		fmt.Fprintf(env.Err, "It goes on. Follow it: kubectl logs -f job/%s -n %s\n", job, namespace)
	}
	if err != nil {
		return err
	}
	if code != exitOK {
		return &finished{code: code}
	}
	return nil
}

func newScheduleSuspend(env *Env, config *genericclioptions.ConfigFlags, verb, short, done string, suspended bool) *cobra.Command {
	return withEnvironment(env, &cobra.Command{
		Use:     verb + " NAME",
		Short:   short,
		Example: templates.Examples("# All CronJobs of schedule nightly\nkubectl backsnap schedule " + verb + " nightly -n shop"),
		Args:    oneSchedule,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, namespace, err := reach(env, config)
			if err != nil {
				return err
			}
			return schedule.Suspend(cmd.Context(), cluster, namespace, args[0], suspended, func(s catalog.Schedule) {
				fmt.Fprintf(env.Out, "cronjob.batch/%s %s\n", s.Name, done)
			})
		},
	})
}

const scheduleDeleteLong = `
	Remove what schedule create has made: CronJobs and their Jobs, ServiceAccount, roles and bindings. Restore points and
	copies stay.`

func newScheduleDelete(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	return withEnvironment(env, &cobra.Command{
		Use:     "delete NAME",
		Short:   "Remove a schedule; what it has backed up stays",
		Long:    templates.LongDesc(scheduleDeleteLong),
		Example: templates.Examples("# Remove schedule nightly\nkubectl backsnap schedule delete nightly -n shop"),
		Args:    oneSchedule,
		RunE: func(cmd *cobra.Command, args []string) error {
			cluster, namespace, err := reach(env, config)
			if err != nil {
				return err
			}
			return schedule.Delete(cmd.Context(), cluster, namespace, args[0], func(o *unstructured.Unstructured) {
				fmt.Fprintf(env.Out, "%s deleted\n", kubectlName(o))
			})
		},
	})
}

// errNoCron is a schedule without a time table.
var errNoCron = errors.New("--cron is missing: want a time table such as '15 1 * * *' or @daily")
