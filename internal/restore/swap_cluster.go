package restore

import (
	"context"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// SwapCluster is what restoring in place needs of a cluster. What was done
// already, by a call whose answer was lost or by a run that died, is done.
type SwapCluster interface {
	Cluster

	// Apps are the workloads of namespace that may mount claims, by kind and name.
	Apps(ctx context.Context, namespace string) ([]catalog.App, error)
	// Remember writes onto the workload which run has scaled it, and how many
	// replicas it is to have again; Forget takes that off.
	Remember(ctx context.Context, a catalog.App, run catalog.Run, replicas int) error
	Forget(ctx context.Context, a catalog.App) error
	// Replicas is how many the workload is to have now; Scale sets that.
	Replicas(ctx context.Context, a catalog.App) (int, error)
	Scale(ctx context.Context, a catalog.App, replicas int) error
	// AwaitIdle returns when no pod of namespace has any of the claims, and no
	// node any of the volumes. That one of apps is to have replicas meanwhile
	// is catalog.ErrRaised.
	AwaitIdle(ctx context.Context, namespace string, claims, volumes []string, apps []catalog.App) error
	// AwaitReady returns when the workload has so many pods that are ready.
	AwaitReady(ctx context.Context, a catalog.App, replicas int) error

	// ReadClaim reads a claim, and a manifest with which it can be made again.
	// That it is not there is catalog.ErrGone.
	ReadClaim(ctx context.Context, namespace, name string) (catalog.Claim, string, error)
	// RemakeClaim makes the claim of that manifest with that volume. That one
	// of that name is there with another volume is catalog.ErrTaken.
	RemakeClaim(ctx context.Context, manifest, volume string) error

	// SwapVolumes are those that MarkVolume has marked in namespace, "" for all.
	SwapVolumes(ctx context.Context, namespace string) ([]catalog.SwapVolume, error)
	// MarkVolume makes the volume outlive its claims and writes onto it whose
	// it is and what is under way. It fails if v.Claim is not whose it is.
	MarkVolume(ctx context.Context, v catalog.SwapVolume) error
	// OfferVolume leaves a volume that is retained to the next claim of that
	// name. It fails if v.Claim is not whose it is.
	OfferVolume(ctx context.Context, v catalog.SwapVolume, claim catalog.Claim) error
	// SettleVolume notes that nothing is under way any more, and gives the
	// volume its reclaim policy back where a claim has it; else until is its
	// DeleteAfter. That it is gone is no error.
	SettleVolume(ctx context.Context, name string, inUse bool, until string) error
	// AwaitVolumeGone returns when the volume is gone.
	AwaitVolumeGone(ctx context.Context, name string) error

	// Movers are those that stand in namespace, of all runs.
	Movers(ctx context.Context, namespace string) ([]restic.Mover, error)

	// Create makes the VolumeSnapshot of s.Claim.
	Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error)
	// Await calls done with all snapshots of namespace that carry our labels, as
	// they stand and at each change, until it says true or fails.
	Await(ctx context.Context, namespace string, done func([]catalog.Snapshot) (bool, error)) error
	// Delete removes s, if it is still the one with s.UID.
	Delete(ctx context.Context, s catalog.Snapshot) error
}
