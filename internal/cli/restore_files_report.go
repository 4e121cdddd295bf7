package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// filesDoc is what `restore --to-dir` and `restore --dump-to` print with
// -o json: one document at the end, also after a failure. Fields are only ever
// added.
type filesDoc struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`
	Result     string      `json:"result"` // Ok, Partial, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Source     sourceDoc   `json:"source"`
	Items      []filesItem `json:"items"`
	// Why nothing was done at all.
	blamed

	failures []error
	took     time.Duration
}

// filesItem is what comes of one volume.
type filesItem struct {
	Namespace string        `json:"namespace"`
	Claim     string        `json:"pvc"`
	State     string        `json:"state"` // Brought, Failed, Planned
	To        string        `json:"to"`    // folder of this machine
	Paths     []string      `json:"paths,omitempty"`
	Files     int64         `json:"files"`
	Bytes     int64         `json:"bytes"`
	Dumps     []dumpFileDoc `json:"dumps,omitempty"`
	From      fromDoc       `json:"from"`
	Notes     []string      `json:"notes,omitempty"`
	// Left is what could not be removed of what was made on the way.
	Left string `json:"left,omitempty"`
	blamed
}

// dumpFileDoc is one dump.
type dumpFileDoc struct {
	What   string `json:"what"`
	File   string `json:"file,omitempty"` // of this machine
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// stateBrought is that of files that have come.
const stateBrought = "Brought"

func (r *restoring) newFilesDocument() filesDoc {
	doc := r.newDocument()
	return filesDoc{APIVersion: doc.APIVersion, Kind: "RestoreFiles", Run: doc.Run, Source: doc.Source, Items: []filesItem{}, took: doc.took}
}

func (r *restoring) filesItem(v restore.Volume) filesItem {
	s := itemOf(v)
	item := filesItem{Namespace: v.Snapshot.Namespace, Claim: v.Snapshot.Claim, To: v.To, Paths: r.request.Paths, From: s.From, Notes: v.Notes}
	for _, d := range v.Dumps {
		item.Dumps = append(item.Dumps, dumpFileDoc{What: d.What, Bytes: d.Bytes, SHA256: d.SHA256})
	}
	return item
}

// plannedFiles is the plan as a document.
func (r *restoring) plannedFiles() filesDoc {
	doc := r.newFilesDocument()
	doc.Result = "DryRun"
	for _, v := range r.plan.Volumes {
		item := r.filesItem(v)
		item.State = statePlanned
		doc.Items = append(doc.Items, item)
	}
	doc.lack(r.plan)
	doc.ExitCode = exitOf(true, doc.failures)
	return doc
}

// filesDocument puts together what has come of every volume.
func (r *restoring) filesDocument(brought []restore.Brought, err error) filesDoc {
	doc := r.newFilesDocument()
	usable := false
	for _, b := range brought {
		item := r.filesItem(b.Volume)
		item.State, item.Files, item.Bytes = stateBrought, b.Files, b.Bytes
		item.Notes = append(item.Notes, b.Notes...)
		for i, file := range b.Dumps {
			item.Dumps[i].File = file
		}
		if b.Err != nil {
			item.State = string(restore.Failed)
			item.blame(b.Err)
		}
		if b.Left != nil {
			item.Left = b.Left.Error()
		}
		doc.Items = append(doc.Items, item)
		usable = usable || b.Err == nil
	}
	doc.failures = split(err)
	doc.lack(r.plan)
	doc.ExitCode = exitOf(usable, doc.failures)
	doc.Result = resultName(doc.ExitCode, usable)
	return doc
}

// ending is the document in one line.
func (d filesDoc) ending() ending {
	e := ending{run: d.Run, result: d.Result, exitCode: d.ExitCode, took: d.took, verb: verbRestored}
	for _, item := range d.Items {
		if item.State == stateBrought {
			e.done++
		} else {
			e.failed++
		}
	}
	e.summary = fmt.Sprintf("files of %d of %d volumes brought in %s", e.done, e.done+e.failed, span(d.took))
	return e
}

// printSentences writes what has come, for a person.
func (d filesDoc) printSentences(w io.Writer) error {
	for _, item := range d.Items {
		if item.State != stateBrought {
			continue
		}
		from := "snapshot " + item.From.Snapshot
		if item.From.Copy != "" {
			from = fmt.Sprintf("copy %s in %s", short(item.From.Copy), item.From.Repository)
		}
		text := ""
		for _, dump := range item.Dumps {
			text += fmt.Sprintf("%s: %s, %s, SHA-256 as recorded (%s)\n", printable(dump.File), printable(dump.What), size(dump.Bytes), from)
		}
		if len(item.Dumps) == 0 {
			text = fmt.Sprintf("%s: %d files, %s (%s)\n", printable(item.To+string(filepath.Separator)), item.Files, size(item.Bytes), from)
		}
		for _, note := range item.Notes {
			text += "  note: " + note + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}
