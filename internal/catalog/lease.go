package catalog

import "time"

// LeaseName is the name of the Lease that a run holds in each namespace it
// works in. Its holder is the run.
const LeaseName = "backsnap"

// AnnotationHolder stands on that Lease and names the process that holds it,
// for people: `pid 4711 on builder, user root`.
const AnnotationHolder = "backsnap.sh/holder"

// Holding is a namespace, or one thing in it, that a run holds. Whether its
// client lives, the Lease alone does not say.
type Holding struct {
	Namespace string
	Lease     string // its name; LeaseName where it is all of the namespace
	Run       Run
	Holder    string    // for people; "" if it does not say
	Since     time.Time // zero if it does not say
	Until     time.Time // when it is over unless it is renewed; zero if it does not say
}

// Over reports whether nobody has renewed it for as long as it lasts, by the
// clock of whoever asks. That clock and the holder's may differ: who wants to
// take it watches it for that long.
func (h Holding) Over(now time.Time) bool { return !h.Until.IsZero() && h.Until.Before(now) }
