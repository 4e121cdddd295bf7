package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

type pruneOptions struct {
	scopeFlags
	progressFlags
	lockFlags
	copies                    pruneCopyFlags
	keep, timezone, maxDelete string
	labelPrefix               string
	unmark, dryRun, orphans   string
	backupNamespace           string
	grace, timeout            time.Duration
	minKeep, parallel         int
	markOnly, sweepOnly       bool
	now, exitCode, yes        bool
	output                    *output
}

const pruneLong = `
	Remove the restore points that no period keeps and whose time has come, in two steps: what is condemned is marked, with
	a date in label backsnap.sh/delete-after, and swept by a later prune once that has passed. Until then kubectl label
	saves it: the labels are the truth. A date that a person or --retain has set has no second grace.

	The plan is a table with a reason in every row. Restore points are judged whole, for each app by itself; annotation
	backsnap.sh/keep of a claim, else of its namespace, goes before --keep. The newest good one of every claim stays
	whatever else holds. What has changed since it was listed, and what a clone, a mover or a restore works with, is left.

	A snapshot is swept with its data: where the content's deletion policy is Retain, it is made Delete first, and that is
	said. prune then waits until the storage has let go, and tells what it keeps.

	What runs that died have left is removed too: clones, static copies, finished movers, leases, volumes that a restore
	was handing over. The copies in repositories are judged by the same policy, or --keep-copies.

	--orphans lists what has lost the object that it belongs to, whatever its labels say: contents whose snapshot is gone, as
	the deletion policy Retain leaves them, which kubectl backsnap adopt gives a snapshot again; and snapshots whose claim is
	gone. With --orphans=sweep they are removed, but for what is pinned or in use, and the newest good one of each claim.`

const pruneExample = `
	# See what would be marked and removed in a namespace, and why
	kubectl backsnap prune -n shop --dry-run

	# From a CronJob, for the whole cluster
	kubectl backsnap prune -A --keep daily=7,weekly=4,monthly=12 --yes --progress=plain

	# Save what prune has marked
	kubectl backsnap prune --unmark run/20261121-011500-p9aa -n shop

	# See what has lost its claim or its snapshot
	kubectl backsnap prune -n shop --orphans

	# See what would go with one restore point; without --dry-run it goes at once, after its name was typed
	kubectl backsnap prune run/20261121-011500-p9aa -n shop --now --dry-run`

func newPrune(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &pruneOptions{}
	cmd := &cobra.Command{
		Use:     "prune [TYPE/NAME | CLAIM | vs/NAME | run/ID | -l SELECTOR | -A]",
		Short:   "Mark the restore points that no period keeps and sweep those whose time has come",
		Long:    templates.LongDesc(pruneLong),
		Example: templates.Examples(pruneExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runPrune(cmd, env, config, o, args) },
	}
	o.addSnapshots(cmd)
	o.add(cmd)
	return withEnvironment(env, cmd)
}

