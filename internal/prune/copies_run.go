package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// CopyResult is what has become of the copies in one repository.
type CopyResult struct {
	Marked, Unmarked, Forgotten []Row
	// Refused: the repository lets nothing be removed; all is as it was.
	Refused bool
	Pruned  bool   // restic has freed room
	Freed   string // how much, in its words
	Err     error
}

// Useful reports whether anything has become of copies.
func (r CopyResult) Useful() bool {
	return len(r.Marked)+len(r.Unmarked)+len(r.Forgotten) > 0 || r.Pruned
}

// maxMarks bounds the marks of one repository: an object may not grow without
// bound. What is not marked now is marked when others have gone.
const maxMarks = 5000

// RunCopies does what the plan says: it marks, takes marks off, and forgets by
// exact id those whose grace has passed. What was forgotten is listed again
// before it is believed; then their room is freed. Whatever ends it half-way,
// the next run goes on from there.
func RunCopies(ctx context.Context, c CopyCluster, now func() time.Time, p CopyPlan, w catalog.Watcher) CopyResult {
	r := &copyRun{cluster: c, now: now, plan: p, watcher: w}
	r.fail(r.clean(ctx))
	r.fail(r.mark(ctx))
	if r.result.Err == nil && (len(p.Doing(retention.Sweep)) > 0 || r.plan.unpruned() && !p.MarkOnly) {
		r.fail(r.sweep(ctx))
	}
	return r.result
}

type copyRun struct {
	cluster CopyCluster
	now     func() time.Time
	plan    CopyPlan
	watcher catalog.Watcher
	result  CopyResult
}

func (r *copyRun) fail(err error) { r.result.Err = errors.Join(r.result.Err, err) }

// change writes marks.
func (r *copyRun) change(ctx context.Context, change catalog.MarkChange) error {
	return r.cluster.ChangeMarks(ctx, r.plan.Copies.Repository, r.plan.Run, change)
}

// clean writes down what an earlier prune has forgotten and could not say.
func (r *copyRun) clean(ctx context.Context) error {
	if len(r.plan.gone) == 0 {
		return nil
	}
	return r.forgotten(ctx, r.plan.gone)
}

