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

// CopyCluster is what pruning copies needs of a cluster.
type CopyCluster interface {
	// Snapshots and Policies are as in Cluster.
	Snapshots(ctx context.Context, scope catalog.Scope) ([]catalog.Snapshot, error)
	Policies(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error)
	// Marks are those of the repository's copies.
	Marks(ctx context.Context, r catalog.Repository) (catalog.Marks, error)
	// ChangeMarks changes those marks, and no others.
	ChangeMarks(ctx context.Context, r catalog.Repository, run catalog.Run, change catalog.MarkChange) error
	// DropCopies takes copies in the repository of that name off the record of
	// s; that s is gone is no error.
	DropCopies(ctx context.Context, s catalog.Snapshot, repository string, ids []string) error
}

// Store is one repository at work. cli puts it in: how repositories are listed
// and changed is the business of package offsite.
type Store interface {
	// List is what may be judged of what lies there: each copy as the snapshot
	// that it was made of, with that copy alone. It is all of it, or an error.
	// doubtful are the ids of those that contradict themselves about whose they
	// are.
	List(ctx context.Context) (copies []catalog.Snapshot, doubtful []string, err error)
	// Hold keeps other prunes of the same repository out until release is
	// called. held ends when that is lost.
	Hold(ctx context.Context) (held context.Context, release func() error, err error)
	// Forget takes restic's snapshots of these ids away. One that is not there
	// is no error. kept says that the repository has not let all of them go.
	Forget(ctx context.Context, ids []string) (kept bool, err error)
	// Prune frees the room of what nothing needs any more, and says how much.
	Prune(ctx context.Context) (freed string, err error)
}

// CopyRequest is what was asked for of the copies in one repository. Policy is
// that of copies.
type CopyRequest struct {
	Request
	Repository catalog.Repository
	// For is what {namespace} in the address stands for; "" where there is none.
	For   string
	Store Store
	// Explicit: Policy was given for copies, and is not that of the snapshots.
	Explicit bool
	// AtOnce: what is meant goes now, whatever its labels say and whatever is
	// left.
	AtOnce bool
}

// CopyPlan is what is to become of the copies in one repository. The Snapshots
// of its Rows are copies, as Store.List has them.
type CopyPlan struct {
	Plan
	Copies CopyRequest
	// Doubtful are the ids of copies that are left alone since they contradict
	// themselves about whose they are, or are not understood.
	Doubtful []string
	// Missing is how many copies are on record and do not lie there, though no
	// prune has removed them: that is for a person to look at.
	Missing int

	listed   []catalog.Snapshot
	recorded []catalog.Snapshot
	claims   catalog.Inventory
	marks    catalog.Marks
	gone     []string // forgotten by an earlier prune that could not say so
}

// CopyIDs are those of restic's snapshots that stand for a row: its copies, and
// what restic keeps beside one that is not whole.
func (r Row) CopyIDs() []string {
	var ids []string
	for _, s := range r.Snapshots {
		ids = append(ids, s.Copies[0].Snapshot)
		if note := s.Copies[0].Note; note != "" {
			ids = append(ids, note)
		}
	}
	return ids
}

// Idle reports whether RunCopies would change nothing.
func (p CopyPlan) Idle() bool { return p.Empty() && len(p.gone) == 0 && !p.unpruned() }

// unpruned reports whether an earlier prune has forgotten copies and not freed
// their room.
func (p CopyPlan) unpruned() bool { return p.marks.Unpruned[p.Copies.For] }

// PlanCopies lists the repository and judges what lies there as snapshots are
// judged. It changes nothing. What a person has set on a snapshot that still
// stands counts for its copies. A listing that fails, or that lacks all that is
// on record, is an error: then nothing is known. So is a brake; the plan is then
// there to be shown.
func PlanCopies(ctx context.Context, c CopyCluster, r CopyRequest) (CopyPlan, error) {
	p := CopyPlan{Plan: Plan{Request: r.Request}, Copies: r}
	var err error
	if p.claims, err = c.Policies(ctx, r.Scope); err != nil {
		return p, err
	}
	if p.listed, p.Doubtful, err = r.Store.List(ctx); err != nil {
		return p, err
	}
	return p.look(ctx, c)
}

