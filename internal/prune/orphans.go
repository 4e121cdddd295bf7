package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// OrphanPlan is what has lost the object that it belongs to, and what a sweep
// of it does. Nothing else is judged.
type OrphanPlan struct {
	// Plan has as rows the restore points whose claims are all gone.
	Plan
	// Contents are those that have lost their snapshots, by namespace and claim,
	// the newest first.
	Contents []Orphan
	counted  int // restore points and orphaned contents, of which a share may go
	seen     sight
}

// Orphan is a content whose snapshot is gone.
type Orphan struct {
	catalog.Content
	// Does is retention.Sweep, or Leave where Reason says why it stays.
	Does   retention.Decision
	Reason string
	// Fit: it can be adopted.
	Fit bool
}

// claim names the claim that a content is of, as far as its label tells.
func (o Orphan) claim() string { return o.Namespace + "/" + o.Labels[catalog.LabelClaim] }

// good reports whether it is as much of a restore point as can be seen.
func (o Orphan) good() bool {
	return o.Ours && o.Role == "" && o.Labels[catalog.LabelConsistency] != "" && o.Handle != "" && !o.Terminating
}

// Empty reports whether nothing is an orphan that a sweep would take.
func (p OrphanPlan) Empty() bool { return len(p.going())+len(p.Doing(retention.Sweep)) == 0 }

// going are the contents that a sweep takes.
func (p OrphanPlan) going() []Orphan {
	return slices.DeleteFunc(slices.Clone(p.Contents), func(o Orphan) bool { return o.Does != retention.Sweep })
}

// Sweeps is how many restore points and contents a sweep takes.
func (p OrphanPlan) Sweeps() (points, contents int) {
	return len(p.Doing(retention.Sweep)), len(p.going())
}

