package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/printers"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// onlyRun is the run that the one target of s names; ok is false for others.
func (s selection) onlyRun() (run catalog.Run, ok bool) {
	if len(s.targets) != 1 || s.targets[0].Kind != kindRun {
		return "", false
	}
	return catalog.Run(s.targets[0].Name), true
}

// restoredList is what `describe run/ID -o json` prints of a run that has
// restored.
type restoredList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Items      []restoredDoc `json:"items"`
}

// restoredDoc is what there is of a restore in one namespace. Fields are only
// ever added.
type restoredDoc struct {
	Run       catalog.Run `json:"run"`
	Namespace string      `json:"namespace"`
	InPlace   bool        `json:"inPlace"`
	// Standing is how far a restore in place is; "" for one to new claims.
	Standing  restore.Standing `json:"standing,omitempty"`
	Because   string           `json:"because"` // the same in words
	HeldBy    string           `json:"heldBy,omitempty"`
	Workloads []swapApp        `json:"workloads,omitempty"`
	Claims    []restoredClaim  `json:"claims"`
	Safety    []safetyDoc      `json:"safetySnapshots,omitempty"`
	// KeptUntil is from when --commit may remove what is kept.
	KeptUntil *time.Time `json:"keptUntil,omitempty"`
	// Undo, Keep and Finish are commands, each where it can be given now.
	Undo   string `json:"undo,omitempty"`
	Keep   string `json:"keep,omitempty"`
	Finish string `json:"finish,omitempty"`
	// Unseen is what could not be looked at, and why.
	Unseen []string `json:"unseen,omitempty"`
}

// restoredClaim is a claim that was made, or whose volume is another one.
type restoredClaim struct {
	Claim  string `json:"pvc"`
	Of     string `json:"of,omitempty"` // namespace/name of whose data it has
	Phase  string `json:"phase,omitempty"`
	Volume string `json:"volume,omitempty"`
	// New: the volume is that of the run. Kept is the other one.
	New       bool   `json:"new,omitempty"`
	Kept      string `json:"kept,omitempty"`
	KeptPhase string `json:"keptPhase,omitempty"`
}

type safetyDoc struct {
	Name        string `json:"name"`
	Claim       string `json:"pvc"`
	Ready       bool   `json:"ready"`
	DeleteAfter string `json:"deleteAfter,omitempty"`
}

// describeRestore looks at all that a run has restored; none where there is
// nothing of it.
func describeRestore(ctx context.Context, c Cluster, scope catalog.Scope, run catalog.Run) ([]restoredDoc, error) {
	traces, unseen, err := restore.Traces(ctx, c, scope, run)
	if err != nil {
		return nil, err
	}
	holdings, err := c.Holdings(ctx, scope)
	if err != nil {
		return nil, err
	}
	var found []restoredDoc
	for _, t := range traces {
		d := restoredDoc{Run: run, Namespace: t.Namespace, Standing: t.Standing(), InPlace: t.Standing() != "", Claims: []restoredClaim{}}
		if i := slices.IndexFunc(holdings, func(h catalog.Holding) bool { return h.Run == run && h.Namespace == t.Namespace }); i >= 0 {
			d.HeldBy = holdings[i].Holder
		}
		d.read(t)
		if unseen != nil {
			d.Unseen = append(d.Unseen, firstLine(unseen))
		}
		found = append(found, d)
	}
	if len(found) == 0 {
		return nil, unseen
	}
	return found, nil
}

// read takes in what there is.
func (d *restoredDoc) read(t restore.Trace) {
	for _, a := range t.Swap.Apps {
		replicas, remembered := a.Remembered(t.Run)
		if !remembered {
			replicas = a.Replicas
		}
		d.Workloads = append(d.Workloads, swapApp{a.Kind, a.Name, replicas})
	}
	for _, p := range t.Swap.Pairs {
		claim := restoredClaim{Claim: p.Claim, Phase: p.Live.Phase, Volume: p.Live.Volume, New: p.New.Name != "" && p.Live.Volume == p.New.Name}
		if other := p.Other(); other.Role != "" {
			claim.Kept, claim.KeptPhase = other.Name, other.Phase
		}
		d.Claims = append(d.Claims, claim)
	}
	for _, c := range t.Claims {
		if c.Role == "" {
			d.Claims = append(d.Claims, restoredClaim{
				Claim: c.Name, Of: c.Labels[catalog.LabelNamespace] + "/" + c.Labels[catalog.LabelClaim], Phase: c.Phase, Volume: c.Volume, New: true,
			})
		}
	}
	for _, s := range t.Safety {
		d.Safety = append(d.Safety, safetyDoc{s.Name, s.Claim, s.Ready, s.DeleteAfter})
	}
	if t.Swap.Turn == "" {
		d.KeptUntil = keptUntil(t.Swap)
	}
	d.judge(t.Swap.Turn)
}

