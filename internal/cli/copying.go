package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

// copyingFlags are the flags of all commands that copy.
type copyingFlags struct {
	scopeFlags
	progressFlags
	moverFlags
	lockFlags
	repository, dryRun, backupNamespace string
	parallel, perNode                   int
	wait                                bool
	copyTimeout                         time.Duration // 0: none
	output                              *output
}

// lockFlags say what a run must have for itself.
type lockFlags struct {
	lockSlots   int
	lockDir     string
	lockTimeout time.Duration
}

// add adds the flags.
func (o *lockFlags) add(f *pflag.FlagSet) {
	f.IntVar(&o.lockSlots, "lock-slots", 0, "At most so many runs at once on this machine; 0: any number")
	f.StringVar(&o.lockDir, "lock-dir", "", "Where the slots are; default: backsnap in the user's cache directory")
	f.DurationVar(&o.lockTimeout, "lock-timeout", 0, "How long to wait for a namespace or slot that is busy")
}

// check refuses values that make no sense.
func (o *lockFlags) check() error {
	if o.lockSlots < 0 || o.lockTimeout < 0 {
		return errors.New("--lock-slots and --lock-timeout must not be negative")
	}
	return nil
}

// lock is what a run of these flags must have for itself.
func (o *lockFlags) lock(run catalog.Run, namespaces []string) Lock {
	return Lock{Run: run, Namespaces: namespaces, Slots: o.lockSlots, Dir: o.lockDir, Timeout: o.lockTimeout}
}

// add adds the flags, but for those of the scope; atOnce is what --parallel
// bounds.
func (o *copyingFlags) add(cmd *cobra.Command, atOnce string) {
	f := cmd.Flags()
	addBackupNamespace(cmd, &o.backupNamespace)
	o.progressFlags.add(f)
	f.StringVar(&o.repository, "repository", "", "Repositories to copy to, `NAME,...`, or none; default: all that are configured")
	o.moverFlags.add(f)
	f.IntVar(&o.parallel, "parallel", offsite.DefaultParallel, atOnce)
	f.IntVar(&o.perNode, "movers-per-node", 0, "Movers of all runs with this flag that run on one node at once; 0: as many as fit")
	f.BoolVar(&o.wait, "wait", true, "Wait until the copies are made; else return once their movers are started, all of them at once")
	o.lockFlags.add(f)
	f.StringVar(&o.dryRun, "dry-run", "none", "none; client: print the plan and touch nothing; server: let the server check too what would be made, and store nothing")
	o.output = addOutput(cmd)
}

// check refuses values that make no sense.
func (o *copyingFlags) check() error {
	switch {
	case o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server":
		return fmt.Errorf("dry-run %q: want none, client or server", o.dryRun)
	case o.parallel < 1:
		return fmt.Errorf("parallel %d: want at least 1", o.parallel)
	case o.perNode < 0:
		return errors.New("--movers-per-node must not be negative")
	case o.copyTimeout < 0:
		return errors.New("--timeout must not be negative")
	}
	if err := o.lockFlags.check(); err != nil {
		return err
	}
	return o.moverFlags.check(o.backupNamespace)
}

// copying is what a run of any command that copies has: a cluster, the
// repositories, which copies are made, and how that is shown.
type copying struct {
	env      *Env
	config   *genericclioptions.ConfigFlags
	flags    *copyingFlags
	kind     string // of the document that -o json prints
	id       catalog.Run
	cluster  Cluster
	progress progress
	printer  printers.ResourcePrinter

	repositories []string
	scope        catalog.Scope

	inventory catalog.Inventory
	copies    offsite.Plan
	uncopied  error // why the plan has no copies that were asked for
	started   time.Time
}

// read reads the flags; nothing is asked of the cluster.
func (c *copying) read() (err error) {
	if err := c.flags.check(); err != nil {
		return err
	}
	if c.printer, err = c.flags.output.printer(); err != nil {
		return err
	}
	if c.progress, err = c.flags.show(c.env); err != nil {
		return err
	}
	c.repositories, err = offsite.ParseRepositories(c.flags.repository)
	return err
}

// dry reports whether the plan is all that was asked for.
func (c *copying) dry() bool { return c.flags.dryRun != "none" }

