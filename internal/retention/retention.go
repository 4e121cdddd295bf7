package retention

import (
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Point is a restore point as it is judged: the set of one app from one run,
// as snapshots or as copies in a repository.
type Point struct {
	Namespace string
	// Name is the run; the snapshot's own name where it has no record, as those
	// of backup-ns. Namespace, App and Name name a point.
	Name string
	App  string // as in catalog.Record.App; "" where nothing says
	// Members are its claims' parts that there are, sorted by claim.
	Members []Member
	// Cut is when the last of them was cut. Zero where nothing was.
	Cut time.Time
	// Zone is where its days begin. Nil is UTC.
	Zone        *time.Location
	State       State
	Because     string              // why State is not Good, in words
	Consistency catalog.Consistency // "" where it is not known
}

// Member is one claim's part of a point, and what its labels say. Labels are
// the truth, and a person may set them on one member alone.
type Member struct {
	Name, Claim string // of the VolumeSnapshot, and of its source
	// UID is the claim's; "" where it is not known.
	UID         string
	Retain      string // value of catalog.LabelRetain
	Periods     map[catalog.Period]string
	DeleteAfter string // value of catalog.LabelDeleteAfter
	// Marked is when prune marked it; zero where it has not. Beside a moment
	// as DeleteAfter that is prune's mark; beside a day, a person has set another
	// date since; beside none, a person has taken the mark off.
	Marked time.Time
	Pinned bool
	// BackupNS: backup-ns wrote the labels. It signs no marks, so that a date on
	// a calendar snapshot is taken for its pruner's and not for a person's.
	BackupNS bool
	// Copied: each copy that was asked for is on record. Missing are the names
	// of the repositories where one is not.
	Copied  bool
	Missing []string
}

// State is what a point is good for.
type State string

// The states.
const (
	// Good: all its members are there and can be restored from. These alone
	// count: as the newest keys of a period and as the newest good ones.
	Good State = "good"
	// Partial: some members are gone. It is judged and does not count.
	Partial State = "partial"
	// Unready: not usable yet. It is left alone.
	Unready State = "unready"
	// Failed: it will never be usable. It expires by itself and never counts.
	Failed State = "failed"
	// Safety: taken before a restore in place. Its date alone is looked at.
	Safety State = "safety"
	// Foreign: not ours to judge: a newer version's, or not understood.
	Foreign State = "foreign"
)

// Decision is what is to become of a point.
type Decision string

// The decisions. Only Mark, Unmark and Sweep are something to do.
const (
	Keep   Decision = "keep"
	Mark   Decision = "mark"   // set delete-after and the annotation, on the members of Verdict.On
	Marked Decision = "marked" // has been, and its grace has not passed
	Unmark Decision = "unmark" // kept, and prune's mark is to be taken off the members of Verdict.On: label and annotation
	Sweep  Decision = "sweep"
	Leave  Decision = "leave" // not judged
)

// Verdict is what was decided of one point, and why.
type Verdict struct {
	Point    Point
	Decision Decision
	// KeptAs is the longest period that keeps it, `daily`; `pinned`, `30d`,
	// `copied`, `newest`; "" where nothing does.
	KeptAs string
	Reason string // for a person: `daily 2/7`
	// On are the names of the members that Mark or Unmark is for, sorted by
	// claim: a person's date is never written over, nor taken off.
	On []string
	// When is the moment from which it may be swept: of Mark (the mark to be
	// set), Marked and Sweep, and of Keep where a date keeps it; else zero.
	When time.Time
	// Protected: kept only because it is among the newest good ones.
	Protected bool
	// Err is what is wrong with it: it is left alone until a person mends it.
	Err error
}

// Rules are what points are judged by.
type Rules struct {
	// Policy is that of claims that have none of their own.
	Policy Policy
	// Own is a claim's own policy, false where it has none; an error leaves
	// all points with that claim alone. May be nil.
	Own func(namespace, claim string) (Policy, bool, error)
	// Grace is the time from mark to sweep; at 0 what is condemned is swept.
	Grace time.Duration
	// MinKeep is how many of the newest good points of each claim stay
	// whatever else holds; less than 1 is 1.
	MinKeep int
}
