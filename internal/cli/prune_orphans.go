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

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// The values of --orphans.
const (
	orphansList  = "list"
	orphansSweep = "sweep"
)

// contentResource is how kubectl names a VolumeSnapshotContent in -o name.
const contentResource = "volumesnapshotcontent.snapshot.storage.k8s.io"

// checkOrphans refuses what --orphans has nothing to do with.
func (o *pruneOptions) checkOrphans() error {
	switch {
	case o.orphans == "":
		return nil
	case o.orphans != orphansList && o.orphans != orphansSweep:
		return fmt.Errorf("orphans %q: want list or sweep", o.orphans)
	case o.now || o.unmark != "" || o.markOnly || o.sweepOnly || o.labelPrefix != "":
		return errors.New("--orphans judges nothing by its labels, and goes together with none of --now, --unmark, --mark-only, --sweep-only, --label-prefix")
	}
	return nil
}

// orphanDoc is what `prune --orphans -o json` prints. Fields are only ever added.
type orphanDoc struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Run        catalog.Run  `json:"run"`
	Result     string       `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int          `json:"exitCode"`
	Items      []orphanItem `json:"items"`
	// Why nothing was done at all.
	blamed

	failures []error
}

// orphanItem is one snapshot without a claim, or one content without a snapshot.
type orphanItem struct {
	Namespace string `json:"namespace"`
	Snapshot  string `json:"volumeSnapshot"` // which the content has lost
	Content   string `json:"volumeSnapshotContent,omitempty"`
	Claim     string `json:"pvc"`
	Set       string `json:"set"` // its run
	// Policy is the content's: what becomes of the storage's snapshot with it.
	Policy   string    `json:"deletionPolicy,omitempty"`
	Bytes    int64     `json:"restoreSize,omitempty"`
	Cut      time.Time `json:"cut,omitzero"`
	Decision string    `json:"decision"` // sweep, leave
	Reason   string    `json:"reason"`
	State    string    `json:"state,omitempty"` // Deleted, Kept, PutOff, Stuck, Failed
	blamed

	lost, fit bool // it is a content; one that can be adopted
}

// name is what kubectl calls it.
func (i orphanItem) name() string {
	if i.lost {
		return contentResource + "/" + i.Content
	}
	return snapshotResource + "/" + i.Snapshot
}

// orphaning is one `prune --orphans`.
type orphaning struct {
	*pruning
	found prune.OrphanPlan
}

// runOrphans lists what has lost the object that it belongs to, and where that
// was asked for sweeps it.
func (p *pruning) runOrphans(ctx context.Context) error {
	o := &orphaning{pruning: p}
	doc, err := o.do(ctx)
	p.progress.Close()
	if err != nil {
		doc = o.newDocument()
		doc.failures, doc.Result = split(err), "Failed"
		doc.ExitCode = exitCode(errors.Join(err))
		doc.blame(err)
	}
	if err := o.print(doc); err != nil {
		return err
	}
	if err == nil && !o.lists() {
		o.progress.Result(o.env.Now(), o.ending(doc))
	}
	return p.env.end(doc.failures, doc.ExitCode)
}

// lists reports whether nothing is to be written.
func (o *orphaning) lists() bool { return o.options.orphans == orphansList || o.dry() }

func (o *orphaning) do(ctx context.Context) (doc orphanDoc, err error) {
	if o.cluster, err = o.env.Connect(o.config); err != nil {
		return doc, err
	}
	o.request.MinKeep = o.options.minKeep // who says 0 means the last ones too
	if o.found, err = prune.MakeOrphanPlan(ctx, o.cluster, o.request); err != nil {
		return doc, err
	}
	if o.lists() {
		return o.planned(ctx)
	}
	if o.progress.text() || !o.options.yes {
		o.printPlan(o.env.Err)
	}
	if o.found.Empty() {
		return o.document(prune.OrphanResult{}, nil), nil
	}
	if err := cmp.Or(o.found.Brakes(), permitted(ctx, o.cluster, o.found.Rights(), "")); err != nil {
		return doc, err
	}
	question := fmt.Sprintf("Remove %s, with the storage's snapshots?", o.counted())
	if err := confirm(ctx, o.env, o.options.yes, question, "kubectl backsnap prune --orphans=sweep"+whereFlags(o.request.Scope)); err != nil {
		return doc, err
	}
	held, release, err := o.env.Lock(ctx, o.cluster, o.options.lock(o.request.Run, o.found.Namespaces()))
	if err != nil {
		return doc, err
	}
	result, err := prune.RunOrphans(held, o.cluster, o.env.Now, o.found, o.progress)
	return o.document(result, errors.Join(err, release())), nil
}

// counted is what a sweep takes, in words.
func (o *orphaning) counted() string {
	points, contents := o.found.Sweeps()
	count := func(n int, what string) string {
		if n != 1 {
			what += "s"
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	switch {
	case points == 0:
		return count(contents, "content")
	case contents == 0:
		return count(points, "set")
	}
	return count(points, "set") + " and " + count(contents, "content")
}

func (o *orphaning) newDocument() orphanDoc {
	return orphanDoc{APIVersion: apiVersion, Kind: "OrphanRun", Run: o.request.Run, Items: []orphanItem{}}
}

// items are all orphans, contents first.
func (o *orphaning) items() []orphanItem {
	items := []orphanItem{}
	for _, c := range o.found.Contents {
		items = append(items, orphanItem{
			Namespace: c.Namespace, Snapshot: c.Snapshot, Content: c.Name, Claim: c.Labels[catalog.LabelClaim], Set: c.Labels[catalog.LabelRun], Policy: c.Policy,
			Bytes: c.RestoreSize, Cut: c.Cut, Decision: string(c.Does), Reason: c.Reason, lost: true, fit: c.Fit,
		})
	}
	for _, row := range o.found.Rows {
		for _, s := range row.Snapshots {
			item := orphanItem{
				Namespace: s.Namespace, Snapshot: s.Name, Content: s.Content, Claim: s.Claim, Set: row.Point.Name,
				Bytes: s.RestoreSize, Cut: s.CutAt(), Decision: string(row.Does), Reason: row.Reason,
			}
			if slices.Contains(row.Openly, s.Content) {
				item.Policy = "Retain"
			}
			items = append(items, item)
		}
	}
	return items
}

// planned is the list as a document; with --dry-run=server the server has
// checked the deletions of snapshots.
func (o *orphaning) planned(ctx context.Context) (orphanDoc, error) {
	doc := o.newDocument()
	doc.Items, doc.Result = o.items(), "DryRun"
	if o.options.orphans == orphansSweep && o.options.dryRun == "server" {
		o.plan = o.found.Plan
		if err := o.try(ctx); err != nil {
			return doc, err
		}
	}
	if o.options.exitCode && !o.found.Empty() {
		doc.ExitCode = exitFindings
	}
	return doc, nil
}

// document is what became of a sweep. err belongs to no single orphan.
func (o *orphaning) document(result prune.OrphanResult, err error) orphanDoc {
	doc := o.newDocument()
	doc.Items = o.items()
	usable := false
	for _, item := range slices.Concat(result.Items, result.Contents) {
		i := slices.IndexFunc(doc.Items, func(d orphanItem) bool {
			return d.Namespace == item.Snapshot.Namespace && d.Content == item.Snapshot.Content && d.Snapshot == item.Snapshot.Name
		})
		if i < 0 {
			continue
		}
		d := &doc.Items[i]
		d.State, d.Reason = string(item.Outcome), cmp.Or(item.Reason, d.Reason)
		d.blame(item.Err)
		doc.failures = append(doc.failures, split(item.Err)...)
		usable = usable || item.Err == nil
	}
	doc.failures = append(doc.failures, split(errors.Join(append(result.Errs, err)...))...)
	doc.ExitCode = exitOf(usable, doc.failures)
	doc.Result = resultName(doc.ExitCode, usable)
	return doc
}

// ending is the document in one line.
func (o *orphaning) ending(doc orphanDoc) ending {
	e := ending{run: doc.Run, result: doc.Result, exitCode: doc.ExitCode, took: o.env.Now().Sub(o.started), verb: verbPruned}
	for _, item := range doc.Items {
		switch prune.Outcome(item.State) {
		case prune.Deleted:
			e.done++
		case prune.Stuck, prune.Failed:
			e.failed++
		default:
			e.skipped++
		}
	}
	e.summary = fmt.Sprintf("%d of %d orphans removed in %s", e.done, len(doc.Items), span(e.took))
	return e
}

// print writes the result.
func (o *orphaning) print(doc orphanDoc) error {
	human := o.options.output.human()
	switch {
	case o.printer != nil:
		return printDocument(o.env.Out, o.printer, doc)
	case doc.Error != "":
		return nil
	case doc.Result == "DryRun" && human:
		o.printPlan(o.env.Out)
		return nil
	}
	for _, item := range doc.Items {
		if doc.Result != "DryRun" && item.State != string(prune.Deleted) {
			continue
		}
		line := item.name()
		if human {
			line += " deleted"
		}
		if _, err := fmt.Fprintln(o.env.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// printPlan writes the orphans as a table, and what may be done with them.
func (o *orphaning) printPlan(w io.Writer) {
	items := o.items()
	if len(items) == 0 {
		fmt.Fprintln(w, "nothing has lost its claim or its snapshot")
		return
	}
	table := printers.GetNewTabWriter(w)
	fmt.Fprintln(table, strings.Join([]string{"NAMESPACE", "CLAIM", "SNAPSHOT SET", "ORPHAN", "AGE", "POLICY", "SWEEP", "BECAUSE"}, "\t"))
	for _, item := range items {
		age, sweep := "-", "yes"
		if !item.Cut.IsZero() {
			age = duration.HumanDuration(o.started.Sub(item.Cut))
		}
		if item.Decision != string(retention.Sweep) {
			sweep = "no"
		}
		kind := "vs/" + item.Snapshot
		if item.lost {
			kind = "content/" + item.Content
		}
		cells := []string{item.Namespace, cmp.Or(item.Claim, "-"), cmp.Or(item.Set, "-"), kind, age, cmp.Or(item.Policy, "-"), sweep, item.Reason}
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	table.Flush()
	if o.options.orphans == orphansSweep {
		return
	}
	where := whereFlags(o.request.Scope)
	if i := slices.IndexFunc(items, func(i orphanItem) bool { return i.fit }); i >= 0 {
		fmt.Fprintf(w, "Have a snapshot again:   kubectl backsnap adopt %s\n", printable(items[i].Content))
	}
	if !o.found.Empty() {
		fmt.Fprintf(w, "Remove %s:   kubectl backsnap prune --orphans=sweep%s\n", o.counted(), where)
	}
}
