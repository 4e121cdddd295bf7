package restore

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Target is what is to be restored, as the command line names it.
type Target struct {
	Namespace string
	// Kind is "pvc", a workload's kind in lower case, "vs" for one snapshot,
	// "run" for all sets of a run, or "namespace" for the newest sets of all its
	// apps.
	Kind string
	Name string
}

// String is the target as the command line has it.
func (t Target) String() string {
	if t.Kind == "pvc" {
		return t.Name
	}
	return t.Kind + "/" + t.Name
}

// From is where the data is to come from.
type From struct {
	Kind FromKind
	// Repository is the only one to take a copy from; "" for any.
	Repository string
}

// FromKind is snapshot, copy, or either.
type FromKind string

// The kinds of From.
const (
	Auto     FromKind = "auto" // the snapshot where it is there and ready, else a copy of it
	Snapshot FromKind = "snapshot"
	Copy     FromKind = "copy"
)

// ParseFrom reads `auto`, `snapshot`, `copy` or `copy:REPOSITORY`.
func ParseFrom(text string) (From, error) {
	kind, repository, named := strings.Cut(text, ":")
	switch k := FromKind(kind); {
	case k == Copy && (!named || repository != ""):
		return From{Kind: k, Repository: repository}, nil
	case (k == Auto || k == Snapshot) && !named:
		return From{Kind: k}, nil
	}
	return From{}, fmt.Errorf("from %q: want auto, snapshot, copy or copy:REPOSITORY", text)
}

// String is what ParseFrom reads.
func (f From) String() string {
	if f.Repository != "" {
		return string(f.Kind) + ":" + f.Repository
	}
	return string(f.Kind)
}

// moments are the forms of a time of day, in the zone of the caller.
var moments = []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04"}

// ParseAt reads `latest`, which is the zero time, a time such as
// 2026-11-21T23:00, in zone unless it has one of its own, or an age such as
// 36h or 2d, counted back from now. A day without a time of day is refused: it
// is not said whether its beginning or its end is meant.
func ParseAt(text string, now time.Time, zone *time.Location) (time.Time, error) {
	if text == "latest" {
		return time.Time{}, nil
	}
	if age, ok := parseAge(text); ok {
		return now.Add(-age), nil
	}
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	for _, form := range moments {
		at, err := time.ParseInLocation(form, text, zone)
		if err != nil {
			continue
		}
		if !strings.HasPrefix(text, at.Format(form)) {
			return at, fmt.Errorf("at %q: the clocks in %s skip that time", text, zone)
		}
		return at, nil
	}
	if _, err := time.Parse(time.DateOnly, text); err == nil {
		return time.Time{}, fmt.Errorf("at %q: want a time of that day, such as %sT23:00", text, text)
	}
	return time.Time{}, fmt.Errorf("at %q: want latest, a time such as 2026-11-21T23:00, or an age such as 36h or 2d", text)
}

// parseAge reads Go's durations, and whole days before them: 2d, 1d12h.
func parseAge(text string) (time.Duration, bool) {
	var age time.Duration
	if days, rest, ok := strings.Cut(text, "d"); ok {
		n := 0
		if _, err := fmt.Sscanf(days+";", "%d;", &n); err != nil || n > 36500 {
			return 0, false
		}
		age, text = time.Duration(n)*24*time.Hour, cmp.Or(rest, "0s")
	}
	rest, err := time.ParseDuration(text)
	return age + rest, err == nil && age >= 0 && rest >= 0
}

// Point is one claim as a set holds it, and where it is taken from.
type Point struct {
	Snapshot catalog.Snapshot
	Copy     *catalog.Copy // nil: the snapshot itself
}

// block reports whether it is taken from the image of a device.
func (p Point) block() bool {
	return p.Copy != nil && p.Snapshot.Record.Claim.VolumeMode == catalog.BlockMode
}

