package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// Request is what was asked for.
type Request struct {
	Run   catalog.Run
	Scope catalog.Scope
	// Selects reports whether a snapshot is meant; nil: all of Scope are. A set
	// is meant if one of its snapshots is, and judged beside all others.
	Selects func(catalog.Snapshot) bool
	Policy  retention.Policy // of claims that have none of their own
	Grace   time.Duration
	MinKeep int
	Limit   Limit
	// Zone is where days begin; nil: each snapshot's own.
	Zone, Local *time.Location
	// BackupNS: what backup-ns looks after is judged too.
	BackupNS bool
	// MarkOnly and SweepOnly leave the other half out.
	MarkOnly, SweepOnly bool
	Now                 time.Time

	Parallel int           // deletions at once, at least 1
	Timeout  time.Duration // for the storage to let go of one snapshot
}

// Plan is what Run will do, and all that it needs to know.
type Plan struct {
	Request
	// Rows are the restore points that are meant, by namespace and app, the
	// newest first.
	Rows []Row
	// Back are contents whose policy a run that died has made Delete, and whose
	// snapshots stay.
	Back []catalog.Content
	// Left are contents that a run that died has made Delete of, and whose
	// snapshots it has deleted: they stand where the snapshot-controller has
	// seen the second before the first.
	Left []catalog.Content
	// Drift are contents that do not mirror their snapshots.
	Drift []Drifted
	// Held are the namespaces in scope that runs hold, dead ones too.
	Held []catalog.Holding
	// Unread are the kinds that the caller may not read.
	Unread []string
	// Bad is what a person has to mend first: policies and labels that cannot be
	// read. Their restore points are left alone.
	Bad []error
}

// KindContents is among Unread where contents may not be read: what their
// deletion policy is, and whether the storage lets go, is then not known.
const KindContents = "volumesnapshotcontents"

// Row is one restore point: what was decided of it, and what is done.
type Row struct {
	retention.Verdict
	Snapshots []catalog.Snapshot
	// Does is what is done: the decision, but that Leave takes its place where
	// something stands in its way, which Reason then says.
	Does retention.Decision
	// Openly are the contents whose policy Retain is made Delete.
	Openly []string
	// Pin: it is pinned, beside what is done.
	Pin bool
}

// Drifted is a content and the labels and annotations that it lacks, or has too
// many of.
type Drifted struct {
	Content catalog.Content
	Labels  map[string]*string
	Notes   map[string]*string
}

// drifted is how content differs from what mirrors s, if it does.
func drifted(content catalog.Content, s catalog.Snapshot) (Drifted, bool) {
	labels, notes := content.Drift(s)
	return Drifted{content, labels, notes}, len(labels)+len(notes) > 0
}

// Does are the rows of which that is done.
func (p Plan) Doing(d retention.Decision) []Row {
	var rows []Row
	for _, r := range p.Rows {
		if r.Does == d {
			rows = append(rows, r)
		}
	}
	return rows
}

// Empty reports whether Run would change nothing.
func (p Plan) Empty() bool {
	return len(p.Back)+len(p.Left)+len(p.Drift) == 0 && !slices.ContainsFunc(p.Rows, Row.writes)
}

func (r Row) writes() bool {
	return r.Does == retention.Mark || r.Does == retention.Unmark || r.Does == retention.Sweep
}

// sight is the cluster as it was seen at one time.
type sight struct {
	snapshots []catalog.Snapshot
	claims    catalog.Inventory
	contents  contents
	held      []catalog.Holding
	alive     func(catalog.Run) bool
	unread    []string
}

