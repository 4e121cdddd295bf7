package catalog

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Set is the snapshots of one app from one run: what is judged and restored as
// a whole.
type Set struct {
	Namespace string
	Run       Run
	App       string // as in Record.App
	// Members are the claims that it should hold, sorted.
	Members []string
	// Snapshots are those that there are, by claim.
	Snapshots []Snapshot
}

// Sets are the sets that snapshots make, the newest first. What is no restore
// point, has no record, or is being deleted is in none.
func Sets(snapshots []Snapshot) []Set {
	type key struct {
		namespace, app string
		run            Run
	}
	found := map[key]*Set{}
	for _, s := range snapshots {
		if s.Role != "" || s.Record == nil || s.Terminating || s.Run == "" {
			continue
		}
		k := key{s.Namespace, s.Record.App, s.Run}
		if found[k] == nil {
			found[k] = &Set{Namespace: s.Namespace, Run: s.Run, App: s.Record.App}
		}
		set := found[k]
		set.Snapshots = append(set.Snapshots, s)
		set.Members = append(append(set.Members, s.Record.Members...), s.Claim)
	}
	var sets []Set
	for _, set := range found {
		slices.Sort(set.Members)
		set.Members = slices.Compact(set.Members)
		slices.SortFunc(set.Snapshots, func(a, b Snapshot) int { return cmp.Or(cmp.Compare(a.Claim, b.Claim), cmp.Compare(a.Name, b.Name)) })
		sets = append(sets, *set)
	}
	slices.SortFunc(sets, func(a, b Set) int {
		return cmp.Or(b.CutAt().Compare(a.CutAt()), cmp.Compare(b.Run, a.Run), cmp.Compare(a.App, b.App))
	})
	return sets
}

// Of is the set's snapshot of that claim.
func (s Set) Of(claim string) (Snapshot, bool) {
	i := slices.IndexFunc(s.Snapshots, func(shot Snapshot) bool { return shot.Claim == claim })
	if i < 0 {
		return Snapshot{}, false
	}
	return s.Snapshots[i], true
}

// Includes reports whether the workload of that name, `statefulset/mysql`, is
// the set's app, or one of several that share its volumes.
func (s Set) Includes(workload string) bool {
	return slices.Contains(strings.Split(s.App, "+"), workload)
}

// CutAt is when the last of its snapshots was cut: all that the set holds is
// from then or before. Zero if that is not known of any.
func (s Set) CutAt() time.Time {
	var last time.Time
	for _, shot := range s.Snapshots {
		if cut := shot.CutAt(); cut.After(last) {
			last = cut
		}
	}
	return last
}

// CutAt is when s was cut, as finely as is known; zero where it is not.
func (s Snapshot) CutAt() time.Time {
	if s.Record != nil && !s.Record.Cut.IsZero() {
		return s.Record.Cut
	}
	return s.Cut
}
