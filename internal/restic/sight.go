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

// Mover is one that stands in the backup namespace.
type Mover struct {
	Namespace, Name string
	Run             catalog.Run
	Source          catalog.Source // zero if it copies nothing
	Finished        bool
}