// look reads all that is needed, at once.
func look(ctx context.Context, c Cluster, r Request) (s sight, err error) {
	g, scope := together{}, r.Scope
	ctx, g.cancel = context.WithCancelCause(ctx)
	defer g.cancel(nil)
	var theirs []catalog.Snapshot
	if r.BackupNS {
		g.run(func() (err error) {
			theirs, err = c.BackupNS(ctx, scope, cmp.Or(r.Zone, r.Local, time.UTC))
			return err
		})
	}
	g.run(func() (err error) { s.snapshots, err = c.Snapshots(ctx, scope); return err })
	g.run(func() (err error) { s.claims, err = c.Policies(ctx, scope); return err })
	g.run(func() (err error) { s.contents, err = readContents(ctx, c); return err })
	g.run(func() error { return s.hold(ctx, c, scope) })
	err = g.wait()
	s.snapshots = append(s.snapshots, theirs...)
	s.unread = s.claims.Unread
	if s.contents.byName == nil {
		s.unread = append(slices.Clone(s.unread), KindContents)
	}
	return s, err
}

// hold reads which runs hold a namespace: what is not ready of them is no
// failure yet. Who may not see that takes all for alive.
func (s *sight) hold(ctx context.Context, c Cluster, scope catalog.Scope) (err error) {
	s.held, err = c.Holdings(ctx, scope)
	if catalog.CodeOf(err) == catalog.CodeForbidden {
		s.alive = func(catalog.Run) bool { return true }
		return nil
	}
	s.alive = func(run catalog.Run) bool {
		return slices.ContainsFunc(s.held, func(h catalog.Holding) bool { return h.Run == run })
	}
	return err
}

// MakePlan lists once and decides. Its error is a catalog.Failure where a
// brake stops it; the plan is then there to be shown.
func MakePlan(ctx context.Context, c Cluster, r Request) (Plan, error) {
	s, err := look(ctx, c, r)
	if err != nil {
		return Plan{}, err
	}
	plan, verdicts, err := judge(r, s)
	if err != nil {
		return plan, err
	}
	for i := range plan.Rows {
		plan.restrict(&plan.Rows[i])
	}
	plan.settle(s)
	return plan, errors.Join(plan.brakes(verdicts)...)
}

// judge is the plan as the judge alone would have it.
func judge(r Request, s sight) (Plan, []retention.Verdict, error) {
	plan := Plan{Request: r, Unread: s.unread, Held: s.held}
	if err := clock(r.Now, s.snapshots); err != nil {
		return plan, nil, err
	}
	own := policies{claims: s.claims, bad: map[string]error{}}
	points := retention.Points(s.snapshots, retention.Options{Zone: r.Zone, Local: r.Local, Alive: s.alive})
	verdicts := retention.Judge(points, retention.Rules{Policy: r.Policy, Own: own.of, Grace: r.Grace, MinKeep: r.MinKeep}, r.Now)
	plan.Rows = plan.rows(verdicts, s)
	plan.Bad = append(own.errors(), plan.unjudged()...)
	return plan, verdicts, nil
}

// settle leaves alone what is in use, and adds what is to be put right.
func (p *Plan) settle(s sight) {
	inUse := users(s)
	for i := range p.Rows {
		row := &p.Rows[i]
		if row.Does == retention.Sweep {
			row.hinder(inUse)
		}
		if row.Does == retention.Sweep {
			row.Openly = inUse.openly(row.Snapshots)
		}
	}
	p.lent(s)
	p.drift(s)
}

// rows are the verdicts on what is meant, with their snapshots.
func (p Plan) rows(verdicts []retention.Verdict, s sight) []Row {
	found := map[string]catalog.Snapshot{}
	for _, shot := range s.snapshots {
		found[shot.Namespace+"/"+shot.Name] = shot
	}
	var rows []Row
	for _, v := range verdicts {
		row := Row{Verdict: v, Does: v.Decision}
		for _, m := range v.Point.Members {
			row.Snapshots = append(row.Snapshots, found[v.Point.Namespace+"/"+m.Name])
		}
		if p.Selects != nil && !slices.ContainsFunc(row.Snapshots, p.Selects) {
			continue
		}
		rows = append(rows, row)
	}
	sortRows(rows)
	return rows
}