func (o *pruneOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.keep, "keep", "daily=7,weekly=4,monthly=12", "How many of the newest hourly, daily, weekly, monthly, yearly keys keep theirs; annotation "+catalog.AnnotationKeep+" goes before it")
	f.DurationVar(&o.grace, "grace", 24*time.Hour, "Time from mark to sweep; 0, which sweeps at once, only with --yes")
	f.IntVar(&o.minKeep, "min-keep", 1, "The newest good restore points of each claim that stay whatever else holds")
	f.StringVar(&o.maxDelete, "max-delete", "25%", "The most that are removed, and that are marked, in one run: a share of all or a number")
	f.BoolVar(&o.markOnly, "mark-only", false, "Sweep nothing")
	f.BoolVar(&o.sweepOnly, "sweep-only", false, "Mark nothing, and take no mark off")
	f.StringVar(&o.unmark, "unmark", "", "Pin that restore point, `vs/NAME` or run/ID, and take prune's mark off it; nothing else is done")
	f.BoolVar(&o.now, "now", false, "Remove the one that is named, vs/NAME or run/ID, whatever keeps it")
	f.StringVar(&o.orphans, "orphans", "", "list, or no value: contents without a snapshot and snapshots without a claim, nothing is touched; sweep: remove them, and judge nothing else")
	f.Lookup("orphans").NoOptDefVal = orphansList
	f.StringVar(&o.timezone, "timezone", "", "Where days begin; default: each restore point's own, from its record")
	f.StringVar(&o.labelPrefix, "label-prefix", "", catalog.BackupNS+": judge what backup-ns looks after too, by its own labels")
	f.IntVar(&o.parallel, "parallel", prune.DefaultParallel, "Snapshots that the storage has to let go of at once")
	f.DurationVar(&o.timeout, "timeout", prune.DefaultTimeout, "The longest to wait until the storage has let go of one snapshot")
	f.StringVar(&o.dryRun, "dry-run", "none", "none; client, or no value: print the plan and touch nothing; server: let the server check the deletions too")
	f.Lookup("dry-run").NoOptDefVal = "client"
	f.BoolVar(&o.exitCode, "exit-code", false, "With --dry-run: exit with 7 if something would be removed")
	f.BoolVarP(&o.yes, "yes", "y", false, "Do not ask before anything is removed")
	addBackupNamespace(cmd, &o.backupNamespace)
	o.copies.add(f)
	o.progressFlags.add(f)
	o.lockFlags.add(f)
	o.output = addOutput(cmd)
}

// check refuses values that make no sense.
func (o *pruneOptions) check(args []string) error {
	switch {
	case o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server":
		return fmt.Errorf("dry-run %q: want none, client or server", o.dryRun)
	case o.labelPrefix != "" && o.labelPrefix != catalog.BackupNS:
		return fmt.Errorf("label-prefix %q: want %s", o.labelPrefix, catalog.BackupNS)
	case o.exitCode && o.dryRun == "none":
		return errors.New("--exit-code is for --dry-run")
	case o.markOnly && o.sweepOnly:
		return errors.New("--mark-only and --sweep-only: want one of them")
	case o.grace < 0:
		return errors.New("--grace must not be negative")
	case o.grace == 0 && !o.yes && o.dryRun == "none":
		return errors.New("--grace=0 sweeps what nobody has had time to look at: only with --yes")
	case o.minKeep < 0:
		return errors.New("--min-keep must not be negative")
	case o.parallel < 1:
		return fmt.Errorf("parallel %d: want at least 1", o.parallel)
	case o.timeout < time.Second:
		return errors.New("--timeout: want at least 1s")
	case o.unmark != "" && (o.now || o.markOnly || o.sweepOnly || len(args) > 0):
		return errors.New("--unmark names what is saved, and goes together with nothing else")
	case o.now && (o.markOnly || o.sweepOnly || o.all || len(args) != 1):
		return errors.New("--now removes the one restore point that is named: want vs/NAME or run/ID")
	}
	o.copies.backupNamespace = o.backupNamespace
	return cmp.Or(o.checkOrphans(), o.lockFlags.check(), o.copies.check())
}

// pruning is one `prune` from its command line to its exit code.
type pruning struct {
	env      *Env
	config   *genericclioptions.ConfigFlags
	options  *pruneOptions
	cluster  Cluster
	progress progress
	printer  printers.ResourcePrinter

	request prune.Request
	what    string // that --now or --unmark names
	note    string // about the time zone
	plan    prune.Plan
	copies  *copyPruning
	left    leavings
	last    bool // --now takes the last good one
	started time.Time
}

func runPrune(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *pruneOptions, args []string) error {
	run, namespace, err := begin(env, config)
	if err != nil {
		return err
	}
	p := &pruning{env: env, config: config, options: o, started: env.Now()}
	if err := p.read(run, namespace, args); err != nil {
		return usageError(cmd, err)
	}
	if o.orphans != "" {
		return p.runOrphans(cmd.Context())
	}
	doc, err := p.do(cmd.Context())
	p.progress.Close()
	return p.conclude(doc, err)
}

