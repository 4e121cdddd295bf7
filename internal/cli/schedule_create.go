package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
	"github.com/backsnap/kubectl-backsnap/internal/schedule"
)

// ownImage is where the tool's own image is published; its tag is the version.
const ownImage = "ghcr.io/backsnap/kubectl-backsnap"

type scheduleCreateOptions struct {
	snapshot                     snapshotOptions
	cron, pruneCron, checkCron   string
	keep, check                  string
	image, pullSecrets, priority string
	requests, limits             string
	startWithin, deadline, alert time.Duration
	history, retries             int32
	suspended, networkPolicy     bool
	apiPorts                     []int
	dryRun                       string
	output                       *output
	passed                       []string // names of snapshot's flags that are taken over
}

const scheduleCreateLong = `
	Make the CronJobs of a schedule, and their ServiceAccount with no more rights than they need: one takes snapshots; with
	--keep another prunes them, with --check another examines a repository. All flags of snapshot are passed on to it.

	With --dry-run=client -o yaml the manifests are printed instead, sorted and the same every time, for a repository that
	Argo CD or Flux apply. @hourly, @daily and so on come at a minute that depends on the schedule's name alone.`

const scheduleCreateExample = `
	# Every night, kept by the calendar
	kubectl backsnap schedule create nightly -n shop statefulset/mysql --cron @daily --retain calendar --keep daily=7,weekly=4

	# The manifests of it, for Git
	kubectl backsnap schedule create nightly -n shop --cron @daily --dry-run=client -o yaml`

func newScheduleCreate(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &scheduleCreateOptions{}
	cmd := &cobra.Command{
		Use:     "create NAME [TYPE/NAME | CLAIM | -l SELECTOR | -A] --cron TABLE",
		Short:   "Create a schedule, or print its manifests",
		Long:    templates.LongDesc(scheduleCreateLong),
		Example: templates.Examples(scheduleCreateExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runScheduleCreate(cmd, env, config, o, args) },
	}
	o.takeOver(newSnapshotFlags(&o.snapshot), cmd.Flags())
	o.add(env, cmd)
	return withEnvironment(env, cmd)
}

// newSnapshotFlags are the flags of `snapshot`, which keep their values in o.
func newSnapshotFlags(o *snapshotOptions) *pflag.FlagSet {
	o.consistency, o.retain, o.dumpTimeout, o.timeout = "auto", "30d", 30*time.Minute, time.Hour
	from := &cobra.Command{}
	o.addFlags(from)
	return from.Flags()
}

// ownWay are flags of snapshot that say nothing to a CronJob, or that create
// has its own way with.
var ownWay = []string{
	"output", "template", "allow-missing-template-keys", "show-managed-fields", "dry-run", "filename", "recursive", "progress", "color", "quiet", "wait",
	"lock-slots", "lock-dir", // of a machine: a pod has no folder that others see
}

func (o *scheduleCreateOptions) takeOver(from, to *pflag.FlagSet) {
	from.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(ownWay, f.Name) {
			to.AddFlag(f)
			o.passed = append(o.passed, f.Name)
		}
	})
	slices.Sort(o.passed)
}

func (o *scheduleCreateOptions) add(env *Env, cmd *cobra.Command) {
	f := cmd.Flags()
	f.Lookup("timezone").Usage = "Time zone of the time tables, and of days and periods, an IANA `name`; default: UTC"
	f.StringVar(&o.cron, "cron", "", "When snapshots are taken: a `table` of five fields, or @hourly, @daily, @weekly, @monthly, at a minute that comes of the name")
	f.StringVar(&o.keep, "keep", "", "Prune too: how many of the newest hourly, daily, weekly, monthly, yearly keys keep theirs")
	f.StringVar(&o.pruneCron, "prune-cron", "@daily", "When it prunes")
	f.StringVar(&o.check, "check", "", "Examine that `repository` too")
	f.StringVar(&o.checkCron, "check-cron", "@weekly", "When it examines it")
	f.StringVar(&o.image, "image", "", "Image of this program; default: "+ownImage+" in the version of the program")
	f.StringVar(&o.pullSecrets, "image-pull-secret", "", "Secrets to pull it with, `NAME,...`")
	f.StringVar(&o.priority, "priority-class", "", "PriorityClass of the CronJobs' pods")
	f.StringVar(&o.requests, "requests", "cpu=50m,memory=128Mi", "What such a pod asks of its node, `cpu=Q,memory=Q`")
	f.StringVar(&o.limits, "limits", "memory=512Mi", "What it may have at most, `cpu=Q,memory=Q`")
	f.DurationVar(&o.startWithin, "start-within", time.Hour, "How late a run may begin; what is later is missed")
	f.DurationVar(&o.deadline, "deadline", 24*time.Hour, "How long a run may take")
	f.DurationVar(&o.alert, "alert-after", 0, "Make a PrometheusRule that alerts when a CronJob's last success is so much older than the longest time between two of its turns; 0: none")
	f.Int32Var(&o.history, "history", 3, "Finished Jobs that stand, good ones and failed ones each")
	f.Int32Var(&o.retries, "retries", 2, "How often a run that failed is tried again, where that may help")
	f.BoolVar(&o.suspended, "suspended", false, "Begin nothing before schedule resume")
	f.BoolVar(&o.networkPolicy, "network-policy", false, "Make a NetworkPolicy: nothing connects to the pods, and they to DNS and the API server alone")
	f.IntSliceVar(&o.apiPorts, "api-ports", []int{443, 6443}, "`Ports` of the API server, for --network-policy: that of its Service and those of its endpoints")
	f.StringVar(&o.dryRun, "dry-run", "none", "none; client: make nothing, print with -o yaml what would be made; server: let the server check it")
	o.output = addOutput(cmd)
}