// sortRows sorts by namespace and app, the newest first.
func sortRows(rows []Row) {
	slices.SortStableFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Point.Namespace, b.Point.Namespace), cmp.Compare(a.Point.App, b.Point.App),
			b.Point.Cut.Compare(a.Point.Cut), cmp.Compare(b.Point.Name, a.Point.Name))
	})
}

// restrict leaves out the half that was not asked for.
func (p Plan) restrict(r *Row) {
	switch {
	case p.MarkOnly && r.Does == retention.Sweep:
		r.leave("not swept: --mark-only")
	case p.SweepOnly && (r.Does == retention.Mark || r.Does == retention.Unmark):
		r.leave("left as it is: --sweep-only")
	}
}

// leave notes why nothing is done.
func (r *Row) leave(why string) {
	r.Does = retention.Leave
	r.Reason = strings.TrimPrefix(r.Reason+"; "+why, "; ")
}

// hinder leaves a point alone that somebody works with.
func (r *Row) hinder(inUse inUse) {
	for _, s := range r.Snapshots {
		if why := inUse.by(s); why != "" {
			r.leave(why)
			return
		}
	}
}

// lent finds the contents that a dead run was about to sweep, and that nobody
// sweeps now.
func (p *Plan) lent(s sight) {
	for _, shot := range s.snapshots {
		if content, ok := s.contents.of(shot); ok && content.Lent && !shot.Terminating && !p.sweeps(shot) && content.Policy == policyDelete {
			p.Back = append(p.Back, content)
		}
	}
	standing := map[string]bool{}
	for _, shot := range s.snapshots {
		standing[shot.UID] = true
	}
	for _, name := range slices.Sorted(maps.Keys(s.contents.byName)) {
		content := s.contents.byName[name]
		here := p.Scope.All || slices.Contains(p.Scope.Namespaces, content.Namespace)
		if here && content.Lent && content.Ours && !content.Terminating && !standing[content.SnapshotUID] && content.Policy == policyDelete {
			p.Left = append(p.Left, content)
		}
	}
}

func (p *Plan) sweeps(s catalog.Snapshot) bool {
	return slices.ContainsFunc(p.Doing(retention.Sweep), func(r Row) bool {
		return slices.ContainsFunc(r.Snapshots, func(of catalog.Snapshot) bool { return of.UID == s.UID })
	})
}

// drift finds the contents of restore points whose labels are not those of
// their snapshots. What is marked or swept anyway is mirrored then.
func (p *Plan) drift(s sight) {
	writes := map[string]bool{}
	for _, r := range p.Rows {
		for _, shot := range r.Snapshots {
			writes[shot.UID] = r.writes()
		}
	}
	for _, shot := range s.snapshots {
		content, ok := s.contents.of(shot)
		if !ok || shot.Role != "" || shot.BackupNS || shot.Terminating || writes[shot.UID] || shot.Unfinished() {
			continue
		}
		if d, differs := drifted(content, shot); differs {
			p.Drift = append(p.Drift, d)
		}
	}
}

// policies are those that claims have of their own.
type policies struct {
	claims catalog.Inventory
	key    string            // of the annotation; "" is catalog.AnnotationKeep
	notes  map[string]string // of claims, by namespace/name; nil until it was asked for
	bad    map[string]error
}

// of is the policy of a claim, as retention.Rules.Own.
func (p *policies) of(namespace, claim string) (retention.Policy, bool, error) {
	p.key = cmp.Or(p.key, catalog.AnnotationKeep)
	if p.notes == nil {
		p.notes = map[string]string{}
		for _, c := range p.claims.Claims {
			p.notes[c.Namespace+"/"+c.Name] = c.Annotations[p.key]
		}
	}
	text := cmp.Or(p.notes[namespace+"/"+claim], p.claims.Namespaces[namespace][p.key])
	if text == "" {
		return nil, false, nil
	}
	policy, err := retention.ParsePolicy(text)
	if err != nil {
		err = &catalog.Failure{
			Code: catalog.CodeUsage, Message: fmt.Sprintf("%s/%s not judged: annotation %s", namespace, claim, p.key), Cause: err,
			State: "its restore points are left alone", Next: fmt.Sprintf("kubectl describe pvc %s -n %s", claim, namespace),
		}
		if p.bad[namespace+"/"+claim] == nil {
			p.bad[namespace+"/"+claim] = err
		}
	}
	return policy, true, err
}

