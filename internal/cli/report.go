package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// report is what `snapshot -o json` and `copy -o json` print: one document at
// the end, also after a failure. Fields are only ever added.
type report struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`
	Result     string      `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Items      []itemDoc   `json:"items"`
	// Why nothing was done at all.
	blamed

	failures []error
	took     time.Duration
}

// itemDoc is one claim in a report of `snapshot`, one snapshot in one of `copy`.
type itemDoc struct {
	Namespace   string              `json:"namespace"`
	App         string              `json:"app,omitempty"`
	Claim       string              `json:"pvc"`
	State       string              `json:"state"` // Protected, Copied, Detached, Failed, Skipped, Planned
	Snapshot    string              `json:"volumeSnapshot,omitempty"`
	Class       string              `json:"volumeSnapshotClass,omitempty"`
	Plugin      string              `json:"plugin,omitempty"`
	Pods        []string            `json:"pods,omitempty"`
	Consistency catalog.Consistency `json:"consistency,omitempty"`
	Dump        *dumpDoc            `json:"dump,omitempty"`
	Copies      []copyDoc           `json:"copies,omitempty"`
	DeleteAfter string              `json:"deleteAfter,omitempty"`
	Cut         *time.Time          `json:"cut,omitempty"`
	Reason      string              `json:"reason,omitempty"`
	blamed
}

// blamed is the part of a document that says what went wrong.
type blamed struct {
	Error string       `json:"error,omitempty"`
	Code  catalog.Code `json:"code,omitempty"`
	Next  string       `json:"next,omitempty"`
	// Manifest is what may be applied to mend it.
	Manifest string `json:"manifest,omitempty"`
}

type dumpDoc struct {
	Bytes    int64          `json:"bytes"`
	Verified bool           `json:"verified"`
	Parts    []catalog.Dump `json:"parts"`
}

type copyDoc struct {
	Repository string       `json:"repository"`
	State      string       `json:"state"`
	Snapshot   string       `json:"resticSnapshot,omitempty"`
	Bytes      int64        `json:"bytes,omitempty"`
	Added      int64        `json:"bytesAdded,omitempty"`
	Error      string       `json:"error,omitempty"`
	Code       catalog.Code `json:"code,omitempty"`
}

// report puts together what became of every claim. extra are errors that
// belong to no single claim or copy, or are told by an outcome already.
func (s *session) report(result snapshot.Result, outcomes []offsite.Outcome, extra error) report {
	r := s.newReport()
	usable := false
	for _, item := range result.Items {
		doc := itemDocument(item)
		for _, o := range outcomes {
			if o.Copy.Snapshot.Namespace == item.Namespace && o.Copy.Snapshot.Claim == item.Claim {
				doc.Copies = append(doc.Copies, copyDocument(o))
			}
		}
		r.Items = append(r.Items, doc)
		usable = usable || item.Outcome == snapshot.Protected
		r.fail(item.Err)
	}
	for _, o := range outcomes {
		r.fail(o.Err)
	}
	r.fail(extra)
	r.ExitCode = exitOf(usable, r.failures)
	r.Result = resultName(r.ExitCode, usable)
	return r
}

// fail notes each error that was joined into err once, however many claims it
// struck.
func (r *report) fail(err error) {
	for _, e := range split(err) {
		if !slices.Contains(r.failures, e) {
			r.failures = append(r.failures, e)
		}
	}
}

func resultName(code int, usable bool) string {
	switch {
	case code == exitOK:
		return "Ok"
	case usable:
		return "Partial"
	}
	return "Failed"
}

func itemDocument(item snapshot.Item) itemDoc {
	doc := itemDoc{Namespace: item.Namespace, App: item.App, Claim: item.Claim, State: string(item.Outcome), Reason: item.Reason}
	if s := item.Snapshot; s != nil {
		doc.Snapshot, doc.Class, doc.Consistency, doc.DeleteAfter = s.Name, s.Class, s.Consistency, s.DeleteAfter
		if !s.Cut.IsZero() {
			cut := s.Cut.UTC()
			doc.Cut = &cut
		}
		if rec := s.Record; rec != nil {
			doc.Reason, doc.Plugin, doc.Dump = rec.Reason, rec.Plugin, dumpDocument(rec)
		}
	}
	doc.blame(item.Err)
	return doc
}