// request reads the command line; nothing is asked of the cluster.
func (o *scheduleCreateOptions) request(env *Env, flags *pflag.FlagSet, namespace string, args []string) (r schedule.Request, err error) {
	if len(args) == 0 {
		return r, errors.New("the schedule has no name: want NAME [TYPE/NAME...]")
	}
	r = schedule.Request{
		Namespace: namespace, Name: args[0], Image: cmp.Or(o.image, ownImage+":"+env.Version), PriorityClass: o.priority, Zone: cmp.Or(o.snapshot.timezone, "Etc/UTC"),
		StartWithin: o.startWithin, Deadline: o.deadline, Alert: o.alert, History: o.history, Retries: o.retries,
		FailAtOnce: failAtOnce(), Suspended: o.suspended, NetworkPolicy: o.networkPolicy, APIPorts: o.apiPorts,
	}
	if bad := validation.IsDNS1123Label(r.Name); len(bad) > 0 {
		return r, fmt.Errorf("name %q: %s", r.Name, strings.Join(bad, "; "))
	}
	if o.pullSecrets != "" {
		r.PullSecrets = strings.Split(o.pullSecrets, ",")
	}
	if err := o.checkValues(env); err != nil {
		return r, err
	}
	if r.Requests, err = resources("requests", o.requests); err != nil {
		return r, err
	}
	if r.Limits, err = resources("limits", o.limits); err != nil {
		return r, err
	}
	chosen, err := o.snapshot.choose(args[1:], namespace)
	if err != nil {
		return r, err
	}
	r.Target = target(chosen, args[1:], namespace)
	if r.Parts, err = o.parts(flags, r, args[1:], chosen); err != nil {
		return r, err
	}
	r.Rights = o.rights(chosen)
	return r, nil
}

// checkValues refuses what snapshot and prune would refuse at night.
func (o *scheduleCreateOptions) checkValues(env *Env) error {
	if _, _, err := o.snapshot.request(env, ""); err != nil {
		return err
	}
	if err := o.snapshot.copyingFlags.check(); err != nil {
		return err
	}
	if _, err := offsite.ParseRepositories(o.snapshot.repository); err != nil {
		return err
	}
	if o.keep != "" {
		if _, err := retention.ParsePolicy(o.keep); err != nil {
			return err
		}
	}
	switch {
	case o.cron == "":
		return errNoCron
	case o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server":
		return fmt.Errorf("dry-run %q: want none, client or server", o.dryRun)
	case o.startWithin < 10*time.Second: // the controller looks every ten
		return errors.New("--start-within: want at least 10s")
	case o.deadline < time.Minute || o.alert < 0 || o.history < 0 || o.retries < 0:
		return errors.New("--deadline: want at least 1m; --alert-after, --history and --retries must not be negative")
	case slices.ContainsFunc(o.apiPorts, func(p int) bool { return p < 1 || p > 65535 }):
		return errors.New("--api-ports: want numbers from 1 to 65535")
	case o.keep != "" && (o.snapshot.labels != "" || o.snapshot.fields != ""):
		return errors.New("--keep with a selector of claims: prune judges restore points by their own labels; leave out the one or the other")
	}
	return nil
}

// failAtOnce are the exit codes after which a CronJob is not to try again.
func failAtOnce() []int32 {
	var codes []int32
	for _, row := range exitTable {
		if strings.HasPrefix(row.cronJob, "fail at once") {
			codes = append(codes, int32(row.code))
		}
	}
	return codes
}

var quantity = regexp.MustCompile(`^(cpu|memory)=(.+)$`)

func resources(flag, text string) (corev1.ResourceList, error) {
	if text == "" {
		return nil, nil
	}
	found := corev1.ResourceList{}
	for _, part := range strings.Split(text, ",") {
		match := quantity.FindStringSubmatch(part)
		if match == nil {
			return nil, fmt.Errorf("%s %q: want cpu=Q,memory=Q", flag, text)
		}
		q, err := resource.ParseQuantity(match[2])
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", flag, text, err)
		}
		found[corev1.ResourceName(match[1])] = q
	}
	return found, nil
}

