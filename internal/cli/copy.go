package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

const copyLong = `
	Copy snapshots that are there already to every restic repository that is configured, or to those that --repository
	names. Of a claim or workload the newest restore point is copied; vs/NAME and run/ID name others. A copy that is on
	record, or in the repository, is not made again.

	Only what backsnap has taken, and what is ready, is copied: everything else that was meant is left out with its
	reason. A selector is matched against the labels of the VolumeSnapshots.`

const copyExample = `
	# The newest restore point of every volume in a namespace, to every repository that does not have it yet
	kubectl backsnap copy -n shop

	# What one run has taken, to one more repository
	kubectl backsnap copy run/20261121-011500-p9aa -n shop --repository new

	# One snapshot
	kubectl backsnap copy vs/data-1 -n shop`

func newCopy(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &copyingFlags{}
	cmd := &cobra.Command{
		Use:     "copy [vs/NAME | run/ID | TYPE/NAME | CLAIM | -l SELECTOR | -A]",
		Short:   "Copy existing snapshots off-site, again or to another repository",
		Long:    templates.LongDesc(copyLong),
		Example: templates.Examples(copyExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runCopy(cmd, env, config, o, args) },
	}
	o.addSnapshots(cmd)
	o.add(cmd, "Copies at once")
	cmd.Flags().DurationVar(&o.copyTimeout, "timeout", 0, "The longest to wait for the copies; movers that are at work go on then. 0: until they have ended")
	return withEnvironment(env, cmd)
}

func runCopy(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *copyingFlags, args []string) error {
	run, namespace, err := begin(env, config)
	if err != nil {
		return err
	}
	c := &copyRun{copying: copying{env: env, config: config, flags: o, kind: kindOfCopies, id: run}}
	if err := c.read(namespace, args); err != nil {
		return usageError(cmd, err)
	}
	r, err := c.do(cmd.Context())
	if err != nil {
		return c.fail(err)
	}
	return c.conclude(r, c.printPlan)
}

// copyRun is one `copy` from its command line to its exit code.
type copyRun struct {
	copying
	wishes  []offsite.Wish
	selects func(catalog.Snapshot) bool
	choice  offsite.Choice
}

// read reads the command line; nothing is asked of the cluster.
func (c *copyRun) read(namespace string, args []string) error {
	if err := c.copying.read(); err != nil {
		return err
	}
	chosen, err := c.flags.choose(args, namespace)
	if err != nil {
		return err
	}
	for _, t := range chosen.targets {
		c.wishes = append(c.wishes, wish(t))
	}
	if len(c.wishes) == 0 {
		c.wishes = []offsite.Wish{{Matches: func(catalog.Snapshot) bool { return true }}}
	}
	chosen.targets = nil // what is left to ask are the selectors
	c.selects, c.scope = chosen.snapshot, chosen.scope
	c.scope.BackupNamespace, c.scope.InNamespace = c.flags.backupNamespace, c.flags.inNamespace
	return nil
}

// wish is what a target means: the newest restore point, but where a snapshot
// or a run is named.
func wish(t snapshot.Target) offsite.Wish {
	w := offsite.Wish{Text: t.String(), Matches: func(s catalog.Snapshot) bool { return means(t, s) }}
	if t.Namespace != "" {
		w.Text += " in " + t.Namespace
	}
	switch t.Kind {
	case kindSnapshot:
		w.Every = true
	case kindRun: // what was made for copies in that run is none of its snapshots
		w.Every = true
		w.Matches = func(s catalog.Snapshot) bool { return means(t, s) && s.Role == "" }
	}
	return w
}

// do plans, and unless that is all that was asked for, runs. An error says
// that nothing was done.
func (c *copyRun) do(ctx context.Context) (r report, err error) {
	if c.cluster, err = c.env.Connect(c.config); err != nil {
		return r, err
	}
	if err := c.plan(ctx); err != nil {
		return r, err
	}
	if c.trial() {
		if err := c.tryCopies(ctx); err != nil {
			return r, err
		}
	}
	if c.dry() {
		return c.dryReport(), nil
	}
	if c.progress.text() {
		c.printPlan(c.env.Err)
	}
	if err := c.checkRights(ctx, nil, c.namespaces()); err != nil {
		return r, err
	}
	return c.run(ctx)
}

// plan looks at the cluster once and decides.
func (c *copyRun) plan(ctx context.Context) error {
	if err := c.look(ctx); err != nil {
		return err
	}
	if err := c.checkRepositories(); err != nil {
		return err
	}
	return c.choose(ctx)
}

// choose finds the snapshots that are meant, as they stand now, and plans
// their copies.
func (c *copyRun) choose(ctx context.Context) error {
	all, err := c.cluster.Snapshots(ctx, c.scope)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s catalog.Snapshot) bool { return !c.selects(s) })
	if c.choice, err = offsite.Choose(c.wishes, all); err != nil {
		return err
	}
	c.copies, c.uncopied = c.planCopies(c.choice.Snapshots)
	return nil
}

