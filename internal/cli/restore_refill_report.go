package cli

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// statePartial is a claim that holds parts of what it held and of a copy.
const statePartial = "Partial"

func (r *refilling) newRefillDoc() swapDoc {
	doc := r.newSwapDoc()
	doc.IntoClaim, doc.Notes = true, r.plan.Notes
	for _, a := range r.plan.Apps {
		doc.Workloads = append(doc.Workloads, swapApp{a.Kind, a.Name, afterwards(a)})
	}
	return doc
}

// afterwards is how many replicas a has in the end: as many as it has, or had
// when a run paused it.
func afterwards(a catalog.App) int {
	if pause, noted := a.Pause(); noted {
		return pause.Replicas
	}
	return a.Replicas
}

// item is what the plan says of a claim.
func (r *refilling) item(i int, state string) swapItem {
	v := r.plan.Volumes[i]
	item := swapItem{Namespace: v.Claim.Namespace, Claim: v.Claim.Name, State: state, Volume: v.Claim.Volume, From: new(itemOf(v).From), Safety: r.plan.Safety[i].Name}
	if r.plan.Begun != nil && r.plan.Begun.Touched() {
		item.Safety = ""
		for _, s := range r.plan.Begun.Safety {
			if s.Claim == v.Claim.Name {
				item.Safety = s.Name
			}
		}
	}
	return item
}

// planned is the plan as a document.
func (r *refilling) planned() swapDoc {
	doc := r.newRefillDoc()
	doc.Result = "DryRun"
	for i := range r.plan.Volumes {
		doc.Items = append(doc.Items, r.item(i, statePlanned))
	}
	return doc
}

// document is what became of it.
func (r *refilling) document(result restore.RefillResult) swapDoc {
	doc := r.newRefillDoc()
	doc.Downtime = result.Downtime.Round(time.Millisecond).Seconds()
	for i, c := range result.Claims {
		item := r.item(i, string(restore.Failed))
		switch {
		case c.Stage == catalog.StagePartial:
			item.State = statePartial
		case c.Stage == catalog.StageFilled:
			item.State, item.Bytes, item.Files = string(restore.Restored), c.Bytes, c.Files
		case c.Stage == "": // all is as it was
			item.Safety = ""
		}
		doc.Items = append(doc.Items, item)
	}
	return doc
}

// conclude writes the result and what is left to say, and turns the run into
// its exit code.
func (r *refilling) conclude(doc swapDoc, err error) error {
	doc.ExitCode = exitCode(err)
	doc.Result = cmp.Or(doc.Result, resultName(doc.ExitCode, err == nil))
	doc.blame(err)
	switch {
	case r.printer != nil:
		return errors.Join(err, printDocument(r.env.Out, r.printer, doc))
	case err != nil:
		return err
	case doc.Result == "DryRun" && r.options.output.human():
		r.printPlan(r.env.Out)
		return nil
	}
	if err := doc.printDone(r.env.Out, r.options.output.format == "name"); err != nil || !r.progress.text() {
		return err
	}
	if doc.Downtime > 0 {
		fmt.Fprintf(r.env.Err, "Downtime %.1fs, from scaled down to ready\n", doc.Downtime)
	}
	fmt.Fprintf(r.env.Err, "Undo:  kubectl backsnap restore --rollback %s -n %s   (from the safety snapshots, kept through %s)\n", doc.Run, doc.Namespace, r.plan.Safety[0].DeleteAfter)
	return nil
}
