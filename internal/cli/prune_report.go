package cli

import (
	"cmp"
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

// pruneDoc is what `prune -o json` prints. Fields are only ever added.
type pruneDoc struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`
	Result     string      `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Policy     string      `json:"keep"`
	Items      []pruneItem `json:"items"`
	Notes      []string    `json:"notes,omitempty"`
	// Why nothing was done at all.
	blamed

	failures []error
	took     time.Duration
}

// pruneItem is one restore point.
type pruneItem struct {
	Namespace   string              `json:"namespace"`
	App         string              `json:"app,omitempty"`
	Repository  string              `json:"repository,omitempty"` // of copies; without one it is of snapshots
	Set         string              `json:"set"`                  // its run, or the name of its snapshot where it is of none
	KeptAs      string              `json:"keptAs,omitempty"`
	Cut         time.Time           `json:"cut,omitzero"`
	State       string              `json:"state"`
	Consistency catalog.Consistency `json:"consistency,omitempty"`
	Decision    string              `json:"decision"` // keep, mark, marked, unmark, sweep, leave
	Reason      string              `json:"reason"`
	When        time.Time           `json:"sweptAfter,omitzero"`
	// Openly are the contents whose deletion policy Retain is made Delete.
	Openly    []string        `json:"deletionPolicyChanged,omitempty"`
	Snapshots []pruneSnapshot `json:"snapshots"`
	blamed
}

// pruneSnapshot is one snapshot of a restore point.
type pruneSnapshot struct {
	Name   string `json:"volumeSnapshot"`
	Claim  string `json:"pvc"`
	Copy   string `json:"resticSnapshot,omitempty"`
	State  string `json:"state,omitempty"` // Deleted, Marked, Unmarked, Kept, PutOff, Stuck, Failed; of copies Forgotten too
	Reason string `json:"reason,omitempty"`
	blamed
}

func (i pruneItem) marked() bool {
	return slices.ContainsFunc(i.Snapshots, func(s pruneSnapshot) bool { return s.State == string(prune.Marked) })
}

func (p *pruning) newDocument() pruneDoc {
	return pruneDoc{
		APIVersion: apiVersion, Kind: "PruneRun", Run: p.request.Run, Policy: p.request.Policy.String(), Items: []pruneItem{},
		Notes: p.notes(), took: p.env.Now().Sub(p.started),
	}
}

// notes are what a person should know of how the plan was made.
func (p *pruning) notes() []string {
	var notes []string
	if p.note != "" {
		notes = append(notes, p.note)
	}
	costs := map[string]string{
		catalog.KindNamespaces: "annotations of namespaces are not seen",
		prune.KindContents:     "a content that is retained stays, and whether the storage lets go of others is not seen",
	}
	for _, kind := range p.plan.Unread {
		notes = append(notes, fmt.Sprintf("you may not read %s: %s", kind, costs[kind]))
	}
	for _, content := range p.plan.Back {
		notes = append(notes, fmt.Sprintf("content %s is retained again: a run that died was about to sweep it", content.Name))
	}
	for _, content := range p.plan.Left {
		notes = append(notes, fmt.Sprintf("content %s goes: a run that died has deleted its snapshot", content.Name))
	}
	if n := len(p.plan.Drift); n > 0 {
		notes = append(notes, fmt.Sprintf("labels of %d contents are brought in line with those of their snapshots", n))
	}
	return append(notes, p.left.notes()...)
}

func pruneItemOf(r prune.Row) pruneItem {
	item := pruneItem{
		Namespace: r.Point.Namespace, App: r.Point.App, Set: r.Point.Name, KeptAs: r.KeptAs, Cut: r.Point.Cut, State: string(r.Point.State),
		Consistency: r.Point.Consistency, Decision: string(r.Does), Reason: r.Reason, When: r.When, Openly: r.Openly, Snapshots: []pruneSnapshot{},
	}
	for _, s := range r.Snapshots {
		item.Snapshots = append(item.Snapshots, pruneSnapshot{Name: s.Name, Claim: s.Claim})
	}
	item.blame(r.Err)
	return item
}

