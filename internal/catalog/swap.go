package catalog

import (
	"slices"
	"strconv"
	"strings"
)

// Annotations of a restore in place.
const (
	// AnnotationReplicas stands on a workload that was scaled to 0, and is how
	// many replicas it had and will have again.
	AnnotationReplicas = "backsnap.sh/replicas"
	// AnnotationInPlace stands beside it and is the run that has scaled it.
	AnnotationInPlace = "backsnap.sh/in-place"
	// AnnotationClaim stands on both PersistentVolumes of a claim whose data is
	// replaced, and is the claim's manifest: kubectl can make it again.
	AnnotationClaim = "backsnap.sh/claim"
	// AnnotationTurn stands there too while the volumes are exchanged, and says
	// which of them the claim is to have in the end.
	AnnotationTurn = "backsnap.sh/turn"
)

// Turn is the direction in which the volumes of a claim are exchanged.
type Turn string

// The turns. Without one nothing is under way.
const (
	Forth Turn = "restore"  // the new volume takes the place of the old one
	Back  Turn = "rollback" // the old one takes its place again
)

// App is a workload whose pods mount claims, or would if it had any.
type App struct {
	Workload
	Namespace, UID      string
	Labels, Annotations map[string]string
	// Owner is who controls it, `Cluster/pg of postgresql.cnpg.io`; "" for nobody.
	Owner    string
	Replicas int
	// Claims are those that its pods name; Templates are how the names of the
	// claims of a StatefulSet's pods begin, `data-mysql-`.
	Claims, Templates []string
	// DeletesClaims: a StatefulSet that removes its claims when it is scaled down.
	DeletesClaims bool
	// Autoscalers and Budgets are the HorizontalPodAutoscalers that scale it
	// and the PodDisruptionBudgets of its pods, by name.
	Autoscalers, Budgets []string
}

// Mounts reports whether pods of a mount that claim, or would.
func (a App) Mounts(claim string) bool {
	return slices.Contains(a.Claims, claim) || slices.ContainsFunc(a.Templates, func(beginning string) bool {
		ordinal, found := strings.CutPrefix(claim, beginning)
		_, err := strconv.ParseUint(ordinal, 10, 31)
		return found && err == nil
	})
}

// Scalable reports whether a can be scaled to 0 and back.
func (a App) Scalable() bool { return a.Kind == "statefulset" || a.Kind == "deployment" }

// Remembered is how many replicas a had before run scaled it; ok is false if
// that run has not.
func (a App) Remembered(run Run) (replicas int, ok bool) {
	if a.Annotations[AnnotationInPlace] != string(run) {
		return 0, false
	}
	replicas, err := strconv.Atoi(a.Annotations[AnnotationReplicas])
	return replicas, err == nil
}

// SwapVolume is one of the two PersistentVolumes of a claim whose data was
// replaced. Claim of its Volume is whose it is just now: without a UID that of
// the next claim of that name.
type SwapVolume struct {
	Volume
	Role   Role   // RoleOld or RoleNew
	Policy string // what becomes of it now when its claim goes
	Phase  string // Available, Bound, Released, ...
	Turn   Turn   // what is under way
	// Of is the claim whose data was replaced, and Manifest how to make it again.
	Namespace, Of string
	Manifest      string
	// DeleteAfter is until when it is kept though its run is committed, as
	// ReadDeleteAfter reads it; "" for no longer than that.
	DeleteAfter string
}

// Labels are those of the volume. The map is the caller's.
func (v SwapVolume) Labels() map[string]string {
	labels := Ours(v.Role, v.Run)
	labels[LabelNamespace] = v.Namespace
	labels[LabelClaim] = ClaimLabel(v.Of)
	return labels
}
