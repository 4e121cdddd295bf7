package offsite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// WorkRequest is work on one repository as a whole, done by a mover.
type WorkRequest struct {
	Run        catalog.Run
	Repository catalog.Repository
	// Namespace is what {namespace} in the address stands for; "" where the
	// address has none.
	Namespace string
	Image     string
	Pod       restic.Pod
	Deadline  time.Duration // of restic
	// Of are the namespaces whose copies List lists; nil for all.
	Of []string
	// RetryLock is how long to wait for a lock of somebody who is alive, or of
	// whom it is not known.
	RetryLock time.Duration
	Nonce     string // nobody else's: it marks the answer in the mover's log
	// Late is added to the names of movers, and tells the works of one kind
	// apart that one run has done; "" where it has one.
	Late string
}

// again is the command of those words that does the work once more.
func (r WorkRequest) again(words string) string {
	command := Command(words, r.Repository)
	if r.Namespace != "" && perNamespace(r.Repository) {
		command += " --for-namespace=" + r.Namespace
	}
	return command
}

// perNamespace reports whether every namespace has a repository of its own at
// r's address.
func perNamespace(r catalog.Repository) bool { return strings.Contains(r.Address, "{namespace}") }

// tending is one piece of work on its way.
type tending struct {
	cluster Cluster
	now     func() time.Time
	request WorkRequest
	watcher catalog.Watcher
	undone  string // what did not come about, `not examined`
	again   string // the command that tries once more
	long    string // what to do about an answer that is too long for a log; "" where none is
	movers  int    // so far
	late    string // added to the names of movers; "" but where one run does several such works
}

// check is whether the request makes sense.
func (t *tending) check() error {
	r := t.request
	if r.Namespace == "" && perNamespace(r.Repository) {
		return wrong(fmt.Sprintf("repository %s is one for each namespace: which one", r.Repository.Name), t.again+" --for-namespace NAMESPACE")
	}
	return nil
}

// ready is check for work on a repository that is there.
func (t *tending) ready() error {
	if err := t.check(); err != nil {
		return err
	}
	return initialised(t.request.Repository)
}

// initialised is whether the cluster has a name in r.
func initialised(r catalog.Repository) error {
	if r.Cluster != "" {
		return nil
	}
	return &catalog.Failure{
		Code:    catalog.CodeNoRepository,
		Message: fmt.Sprintf("repository %s was not initialised for this cluster", r.Name),
		State:   fmt.Sprintf("Secret %s/%s has no annotation %s", r.Namespace, r.Secret, catalog.AnnotationCluster),
		Next:    Command("repo init", r),
	}
}

// maxReleases is how many dead movers' locks are removed for one piece of work.
const maxReleases = 8

// work has a mover do a step, as restic's arguments want it. A lock of a mover
// of this cluster that is gone is removed and the work begun again; all other
// locks are waited for.
func (t *tending) work(ctx context.Context, step string, args ...string) (restic.Report, []byte, error) {
	w := restic.Work{Step: step, Args: args, Locks: restic.Locks{Retry: t.request.RetryLock, Mark: restic.Mark(t.request.Repository)}}
	for range maxReleases {
		report, answer, err := t.mover(ctx, w)
		if err == nil || w.Locks.Mark == "" || !t.suspect(report) {
			return report, answer, err
		}
		gone, judgeErr := t.judge(ctx, *report.Lock)
		if judgeErr != nil {
			return report, nil, errors.Join(err, judgeErr)
		}
		if gone != Gone {
			w.Locks.Mark = ""
			continue
		}
		if releaseErr := t.release(ctx, *report.Lock); releaseErr != nil {
			return report, nil, releaseErr
		}
	}
	w.Locks.Mark = ""
	return t.mover(ctx, w)
}

// suspect reports whether the mover ended because of a lock that one like it
// has left.
func (t *tending) suspect(report restic.Report) bool {
	return report.Exit == restic.ExitLocked && report.Lock != nil && restic.Ours(report.Lock.Host, restic.Mark(t.request.Repository))
}

// mover runs one and removes it. The report is there where the mover has
// ended, the answer where w has one and nothing failed.
func (t *tending) mover(ctx context.Context, w restic.Work) (restic.Report, []byte, error) {
	r := t.request
	t.movers++
	w.Namespace, w.Name = r.Repository.Namespace, t.name(w.Step)
	w.Image, w.Pod, w.Repository, w.Run, w.For, w.Deadline, w.Nonce = r.Image, r.Pod, r.Repository, r.Run, r.Namespace, r.Deadline, r.Nonce
	job, err := w.Job()
	if err != nil {
		return restic.Report{}, nil, err
	}
	err = t.cluster.StartMover(ctx, job)
	if !errors.Is(err, catalog.ErrTaken) {
		defer t.cleanUp(ctx, job)
	}
	if err != nil {
		return restic.Report{}, nil, fmt.Errorf("start mover %s/%s: %w", job.Namespace, job.Name, err)
	}
	f := &follower{cluster: t.cluster, namespace: job.Namespace, name: job.Name, tell: t.tell, mute: true}
	end, err := f.follow(ctx)
	if err != nil {
		return restic.Report{}, nil, err
	}
	report := restic.ReadReport(end.Text, end.Exit)
	if err := end.Err(report, w.Step); err != nil {
		return report, nil, err
	}
	switch w.Step {
	case restic.StepList, restic.StepStats, restic.StepLocks, restic.StepUnlock:
		answer, err := t.answer(ctx, job.Namespace, end.Pod)
		return report, answer, err
	}
	return report, nil, nil
}

