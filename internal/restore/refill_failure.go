package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// back is the command that goes back to what there was before.
func (r *refilling) back() string {
	return fmt.Sprintf("kubectl backsnap restore --rollback %s -n %s --yes", r.plan.Run, r.plan.Target.Namespace)
}

// again is the command that restores once more.
func (r *refilling) again() string {
	return fmt.Sprintf("kubectl backsnap restore %s -n %s --into-claim --in-namespace --yes", r.plan.Target, r.plan.Target.Namespace)
}

// next is what ends it, one way or the other.
func (r *refilling) next() string {
	if r.plan.Target.Kind == kindSafety {
		return "go on: " + r.back()
	}
	return fmt.Sprintf("finish it: %s; or go back: %s", r.again(), r.back())
}

// undone is a refill that was put back.
func (r *refilling) undone(ctx context.Context, cause error) error {
	f := &catalog.Failure{
		Code: catalog.CodeStorage, Message: fmt.Sprintf("%s in %s not restored into its claims", r.plan.Target, r.plan.Target.Namespace), Cause: cause,
		State: "everything is as it was before: no data was touched, the apps have their replicas",
		Next:  "kubectl get events -n " + r.plan.Target.Namespace,
	}
	var denied *restic.Denied
	if errors.As(cause, &denied) {
		f.Next = "see what the cause names: an admission policy, a quota, or a limit"
	}
	return explained(ctx, f)
}

// halted is a refill that has touched the data and did not end.
func (r *refilling) halted(ctx context.Context, cause error) error {
	var partial, kept, stopped []string
	for _, c := range r.claims {
		partial = append(partial, fmt.Sprintf("%s is %s", c.Volume.Claim.Name, cmp.Or(c.Stage, "as it was")))
	}
	for _, a := range r.plan.Apps {
		if pause, noted := a.Pause(); noted {
			stopped = append(stopped, fmt.Sprintf("%s stays at 0, %d remembered", a, pause.Replicas))
		}
	}
	for _, s := range r.safety() {
		kept = append(kept, s.Name)
	}
	f := &catalog.Failure{
		Code: catalog.CodePartial, Message: fmt.Sprintf("%s in %s not restored: it holds parts of what it held and of the copy (run %s)", r.plan.Target, r.plan.Target.Namespace, r.plan.Run),
		Cause: cause,
		State: strings.Join(append(partial, stopped...), "; ") + "; what there was before is in snapshot " + strings.Join(kept, ", "),
		Next:  fmt.Sprintf("finish it, or take an older set with --at: %s; or go back: %s", r.again(), r.back()),
	}
	if ctx.Err() != nil {
		f.Code = cmp.Or(catalog.CodeOf(context.Cause(ctx)), catalog.CodeInterrupted)
	}
	return f
}

// safety are the snapshots of before: those that an earlier run has taken, if
// it came to that.
func (r *refilling) safety() []catalog.Snapshot {
	if r.plan.Begun != nil && r.plan.Begun.Touched() {
		return r.plan.Begun.Safety
	}
	return r.plan.Safety
}

// halfway is a refill that could be neither ended nor put back.
func (r *refilling) halfway(cause error) error {
	state := "the claims hold what they held before"
	if r.touched() {
		state = "the claims hold the copy"
	}
	for _, a := range r.plan.Apps {
		if pause, noted := a.Pause(); noted {
			state += fmt.Sprintf("; %s had %d replicas and may have 0 now", a, pause.Replicas)
		}
	}
	return &catalog.Failure{
		Code: catalog.CodeHalfway, Message: fmt.Sprintf("restore into claims of %s by run %s stands half-way", r.plan.Target.Namespace, r.plan.Run), Cause: cause, State: state,
		Next: r.next(),
	}
}

// changed is that things are not as they were when the plan was made.
func (r *refilling) changed(what string) error {
	return &catalog.Failure{
		Code: catalog.CodeNotNow, Message: fmt.Sprintf("%s has changed since it was looked at", what), State: "nothing changed", Next: "give the same command again",
	}
}

// unready is an app that is not ready though its data is in place.
func (r *refilling) unready(ctx context.Context, cause error) error {
	f := &catalog.Failure{
		Code: catalog.CodeUnready, Message: fmt.Sprintf("%s in %s is not ready after the restore by run %s", r.plan.Target, r.plan.Target.Namespace, r.plan.Run), Cause: cause,
		State: "its data is in place and it was scaled back; what there was before is in the safety snapshots",
		Next:  fmt.Sprintf("kubectl get pods -n %s; go back: %s", r.plan.Target.Namespace, r.back()),
	}
	if ctx.Err() != nil {
		f.Code = cmp.Or(catalog.CodeOf(context.Cause(ctx)), catalog.CodeInterrupted)
	}
	return f
}
