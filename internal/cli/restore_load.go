package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// loadFlags say that a dump is to be loaded into a server that runs.
type loadFlags struct {
	load           bool
	into, database string
	loadTimeout    time.Duration
}

func (f *loadFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.load, "load", false, "Load the set's dump of its databases into the running server, and make no claim")
	flags.StringVar(&f.into, "into", "", "With --load: the workload, `TYPE/NAME`, whose server takes the dump; default: that of the set")
	flags.StringVar(&f.database, "database", "", "With --load: one database only, `[FROM=]NAME`: into itself, or into a new one; default: all of the dump, into themselves")
	flags.DurationVar(&f.loadTimeout, "load-timeout", restore.DefaultLoadTimeout, "With --load: the longest that loading one database may take")
}

// wantLoad refuses what makes no sense together.
func (o *restoreOptions) wantLoad() error {
	switch {
	case !o.load && (o.into != "" || o.database != ""):
		return errors.New("--into and --database without --load: they say where a dump is loaded")
	case !o.load:
		return nil
	case o.toPVC != "" || o.storageClass != "" || o.size != "":
		return errors.New("--to-pvc, --storage-class and --size are for new claims: want them, or --load")
	case o.toDir != "" || o.dumpTo != "" || len(o.files) > 0:
		return errors.New("--load together with --file, --to-dir or --dump-to: want a dump in the server, or files")
	case o.loadTimeout < time.Second:
		return errors.New("--load-timeout: want at least 1s")
	case o.output.format == "name":
		return errors.New("output format \"name\" is for what is made in the cluster")
	}
	_, err := readInto(o.into)
	return err
}

// readInto reads the workload whose server is meant.
func readInto(text string) (catalog.Workload, error) {
	if text == "" {
		return catalog.Workload{}, nil
	}
	kind, name, _ := strings.Cut(text, "/")
	if into := (catalog.Workload{Kind: kindOf(kind), Name: name}); into.Typed() && name != "" && !strings.Contains(name, "/") {
		return into, nil
	}
	return catalog.Workload{}, fmt.Errorf("into %q: want TYPE/NAME, TYPE one of statefulset (sts), deployment (deploy), daemonset (ds), pod", text)
}

// loadDoc is what `restore --load -o json` prints: one document at the end,
// also after a failure. Fields are only ever added.
type loadDoc struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`
	Result     string      `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Source     sourceDoc   `json:"source"`
	// From is the volume that holds the dump; absent where nothing was chosen.
	From   *fromDoc   `json:"from,omitempty"`
	Live   bool       `json:"live"` // the dump lay beside the server still
	Server *serverDoc `json:"server,omitempty"`
	Items  []loadItem `json:"items"`
	// Why it stopped, or why nothing was done at all.
	blamed

	failure error
	took    time.Duration
}

// serverDoc is what took the dump.
type serverDoc struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container"`
	Engine    string `json:"engine"`
	Version   string `json:"version"`
}

// loadItem is one part of a dump.
type loadItem struct {
	What     string `json:"what"`
	From     string `json:"from,omitempty"` // database
	Database string `json:"database,omitempty"`
	State    string `json:"state"` // Loaded, Partial, Untouched, Unknown, Planned
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
	Seconds  int64  `json:"seconds,omitempty"`
	blamed
}

// load is a restore of a dump into a server, to its exit code.
func (r *restoring) load(ctx context.Context) error {
	doc, err := r.loadDump(ctx)
	if err != nil {
		if r.printer == nil {
			return err
		}
		doc = r.newLoadDocument(restore.LoadPlan{})
		doc.Result, doc.ExitCode = "Failed", exitCode(err)
		doc.blame(err)
		return errors.Join(err, printDocument(r.env.Out, r.printer, doc))
	}
	switch {
	case r.printer != nil:
		err = printDocument(r.env.Out, r.printer, doc)
	case !r.dry():
		err = doc.printSentences(r.env.Out)
	}
	if err != nil || r.dry() {
		return err
	}
	r.progress.Result(r.env.Now(), doc.ending())
	if doc.failure != nil {
		printError(r.env.Err, doc.failure)
		return &finished{code: doc.ExitCode}
	}
	return nil
}

