package catalog

// LeaseName is the name of the Lease that a run holds in each namespace it
// works in. Its holder is the run.
const LeaseName = "backsnap"

// AnnotationHolder stands on that Lease and names the process that holds it,
// for people: `pid 4711 on builder, user root`.
const AnnotationHolder = "backsnap.sh/holder"