// target is what the schedule works on, for people.
func target(chosen selection, args []string, namespace string) string {
	var parts []string
	switch {
	case chosen.scope.All:
		parts = append(parts, "all namespaces")
	case len(args) > 0:
		parts = append(parts, args...)
	default:
		parts = append(parts, "namespace/"+namespace)
	}
	if !chosen.labels.Empty() {
		parts = append(parts, "-l "+chosen.labels.String())
	}
	return strings.Join(parts, " ")
}

// parts are the CronJobs.
func (o *scheduleCreateOptions) parts(flags *pflag.FlagSet, r schedule.Request, targets []string, chosen selection) ([]schedule.Part, error) {
	where := []string{"--namespace=" + r.Namespace, "--progress=plain"}
	changed := o.changed(flags, o.passed)
	all := []struct {
		name, cron string
		args       []string
	}{{r.Name, o.cron, slices.Concat([]string{"snapshot"}, targets, where, []string{"--timezone=" + r.Zone}, changed)}}
	if o.keep != "" {
		shared := o.changed(flags, pruneShares)
		all = append(all, struct {
			name, cron string
			args       []string
		}{r.Name + "-prune", o.pruneCron, slices.Concat([]string{"prune"}, targets, where, []string{"--keep=" + o.keep, "--yes"}, shared)})
	}
	if o.check != "" {
		shared := o.changed(flags, []string{"backup-namespace", "restic-image"})
		all = append(all, struct {
			name, cron string
			args       []string
		}{r.Name + "-check", o.checkCron, slices.Concat([]string{"repo", "check", o.check}, where, shared)})
	}
	var parts []schedule.Part
	for _, p := range all {
		table, err := schedule.ParseCron(p.cron)
		if err != nil {
			return nil, err
		}
		parts = append(parts, schedule.Part{Name: p.name, Cron: table.Spread(r.Namespace + "/" + p.name), Args: p.args})
	}
	return parts, nil
}

// pruneShares are the flags that mean the same to snapshot and to prune.
var pruneShares = []string{
	"all-namespaces", "backup-namespace", "cache-claim", "cache-size", "exclude-namespace", "in-namespace", "limit-upload", "lock-timeout",
	"mover-deadline", "mover-limits", "mover-priority-class", "mover-pull-secret", "mover-requests", "mover-service-account", "mover-toleration", "repository", "restic-image", "retry-lock", "run-as-user",
}

// changed are those of the flags that were given, as arguments, sorted.
func (o *scheduleCreateOptions) changed(flags *pflag.FlagSet, names []string) []string {
	var args []string
	for _, name := range names {
		f := flags.Lookup(name)
		if f == nil || !f.Changed || name == "timezone" {
			continue
		}
		value := f.Value.String()
		if list, ok := f.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		args = append(args, "--"+name+"="+value)
	}
	return args
}

func runScheduleCreate(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *scheduleCreateOptions, args []string) error {
	namespace, err := currentNamespace(config)
	if err != nil {
		return err
	}
	r, err := o.request(env, cmd.Flags(), namespace, args)
	if err != nil {
		return usageError(cmd, err)
	}
	objects, err := schedule.Manifests(r)
	if err != nil {
		return usageError(cmd, err)
	}
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	if o.dryRun != "client" {
		cluster, err := env.Connect(config)
		if err != nil {
			return err
		}
		done := func(u *unstructured.Unstructured) {
			if printer == nil {
				o.printName(env, u)
			}
		}
		if err := schedule.Create(cmd.Context(), cluster, objects, o.dryRun == "server", done); err != nil {
			return err
		}
	}
	switch {
	case printer == nil && o.dryRun == "client":
		for _, u := range objects {
			o.printName(env, u)
		}
	case printer != nil && o.output.format == "yaml":
		for _, u := range objects {
			if err := printer.PrintObj(u, env.Out); err != nil {
				return err
			}
		}
	case printer != nil:
		return printList(env.Out, printer, objects)
	}
	return nil
}

// manifestList is what -o json prints: a List that kubectl apply takes.
type manifestList struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

func printList(w io.Writer, printer printers.ResourcePrinter, objects []*unstructured.Unstructured) error {
	list := manifestList{APIVersion: "v1", Kind: "List"}
	for _, u := range objects {
		text, err := json.Marshal(u)
		if err != nil {
			return fmt.Errorf("write manifest of %s: %w", u.GetName(), err)
		}
		list.Items = append(list.Items, text)
	}
	return printDocument(w, printer, list)
}

func (o *scheduleCreateOptions) printName(env *Env, u *unstructured.Unstructured) {
	said := map[string]string{"none": " created", "client": " created (dry run)", "server": " created (server dry run)"}[o.dryRun]
	if o.output.format == "name" {
		said = ""
	}
	fmt.Fprintln(env.Out, kubectlName(u)+said)
}

// kubectlName is an object as kubectl names it: cronjob.batch/nightly.
func kubectlName(u *unstructured.Unstructured) string {
	kind := strings.ToLower(u.GetKind())
	if group := u.GroupVersionKind().Group; group != "" {
		kind += "." + group
	}
	return kind + "/" + u.GetName()
}
