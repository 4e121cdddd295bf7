// Package catalog holds the nouns of kubectl backsnap: volume, app, snapshot,
// set, record, copy, period, date and run, and the one place where they are
// spelled as labels and annotations. The labels are the catalog: there is no
// database beside them, so what stands here is a contract for ever.
//
// It is pure. It never talks to a cluster and never reads the clock.
package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Labels on a VolumeSnapshot, mirrored one way to its VolumeSnapshotContent.
// Everything else we create carries LabelManagedBy, LabelRole and LabelRun.
const (
	LabelManagedBy   = "app.kubernetes.io/managed-by"
	LabelRole        = "backsnap.sh/role"
	LabelNamespace   = "backsnap.sh/namespace"
	LabelClaim       = "backsnap.sh/pvc"
	LabelRun         = "backsnap.sh/run"
	LabelConsistency = "backsnap.sh/consistency"
	LabelRetain      = "backsnap.sh/retain"
	LabelDeleteAfter = "backsnap.sh/delete-after"
	LabelPin         = "backsnap.sh/pin"
	// LabelSlot is the place on its node that a mover takes, "0" and up: no two
	// with the same one run on one node. Without the label it takes any room.
	LabelSlot = "backsnap.sh/slot"
	// LabelRepository marks the Secret of a repository; its value is the
	// repository's name.
	LabelRepository = "backsnap.sh/repository"
)

// ManagedBy is the value of LabelManagedBy on all that is ours.
const ManagedBy = "backsnap"

// Annotations that we write.
const (
	AnnotationRecord = "backsnap.sh/record"
	AnnotationCopies = "backsnap.sh/copies"
	// AnnotationVerified is the last Proof of a snapshot.
	AnnotationVerified = "backsnap.sh/verified"
	// AnnotationCluster stands on a repository's Secret and names this
	// cluster in restic's host names.
	AnnotationCluster = "backsnap.sh/cluster"
	// AnnotationServiceAccount stands there too and names the ServiceAccount
	// of its movers.
	AnnotationServiceAccount = "backsnap.sh/mover-service-account"
	// AnnotationRepositoryClaim stands there too and names the claim in the
	// same namespace that the repository lies on.
	AnnotationRepositoryClaim = "backsnap.sh/repository-claim"
)

// Annotations that a person writes on a claim, else on its namespace.
const (
	AnnotationSchedule      = "backsnap.sh/schedule"
	AnnotationSnapshotClass = "backsnap.sh/snapshot-class"
	AnnotationRetain        = "backsnap.sh/retain"
	AnnotationRepository    = "backsnap.sh/repository"
	AnnotationConsistency   = "backsnap.sh/consistency"
	AnnotationPlugin        = "backsnap.sh/plugin"
)

// Annotations of the programs that people come from, read and never written.
const (
	// AnnotationOperatorSchedule is that of the backsnap operator, on a claim
	// or its namespace: a schedule, or empty to be left out.
	AnnotationOperatorSchedule = "backsnap.skyb.it/schedule"
	// AnnotationNoBackup is that of the first backsnap, on a claim: with any
	// value it is left out.
	AnnotationNoBackup = "skyb.it/backsnap-no-backup"
)

// Role says what an object of ours is that is no restore point. A snapshot
// with a role is never listed, judged, counted or chosen.
type Role string

// The roles.
const (
	RoleStatic Role = "static" // the copy of a snapshot in the backup namespace
	RoleClone  Role = "clone"  // the volume made from it for a Job
	RoleMover  Role = "mover"  // the Job that runs restic
	RoleSafety Role = "safety" // taken before an in-place restore
	RoleNew    Role = "new"    // the volume that takes the place of another, and the claim that it comes from
	RoleOld    Role = "old"    // the volume that had that place before
)

// Ours is what every object that we create carries: whose it is, of which
// run, and its role ("" for a restore point). The map is the caller's.
func Ours(role Role, run Run) map[string]string {
	labels := map[string]string{LabelManagedBy: ManagedBy, LabelRun: string(run)}
	if role != "" {
		labels[LabelRole] = string(role)
	}
	return labels
}

// Object names an object of ours as kubectl does.
type Object struct {
	Kind      string // `job.batch`, one of the Kinds
	Namespace string // "" for what is in none
	Name      string
}

// The kinds of what we create and may have to remove.
const (
	KindJob      = "job.batch"
	KindClaim    = "persistentvolumeclaim"
	KindSnapshot = "volumesnapshot.snapshot.storage.k8s.io"
)

// HandsOff are the annotations that keep Argo CD and Flux from removing what
// we create because it is not in their repository. The map is the caller's.
func HandsOff() map[string]string {
	return map[string]string{
		"argocd.argoproj.io/sync-options":    "Prune=false",
		"argocd.argoproj.io/compare-options": "IgnoreExtraneous",
		"kustomize.toolkit.fluxcd.io/prune":  "disabled",
	}
}

// The longest a label value and an object name may be (Kubernetes API
// conventions, "Names" and "Labels").
const (
	maxLabel = 63
	maxName  = 253
)

// ClaimLabel is a claim's name as the value of LabelClaim: the name itself, or
// its beginning and a hash where it is longer than a label may be.
func ClaimLabel(claim string) string { return Shorten(claim, maxLabel) }

// ObjectName is what the snapshot of claim in run is called, and what is made
// from it: `<claim>-<run>`, with the claim's name shortened by a hash where
// the whole would be longer than limit (253 for most kinds, 63 for a Job,
// whose name becomes a label).
func ObjectName(claim string, run Run, limit int) string {
	return Shorten(claim, limit-len(run)-1) + "-" + string(run)
}

// SnapshotName is ObjectName with the limit of a VolumeSnapshot.
func SnapshotName(claim string, run Run) string { return ObjectName(claim, run, maxName) }

// Shorten is s, or, where it is longer than limit bytes, its beginning, a dash
// and ten hexadecimal digits of its SHA-256: two long names that begin alike
// stay two names.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	digest := hex.EncodeToString(sum[:5])
	return strings.TrimRight(s[:limit-len(digest)-1], "-._") + "-" + digest
}