// loadDump plans, asks, and unless the plan is all that was asked for, runs. An
// error says that nothing was done.
func (r *restoring) loadDump(ctx context.Context) (doc loadDoc, err error) {
	if r.cluster, err = r.env.Connect(r.config); err != nil {
		return doc, err
	}
	into, err := readInto(r.options.into)
	if err != nil {
		return doc, err
	}
	plan, err := restore.MakeLoadPlan(ctx, r.cluster, restore.LoadRequest{Request: r.request, Into: into, Database: r.options.database, LoadTimeout: r.options.loadTimeout})
	if err != nil {
		return doc, err
	}
	if r.dry() {
		if r.printer == nil {
			r.printLoadPlan(r.env.Out, plan)
		}
		return r.plannedLoad(plan), r.tryLoad(ctx, plan)
	}
	held, release, err := r.hold(ctx, plan.ToNamespace, func(w io.Writer) { r.printLoadPlan(w, plan) },
		func(ctx context.Context) error { return r.planFiles(ctx, plan) }, func(ctx context.Context) error { return r.mayLoad(ctx, plan) })
	if err != nil {
		return doc, err
	}
	defer r.progress.Close()
	if !plan.Live {
		r.sweepFiles(held)
	}
	l := restore.Loading{Cluster: r.cluster, Now: r.env.Now, Files: r.dumpFiles}
	outcomes, err := l.Load(held, plan, r.progress)
	return r.loadDocument(plan, outcomes, errors.Join(err, release())), nil
}

// mayLoad asks for the rights, and a person.
func (r *restoring) mayLoad(ctx context.Context, plan restore.LoadPlan) error {
	if err := restore.CheckLoad(ctx, r.cluster, plan, r.plan); err != nil {
		return err
	}
	if !plan.Replaces() {
		return nil
	}
	command := fmt.Sprintf("kubectl backsnap restore %s -n %s --load", r.request.Target, r.request.Target.Namespace)
	for _, flag := range [][2]string{{"--into", r.options.into}, {"--database", r.options.database}} {
		if flag[1] != "" {
			command += " " + flag[0] + " " + strconv.Quote(flag[1])
		}
	}
	question := fmt.Sprintf("This replaces what is now in %s of pod %s. Continue?", r.replaced(plan), plan.Server.Pod)
	return confirm(ctx, r.env, r.options.yes, question, command)
}