// unjudged are the restore points whose labels make no sense.
func (p Plan) unjudged() []error {
	var errs []error
	for _, r := range p.Rows {
		if r.Err == nil || catalog.CodeOf(r.Err) != "" { // a policy is told once
			continue
		}
		errs = append(errs, &catalog.Failure{
			Code: catalog.CodeUsage, Message: fmt.Sprintf("%s/%s not judged", r.Point.Namespace, r.Point.Name), Cause: r.Err, State: "it is left alone",
			Next: fmt.Sprintf("put it right: kubectl label volumesnapshot %s -n %s KEY=VALUE --overwrite, or KEY-", r.Point.Members[0].Name, r.Point.Namespace),
		})
	}
	return errs
}

func (p *policies) errors() []error {
	var errs []error
	for _, c := range slices.Sorted(maps.Keys(p.bad)) {
		errs = append(errs, p.bad[c])
	}
	return errs
}

// DefaultParallel is how many snapshots the storage has to let go of at once.
const DefaultParallel = 8

// DefaultTimeout is how long the storage may take to let go of one.
const DefaultTimeout = 2 * time.Minute

// Namespaces are those that Run writes to, sorted.
func (p Plan) Namespaces() []string {
	var names []string
	for _, r := range p.Rows {
		if r.writes() {
			names = append(names, r.Point.Namespace)
		}
	}
	for _, content := range slices.Concat(p.Back, p.Left) {
		names = append(names, content.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// AnyPlan is a plan that has one of everything that a plan may do, in each
// of these namespaces: what its Grants are about.
func AnyPlan(namespaces []string) Plan {
	p := Plan{Back: []catalog.Content{{}}, Left: []catalog.Content{{}}, Drift: []Drifted{{}}}
	for _, namespace := range namespaces {
		of := retention.Verdict{Point: retention.Point{Namespace: namespace}}
		p.Rows = append(p.Rows, Row{Verdict: of, Does: retention.Mark}, Row{Verdict: of, Does: retention.Sweep})
	}
	return p
}

// Grants are Rights, and what planning and running it reads: a role made for it
// has them.
func (p Plan) Grants() []catalog.Right {
	const group = "snapshot.storage.k8s.io"
	grants := catalog.Rights(p.Rights())
	for _, r := range p.Rows {
		grants.Add(group, "volumesnapshots", r.Point.Namespace, "get", "list", "watch")
		grants.Add("coordination.k8s.io", "leases", r.Point.Namespace, "list")
	}
	grants.Add(group, KindContents, "", "get", "list", "watch")
	return grants
}

// Rights are what Run needs to be allowed to do.
func (p Plan) Rights() []catalog.Right {
	const group = "snapshot.storage.k8s.io"
	need := map[catalog.Right]bool{}
	for _, r := range p.Rows {
		right := catalog.Right{Verb: "patch", Group: group, Resource: "volumesnapshots", Namespace: r.Point.Namespace}
		if r.Does == retention.Sweep {
			right.Verb = "delete"
		}
		if r.writes() {
			need[right] = true
		}
		if len(r.Openly) > 0 {
			need[catalog.Right{Verb: "patch", Group: group, Resource: KindContents}] = true
		}
	}
	if len(p.Left) > 0 {
		need[catalog.Right{Verb: "delete", Group: group, Resource: KindContents}] = true
	}
	if len(p.Back)+len(p.Drift) > 0 {
		need[catalog.Right{Verb: "patch", Group: group, Resource: KindContents}] = true
	}
	return slices.SortedFunc(maps.Keys(need), func(a, b catalog.Right) int { return cmp.Compare(a.String(), b.String()) })
}