// name is that of the next mover.
func (t *tending) name(step string) string {
	r := t.request
	what := step + t.late
	if t.movers > 1 {
		what += fmt.Sprint(t.movers)
	}
	tail := restic.Mark(r.Repository)
	name := strings.ReplaceAll(r.Repository.Name, ".", "-")
	return catalog.ObjectName(catalog.Shorten(what+"-"+name, maxJob-len(tail)-len(r.Run)-1)+tail, r.Run, maxJob)
}

// answer reads what the mover sent over its log. A log may be a moment behind
// the end of its pod, so one that is cut is read again before it is given up.
func (t *tending) answer(ctx context.Context, namespace, pod string) ([]byte, error) {
	var failed error
	for _, pause := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second} {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		var answer []byte
		if answer, failed = t.read(ctx, namespace, pod); failed == nil {
			return answer, nil
		}
	}
	f := &catalog.Failure{
		Code: catalog.CodeListing, Message: fmt.Sprintf("repository %s %s: what the mover said did not come through whole", t.request.Repository.Name, t.undone),
		Cause: failed, State: "nothing changed; what did come through is not shown: it may be short", Next: t.again,
	}
	if t.long != "" {
		f.Next += "; " + t.long
	}
	return nil, f
}

func (t *tending) read(ctx context.Context, namespace, pod string) ([]byte, error) {
	log, err := t.cluster.MoverLog(ctx, namespace, pod)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	defer context.AfterFunc(ctx, func() { log.Close() })()
	return restic.ReadAnswer(log, t.request.Nonce)
}

// cleanUp removes the mover. That it could not says nothing of the repository.
func (t *tending) cleanUp(ctx context.Context, job restic.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := t.cluster.RemoveMover(ctx, job.Namespace, job.Name); err != nil {
		t.warn(fmt.Sprintf("remove mover %s/%s: %v", job.Namespace, job.Name, err))
	}
}

// failed is err as a person needs to see it.
func (t *tending) failed(ctx context.Context, err error) error {
	r := t.request.Repository
	message := fmt.Sprintf("repository %s %s", r.Name, t.undone)
	if ctx.Err() != nil {
		return &catalog.Failure{
			Code: interruptCode(context.Cause(ctx)), Message: message,
			Cause: context.Cause(ctx), State: "what was begun is removed", Next: t.again,
		}
	}
	f := &catalog.Failure{
		Code: catalog.CodeMover, Message: message, Cause: err, State: "nothing was copied, no Secret changed",
		Next: fmt.Sprintf("see whether %s can be reached from the cluster, and the entries of Secret %s/%s", r.Address, r.Namespace, r.Secret),
	}
	var said *restic.Error
	var stuck *troubled
	var denied *restic.Denied
	var inner *catalog.Failure
	switch {
	case errors.As(err, &inner):
		return err
	case errors.As(err, &said):
		t.explain(ctx, f, said.Report)
	case errors.As(err, &stuck):
		f.Code, f.Next = stuck.code(), t.remedy(stuck.trouble)
	case errors.As(err, &denied):
		f.Next = t.remedy(denied.Trouble)
	}
	return f
}

// remedy is what to do about a trouble. Such a mover reads no volume: to pass
// Pod Security any user will do who is not root.
func (t *tending) remedy(trouble restic.Trouble) string {
	r := t.request.Repository
	user := "65534"
	if r.Claim != "" {
		user = "UID, who may write to claim " + r.Claim
	}
	secure := fmt.Sprintf("%s --run-as-user=%s; or %s", t.again, user, baseline(r.Namespace))
	return remedy{r.Namespace, t.again, secure, t.request.Pod}.of(trouble)
}

// explain says what restic's report means, and what to do.
func (t *tending) explain(ctx context.Context, f *catalog.Failure, report restic.Report) {
	explain(f, t.request.Repository, report.Exit)
	switch {
	case report.Damaged():
		f.Code, f.State = catalog.CodeDamaged, "the repository has faults; nothing was changed"
		f.Next = "read what restic found, then its manual, \"Troubleshooting\"; do not prune before"
	case report.Step == restic.StepList && report.Errors > 0:
		f.Code, f.Next = catalog.CodeListing, t.request.again("repo check")
	case report.Exit == restic.ExitKilled:
		f.Next = t.remedy(restic.Trouble{Reason: restic.OutOfMemory})
	case report.Lock != nil:
		state, err := t.judge(ctx, *report.Lock)
		if err != nil {
			state = Unknown
		}
		blame(f, Held{Lock: *report.Lock, Holder: state})
	}
}

func (t *tending) warn(message string) {
	t.tell(catalog.Event{State: catalog.Warning, Message: message})
}

func (t *tending) tell(e catalog.Event) {
	e.Time, e.Run, e.Phase, e.Repository = t.now(), t.request.Run, catalog.PhaseUpload, t.request.Repository.Name
	t.watcher.Event(e)
}