// look judges what was listed, as it is recorded and marked now. What a first
// look has seen of a snapshot that is gone by the second still counts: mostly
// this very run has swept it, by the date that is its copies' too.
func (p CopyPlan) look(ctx context.Context, c CopyCluster) (_ CopyPlan, err error) {
	before := p.recorded
	if p.recorded, err = c.Snapshots(ctx, p.Scope); err != nil {
		return p, err
	}
	there := map[string]bool{}
	for _, s := range p.recorded {
		there[s.UID] = true
	}
	for _, s := range before {
		if !there[s.UID] {
			p.recorded = append(p.recorded, s)
		}
	}
	if p.marks, err = c.Marks(ctx, p.Copies.Repository); err != nil {
		return p, err
	}
	if err := p.compare(); err != nil {
		return p, err
	}
	if err := clock(p.Now, p.listed); err != nil {
		return p, p.about(err)
	}
	own := &copyPolicies{
		explicit:  p.Copies.Explicit,
		copies:    policies{claims: p.claims, key: catalog.AnnotationKeepCopies, bad: map[string]error{}},
		snapshots: policies{claims: p.claims, bad: map[string]error{}},
	}
	all, judged := p.read(own)
	verdicts := retention.Judge(p.points(judged), retention.Rules{Policy: p.Policy, Own: own.of, Grace: p.Grace, MinKeep: p.MinKeep}, p.Now)
	p.fill(verdicts, all)
	p.Bad = own.errors()
	if p.Copies.AtOnce {
		return p, nil
	}
	return p, p.about(errors.Join(p.brakes(verdicts)...))
}

// points are copies as they are judged. A repository has no labels: those that
// are kept by the calendar stand for the periods of their cut. Those that are
// kept by a date take no place there, as snapshots of their kind carry no
// periods.
func (p *CopyPlan) points(judged []catalog.Snapshot) []retention.Point {
	var calendar, dated []retention.Point
	for _, point := range retention.Points(judged, retention.Options{Zone: p.Zone, Local: p.Local}) {
		if slices.ContainsFunc(point.Members, func(m retention.Member) bool { return m.Retain == "calendar" }) {
			calendar = append(calendar, point)
		} else {
			dated = append(dated, point)
		}
	}
	return append(retention.Calendar(calendar), dated...)
}

// fill makes the rows of what is meant.
func (p *CopyPlan) fill(verdicts []retention.Verdict, copies []catalog.Snapshot) {
	found := map[string][]catalog.Snapshot{}
	for _, s := range copies {
		key := setOf(s.Namespace, s.App(), string(s.Run))
		found[key] = append(found[key], s)
	}
	p.Rows = nil
	for _, v := range verdicts {
		row := Row{Verdict: v, Does: v.Decision, Snapshots: found[setOf(v.Point.Namespace, v.Point.App, v.Point.Name)]}
		if p.Selects != nil && !slices.ContainsFunc(row.Snapshots, p.Selects) {
			continue
		}
		if p.restrict(&row); p.Copies.AtOnce {
			row.Does, row.Reason, row.Err = retention.Sweep, "asked for", nil
		}
		p.Rows = append(p.Rows, row)
	}
	sortRows(p.Rows)
}

// setOf names the set of one app from one run.
func setOf(namespace, app, run string) string { return namespace + "/" + run + "/" + app }

