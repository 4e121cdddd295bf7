package prune

import (
	"context"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// MakeUnmarkPlan pins the restore points that are meant and takes prune's marks
// off them. what is how they were named; that there are none is a
// catalog.Failure of CodeNotFound.
func MakeUnmarkPlan(ctx context.Context, c Cluster, r Request, what string) (Plan, error) {
	plan, _, _, err := named(ctx, c, r, what)
	if err != nil {
		return plan, err
	}
	for i := range plan.Rows {
		row := &plan.Rows[i]
		row.Does, row.Pin, row.Reason = retention.Unmark, true, "asked for: it stays until the pin is taken off"
	}
	return plan, nil
}

// MakeNowPlan removes the restore points that are meant, whatever keeps them
// but a pin. last reports that a claim has no good one then.
func MakeNowPlan(ctx context.Context, c Cluster, r Request, what string) (plan Plan, last bool, err error) {
	plan, verdicts, s, err := named(ctx, c, r, what)
	if err != nil {
		return plan, false, err
	}
	for i := range plan.Rows {
		row := &plan.Rows[i]
		for _, shot := range row.Snapshots {
			if shot.Pinned {
				return plan, false, &catalog.Failure{
					Code: catalog.CodeUsage, Message: fmt.Sprintf("%s is pinned", shot.Name), State: "nothing changed",
					Next: fmt.Sprintf("take the pin off first: kubectl label volumesnapshot %s -n %s %s-", shot.Name, shot.Namespace, catalog.LabelPin),
				}
			}
		}
		row.Does, row.Reason = retention.Sweep, "asked for: --now"
	}
	plan.settle(s)
	plan.Back, plan.Left, plan.Drift = nil, nil, nil // nobody has asked for these
	return plan, len(plan.last(verdicts)) > 0, nil
}

// named is the judged plan of what is meant, of which there must be something.
func named(ctx context.Context, c Cluster, r Request, what string) (Plan, []retention.Verdict, sight, error) {
	s, err := look(ctx, c, r)
	if err != nil {
		return Plan{}, nil, s, err
	}
	plan, verdicts, err := judge(r, s)
	if err == nil && len(plan.Rows) == 0 {
		err = &catalog.Failure{
			Code: catalog.CodeNotFound, Message: "no restore point " + what, State: "nothing changed", Next: "see those that there are: kubectl backsnap list",
		}
	}
	return plan, verdicts, s, err
}

// ErrLast is the failure of --now for the last good restore point, where nobody
// has typed its name.
func ErrLast(what string) error { return lastGood(what + " is the last good restore point of an app") }
