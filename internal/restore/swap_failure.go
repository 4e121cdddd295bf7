package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// unprepared is a restore in place that ended before it touched the app.
func (r *replacing) unprepared(ctx context.Context, cause error) error {
	namespace := r.plan.Target.Namespace
	return explained(ctx, &catalog.Failure{
		Code:    catalog.CodeStorage,
		Message: fmt.Sprintf("%s in %s not restored in place", r.plan.Target, namespace),
		Cause:   cause,
		State:   "the app runs on, its volumes are untouched; what was made for it is removed",
		Next:    "kubectl get events -n " + namespace,
	})
}

// undone is a turn that was put back.
func (t *turning) undone(ctx context.Context, cause error) error {
	return explained(ctx, &catalog.Failure{
		Code:    catalog.CodeStorage,
		Message: fmt.Sprintf("%s of %s by run %s not done", t.turn, t.swap.subject(), t.swap.Run),
		Cause:   cause,
		State:   "everything is as it was before: the claims have the volumes they had, the apps their replicas",
		Next:    "kubectl get events -n " + t.swap.Namespace,
	})
}

// explained is f with the code and the next step that its cause asks for.
func explained(ctx context.Context, f *catalog.Failure) error {
	var inner *catalog.Failure
	switch {
	case ctx.Err() != nil:
		f.Code, f.Next = cmp.Or(catalog.CodeOf(context.Cause(ctx)), catalog.CodeInterrupted), "give the same command again"
	case errors.Is(f.Cause, catalog.ErrRaised):
		f.Code, f.Next = catalog.CodeFought, "find out who scales it, and give the same command again: kubectl get events -A --field-selector reason=SuccessfulRescale"
	case errors.As(f.Cause, &inner):
		f.Code, f.Next = inner.Code, cmp.Or(inner.Next, f.Next)
	case errors.Is(f.Cause, errTimeout):
		f.Code = catalog.CodeInUse
		f.Next = "see what holds it, and give the same command again, with a longer --app-timeout or --timeout where it needs that"
	case errors.Is(f.Cause, catalog.ErrTaken):
		f.Code = catalog.CodeExists
	}
	return f
}

// subject is what is restored, for people.
func (s Swap) subject() string {
	if len(s.Apps) > 0 {
		return s.Namespace + "/" + s.Apps[0].Name
	}
	return s.Namespace + "/" + s.Pairs[0].Claim
}

// halfway is a turn that could be neither ended nor put back.
func (t *turning) halfway(cause error) error {
	s := t.swap
	state := "no data is lost: each claim's old and new volume are kept, with its manifest in annotation " + catalog.AnnotationClaim
	for _, a := range s.Apps {
		if replicas, ok := a.Remembered(s.Run); ok {
			state += fmt.Sprintf("; %s had %d replicas and may have 0 now", a, replicas)
		}
	}
	return &catalog.Failure{
		Code: catalog.CodeHalfway, Message: fmt.Sprintf("%s of %s by run %s stands half-way", t.turn, s.subject(), s.Run), Cause: cause, State: state,
		Next: fmt.Sprintf("finish it: kubectl backsnap restore %s -n %s --in-place --yes; or put it back: kubectl backsnap restore --rollback %s -n %s --yes", s.Pairs[0].Claim, s.Namespace, s.Run, s.Namespace),
	}
}

// unready is an app that is not ready though its data is in place.
func (t *turning) unready(ctx context.Context, cause error) error {
	f := &catalog.Failure{
		Code: catalog.CodeUnready, Message: fmt.Sprintf("%s is not ready after %s by run %s", t.swap.subject(), t.turn, t.swap.Run), Cause: cause,
		State: "its data is in place and it was scaled back; the volumes it had before are kept",
		Next:  fmt.Sprintf("kubectl get pods -n %s; undo: kubectl backsnap restore --rollback %s -n %s", t.swap.Namespace, t.swap.Run, t.swap.Namespace),
	}
	if t.turn == catalog.Back {
		f.Next = "kubectl get pods -n " + t.swap.Namespace
	}
	if ctx.Err() != nil {
		f.Code = cmp.Or(catalog.CodeOf(context.Cause(ctx)), catalog.CodeInterrupted)
	}
	return f
}

// uncommitted is a volume that was let go and does not go.
func uncommitted(v catalog.SwapVolume, cause error) error {
	return &catalog.Failure{
		Code: catalog.CodeInUse, Message: fmt.Sprintf("volume %s of run %s is not gone yet", v.Name, v.Run), Cause: cause,
		State: "it is told to go, and goes when the storage lets it", Next: "kubectl describe persistentvolume " + v.Name,
	}
}
