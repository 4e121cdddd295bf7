package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Options are how Points reads snapshots.
type Options struct {
	// Zone is where the days of all points begin; nil is each one's own, as its
	// record has it, and Local where it has none. Nil for both is UTC.
	Zone, Local *time.Location
	// Alive reports whether a run is still at work: what is not ready of it is
	// no failure. Nil for none.
	Alive func(catalog.Run) bool
}

// Points are the restore points that snapshots make, the newest first: those
// of a cluster, or the copies of one repository as its listing gives them.
// What has a role is none, but for safety snapshots.
func Points(snapshots []catalog.Snapshot, o Options) []Point {
	type key struct {
		namespace, app, name string
		safety               bool
	}
	sets := map[key][]catalog.Snapshot{}
	for _, s := range snapshots {
		if s.Role != "" && s.Role != catalog.RoleSafety {
			continue
		}
		k := key{s.Namespace, s.App(), string(s.Run), s.Role == catalog.RoleSafety}
		if s.Run == "" || s.Record == nil && !s.Unfinished() {
			k.name = s.Name
		}
		sets[k] = append(sets[k], s)
	}
	read := reader{o: o, zones: map[string]*time.Location{}}
	var points []Point
	for k, set := range sets {
		points = append(points, read.point(k.name, set))
	}
	sortPoints(points)
	shareTiers(points)
	return points
}

// sortPoints puts the newest first.
func sortPoints(points []Point) {
	slices.SortFunc(points, func(a, b Point) int {
		return cmp.Or(b.Cut.Compare(a.Cut), cmp.Compare(b.Name, a.Name), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.App, b.App))
	})
}

// reader reads sets of snapshots as points.
type reader struct {
	o     Options
	zones map[string]*time.Location // by name: a set of thousands has few
}

// point is the set as a point of that name. What is being deleted of it is no
// member, unless all is.
func (r reader) point(name string, set []catalog.Snapshot) Point {
	there := slices.DeleteFunc(slices.Clone(set), func(s catalog.Snapshot) bool { return s.Terminating })
	if len(there) == 0 {
		there = set
	}
	slices.SortFunc(there, func(a, b catalog.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Claim, b.Claim), cmp.Compare(a.Name, b.Name))
	})
	first := there[0]
	p := Point{
		Namespace: first.Namespace, Name: name, App: first.App(),
		Zone: r.zone(first.Record), Consistency: first.Consistency,
	}
	for _, s := range there {
		p.Members = append(p.Members, member(s))
		if cut := s.CutAt(); cut.After(p.Cut) {
			p.Cut = cut
		}
	}
	p.State, p.Because = r.state(there)
	return p
}

func member(s catalog.Snapshot) Member {
	m := Member{
		Name: s.Name, Claim: s.Claim, Retain: s.Retain, Periods: s.Periods, DeleteAfter: s.DeleteAfter, Marked: s.Marked,
		Pinned: s.Pinned, BackupNS: s.BackupNS, Copied: s.FullyCopied(), Missing: s.MissingCopies(),
	}
	if s.Record != nil {
		m.UID = s.Record.Claim.UID
	}
	return m
}

// zone is where the days of what has that record begin.
func (r reader) zone(record *catalog.Record) *time.Location {
	switch {
	case r.o.Zone != nil:
		return r.o.Zone
	case record == nil:
		return cmp.Or(r.o.Local, time.UTC)
	}
	if zone, known := r.zones[record.TimeZone]; known {
		return zone
	}
	zone, err := time.LoadLocation(record.TimeZone)
	if err != nil { // a zone that this program's data does not have
		zone = cmp.Or(r.o.Local, time.UTC)
	}
	r.zones[record.TimeZone] = zone
	return zone
}

// state is what a set of which these members are there is good for, and why
// if it is not good.
func (r reader) state(there []catalog.Snapshot) (State, string) {
	if there[0].Terminating {
		return Unready, "it is being deleted"
	}
	if there[0].Role == catalog.RoleSafety {
		return Safety, "taken before a restore in place"
	}
	worst, why := Good, ""
	for _, s := range there {
		if state, because := r.stateOf(s); badness[state] > badness[worst] {
			worst, why = state, because
		}
	}
	if gone := missing(there); worst == Good && len(gone) > 0 {
		return Partial, strings.Join(gone, ", ") + " gone"
	}
	return worst, why
}

// badness is the order in which one member's state is the set's.
var badness = map[State]int{Good: 0, Partial: 1, Failed: 2, Unready: 3, Foreign: 4}

func (r reader) stateOf(s catalog.Snapshot) (State, string) {
	switch {
	case s.CopyOnly && s.Record == nil:
		return Foreign, "its record cannot be read"
	case s.CopyOnly && len(s.Copies) > 0 && s.Copies[0].Partial: // those that are whole come first
		return Partial, s.Claim + ": files are not in the copy"
	case s.CopyOnly, s.BackupNS && s.Ready:
		return Good, ""
	case s.BackupNS && s.Err != "":
		return Failed, s.Claim + ": " + s.Err
	case s.BackupNS:
		return Unready, s.Claim + " is not ready"
	case s.Unfinished() && r.o.Alive != nil && r.o.Alive(s.Run):
		return Unready, fmt.Sprintf("run %s is at work", s.Run)
	case s.Unfinished():
		return Failed, cmp.Or(s.Err, "it never became a restore point")
	case s.Record == nil || s.Run == "":
		return Foreign, "its record cannot be read, or it has none"
	case !s.Ready:
		return Unready, s.Claim + " is not ready"
	}
	return Good, ""
}

// missing are the claims that the set should hold and does not, sorted.
func missing(there []catalog.Snapshot) []string {
	var gone []string
	for _, s := range there {
		if s.Record == nil {
			continue
		}
		for _, claim := range s.Record.Members {
			if !slices.ContainsFunc(there, func(one catalog.Snapshot) bool { return one.Claim == claim }) {
				gone = append(gone, claim)
			}
		}
	}
	slices.Sort(gone)
	return slices.Compact(gone)
}
