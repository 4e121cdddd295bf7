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

// Reasons of a Trouble that need an answer of their own. The others are the
// cluster's words: ImagePullBackOff, Unschedulable, FailedMount, ...
const (
	PodSecurity = "PodSecurity"
	Quota       = "Quota"
	LimitRange  = "LimitRange"
	OutOfMemory = "OOMKilled"
	// NodeNotReady: the node that the pod is on does not answer.
	NodeNotReady = "NodeNotReady"
)

// Trouble is what the cluster says is wrong, in its own words.
type Trouble struct {
	Reason  string
	Message string
	Object  string // name of the quota or the node that is meant; "" elsewhere
	// Lasting: it does not pass by waiting.
	Lasting bool
}

// String is `ImagePullBackOff: Back-off pulling image ...`.
func (t Trouble) String() string {
	if t.Message == "" {
		return t.Reason
	}
	return t.Reason + ": " + t.Message
}

// Denied is the error of an object that the cluster does not admit.
type Denied struct {
	Trouble Trouble
	Err     error
}

// Error is what the server said.
func (d *Denied) Error() string { return d.Err.Error() }

// Unwrap is the server's own error.
func (d *Denied) Unwrap() error { return d.Err }

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
	Ending   bool // the Job is being deleted, or has failed and waits for its pods
	Clone    bool
	Static   bool // the static copy, or its content alone
}

// Unfinished reports whether the Job works, or is to: the cluster itself ends
// one whose deadline has passed.
func (m Mover) Unfinished() bool { return m.Job && !m.Finished && !m.Ending }

// Copies reports whether the Job makes a copy: others restore one, or work on
// the repository alone.
func (m Mover) Copies() bool {
	return m.Job && m.Source != (catalog.Source{}) && m.Source.Restores == ""
}
