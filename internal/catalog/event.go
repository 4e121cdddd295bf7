package catalog

import "time"

// Phase is a step of a run.
type Phase string

// The phases, in order.
const (
	PhasePlan     Phase = "plan"
	PhaseSweep    Phase = "sweep" // of what earlier runs left, beside the others
	PhaseProbe    Phase = "probe"
	PhaseDump     Phase = "dump"
	PhaseBarrier  Phase = "barrier"
	PhaseSnapshot Phase = "snapshot"
	PhaseUpload   Phase = "upload"
	PhaseRestore  Phase = "restore"
	PhaseCheck    Phase = "check"  // whether a new volume can be mounted
	PhaseSafety   Phase = "safety" // snapshots of what is about to be replaced
	PhaseScale    Phase = "scale"
	PhaseSwap     Phase = "swap" // of volumes behind a claim
	PhaseLoad     Phase = "load" // of a dump into a server
	PhaseResult   Phase = "result"
)

// State is where a phase stands.
type State string

// The states.
const (
	Started  State = "started"
	Progress State = "progress"
	Cut      State = "cut" // of a snapshot: the storage has taken it
	OK       State = "ok"  // the phase is done
	Failed   State = "failed"
	Warning  State = "warning"
)

// Event is one thing that happened in a run, for whoever watches it. Fields
// that do not apply are zero.
type Event struct {
	Time       time.Time
	Run        Run
	Phase      Phase
	State      State
	Namespace  string
	App        string
	Claim      string
	Pod        string
	Name       string // of the snapshot
	Repository string
	Tool       string
	Message    string // cause of a failure, text of a warning
	Bytes      int64  // done
	Total      int64
	Rate       int64 // bytes a second
	Left       time.Duration
	Took       time.Duration
	Copy       string // restic's snapshot id
	Added      int64  // bytes stored in the repository
}

// Watcher sees the events of a run as they happen. It is called from several
// goroutines at once and must not block.
type Watcher interface {
	Event(Event)
}

// Line is one line of what a cluster keeps for a while about an object: of a
// pod's log, or an event.
type Line struct {
	Time  time.Time // zero if it is not known
	About string    // `pod/NAME`, `job/NAME`
	Text  string
}

// Notice is an Event object of the cluster: what controllers and drivers have
// said of an object. Its words are theirs.
type Notice struct {
	Time    time.Time `json:"time"` // when it was said last
	Type    string    `json:"type"` // Normal or Warning
	Reason  string    `json:"reason"`
	Object  string    `json:"object"` // `volumesnapshot/data-1`
	Source  string    `json:"source,omitempty"`
	Message string    `json:"message"`
	Count   int       `json:"count"` // how often it was said
}
