package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// key names a claim, an app or a snapshot.
type key struct{ namespace, name string }

// judge is a report in the making. Everything is looked up by key: clusters
// have thousands of claims.
type judge struct {
	Request
	inv       catalog.Inventory
	mounters  map[key][]string // of claims: apps and pods
	owners    map[key][]string // of claims: apps alone
	snapshots map[key]*catalog.Snapshot
	points    map[key][]Point // of claims, the newest first
	excluded  map[string]bool // namespaces, as far as they were asked about
}

// Judge holds the snapshots against the claims. It reads no clock and no
// cluster. alive reports whether a run is still at work; nil: none is.
func Judge(r Request, inv catalog.Inventory, snapshots []catalog.Snapshot, alive func(catalog.Run) bool) Report {
	j := &judge{Request: r, inv: inv, mounters: map[key][]string{}, owners: map[key][]string{}, snapshots: map[key]*catalog.Snapshot{}, points: map[key][]Point{}, excluded: map[string]bool{}}
	j.Zone = cmp.Or(j.Zone, time.UTC)
	j.readPods()
	j.readPoints(snapshots, alive)
	report := Report{Request: j.Request, Unread: inv.Unread}
	for app, claims := range j.apps() {
		report.Apps = append(report.Apps, j.app(app, claims))
	}
	slices.SortFunc(report.Apps, func(a, b App) int {
		return cmp.Or(cmp.Compare(rank[a.State], rank[b.State]), oldest(a, b), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, namespace := range slices.Sorted(maps.Keys(j.excluded)) {
		if j.excluded[namespace] {
			report.Omitted = append(report.Omitted, namespace)
		}
	}
	return report
}

// oldest puts what has waited longest first, where both are late.
func oldest(a, b App) int {
	if a.State != Late {
		return 0
	}
	return a.LastGood.Compare(b.LastGood)
}

func (j *judge) readPods() {
	for _, pod := range j.inv.Pods {
		if pod.Phase == "Succeeded" || pod.Phase == "Failed" {
			continue
		}
		for _, claim := range pod.Claims() {
			k := key{pod.Namespace, claim}
			j.owners[k] = append(j.owners[k], pod.Owner.String())
			j.mounters[k] = append(j.mounters[k], pod.Owner.String(), "pod/"+pod.Name)
		}
	}
	for k, owners := range j.owners {
		slices.Sort(owners)
		j.owners[k] = slices.Compact(owners)
	}
}

// Point is one restore point, or what was to be one.
type Point struct {
	retention.Point
	Tried  time.Time // when it was asked for
	Copied bool      // each copy that was asked for is there, and there is one
	Proof  time.Time // of a restore from it; zero where none was tried
	Bytes  int64     // that a restore takes, of all its volumes; 0 where nobody knows
	Kept   string    // longest period from a week on that it stands for, "" for none
	Tier   string    // as in catalog.Snapshot.Tier
	Run    catalog.Run
}

func (j *judge) readPoints(snapshots []catalog.Snapshot, alive func(catalog.Run) bool) {
	for i, s := range snapshots {
		if s.Role == "" {
			j.snapshots[key{s.Namespace, s.Name}] = &snapshots[i]
		}
	}
	for _, p := range retention.Points(snapshots, retention.Options{Zone: j.Zone, Alive: alive}) {
		if p.State == retention.Safety {
			continue
		}
		point := j.point(p)
		for _, m := range p.Members {
			k := key{p.Namespace, m.Claim}
			if there := j.points[k]; len(there) == 0 || there[len(there)-1].Name != p.Name {
				j.points[k] = append(there, point)
			}
		}
	}
	for _, there := range j.points { // what never was cut came last
		sortPoints(there)
	}
}

// sortPoints puts the newest first.
func sortPoints(points []Point) {
	slices.SortStableFunc(points, func(a, b Point) int { return cmp.Or(b.when().Compare(a.when()), strings.Compare(b.Name, a.Name)) })
}

// point is p with what its snapshots say beside.
func (j *judge) point(p retention.Point) Point {
	point := Point{Point: p, Copied: true}
	for i, m := range p.Members {
		s := j.snapshots[key{p.Namespace, m.Name}]
		if s == nil {
			continue
		}
		point.Run = cmp.Or(point.Run, s.Run)
		point.Copied = point.Copied && copied(*s)
		point.Tried = later(point.Tried, cmp.Or(s.Created, s.CutAt()))
		switch proof := proofOf(s); {
		case i == 0 || proof.Before(point.Proof):
			point.Proof = proof
		}
		point.Bytes += s.RestoreSize
		point.Tier = cmp.Or(point.Tier, s.Tier())
		if point.Kept == "" {
			point.Kept = kept(*s)
		}
	}
	return point
}

// kept is the longest period from a week on that s stands for.
func kept(s catalog.Snapshot) string {
	for _, p := range []catalog.Period{catalog.Yearly, catalog.Monthly, catalog.Weekly} {
		if s.Periods[p] != "" {
			return string(p)
		}
	}
	return ""
}

// copied reports whether s lies off-site, wherever it was to be.
func copied(s catalog.Snapshot) bool {
	if len(s.MissingCopies()) > 0 {
		return false
	}
	return slices.ContainsFunc(s.Copies, func(c catalog.Copy) bool { return !c.Partial })
}

func proofOf(s *catalog.Snapshot) time.Time {
	if s == nil || s.Proof == nil {
		return time.Time{}
	}
	return s.Proof.At
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// apps are the claims that are meant, by the app they belong to: those that
// share a pod's owner are one.
func (j *judge) apps() map[key][]catalog.Claim {
	meant := j.meant()
	groups := newGroups()
	for _, c := range meant {
		for _, owner := range j.ownersOf(c) {
			groups.join(key{c.Namespace, "pvc/" + c.Name}, key{c.Namespace, owner})
		}
	}
	members := map[key][]catalog.Claim{}
	names := map[key][]string{}
	for _, c := range meant {
		root := groups.root(key{c.Namespace, "pvc/" + c.Name})
		members[root] = append(members[root], c)
		names[root] = append(names[root], j.ownersOf(c)...)
	}
	apps := map[key][]catalog.Claim{}
	for root, claims := range members {
		slices.Sort(names[root])
		name := strings.Join(slices.Compact(names[root]), "+")
		k := key{root.namespace, cmp.Or(name, "pvc/"+claims[0].Name)}
		apps[k] = append(apps[k], claims...)
	}
	return apps
}

// ownersOf are the apps whose pods mount c. Where there is none, as of one that
// is scaled to zero, they are those of its newest restore point.
func (j *judge) ownersOf(c catalog.Claim) []string {
	if owners := j.owners[key{c.Namespace, c.Name}]; len(owners) > 0 {
		return owners
	}
	for _, p := range j.points[key{c.Namespace, c.Name}] {
		if p.App != "" && !strings.HasPrefix(p.App, "pvc/") {
			return strings.Split(p.App, "+")
		}
	}
	return nil
}

// meant are the claims of the inventory that are asked about. What is ours and
// no volume of an app, clones among it, never is.
func (j *judge) meant() []catalog.Claim {
	var meant []catalog.Claim
	for _, c := range j.inv.Claims {
		if c.Role != "" || j.omits(c.Namespace) {
			continue
		}
		if j.Selects == nil || j.Selects(c, slices.Concat(j.mounters[key{c.Namespace, c.Name}], j.ownersOf(c))) {
			meant = append(meant, c)
		}
	}
	return meant
}

func (j *judge) omits(namespace string) bool {
	if j.Excludes == nil {
		return false
	}
	out, asked := j.excluded[namespace]
	if !asked {
		out = j.Excludes(namespace)
		j.excluded[namespace] = out
	}
	return out
}

// groups are sets of keys that were joined.
type groups struct{ above map[key]key }

func newGroups() groups { return groups{map[key]key{}} }

func (g groups) root(k key) key {
	for {
		up, ok := g.above[k]
		if !ok || up == k {
			return k
		}
		if far, ok := g.above[up]; ok { // halves the way of the next
			g.above[k] = far
		}
		k = up
	}
}

func (g groups) join(a, b key) {
	if a, b = g.root(a), g.root(b); a != b {
		g.above[a] = b
	}
}

// app judges each volume, and says of all what holds of the worst.
func (j *judge) app(name key, claims []catalog.Claim) App {
	slices.SortFunc(claims, func(a, b catalog.Claim) int { return strings.Compare(a.Name, b.Name) })
	a := App{Namespace: name.namespace, Name: name.name}
	take := fmt.Sprintf("kubectl backsnap snapshot %s -n %s", j.targets(claims), name.namespace)
	seen := map[string]bool{}
	for _, c := range claims {
		v := j.volume(c)
		if v.Do == "" && rank[v.State] < rank[OK] {
			v.Do = take
		}
		a.Volumes = append(a.Volumes, v)
		for _, p := range j.points[key{c.Namespace, c.Name}] {
			if id := p.App + " " + p.Name; !seen[id] {
				seen[id] = true
				a.Points = append(a.Points, p)
				a.Attempt = later(a.Attempt, p.Tried)
			}
		}
	}
	sortPoints(a.Points)
	a.Judgement = whole(a.Volumes)
	return a
}

// targets are what names the claims on a command line: the workloads that mount
// them, or the claims themselves where one is mounted by none that has a TYPE.
func (j *judge) targets(claims []catalog.Claim) string {
	var names, workloads []string
	mounted := true
	for _, c := range claims {
		if j.leftOut(c) != "" {
			continue
		}
		owners := j.owners[key{c.Namespace, c.Name}]
		names, workloads = append(names, c.Name), append(workloads, owners...)
		mounted = mounted && len(owners) > 0 && !slices.ContainsFunc(owners, untyped)
	}
	if !mounted {
		return strings.Join(names, " ")
	}
	slices.Sort(workloads)
	return strings.Join(slices.Compact(workloads), " ")
}

// untyped reports whether an app is of a kind that the command line has no TYPE
// for, as those of operators.
func untyped(app string) bool {
	kind, _, _ := strings.Cut(app, "/")
	return !catalog.Workload{Kind: kind}.Typed()
}

func (j *judge) leftOut(c catalog.Claim) string { return c.LeftOut(j.inv.Namespaces[c.Namespace]) }

// when is when p was cut, or else when it was asked for.
func (p Point) when() time.Time {
	if p.Cut.IsZero() {
		return p.Tried
	}
	return p.Cut
}

// whole is what is said of an app with these volumes: those left out count
// only where all are.
func whole(volumes []Volume) Judgement {
	in := slices.DeleteFunc(slices.Clone(volumes), func(v Volume) bool { return v.State == Out })
	if len(in) == 0 {
		return volumes[0].Judgement
	}
	worst := in[0]
	for _, v := range in[1:] {
		if rank[v.State] < rank[worst.State] {
			worst = v
		}
	}
	all := worst.Judgement
	if all.Reason != "" && len(volumes) > 1 {
		all.Reason = worst.Claim + ": " + all.Reason
	}
	for _, v := range in {
		all.LastGood, all.LastCopy, all.LastProof = earlier(all.LastGood, v.LastGood), earlier(all.LastCopy, v.LastCopy), earlier(all.LastProof, v.LastProof)
		if v.Goal > 0 && (all.Goal == 0 || v.Goal < all.Goal) {
			all.Goal = v.Goal
		}
		if !v.Next.IsZero() && (all.Next.IsZero() || v.Next.Before(all.Next)) {
			all.Next = v.Next
		}
	}
	return all
}

// earlier is the earlier of both: zero, which is never, is before all.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