// trial reports whether the server is to check what would be made.
func (c *copying) trial() bool { return c.flags.dryRun == "server" }

// look looks at the cluster, once.
func (c *copying) look(ctx context.Context) (err error) {
	c.started = c.env.Now()
	c.scope.Repositories = c.repositories
	c.inventory, err = c.cluster.Inventory(ctx, c.scope)
	return err
}

// checkRepositories wants those that were named to be there. What else is
// wrong with a copy strikes that copy alone.
func (c *copying) checkRepositories() error {
	for _, name := range c.repositories {
		if _, err := offsite.Find(c.inventory.Repositories, name); err != nil {
			return err
		}
	}
	return nil
}

// planCopies plans the copies of snapshots. The error joins why some are not
// in the plan.
func (c *copying) planCopies(snapshots []catalog.Snapshot) (offsite.Plan, error) {
	choice, err := c.choice(snapshots)
	request := offsite.Request{
		Run: c.id, BackupNamespace: c.flags.backupNamespace, Repositories: c.repositories, Choice: choice,
		Parallel: c.flags.parallel, PerNode: c.flags.perNode, Detach: !c.flags.wait, Timeout: c.flags.copyTimeout,
	}
	c.flags.apply(&request)
	plan, planErr := offsite.New(request, c.inventory.Repositories, snapshots)
	return plan, errors.Join(err, planErr)
}

// choice is what annotations say about repositories, by namespace/claim. One
// that cannot be read chooses none and is an error.
func (c *copying) choice(snapshots []catalog.Snapshot) (map[string][]string, error) {
	choice := map[string][]string{}
	var errs []error
	for _, shot := range snapshots {
		text, ok := c.repositoryNote(shot)
		if !ok {
			continue
		}
		names, err := offsite.ParseRepositories(text)
		if err != nil {
			names = []string{}
			errs = append(errs, &catalog.Failure{
				Code: catalog.CodeUsage, Message: fmt.Sprintf("%s/%s not copied: annotation %s", shot.Namespace, shot.Claim, catalog.AnnotationRepository),
				Cause: err, State: "its snapshot is not touched by that", Next: fmt.Sprintf("kubectl describe pvc %s -n %s", shot.Claim, shot.Namespace),
			})
		}
		choice[shot.Namespace+"/"+shot.Claim] = names
	}
	return choice, errors.Join(errs...)
}

// repositoryNote is what the annotation of the claim, else of its namespace, says.
func (c *copying) repositoryNote(shot catalog.Snapshot) (string, bool) {
	i := slices.IndexFunc(c.inventory.Claims, func(c catalog.Claim) bool { return c.Namespace == shot.Namespace && c.Name == shot.Claim })
	if i >= 0 {
		if text, ok := c.inventory.Claims[i].Annotations[catalog.AnnotationRepository]; ok {
			return text, true
		}
	}
	text, ok := c.inventory.Namespaces[shot.Namespace][catalog.AnnotationRepository]
	return text, ok
}

// checkRights asks for all rights before anything is touched: those given,
// those of the copies, and those of the Leases of namespaces.
func (c *copying) checkRights(ctx context.Context, rights []catalog.Right, namespaces []string) error {
	all := catalog.Rights(append(rights, c.copies.Rights()...))
	all.Join(leases(namespaces...))
	return permitted(ctx, c.cluster, all, "leave the copy out with --repository=none")
}

// leases are what holding namespaces takes.
func leases(namespaces ...string) []catalog.Right {
	var rights catalog.Rights
	for _, namespace := range namespaces {
		rights.Add("coordination.k8s.io", "leases", namespace, "create", "get", "update", "delete")
	}
	return rights
}

// lock takes the namespaces for this run, and a slot of this machine.
func (c *copying) lock(ctx context.Context, namespaces []string) (held context.Context, release func() error, err error) {
	return c.env.Lock(ctx, c.cluster, c.flags.lock(c.id, namespaces))
}

// sweeper removes what earlier runs have left in the namespaces that the run
// holds.
func (c *copying) sweeper(namespaces []string) *sweeper {
	s := &sweeper{
		cluster: c.cluster, now: c.env.Now, watcher: c.progress,
		run: c.id, namespaces: namespaces, places: []string{c.flags.backupNamespace},
	}
	if c.flags.inNamespace {
		s.places = namespaces
	}
	return s
}

