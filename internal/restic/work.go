package restic

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Work is what a mover does with a repository as a whole.
type Work struct {
	Namespace, Name string // of the Job
	Image           string
	Repository      catalog.Repository
	Run             catalog.Run
	// For is what {namespace} in the address stands for; "" where there is none.
	For      string
	Deadline time.Duration
	Pod      Pod
	Step     string // what to do, but StepCheck and StepBackup
	// Args are restic's own besides those that the step needs: the subset of
	// data that is read, whether all locks are to go.
	Args  []string
	Locks Locks
	// Nonce marks the answer in the log; ReadAnswer wants the same.
	Nonce string
	// Dead is whose lock is to go: StepUnlock removes no other, but what is
	// older than half an hour. nil leaves it to Args.
	Dead *Lock
}

// Locks is how a mover treats locks of others.
type Locks struct {
	// Retry is how long restic waits for one; 0 for not at all.
	Retry time.Duration
	// Mark is how the names of movers are marked whose locks are not waited
	// for: the mover then ends at once with ExitLocked. "" waits for all.
	Mark string
}

func (l Locks) env() []Env { return []Env{{"BACKSNAP_MARK", l.Mark}} }

// Job is the mover that does it.
func (w Work) Job() (Job, error) {
	job, err := mover(w.Namespace, w.Name, w.Image, w.Repository, w.Run, w.Pod)
	if err != nil {
		return Job{}, err
	}
	job.Keep = keepErrand
	job.Args = arguments(w.Step, w.Deadline, w.Locks, append(w.command(), w.Args...))
	job.Env = append(job.Env, Env{"BACKSNAP_NAMESPACE", w.For})
	job.Env = append(job.Env, w.Locks.env()...)
	if w.Nonce != "" {
		job.Env = append(job.Env, Env{"BACKSNAP_NONCE", w.Nonce})
	}
	if w.Dead != nil {
		// restic calls a lock stale whose host is its own and whose process is
		// gone: so the mover takes the dead one's name.
		job.Host = w.Dead.Host
		job.Env = append(job.Env, Env{"BACKSNAP_PID", strconv.Itoa(w.Dead.PID)})
	}
	job.Deadline = w.Locks.Retry + w.Deadline + setup
	return job, nil
}

// command is restic's for the step. What only reads takes no lock: it cannot
// be kept from its work, and works where nothing may be written. $RESTIC_HOST
// would leave out the snapshots of all other hosts.
func (w Work) command() []string {
	switch w.Step {
	case StepInit:
		return []string{"init", "--json"}
	case StepExamine:
		return []string{"check", "--json"}
	case StepList:
		return []string{"snapshots", "--json", "--no-lock", "--host", ""}
	case StepStats:
		return []string{"stats", "--json", "--no-lock", "--host", "", "--mode", "raw-data"}
	case StepUnlock:
		return []string{"unlock"}
	case StepForget:
		return []string{"forget"}
	case StepPrune:
		return []string{"prune"}
	}
	return nil
}

// ListArgs are those with which StepList lists the copies of these namespaces,
// and what Partial needs, instead of all that there is; none for no namespace.
func ListArgs(namespaces []string) []string {
	if len(namespaces) == 0 {
		return nil
	}
	args := []string{"--tag", tagPartial}
	for _, namespace := range namespaces {
		args = append(args, "--tag", "backsnap,ns="+namespace)
	}
	return args
}

var subset = regexp.MustCompile(`^([1-9][0-9]*/[1-9][0-9]*|[0-9]+(\.[0-9]+)?%|[0-9]+[KMGT]?)$`)

// CheckSubset is whether restic's check takes text for the part of the data
// that it reads: `1/7`, `5%`, `10G`, "" for none.
func CheckSubset(text string) error {
	if text != "" && !subset.MatchString(text) {
		return fmt.Errorf("read-data-subset %q: want a part as 1/7, a share as 5%%, or a size as 10G", text)
	}
	return nil
}