// blame puts err into the document with its code and next step.
func (b *blamed) blame(err error) {
	if err == nil {
		return
	}
	b.Error, b.Code = err.Error(), catalog.CodeOf(err)
	var f *catalog.Failure
	if errors.As(err, &f) {
		b.Next, b.Manifest = f.Next, f.Mend()
	}
}

func dumpDocument(rec *catalog.Record) *dumpDoc {
	if len(rec.Dumps) == 0 {
		return nil
	}
	doc := &dumpDoc{Verified: true, Parts: rec.Dumps}
	for _, d := range rec.Dumps {
		doc.Bytes += d.Bytes
	}
	return doc
}

func copyDocument(o offsite.Outcome) copyDoc {
	doc := copyDoc{Repository: o.Copy.Repository.Name, State: string(o.State), Snapshot: o.Result.Snapshot, Bytes: o.Result.Bytes, Added: o.Result.Added}
	if o.Err != nil {
		doc.Error, doc.Code = o.Err.Error(), catalog.CodeOf(o.Err)
	}
	return doc
}

// dryReport is the plan as a report. What is known to fail counts as failed.
func (s *session) dryReport() report {
	r := s.newReport()
	r.Result = "DryRun"
	usable := false
	for _, app := range s.cuts.Apps {
		for _, v := range app.Volumes {
			r.Items = append(r.Items, s.plannedItem(app, v))
		}
		usable = usable || app.Err == nil
		r.fail(app.Err)
	}
	for _, skip := range s.cuts.Skips {
		doc := itemDoc{Namespace: skip.Claim.Namespace, Claim: skip.Claim.Name, State: string(snapshot.Skipped), Reason: skip.Reason}
		doc.blame(skip.Err())
		r.Items = append(r.Items, doc)
		r.fail(skip.Err())
	}
	r.fail(s.uncopied)
	r.ExitCode = exitOf(usable, r.failures)
	return r
}

// plannedItem is one volume of the plan.
func (s *session) plannedItem(app snapshot.App, v snapshot.Volume) itemDoc {
	doc := itemDoc{Namespace: app.Namespace, App: app.Name, Claim: v.Claim.Name, State: statePlanned, Snapshot: v.Name, Class: v.Class, Reason: app.Reason,
		DeleteAfter: v.Retain.DeleteAfter(s.started.In(s.request.Zone))}
	if app.Hook != nil {
		doc.Plugin = app.Hook.Plugin.Name
		for _, c := range app.Hook.Candidates {
			doc.Pods = append(doc.Pods, c.Pod)
		}
	}
	for _, c := range s.copies.Copies {
		if c.Snapshot.Namespace == app.Namespace && c.Snapshot.Claim == v.Claim.Name {
			doc.Copies = append(doc.Copies, copyDoc{Repository: c.Repository.Name, State: statePlanned})
		}
	}
	if app.Err != nil {
		doc.State = string(snapshot.Failed)
		doc.blame(app.Err)
	}
	return doc
}

// statePlanned is the state of what a dry run would make.
const statePlanned = "Planned"

// printNames writes what was made, as kubectl takes it.
func (r report) printNames(w io.Writer) error {
	for _, item := range r.Items {
		if item.done() || item.State == statePlanned {
			if _, err := fmt.Fprintf(w, "%s/%s\n", snapshotResource, item.Snapshot); err != nil {
				return err
			}
		}
	}
	return nil
}

// done reports whether all that was asked for is there.
func (i itemDoc) done() bool { return i.State == string(snapshot.Protected) || i.State == stateCopied }

