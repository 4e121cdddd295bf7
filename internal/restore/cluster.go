// Package restore is the verb that gets data back: it chooses the set that was
// asked for, plans into which new claims its volumes go, and runs that plan.
//
// From a snapshot a claim is cloned by the storage; where the claim is to be in
// another namespace, from a static copy of the snapshot there. From a copy, a
// mover fills a claim in the backup namespace, where the repository's Secret
// lies, and the volume of that claim is handed to the one that was asked for.
//
// The plan names the one set that was chosen, and nothing else is ever taken
// in its place. Nothing that exists is changed: claims, apps and restore points
// stay as they are. Where the cluster has no set on record that will do, the
// copies are found from the repositories alone.
package restore

import (
	"context"
	"io"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Cluster is what restoring needs of a cluster. Waiting is watching, never
// polling. Once ctx is done every method returns its cause. What is to be made
// and is there already, made by the same run for the same purpose, is taken as
// made; what is to be removed and is gone already is removed.
type Cluster interface {
	// Snapshots are all that carry our labels in scope, by namespace and name.
	Snapshots(ctx context.Context, scope catalog.Scope) ([]catalog.Snapshot, error)
	// Inventory lists each kind once.
	Inventory(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error)
	// StorageClass reads one class; catalog.ErrGone if there is none of that name.
	StorageClass(ctx context.Context, name string) (catalog.StorageClass, error)
	// CreateNamespace makes a namespace; false if it was there, which is left
	// as it is. dry asks the server whether it would, and makes none.
	CreateNamespace(ctx context.Context, n catalog.Meta, dry bool) (made bool, err error)
	// Missing are those of the rights that the caller does not have, in order.
	Missing(ctx context.Context, rights []catalog.Right) ([]catalog.Right, error)

	// TryClaim asks the server whether it would make the claim, quotas and
	// admission included, and makes nothing. That one of that name is there is
	// catalog.ErrTaken.
	TryClaim(ctx context.Context, claim catalog.Claim) error
	// MakeClaim makes the claim and returns its UID: one whose volume is filled
	// from the snapshot of that name in the same namespace, an empty one where
	// snapshot is "", or the next owner of claim.Volume where that is set. It
	// does not wait for the volume.
	MakeClaim(ctx context.Context, claim catalog.Claim, snapshot string) (uid string, err error)
	// AwaitBound returns when the claim is bound, and calls trouble with what
	// the cluster complains of meanwhile. That the claim is gone is
	// catalog.ErrGone.
	AwaitBound(ctx context.Context, namespace, name string, trouble func(restic.Trouble)) error
	// RemoveClaim deletes the claim with that UID and returns when it is gone.
	RemoveClaim(ctx context.Context, namespace, name, uid string) error

	// Current is s as it stands now, with its content. It fails with
	// catalog.ErrGone if s is not there any more, and if the two do not name
	// each other.
	Current(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error)
	// Expose makes a static copy of s, named and labelled as static: a
	// VolumeSnapshotContent with s's handle that is always retained, and a
	// VolumeSnapshot bound to it. It returns when that is ready to be cloned.
	Expose(ctx context.Context, s, static catalog.Snapshot) error
	// RemoveStatic deletes the VolumeSnapshot of that name and, once it is
	// gone, the content of that name. The storage keeps its snapshot.
	RemoveStatic(ctx context.Context, namespace, name string) error

	// StartMover makes the Job.
	StartMover(ctx context.Context, job restic.Job) error
	// RemoveMover deletes the Job and returns when it and its pods are gone.
	RemoveMover(ctx context.Context, namespace, name string) error
	// Exec runs argv in a container. A nil error proves nothing: a stream that
	// was cut may end with none. stdin stays open until the command has ended.
	Exec(ctx context.Context, ref catalog.ContainerRef, argv []string, stdin io.Reader, stdout, stderr io.Writer) error

	// KeepVolume makes the volume of a bound claim outlive it, labels it, and
	// returns it as it was before. It fails with catalog.ErrGone if the claim is
	// another one, or has no volume.
	KeepVolume(ctx context.Context, claim catalog.Claim, labels map[string]string) (catalog.Volume, error)
	// KeptVolumes are those that KeepVolume has kept for claims of namespace,
	// and LetVolume has not let go; none if that may not be seen.
	KeptVolumes(ctx context.Context, namespace string) ([]catalog.Volume, error)
	// HandVolume makes claim, which is not there yet, the only one that the
	// volume may be bound to. It fails if the volume is not that of v.Claim any
	// more.
	HandVolume(ctx context.Context, v catalog.Volume, claim catalog.Claim) error
	// LetVolume gives the volume that reclaim policy and takes the role off it
	// again. With Delete the volume goes, unless it is bound to a claim. That it
	// is gone is no error.
	LetVolume(ctx context.Context, name, policy string) error
}

// Follow watches a mover that was started until it has ended, tells what is to
// be told of it, and gives up on one that cannot start. claim is the name of
// the claim that it works on. cli puts it in: how movers are watched is the
// business of package offsite.
type Follow func(ctx context.Context, namespace, name, claim string, tell func(catalog.Event)) (restic.End, error)
