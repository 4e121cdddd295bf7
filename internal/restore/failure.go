package restore

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// quoted is how many sets that were passed over an error names.
const quoted = 3

// seeList is how a next step begins that shows what there is.
const seeList = "see what there is: kubectl backsnap list"

// none says that what was named exactly cannot be restored.
func (c chooser) none(reason string) error {
	return &catalog.Failure{
		Code:    catalog.CodeNoSet,
		Message: fmt.Sprintf("nothing to restore %s in %s from", c.Target, c.Target.Namespace),
		Cause:   errors.New(reason),
		State:   "nothing changed",
		Next:    seeList + " -n " + c.Target.Namespace,
	}
}

// nearest says that there is no set at or before the time asked, and which
// would be the nearest.
func (c chooser) nearest(candidates []Chosen, reasons map[int]string, passed []Passed) error {
	f := &catalog.Failure{
		Code:    catalog.CodeNoSet,
		Message: fmt.Sprintf("no complete set of %s in %s at or before %s", c.Target, c.Target.Namespace, c.AtText),
		State:   "nothing changed",
		Next:    seeList + " -n " + c.Target.Namespace,
	}
	if c.Target.Kind == kindNamespace {
		f.Message = fmt.Sprintf("no complete set of %s at or before %s", c.Target, c.AtText)
	}
	var usable []Chosen
	for i, candidate := range candidates {
		if reasons[i] == "" {
			usable = append(usable, candidate)
		}
	}
	if len(usable) > 0 {
		// All usable ones are after the time asked: the oldest is the nearest.
		oldest := usable[len(usable)-1]
		f.State = fmt.Sprintf("nothing changed; the nearest is %s, cut %s", oldest.Set.Run, oldest.Cut.UTC().Format(time.RFC3339))
		f.Next = c.command(oldest)
	}
	var said []string
	for _, p := range passed[:min(quoted, len(passed))] {
		said = append(said, fmt.Sprintf("%s: %s", p.Run, p.Reason))
	}
	if more := len(passed) - len(said); more > 0 {
		said = append(said, fmt.Sprintf("and %d more", more))
	}
	if len(said) == 0 {
		said = append(said, "there is none")
	}
	f.Cause = errors.New(strings.Join(said, "; "))
	return f
}

// command restores exactly that set.
func (c chooser) command(chosen Chosen) string {
	text := fmt.Sprintf("kubectl backsnap restore %s -n %s --at %s", c.Target, c.Target.Namespace, chosen.Cut.UTC().Format(time.RFC3339Nano))
	if c.From.Kind != Auto {
		text += " --from " + c.From.String()
	}
	if c.Cluster != "" {
		text += " --from-cluster " + c.Cluster
	}
	return text
}

// failed is err as a person needs to see it, nil for nil. An interrupted or
// timed-out step is told by the context's cause.
func (m *making) failed(err error) error {
	if err == nil {
		return nil
	}
	f := &catalog.Failure{
		Code:    catalog.CodeStorage,
		Message: fmt.Sprintf("%s not restored to %s/%s", m.volume.Snapshot.Claim, m.volume.Claim.Namespace, m.volume.Claim.Name),
		Cause:   err,
		State:   "nothing that existed was changed; what was made for it is removed",
		Next:    "kubectl get events -n " + m.plan.Place(m.volume),
	}
	var said *restic.Error
	var denied *restic.Denied
	switch {
	case errors.As(err, &said):
		m.explain(f, said.Report.Exit)
	case errors.As(err, &denied):
		f.Next = "see what the cause names: an admission policy, a quota, or a limit"
	case errors.Is(err, errTimeout):
		f.Code = catalog.CodeNotReady
	case errors.Is(err, catalog.ErrTaken):
		f.Code, f.Next = catalog.CodeExists, "choose another name with --to-pvc"
	case errors.Is(err, errDiffers):
		f.Code = catalog.CodeDiffers
		f.Next = fmt.Sprintf("see whether repository %s is sound, and take another set: kubectl backsnap list -n %s", m.volume.Repository.Name, m.volume.Snapshot.Namespace)
	case catalog.CodeOf(err) != "":
		var inner *catalog.Failure
		errors.As(err, &inner)
		f.Code, f.Next = inner.Code, cmp.Or(inner.Next, f.Next)
	case errors.Is(err, catalog.ErrGone):
		f.Code, f.Next = catalog.CodeNoSet, "see what there is: kubectl backsnap list -n "+m.volume.Snapshot.Namespace
	}
	return f
}

// explain says what restic's exit code means here, and what to do.
func (m *making) explain(f *catalog.Failure, exit restic.Exit) {
	r := m.volume.Repository
	f.Code = cmp.Or(exit.Code(), catalog.CodeMover)
	switch exit {
	case restic.ExitNoRepository:
		f.Next = fmt.Sprintf("see whether Secret %s/%s has the address that the copy was made with", r.Namespace, r.Secret)
	case restic.ExitLocked:
		f.Next = "wait for who holds the lock; or wait longer: the same command with --retry-lock=1h"
	case restic.ExitPassword:
		f.Next = fmt.Sprintf("set RESTIC_PASSWORD in Secret %s/%s to the repository's password", r.Namespace, r.Secret)
	case restic.ExitKilled:
		f.Next = "the same command with --mover-limits=memory=2Gi"
	default:
		if strings.Contains(f.Cause.Error(), "no space left on device") {
			f.Next = "the same command with a larger --size"
			return
		}
		f.Next = fmt.Sprintf("see whether repository %s is sound, and take another set: kubectl backsnap list -n %s", r.Name, m.volume.Snapshot.Namespace)
	}
}

// interrupted is a claim that was not restored because ctx ended.
func (m *making) interrupted(cause error) error {
	f := &catalog.Failure{
		Code:    catalog.CodeInterrupted,
		Message: fmt.Sprintf("%s not restored to %s/%s", m.volume.Snapshot.Claim, m.volume.Claim.Namespace, m.volume.Claim.Name),
		Cause:   cause,
		State:   "nothing that existed was changed; what was made for it is removed",
		Next:    "give the same command again",
	}
	if code := catalog.CodeOf(cause); code != "" { // a lost lock says itself what it is
		f.Code = code
	}
	return f
}

// missing says which rights are missing.
func missing(rights []catalog.Right) error {
	next := ""
	if slices.ContainsFunc(rights, func(r catalog.Right) bool { return r.Resource == "volumesnapshotcontents" }) {
		next = "do without: contents of snapshots are needed for another namespace only, and not with --from copy"
	}
	return catalog.Forbidden(rights, next)
}
