package catalog

import "time"

// LeaseName is the name of the Lease that a run holds in each namespace it
// works in. Its holder is the run.
const LeaseName = "backsnap"

// AnnotationHolder stands on that Lease and names the process that holds it,
// for people: `pid 4711 on builder, user root`.
const AnnotationHolder = "backsnap.sh/holder"

// Holding is a namespace that a run holds. Whether its client lives, the Lease
// alone does not say.
type Holding struct {
	Namespace string
	Run       Run
	Holder    string    // for people; "" if it does not say
	Since     time.Time // zero if it does not say
}
