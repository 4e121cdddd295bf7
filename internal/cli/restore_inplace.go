package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// swapFlags are those of restores in place.
type swapFlags struct {
	inPlace, ignoreController, yes bool
	rollback, commit               string
	appTimeout, grace              time.Duration
}

func (o *swapFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&o.inPlace, "in-place", false, "Replace the data of the app itself; its volumes are kept until --commit")
	f.StringVar(&o.rollback, "rollback", "", "Give the app the volumes again that it had before that `RUN`")
	f.StringVar(&o.commit, "commit", "", "Remove the volumes that are kept of that `RUN`")
	f.BoolVar(&o.ignoreController, "ignore-controller", false, "In place: go on although an autoscaler, GitOps or an operator manages the app")
	f.DurationVar(&o.appTimeout, "app-timeout", restore.DefaultAppTimeout, "In place: the longest to wait until the app has stopped, and until it is ready again")
	f.DurationVar(&o.grace, "grace", restore.DefaultGrace, "In place: how long --commit leaves the replaced volumes alone, from when they were replaced; with --commit only 0: it does not wait for that")
	f.BoolVarP(&o.yes, "yes", "y", false, "Do not ask before anything that is there is replaced")
}

// swaps reports whether this is about a restore in place.
func (o *swapFlags) swaps() bool { return o.inPlace || o.rollback != "" || o.commit != "" }

// source wants what otherwise does, but nothing beside --rollback and --commit.
func (o *swapFlags) source(otherwise cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if o.rollback == "" && o.commit == "" {
			return otherwise(cmd, args)
		}
		if len(args) > 0 {
			return usageError(cmd, fmt.Errorf("unknown argument %q: --rollback and --commit name a run, which says what it has restored", args[0]))
		}
		return nil
	}
}

// checkSwap refuses flags that go together with no restore in place.
func (o *restoreOptions) checkSwap(changed func(string) bool) error {
	if asked := len(slices.DeleteFunc([]bool{o.inPlace, o.rollback != "", o.commit != ""}, func(asked bool) bool { return !asked })); asked > 1 {
		return errors.New("--in-place, --rollback and --commit: want one of them")
	}
	for _, flag := range []string{"to-pvc", "to-namespace", "storage-class", "size"} {
		if changed(flag) {
			return fmt.Errorf("--%s says how a new claim is made: not together with --in-place, --rollback or --commit", flag)
		}
	}
	for _, flag := range []string{"file", "to-dir", "dump-to", "dump"} {
		if changed(flag) {
			return fmt.Errorf("--%s is for some files of a volume: not together with --in-place, --rollback or --commit", flag)
		}
	}
	for _, flag := range []string{"load", "into", "database", "load-timeout"} {
		if changed(flag) {
			return fmt.Errorf("--%s is for a dump that is loaded: not together with --in-place, --rollback or --commit", flag)
		}
	}
	for _, flag := range []string{"at", "from", "from-cluster", "dry-run"} {
		if !o.inPlace && changed(flag) {
			return fmt.Errorf("--%s is not for --rollback and --commit", flag)
		}
	}
	switch {
	case o.appTimeout < time.Second:
		return errors.New("--app-timeout: want at least 1s")
	case o.grace < 0:
		return errors.New("--grace must not be negative")
	case o.commit != "" && changed("grace") && o.grace > 0:
		return errors.New("--grace with --commit: when the volumes may go was fixed when they were replaced; 0 removes them at once")
	}
	return nil
}

// terms are those of a restore in place.
func (o *swapFlags) terms() restore.Terms {
	return restore.Terms{AppTimeout: o.appTimeout, Grace: o.grace}
}

// swapping is one restore in place, rollback or commit, from its command line
// to its exit code.
type swapping struct {
	restoring
	action    string // restore, rollback, commit
	run       catalog.Run
	namespace string
	plan      restore.SwapPlan // of a restore that begins
	command   string           // what was asked for
}

// The actions.
const (
	actionRestore  = "restore"
	actionRollback = "rollback"
	actionCommit   = "commit"
)

