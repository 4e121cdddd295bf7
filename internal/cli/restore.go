package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// restoreOptions are the flags of `restore`.
type restoreOptions struct {
	progressFlags
	podFlags
	lockWait
	lockFlags
	filesFlags
	swapFlags
	refillFlags
	loadFlags
	at, from, cluster                      string
	toPVC, toNamespace, storageClass, size string
	backupNamespace, dryRun                string
	parallel                               int
	timeout, deadline                      time.Duration
	output                                 *output
}

const restoreLong = `
	Restore a set into new claims. Nothing of the app is touched: the new claims stand beside the old ones.

	The newest complete set at or before --at is taken, and printed before anything is made; never another one instead.
	A bare name is a claim; a workload means all claims of its sets; vs/NAME is one VolumeSnapshot, run/ID all sets of a run.
	With --from auto each claim comes from its snapshot, and from a copy where the snapshot is not usable.

	--to-dir and --dump-to bring files, or the dumps of databases, to this machine, and make no claim: a short-lived one is read from
	and removed. What has come is compared with what was sent, by size and SHA-256, and dumps with what was recorded when they
	were made; only then it gets its name. Of several volumes each has a folder of its own, named after the claim.

	Where no set on record in the cluster will do, the repositories are asked: a Job lists each, which takes some seconds;
	also for --dry-run, which makes nothing else. So a snapshot, a namespace or a cluster that is lost comes back from its
	copies alone. For copies of a whole namespace they are always asked, and with --from-cluster they alone: it names the
	cluster that made the copies.

	namespace/NAME restores the newest set of every app. Claims get their own names where none of their set is there. A
	namespace that does not exist any more is made; one that --to-namespace names for single claims has to be there.

	With --in-place the app's own data is replaced: new volumes are filled and checked while it runs, then it is scaled
	to 0, the volumes behind its claims are exchanged, and it is scaled back. The old volumes are kept until --commit,
	which is refused for a day (--grace), and --rollback exchanges them again. Whatever it was ended by, the same command finishes it.

	With --into-claim a copy is restored into the file system that the app's claim has, for volumes that cannot be exchanged: the
	app is scaled to 0, a snapshot of the claim is taken, what differs from the copy is written and what is not in it removed, and
	the app is scaled back. The mover runs in the app's own namespace, with a repository there (--in-namespace). While the claim is
	neither what it was nor the copy, it says so and the app stays at 0: the same command finishes it, --rollback goes back.

	--load makes no claim: it loads the set's dump of its databases into the server that runs, into all of them or one (--database). For
	PostgreSQL all of a database or nothing of it is loaded; MySQL and MariaDB keep what came before a statement that fails, and it is said
	which database is partial. --database NAME is a database of the dump, which is replaced, or, with any other name, a new one; where the
	dump has several, FROM=NAME says which. The dump is taken from the volume itself if it lies there still, else from snapshot or copy,
	and then needs room in this machine's folder for temporary files. It is proven by its SHA-256 first.

	Inspect a restored volume: mount the new claim in a pod of your own, or look into it with a pod of busybox.`

const restoreExample = `
	# The newest set of a StatefulSet, into claims beside its own
	kubectl backsnap restore statefulset/mysql -n shop

	# One claim as it was at eleven at night, into another namespace
	kubectl backsnap restore data-mysql-0 -n shop --at 2026-11-21T23:00 --to-namespace scratch

	# A folder and a file of a volume, to this machine
	kubectl backsnap restore data-mysql-0 -n shop --file conf.d,ibdata1 --to-dir ./found

	# The dumps of the newest set, to this machine
	kubectl backsnap restore statefulset/mysql -n shop --dump-to ./dumps/

	# The dump, into the server that runs: over what is there, and into a database beside it
	kubectl backsnap restore statefulset/mysql -n shop --load --yes
	kubectl backsnap restore statefulset/mysql -n shop --load --database shop=shop_monday --at 2026-11-21T23:00

	# From the off-site copy, and only show what would be made
	kubectl backsnap restore statefulset/mysql -n shop --from copy --dry-run=client

	# A namespace that is lost with everything in it
	kubectl backsnap restore namespace/shop --from copy

	# Replace the app's own data; then keep that, or undo it
	kubectl backsnap restore statefulset/mysql -n shop --at latest --in-place --yes
	kubectl backsnap restore --commit 20261121-091600-b2c1 -n shop --yes
	kubectl backsnap restore --rollback 20261121-091600-b2c1 -n shop --yes

	# A copy, into the file system of a claim that has to stay
	kubectl backsnap restore statefulset/mysql -n shop --into-claim --in-namespace --yes`

