package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// writers is how many labels are written at once.
const writers = 8

// cleanupTimeout bounds what is still done after ^C.
const cleanupTimeout = 30 * time.Second

// Outcome is what became of one snapshot.
type Outcome string

// The outcomes.
const (
	Deleted  Outcome = "Deleted" // and the storage has let go of it, as far as that can be seen
	Marked   Outcome = "Marked"
	Unmarked Outcome = "Unmarked" // or pinned
	Kept     Outcome = "Kept"     // it has changed since it was listed, or is in use by now
	PutOff   Outcome = "PutOff"   // its storage lets go of nothing now
	Stuck    Outcome = "Stuck"    // deleted, and the storage has not let go
	Failed   Outcome = "Failed"
)

// Result is what became of a plan.
type Result struct {
	// Items are the snapshots of the rows of which something was to be done,
	// in the plan's order.
	Items []Item
	// Errs are what could not be done beside: contents that could not be given
	// their policy back, or their labels.
	Errs []error
}

// Item is one snapshot and what became of it.
type Item struct {
	Snapshot catalog.Snapshot
	Point    retention.Point
	Outcome  Outcome
	Reason   string // of Kept and PutOff, in words
	Err      error
}

// running is a plan on its way.
type running struct {
	Plan
	cluster Cluster
	now     func() time.Time
	watcher catalog.Watcher
	seen    sight // as it stands under the lock
	inUse   inUse
}

// Run does what was planned. It looks once more, for what has changed since, or
// is in use by now, stays. That one thing fails stops no other. now is the
// caller's clock.
func Run(ctx context.Context, c Cluster, now func() time.Time, plan Plan, w catalog.Watcher) (Result, error) {
	r := &running{Plan: plan, cluster: c, now: now, watcher: w}
	var err error
	if r.seen, err = look(ctx, c, plan.Request); err != nil {
		return Result{}, err
	}
	r.inUse = users(r.seen)
	var result Result
	result.Errs = slices.Concat(r.back(ctx), r.finish(ctx), r.mirror(ctx))
	items := make([][]Item, len(plan.Rows))
	r.label(ctx, items)
	r.sweep(ctx, items)
	for _, of := range items {
		result.Items = append(result.Items, of...)
	}
	return result, nil
}

// each calls do for each i below n, a bounded number at once.
func each(n, atOnce int, do func(i int)) {
	places := make(chan struct{}, max(atOnce, 1))
	var working sync.WaitGroup
	for i := range n {
		places <- struct{}{}
		working.Go(func() {
			defer func() { <-places }()
			do(i)
		})
	}
	working.Wait()
}

// back gives the contents their policy back that a dead run has changed.
func (r *running) back(ctx context.Context) []error {
	errs := make([]error, len(r.Back))
	each(len(r.Back), writers, func(i int) { errs[i] = r.retain(ctx, r.Back[i].Name) })
	return errs
}

// retain makes the content's policy Retain again, if it is Delete by our doing
// and its snapshot stays still.
func (r *running) retain(ctx context.Context, name string) error {
	content := r.seen.contents.byName[name]
	stays := slices.ContainsFunc(r.seen.snapshots, func(s catalog.Snapshot) bool { return content.Of(s) && !s.Terminating })
	if !stays || !content.Lent {
		return nil
	}
	r.warn(content.Namespace, "", fmt.Sprintf("content %s keeps its snapshot again: deletionPolicy Delete -> Retain", name))
	_, err := r.cluster.SetPolicy(ctx, content, policyRetain)
	return unlessGone(err)
}

// unlessGone is err, but nil where only the object is not there any more.
func unlessGone(err error) error {
	if errors.Is(err, catalog.ErrGone) {
		return nil
	}
	return err
}

// finish deletes what dead runs have begun to sweep.
func (r *running) finish(ctx context.Context) []error {
	errs := make([]error, len(r.Left))
	each(len(r.Left), writers, func(i int) {
		r.warn(r.Left[i].Namespace, "", fmt.Sprintf("content %s: a run that died has deleted its snapshot; it goes now", r.Left[i].Name))
		errs[i] = r.cluster.DiscardContent(ctx, r.Left[i])
	})
	return errs
}

// mirror writes labels to the contents that have others.
func (r *running) mirror(ctx context.Context) []error {
	errs := make([]error, len(r.Drift))
	each(len(r.Drift), writers, func(i int) { errs[i] = r.mirrorTo(ctx, r.Drift[i]) })
	return errs
}