// read reads the command line; nothing is asked of the cluster.
func (p *pruning) read(run catalog.Run, namespace string, args []string) (err error) {
	o := p.options
	if err := o.check(args); err != nil {
		return err
	}
	if o.unmark != "" {
		args = []string{runOrTarget(o.unmark)}
	}
	chosen, err := o.choose(args, namespace)
	if err != nil {
		return err
	}
	if p.what, err = o.named(chosen); err != nil {
		return err
	}
	p.request = prune.Request{
		Run: run, Scope: chosen.scope, Grace: o.grace, MinKeep: max(o.minKeep, 1), MarkOnly: o.markOnly, SweepOnly: o.sweepOnly,
		BackupNS: o.labelPrefix != "",
		Now:      p.started, Parallel: o.parallel, Timeout: o.timeout,
	}
	p.request.Scope.BackupNamespace = o.backupNamespace
	if len(chosen.targets)+len(chosen.exclude) > 0 || !chosen.labels.Empty() || !chosen.fields.Empty() {
		p.request.Selects = chosen.snapshot
	}
	if p.request.Policy, err = retention.ParsePolicy(o.keep); err != nil {
		return err
	}
	if p.request.Limit, err = prune.ParseLimit(o.maxDelete); err != nil {
		return err
	}
	if p.request.Local, p.note, err = zone(o.timezone, p.env.Getenv, localtime); err != nil {
		return err
	}
	if o.timezone != "" {
		p.request.Zone = p.request.Local
	}
	if p.printer, err = o.output.printer(); err != nil {
		return err
	}
	p.progress, err = o.show(p.env)
	p.copies = &copyPruning{env: p.env, flags: &o.copies, watcher: p.progress, request: p.request, atOnce: o.now}
	return err
}

// runOrTarget takes a run's id for what it is.
func runOrTarget(text string) string {
	if _, err := catalog.ParseRun(text); err == nil {
		return kindRun + "/" + text
	}
	if !strings.Contains(text, "/") {
		return kindSnapshot + "/" + text
	}
	return text
}

// named is the one restore point that --now and --unmark are about; "" for
// neither.
func (o *pruneOptions) named(chosen selection) (string, error) {
	if !o.now && o.unmark == "" {
		return "", nil
	}
	if len(chosen.targets) != 1 || chosen.targets[0].Kind != kindSnapshot && chosen.targets[0].Kind != kindRun {
		return "", errors.New("--now and --unmark are about one restore point: want vs/NAME or run/ID")
	}
	return chosen.targets[0].String(), nil
}

func (p *pruning) dry() bool { return p.options.dryRun != "none" }

// do plans, and unless that is all that was asked for, runs. An error says
// that nothing was done.
func (p *pruning) do(ctx context.Context) (doc pruneDoc, err error) {
	if p.cluster, err = p.env.Connect(p.config); err != nil {
		return doc, err
	}
	if err := p.makePlan(ctx); err != nil {
		p.printRefused()
		return doc, err
	}
	if err := p.findLeft(ctx); err != nil {
		return doc, err
	}
	if p.dry() {
		return p.planned(), p.try(ctx)
	}
	if p.progress.text() {
		p.printPlan(p.env.Err)
	}
	if p.plan.Empty() && p.copies.idle() && p.left.none() {
		return p.document(prune.Result{}, nil), nil
	}
	if err := p.checkRights(ctx); err != nil {
		return doc, err
	}
	if err := p.confirm(ctx); err != nil {
		return doc, err
	}
	return p.run(ctx)
}

func (p *pruning) makePlan(ctx context.Context) (err error) {
	switch {
	case p.options.unmark != "":
		p.plan, err = prune.MakeUnmarkPlan(ctx, p.cluster, p.request, p.what)
	case p.options.now:
		p.plan, p.last, err = prune.MakeNowPlan(ctx, p.cluster, p.request, p.what)
	default:
		p.plan, err = prune.MakePlan(ctx, p.cluster, p.request)
	}
	if p.options.unmark != "" || err != nil && catalog.CodeOf(err) != catalog.CodeNotFound {
		return err
	}
	p.copies.cluster = p.cluster
	if planErr := p.copies.plan(ctx, p.plan.Rows); planErr != nil || err == nil {
		return planErr
	}
	if p.options.now && !p.copies.idle() { // its snapshots are gone, and copies of it are not
		return nil
	}
	return err
}

