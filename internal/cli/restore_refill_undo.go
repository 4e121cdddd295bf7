package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// undoRefill goes back from a restore into claims: by their safety snapshots
// where their data is not what it was, else by scaling the apps back.
func (s *swapping) undoRefill(ctx context.Context, own catalog.Run, refill restore.Refill) (swapDoc, error) {
	if err := refill.CanUndo(ctx, s.cluster); err != nil {
		return swapDoc{}, err
	}
	target := restore.Target{Namespace: s.namespace, Kind: "run", Name: string(s.run)}
	var err error
	if s.request, err = s.options.request(s.env, own, target); err != nil {
		return swapDoc{}, err
	}
	if err := restore.CheckPutBack(ctx, s.cluster, refill); err != nil {
		return swapDoc{}, err
	}
	if refill.Replaced() {
		return s.replaceRefill(ctx, own, refill)
	}
	if err := s.confirm(ctx, refill.Apps, func(w io.Writer) { s.warnUndo(w, refill, false) }); err != nil {
		return swapDoc{}, err
	}
	held, release, err := s.lockSwap(ctx, own)
	if err != nil {
		return swapDoc{}, err
	}
	err = s.putBack(held, &refill)
	doc := s.document(restore.SwapResult{})
	s.name(&doc, refill, err == nil)
	return doc, errors.Join(err, release())
}

// replaceRefill is a restore in place of its own, from the safety snapshots.
func (s *swapping) replaceRefill(ctx context.Context, own catalog.Run, refill restore.Refill) (swapDoc, error) {
	undone := s.run
	r := restore.SwapRequest{Request: s.request, IgnoreController: s.options.ignoreController, Terms: s.options.terms(), Now: s.env.Now()}
	var err error
	if s.plan, err = restore.MakeUndoPlan(ctx, s.cluster, r, refill); err != nil {
		return swapDoc{}, err
	}
	s.restoring.plan, s.run = s.plan.Plan, own
	held, release, err := s.holdSwap(ctx, func(w io.Writer) { s.warnUndo(w, refill, true) })
	if err != nil {
		return swapDoc{}, err
	}
	if err := restore.StopMovers(held, s.cluster, refill); err != nil {
		return swapDoc{}, errors.Join(err, release())
	}
	result, err := restore.RunSwap(held, s.cluster, s.follow, s.env.Now, s.plan, s.progress)
	if err == nil {
		refill, err = restore.FindRefill(held, s.cluster, s.namespace, undone)
	}
	if err == nil && !refill.Ended() {
		err = s.putBack(held, &refill)
	}
	doc := s.document(result)
	s.name(&doc, refill, err == nil)
	return doc, errors.Join(err, release())
}

// putBack scales the apps back.
func (s *swapping) putBack(ctx context.Context, refill *restore.Refill) error {
	return restore.PutBack(ctx, s.cluster, s.env.Now, *refill, s.options.appTimeout, s.progress)
}

// name adds to the document the apps with the replicas that they have again,
// and the claims that nothing had to be done for.
func (s *swapping) name(doc *swapDoc, refill restore.Refill, done bool) {
	for _, a := range refill.Apps {
		pause, _ := a.Pause()
		found := false
		for i, w := range doc.Workloads {
			if found = w.Kind == a.Kind && w.Name == a.Name; found {
				doc.Workloads[i].Replicas = pause.Replicas
				break
			}
		}
		if !found {
			doc.Workloads = append(doc.Workloads, swapApp{a.Kind, a.Name, pause.Replicas})
		}
	}
	if len(doc.Items) > 0 {
		return
	}
	for _, c := range refill.Claims {
		item := swapItem{Namespace: c.Namespace, Claim: c.Name, State: string(restore.Failed), Volume: c.Volume}
		if done {
			item.State = doneWords[s.action].state
		}
		doc.Items = append(doc.Items, item)
	}
}

// warnUndo says what a person agrees to.
func (s *swapping) warnUndo(w io.Writer, refill restore.Refill, replaces bool) {
	if !replaces {
		fmt.Fprintf(w, "This ends run %s in %s (context %s), which has changed no data: the app gets its replicas back.\n", refill.Run, s.namespace, contextName(s.config))
		return
	}
	fmt.Fprintf(w, "This goes back, in %s (context %s), to what there was before run %s: new volumes from its safety snapshots.\n", s.namespace, contextName(s.config), refill.Run)
	fmt.Fprintln(w, "  what was written since is no longer served; those volumes are kept until you --commit")
}
