package restore

import (
	"context"
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// RefillCluster is what restoring into the file systems of claims that stay
// needs of a cluster.
type RefillCluster interface {
	SwapCluster

	// TryMover asks the server whether it would make the Job, and makes nothing.
	TryMover(ctx context.Context, job restic.Job) error
	// NoteRefill writes onto the claim with that UID how far it is; nil takes
	// that off, and that the claim is gone is then no error.
	NoteRefill(ctx context.Context, claim catalog.Claim, r *catalog.Refill) error
	// NotePause writes onto the workload what it has to be again; nil takes
	// that off.
	NotePause(ctx context.Context, a catalog.App, p *catalog.Pause) error
	// AwaitRaised returns catalog.ErrRaised once one of apps is to have
	// replicas, and the cause of ctx once that is done.
	AwaitRaised(ctx context.Context, apps []catalog.App) error
}

// Refill is a restore into the file systems of claims as it stands. There is no
// journal: it is read from the claims, the workloads and the snapshots.
type Refill struct {
	Namespace string
	Run       catalog.Run
	Claims    []catalog.Claim    // that the run has begun and not ended with, by name
	Apps      []catalog.App      // that it has scaled down and not back, by kind and name
	Safety    []catalog.Snapshot // of what the claims held before, one each
}

// FindRefill reads the refill of that run: nothing but its name where there is
// no trace of it.
func FindRefill(ctx context.Context, c RefillCluster, namespace string, run catalog.Run) (Refill, error) {
	f := Refill{Namespace: namespace, Run: run}
	scope := catalog.Scope{Namespaces: []string{namespace}}
	inventory, err := c.Inventory(ctx, scope)
	if err != nil {
		return f, err
	}
	apps, err := c.Apps(ctx, namespace)
	if err != nil {
		return f, err
	}
	snapshots, err := c.Snapshots(ctx, scope)
	if err != nil {
		return f, err
	}
	f.Claims = slices.DeleteFunc(inventory.Claims, func(claim catalog.Claim) bool {
		r, noted := claim.Refill()
		return !noted || r.Run != run
	})
	f.Apps = slices.DeleteFunc(apps, func(a catalog.App) bool {
		p, noted := a.Pause()
		return !noted || p.Run != run
	})
	f.Safety = safetyOf(snapshots, run)
	return f, nil
}

// safetyOf are the snapshots that run has taken of what it was about to
// overwrite, the last of each claim, by claim. Those of a restore in place have
// no record: it keeps the volumes themselves.
func safetyOf(snapshots []catalog.Snapshot, run catalog.Run) []catalog.Snapshot {
	last := map[string]catalog.Snapshot{}
	for _, s := range snapshots {
		if s.Role != catalog.RoleSafety || s.Run != run || s.Record == nil || s.Terminating {
			continue
		}
		if other, found := last[s.Claim]; !found || s.Created.After(other.Created) {
			last[s.Claim] = s
		}
	}
	var safety []catalog.Snapshot
	for _, s := range snapshots {
		if last[s.Claim].Name == s.Name && last[s.Claim].UID == s.UID {
			safety = append(safety, s)
		}
	}
	return safety
}

// Found reports whether there is any trace of the run.
func (f Refill) Found() bool { return len(f.Claims)+len(f.Apps)+len(f.Safety) > 0 }

// Ended reports whether nothing is left for the run to do.
func (f Refill) Ended() bool { return len(f.Claims)+len(f.Apps) == 0 }

// Touched reports whether any claim holds other data than before the run.
func (f Refill) Touched() bool {
	return slices.ContainsFunc(f.Claims, func(c catalog.Claim) bool {
		r, _ := c.Refill()
		return r.Stage != catalog.StageBegun
	})
}

// Replaced reports whether the way back is by the safety snapshots: the run has
// ended, or has changed the data.
func (f Refill) Replaced() bool { return f.Touched() || f.Ended() && len(f.Safety) > 0 }

// midSwap is that a restore in place is exchanging the volume of one of the
// claims; nil for none. Who may not see volumes is told of none.
func midSwap(ctx context.Context, c SwapCluster, namespace string, claims []string) error {
	volumes, err := c.SwapVolumes(ctx, namespace)
	if err != nil && catalog.CodeOf(err) != catalog.CodeForbidden {
		return err
	}
	for _, v := range volumes {
		if v.Turn != "" && slices.Contains(claims, v.Of) {
			return halfDone(v, namespace)
		}
	}
	return nil
}

// CanUndo says why the way back cannot be gone just now, nil if it can: the
// last attempt at it is still exchanging volumes. The error is a
// catalog.Failure.
func (f Refill) CanUndo(ctx context.Context, c SwapCluster) error {
	var claims []string
	for _, claim := range f.Claims {
		claims = append(claims, claim.Name)
	}
	for _, s := range f.Safety {
		claims = append(claims, s.Claim)
	}
	return midSwap(ctx, c, f.Namespace, claims)
}