func runSwap(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *restoreOptions, args []string) error {
	own, namespace, err := begin(env, config)
	if err != nil {
		return err
	}
	s := &swapping{restoring: restoring{env: env, config: config, options: o, started: env.Now()}, action: actionRestore, run: own, namespace: namespace}
	if err := s.readSwap(cmd, own, args); err != nil {
		return usageError(cmd, err)
	}
	doc, err := s.perform(cmd.Context(), own)
	s.progress.Close()
	if err != nil && doc.Kind == "" {
		doc = s.document(restore.SwapResult{})
	}
	return s.end(doc, err)
}

// readSwap reads the command line; nothing is asked of the cluster.
func (s *swapping) readSwap(cmd *cobra.Command, own catalog.Run, args []string) error {
	o := s.options
	if err := o.checkSwap(cmd.Flags().Changed); err != nil {
		return err
	}
	if o.inPlace {
		s.command = fmt.Sprintf("kubectl backsnap restore %s -n %s --in-place", args[0], s.namespace)
		return s.read(own, args[0], s.namespace)
	}
	if len(args) > 0 { // the environment may name the run
		return fmt.Errorf("argument %q: --rollback and --commit name a run, which says what it has restored", args[0])
	}
	s.action = actionRollback
	if o.commit != "" {
		s.action = actionCommit
	}
	var err error
	if s.run, err = catalog.ParseRun(strings.TrimPrefix(cmp.Or(o.rollback, o.commit), "run/")); err != nil {
		return err
	}
	s.command = fmt.Sprintf("kubectl backsnap restore --%s %s -n %s", s.action, s.run, s.namespace)
	if err := o.lockFlags.check(); err != nil {
		return err
	}
	if s.printer, err = o.output.printer(); err != nil {
		return err
	}
	s.progress, err = o.show(s.env)
	return err
}

// perform does what was asked for. An error without a document says that
// nothing was done.
func (s *swapping) perform(ctx context.Context, own catalog.Run) (swapDoc, error) {
	var err error
	if s.cluster, err = s.env.Connect(s.config); err != nil {
		return swapDoc{}, err
	}
	if s.action == actionRollback {
		refill, err := restore.FindRefill(ctx, s.cluster, s.namespace, s.run)
		if err != nil {
			return swapDoc{}, err
		}
		if refill.Found() {
			return s.undoRefill(ctx, own, refill)
		}
	}
	if s.action != actionRestore {
		return s.turnBack(ctx, own)
	}
	begun, err := restore.Unfinished(ctx, s.cluster, s.request.Target)
	if err != nil {
		return swapDoc{}, err
	}
	if begun != nil {
		return s.finish(ctx, own, *begun)
	}
	return s.begin(ctx)
}

// begin is a restore that begins.
func (s *swapping) begin(ctx context.Context) (swapDoc, error) {
	r := restore.SwapRequest{Request: s.request, IgnoreController: s.options.ignoreController, Terms: s.options.terms(), Now: s.env.Now()}
	var err error
	if s.plan, err = restore.MakeSwapPlan(ctx, s.cluster, r); err != nil {
		return swapDoc{}, err
	}
	s.restoring.plan = s.plan.Plan
	if s.dry() {
		return s.plannedSwap(), s.trySwap(ctx)
	}
	held, release, err := s.holdSwap(ctx, s.printWarning)
	if err != nil {
		return swapDoc{}, err
	}
	s.sweep(held)()
	result, err := restore.RunSwap(held, s.cluster, s.follow, s.env.Now, s.plan, s.progress)
	return s.document(result), errors.Join(err, release())
}

// holdSwap is hold of a restore whose plan is made: it asks for its rights, and a
// person, who is warned.
func (s *swapping) holdSwap(ctx context.Context, warn func(io.Writer)) (context.Context, func() error, error) {
	return s.hold(ctx, s.namespace, s.printSwapPlan,
		func(ctx context.Context) error { return restore.CheckSwap(ctx, s.cluster, s.plan) },
		func(ctx context.Context) error { return s.confirm(ctx, s.plan.Apps, warn) })
}