// planned is the plan as a document.
func (p *pruning) planned() pruneDoc {
	doc := p.newDocument()
	doc.Result = "DryRun"
	for _, r := range p.plan.Rows {
		doc.Items = append(doc.Items, pruneItemOf(r))
	}
	doc.failures = append(slices.Clone(p.plan.Bad), p.copies.report(&doc)...)
	doc.ExitCode = exitOf(true, doc.failures)
	sets, _ := p.copies.sweeps()
	if doc.ExitCode == exitOK && p.options.exitCode && len(p.plan.Doing(retention.Sweep))+sets > 0 {
		doc.ExitCode = exitFindings
	}
	return doc
}

// document is what became of the plan. err belongs to no single restore point.
func (p *pruning) document(result prune.Result, err error) pruneDoc {
	doc := p.newDocument()
	done := map[string]prune.Item{}
	usable := true
	for _, item := range result.Items {
		done[item.Snapshot.UID] = item
	}
	for _, r := range p.plan.Rows {
		item := pruneItemOf(r)
		for i, s := range r.Snapshots {
			of, found := done[s.UID]
			if !found {
				continue
			}
			item.Snapshots[i].State, item.Snapshots[i].Reason = string(of.Outcome), of.Reason
			item.Snapshots[i].blame(of.Err)
			doc.failures = append(doc.failures, split(of.Err)...)
		}
		doc.Items = append(doc.Items, item)
	}
	failures := p.copies.report(&doc)
	if len(doc.failures)+len(failures) > 0 {
		usable = slices.ContainsFunc(result.Items, func(i prune.Item) bool { return i.Err == nil }) || slices.ContainsFunc(p.copies.results, prune.CopyResult.Useful)
	}
	doc.failures = append(append(append(doc.failures, p.plan.Bad...), result.Errs...), failures...)
	doc.failures = slices.DeleteFunc(append(doc.failures, split(err)...), func(err error) bool { return err == nil })
	doc.ExitCode = exitOf(usable, doc.failures)
	doc.Result = resultName(doc.ExitCode, usable)
	return doc
}

// ending is the document in one line.
func (d pruneDoc) ending() ending {
	e := ending{run: d.Run, result: d.Result, exitCode: d.ExitCode, took: d.took, verb: verbPruned}
	marked, forgotten := 0, 0
	for _, item := range d.Items {
		for _, s := range item.Snapshots {
			if s.State == stateForgotten {
				forgotten++
			}
			switch prune.Outcome(s.State) {
			case prune.Deleted:
				e.done++
			case prune.Marked:
				marked++
			case prune.Stuck, prune.Failed:
				e.failed++
			case prune.Kept, prune.PutOff:
				e.skipped++
			}
		}
	}
	e.summary = fmt.Sprintf("%d of %d snapshots deleted, %d marked in %s", e.done, e.done+e.failed+e.skipped, marked, span(d.took))
	if forgotten > 0 {
		e.summary += fmt.Sprintf("; %d copies forgotten", forgotten)
		e.done += forgotten
	}
	return e
}

