// Package snapshot is the verb that makes restore points: it plans which
// volumes are cut, with what consistency and how, and runs that plan: probe,
// dump, barrier, cut, wait until ready, label.
//
// Plan reads and Run writes; Run decides nothing. It never copies off-site:
// cli composes that.
package snapshot

import (
	"context"
	"io"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Cluster is what taking snapshots needs of a cluster.
type Cluster interface {
	// Inventory lists each kind once. That the snapshot API is missing is a
	// catalog.Failure of CodeNoAPI, a missing right one of CodeForbidden.
	Inventory(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error)
	// Missing are those of the rights that the caller does not have, in order.
	Missing(ctx context.Context, rights []catalog.Right) ([]catalog.Right, error)
	// Exec runs argv in a running container and returns when the command has
	// ended, its streams are drained, or ctx is done. A non-zero exit is an
	// *catalog.ExitError. A nil error proves nothing: cut streams end with one.
	Exec(ctx context.Context, c catalog.ContainerRef, argv []string, stdin io.Reader, stdout, stderr io.Writer) error
	// Create makes the VolumeSnapshot of s.Claim: s with name, UID and
	// resourceVersion is returned.
	Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error)
	// Await calls done with all snapshots in namespace that carry our labels,
	// first as they stand and then at each change, until it says true or
	// fails, or ctx is done (the error is then the context's cause). It
	// watches; it does not poll. Driver, Handle and a Cut finer than seconds
	// are Complete's to fill.
	Await(ctx context.Context, namespace string, done func([]catalog.Snapshot) (bool, error)) error
	// Complete reads s's content: Driver, Handle, Node, RestoreSize and Cut to the
	// nanosecond. It fails if the two do not point at each other. Without the
	// right to read contents s is returned as it is.
	Complete(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error)
	// Label writes the labels and annotations of s onto its VolumeSnapshot,
	// if it is still the one with s.UID, and mirrors the labels to its
	// content. That the content may not be written is catalog.ErrUnmirrored,
	// beside the labelled snapshot.
	Label(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error)
	// Delete removes s, if it is still the one with s.UID. That it is gone
	// already is no error.
	Delete(ctx context.Context, s catalog.Snapshot) error
}