// Chosen is a set that is restored, or the one claim of it that was asked for.
type Chosen struct {
	Set    catalog.Set
	Cut    time.Time // of the last of Points
	Points []Point   // by claim
}

// Passed is a set that was not chosen, and why.
type Passed struct {
	Run    catalog.Run
	Cut    time.Time
	Reason string
}

// Choice is what was chosen.
type Choice struct {
	Chosen []Chosen // one; several only where a run or a namespace was asked for
	// Passed are newer sets of the same, the newest first.
	Passed []Passed
	// Lacking are apps of a namespace that nothing can be restored of.
	Lacking []Lacking
}

// Choose finds the newest set of r.Target that is complete and usable, at or
// before r.At, among all snapshots of r.Target.Namespace. It is pure.
// repositories are those of which copies can be taken. Its error is a
// catalog.Failure of CodeNoSet that names the nearest set there is.
func Choose(r Request, repositories []catalog.Repository, snapshots []catalog.Snapshot) (Choice, error) {
	c := chooser{Request: r, repositories: repositories}
	switch r.Target.Kind {
	case "vs":
		return c.one(snapshots)
	case "run":
		return c.run(catalog.Sets(snapshots))
	case kindNamespace:
		return c.whole(catalog.Sets(snapshots))
	case kindSafety:
		return c.safety(snapshots)
	}
	return c.newest(catalog.Sets(snapshots))
}

type chooser struct {
	Request
	repositories []catalog.Repository
}

// one takes the snapshot that was named.
func (c chooser) one(snapshots []catalog.Snapshot) (Choice, error) {
	i := slices.IndexFunc(snapshots, func(s catalog.Snapshot) bool { return s.Name == c.Target.Name })
	if i < 0 {
		return Choice{}, c.none("there is no snapshot of ours with that name")
	}
	s := snapshots[i]
	switch {
	case s.Role != "" && (s.Role != catalog.RoleSafety || s.Record == nil):
		return Choice{}, c.none("it is no restore point, but one that backsnap made for itself (" + string(s.Role) + ")")
	case s.Record == nil:
		return Choice{}, c.none("it has no record that says what volume it was taken of")
	case s.Terminating:
		return Choice{}, c.none("it is being deleted")
	}
	point, reason := c.point(s)
	if reason != "" {
		return Choice{}, c.none(reason)
	}
	set := catalog.Set{Namespace: s.Namespace, Run: s.Run, App: s.Record.App, Members: s.Record.Members, Snapshots: []catalog.Snapshot{s}}
	return Choice{Chosen: []Chosen{{Set: set, Cut: s.CutAt(), Points: []Point{point}}}}, nil
}

// run takes all sets of a run, each whole.
func (c chooser) run(sets []catalog.Set) (Choice, error) {
	var choice Choice
	var reasons []string
	for _, set := range sets {
		if set.Run != catalog.Run(c.Target.Name) {
			continue
		}
		chosen, reason := c.take(set, set.Members)
		if reason != "" {
			reasons = append(reasons, set.App+": "+reason)
		}
		choice.Chosen = append(choice.Chosen, chosen)
	}
	switch {
	case len(reasons) > 0:
		return Choice{}, c.none(strings.Join(reasons, "; "))
	case len(choice.Chosen) == 0:
		return Choice{}, c.none("there is no snapshot of that run")
	}
	slices.SortFunc(choice.Chosen, func(a, b Chosen) int { return cmp.Compare(a.Set.App, b.Set.App) })
	return choice, nil
}