// trySwap asks the server whether it would make the new volumes' claims, where
// that was asked for.
func (s *swapping) trySwap(ctx context.Context) error {
	if s.options.dryRun != "server" {
		return nil
	}
	if err := restore.CheckSwap(ctx, s.cluster, s.plan); err != nil {
		return err
	}
	return s.mayTry(ctx)
}

// confirm wants the name of what is about to be replaced.
func (s *swapping) confirm(ctx context.Context, apps []catalog.App, warn func(io.Writer)) error {
	if !s.options.yes && isTerminal(s.env.In) {
		warn(s.env.Err)
	}
	what, name := "claim", s.request.Target.Name
	if len(apps) > 0 {
		what, name = "workload", apps[0].Name
	}
	return confirmName(ctx, s.env, s.options.yes, what, name, s.command)
}

// lockSwap holds the namespace.
func (s *swapping) lockSwap(ctx context.Context, own catalog.Run) (context.Context, func() error, error) {
	return s.env.Lock(ctx, s.cluster, s.options.lock(own, []string{s.namespace}))
}

// finish ends the restore that a dead run has begun. One that is being rolled
// back is not restored again by the way.
func (s *swapping) finish(ctx context.Context, own catalog.Run, begun restore.Swap) (swapDoc, error) {
	s.run = begun.Run
	if begun.Turn == catalog.Back {
		return swapDoc{}, &catalog.Failure{
			Code: catalog.CodeNotNow, Message: fmt.Sprintf("run %s is being rolled back, and that has not ended", begun.Run), State: "nothing changed",
			Next: fmt.Sprintf("finish it: kubectl backsnap restore --rollback %s -n %s", begun.Run, s.namespace),
		}
	}
	said := fmt.Sprintf("Run %s has begun to restore %s and has not ended", begun.Run, strings.Join(begun.Claims(), ", "))
	if s.dry() {
		doc := s.document(restore.SwapResult{Swap: begun})
		doc.Result, doc.Notes = "DryRun", []string{said}
		for i := range doc.Items {
			doc.Items[i].State = statePlanned
		}
		return doc, nil
	}
	if s.progress.text() {
		fmt.Fprintln(s.env.Err, said+": it is finished now")
	}
	if err := restore.CheckTurn(ctx, s.cluster, begun); err != nil {
		return swapDoc{}, err
	}
	if err := s.confirm(ctx, begun.Apps, func(io.Writer) {}); err != nil {
		return swapDoc{}, err
	}
	return s.held(ctx, own, func(ctx context.Context, swap restore.Swap) (restore.SwapResult, error) {
		return restore.Finish(ctx, s.cluster, s.env.Now, swap, s.options.terms(), s.progress)
	})
}

// held does something to the restore as it stands once the namespace is held.
func (s *swapping) held(ctx context.Context, own catalog.Run, do func(context.Context, restore.Swap) (restore.SwapResult, error)) (swapDoc, error) {
	held, release, err := s.lockSwap(ctx, own)
	if err != nil {
		return swapDoc{}, err
	}
	swap, err := restore.FindSwap(held, s.cluster, s.namespace, s.run)
	if err != nil {
		return swapDoc{}, errors.Join(err, release())
	}
	result, err := do(held, swap)
	return s.document(result), errors.Join(err, release())
}

