package snapshot

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// errTimeout is the cause of a context that plan.Timeout has ended.
var errTimeout = errors.New("not in time")

// failure is err as a person needs to see it. One that is a catalog.Failure
// already, and one whose cause is an interrupt, keep their code.
func (a *taking) failure(ctx context.Context, code catalog.Code, doing string, err error) error {
	if ctx.Err() != nil {
		return a.interrupted(context.Cause(ctx))
	}
	if catalog.CodeOf(err) != "" {
		return err
	}
	return &catalog.Failure{
		Code: code, Message: fmt.Sprintf("snapshot of %s not taken: %s", a, doing), Cause: err,
		State: "app running, not frozen; what was unfinished is removed",
		Next:  a.again(),
	}
}

func (a *taking) interrupted(cause error) error {
	if code := catalog.CodeOf(cause); code != "" && code != catalog.CodeInterrupted { // a lost lock says itself what it is
		return cause
	}
	return &catalog.Failure{
		Code: catalog.CodeInterrupted, Message: fmt.Sprintf("snapshot of %s not taken", a), Cause: cause,
		State: "app running, not frozen; what was unfinished is removed",
		Next:  a.again(),
	}
}

// notReady is the failure of a wait for the storage, with its own last words.
func (a *taking) notReady(ctx context.Context, snapshots []catalog.Snapshot, state catalog.State, err error) error {
	if !errors.Is(err, errTimeout) {
		return a.failure(ctx, catalog.CodeStorage, "watch VolumeSnapshots", err)
	}
	what := "ready"
	if state == catalog.Cut {
		what = "cut"
	}
	return &catalog.Failure{
		Code:    catalog.CodeNotReady,
		Message: fmt.Sprintf("snapshot of %s not %s after %s%s", a, what, a.plan.Timeout, lastWords(snapshots)),
		Cause:   err,
		State:   "app running, not frozen; the storage goes on with it, it is no restore point",
		Next:    fmt.Sprintf("kubectl describe volumesnapshot %s -n %s", snapshots[0].Name, a.app.Namespace),
	}
}

// noClass is the failure of a snapshot whose class was left to the cluster,
// which has no default for its driver. The snapshot-controller tries for ever.
func (a *taking) noClass(s catalog.Snapshot) error {
	return &catalog.Failure{
		Code: catalog.CodeNoClass, Message: fmt.Sprintf("snapshot of %s not taken: %s", a, s.Err),
		State: "app running, not frozen; what was unfinished is removed",
		Next:  "ask for the name of a class of the volume's driver: " + a.again() + " --snapshot-class=NAME",
	}
}

func lastWords(snapshots []catalog.Snapshot) string {
	var words []string
	for _, s := range snapshots {
		if s.Err != "" {
			words = append(words, s.Name+": "+s.Err)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, "; ") + ")"
}

// hookFailure is a failed probe or dump in a container.
func (a *taking) hookFailure(ctx context.Context, ref catalog.ContainerRef, doing string, err error) error {
	if ctx.Err() != nil {
		return a.interrupted(context.Cause(ctx))
	}
	if catalog.CodeOf(err) != "" {
		return err
	}
	code, next := hookCode(err)
	if next == "" {
		next = a.again()
	}
	message, state := "snapshot of %s not taken: %s in pod %s failed", "app running, not frozen; nothing created; partial dump files removed"
	if a.app.Effort != Application {
		message, state = "snapshot of %s is not application-consistent: %s in pod %s failed", "app running, not frozen; the snapshot holds what the disk held"
	}
	if a.app.Effort == Application && errors.Is(err, plugins.ErrTruncated) { // nobody has heard the script's end
		state = "not frozen; nothing created; a half-written dump is removed by its own script, or by the next run where the pod was killed"
	}
	return &catalog.Failure{Code: code, Message: fmt.Sprintf(message, a, doing, ref.Pod), Cause: err, State: state, Next: next}
}

// hookCode is the code of what a plugin's script said, and its hint.
func hookCode(err error) (catalog.Code, string) {
	var said *plugins.Error
	switch {
	case errors.As(err, &said):
		switch said.Kind {
		case plugins.NoServer:
			return catalog.CodeNoPlugin, said.Hint
		case plugins.NoSpace, plugins.NoInodes:
			return catalog.CodeSpace, said.Hint
		case plugins.VerifyFailed, plugins.Empty, plugins.LostClient, plugins.Stopped:
			return catalog.CodeTruncated, said.Hint
		case plugins.DumpFailed, plugins.Login, plugins.TimedOut, plugins.Internal:
			return catalog.CodeDump, said.Hint
		}
		return catalog.CodeHook, said.Hint
	case errors.Is(err, plugins.ErrTruncated):
		return catalog.CodeTruncated, ""
	}
	return catalog.CodeDump, ""
}

// again is the command that tries once more: by the workload where it is one
// that the command line takes, else by the claims.
func (a *taking) again() string {
	target := strings.Join(a.claims(), " ")
	kind, name, _ := strings.Cut(a.app.Name, "/")
	if (catalog.Workload{Kind: kind}).Typed() && !strings.Contains(name, "+") {
		target = a.app.Name
	}
	return fmt.Sprintf("kubectl backsnap snapshot %s -n %s", target, a.app.Namespace)
}

// String is the app with its namespace.
func (a *taking) String() string { return a.app.Namespace + "/" + a.app.Name }