// replaced names the databases that are replaced.
func (r *restoring) replaced(plan restore.LoadPlan) string {
	var names []string
	for _, s := range plan.Steps {
		if !s.Fresh {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, ", ")
}

// printLoadPlan writes what was found, and what will be loaded into what.
func (r *restoring) printLoadPlan(w io.Writer, p restore.LoadPlan) {
	fmt.Fprintf(w, "Plan  context %s, namespace %s, run %s\n", contextName(r.config), p.ToNamespace, p.Run)
	fmt.Fprintf(w, "  found     %s  %s  cut %s, %s\n", p.Chosen.Set.Run, p.Chosen.Set.App, p.Chosen.Cut.UTC().Format(time.RFC3339), r.distance(p.Chosen))
	for _, passed := range p.Passed[:min(shownSets, len(p.Passed))] {
		fmt.Fprintf(w, "  newer     %s  not taken: %s\n", passed.Run, printable(passed.Reason))
	}
	fmt.Fprintf(w, "  server    %s, %s %s\n", p.Server, p.Found.Engine, p.Found.Version)
	from := "snapshot " + p.Point.Snapshot.Name
	switch {
	case p.Live:
		from = "the volume itself, where it lies still"
	case p.Point.Copy != nil:
		from = fmt.Sprintf("copy %s in %s", short(p.Point.Copy.Snapshot), p.Point.Copy.Repository)
	}
	fmt.Fprintf(w, "  dump      from %s\n", from)
	for _, s := range p.Steps {
		fmt.Fprintf(w, "  %s -> %s  %s  %s\n", printable(s.Dump.What), printable(s.String()), size(s.Dump.Bytes), standing(s))
	}
	for _, note := range p.Notes {
		fmt.Fprintf(w, "    note    %s\n", note)
	}
	fmt.Fprintln(w)
}

// standing says what stands where a part goes.
func standing(s restore.LoadStep) string {
	switch {
	case s.Into == "":
		return "as the dump says"
	case !s.Stand.There:
		return "is not there, and will be made"
	case s.Fresh:
		return "is there, and empty"
	}
	return fmt.Sprintf("is there, with %d tables and the like, %s: what the dump has is replaced", s.Stand.Objects, size(s.Stand.Bytes))
}

func (r *restoring) newLoadDocument(p restore.LoadPlan) loadDoc {
	q := r.request
	doc := loadDoc{
		APIVersion: apiVersion, Kind: "LoadRun", Run: q.Run, Items: []loadItem{}, took: r.env.Now().Sub(r.started), Live: p.Live,
		Source: sourceDoc{Namespace: q.Target.Namespace, Target: q.Target.String(), From: q.From.String()},
	}
	if !q.At.IsZero() {
		at := q.At.UTC()
		doc.Source.At = &at
	}
	if p.Server.Pod == "" {
		return doc
	}
	s := p.Point.Snapshot
	doc.From = &fromDoc{Run: s.Run, App: s.App(), Claim: s.Claim, Snapshot: s.Name, Cut: s.CutAt().UTC(), Consistency: s.Consistency}
	if p.Point.Copy != nil && !p.Live {
		doc.From.Repository, doc.From.Copy = p.Point.Copy.Repository, p.Point.Copy.Snapshot
	}
	doc.Server = &serverDoc{Namespace: p.Server.Namespace, Pod: p.Server.Pod, Container: p.Server.Container, Engine: p.Found.Engine, Version: p.Found.Version}
	return doc
}

func (r *restoring) plannedLoad(p restore.LoadPlan) loadDoc {
	doc := r.newLoadDocument(p)
	doc.Result = "DryRun"
	for _, s := range p.Steps {
		item := itemOfStep(s)
		item.State = statePlanned
		doc.Items = append(doc.Items, item)
	}
	return doc
}

func (r *restoring) loadDocument(p restore.LoadPlan, outcomes []restore.LoadOutcome, err error) loadDoc {
	doc := r.newLoadDocument(p)
	doc.failure = err
	loaded := 0
	for _, o := range outcomes {
		item := itemOfStep(o.Step)
		item.State, item.Seconds = string(o.State), int64(o.Took.Seconds())
		item.blame(o.Err)
		doc.Items = append(doc.Items, item)
		if o.State == restore.Loaded {
			loaded++
		}
	}
	doc.blame(err)
	doc.ExitCode = exitCode(err)
	doc.Result = "Ok"
	switch {
	case err != nil && loaded > 0:
		doc.Result = "Partial"
	case err != nil:
		doc.Result = "Failed"
	}
	return doc
}

func itemOfStep(s restore.LoadStep) loadItem {
	return loadItem{What: s.Dump.What, From: s.From, Database: s.Into, Bytes: s.Dump.Bytes, SHA256: s.Dump.SHA256}
}

// ending is the document in one line.
func (d loadDoc) ending() ending {
	e := ending{run: d.Run, result: d.Result, exitCode: d.ExitCode, took: d.took, verb: "loaded"}
	for _, item := range d.Items {
		if item.State == string(restore.Loaded) {
			e.done++
		} else {
			e.failed++
		}
	}
	e.summary = fmt.Sprintf("%d of %d parts of the dump loaded in %s", e.done, e.done+e.failed, duration.HumanDuration(d.took))
	return e
}

// printSentences writes what became of each part, for a person.
func (d loadDoc) printSentences(w io.Writer) error {
	for _, item := range d.Items {
		name := item.What
		if item.Database != "" {
			name = "database " + item.Database
		}
		line := fmt.Sprintf("%s %s in pod/%s (%s, dump of %s)", name, map[string]string{
			string(restore.Loaded): "loaded", string(restore.Partial): "is partial", string(restore.Untouched): "untouched", string(restore.Unknown): "not known to be whole",
		}[item.State], d.Server.Pod, size(item.Bytes), d.From.Cut.Format(time.RFC3339))
		if _, err := fmt.Fprintln(w, printable(line)); err != nil {
			return err
		}
	}
	return nil
}