// mirrorTo writes labels to one content. One that has changed since it was read
// is left to the next run.
func (r *running) mirrorTo(ctx context.Context, d Drifted) error {
	_, err := r.cluster.Mirror(ctx, d.Content, d.Labels, d.Notes)
	if errors.Is(err, catalog.ErrChanged) {
		return nil
	}
	return unlessGone(err)
}

// label marks and unmarks.
func (r *running) label(ctx context.Context, items [][]Item) {
	var rows []int
	for i, row := range r.Rows {
		if row.Does == retention.Mark || row.Does == retention.Unmark {
			rows = append(rows, i)
		}
	}
	each(len(rows), writers, func(n int) {
		row := r.Rows[rows[n]]
		for _, s := range row.Snapshots {
			item := Item{Snapshot: s, Point: row.Point, Outcome: Unmarked}
			labels, notes := map[string]*string{}, map[string]*string{}
			switch {
			case row.Does == retention.Mark:
				item.Outcome = Marked
				labels[s.Spelled(catalog.LabelDeleteAfter)] = new(catalog.MarkUntil(row.When))
				notes[catalog.AnnotationMarked] = new(r.now().UTC().Format(time.RFC3339))
			case s.MarkedByPrune(): // a date of a person's is left
				labels[s.Spelled(catalog.LabelDeleteAfter)], notes[catalog.AnnotationMarked] = nil, nil
			}
			if row.Pin {
				labels[catalog.LabelPin] = new(catalog.Unmarked)
			}
			if len(labels) == 0 {
				continue
			}
			items[rows[n]] = append(items[rows[n]], r.relabel(ctx, item, labels, notes))
		}
	})
}

// relabel writes labels of one snapshot, and mirrors them.
func (r *running) relabel(ctx context.Context, item Item, labels, notes map[string]*string) Item {
	changed, err := r.cluster.Relabel(ctx, item.Snapshot, labels, notes)
	if err != nil {
		return r.spare(ctx, item, err)
	}
	if item.Snapshot.BackupNS { // it mirrors nothing
		return item
	}
	item.Snapshot = changed
	content, ok := r.seen.contents.of(changed)
	if !ok {
		return item
	}
	if d, differs := drifted(content, changed); differs {
		if err := r.mirrorTo(ctx, d); err != nil {
			r.warn(changed.Namespace, changed.Name, fmt.Sprintf("mirror labels to its content: %v", err))
		}
	}
	return item
}

// spare is an item that could not be written.
func (r *running) spare(ctx context.Context, item Item, err error) Item {
	s := item.Snapshot
	switch {
	case errors.Is(err, catalog.ErrChanged):
		return r.keep(item, "it has changed since it was listed: the next run judges it anew")
	case errors.Is(err, catalog.ErrGone):
		return r.keep(item, "it is gone already")
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	item.Outcome, item.Err = Failed, failure(ctx, fmt.Sprintf("%s/%s not pruned", s.Namespace, s.Name), err)
	r.tell(catalog.Event{State: catalog.Failed, Namespace: s.Namespace, Name: s.Name, Message: fmt.Sprintf("%s: %v", s.Name, err)})
	return item
}

func (r *running) keep(item Item, why string) Item {
	item.Outcome, item.Reason = Kept, why
	r.warn(item.Snapshot.Namespace, item.Snapshot.Name, "kept "+item.Snapshot.Name+": "+why)
	return item
}

// failure is err as a person needs to see it.
func failure(ctx context.Context, message string, err error) error {
	var inner *catalog.Failure
	code := catalog.CodeStorage
	switch {
	case ctx.Err() != nil:
		code = cmp.Or(catalog.CodeOf(err), catalog.CodeInterrupted)
	case errors.As(err, &inner):
		code = inner.Code
	}
	f := &catalog.Failure{Code: code, Message: message, Cause: err, State: "it is there still; the rest goes on", Next: "kubectl backsnap prune, once more"}
	if inner != nil && inner.Next != "" {
		f.Next = inner.Next
	}
	return f
}

func (r *running) warn(namespace, name, message string) {
	r.tell(catalog.Event{State: catalog.Warning, Namespace: namespace, Name: name, Message: message})
}

func (r *running) tell(e catalog.Event) {
	e.Time, e.Run, e.Phase = r.now(), r.Plan.Run, catalog.PhaseSweep
	r.watcher.Event(e)
}

// unchanged reports whether all snapshots of a row are as they were when it was
// judged.
func (r *running) unchanged(row Row) bool {
	for _, s := range row.Snapshots {
		if !slices.ContainsFunc(r.seen.snapshots, func(now catalog.Snapshot) bool {
			return now.UID == s.UID && now.ResourceVersion == s.ResourceVersion
		}) {
			return false
		}
	}
	return true
}
