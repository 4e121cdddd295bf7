package offsite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// failed is err as a person needs to see it, nil for nil.
func (m *making) failed(err error) error {
	if err == nil {
		return nil
	}
	f := &catalog.Failure{
		Code:    catalog.CodeMover,
		Message: fmt.Sprintf("copy of %s not made", m.copy),
		Cause:   err,
		State:   "the snapshot stands; what was made for the copy is removed",
		Next:    "make it again: " + m.again(),
	}
	var said *restic.Error
	var stuck *troubled
	var denied *restic.Denied
	switch {
	case errors.As(err, &said):
		m.explain(f, said.Report)
	case errors.As(err, &stuck):
		f.Code, f.Next = stuck.code(), m.remedy(stuck.trouble)
		if node := stuck.trouble.Object; stuck.trouble.Reason == restic.NodeNotReady {
			f.State = fmt.Sprintf("the snapshot stands; what was made for the copy is deleted, and goes when node %s answers again or is removed from the cluster", node)
		}
	case errors.As(err, &denied):
		f.Next = m.remedy(denied.Trouble)
	case catalog.CodeOf(err) != "":
		var inner *catalog.Failure
		errors.As(err, &inner)
		f.Code, f.Next = inner.Code, inner.Next
	}
	return f
}

// remedy is what to do about a trouble.
func (m *making) remedy(t restic.Trouble) string {
	return remedy{m.namespace(), m.again(), m.secure(), m.request.Pod}.of(t)
}

// remedy is what there is to say of a mover that is in trouble: where it runs,
// the command that tries once more, how it passes Pod Security, its pod.
type remedy struct {
	namespace, again, secure string
	pod                      restic.Pod
}

// of is what to do about a trouble.
func (r remedy) of(t restic.Trouble) string {
	switch t.Reason {
	case restic.PodSecurity:
		return r.secure
	case restic.OutOfMemory:
		return r.again + " --mover-limits=memory=" + twice(r.pod.MemoryLimit)
	case restic.NodeNotReady:
		return fmt.Sprintf("kubectl describe node %s; then, also while it is away: %s", t.Object, r.again)
	case restic.Quota:
		return fmt.Sprintf("raise ResourceQuota %s in %s, %s", t.Object, r.namespace, less(t))
	case restic.LimitRange:
		return fmt.Sprintf("kubectl describe limitrange -n %s; then raise it, %s", r.namespace, less(t))
	}
	if strings.Contains(t.Message, "non-root policy") { // what the kubelet says of runAsNonRoot, which something has set
		return fmt.Sprintf("let the mover be root in %s, which reads every file; or %s --run-as-user=UID", r.namespace, r.again)
	}
	return "kubectl get events -n " + r.namespace
}

// baseline is how a namespace admits movers that are root.
func baseline(namespace string) string {
	return fmt.Sprintf("kubectl label namespace %s --overwrite pod-security.kubernetes.io/enforce=baseline", namespace)
}

// Command is the one of those words about r: `kubectl backsnap repo init main`.
func Command(words string, r catalog.Repository) string {
	return "kubectl backsnap " + words + " " + r.Name + at(r.Namespace)
}

// at is the flag of a backup namespace; "" for the default one.
func at(backupNamespace string) string {
	if backupNamespace == DefaultBackupNamespace {
		return ""
	}
	return " --backup-namespace=" + backupNamespace
}

// less is how a mover, or the clone that it reads, would need less.
func less(t restic.Trouble) string {
	if strings.Contains(t.Message, "persistentvolumeclaims ") {
		return "for the clone is a claim of the volume's size; or leave the copy out: --repository=none"
	}
	return "or need less: --mover-requests=cpu=Q,memory=Q --mover-limits=cpu=Q,memory=Q"
}

// secure is how a mover passes Pod Security.
func (m *making) secure() string {
	label := baseline(m.namespace())
	user := "UID, as which the app's pods run"
	if r := m.copy.Snapshot.Record; r != nil && r.User != nil && *r.User != 0 {
		user = fmt.Sprintf("%d, as which the app's pods run", *r.User)
	} else if !m.copy.Beside() {
		return label
	}
	return fmt.Sprintf("%s --run-as-user=%s; or %s", m.again(), user, label)
}

// twice is twice a quantity such as 1Gi; a guess where it is none.
func twice(quantity string) string {
	unit := strings.TrimLeft(quantity, "0123456789")
	n, err := strconv.Atoi(strings.TrimSuffix(quantity, unit))
	if err != nil {
		return "2Gi"
	}
	return strconv.Itoa(2*n) + unit
}

