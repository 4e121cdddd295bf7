package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// RefillPlan is what a restore into the file systems of claims will do.
type RefillPlan struct {
	Plan // of which each Volume's Claim is the one that is there
	Apps []catalog.App
	// Safety are the snapshots that are taken before, one a claim, in the order
	// of Volumes.
	Safety     []catalog.Snapshot
	Notes      []string
	AppTimeout time.Duration
	// Begun is what a dead run has begun, and this one ends under its name; nil
	// for nothing.
	Begun *Refill
}

// MakeRefillPlan looks at the cluster and decides. The movers run beside the
// claims, with the repositories of that namespace. It changes nothing. Its error
// is a catalog.Failure.
func MakeRefillPlan(ctx context.Context, c RefillCluster, r SwapRequest) (RefillPlan, error) {
	plan := RefillPlan{AppTimeout: r.AppTimeout}
	r.BackupNamespace, r.ToNamespace, r.From.Kind, r.Sure = r.Target.Namespace, r.Target.Namespace, Copy, true
	if err := checkTarget(r.Target, "--into-claim"); err != nil {
		return plan, err
	}
	f, err := find(ctx, c, r.Request)
	if len(f.inventory.Repositories) == 0 && (catalog.CodeOf(err) == catalog.CodeNoSet || catalog.CodeOf(err) == catalog.CodeNoSecret) {
		err = noneBeside(r.Target.Namespace)
	}
	if err != nil {
		return plan, likewise(err)
	}
	apps, err := c.Apps(ctx, r.Target.Namespace)
	if err != nil {
		return plan, err
	}
	plan.Plan = Plan{Request: r.Request, Chosen: f.Chosen, Passed: f.Passed, Asked: f.Asked}
	p := &refillPlanner{swapPlanner{SwapRequest: r, cluster: c, inventory: f.inventory, apps: apps}}
	// A mover that a dead run has left uses the claims too, and is removed.
	p.inventory.Pods = slices.DeleteFunc(p.inventory.Pods, func(pod catalog.Pod) bool { return pod.Labels[catalog.LabelManagedBy] == catalog.ManagedBy })
	if err := p.fill(ctx, &plan); err != nil {
		return plan, err
	}
	if err := p.users(); err != nil {
		return plan, err
	}
	if err := p.begun(ctx, c, &plan); err != nil {
		return plan, err
	}
	p.note()
	plan.Apps, plan.Notes = p.plan.Apps, p.plan.Notes
	return plan, p.secure(&plan)
}

// noneBeside is that there is no repository that a mover could use.
func noneBeside(namespace string) error {
	return &catalog.Failure{
		Code: catalog.CodeNoSecret, Message: fmt.Sprintf("--into-claim needs a repository in namespace %s, and there is none", namespace),
		State: "nothing changed",
		Next:  fmt.Sprintf("kubectl backsnap repo create NAME --backup-namespace %s --env-file FILE, with the name of the repository that has the copy", namespace),
	}
}

// likewise is err, whose next step restores the nearest set in the same way.
func likewise(err error) error {
	var none *catalog.Failure
	if errors.As(err, &none) && strings.HasPrefix(none.Next, "kubectl backsnap restore ") {
		none.Next += " --into-claim --in-namespace"
	}
	return err
}

type refillPlanner struct{ swapPlanner }

// fill plans each claim.
func (p *refillPlanner) fill(ctx context.Context, plan *RefillPlan) error {
	var claims []string
	for _, chosen := range plan.Chosen {
		for _, point := range chosen.Points {
			claims = append(claims, point.Snapshot.Claim)
		}
	}
	if err := midSwap(ctx, p.cluster, p.Target.Namespace, claims); err != nil {
		return err
	}
	for _, chosen := range plan.Chosen {
		for _, point := range chosen.Points {
			live, err := p.live(point)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(p.inventory.Repositories, func(r catalog.Repository) bool { return r.Name == point.Copy.Repository })
			plan.Volumes = append(plan.Volumes, Volume{
				Point: point, Way: Fill, Claim: live, Class: catalog.StorageClass{Name: live.StorageClass}, Repository: p.inventory.Repositories[i],
			})
			p.plan.Live = append(p.plan.Live, live)
		}
	}
	return nil
}

// live is the claim whose data is overwritten.
func (p *refillPlanner) live(point Point) (catalog.Claim, error) {
	name := point.Snapshot.Claim
	i := slices.IndexFunc(p.inventory.Claims, func(c catalog.Claim) bool { return c.Name == name && c.Namespace == p.Target.Namespace })
	beside := "restore into a new claim: without --into-claim"
	if i < 0 {
		return catalog.Claim{}, p.refuse(name, "it is not there", fmt.Sprintf("make it anew: kubectl backsnap restore %s -n %s --to-pvc %s", name, p.Target.Namespace, name))
	}
	live := p.inventory.Claims[i]
	switch {
	case live.Terminating:
		return live, p.refuse(name, "it is being deleted", "wait until it is gone")
	case live.Phase != "Bound":
		return live, p.refuse(name, "it is "+live.Phase+", not bound to a volume", beside)
	case live.VolumeMode == catalog.BlockMode || point.block():
		return live, p.refuse(name, "it, or the copy, is a device and no file system", beside+", or with --in-place")
	case live.Capacity > 0 && point.Copy.Bytes > live.Capacity:
		return live, p.refuse(name, fmt.Sprintf("it holds %d bytes, the copy %d", live.Capacity, point.Copy.Bytes), "let it grow, or "+beside)
	}
	return live, nil
}