// Namespaces are those that RunOrphans writes to, sorted.
func (p OrphanPlan) Namespaces() []string {
	names := p.Plan.Namespaces()
	for _, o := range p.going() {
		names = append(names, o.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Rights are what RunOrphans needs to be allowed to do.
func (p OrphanPlan) Rights() []catalog.Right {
	need := catalog.Rights(p.Plan.Rights())
	if len(p.going()) > 0 {
		need.Add("snapshot.storage.k8s.io", KindContents, "", "delete", "patch")
	}
	slices.SortFunc(need, func(a, b catalog.Right) int { return cmp.Compare(a.String(), b.String()) })
	return need
}

// MakeOrphanPlan lists once and decides; it reads only. Contents have to be
// readable: without them nobody knows what is an orphan.
func MakeOrphanPlan(ctx context.Context, c Cluster, r Request) (OrphanPlan, error) {
	r.Scope.Lost = true // a namespace that is gone is what leaves contents behind
	s, err := look(ctx, c, r)
	if err != nil {
		return OrphanPlan{}, err
	}
	standing, err := c.Standing(ctx, r.Scope) // after the contents: a snapshot is there before its content
	if err != nil {
		return OrphanPlan{}, err
	}
	if s.contents.byName == nil {
		return OrphanPlan{}, catalog.Forbidden([]catalog.Right{{Verb: "list", Group: "snapshot.storage.k8s.io", Resource: KindContents}}, "")
	}
	plan := OrphanPlan{seen: s}
	var verdicts []retention.Verdict
	if plan.Plan, verdicts, err = judge(r, s); err != nil {
		return plan, err
	}
	all := plan.Rows
	plan.unclaimed(s)
	plan.findContents(s, standing)
	plan.protect(verdicts)
	plan.settle(s)
	plan.Back, plan.Left, plan.Drift, plan.Bad = nil, nil, nil, nil // nobody has asked for these
	plan.counted = len(all) + len(plan.Contents)
	return plan, nil
}

// unclaimed leaves the rows whose claims are all gone: what a sweep takes.
func (p *OrphanPlan) unclaimed(s sight) {
	there := map[string]bool{}
	for _, c := range s.claims.Claims {
		there[c.Namespace+"/"+c.Name] = true
	}
	var rows []Row
	for _, row := range p.Rows {
		var names []string
		for _, m := range row.Point.Members {
			names = append(names, m.Claim)
		}
		if row.Point.State == retention.Safety || slices.ContainsFunc(names, func(name string) bool { return there[row.Point.Namespace+"/"+name] }) {
			continue
		}
		was := row.Reason
		row.Does, row.Reason = retention.Sweep, fmt.Sprintf("its claim %s is gone", strings.Join(names, ", "))
		switch {
		case slices.ContainsFunc(row.Snapshots, func(s catalog.Snapshot) bool { return s.Pinned }):
			row.leave("pinned")
		case row.Err != nil || row.Point.State == retention.Unready || row.Point.State == retention.Foreign:
			row.leave(was)
		}
		rows = append(rows, row)
	}
	p.Rows = rows
}

// findContents adds the contents in scope that have lost their snapshots. standing
// are all snapshots there, whoever has made them.
func (p *OrphanPlan) findContents(s sight, standing map[string]catalog.Standing) {
	for _, content := range s.contents.byName {
		inScope := p.Scope.All || slices.Contains(p.Scope.Namespaces, content.Namespace)
		has, found := standing[content.Namespace+"/"+content.Snapshot]
		if !inScope || found && (content.SnapshotUID == "" || content.SnapshotUID == has.UID) || !content.Ours {
			continue
		}
		shot := catalog.Snapshot{Namespace: content.Namespace, Name: content.Snapshot, Claim: content.Labels[catalog.LabelClaim], Run: catalog.Run(content.Labels[catalog.LabelRun])}
		if content.Role != "" || p.Selects != nil && !p.Selects(shot) {
			continue
		}
		o := Orphan{Content: content, Does: retention.Sweep, Reason: fmt.Sprintf("its snapshot %s is gone", content.Snapshot)}
		why, _ := s.contents.unfit(content)
		o.Fit = why == ""
		if why := s.contents.keeps(content); why != "" {
			o.leave(why)
		}
		p.Contents = append(p.Contents, o)
	}
	slices.SortFunc(p.Contents, func(a, b Orphan) int {
		return cmp.Or(cmp.Compare(a.claim(), b.claim()), b.Cut.Compare(a.Cut), cmp.Compare(a.Name, b.Name))
	})
}

// leave notes why it stays.
func (o *Orphan) leave(why string) { o.Does, o.Reason = retention.Leave, o.Reason+"; "+why }

// keeps is why an orphan must not be swept, in words; "" for nothing.
func (c contents) keeps(content catalog.Content) string {
	_, pinned := content.Labels[catalog.LabelPin]
	switch {
	case content.Terminating:
		return "it is being deleted"
	case pinned:
		return "pinned"
	}
	for _, name := range c.byHandle[[2]string{content.Driver, content.Handle}] {
		if name != content.Name {
			return fmt.Sprintf("content %s names the same snapshot of the storage", name)
		}
	}
	return ""
}

// protect leaves the newest good ones of each claim that a sweep would empty:
// restore points first, and contents where there are too few of those.
func (p *OrphanPlan) protect(verdicts []retention.Verdict) {
	left := map[string]int{} // good ones that stay, of each claim
	rows := map[string]*Row{}
	for i := range p.Rows {
		rows[nameOf(p.Rows[i].Point)] = &p.Rows[i]
	}
	for _, v := range verdicts { // the newest first
		if v.Point.State != retention.Good || v.Err != nil {
			continue
		}
		row := rows[nameOf(v.Point)]
		few := func(m retention.Member) bool {
			return left[v.Point.Namespace+"/"+catalog.ClaimLabel(m.Claim)] < p.MinKeep
		}
		if row != nil && row.Does == retention.Sweep {
			if !slices.ContainsFunc(v.Point.Members, few) {
				continue
			}
			row.leave(stays)
		}
		for _, m := range v.Point.Members {
			left[v.Point.Namespace+"/"+catalog.ClaimLabel(m.Claim)]++
		}
	}
	for i := range p.Contents {
		o := &p.Contents[i]
		if o.good() && left[o.claim()] < p.MinKeep {
			left[o.claim()]++
			if o.Does == retention.Sweep {
				o.leave(stays)
			}
		}
	}
}

const stays = "the newest good one stays"

// Brakes are why a sweep must not be run.
func (p OrphanPlan) Brakes() error {
	points, contents := p.Sweeps()
	if n := points + contents; n > p.Limit.of(p.counted) {
		return p.tooMany(retention.Sweep, n, p.counted)
	}
	return nil
}

// OrphanResult is what became of a sweep.
type OrphanResult struct {
	Result // of snapshots
	// Contents are those that were to be swept, in the plan's order. The snapshot
	// of each is the one that it was of.
	Contents []Item
}

// RunOrphans sweeps what was planned, and what is an orphan still: it plans once
// more first, for it may have been adopted, or its claim restored, since.
func RunOrphans(ctx context.Context, c Cluster, now func() time.Time, plan OrphanPlan, w catalog.Watcher) (OrphanResult, error) {
	again, err := MakeOrphanPlan(ctx, c, plan.Request)
	if err != nil {
		return OrphanResult{}, err
	}
	plan.confirm(again)
	r := &running{Plan: plan.Plan, cluster: c, now: now, watcher: w, seen: again.seen, inUse: users(again.seen)}
	items := make([][]Item, len(plan.Rows))
	r.sweep(ctx, items)
	result := OrphanResult{}
	for _, of := range items {
		result.Items = append(result.Items, of...)
	}
	result.Contents = r.sweepContents(ctx, plan.going())
	return result, nil
}

// confirm leaves what another look does not find to be an orphan.
func (p *OrphanPlan) confirm(again OrphanPlan) {
	const changed = "it has changed since it was listed"
	still := map[string]bool{}
	for _, row := range again.Doing(retention.Sweep) {
		still[nameOf(row.Point)] = true
	}
	for _, o := range again.going() {
		still[o.UID+" "+o.ResourceVersion] = true
	}
	for i := range p.Rows {
		if row := &p.Rows[i]; row.Does == retention.Sweep && !still[nameOf(row.Point)] {
			row.leave(changed)
		}
	}
	for i := range p.Contents {
		if o := &p.Contents[i]; o.Does == retention.Sweep && !still[o.UID+" "+o.ResourceVersion] {
			o.leave(changed)
		}
	}
}

// sweepContents sweeps contents, paced as snapshots are.
func (r *running) sweepContents(ctx context.Context, orphans []Orphan) []Item {
	s := &sweeping{running: r, waiting: map[string]*leaving{}, stuck: map[string]int{}}
	items := make([]Item, len(orphans))
	if len(orphans) == 0 {
		return items
	}
	stop := s.follow(ctx)
	defer stop()
	each(len(orphans), r.Parallel, func(i int) { items[i] = s.orphan(ctx, orphans[i].Content) })
	return items
}

// orphan sweeps one content: it is told to take the storage's snapshot with it,
// and goes.
func (s *sweeping) orphan(ctx context.Context, content catalog.Content) Item {
	item := Item{Snapshot: catalog.Snapshot{
		Namespace: content.Namespace, Name: content.Snapshot, UID: content.SnapshotUID, Content: content.Name, Claim: content.Labels[catalog.LabelClaim],
	}}
	if ctx.Err() != nil {
		return s.spare(ctx, item, context.Cause(ctx))
	}
	if s.hopeless(content.Driver) {
		item.Outcome, item.Reason = PutOff, fmt.Sprintf("driver %s has let go of none of the last %d: the next run tries again", content.Driver, s.Parallel)
		return item
	}
	s.warn(content.Namespace, content.Snapshot, fmt.Sprintf("content %s: deletionPolicy %s -> Delete, so that the storage frees it", content.Name, content.Policy))
	content, err := s.cluster.LetGo(ctx, content, policyDelete)
	if err != nil {
		return s.spare(ctx, item, err)
	}
	l := s.expect(content.Name)
	if err := s.drop(ctx, content); err != nil {
		s.forget(content.Name)
		return s.spare(ctx, item, errors.Join(err, s.withdraw(ctx, content)))
	}
	if item = s.await(ctx, item, content, l); item.Outcome == Deleted {
		s.tell(catalog.Event{State: catalog.OK, Namespace: content.Namespace, Name: content.Name, Message: "gone from the storage"})
	}
	return item
}

// drop deletes a content that was let go of. The sidecar may write to it at that
// moment: it is then read again.
func (r *running) drop(ctx context.Context, content catalog.Content) error {
	for range 5 {
		if err := r.cluster.DiscardContent(ctx, content); err != nil {
			return err
		}
		now, err := r.cluster.Content(ctx, content.Name)
		if err != nil || now.Terminating || now.UID != content.UID || now.Policy != content.Policy {
			return unlessGone(err)
		}
		content = now
	}
	return catalog.ErrChanged
}