// turnBack rolls a run back, or commits it.
func (s *swapping) turnBack(ctx context.Context, own catalog.Run) (swapDoc, error) {
	swap, err := restore.FindSwap(ctx, s.cluster, s.namespace, s.run)
	if err != nil {
		return swapDoc{}, err
	}
	possible := swap.CanTurn(catalog.Back)
	if s.action == actionCommit {
		possible = swap.CanCommit(s.env.Now(), s.options.grace == 0)
	}
	if possible != nil {
		return swapDoc{}, possible
	}
	if err := restore.CheckTurn(ctx, s.cluster, swap); err != nil {
		return swapDoc{}, err
	}
	if s.action == actionCommit {
		return s.commit(ctx, own, swap)
	}
	warn := func(w io.Writer) {
		fmt.Fprintf(w, "This gives %s in %s (context %s) the volumes again that it had before run %s.\n", subjects(swap), s.namespace, contextName(s.config), s.run)
		fmt.Fprintln(w, "  what it has written since is no longer served; those volumes are kept until you --commit")
	}
	if len(swap.Apps) == 0 {
		s.request.Target.Name = swap.Pairs[0].Claim
	}
	if err := s.confirm(ctx, swap.Apps, warn); err != nil {
		return swapDoc{}, err
	}
	return s.held(ctx, own, func(ctx context.Context, swap restore.Swap) (restore.SwapResult, error) {
		return restore.RollBack(ctx, s.cluster, s.env.Now, swap, s.options.terms(), s.progress)
	})
}

func (s *swapping) commit(ctx context.Context, own catalog.Run, swap restore.Swap) (swapDoc, error) {
	var names []string
	for _, v := range swap.Kept() {
		names = append(names, v.Name+" of "+v.Of)
	}
	if until, err := swap.KeptUntil(); err == nil && s.env.Now().Before(until) && s.progress.text() {
		fmt.Fprintf(s.env.Err, "They would be kept until %s otherwise\n", until.Format(time.RFC3339))
	}
	question := fmt.Sprintf("Remove for good the volumes that %s no longer uses: %s?", subjects(swap), strings.Join(names, ", "))
	if err := confirm(ctx, s.env, s.options.yes, question, s.command); err != nil {
		return swapDoc{}, err
	}
	return s.held(ctx, own, func(ctx context.Context, swap restore.Swap) (restore.SwapResult, error) {
		err := restore.Commit(ctx, s.cluster, swap, s.env.Now(), s.options.grace == 0, s.options.timeout)
		return restore.SwapResult{Swap: swap, Done: err == nil}, err
	})
}

// subjects are the apps of a swap, or its claims where there is none.
func subjects(swap restore.Swap) string {
	var names []string
	for _, a := range swap.Apps {
		names = append(names, a.String())
	}
	if len(names) == 0 {
		for _, claim := range swap.Claims() {
			names = append(names, "pvc/"+claim)
		}
	}
	return strings.Join(names, ", ")
}

// printWarning says what a person agrees to.
func (s *swapping) printWarning(w io.Writer) {
	p := s.plan
	fmt.Fprintf(w, "This replaces the live data of %s in %s (context %s) with %s.\n", s.request.Target, s.namespace, contextName(s.config), p.Chosen[0].Set.Run)
	fmt.Fprintf(w, "  data written after %s is no longer served (%s)\n", p.Chosen[0].Cut.UTC().Format("2006-01-02 15:04:05 UTC"), duration.HumanDuration(s.started.Sub(p.Chosen[0].Cut)))
	for _, a := range p.Apps {
		fmt.Fprintf(w, "  downtime: %s is scaled %d -> 0 -> %[2]d\n", a, a.Replicas)
	}
	fmt.Fprintln(w, "  old volumes are kept and can be swapped back with --rollback until you --commit")
}

// printSwapPlan writes what was found, and what will be done with it.
func (s *swapping) printSwapPlan(w io.Writer) {
	s.printPlan(w)
	p := s.plan
	for i, v := range p.Volumes {
		fmt.Fprintf(w, "  %s then takes the place of volume %s behind claim %s\n", v.Claim.Name, p.Live[i].Volume, p.Live[i].Name)
	}
	for _, a := range p.Apps {
		fmt.Fprintf(w, "  %s is scaled %d -> 0 -> %[2]d\n", a, a.Replicas)
	}
	for _, shot := range p.Safety {
		fmt.Fprintf(w, "  safety snapshot %s, kept through %s\n", shot.Name, shot.DeleteAfter)
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  note      %s\n", printable(note))
	}
	fmt.Fprintln(w)
}
