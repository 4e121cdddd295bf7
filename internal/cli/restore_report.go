package cli

import (
	"fmt"
	"io"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// claimResource is how kubectl names a claim in -o name.
const claimResource = "persistentvolumeclaim"

// restoreDoc is what `restore -o json` prints: one document at the end, also
// after a failure. Fields are only ever added.
type restoreDoc struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Run        catalog.Run   `json:"run"`
	Result     string        `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int           `json:"exitCode"`
	Source     sourceDoc     `json:"source"`
	Items      []restoreItem `json:"items"`
	// Made is the namespace that was made for the claims.
	Made string `json:"namespaceCreated,omitempty"`
	// Why nothing was done at all.
	blamed

	failures []error
	took     time.Duration
}

// sourceDoc is what was asked for.
type sourceDoc struct {
	Namespace string     `json:"namespace"`
	Target    string     `json:"target"`
	At        *time.Time `json:"at,omitempty"` // absent for the latest
	From      string     `json:"from"`
	// Cluster is the other one that made the copies; Repositories are those
	// that were listed.
	Cluster      string   `json:"cluster,omitempty"`
	Repositories []string `json:"repositories,omitempty"`
}

// restoreItem is one new claim.
type restoreItem struct {
	Namespace    string   `json:"namespace"`
	Claim        string   `json:"pvc"`
	State        string   `json:"state"` // Restored, Failed, Planned
	Bound        bool     `json:"bound"`
	StorageClass string   `json:"storageClass"`
	Size         int64    `json:"size"`
	From         fromDoc  `json:"from"`
	Bytes        int64    `json:"bytes,omitempty"` // written by a mover
	Files        int64    `json:"files,omitempty"`
	Notes        []string `json:"notes,omitempty"`
	// Left is what could not be removed of what was made on the way.
	Left string `json:"left,omitempty"`
	blamed
}

// fromDoc is what a claim was restored from.
type fromDoc struct {
	Run         catalog.Run         `json:"run"`
	App         string              `json:"app"`
	Claim       string              `json:"pvc"`
	Snapshot    string              `json:"volumeSnapshot"`
	Cut         time.Time           `json:"cut,omitzero"`
	Consistency catalog.Consistency `json:"consistency"`
	Repository  string              `json:"repository,omitempty"`
	Copy        string              `json:"resticSnapshot,omitempty"`
}

func (r *restoring) newDocument() restoreDoc {
	q := r.request
	doc := restoreDoc{
		APIVersion: apiVersion, Kind: "RestoreRun", Run: q.Run, Items: []restoreItem{}, took: r.env.Now().Sub(r.started),
		Source: sourceDoc{
			Namespace: q.Target.Namespace, Target: q.Target.String(), From: q.From.String(), Cluster: q.Cluster, Repositories: r.plan.Asked.Repositories,
		},
	}
	if r.made {
		doc.Made = r.plan.ToNamespace
	}
	if !q.At.IsZero() {
		at := q.At.UTC()
		doc.Source.At = &at
	}
	return doc
}

// planned is the plan as a document.
func (r *restoring) planned() restoreDoc {
	doc := r.newDocument()
	doc.Result = "DryRun"
	for _, v := range r.plan.Volumes {
		item := itemOf(v)
		item.State = statePlanned
		doc.Items = append(doc.Items, item)
	}
	doc.lack(r.plan)
	doc.ExitCode = exitOf(true, doc.failures)
	return doc
}

// document puts together what became of every claim.
func (r *restoring) document(outcomes []restore.Outcome, err error) restoreDoc {
	doc := r.newDocument()
	usable := false
	for _, o := range outcomes {
		item := itemOf(o.Volume)
		item.State, item.Bound, item.Bytes, item.Files = string(o.State), o.Bound, o.Bytes, o.Files
		item.blame(o.Err)
		if o.Left != nil {
			item.Left = o.Left.Error()
		}
		doc.Items = append(doc.Items, item)
		usable = usable || o.State == restore.Restored
	}
	doc.failures = split(err)
	doc.lack(r.plan)
	doc.ExitCode = exitOf(usable, doc.failures)
	doc.Result = resultName(doc.ExitCode, usable)
	return doc
}

func itemOf(v restore.Volume) restoreItem {
	s := v.Snapshot
	item := restoreItem{
		Namespace: v.Claim.Namespace, Claim: v.Claim.Name, StorageClass: v.Claim.StorageClass, Size: v.Claim.Request, Notes: v.Notes,
		From: fromDoc{Run: s.Run, App: s.App(), Claim: s.Claim, Snapshot: s.Name, Cut: s.CutAt().UTC(), Consistency: s.Consistency},
	}
	if v.Copy != nil {
		item.From.Repository, item.From.Copy = v.Copy.Repository, v.Copy.Snapshot
	}
	return item
}

// ending is the document in one line.
func (d restoreDoc) ending() ending {
	e := ending{run: d.Run, result: d.Result, exitCode: d.ExitCode, took: d.took, verb: verbRestored}
	for _, item := range d.Items {
		if item.State == string(restore.Restored) {
			e.done++
		} else {
			e.failed++
		}
	}
	e.summary = fmt.Sprintf("%d of %d volumes restored in %s", e.done, e.done+e.failed, span(d.took))
	return e
}

// printNames writes what was made, as kubectl takes it.
func (d restoreDoc) printNames(w io.Writer) error {
	for _, item := range d.Items {
		if item.State == string(restore.Failed) {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s/%s\n", claimResource, item.Claim); err != nil {
			return err
		}
	}
	return nil
}

// printSentences writes what was made, for a person.
func (d restoreDoc) printSentences(w io.Writer, elsewhere bool) error {
	if d.Made != "" {
		if _, err := fmt.Fprintf(w, "namespace/%s created\n", d.Made); err != nil {
			return err
		}
	}
	for _, item := range d.Items {
		if item.State != string(restore.Restored) {
			continue
		}
		where, from := "", "snapshot "+item.From.Snapshot
		if elsewhere {
			where = " in " + item.Namespace
		}
		if item.From.Copy != "" {
			from = fmt.Sprintf("copy %s in %s, %d files, %s", short(item.From.Copy), item.From.Repository, item.Files, size(item.Bytes))
		}
		if !item.Bound {
			from += "; bound when a pod mounts it"
		}
		if _, err := fmt.Fprintf(w, "%s/%s created%s (%s)\n", claimResource, item.Claim, where, from); err != nil {
			return err
		}
	}
	return nil
}

// shownSets is how many newer sets a plan names.
const shownSets = 3

// printFound writes what was found.
func (r *restoring) printFound(w io.Writer) {
	p := r.plan
	fmt.Fprintf(w, "Plan  context %s, namespace %s, run %s\n", contextName(r.config), p.ToNamespace, p.Run)
	r.printSource(w)
	for _, chosen := range p.Chosen {
		fmt.Fprintf(w, "  found     %s  %s  cut %s, %s%s\n", chosen.Set.Run, chosen.Set.App, chosen.Cut.UTC().Format(time.RFC3339), r.distance(chosen), r.without(chosen))
	}
	for _, passed := range p.Passed[:min(shownSets, len(p.Passed))] {
		fmt.Fprintf(w, "  newer     %s  not taken: %s\n", passed.Run, printable(passed.Reason))
	}
	if more := len(p.Passed) - shownSets; more > 0 {
		fmt.Fprintf(w, "  newer     and %d more\n", more)
	}
	r.printLacking(w)
}

// printPlan writes what was found, and what will be made of it.
func (r *restoring) printPlan(w io.Writer) {
	r.printFound(w)
	for _, v := range r.plan.Volumes {
		fmt.Fprintf(w, "  %s -> %s/%s  %s  class %s  from %s\n", v.Snapshot.Claim, v.Claim.Namespace, v.Claim.Name, size(v.Claim.Request), v.Claim.StorageClass, fromText(v))
		for _, note := range v.Notes {
			fmt.Fprintf(w, "    note    %s\n", note)
		}
	}
	fmt.Fprintln(w)
}

// distance says how far the set is from what was asked for, and how good it is.
func (r *restoring) distance(chosen restore.Chosen) string {
	text := duration.HumanDuration(r.started.Sub(chosen.Cut)) + " old"
	if at := r.request.At; !at.IsZero() {
		text = duration.HumanDuration(at.Sub(chosen.Cut)) + " before the time asked"
	}
	var words []string
	for _, point := range chosen.Points {
		words = append(words, consistencyWords[point.Snapshot.Consistency])
	}
	slices.Sort(words)
	for _, word := range slices.Compact(words) {
		text += ", " + word
	}
	return text
}

func fromText(v restore.Volume) string {
	if v.Copy != nil {
		return fmt.Sprintf("copy %s in %s, %s", short(v.Copy.Snapshot), v.Copy.Repository, size(v.Copy.Bytes))
	}
	return "snapshot " + v.Snapshot.Name
}