// judge says how far it is, and what can be done now.
func (d *restoredDoc) judge(turn catalog.Turn) {
	command := func(action string) string {
		return fmt.Sprintf("kubectl backsnap restore --%s %s -n %s", action, d.Run, d.Namespace)
	}
	undo, keep := command(actionRollback), command(actionCommit)
	d.Because = standings[d.Standing]
	switch d.Standing {
	case restore.Prepared:
		d.Undo = undo
	case restore.Turning:
		d.Undo = undo
		if turn == catalog.Back {
			d.Because, d.Undo, d.Finish = "it is being rolled back, and that has not ended", "", undo
		} else {
			d.Finish = fmt.Sprintf("kubectl backsnap restore %s -n %s --in-place", d.Claims[0].Claim, d.Namespace)
		}
	case restore.Swapped:
		d.Undo, d.Keep = undo, keep
	case restore.TurnedBack:
		d.Keep = keep
	}
	if d.HeldBy != "" {
		d.Undo, d.Keep, d.Finish = "", "", ""
	}
}

// standings are how far a restore is, in words.
var standings = map[restore.Standing]string{
	"":                 "restored to new claims; nothing else was changed",
	restore.Prepared:   "its new volumes are made, and nothing of the app was touched",
	restore.Turning:    "the volumes are being exchanged, and that has not ended",
	restore.Swapped:    "restored; the volumes from before are kept until that is committed",
	restore.TurnedBack: "rolled back; what the run had made is kept until that is committed",
	restore.Superseded: "a later run has replaced its volumes: that one is to be rolled back first",
	restore.Removed:    "none of its volumes is kept any more: there is nothing to go back to but the safety snapshots",
}

// printRestores writes what was found.
func printRestores(w io.Writer, o *output, printer printers.ResourcePrinter, found []restoredDoc) error {
	if printer != nil {
		return printDocument(w, printer, restoredList{APIVersion: apiVersion, Kind: "RestoredList", Items: found})
	}
	var text strings.Builder
	for i, d := range found {
		switch {
		case o.format == "name":
			for _, c := range d.Claims {
				fmt.Fprintf(&text, "%s/%s\n", claimResource, c.Claim)
			}
			continue
		case i > 0:
			text.WriteString("\n\n")
		}
		text.WriteString(d.text())
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// text is d for a person.
func (d restoredDoc) text() string {
	p := &sections{}
	p.row("Run", string(d.Run))
	p.row("Namespace", d.Namespace)
	p.row("State", d.Because)
	p.row("Held by", d.HeldBy)
	if len(d.Workloads) > 0 {
		p.section("Apps")
	}
	for _, a := range d.Workloads {
		p.row(a.Kind+"/"+a.Name, fmt.Sprintf("%d replicas", a.Replicas))
	}
	p.section("Claims")
	for _, c := range d.Claims {
		p.row(c.Claim, c.words(d.InPlace))
	}
	if d.KeptUntil != nil {
		p.row("Kept until", d.KeptUntil.Format(time.RFC3339))
	}
	if len(d.Safety) > 0 {
		p.section("Safety snapshots")
	}
	for _, s := range d.Safety {
		ready := "not ready"
		if s.Ready {
			ready = "ready"
		}
		p.row(s.Claim, words(", ", s.Name, ready, "kept through "+s.DeleteAfter))
	}
	if d.Undo+d.Keep+d.Finish != "" {
		p.section("Next")
	}
	p.row("Finish", d.Finish)
	p.row("Undo", d.Undo)
	p.row("Keep", d.Keep)
	for _, why := range d.Unseen {
		p.row("Not seen", why)
	}
	return p.text.String()
}

// words are what there is to say of a claim.
func (c restoredClaim) words(inPlace bool) string {
	if !inPlace {
		return words(", ", "of "+c.Of, c.Phase, c.Volume)
	}
	volume := "it is not there"
	switch {
	case c.Volume != "" && c.New:
		volume = "has volume " + c.Volume + " of this run"
	case c.Volume != "":
		volume = "has volume " + c.Volume
	}
	if c.Kept == "" {
		return volume
	}
	return words(", ", volume, c.Kept+" is kept", c.KeptPhase)
}