// printSentences writes what was made, for a person.
func (r report) printSentences(w io.Writer) error {
	several := slices.ContainsFunc(r.Items, func(i itemDoc) bool { return i.Namespace != r.Items[0].Namespace })
	for _, item := range r.Items {
		did, words := "created", item.copyWords()
		if r.copies() {
			did = "copied"
		} else {
			words = append([]string{consistencyWords[item.Consistency]}, words...)
		}
		if len(words) == 0 || !r.copies() && !item.done() {
			continue
		}
		where := ""
		if several {
			where = " in " + item.Namespace
		}
		if _, err := fmt.Fprintf(w, "%s/%s %s%s (%s)\n", snapshotResource, item.Snapshot, did, where, strings.Join(words, ", ")); err != nil {
			return err
		}
	}
	return nil
}

// copyWords says where the copies are that are there.
func (i itemDoc) copyWords() []string {
	var words []string
	for _, c := range i.Copies {
		if c.Error == "" && c.State == string(offsite.Detached) {
			words = append(words, "copy under way to "+c.Repository)
		}
		if c.Snapshot == "" || c.Error != "" {
			continue
		}
		text := "off-site " + short(c.Snapshot)
		if c.State == string(offsite.Known) {
			text += " was there already"
		}
		words = append(words, text)
	}
	return words
}

var consistencyWords = map[catalog.Consistency]string{
	catalog.Application: "app-consistent",
	catalog.Crash:       "crash-consistent",
	catalog.Fuzzy:       "fuzzy",
}

// detached reports whether a mover runs on.
func (r report) detached() bool {
	return slices.ContainsFunc(r.Items, func(i itemDoc) bool {
		return slices.ContainsFunc(i.Copies, func(c copyDoc) bool { return c.State == string(offsite.Detached) })
	})
}

// The kinds of reports.
const (
	kindOfSnapshots = "SnapshotRun"
	kindOfCopies    = "CopyRun"
)

// sums are a report in numbers.
type sums struct {
	done, failed, skipped int
	detached              int // snapshots whose copies are being made
	excluded              int // of skipped, those that somebody asked for
	added                 int64
}

func (r report) sums() sums {
	var n sums
	for _, item := range r.Items {
		switch {
		case item.done():
			n.done++
		case item.State == string(snapshot.Failed):
			n.failed++
		case item.State == string(offsite.Detached):
			n.detached++
		case item.State == string(snapshot.Skipped):
			n.skipped++
			if item.Code == "" {
				n.excluded++
			}
		}
		for _, c := range item.Copies {
			if c.State != string(offsite.Known) {
				n.added += c.Added
			}
		}
	}
	return n
}

// source is what one calls that a snapshot has taken to get it back: its app,
// if it is one that is called so, else the run. "" for nothing, and for a run of
// several namespaces, each of which is restored by itself.
func (r report) source() string {
	source := ""
	for _, item := range r.Items {
		switch {
		case !item.done() || r.copies():
		case item.Namespace != r.Items[0].Namespace:
			return ""
		case source == "" && !strings.Contains(item.App, "+"):
			source = item.App
		case source != item.App:
			source = "run/" + string(r.Run)
		}
	}
	return source
}

// copies reports whether this is the report of a `copy`.
func (r report) copies() bool { return r.Kind == kindOfCopies }

// ending is the report in one line.
func (r report) ending() ending {
	n, verb := r.sums(), verbProtected
	if r.copies() {
		verb = verbCopied
	}
	return ending{
		run: r.Run, result: r.Result, exitCode: r.ExitCode, took: r.took, verb: verb,
		done: n.done, failed: n.failed, skipped: n.skipped, added: n.added, summary: r.summary(),
	}
}

// summary is the whole run in one line.
func (r report) summary() string {
	n, what := r.sums(), "volumes protected"
	if r.copies() {
		what = "snapshots copied"
	}
	text := fmt.Sprintf("%d of %d %s in %s", n.done, n.done+n.failed+n.detached+n.skipped-n.excluded, what, span(r.took))
	if n.added > 0 {
		text += fmt.Sprintf(", %s new data stored", size(n.added))
	}
	return text
}