func newRestore(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &restoreOptions{at: "latest", from: string(restore.Auto), dryRun: "none", parallel: restore.DefaultParallel, timeout: restore.DefaultTimeout, deadline: restore.DefaultDeadline}
	cmd := &cobra.Command{
		Use:     "restore (CLAIM | TYPE/NAME | vs/NAME | run/ID | namespace/NAME)",
		Short:   "Restore volumes into new claims, from a snapshot or a copy",
		Long:    templates.LongDesc(restoreLong),
		Example: templates.Examples(restoreExample),
		Args:    o.swapFlags.source(oneSource),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.intoClaim {
				return runRefill(cmd, env, config, o, args[0])
			}
			if o.swaps() {
				return runSwap(cmd, env, config, o, args)
			}
			return runRestore(cmd, env, config, o, args[0])
		},
	}
	o.addFlags(cmd)
	o.swapFlags.add(cmd.Flags())
	o.refillFlags.add(cmd.Flags())
	return withEnvironment(env, cmd)
}

// oneSource wants one argument; without one it shows how it is done.
func oneSource(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	if len(args) > 1 {
		return usageError(cmd, fmt.Errorf("%d arguments: want one claim, workload, snapshot or run; -n names the namespace", len(args)))
	}
	return &catalog.Failure{
		Code: catalog.CodeNoSource, Message: "restore: nothing says what", State: "nothing changed",
		Next: "kubectl backsnap restore CLAIM, or restore statefulset/NAME, or restore run/ID; kubectl backsnap list shows what there is",
	}
}

func (o *restoreOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.at, "at", o.at, "The newest set at or before it: latest, a time such as 2026-11-21T23:00 (local unless it names a zone), or an age such as 36h or 2d")
	f.StringVar(&o.from, "from", o.from, "auto: the snapshot, or a copy where that is not usable; snapshot; copy; or copy:`REPOSITORY`")
	f.StringVar(&o.cluster, "from-cluster", "", "Restore what the cluster of that name has copied; kubectl backsnap list shows which names there are")
	f.StringVar(&o.toPVC, "to-pvc", "", "Name of the new claim; default: <claim>-restored-<time of the run>, of a whole namespace the claim's own")
	f.StringVar(&o.toNamespace, "to-namespace", "", "Namespace of the new claims; default: that of the source")
	f.StringVar(&o.storageClass, "storage-class", "", "StorageClass of the new claims; default: that of the source")
	f.StringVar(&o.size, "size", "", "Size of the new claims; default: what the source had asked for, or the snapshot needs")
	o.filesFlags.add(f)
	addBackupNamespace(cmd, &o.backupNamespace)
	o.progressFlags.add(f)
	o.podFlags.add(f)
	o.lockWait.add(f)
	f.DurationVar(&o.deadline, "mover-deadline", o.deadline, "The longest that restic may take for one claim")
	f.DurationVar(&o.timeout, "timeout", o.timeout, "The longest to wait until a volume is made; a copy takes as long as it takes")
	f.IntVar(&o.parallel, "parallel", o.parallel, "Claims at once")
	o.lockFlags.add(f)
	o.loadFlags.add(f)
	f.StringVar(&o.dryRun, "dry-run", o.dryRun, "none; client: print the plan and touch nothing; server: let the server check too what would be made, and store nothing")
	o.output = addOutput(cmd)
}