// forgotten takes copies off the record and their marks off, in that order: a
// mark is what tells that a copy which is not there was ours to remove.
func (r *copyRun) forgotten(ctx context.Context, ids []string) error {
	repository := r.plan.Copies.Repository.Name
	var errs []error
	for _, s := range r.plan.recorded {
		if slices.ContainsFunc(s.Copies, func(c catalog.Copy) bool { return c.Repository == repository && slices.Contains(ids, c.Snapshot) }) {
			errs = append(errs, r.cluster.DropCopies(ctx, s, repository, ids))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.change(ctx, catalog.MarkChange{Drop: ids})
}

// mark writes the marks that the plan sets, and takes off those that it takes
// off.
func (r *copyRun) mark(ctx context.Context) error {
	now := r.now()
	change := catalog.MarkChange{Set: map[string]catalog.Mark{}}
	room := maxMarks - len(r.plan.marks.Of)
	for _, v := range slices.Backward(r.plan.Doing(retention.Mark)) { // the oldest first
		if room -= len(v.Snapshots); room < 0 {
			r.tell(catalog.Warning, v, fmt.Sprintf("repository %s has %d marks, as many as there may be: the rest is marked when those have gone", r.plan.Copies.Repository.Name, maxMarks))
			break
		}
		for _, s := range v.Snapshots {
			change.Set[s.Copies[0].Snapshot] = catalog.Mark{Marked: now, After: v.When, Namespace: s.Namespace}
		}
		r.result.Marked = append(r.result.Marked, v)
	}
	for _, v := range r.plan.Doing(retention.Unmark) {
		for _, s := range v.Snapshots {
			change.Drop = append(change.Drop, s.Copies[0].Snapshot)
		}
		r.result.Unmarked = append(r.result.Unmarked, v)
	}
	if err := r.change(ctx, change); err != nil {
		r.result.Marked, r.result.Unmarked = nil, nil
		return err
	}
	return nil
}

// sweep forgets what is to go and frees its room, while nobody else does.
func (r *copyRun) sweep(ctx context.Context) (err error) {
	held, release, err := r.plan.Copies.Store.Hold(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := r.forget(held); err != nil || r.result.Refused {
		return err
	}
	if len(r.result.Forgotten) == 0 && !r.plan.unpruned() {
		return nil
	}
	if r.result.Freed, err = r.plan.Copies.Store.Prune(held); err != nil {
		return err
	}
	r.result.Pruned = true
	r.say(catalog.Event{State: catalog.OK, Message: fmt.Sprintf("%d sets forgotten, %s freed", len(r.result.Forgotten), cmp.Or(r.result.Freed, "nothing"))})
	return r.change(held, catalog.MarkChange{Pruned: []string{r.plan.Copies.For}})
}

// forget forgets what is still to go when it is looked at once more: a person
// may have pinned it meanwhile, another prune have taken its mark off.
func (r *copyRun) forget(ctx context.Context) error {
	sweeps, err := r.still(ctx)
	if err != nil || len(sweeps) == 0 {
		return err
	}
	change := catalog.MarkChange{Set: map[string]catalog.Mark{}, Unpruned: []string{r.plan.Copies.For}}
	var ids []string
	for _, v := range sweeps {
		ids = append(ids, v.CopyIDs()...)
		for _, s := range v.Snapshots { // what has none, as it goes at once or by its own date
			id := s.Copies[0].Snapshot
			if _, marked := r.plan.marks.Of[id]; !marked || r.plan.Copies.AtOnce {
				change.Set[id] = catalog.Mark{Marked: r.now(), After: r.now(), Namespace: s.Namespace}
			}
		}
	}
	if err := r.change(ctx, change); err != nil {
		return err
	}
	r.tell(catalog.Started, sweeps[0], fmt.Sprintf("forget %d copies in repository %s", len(ids), r.plan.Copies.Repository.Name))
	kept, failed := r.plan.Copies.Store.Forget(ctx, ids)
	return errors.Join(failed, r.relist(ctx, sweeps, kept, failed == nil))
}

// still are the sweeps of the plan that a second look wants too.
func (r *copyRun) still(ctx context.Context) ([]Row, error) {
	sweeps := r.plan.Doing(retention.Sweep)
	if len(sweeps) == 0 {
		return nil, nil
	}
	again, err := r.plan.look(ctx, r.cluster)
	if err != nil {
		return nil, err
	}
	r.plan.recorded, r.plan.marks = again.recorded, again.marks
	wanted := again.Doing(retention.Sweep)
	return slices.DeleteFunc(sweeps, func(v Row) bool {
		same := func(other Row) bool { return slices.Equal(v.CopyIDs(), other.CopyIDs()) }
		if slices.ContainsFunc(wanted, same) {
			return false
		}
		r.tell(catalog.Warning, v, "left alone: it has changed since it was judged")
		return true
	}), nil
}

// relist lists the repository again: restic says nothing of an id that is not
// there, and may have been stopped half-way.
func (r *copyRun) relist(ctx context.Context, sweeps []Row, kept, ended bool) error {
	copies, _, err := r.plan.Copies.Store.List(ctx)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, s := range copies {
		there[s.Copies[0].Snapshot] = true
	}
	var gone []string
	var left int
	for _, v := range sweeps {
		stays := false
		for _, s := range v.Snapshots {
			if id := s.Copies[0].Snapshot; there[id] {
				left, stays = left+1, true
			} else {
				gone = append(gone, id)
			}
		}
		if !stays {
			r.result.Forgotten = append(r.result.Forgotten, v)
		}
	}
	if r.result.Refused = kept && len(gone) == 0; r.result.Refused {
		r.say(catalog.Event{State: catalog.Warning, Message: r.plan.Copies.refusal()})
		return r.change(ctx, catalog.MarkChange{Pruned: []string{r.plan.Copies.For}})
	}
	err = r.forgotten(ctx, gone)
	if left > 0 && ended {
		err = errors.Join(err, r.stay(left))
	}
	return err
}

// stay is the failure that copies lie there still.
func (r *copyRun) stay(left int) error {
	name := r.plan.Copies.Repository.Name
	return &catalog.Failure{
		Code:    catalog.CodeUnforgotten,
		Message: fmt.Sprintf("%d copies in repository %s are there still after restic has forgotten them", left, name),
		State:   "those that are gone are off the record; no other copy is touched",
		Next:    "see what the repository's server lets its user delete; kubectl backsnap prune tries again",
	}
}

func (r *copyRun) tell(state catalog.State, v Row, message string) {
	r.say(catalog.Event{State: state, Namespace: v.Point.Namespace, App: v.Point.App, Message: message})
}

// say tells of the repository.
func (r *copyRun) say(e catalog.Event) {
	e.Time, e.Run, e.Phase, e.Repository = r.now(), r.plan.Run, catalog.PhaseSweep, r.plan.Copies.Repository.Name
	r.watcher.Event(e)
}

// refusal says that nothing may be removed there.
func (r CopyRequest) refusal() string {
	return fmt.Sprintf("repository %s lets nothing be removed (append-only, or its user may not delete): its copies are left as they are", r.Repository.Name)
}

// Notes are what of the result a person should know beside the rows.
func (r CopyResult) Notes(p CopyPlan) []string {
	var notes []string
	if r.Refused {
		notes = append(notes, p.Copies.refusal())
	}
	if r.Pruned {
		notes = append(notes, fmt.Sprintf("repository %s: %d sets forgotten, %s freed", p.Copies.Repository.Name, len(r.Forgotten), cmp.Or(r.Freed, "nothing")))
	}
	return notes
}
