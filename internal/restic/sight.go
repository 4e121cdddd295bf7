package restic

import (
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Sight is what a cluster shows of a mover on its way.
type Sight struct {
	Pod     string // "" until there is one
	Running bool   // restic runs
	// Trouble is what keeps it from running, or made an attempt fail; nil
	// for none.
	Trouble *Trouble
}

// Trouble is what the cluster says is wrong, in its own words. It may pass.
type Trouble struct {
	Reason  string // ImagePullBackOff, Unschedulable, FailedMount, ...
	Message string
}

// String is `ImagePullBackOff: Back-off pulling image ...`.
func (t Trouble) String() string {
	if t.Message == "" {
		return t.Reason
	}
	return t.Reason + ": " + t.Message
}

// End is how a mover ended.
type End struct {
	// Reason and Message are why the Job failed: BackoffLimitExceeded,
	// DeadlineExceeded, PodFailurePolicy; "" if it did not.
	Reason, Message string
	// Pod is the last one; "" if there was none. The rest is its container's.
	Pod      string
	Exit     int
	Killed   string // OOMKilled, Evicted, ...; "" for an ordinary end
	Text     string // termination message
	Finished time.Time
}

// Mover is what stands of one copy in the backup namespace: its Job and what
// that works with, which all have one name, or a part of them. A Job that
// copies nothing stands alone.
type Mover struct {
	Namespace, Name string
	Run             catalog.Run
	// Source is zero if the Job copies nothing. Without a Job it has Namespace
	// alone, and Claim as a label spells it.
	Source catalog.Source

	Job      bool
	Finished bool // the Job
	Ending   bool // the Job is being deleted
	Clone    bool
	Static   bool // snapshot or content, or both
}

// Unfinished reports whether the Job works, or is to: the cluster itself ends
// one whose deadline has passed.
func (m Mover) Unfinished() bool { return m.Job && !m.Finished && !m.Ending }
