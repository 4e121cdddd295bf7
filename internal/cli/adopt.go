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
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
)

type adoptOptions struct {
	progressFlags
	lockFlags
	dryRun  string
	timeout time.Duration
	output  *output
}

const adoptLong = `
	Give contents whose VolumeSnapshot is gone one again, under its old name and with its old labels and record: what was
	deleted by hand, or with its namespace, is a restore point again where the deletion policy Retain has kept its content.

	A content is never bound to a second snapshot. Another one takes its place, which names the same snapshot of the storage;
	the one that was named goes once the new snapshot is ready. All of them are retained: the storage keeps what it has.
	Whatever it was ended by, the same command finishes it.

	What was adopted is pinned, with the label backsnap.sh/pin=adopted: take it off, and prune judges it by its labels. A
	mark that prune had set is taken off. kubectl backsnap prune --orphans shows which contents there are.`

const adoptExample = `
	# See what one would become
	kubectl backsnap adopt snapcontent-3f2b --dry-run=client

	# Which contents there are
	kubectl backsnap prune -n shop --orphans`

func newAdopt(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &adoptOptions{}
	cmd := &cobra.Command{
		Use:     "adopt CONTENT...",
		Short:   "Give contents that have lost their VolumeSnapshots new ones",
		Long:    templates.LongDesc(adoptLong),
		Example: templates.Examples(adoptExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runAdopt(cmd, env, config, o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dryRun, "dry-run", "none", "none; client: print the plan and touch nothing")
	f.DurationVar(&o.timeout, "timeout", prune.DefaultTimeout, "The longest to wait until one snapshot is ready, and until a content has gone")
	o.progressFlags.add(f)
	o.lockFlags.add(f)
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// contentName is the name of a content, which may stand behind its kind.
func contentName(arg string) (string, error) {
	kind, name, typed := strings.Cut(arg, "/")
	switch {
	case !typed:
		return arg, nil
	case kind == "content" || kind == "vsc" || strings.TrimSuffix(kind, "s") == "volumesnapshotcontent" || kind == contentResource:
		return name, nil
	}
	return "", fmt.Errorf("%s: want the name of a VolumeSnapshotContent", arg)
}

// check reads the command line.
func (o *adoptOptions) check(args []string) (names []string, err error) {
	switch {
	case o.dryRun != "none" && o.dryRun != "client":
		return nil, fmt.Errorf("dry-run %q: want none or client", o.dryRun)
	case o.timeout < time.Second:
		return nil, errors.New("--timeout: want at least 1s")
	case len(args) == 0:
		return nil, errors.New("no content is named: kubectl backsnap prune --orphans shows which there are")
	}
	for _, arg := range args {
		name, err := contentName(arg)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, o.lockFlags.check()
}

// adoptDoc is what `adopt -o json` prints. Fields are only ever added.
type adoptDoc struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`
	Result     string      `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Items      []adoptItem `json:"items"`
	// Why nothing was done at all.
	blamed

	failures []error
}

// adoptItem is one content.
type adoptItem struct {
	Content   string    `json:"volumeSnapshotContent"` // that was named
	Namespace string    `json:"namespace,omitempty"`
	Snapshot  string    `json:"volumeSnapshot,omitempty"`
	Place     string    `json:"boundContent,omitempty"` // that takes its place
	Claim     string    `json:"pvc,omitempty"`
	Set       string    `json:"set,omitempty"` // its run
	Cut       time.Time `json:"cut,omitzero"`
	State     string    `json:"state"` // Adopted, Planned, Failed
	Recorded  bool      `json:"recorded"`
	blamed
}

// adopting is one `adopt` from its command line to its exit code.
type adopting struct {
	env      *Env
	config   *genericclioptions.ConfigFlags
	options  *adoptOptions
	cluster  Cluster
	progress progress
	printer  printers.ResourcePrinter
	request  prune.AdoptRequest
	plan     prune.AdoptPlan
	started  time.Time
}

func runAdopt(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *adoptOptions, args []string) error {
	run, _, err := begin(env, config)
	if err != nil {
		return err
	}
	a := &adopting{env: env, config: config, options: o, request: prune.AdoptRequest{Run: run, Timeout: o.timeout}, started: env.Now()}
	if a.request.Contents, err = o.check(args); err == nil {
		a.printer, err = o.output.printer()
	}
	if err == nil {
		a.progress, err = o.show(env)
	}
	if err != nil {
		return usageError(cmd, err)
	}
	doc, err := a.do(cmd.Context())
	a.progress.Close()
	return a.conclude(doc, err)
}

// do plans, and unless that is all that was asked for, runs. An error says that
// nothing was done.
func (a *adopting) do(ctx context.Context) (doc adoptDoc, err error) {
	if a.cluster, err = a.env.Connect(a.config); err != nil {
		return doc, err
	}
	if a.plan, err = prune.MakeAdoptPlan(ctx, a.cluster, a.request); err != nil {
		return doc, err
	}
	errs := make([]error, len(a.plan.Adoptions))
	for i, of := range a.plan.Adoptions {
		errs[i] = of.Err
	}
	if a.options.dryRun != "none" {
		doc = a.document("Planned", errs)
		doc.Result = "DryRun"
		return doc, nil
	}
	if a.progress.text() {
		a.printPlan(a.env.Err)
	}
	if len(a.plan.Namespaces()) == 0 {
		return a.document("", errs), nil
	}
	if err := permitted(ctx, a.cluster, a.plan.Rights(), ""); err != nil {
		return doc, err
	}
	held, release, err := a.env.Lock(ctx, a.cluster, a.options.lock(a.request.Run, a.plan.Namespaces()))
	if err != nil {
		return doc, err
	}
	errs = prune.RunAdopt(held, a.cluster, a.env.Now, a.plan, a.progress)
	return a.document("Adopted", append(errs, release())), nil
}

// document is what became, or would become, of each content. errs are in their
// order; what follows them belongs to none.
func (a *adopting) document(done string, errs []error) adoptDoc {
	doc := adoptDoc{APIVersion: apiVersion, Kind: "AdoptRun", Run: a.request.Run, Items: []adoptItem{}}
	usable := false
	for i, of := range a.plan.Adoptions {
		s := of.Snapshot
		item := adoptItem{
			Content: of.From.Name, Namespace: s.Namespace, Snapshot: s.Name, Place: s.Content, Claim: s.Claim, Set: string(s.Run), Cut: s.CutAt(), State: done, Recorded: s.Record != nil,
		}
		if errs[i] != nil {
			item.State = "Failed"
			item.blame(errs[i])
		} else {
			usable = true
		}
		doc.Items = append(doc.Items, item)
	}
	doc.failures = split(errors.Join(errs...))
	doc.ExitCode = exitOf(usable, doc.failures)
	doc.Result = resultName(doc.ExitCode, usable)
	return doc
}

// printPlan writes what becomes of each content.
func (a *adopting) printPlan(w io.Writer) {
	for _, of := range a.plan.Adoptions {
		if of.Err != nil {
			continue
		}
		s := of.Snapshot
		fmt.Fprintf(w, "  %s -> vs/%s -n %s   claim %s, %s of %s\n", printable(of.From.Name), printable(s.Name), s.Namespace, printable(cmp.Or(s.Claim, "not known")),
			cmp.Or(string(s.Consistency), "snapshot"), s.CutAt().UTC().Format(time.RFC3339))
		if s.Record == nil {
			fmt.Fprintf(w, "note: %s has no record: the snapshot is listed and kept, and restored from by kubectl alone\n", printable(of.From.Name))
		}
	}
}

// conclude writes the result and turns the run into its exit code.
func (a *adopting) conclude(doc adoptDoc, err error) error {
	if err != nil {
		doc = adoptDoc{APIVersion: apiVersion, Kind: "AdoptRun", Run: a.request.Run, Items: []adoptItem{}, Result: "Failed", failures: split(err), ExitCode: exitCode(err)}
		doc.blame(err)
	}
	if err := a.print(doc); err != nil {
		return err
	}
	if err == nil && a.options.dryRun == "none" {
		a.progress.Result(a.env.Now(), a.ending(doc))
	}
	return a.env.end(doc.failures, doc.ExitCode)
}

// ending is the document in one line.
func (a *adopting) ending(doc adoptDoc) ending {
	e := ending{run: doc.Run, result: doc.Result, exitCode: doc.ExitCode, took: a.env.Now().Sub(a.started), verb: verbAdopted}
	for _, item := range doc.Items {
		if item.Error == "" {
			e.done++
		}
	}
	e.failed = len(doc.Items) - e.done
	e.summary = fmt.Sprintf("%d of %d contents adopted in %s", e.done, len(doc.Items), span(e.took))
	return e
}

// print writes the result.
func (a *adopting) print(doc adoptDoc) error {
	switch {
	case a.printer != nil:
		return printDocument(a.env.Out, a.printer, doc)
	case doc.Result == "DryRun" && a.options.output.human():
		a.printPlan(a.env.Out)
		return nil
	}
	for _, item := range doc.Items {
		if item.Error != "" {
			continue
		}
		line := fmt.Sprintf("%s/%s", snapshotResource, item.Snapshot)
		if a.options.output.human() {
			line += " adopted"
		}
		if _, err := fmt.Fprintln(a.env.Out, line); err != nil {
			return err
		}
		if doc.Result != "DryRun" {
			a.progress.Note(fmt.Sprintf("Restore from it: kubectl backsnap restore vs/%s -n %s", item.Snapshot, item.Namespace))
		}
	}
	return nil
}
