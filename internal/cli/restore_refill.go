package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// refillFlags are those of restores into the file systems of claims.
type refillFlags struct{ intoClaim, inNamespace bool }

func (o *refillFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&o.intoClaim, "into-claim", false, "Restore a copy into the file system that the app's claim has, with the app at 0; needs --in-namespace")
	f.BoolVar(&o.inNamespace, "in-namespace", false, "Run the movers where the claims are, with the repositories of that namespace")
}

// beside puts the movers where the claims are, if that was asked for.
func (o *restoreOptions) beside(namespace string) error {
	if err := onePlace(o.inNamespace, o.backupNamespace); err != nil || !o.inNamespace {
		return err
	}
	o.backupNamespace = namespace
	if o.toNamespace != "" {
		o.backupNamespace = o.toNamespace
	}
	return nil
}

// checkRefill refuses flags that do not go together with --into-claim.
func (o *restoreOptions) checkRefill(changed func(string) bool) error {
	for _, flag := range []string{
		"in-place", "rollback", "commit", "to-pvc", "to-namespace", "storage-class", "size", "file", "to-dir", "dump-to", "dump", "load", "into", "database", "load-timeout",
	} {
		if changed(flag) {
			return fmt.Errorf("--%s together with --into-claim: want one or the other", flag)
		}
	}
	switch o.from {
	case string(restore.Snapshot):
		return errors.New("--into-claim together with --from snapshot: only a copy can be restored into a file system")
	case string(restore.Auto):
		o.from = string(restore.Copy)
	}
	return nil
}

// refilling is one restore into the file systems of claims, from its command
// line to its exit code.
type refilling struct {
	swapping
	plan restore.RefillPlan
}

func runRefill(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *restoreOptions, source string) error {
	run, err := catalog.NewRun(env.Now(), env.Random)
	if err != nil {
		return err
	}
	r := &refilling{swapping: swapping{restoring: restoring{env: env, config: config, options: o, started: env.Now()}, action: actionRestore, run: run}}
	if r.namespace, err = currentNamespace(config); err != nil {
		return err
	}
	r.command = fmt.Sprintf("kubectl backsnap restore %s -n %s --into-claim --in-namespace", source, r.namespace)
	if err := o.checkRefill(cmd.Flags().Changed); err != nil {
		return usageError(cmd, err)
	}
	if !o.inNamespace {
		return &catalog.Failure{
			Code: catalog.CodeUsage, Message: "--into-claim without --in-namespace: the mover has to run where the claim is, with a repository of that namespace",
			State: "nothing changed", Next: r.command,
		}
	}
	if err := r.read(run, source, r.namespace); err != nil {
		return usageError(cmd, err)
	}
	if o.appTimeout.Seconds() < 1 {
		return usageError(cmd, errors.New("--app-timeout: want at least 1s"))
	}
	doc, err := r.refill(cmd.Context())
	r.progress.Close()
	if err != nil && doc.Kind == "" {
		doc = r.newRefillDoc()
	}
	return r.conclude(doc, err)
}

// refill plans, and unless that is all that was asked for, runs. An error
// without a document says that nothing was done.
func (r *refilling) refill(ctx context.Context) (doc swapDoc, err error) {
	if r.cluster, err = r.env.Connect(r.config); err != nil {
		return doc, err
	}
	request := restore.SwapRequest{Request: r.request, IgnoreController: r.options.ignoreController, Terms: r.options.terms(), Now: r.env.Now()}
	if r.plan, err = restore.MakeRefillPlan(ctx, r.cluster, request); err != nil {
		return doc, err
	}
	r.restoring.plan, r.run = r.plan.Plan, r.plan.Run
	if r.dry() {
		return r.planned(), r.try(ctx)
	}
	held, release, err := r.hold(ctx, r.namespace, r.printPlan,
		func(ctx context.Context) error { return restore.CheckRefill(ctx, r.cluster, r.plan) },
		func(ctx context.Context) error { return r.confirm(ctx, r.plan.Apps, r.printWarning) })
	if err != nil {
		return doc, err
	}
	result, err := restore.RunRefill(held, r.cluster, r.follow, r.env.Now, r.plan, r.progress)
	return r.document(result), errors.Join(err, release())
}

// try asks the server whether it would make the movers, where that was asked for.
func (r *refilling) try(ctx context.Context) error {
	if r.options.dryRun != "server" {
		return nil
	}
	if err := restore.CheckRefill(ctx, r.cluster, r.plan); err != nil {
		return err
	}
	if err := r.plan.Try(ctx, r.cluster); err != nil {
		return refused(err, fmt.Sprintf("%s not restored: the server would refuse its mover", r.request.Target))
	}
	return nil
}

// printWarning says what a person agrees to.
func (r *refilling) printWarning(w io.Writer) {
	p := r.plan
	fmt.Fprintf(w, "This overwrites the live data of %s in %s (context %s) with %s.\n", r.request.Target, r.namespace, contextName(r.config), p.Chosen[0].Set.Run)
	fmt.Fprintf(w, "  data written after %s is in the safety snapshot alone (%s)\n", p.Chosen[0].Cut.UTC().Format("2006-01-02 15:04:05 UTC"), duration.HumanDuration(r.started.Sub(p.Chosen[0].Cut)))
	for _, a := range p.Apps {
		fmt.Fprintf(w, "  downtime: %s is at 0 for as long as the copy takes\n", a)
	}
	fmt.Fprintln(w, "  if that fails on the way the app stays at 0: the same command again finishes it, --rollback goes back")
}

// printPlan writes what was found, and what will be done with it.
func (r *refilling) printPlan(w io.Writer) {
	p := r.plan
	r.printFound(w)
	if p.Begun != nil {
		fmt.Fprintf(w, "  begun     run %s has begun this and has not ended: it is finished now\n", p.Begun.Run)
	}
	for _, v := range p.Volumes {
		fmt.Fprintf(w, "  %s is overwritten, in volume %s, from %s\n", v.Claim.Name, v.Claim.Volume, fromText(v))
	}
	for _, a := range p.Apps {
		fmt.Fprintf(w, "  %s is scaled %d -> 0 -> %d\n", a, a.Replicas, afterwards(a))
	}
	for _, s := range p.Safety {
		if p.Begun == nil || !p.Begun.Touched() {
			fmt.Fprintf(w, "  safety snapshot %s, kept through %s\n", s.Name, s.DeleteAfter)
		}
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "  note      %s\n", printable(note))
	}
	fmt.Fprintln(w)
}
