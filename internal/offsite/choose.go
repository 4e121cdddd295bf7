package offsite

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Wish is one thing whose snapshots are to be copied.
type Wish struct {
	// Text is what a person wrote, `vs/data-1`; "" for everything in scope.
	Text    string
	Matches func(catalog.Snapshot) bool
	// Every one that matches is meant, as of a snapshot or a run that is
	// named; else the newest of each claim.
	Every bool
}

// Choice is what wishes come to.
type Choice struct {
	Snapshots []catalog.Snapshot // to be copied, by namespace, claim, run
	Left      []Left             // by namespace and name
}

// Left is a snapshot that is left out.
type Left struct {
	Snapshot catalog.Snapshot
	Reason   string // in words
	// Err is a catalog.Failure; nil where what was asked for is copied all
	// the same.
	Err error
}

// Choose finds what wishes mean among snapshots, all that carry our labels in
// scope. Only what is ready, labelled and on record can be copied: a snapshot
// of another's, a static copy, one that its run never finished is no restore
// point. That nothing at all matches a wish is an error, a catalog.Failure.
func Choose(wishes []Wish, snapshots []catalog.Snapshot) (Choice, error) {
	c := &chooser{seen: map[string]bool{}}
	for _, w := range wishes {
		var matching []catalog.Snapshot
		for _, s := range snapshots {
			if w.Matches(s) {
				matching = append(matching, s)
			}
		}
		if len(matching) == 0 && w.Text != "" {
			return Choice{}, &catalog.Failure{
				Code:    catalog.CodeNotFound,
				Message: "no snapshot of " + w.Text,
				State:   "nothing changed; a VolumeSnapshot that backsnap did not make is not copied",
				Next:    "kubectl backsnap list",
			}
		}
		if w.Every {
			c.every(matching)
		} else {
			c.newest(matching)
		}
	}
	byName := func(a, b catalog.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Claim, b.Claim), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(c.choice.Snapshots, byName)
	slices.SortFunc(c.choice.Left, func(a, b Left) int { return byName(a.Snapshot, b.Snapshot) })
	return c.choice, nil
}

type chooser struct {
	choice Choice
	seen   map[string]bool // by namespace/name
}

// first reports whether s is met for the first time.
func (c *chooser) first(s catalog.Snapshot) bool {
	key := s.Namespace + "/" + s.Name
	met := c.seen[key]
	c.seen[key] = true
	return !met
}

// take takes s. What the storage's clock said of the cut may be wrong, the
// record knows better.
func (c *chooser) take(s catalog.Snapshot) {
	if !c.first(s) {
		return
	}
	if !s.Record.Cut.IsZero() {
		s.Cut = s.Record.Cut
	}
	c.choice.Snapshots = append(c.choice.Snapshots, s)
}

// leave leaves s out, which is a failure where it was asked for.
func (c *chooser) leave(s catalog.Snapshot, asked bool) {
	if !c.first(s) {
		return
	}
	reason, code := unusable(s)
	left := Left{Snapshot: s, Reason: reason}
	if asked {
		left.Err = &catalog.Failure{
			Code:    code,
			Message: fmt.Sprintf("%s/%s not copied: %s", s.Namespace, s.Name, reason),
			State:   "it is as it was",
			Next:    fmt.Sprintf("kubectl describe volumesnapshot %s -n %s", s.Name, s.Namespace),
		}
	}
	c.choice.Left = append(c.choice.Left, left)
}

// every takes all.
func (c *chooser) every(matching []catalog.Snapshot) {
	for _, s := range matching {
		if reason, _ := unusable(s); reason != "" {
			c.leave(s, true)
			continue
		}
		c.take(s)
	}
}

// newest takes the newest restore point of each claim. What is newer and no
// restore point is said; that there is none at all is a failure.
func (c *chooser) newest(matching []catalog.Snapshot) {
	of := map[string][]catalog.Snapshot{}
	for _, s := range matching {
		if s.Role != "" { // nobody could have meant it
			c.leave(s, false)
			continue
		}
		claim := s.Namespace + "/" + s.Claim
		of[claim] = append(of[claim], s)
	}
	for _, snapshots := range of {
		slices.SortFunc(snapshots, func(a, b catalog.Snapshot) int {
			return cmp.Or(cmp.Compare(b.Run, a.Run), cmp.Compare(b.Name, a.Name))
		})
		usable := slices.IndexFunc(snapshots, func(s catalog.Snapshot) bool {
			reason, _ := unusable(s)
			return reason == ""
		})
		if usable < 0 {
			c.leave(snapshots[0], true)
			continue
		}
		for _, s := range snapshots[:usable] {
			c.leave(s, false)
		}
		c.take(snapshots[usable])
	}
}

// unusable is why s cannot be copied, "" if it can.
func unusable(s catalog.Snapshot) (string, catalog.Code) {
	switch {
	case s.Role != "":
		return "made by backsnap (" + string(s.Role) + "), no restore point", catalog.CodeUnsupported
	case s.Terminating:
		return "it is being deleted", catalog.CodeUnsupported
	case !s.Ready && s.Err != "":
		return "it is not ready: " + s.Err, catalog.CodeNotReady
	case !s.Ready:
		return "it is not ready", catalog.CodeNotReady
	case s.Consistency == "":
		return "its run has not finished it: it is no restore point", catalog.CodeUnsupported
	case s.Record == nil:
		return "it has no record that can be read", catalog.CodeUnsupported
	}
	return "", ""
}
