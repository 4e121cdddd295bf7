// Package prune is the verb that removes restore points: it lists them once,
// has package retention judge them, and marks, unmarks and sweeps what was
// judged so. Nothing is removed the moment it is condemned, nothing that has
// changed since it was listed, nothing that somebody works with, and never the
// last good one of an app.
//
// Plan reads and Run writes; Run decides nothing but that something stays.
package prune

import (
	"context"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Cluster is what pruning needs of a cluster.
type Cluster interface {
	// Snapshots are all with our labels in scope, by namespace and name.
	Snapshots(ctx context.Context, scope catalog.Scope) ([]catalog.Snapshot, error)
	// BackupNS are those that backup-ns looks after; zone is where its days and
	// weeks begin.
	BackupNS(ctx context.Context, scope catalog.Scope, zone *time.Location) ([]catalog.Snapshot, error)
	// Standing are all VolumeSnapshots in scope, others' among them, by
	// namespace/name.
	Standing(ctx context.Context, scope catalog.Scope) (map[string]catalog.Standing, error)
	// Policies are the claims of scope and the annotations of its namespaces.
	// Namespaces that may not be read are among Unread.
	Policies(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error)
	// Contents are all of the cluster, others' among them. A missing right is a
	// catalog.Failure of CodeForbidden.
	Contents(ctx context.Context) ([]catalog.Content, error)
	// Content reads one; that it is not there is catalog.ErrGone.
	Content(ctx context.Context, name string) (catalog.Content, error)
	// Holdings are the namespaces in scope that runs hold.
	Holdings(ctx context.Context, scope catalog.Scope) ([]catalog.Holding, error)
	// Notices are what the cluster has said of snapshots and their contents, by
	// the snapshot's UID, oldest first. What may be read is returned beside a
	// catalog.Failure for what may not.
	Notices(ctx context.Context, snapshots []catalog.Snapshot) (map[string][]catalog.Notice, error)
	// Missing are those of the rights that the caller does not have, in order.
	Missing(ctx context.Context, rights []catalog.Right) ([]catalog.Right, error)

	// What was read is written only as long as it has not changed: else it is
	// catalog.ErrChanged, or catalog.ErrGone where it is not there any more.

	// Relabel sets labels and annotations of s, and takes off those whose value
	// is nil. The snapshot is returned as it is then.
	Relabel(ctx context.Context, s catalog.Snapshot, labels, annotations map[string]*string) (catalog.Snapshot, error)
	// Discard deletes s. That it is gone, or being deleted, is no error.
	Discard(ctx context.Context, s catalog.Snapshot) error
	// SetPolicy makes the content's deletion policy Delete, and notes that it
	// was Retain, or Retain again. The content is returned as it is then.
	SetPolicy(ctx context.Context, content catalog.Content, policy string) (catalog.Content, error)
	// LetGo has the controllers let go of a content whose snapshot is gone once it
	// is deleted: the policy says whether the storage's snapshot goes too, and
	// is noted as SetPolicy's. That its snapshot is there is catalog.ErrChanged.
	LetGo(ctx context.Context, content catalog.Content, policy string) (catalog.Content, error)
	// DiscardContent deletes a content whose snapshot is gone. That it is there
	// still, or the content has changed or is gone, is no error.
	DiscardContent(ctx context.Context, content catalog.Content) error
	// Mirror sets labels and annotations of a content, and takes off those whose
	// value is nil. The content is returned as it is then.
	Mirror(ctx context.Context, content catalog.Content, labels, annotations map[string]*string) (catalog.Content, error)

	// Remembered is the snapshot that a content was made for, as its labels and
	// record tell of it.
	Remembered(ctx context.Context, content catalog.Content) (catalog.Snapshot, error)
	// Adopt makes the content that s names, retained, and s bound to it; from is
	// the content in whose place it stands. What an earlier attempt has made is
	// taken; what others have made is catalog.ErrTaken.
	Adopt(ctx context.Context, s catalog.Snapshot, from string) error

	// FollowContents calls seen, never twice at once, with each content that
	// changes or goes, until ctx is done, which is no error. standing are the
	// names of those that are read again where something may have been missed.
	FollowContents(ctx context.Context, standing func() []string, seen func(content catalog.Content, gone bool)) error
	// Await calls done with the snapshots in namespace that carry our labels, as
	// they stand and at each change, until it says true or fails, or ctx is
	// done (the error is then its cause).
	Await(ctx context.Context, namespace string, done func([]catalog.Snapshot) (bool, error)) error
}

// The deletion policies of contents.
const (
	policyDelete = "Delete"
	policyRetain = "Retain"
)
