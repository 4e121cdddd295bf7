package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// report is what `snapshot -o json` prints: one document at the end, also
// after a failure. Fields are only ever added.
type report struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`
	Result     string      `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Items      []itemDoc   `json:"items"`

	failures []error
	took     time.Duration
}

// itemDoc is one claim in a report.
type itemDoc struct {
	Namespace   string              `json:"namespace"`
	App         string              `json:"app,omitempty"`
	Claim       string              `json:"pvc"`
	State       string              `json:"state"` // Protected, Failed, Skipped, Planned
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
	Error       string              `json:"error,omitempty"`
	Code        catalog.Code        `json:"code,omitempty"`
	Next        string              `json:"next,omitempty"`
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
	r := report{APIVersion: apiVersion, Kind: "SnapshotRun", Run: result.Run, took: s.env.Now().Sub(s.started)}
	usable := false
	said := map[error]bool{}
	for _, item := range result.Items {
		doc := itemDocument(item)
		for _, o := range outcomes {
			if o.Copy.Snapshot.Namespace == item.Namespace && o.Copy.Snapshot.Claim == item.Claim {
				doc.Copies = append(doc.Copies, copyDocument(o))
			}
		}
		r.Items = append(r.Items, doc)
		usable = usable || item.Outcome == snapshot.Protected
		r.fail(said, item.Err)
	}
	for _, o := range outcomes {
		r.fail(said, o.Err)
	}
	r.fail(said, extra)
	r.ExitCode = exitOf(usable, r.failures)
	r.Result = resultName(r.ExitCode, usable)
	return r
}

// fail notes each error once, however many claims it struck.
func (r *report) fail(said map[error]bool, err error) {
	if err == nil || said[err] {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			r.fail(said, e)
		}
		return
	}
	said[err] = true
	r.failures = append(r.failures, err)
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
func (d *itemDoc) blame(err error) {
	if err == nil {
		return
	}
	d.Error, d.Code = err.Error(), catalog.CodeOf(err)
	var f *catalog.Failure
	if errors.As(err, &f) {
		d.Next = f.Next
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

// dryReport is the plan as a report.
func (s *session) dryReport() report {
	r := report{APIVersion: apiVersion, Kind: "SnapshotRun", Run: s.request.Run, Result: "DryRun"}
	said := map[error]bool{}
	for _, app := range s.cuts.Apps {
		for _, v := range app.Volumes {
			doc := itemDoc{Namespace: app.Namespace, App: app.Name, Claim: v.Claim.Name, State: "Planned", Snapshot: v.Name, Class: v.Class, Reason: app.Reason,
				DeleteAfter: v.Retain.DeleteAfter(s.started.In(s.request.Zone))}
			if app.Hook != nil {
				doc.Plugin = app.Hook.Plugin.Name
				for _, c := range app.Hook.Candidates {
					doc.Pods = append(doc.Pods, c.Pod)
				}
			}
			for _, c := range s.copies.Copies {
				if c.Snapshot.Namespace == app.Namespace && c.Snapshot.Claim == v.Claim.Name {
					doc.Copies = append(doc.Copies, copyDoc{Repository: c.Repository.Name, State: "Planned"})
				}
			}
			doc.blame(app.Err)
			r.Items = append(r.Items, doc)
		}
		r.fail(said, app.Err)
	}
	for _, skip := range s.cuts.Skips {
		r.Items = append(r.Items, itemDoc{Namespace: skip.Claim.Namespace, Claim: skip.Claim.Name, State: string(snapshot.Skipped),
			Reason: skip.Reason, Code: skip.Code, Next: skip.Next})
	}
	r.ExitCode = exitOf(s.cuts.Volumes() > 0, r.failures)
	return r
}

// printNames writes what was made, as kubectl takes it.
func (r report) printNames(w io.Writer) error {
	for _, item := range r.Items {
		if item.State == string(snapshot.Protected) || item.State == "Planned" {
			if _, err := fmt.Fprintf(w, "%s/%s\n", snapshotResource, item.Snapshot); err != nil {
				return err
			}
		}
	}
	return nil
}

// printSentences writes what was made, for a person.
func (r report) printSentences(w io.Writer) error {
	for _, item := range r.Items {
		if item.State != string(snapshot.Protected) {
			continue
		}
		words := []string{consistencyWords[item.Consistency]}
		for _, c := range item.Copies {
			if c.Snapshot != "" && c.Error == "" {
				words = append(words, "off-site "+short(c.Snapshot))
			}
		}
		if _, err := fmt.Fprintf(w, "%s/%s created (%s)\n", snapshotResource, item.Snapshot, strings.Join(words, ", ")); err != nil {
			return err
		}
	}
	return nil
}

var consistencyWords = map[catalog.Consistency]string{
	catalog.Application: "app-consistent",
	catalog.Crash:       "crash-consistent",
	catalog.Fuzzy:       "fuzzy",
}

// summary is the whole run in one line.
func (r report) summary() string {
	protected, wanted := 0, 0
	var added int64
	for _, item := range r.Items {
		if item.State != string(snapshot.Skipped) || item.Code != "" {
			wanted++
		}
		if item.State == string(snapshot.Protected) {
			protected++
		}
		for _, c := range item.Copies {
			added += c.Added
		}
	}
	text := fmt.Sprintf("%d of %d volumes protected in %s", protected, wanted, span(r.took))
	if added > 0 {
		text += fmt.Sprintf(", %s new data stored", size(added))
	}
	return text
}