// newest takes the newest set that will do.
func (c chooser) newest(sets []catalog.Set) (Choice, error) {
	var candidates []Chosen
	reasons := map[int]string{}
	for _, set := range sets {
		claims := c.claims(set)
		if len(claims) == 0 {
			continue
		}
		chosen, reason := c.take(set, claims)
		if reason != "" {
			reasons[len(candidates)] = reason
		}
		candidates = append(candidates, chosen)
	}
	var passed []Passed
	for i, candidate := range candidates {
		late := !c.At.IsZero() && candidate.Cut.After(c.At)
		if !late && reasons[i] == "" {
			return Choice{Chosen: []Chosen{candidate}, Passed: passed}, nil
		}
		reason := reasons[i]
		if late {
			reason = "it is after " + c.AtText
		}
		passed = append(passed, Passed{Run: candidate.Set.Run, Cut: candidate.Cut, Reason: reason})
	}
	return Choice{}, c.nearest(candidates, reasons, passed)
}

// claims are those of set that are asked for, none if set is not meant.
func (c chooser) claims(set catalog.Set) []string {
	switch {
	case c.Target.Kind == kindNamespace:
		return set.Members
	case c.Target.Kind == "pvc" && slices.Contains(set.Members, c.Target.Name):
		return []string{c.Target.Name}
	case c.Target.Kind != "pvc" && set.Includes(c.Target.String()):
		return set.Members
	}
	return nil
}

// take is the set as it would be restored; with the reason if it cannot be.
func (c chooser) take(set catalog.Set, claims []string) (Chosen, string) {
	chosen := Chosen{Set: set, Cut: set.CutAt()}
	var reasons []string
	for _, claim := range claims {
		s, found := set.Of(claim)
		if !found {
			reasons = append(reasons, "it has no snapshot of "+claim)
			continue
		}
		point, reason := c.point(s)
		if reason != "" {
			reasons = append(reasons, claim+": "+reason)
		}
		chosen.Points = append(chosen.Points, point)
	}
	if len(claims) == 1 && len(chosen.Points) == 1 {
		chosen.Cut = chosen.Points[0].Snapshot.CutAt()
	}
	return chosen, strings.Join(reasons, ", ")
}

// point is s and where it is taken from, or why it cannot be.
func (c chooser) point(s catalog.Snapshot) (Point, string) {
	p := Point{Snapshot: s}
	if s.CutAt().IsZero() {
		return p, "it was never cut"
	}
	snapshot := ""
	switch {
	case s.CopyOnly:
		snapshot = "its snapshot is gone"
	case !s.Ready && s.Err != "":
		snapshot = "its snapshot is not ready (" + s.Err + ")"
	case !s.Ready:
		snapshot = "its snapshot is not ready"
	}
	if c.From.Kind == Snapshot || c.From.Kind == Auto && snapshot == "" {
		return p, snapshot
	}
	found, reason := c.copy(s)
	if reason != "" && c.From.Kind == Auto {
		reason = snapshot + " and " + reason
	}
	p.Copy = found
	return p, reason
}

// copy is the copy of s that is taken: that in the repository that was named,
// else in the first by name whose Secret is there. Of several in one repository
// it is the last: it was made again for a reason.
func (c chooser) copy(s catalog.Snapshot) (*catalog.Copy, string) {
	copies := slices.SortedFunc(slices.Values(s.Copies), func(a, b catalog.Copy) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), b.Finished.Compare(a.Finished))
	})
	unknown, partial := "", ""
	for _, found := range copies {
		switch {
		case c.From.Repository != "" && found.Repository != c.From.Repository:
		case found.Partial:
			partial = found.Repository
		case slices.ContainsFunc(c.repositories, func(r catalog.Repository) bool { return r.Name == found.Repository }):
			return &found, ""
		case unknown == "":
			unknown = found.Repository
		}
	}
	switch {
	case unknown != "":
		return nil, fmt.Sprintf("it has a copy in %s, whose Secret is not in namespace %s", unknown, c.BackupNamespace)
	case partial != "":
		return nil, fmt.Sprintf("its copy in %s is not whole: some files could not be read when it was made", partial)
	case c.From.Repository != "":
		return nil, "it has no copy in " + c.From.Repository
	}
	return nil, "it has no copy"
}