// request turns the flags into what the verb wants.
func (o *restoreOptions) request(env *Env, run catalog.Run, target restore.Target) (r restore.Request, err error) {
	r = restore.Request{
		Run: run, Target: target, Cluster: o.cluster, ToNamespace: o.toNamespace, ToClaim: o.toPVC, StorageClass: o.storageClass,
		BackupNamespace: o.backupNamespace, Image: o.image, Parallel: o.parallel, Deadline: o.deadline, Timeout: o.timeout, RetryLock: o.retryLock,
	}
	if r.From, err = restore.ParseFrom(o.from); err != nil {
		return r, err
	}
	zone, _, err := zone("", env.Getenv, localtime)
	if err != nil {
		return r, err
	}
	if r.At, err = restore.ParseAt(o.at, env.Now(), zone); err != nil {
		return r, err
	}
	if r.AtText = "any time"; !r.At.IsZero() {
		r.AtText = r.At.In(zone).Format(time.RFC3339)
	}
	if r.Size, err = readSize(o.size); err != nil {
		return r, err
	}
	err = cmp.Or(o.wantFiles(env, &r), o.check(target))
	r.Pod = o.pod
	return r, err
}

// readSize reads a quantity of bytes; 0 for "".
func readSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	size, err := resource.ParseQuantity(text)
	if err != nil || size.Sign() <= 0 {
		return 0, fmt.Errorf("size %q: want a size such as 10Gi", text)
	}
	return size.Value(), nil
}

// check refuses values that make no sense.
func (o *restoreOptions) check(target restore.Target) error {
	switch {
	case o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server":
		return fmt.Errorf("dry-run %q: want none, client or server", o.dryRun)
	case o.parallel < 1:
		return fmt.Errorf("parallel %d: want at least 1", o.parallel)
	case o.timeout < time.Second || o.deadline < time.Second:
		return errors.New("--timeout and --mover-deadline: want at least 1s")
	case o.at != "latest" && (target.Kind == "vs" || target.Kind == "run"):
		return fmt.Errorf("--at together with %s, which is of one time: want one or the other", target)
	case o.cluster != "" && o.from == string(restore.Snapshot):
		return errors.New("--from-cluster together with --from snapshot: of another cluster there are copies only")
	}
	if err := cmp.Or(o.lockFlags.check(), o.podFlags.check(), o.lockWait.check(), o.wantLoad()); err != nil {
		return err
	}
	for flag, name := range map[string]string{"to-pvc": o.toPVC, "to-namespace": o.toNamespace, "storage-class": o.storageClass} {
		if problems := validation.IsDNS1123Subdomain(name); name != "" && len(problems) > 0 {
			return fmt.Errorf("%s %q: %s", flag, name, problems[0])
		}
	}
	return nil
}

// readSource reads what is to be restored.
func readSource(arg, namespace string) (restore.Target, error) {
	grammar := scopeFlags{ofSnapshots: true}
	found, err := grammar.readTargets([]string{arg}, namespace)
	if err != nil {
		return restore.Target{}, err
	}
	return restore.Target{Namespace: found[0].Namespace, Kind: found[0].Kind, Name: found[0].Name}, nil
}

// restoring is one `restore` from its command line to its exit code.
type restoring struct {
	env      *Env
	config   *genericclioptions.ConfigFlags
	options  *restoreOptions
	cluster  Cluster
	progress progress
	printer  printers.ResourcePrinter
	request  restore.Request
	plan     restore.Plan
	made     bool // the namespace
	started  time.Time
}

func runRestore(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *restoreOptions, source string) error {
	run, namespace, err := begin(env, config)
	if err != nil {
		return err
	}
	r := &restoring{env: env, config: config, options: o, started: env.Now()}
	if err := r.read(run, source, namespace); err != nil {
		return usageError(cmd, err)
	}
	if r.request.Local != nil {
		return r.bring(cmd.Context())
	}
	if o.load {
		return r.load(cmd.Context())
	}
	doc, err := r.do(cmd.Context())
	if err != nil {
		return r.fail(unbegun(err))
	}
	return r.conclude(doc)
}

// read reads the command line; nothing is asked of the cluster.
func (r *restoring) read(run catalog.Run, source, namespace string) error {
	target, err := readSource(source, namespace)
	if err != nil {
		return err
	}
	if err := r.options.beside(namespace); err != nil {
		return err
	}
	if r.request, err = r.options.request(r.env, run, target); err != nil {
		return err
	}
	if r.printer, err = r.options.output.printer(); err != nil {
		return err
	}
	r.request.List = r.list
	r.progress, err = r.options.show(r.env)
	return err
}

