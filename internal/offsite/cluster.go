// Package offsite is the verb that copies snapshots into restic repositories:
// it plans which copy is made of which snapshot, and runs that plan. Each copy
// is made in the backup namespace, where the repositories' Secrets lie: from a
// static copy of the snapshot a clone is made, and a mover, a Job, reads it
// into the repository. What was made for it is removed again: the Job, the
// clone, the static copy, in that order.
//
// Plan decides and Run obeys. It never touches the source volume, never
// deletes a snapshot that is a restore point, and never sees a repository's
// password.
package offsite

import (
	"context"
	"io"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Cluster is what copying needs of a cluster. Waiting is watching, never
// polling. Once ctx is done every method returns its cause. What is to be made
// and is there already, made by the same run for the same purpose, is taken as
// made; what is to be removed and is gone already is removed.
type Cluster interface {
	// StorageClass reads one class.
	StorageClass(ctx context.Context, name string) (catalog.StorageClass, error)
	// Expose makes a static copy of s, named and labelled as static: a
	// VolumeSnapshotContent with s's handle that is always retained, and a
	// VolumeSnapshot bound to it. It returns when that is ready to be cloned.
	// Snapshot and content of s must name each other, else it fails.
	Expose(ctx context.Context, s, static catalog.Snapshot) error
	// CreateClone makes the claim whose volume is filled from the snapshot of
	// that name in the same namespace. It does not wait for the volume.
	CreateClone(ctx context.Context, clone catalog.Claim, snapshot string) error
	// StartMover makes the Job.
	StartMover(ctx context.Context, job restic.Job) error
	// FollowMover calls seen with the mover as it stands and at each change,
	// never twice at once, until its Job has ended for good. clone is the
	// name of its claim, whose troubles are the mover's; "" for none. That
	// the Job is gone is catalog.ErrGone.
	FollowMover(ctx context.Context, namespace, name, clone string, seen func(restic.Sight)) (restic.End, error)
	// MoverLog is the log of a mover's pod from its beginning, and as it grows.
	MoverLog(ctx context.Context, namespace, pod string) (io.ReadCloser, error)
	// Movers are what stands of copies in namespace, by name: Jobs, and what
	// Jobs work with.
	Movers(ctx context.Context, namespace string) ([]restic.Mover, error)
	// EachMover calls seen with each mover of run that stands in namespace and
	// each that is started, until ctx is done; that is no error.
	EachMover(ctx context.Context, namespace string, run catalog.Run, seen func(restic.Mover)) error
	// MoverPods are the names of the pods of movers in namespace that have not
	// ended, whatever their run.
	MoverPods(ctx context.Context, namespace string) ([]string, error)
	// AddCopy puts copy into the annotation of s, beside those that are there,
	// in place of an older one in the same repository. It fails with
	// catalog.ErrGone if s is not there any more. s needs Namespace, Name and
	// UID.
	AddCopy(ctx context.Context, s catalog.Snapshot, copy catalog.Copy) error

	// What is deleted and stays because others hold it is a *catalog.Held, once
	// that has lasted half a minute.

	// RemoveMover deletes the Job and returns when it and its pods are gone.
	RemoveMover(ctx context.Context, namespace, name string) error
	// RemoveClone deletes the claim and returns when it is gone. Its volume
	// goes with it, even if its class would retain it and reclaim is true.
	RemoveClone(ctx context.Context, namespace, name string, reclaim bool) error
	// RemoveStatic deletes the VolumeSnapshot of that name and, once it is
	// gone, the content of that name. The storage keeps its snapshot.
	RemoveStatic(ctx context.Context, namespace, name string) error

	// ClusterUID is the UID of the namespace kube-system: what tells clusters
	// apart.
	ClusterUID(ctx context.Context) (string, error)
	// Repositories are those whose Secrets lie in namespace, by name. Who may not
	// list Secrets is shown the named ones, as far as their Secrets have the
	// same names.
	Repositories(ctx context.Context, namespace string, named ...string) ([]catalog.Repository, error)
	// CreateNamespace makes a namespace; false if it was there, which is left
	// as it is. dry asks the server whether it would, and makes none.
	CreateNamespace(ctx context.Context, n catalog.Meta, dry bool) (made bool, err error)
	// CreateSecret makes a repository's Secret; false if it was there already
	// and says the same. That it says something else is catalog.ErrTaken, and
	// it is left as it is. dry asks the server whether it would, and makes none.
	CreateSecret(ctx context.Context, s catalog.Secret, dry bool) (made bool, err error)
	// NameCluster writes the cluster's name onto the repository's Secret,
	// unless there is one; the one that stands there then is returned.
	NameCluster(ctx context.Context, r catalog.Repository, name string) (string, error)
}
