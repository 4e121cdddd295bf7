package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// swapDoc is what a restore in place, --rollback and --commit print with
// -o json. Fields are only ever added.
type swapDoc struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Run        catalog.Run `json:"run"`    // whose volumes were exchanged
	Action     string      `json:"action"` // restore, rollback, commit
	Result     string      `json:"result"` // Ok, Failed, DryRun
	ExitCode   int         `json:"exitCode"`
	Namespace  string      `json:"namespace"`
	IntoClaim  bool        `json:"intoClaim,omitempty"` // the volumes stayed
	Source     *sourceDoc  `json:"source,omitempty"`
	Workloads  []swapApp   `json:"workloads"`
	Items      []swapItem  `json:"items"`
	// Downtime is from the first workload that was scaled down until all were
	// ready again; absent where it is not known.
	Downtime float64 `json:"downtimeSeconds,omitempty"`
	// KeptUntil is from when --commit may remove the volumes that are kept.
	KeptUntil *time.Time `json:"keptUntil,omitempty"`
	Notes     []string   `json:"notes,omitempty"`
	blamed
}

type swapApp struct {
	Kind     string `json:"kind"`
	Name     string `json:"name"`
	Replicas int    `json:"replicas"`
}

// swapItem is one claim.
type swapItem struct {
	Namespace string   `json:"namespace"`
	Claim     string   `json:"pvc"`
	State     string   `json:"state"` // Restored, RolledBack, Committed, Planned, Partial, Failed
	Volume    string   `json:"volume,omitempty"`
	Kept      string   `json:"kept,omitempty"` // the volume that is kept, or was removed
	Safety    string   `json:"safetySnapshot,omitempty"`
	From      *fromDoc `json:"from,omitempty"`
	// Bytes and Files are what a copy has brought into the claim's own volume.
	Bytes int64 `json:"bytes,omitempty"`
	Files int64 `json:"files,omitempty"`
}

// doneWords are what was done, as a state of an item and in a sentence.
var doneWords = map[string]struct{ state, sentence string }{
	actionRestore:  {string(restore.Restored), "restored"},
	actionRollback: {"RolledBack", "rolled back"},
	actionCommit:   {"Committed", "committed"},
}

func (s *swapping) newSwapDoc() swapDoc {
	doc := swapDoc{
		APIVersion: apiVersion, Kind: "RestoreRun", Run: s.run, Action: s.action, Namespace: s.namespace, Workloads: []swapApp{}, Items: []swapItem{}, Notes: s.plan.Notes,
	}
	if s.action == actionRestore {
		source := s.newDocument().Source
		doc.Source = &source
	}
	return doc
}

func (d *swapDoc) addApps(run catalog.Run, apps []catalog.App) {
	for _, a := range apps {
		replicas, remembered := a.Remembered(run)
		if !remembered {
			replicas = a.Replicas
		}
		d.Workloads = append(d.Workloads, swapApp{a.Kind, a.Name, replicas})
	}
}

// plannedSwap is the plan as a document.
func (s *swapping) plannedSwap() swapDoc {
	doc := s.newSwapDoc()
	doc.Result = "DryRun"
	doc.addApps(s.run, s.plan.Apps)
	for i := range s.plan.Live {
		item := s.planItem(s.plan.Live[i].Name)
		item.State, item.Volume = statePlanned, s.plan.Live[i].Volume
		doc.Items = append(doc.Items, item)
	}
	return doc
}

// planItem is what the plan says of a claim.
func (s *swapping) planItem(claim string) swapItem {
	item := swapItem{Namespace: s.namespace, Claim: claim}
	for _, v := range s.plan.Volumes {
		if v.Snapshot.Claim == claim {
			item.From = new(itemOf(v).From)
		}
	}
	for _, shot := range s.plan.Safety {
		if shot.Claim == claim {
			item.Safety = shot.Name
		}
	}
	return item
}

// document is what became of it.
func (s *swapping) document(result restore.SwapResult) swapDoc {
	doc := s.newSwapDoc()
	doc.addApps(s.run, result.Swap.Apps)
	doc.Downtime = result.Downtime.Round(time.Millisecond).Seconds()
	doc.KeptUntil = keptUntil(result.Swap)
	for _, p := range result.Swap.Pairs {
		item := s.planItem(p.Claim)
		item.State, item.Volume = string(restore.Failed), p.Live.Volume
		if result.Done {
			item.State = doneWords[s.action].state
		}
		if item.Kept = p.Old.Name; item.Kept == p.Live.Volume {
			item.Kept = p.New.Name
		}
		doc.Items = append(doc.Items, item)
	}
	return doc
}

// end writes the result and what is left to say, and turns the run into its
// exit code.
func (s *swapping) end(doc swapDoc, err error) error {
	doc.ExitCode = exitCode(err)
	if doc.Result == "" {
		doc.Result = resultName(doc.ExitCode, err == nil)
	}
	doc.blame(err)
	return errors.Join(err, s.printSwap(doc, err == nil))
}

func (s *swapping) printSwap(doc swapDoc, done bool) error {
	switch {
	case s.printer != nil:
		return printDocument(s.env.Out, s.printer, doc)
	case !done:
		return nil
	case doc.Result == "DryRun" && s.options.output.human() && len(s.plan.Live) == 0:
		_, err := fmt.Fprintln(s.env.Out, strings.Join(doc.Notes, "; ")+": it would be finished")
		return err
	case doc.Result == "DryRun" && s.options.output.human():
		s.printSwapPlan(s.env.Out)
		return nil
	}
	if err := doc.printDone(s.env.Out, s.options.output.format == "name"); err != nil {
		return err
	}
	if s.progress.text() {
		doc.printNext(s.env.Err)
	}
	return nil
}

// printDone names what was done.
func (d swapDoc) printDone(w io.Writer, nameOnly bool) error {
	var names []string
	for _, a := range d.Workloads {
		names = append(names, fmt.Sprintf("%s.apps/%s", a.Kind, a.Name))
	}
	if len(names) == 0 {
		for _, item := range d.Items {
			names = append(names, claimResource+"/"+item.Claim)
		}
	}
	var errs []error
	for _, name := range names {
		if !nameOnly {
			name += " " + doneWords[d.Action].sentence
		}
		_, err := fmt.Fprintln(w, name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// printNext says how long it was away, and what can be done now.
func (d swapDoc) printNext(w io.Writer) {
	if d.Downtime > 0 {
		fmt.Fprintf(w, "Downtime %.1fs, from scaled down to ready\n", d.Downtime)
	}
	switch d.Action {
	case actionRestore:
		fmt.Fprintf(w, "Undo:  kubectl backsnap restore --rollback %s -n %s\n", d.Run, d.Namespace)
		fmt.Fprintf(w, "Keep:  kubectl backsnap restore --commit %s -n %s   (removes the old volumes%s)\n", d.Run, d.Namespace, d.from())
	case actionRollback:
		if len(d.Items) == 0 || d.Items[0].Kept == "" { // no volume was exchanged
			return
		}
		fmt.Fprintf(w, "Keep:  kubectl backsnap restore --commit %s -n %s   (removes the volumes that the run had made%s)\n", d.Run, d.Namespace, d.from())
	}
}

// keptUntil is when the grace of what is kept is over; nil where it has none.
func keptUntil(swap restore.Swap) *time.Time {
	if until, err := swap.KeptUntil(); err == nil && !until.IsZero() {
		return &until
	}
	return nil
}

// from says from when a commit is possible.
func (d swapDoc) from() string {
	if d.KeptUntil == nil {
		return ""
	}
	return ", from " + d.KeptUntil.Format(time.RFC3339)
}