// print writes the result.
func (p *pruning) print(doc pruneDoc) error {
	switch {
	case p.printer != nil:
		return printDocument(p.env.Out, p.printer, doc)
	case doc.Result == "DryRun" && p.options.output.human():
		p.printPlan(p.env.Out)
		return nil
	}
	words := map[string]string{string(prune.Deleted): "deleted", string(prune.Marked): "marked", string(prune.Unmarked): "unmarked"}
	for _, item := range doc.Items {
		for _, s := range item.Snapshots {
			word := words[s.State]
			if doc.Result == "DryRun" && item.Decision == string(retention.Sweep) {
				word = "deleted"
			}
			if item.Repository != "" {
				word = copyStates[s.State]
			}
			if word == "" {
				continue
			}
			line := fmt.Sprintf("%s/%s %s", snapshotResource, s.Name, word)
			if p.options.output.format == "name" {
				line = fmt.Sprintf("%s/%s", snapshotResource, s.Name)
			}
			if item.Repository != "" {
				line = copyLine(item.Repository, s.Copy, word, p.options.output.format == "name")
			}
			if _, err := fmt.Fprintln(p.env.Out, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// printRefused shows the plan that a brake has stopped.
func (p *pruning) printRefused() {
	if len(p.plan.Rows) > 0 && p.progress.text() {
		p.printPlan(p.env.Err)
	}
}

// printPlan writes the plan as a table.
func (p *pruning) printPlan(w io.Writer) {
	p.printRows(w, p.plan.Rows)
	if len(p.plan.Rows) > 0 {
		fmt.Fprintln(w, p.summary(p.plan.Rows, "snapshots"))
	}
	for _, note := range p.notes() {
		fmt.Fprintf(w, "note: %s\n", printable(note))
	}
	p.printCopyPlans(w)
}

// printRows writes the rows of one table.
func (p *pruning) printRows(w io.Writer, rows []prune.Row) {
	if len(rows) == 0 {
		fmt.Fprintln(w, "no restore point is selected")
		return
	}
	differ := func(of func(prune.Row) string) bool {
		return slices.ContainsFunc(rows, func(r prune.Row) bool { return of(r) != of(rows[0]) })
	}
	columns := []pruneColumn{}
	for _, c := range pruneColumns {
		if !c.several || differ(c.value(p)) {
			columns = append(columns, c)
		}
	}
	table := printers.GetNewTabWriter(w)
	line := func(cell func(pruneColumn) string) {
		var cells []string
		for _, c := range columns {
			cells = append(cells, printable(cell(c)))
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	line(func(c pruneColumn) string { return c.name })
	for _, r := range rows {
		line(func(c pruneColumn) string { return cmp.Or(c.value(p)(r), "-") })
	}
	table.Flush()
}

// pruneColumn is one of the table; several ones are left out where all rows say
// the same.
type pruneColumn struct {
	name    string
	several bool
	value   func(*pruning) func(prune.Row) string
}

func plainColumn(value func(prune.Row) string) func(*pruning) func(prune.Row) string {
	return func(*pruning) func(prune.Row) string { return value }
}

var pruneColumns = []pruneColumn{
	{"NAMESPACE", true, plainColumn(func(r prune.Row) string { return r.Point.Namespace })},
	{"APP", true, plainColumn(func(r prune.Row) string { return r.Point.App })},
	{"SNAPSHOT SET", false, plainColumn(func(r prune.Row) string { return r.Point.Name })},
	{"KEPT AS", false, plainColumn(func(r prune.Row) string { return r.KeptAs })},
	{"AGE", false, func(p *pruning) func(prune.Row) string {
		return func(r prune.Row) string {
			if r.Point.Cut.IsZero() {
				return ""
			}
			return duration.HumanDuration(p.started.Sub(r.Point.Cut))
		}
	}},
	{"STATE", false, plainColumn(stateOf)},
	{"DECISION", false, plainColumn(func(r prune.Row) string { return string(r.Does) })},
	{"BECAUSE", false, plainColumn(func(r prune.Row) string {
		if len(r.Openly) > 0 {
			return r.Reason + "; deletionPolicy Retain is made Delete"
		}
		return r.Reason
	})},
}

// stateOf is how good a restore point is, in a word or two.
func stateOf(r prune.Row) string {
	if r.Point.State != retention.Good {
		return string(r.Point.State)
	}
	text := map[catalog.Consistency]string{catalog.Application: "app"}[r.Point.Consistency]
	text = cmp.Or(text, string(r.Point.Consistency), string(r.Point.State))
	if len(r.Snapshots) > 0 && !slices.ContainsFunc(r.Snapshots, func(s catalog.Snapshot) bool { return s.Proof == nil }) {
		text += ", proven"
	}
	return text
}

// summary is a plan in one line; what is what its rows are made of.
func (p *pruning) summary(rows []prune.Row, what string) string {
	count, snapshots := map[retention.Decision]int{}, 0
	protected := false
	for _, r := range rows {
		count[r.Does]++
		protected = protected || r.Does == retention.Keep && r.Point.State == retention.Good
		if r.Does == retention.Sweep {
			snapshots += len(r.Snapshots)
		}
	}
	text := fmt.Sprintf("%d sets: keep %d, mark %d, sweep %d", len(rows), count[retention.Keep], count[retention.Mark], count[retention.Sweep])
	if snapshots > 0 {
		text += fmt.Sprintf(" (%d %s)", snapshots, what)
	}
	for _, d := range []retention.Decision{retention.Marked, retention.Unmark, retention.Leave} {
		if count[d] > 0 {
			text += fmt.Sprintf(", %s %d", d, count[d])
		}
	}
	text += "."
	if protected {
		text += " Newest good set stays."
	}
	return text
}