// begun finds what a dead run has left for this one to end, and refuses what
// is not all of it.
func (p *refillPlanner) begun(ctx context.Context, c RefillCluster, plan *RefillPlan) error {
	runs := map[catalog.Run]bool{}
	for _, claim := range p.plan.Live {
		if r, noted := claim.Refill(); noted {
			runs[r.Run] = true
		}
	}
	for _, a := range p.plan.Apps {
		if pause, noted := a.Pause(); noted {
			runs[pause.Run] = true
		}
	}
	for run := range runs {
		found, err := FindRefill(ctx, c, p.Target.Namespace, run)
		if err != nil {
			return err
		}
		other := slices.ContainsFunc(found.Claims, func(noted catalog.Claim) bool {
			return !slices.ContainsFunc(p.plan.Live, func(live catalog.Claim) bool { return live.Name == noted.Name })
		})
		if run == "" || len(runs) > 1 || other {
			return unended(found, p.Target)
		}
		plan.Begun, plan.Run = &found, run
	}
	for i, v := range plan.Volumes {
		plan.Volumes[i].Name = workName(plan.Run, v.Claim.Namespace, v.Snapshot.Claim)
	}
	return nil
}

// unended is that another run has to end first.
func unended(f Refill, t Target) error {
	var names []string
	for _, c := range f.Claims {
		names = append(names, c.Name)
	}
	return &catalog.Failure{
		Code:    catalog.CodeNotNow,
		Message: fmt.Sprintf("run %q is in the middle of restoring into claims of %s (%s), and %s is not all of them", f.Run, t.Namespace, cmp.Or(strings.Join(names, ", "), "its app alone is left"), t),
		State:   "nothing changed",
		Next:    fmt.Sprintf("restore the whole workload, or go back: kubectl backsnap restore --rollback %s -n %s", f.Run, t.Namespace),
	}
}

// secure plans the snapshots of what is overwritten: there is no other way back.
func (p *refillPlanner) secure(plan *RefillPlan) error {
	until := p.Now.UTC().AddDate(0, 0, safetyDays).Format(time.DateOnly)
	var members []string
	for _, live := range p.plan.Live {
		members = append(members, live.Name)
	}
	for i, live := range p.plan.Live {
		class, ok := p.snapshotClass(live.Driver, plan.Volumes[i].Snapshot)
		if !ok {
			return &catalog.Failure{
				Code: catalog.CodeNoClass, Message: fmt.Sprintf("%s/%s cannot be restored into: no snapshot of it can be taken, and that is the only way back", live.Namespace, live.Name),
				State: "nothing changed", Next: "make a VolumeSnapshotClass for its driver, or restore into a new claim: without --into-claim",
			}
		}
		plan.Safety = append(plan.Safety, catalog.Snapshot{
			Namespace: live.Namespace, Name: catalog.SnapshotName(live.Name+"-pre-restore", p.Run), Claim: live.Name,
			Role: catalog.RoleSafety, Run: plan.Run, DeleteAfter: until, Class: class,
			Record: &catalog.Record{
				Version: catalog.RecordVersion, Run: plan.Run, App: plan.Volumes[i].Snapshot.App(), Members: members, Claim: live.Record(), SnapshotClass: class, TimeZone: "UTC",
				Consistency: catalog.Crash, Reason: "taken before a copy was restored into the claim, with the app stopped",
			},
		})
	}
	return nil
}

// Rights are what RunRefill needs to be allowed to do, all of it in the one
// namespace.
func (p RefillPlan) Rights() []catalog.Right {
	namespace := p.Target.Namespace
	var rights catalog.Rights
	rights.Add("", "persistentvolumeclaims", namespace, "get", "list", "patch")
	rights.Add("", "pods", namespace, "list", "watch")
	rights.Add("batch", "jobs", namespace, "create", "watch", "delete")
	rights.Add("snapshot.storage.k8s.io", "volumesnapshots", namespace, "create", "list", "watch", "delete")
	for _, a := range p.Apps {
		rights.Add("apps", a.Kind+"s", namespace, "get", "patch", "watch")
		rights.Add("apps", a.Kind+"s/scale", namespace, "get", "update")
	}
	rights.Add("coordination.k8s.io", "leases", namespace, "create", "get", "update", "delete")
	return rights
}

// CheckRefill asks for all rights that p needs, as Check does.
func CheckRefill(ctx context.Context, c RefillCluster, p RefillPlan) error {
	return lackNone(ctx, c, p.Rights())
}

// Try has the server check the movers that RunRefill would make, and store none.
func (p RefillPlan) Try(ctx context.Context, c RefillCluster) error {
	for _, v := range p.Volumes {
		job, err := p.job(v)
		if err != nil {
			return err
		}
		if err := c.TryMover(ctx, job); err != nil {
			return err
		}
	}
	return nil
}

// job is the mover that restores into the claim of v itself.
func (p RefillPlan) job(v Volume) (restic.Job, error) {
	job, err := v.job(p.Plan)
	job.Claim = v.Claim.Name
	job.NodeAffinity = nil // the volume itself says where
	return job, err
}