// try has the server check the deletions, where that was asked for.
func (p *pruning) try(ctx context.Context) error {
	if p.options.dryRun != "server" {
		return nil
	}
	for _, row := range p.plan.Doing(retention.Sweep) {
		for _, s := range row.Snapshots {
			if err := p.cluster.TryRemove(ctx, catalog.Object{Kind: catalog.KindSnapshot, Namespace: s.Namespace, Name: s.Name}); err != nil {
				return refused(err, fmt.Sprintf("%s/%s not pruned: the server would refuse to delete it", s.Namespace, s.Name))
			}
		}
	}
	return nil
}

// checkRights wants what the run needs.
func (p *pruning) checkRights(ctx context.Context) error {
	return permitted(ctx, p.cluster, append(p.plan.Rights(), p.copies.rights()...), "")
}

// confirm wants somebody to say that things may be removed. Marks alone remove
// nothing.
func (p *pruning) confirm(ctx context.Context) error {
	n := len(p.plan.Doing(retention.Sweep))
	sets, copies := p.copies.sweeps()
	if n+sets == 0 {
		return nil
	}
	command := p.command()
	if !p.options.yes && !p.progress.text() {
		p.printPlan(p.env.Err)
	}
	if p.options.now {
		if p.last && p.options.yes && p.options.minKeep > 0 {
			return prune.ErrLast(p.what)
		}
		_, name, _ := strings.Cut(p.what, "/")
		return confirmName(ctx, p.env, p.options.yes, "restore point", name, command)
	}
	return confirm(ctx, p.env, p.options.yes, removing(n, sets, copies), command)
}

// command is what was asked for, as far as it matters to somebody who asks
// again.
func (p *pruning) command() string {
	text := "kubectl backsnap prune"
	if p.options.now {
		text += " " + p.what + " --now"
	}
	return text + whereFlags(p.request.Scope)
}

// run does what was planned.
func (p *pruning) run(ctx context.Context) (pruneDoc, error) {
	held, release, err := p.env.Lock(ctx, p.cluster, p.options.lock(p.request.Run, p.plan.Namespaces()))
	if err != nil {
		return pruneDoc{}, err
	}
	p.sweepLeft(held)
	result, err := prune.Run(held, p.cluster, p.env.Now, p.plan, p.progress)
	p.copies.run(held)
	if err = errors.Join(err, release()); err != nil && len(result.Items)+len(p.copies.plans) == 0 {
		return pruneDoc{}, err
	}
	return p.document(result, err), nil
}

// conclude writes the result and what is left to say, and turns the run into
// its exit code.
func (p *pruning) conclude(doc pruneDoc, err error) error {
	if doc.Kind == "" {
		doc = p.newDocument()
		doc.failures = split(err)
		doc.ExitCode = exitCode(errors.Join(err))
		doc.Result = "Failed"
		doc.blame(err)
	} else if err != nil { // the server would refuse it
		doc.failures = append(doc.failures, split(err)...)
		doc.ExitCode = exitOf(false, doc.failures)
	}
	if err := p.print(doc); err != nil {
		return err
	}
	if !p.dry() && err == nil {
		p.progress.Result(p.env.Now(), doc.ending())
		p.printNext(doc)
	}
	return p.env.end(doc.failures, doc.ExitCode)
}

// printNext says how what was marked is saved.
func (p *pruning) printNext(doc pruneDoc) {
	i := slices.IndexFunc(doc.Items, func(item pruneItem) bool { return item.marked() })
	if i >= 0 {
		p.progress.Note(fmt.Sprintf("Undo a mark: kubectl backsnap prune --unmark %s -n %s", doc.Items[i].Set, doc.Items[i].Namespace))
	}
}