// namespaces are those that the run will write to, sorted.
func (c *copyRun) namespaces() []string {
	var names []string
	for _, copy := range c.copies.Copies {
		if !copy.Recorded {
			names = append(names, copy.Snapshot.Namespace)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// run does what was planned and says what became of it. What is on record is
// only known under the lock: what movers of earlier runs have made meanwhile
// is taken in first.
func (c *copyRun) run(ctx context.Context) (report, error) {
	namespaces := c.namespaces()
	if len(namespaces) == 0 { // nothing will be written
		outcomes, err := c.copy(ctx, c.choice.Snapshots)
		return c.report(outcomes, err), nil
	}
	held, release, err := c.lock(ctx, namespaces)
	if err != nil {
		return report{}, err
	}
	defer c.progress.Close()
	sweeper := c.sweeper(namespaces)
	sweeper.start(held, sweeper.copies)()
	if err := c.choose(held); err != nil {
		return report{}, errors.Join(err, release())
	}
	outcomes, err := c.copy(held, c.choice.Snapshots)
	return c.report(outcomes, errors.Join(err, release())), nil
}

// report puts together what became of every snapshot. extra are errors that
// belong to no single copy, or are told by an outcome already.
func (c *copyRun) report(outcomes []offsite.Outcome, extra error) report {
	r := c.newReport()
	usable := false
	for _, s := range c.choice.Snapshots {
		doc := c.item(s)
		for _, o := range outcomes {
			if o.Copy.Snapshot.UID == s.UID {
				doc.Copies = append(doc.Copies, copyDocument(o))
				usable = usable || o.Err == nil
			}
		}
		if doc.State = copiedState(doc.Copies); len(doc.Copies) == 0 {
			doc.Reason = noRepository
		}
		r.Items = append(r.Items, doc)
	}
	c.leave(&r)
	for _, o := range outcomes {
		r.fail(o.Err)
	}
	r.fail(extra)
	r.ExitCode = exitOf(usable, r.failures)
	r.Result = resultName(r.ExitCode, usable)
	return r
}

// dryReport is the plan as a report. What is known to fail counts as failed.
func (c *copyRun) dryReport() report {
	r := c.newReport()
	r.Result = "DryRun"
	for _, s := range c.choice.Snapshots {
		doc := c.item(s)
		doc.State, doc.Reason = string(snapshot.Skipped), noRepository
		for _, copy := range c.copies.Copies {
			if copy.Snapshot.UID == s.UID {
				doc.State, doc.Reason = statePlanned, ""
				doc.Copies = append(doc.Copies, plannedCopy(copy))
			}
		}
		r.Items = append(r.Items, doc)
	}
	c.leave(&r)
	r.fail(c.uncopied)
	r.ExitCode = exitOf(len(c.copies.Copies) > 0, r.failures)
	return r
}

// plannedCopy is a copy that is to be made, or is there.
func plannedCopy(copy offsite.Copy) copyDoc {
	doc := copyDoc{Repository: copy.Repository.Name, State: statePlanned}
	if there, ok := copy.Snapshot.CopyIn(copy.Repository.Name); ok {
		doc.State, doc.Snapshot, doc.Bytes = string(offsite.Known), there.Snapshot, there.Bytes
	}
	return doc
}

// item is the snapshot that is copied.
func (c *copyRun) item(s catalog.Snapshot) itemDoc {
	doc := itemDoc{
		Namespace: s.Namespace, App: s.App(), Claim: s.Claim, Snapshot: s.Name, Class: s.Class, Consistency: s.Consistency, DeleteAfter: s.DeleteAfter,
	}
	if !s.Cut.IsZero() {
		cut := s.Cut.UTC()
		doc.Cut = &cut
	}
	return doc
}

// leave adds the snapshots that are left out.
func (c *copyRun) leave(r *report) {
	for _, left := range c.choice.Left {
		doc := c.item(left.Snapshot)
		doc.State, doc.Reason = string(snapshot.Skipped), left.Reason
		doc.blame(left.Err)
		r.Items = append(r.Items, doc)
		r.fail(left.Err)
	}
}

// noRepository is why a snapshot is left as it is.
const noRepository = "no repository that can be used was asked for"

// stateCopied is the state of a snapshot all whose copies are there.
const stateCopied = "Copied"

func copiedState(copies []copyDoc) string {
	switch {
	case len(copies) == 0:
		return string(snapshot.Skipped)
	case slices.ContainsFunc(copies, func(c copyDoc) bool { return c.Error != "" }):
		return string(snapshot.Failed)
	case slices.ContainsFunc(copies, func(c copyDoc) bool { return c.State == string(offsite.Detached) }):
		return string(offsite.Detached)
	}
	return stateCopied
}

// printPlan writes the plan for a person.
func (c *copyRun) printPlan(w io.Writer) {
	c.printHead(w)
	for _, s := range c.choice.Snapshots {
		fmt.Fprintf(w, "  %s/%s   %s, %s\n", s.Namespace, s.Claim, s.Name, cutText(s))
		for _, copy := range c.copies.Copies {
			if copy.Snapshot.UID == s.UID {
				fmt.Fprintf(w, "    to %-12s  %s\n", copy.Repository.Name, copyText(copy))
			}
		}
	}
	for _, left := range c.choice.Left {
		fmt.Fprintf(w, "  left out  %s/%s: %s\n", left.Snapshot.Namespace, left.Snapshot.Name, printable(left.Reason))
	}
	if len(c.choice.Snapshots)+len(c.choice.Left) == 0 {
		fmt.Fprintln(w, "  no restore point is selected")
	}
	c.printOffsite(w)
	fmt.Fprintln(w)
}

func cutText(s catalog.Snapshot) string {
	return "cut " + s.Cut.UTC().Format(time.DateTime) + " UTC"
}

func copyText(copy offsite.Copy) string {
	if there, ok := copy.Snapshot.CopyIn(copy.Repository.Name); ok {
		return "there already, restic " + short(there.Snapshot)
	}
	return "copy"
}