// about is err with the repository's name.
func (p CopyPlan) about(err error) error {
	var errs []error
	for _, err := range leaves(err) {
		var f *catalog.Failure
		if errors.As(err, &f) {
			named := *f
			named.Message = fmt.Sprintf("copies in repository %s: %s", p.Copies.Repository.Name, f.Message)
			err = &named
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// leaves are the errors that were joined into err; none for nil.
func leaves(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// read is all that was listed, and of each claim in a set the one copy that is
// judged: a whole one before others. Copies that nobody can read are left out
// and counted.
func (p *CopyPlan) read(own *copyPolicies) (all, judged []catalog.Snapshot) {
	live := map[string]catalog.Snapshot{}
	for _, s := range p.recorded {
		live[s.UID] = s
	}
	at := map[string]int{}
	for _, s := range p.listed {
		if s.Err != "" {
			if id := s.Copies[0].Snapshot; !slices.Contains(p.Doubtful, id) { // else a second look tells it twice
				p.Doubtful = append(p.Doubtful, id)
			}
			continue
		}
		s = p.standing(s, live[s.UID], own)
		all = append(all, s)
		of := setOf(s.Namespace, s.App(), string(s.Run)) + "/" + s.Claim
		if i, found := at[of]; !found {
			at[of] = len(judged)
			judged = append(judged, s)
		} else if judged[i].Copies[0].Partial && !s.Copies[0].Partial {
			judged[i] = s
		}
	}
	return all, judged
}

// standing is the copy s as it is judged: with what a person has set on its
// snapshot, where that is there, and with the mark that prune has set on it.
//
// A copy that was to be kept for some days is kept for those days. After that,
// or where nothing says how many they were, a policy that was given for copies
// holds.
func (p *CopyPlan) standing(s, live catalog.Snapshot, own *copyPolicies) catalog.Snapshot {
	if live.UID != "" {
		s.Pinned, s.PinnedAs = live.Pinned, live.PinnedAs
		if live.Retain == s.Retain && !live.MarkedByPrune() {
			s.DeleteAfter = live.DeleteAfter
		}
	}
	if own.given(s.Namespace, s.Claim) && (s.DeleteAfter == "" && live.UID == "" || p.passed(s)) {
		s.Retain, s.DeleteAfter = "calendar", ""
	}
	if s.Retain == "copied" { // the snapshot is what goes once there is a copy
		s.Retain = "calendar"
	}
	if mark, found := p.marks.Of[s.Copies[0].Snapshot]; found && s.DeleteAfter == "" {
		s.DeleteAfter, s.Marked = catalog.MarkUntil(mark.After), mark.Marked
	}
	return s
}

// passed reports whether the date on s has passed, in the zone of its days.
func (p *CopyPlan) passed(s catalog.Snapshot) bool {
	zone := p.Zone
	if s.Record != nil && zone == nil {
		if own, err := time.LoadLocation(s.Record.TimeZone); err == nil {
			zone = own
		}
	}
	until, err := catalog.ReadDeleteAfter(s.DeleteAfter, cmp.Or(zone, p.Local, time.UTC))
	return err == nil && !p.Now.Before(until)
}

// compare holds the listing against what is on record.
func (p *CopyPlan) compare() error {
	there := map[string]bool{}
	for _, s := range p.listed {
		there[s.Copies[0].Snapshot] = true
	}
	for _, id := range p.Doubtful {
		there[id] = true
	}
	p.gone, p.Missing = nil, 0
	found, missing := 0, map[string]bool{}
	for _, s := range p.recorded {
		for _, copy := range s.Copies {
			mark, marked := p.marks.Of[copy.Snapshot]
			switch {
			case copy.Repository != p.Copies.Repository.Name || !p.covers(s.Namespace):
			case there[copy.Snapshot]:
				found++
			case marked && !p.Now.Before(mark.After):
				p.gone = append(p.gone, copy.Snapshot)
			default:
				p.Missing++
				missing[copy.Snapshot] = true
			}
		}
	}
	for id, mark := range p.marks.Of {
		if !there[id] && p.covers(mark.Namespace) && !missing[id] && !slices.Contains(p.gone, id) {
			p.gone = append(p.gone, id)
		}
	}
	slices.Sort(p.gone)
	if p.Missing == 0 || found > 0 {
		return nil
	}
	r := p.Copies.Repository
	return &catalog.Failure{
		Code:    catalog.CodeCopiesGone,
		Message: fmt.Sprintf("copies in repository %s not judged: %d are on record, and none of them lies there", r.Name, p.Missing),
		State:   "nothing in it is marked or forgotten",
		Next:    fmt.Sprintf("see whether they were copied to %s, by a cluster called %s: kubectl backsnap list -A --from-repository=%s", r.Address, r.Cluster, r.Name),
	}
}

// covers reports whether what was listed has the copies of that namespace.
func (p *CopyPlan) covers(namespace string) bool {
	if p.Copies.For != "" {
		return namespace == p.Copies.For
	}
	return p.Scope.All || slices.Contains(p.Scope.Namespaces, namespace)
}

// copyPolicies are the policies of claims' copies: one that is given for copies,
// by annotation or flag, goes before one that is given for snapshots.
type copyPolicies struct {
	explicit          bool
	copies, snapshots policies
}

// of is as retention.Rules.Own.
func (c *copyPolicies) of(namespace, claim string) (retention.Policy, bool, error) {
	if policy, found, err := c.copies.of(namespace, claim); found || c.explicit {
		return policy, found, err
	}
	return c.snapshots.of(namespace, claim)
}

// given reports whether one is given for the copies of that claim.
func (c *copyPolicies) given(namespace, claim string) bool {
	_, found, _ := c.copies.of(namespace, claim) // a bad one is no reason to keep less
	return found || c.explicit
}

func (c *copyPolicies) errors() []error { return append(c.copies.errors(), c.snapshots.errors()...) }