// do plans, and unless that is all that was asked for, runs. An error says
// that nothing was done.
func (r *restoring) do(ctx context.Context) (doc restoreDoc, err error) {
	if r.cluster, err = r.env.Connect(r.config); err != nil {
		return doc, err
	}
	if r.plan, err = restore.MakePlan(ctx, r.cluster, r.request); err != nil {
		return doc, err
	}
	if r.dry() {
		return r.tried(ctx)
	}
	held, release, err := r.hold(ctx, r.plan.ToNamespace, r.printPlan, r.check, r.prepare)
	if err != nil {
		return doc, err
	}
	defer r.progress.Close()
	swept := r.sweep(held)
	outcomes, err := restore.Run(held, r.cluster, r.follow, r.env.Now, r.plan, r.progress)
	swept()
	return r.document(outcomes, errors.Join(err, release())), nil
}

// hold shows the plan, does what has to be done before anything is touched, such
// as asking for rights or a person, and then holds the namespace.
func (r *restoring) hold(ctx context.Context, namespace string, show func(io.Writer), before ...func(context.Context) error) (context.Context, func() error, error) {
	if r.progress.text() {
		show(r.env.Err)
	}
	for _, do := range before {
		if err := do(ctx); err != nil {
			return nil, nil, err
		}
	}
	return r.env.Lock(ctx, r.cluster, r.options.lock(r.request.Run, []string{namespace}))
}

// check asks for all rights that the plan needs.
func (r *restoring) check(ctx context.Context) error { return restore.Check(ctx, r.cluster, r.plan) }

// sweep begins to remove what earlier runs have left where this one works, and
// returns how to wait until that is over.
func (r *restoring) sweep(ctx context.Context) (wait func()) {
	s := r.sweeper(func(v restore.Volume) bool { return v.Way == restore.Fill })
	return s.start(ctx, func(ctx context.Context) error {
		restore.Sweep(ctx, r.cluster, r.env.Now, r.plan, r.progress)
		return s.copies(ctx)
	})
}

// sweeper removes where movers work on those volumes.
func (r *restoring) sweeper(on func(restore.Volume) bool) *sweeper {
	s := &sweeper{cluster: r.cluster, now: r.env.Now, watcher: r.progress, run: r.request.Run, namespaces: []string{r.plan.ToNamespace}}
	for _, v := range r.plan.Volumes {
		if place := r.plan.Place(v); on(v) && !slices.Contains(s.places, place) {
			s.places = append(s.places, place)
		}
	}
	return s
}

// follow is how movers are followed.
func (r *restoring) follow(ctx context.Context, namespace, name, claim string, tell func(catalog.Event)) (restic.End, error) {
	return offsite.Attend(ctx, r.cluster, namespace, name, claim, tell)
}

// dry reports whether the plan is all that was asked for.
func (r *restoring) dry() bool { return r.options.dryRun != "none" }

// fail writes err as the result too, where the result is for a script.
func (r *restoring) fail(err error) error {
	if r.printer == nil {
		return err
	}
	doc := r.newDocument()
	doc.Result, doc.ExitCode = "Failed", exitCode(err)
	doc.blame(err)
	return errors.Join(err, printDocument(r.env.Out, r.printer, doc))
}

// conclude writes the result and what is left to say, and turns the run into
// its exit code.
func (r *restoring) conclude(doc restoreDoc) error {
	if err := r.printResult(doc); err != nil {
		return err
	}
	if !r.dry() {
		r.progress.Result(r.env.Now(), doc.ending())
	}
	return r.env.end(doc.failures, doc.ExitCode)
}

func (r *restoring) printResult(doc restoreDoc) error {
	switch {
	case r.printer != nil:
		return printDocument(r.env.Out, r.printer, doc)
	case r.options.output.format == "name":
		return doc.printNames(r.env.Out)
	case r.dry():
		r.printPlan(r.env.Out)
		return nil
	}
	return doc.printSentences(r.env.Out, slices.ContainsFunc(doc.Items, func(i restoreItem) bool { return i.Namespace != r.request.Target.Namespace }))
}