// copy makes the copies of snapshots.
func (c *copying) copy(ctx context.Context, snapshots []catalog.Snapshot) ([]offsite.Outcome, error) {
	plan, planErr := c.planCopies(snapshots)
	if len(plan.Copies) == 0 {
		return nil, planErr
	}
	if c.flags.wait && slices.ContainsFunc(plan.Copies, func(copy offsite.Copy) bool { return !copy.Recorded }) {
		c.progress.Note(c.leaving())
	}
	outcomes, err := offsite.Run(ctx, c.cluster, c.env.Now, plan, c.progress)
	return outcomes, errors.Join(planErr, err)
}

// leaving says that nobody needs to wait for the copies.
func (c *copying) leaving() string {
	text := fmt.Sprintf("Ctrl-C leaves the copies to their movers; kubectl backsnap logs -f run/%s%s", c.id, whereFlags(c.scope))
	if c.kind == kindOfSnapshots {
		text = "The app is running. " + text
	}
	return text
}

// newReport is the beginning of a report.
func (c *copying) newReport() report {
	return report{APIVersion: apiVersion, Kind: c.kind, Run: c.id, Items: []itemDoc{}, took: c.env.Now().Sub(c.started)}
}

// fail writes err as the result too, where the result is for a script.
func (c *copying) fail(err error) error {
	if c.printer == nil {
		return err
	}
	r := c.newReport()
	r.Result, r.ExitCode = "Failed", exitCode(err)
	r.blame(err)
	return errors.Join(err, printDocument(c.env.Out, c.printer, r))
}

// conclude writes the result and what is left to say, and turns the run into
// its exit code. printPlan is the result of a dry run for a person.
func (c *copying) conclude(r report, printPlan func(io.Writer)) error {
	if err := c.printResult(r, printPlan); err != nil {
		return err
	}
	if !c.dry() {
		c.progress.Result(c.env.Now(), r.ending())
		if source := r.source(); source != "" {
			there := catalog.Scope{Namespaces: []string{r.Items[0].Namespace}, BackupNamespace: c.scope.BackupNamespace}
			c.progress.Note("Restore: kubectl backsnap restore " + source + whereFlags(there))
		}
	}
	ended := c.env.end(r.failures, r.ExitCode)
	if r.detached() && !c.flags.wait && c.progress.text() {
		fmt.Fprintf(c.env.Err, "The copies are being made. Follow them: kubectl backsnap logs -f run/%s%s\n", r.Run, whereFlags(c.scope))
	}
	return ended
}

func (c *copying) printResult(r report, printPlan func(io.Writer)) error {
	switch {
	case c.printer != nil:
		return printDocument(c.env.Out, c.printer, r)
	case c.flags.output.format == "name":
		return r.printNames(c.env.Out)
	case c.dry():
		printPlan(c.env.Out)
		return nil
	}
	return r.printSentences(c.env.Out)
}

// printHead writes the first line of a plan.
func (c *copying) printHead(w io.Writer) {
	fmt.Fprintf(w, "Plan  context %s, %s, run %s\n", contextName(c.config), c.where(), c.id)
}

// printOffsite writes where the copies go.
func (c *copying) printOffsite(w io.Writer) {
	for _, r := range c.copies.Repositories() {
		fmt.Fprintf(w, "  off-site  %s  %s\n", r.Name, r.Address)
	}
	for _, err := range split(c.uncopied) {
		fmt.Fprintf(w, "  off-site  %s\n", printable(err.Error()))
	}
	if len(c.inventory.Repositories) == 0 && c.repositories == nil {
		where := "namespace " + c.flags.backupNamespace + ", or you may not read its Secrets"
		if c.scope.InNamespace {
			where = c.where()
		}
		fmt.Fprintf(w, "  off-site  none: no repository in %s; see kubectl backsnap repo --help\n", where)
	}
}

func (c *copying) where() string {
	if c.scope.All {
		return "all namespaces"
	}
	return "namespace " + strings.Join(c.scope.Namespaces, ", ")
}