// explain says what restic's report means for this copy.
func (m *making) explain(f *catalog.Failure, report restic.Report) {
	explain(f, m.copy.Repository, report.Exit)
	switch {
	case report.Exit == restic.ExitPartial:
		f.Message = fmt.Sprintf("copy of %s is not whole", m.copy)
		f.State = "the snapshot stands; what could be read is in the repository, and is not counted as a copy"
		if user := m.request.Pod.User; user != 0 {
			f.Next = fmt.Sprintf("run without --run-as-user: root reads every file, user %d does not", user)
		}
	case report.Exit == restic.ExitKilled:
		f.Next = m.remedy(restic.Trouble{Reason: restic.OutOfMemory})
	case report.Lock != nil:
		held := Held{Lock: *report.Lock, Holder: Unknown}
		if restic.Ours(held.Host, restic.Mark(m.copy.Repository)) {
			held.Holder = m.holder
		}
		blame(f, held)
	}
}

// explain says what restic's exit code means, and what to do.
func explain(f *catalog.Failure, r catalog.Repository, exit restic.Exit) {
	f.Code = cmp.Or(exit.Code(), f.Code) // it may have ended well and said nothing
	switch exit {
	case restic.ExitNoRepository:
		f.Next = Command("repo init", r)
	case restic.ExitLocked:
		f.Next = "wait for who holds the lock; if nobody works on the repository any more: " + Command("repo unlock", r)
	case restic.ExitPassword:
		f.Next = fmt.Sprintf("set %s in Secret %s/%s to the repository's password", passwordKey(r), r.Namespace, r.Secret)
	case restic.ExitTimeout:
		f.Next = fmt.Sprintf("see whether %s can be reached from the cluster; a new repository: %s", r.Address, Command("repo init", r))
	}
}

// passwordKey is the entry of r's Secret that says what the password is.
func passwordKey(r catalog.Repository) string {
	for _, key := range []string{"RESTIC_PASSWORD_COMMAND", "RESTIC_PASSWORD_FILE"} {
		if slices.Contains(r.Keys, key) && !slices.Contains(r.Keys, "RESTIC_PASSWORD") {
			return key
		}
	}
	return "RESTIC_PASSWORD"
}

// interrupted is a copy that ^C, or the end of the time that Run had, has kept
// from being begun.
func (m *making) interrupted(cause error) error {
	return &catalog.Failure{
		Code:    interruptCode(cause),
		Message: fmt.Sprintf("copy of %s not started", m.copy),
		Cause:   cause,
		State:   "the snapshot stands; nothing of the copy is left",
		Next:    "make it again: " + m.again(),
	}
}

// detached is a copy whose mover runs on.
func (m *making) detached(ctx context.Context, err error) error {
	code := catalog.CodeMover
	if ctx.Err() != nil {
		err = context.Cause(ctx)
		code = interruptCode(err)
	}
	return &catalog.Failure{
		Code:    code,
		Message: fmt.Sprintf("copy of %s not waited for", m.copy),
		Cause:   fmt.Errorf("%w; %w", err, ErrDetached),
		State:   fmt.Sprintf("the snapshot stands; job/%s in %s makes the copy, and the next run that copies records it and cleans up", m.copy.Name, m.namespace()),
		Next:    m.later(),
	}
}

// later are the commands for a mover that runs on.
func (m *making) later() string {
	of := fmt.Sprintf("run/%s -n %s", cmp.Or(m.copy.Adopted, m.request.Run), m.copy.Snapshot.Namespace)
	of += at(m.namespace())
	return fmt.Sprintf("follow it: kubectl backsnap logs -f %s; or stop it: kubectl backsnap abort %s", of, of)
}

// interruptCode tells a run out of time from one that was interrupted.
func interruptCode(cause error) catalog.Code {
	if code := catalog.CodeOf(cause); code != "" { // a lost lock says itself what it is
		return code
	}
	if errors.Is(cause, errTimeout) || errors.Is(cause, context.DeadlineExceeded) {
		return catalog.CodeNotReady
	}
	return catalog.CodeInterrupted
}

// unrecorded is a copy that was made, and could not be written down.
func (m *making) unrecorded(result catalog.Copy, err error) error {
	f := &catalog.Failure{
		Code:    catalog.CodeMover,
		Message: fmt.Sprintf("copy of %s made as %.8s, but not recorded", m.copy, result.Snapshot),
		Cause:   err,
		State:   fmt.Sprintf("the copy is good; job/%s in %s stands, and the next run that copies records it", m.copy.Name, m.namespace()),
		Next:    "kubectl backsnap list -n " + m.copy.Snapshot.Namespace,
	}
	if code := catalog.CodeOf(err); code != "" {
		f.Code = code
	}
	if errors.Is(err, catalog.ErrGone) {
		f.State = "the copy is good, its snapshot is not there any more"
	}
	return f
}

// again is the command that tries once more.
func (m *making) again() string {
	command := fmt.Sprintf("kubectl backsnap copy vs/%s -n %s", m.copy.Snapshot.Name, m.copy.Snapshot.Namespace)
	if m.request.InNamespace {
		return command + " --in-namespace"
	}
	return command + at(m.namespace())
}
