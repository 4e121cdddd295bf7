package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// nobody is a user that the level restricted of Pod Security lets run.
const nobody = 65534

// check has each clone read by a pod, which also binds those that wait for
// that. What a mover has filled it has verified too.
func (r *replacing) check(ctx context.Context) error {
	var claims, volumes []string
	for i, v := range r.plan.Volumes {
		if v.Way == Fill {
			continue
		}
		if err := r.look(ctx, i); err != nil {
			return err
		}
		bound, _, err := r.cluster.ReadClaim(ctx, v.Claim.Namespace, v.Claim.Name)
		if err != nil {
			return err
		}
		claims, volumes = append(claims, v.Claim.Name), append(volumes, bound.Volume)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.plan.Timeout, errTimeout)
	defer cancel()
	return r.cluster.AwaitIdle(ctx, r.plan.Target.Namespace, claims, volumes, nil)
}

// look has the clone read. Where Pod Security allows no root, another user sees
// at least that it can be mounted.
func (r *replacing) look(ctx context.Context, i int) error {
	began, claim, pod := r.now(), r.plan.Volumes[i].Snapshot.Claim, r.plan.Pod
	found, err := r.lookAs(ctx, i, pod)
	if catalog.CodeOf(err) == catalog.CodePodSecurity && pod.User == 0 {
		r.tell(catalog.PhaseCheck, catalog.Warning, claim, "new volume is mounted only, not read: "+err.Error())
		if pod.Keep == 0 {
			pod = restic.DefaultPod()
		}
		pod.User = nobody
		found, err = r.lookAs(ctx, i, pod)
	}
	if err != nil {
		return err
	}
	what := "can be mounted"
	if pod.User == 0 {
		what = fmt.Sprintf("can be read, %d files", found.Files)
	}
	if found.Sums > 0 {
		what += fmt.Sprintf(", %d dumps are as recorded", found.Sums)
	}
	r.tell(catalog.PhaseCheck, catalog.OK, claim, fmt.Sprintf("new volume %s, in %s", what, r.now().Sub(began).Round(100*time.Millisecond)))
	return nil
}

// lookAs has the clone read by such a pod, which is gone afterwards.
func (r *replacing) lookAs(ctx context.Context, i int, pod restic.Pod) (restic.Looked, error) {
	v := r.plan.Volumes[i]
	l := restic.Look{
		Namespace: v.Claim.Namespace, Name: v.Name, Image: r.plan.Image, Run: r.plan.Run, Claim: v.Claim.Name,
		Block: v.Claim.VolumeMode == catalog.BlockMode, Dumps: v.Snapshot.Record.Dumps, Pod: pod, Deadline: r.plan.Deadline,
		Source: catalog.Source{Namespace: v.Claim.Namespace, Claim: v.Snapshot.Claim, Snapshot: v.Snapshot.Name, UID: v.Snapshot.UID, Restores: v.Claim.Name},
	}
	if v.Waits() {
		l.NodeAffinity = r.plan.Live[i].NodeAffinity
	}
	job, err := l.Job()
	if err != nil {
		return restic.Looked{}, err
	}
	if err := r.cluster.StartMover(ctx, job); err != nil {
		return restic.Looked{}, fmt.Errorf("start mover %s/%s: %w", job.Namespace, job.Name, err)
	}
	end, err := r.follow(ctx, job.Namespace, job.Name, v.Claim.Name, func(e catalog.Event) {
		if e.State == catalog.Warning {
			r.tell(catalog.PhaseCheck, catalog.Warning, v.Snapshot.Claim, e.Message)
		}
	})
	found := restic.Looked{}
	if err == nil {
		found, err = restic.ReadLooked(end)
	}
	if err != nil && end.Exit == restic.LookUnfit { // it says itself what is wrong, and would say so again
		err = &catalog.Failure{
			Code: catalog.CodeDiffers, Message: err.Error(), State: "the app runs on",
			Next: "take another set: kubectl backsnap list -n " + v.Snapshot.Namespace,
		}
	}
	if err != nil {
		err = fmt.Errorf("new volume of %s: %w", v.Snapshot.Claim, err)
	}
	if gone := r.cluster.RemoveMover(ctx, job.Namespace, job.Name); err == nil {
		err = gone
	}
	return found, err
}

// removeMovers removes those that look at volumes for that run. Who may not see
// them has none.
func removeMovers(ctx context.Context, c SwapCluster, namespace string, run catalog.Run) error {
	standing, err := c.Movers(ctx, namespace)
	if err != nil && catalog.CodeOf(err) != catalog.CodeForbidden {
		return err
	}
	for _, m := range standing {
		if m.Run == run && m.Job {
			if err := c.RemoveMover(ctx, m.Namespace, m.Name); err != nil {
				return err
			}
		}
	}
	return nil
}
