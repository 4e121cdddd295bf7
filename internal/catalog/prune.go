package catalog

import (
	"errors"
	"fmt"
	"time"
)

// AnnotationKeep, on a claim or its namespace, is the policy by which prune
// keeps its snapshots, `daily=7,weekly=4,monthly=12`.
const AnnotationKeep = "backsnap.sh/keep"

// AnnotationKeepCopies, beside it, is that of its copies.
const AnnotationKeepCopies = "backsnap.sh/keep-copies"

// AnnotationMarked stands beside a LabelDeleteAfter that prune has set, not a
// person or --retain, and holds when. One that stands there without the label
// says that a person has taken the mark off.
const AnnotationMarked = "backsnap.sh/marked"

// Unmarked is the value of LabelPin on what `prune --unmark` has saved.
const Unmarked = "unmarked"

// AnnotationAdopted, on a content that a snapshot was adopted with, is the name
// of the content in whose place it stands.
const AnnotationAdopted = "backsnap.sh/adopted-from"

// Adopted is the value of LabelPin on what was adopted: who has asked for it
// decides when it may go.
const Adopted = "adopted"

// AdoptedName is the name of the content that takes the place of c: its
// snapshot has gone, and a content is never bound to a second one.
func (c Content) AdoptedName() string { return "adopted-" + c.UID }

// ErrChanged: it is not as it was when it was read.
var ErrChanged = errors.New("it has changed since it was listed")

// MarkUntil is the value of LabelDeleteAfter with which prune marks what is
// swept from then on.
func MarkUntil(t time.Time) string { return t.UTC().Format(deleteMoment) }

// MarkedByPrune reports whether prune has set the date on s: a day is always a
// person's, or that of --retain. backup-ns's pruner signs nothing, and sets
// days on calendar ones alone.
func (s Snapshot) MarkedByPrune() bool {
	if s.BackupNS && s.Retain == "calendar" && s.DeleteAfter != "" {
		return true
	}
	return IsMoment(s.DeleteAfter) && !s.Marked.IsZero()
}

func (s *Snapshot) readMark(text string) error {
	if text == "" {
		return nil
	}
	var err error
	if s.Marked, err = time.Parse(time.RFC3339, text); err != nil {
		return fmt.Errorf("read mark of %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// Content is what matters of a VolumeSnapshotContent to those who remove
// snapshots.
type Content struct {
	Name, UID, ResourceVersion string
	Role                       Role
	// Ours: it carries our labels, or at least the one that says so.
	Ours           bool
	Driver, Handle string // Handle is "" while the storage has given none
	Policy         string // Delete or Retain: what becomes of the storage's snapshot when it goes
	// Lent: prune has made Delete of Retain, to sweep it.
	Lent bool
	// Namespace, Snapshot and SnapshotUID are the VolumeSnapshot that it is
	// bound to, or is to be: the UID is "" until then.
	Namespace, Snapshot, SnapshotUID string
	// Labels are those of ours that it mirrors. Recorded: the record, too.
	Labels   map[string]string
	Recorded bool
	// Adopted is the content in whose place it was made; "" for none.
	Adopted     string
	Class       string
	RestoreSize int64 // bytes; 0 where the driver gives none
	Created     time.Time
	Cut         time.Time // zero until the storage has taken it
	Terminating bool
	Err         string // the last error, which may pass
}

// Standing is a VolumeSnapshot that there is, whoever has made it.
type Standing struct {
	UID string
	// From is the content that it was made to be bound to; "" for one of a claim.
	From string
}

// Of reports whether c is the content of s: each names the other.
func (c Content) Of(s Snapshot) bool {
	return c.Name == s.Content && c.Namespace == s.Namespace && c.Snapshot == s.Name && c.SnapshotUID == s.UID
}

// mirrored are the labels that a content has from its snapshot.
var mirrored = func() []string {
	keys := []string{LabelManagedBy, LabelRole, LabelNamespace, LabelClaim, LabelRun, LabelConsistency, LabelRetain, LabelDeleteAfter, LabelPin}
	for _, p := range Periods {
		keys = append(keys, p.Label())
	}
	return keys
}()

// OwnLabels are those of labels that a content mirrors from its snapshot. The
// map is the caller's.
func OwnLabels(labels map[string]string) map[string]string {
	own := map[string]string{}
	for _, key := range mirrored {
		if value, found := labels[key]; found {
			own[key] = value
		}
	}
	return own
}

// Drift is what has to be set on c, and where the value is nil taken off, so
// that it mirrors s: labels, and the annotations of one that has no record. Nil
// for nothing.
func (c Content) Drift(s Snapshot) (labels, notes map[string]*string) {
	note := func(key string, value *string) {
		if labels == nil {
			labels = map[string]*string{}
		}
		labels[key] = value
	}
	want := s.Labels()
	for key, value := range want {
		if has, found := c.Labels[key]; !found || has != value {
			note(key, &value)
		}
	}
	for key := range c.Labels {
		if _, found := want[key]; !found {
			note(key, nil)
		}
	}
	if s.Record == nil || c.Recorded {
		return labels, nil
	}
	kept, err := s.Annotations()
	if err != nil { // it stays without, as it is
		return labels, nil
	}
	notes = map[string]*string{}
	for key, value := range kept {
		notes[key] = &value
	}
	return labels, notes
}
