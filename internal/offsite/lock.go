package offsite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Holder is what this cluster knows of who holds a lock.
type Holder string

// The holders. A name is never used twice: a pod that is not there now, and
// has held a lock, is gone for good.
const (
	Gone    Holder = "gone"    // a mover of this cluster whose pod is not there any more, or has ended
	Alive   Holder = "alive"   // a mover of this cluster that is there
	Unknown Holder = "unknown" // another cluster's, a person's
)

// Held is a lock and its holder.
type Held struct {
	restic.Lock
	Holder Holder `json:"holder"`
}

// String is `host mover-1 since 2026-11-22 01:15:42 UTC (pod gone)`.
func (h Held) String() string {
	switch h.Holder {
	case Gone:
		return h.Lock.String() + " (pod gone)"
	case Alive:
		return h.Lock.String() + " (pod alive)"
	}
	return h.Lock.String() + " (no mover of this cluster)"
}

// judge says who holds l. The lock must have been seen before: only then does
// it prove something that there is no such pod now.
func (t *tending) judge(ctx context.Context, l restic.Lock) (Holder, error) {
	held, err := t.holders(ctx, []restic.Lock{l})
	if err != nil {
		return Unknown, err
	}
	return held[0].Holder, nil
}

// holders says of each lock who holds it.
func (t *tending) holders(ctx context.Context, locks []restic.Lock) ([]Held, error) {
	r := t.request.Repository
	mark := restic.Mark(r)
	var pods []string
	if slices.ContainsFunc(locks, func(l restic.Lock) bool { return restic.Ours(l.Host, mark) }) {
		var err error
		if pods, err = t.cluster.MoverPods(ctx, r.Namespace); err != nil {
			return nil, err
		}
	}
	held := make([]Held, len(locks))
	for i, l := range locks {
		held[i] = Held{Lock: l, Holder: Unknown}
		if restic.Ours(l.Host, mark) {
			held[i].Holder = Gone
			if slices.Contains(pods, l.Host) {
				held[i].Holder = Alive
			}
		}
	}
	return held, nil
}

// release has the lock of a mover that is gone removed, and no other that
// anybody may hold.
func (t *tending) release(ctx context.Context, l restic.Lock) error {
	_, answer, err := t.mover(ctx, restic.Work{Step: restic.StepUnlock, Dead: &l})
	if err != nil {
		return fmt.Errorf("remove the lock of %s: %w", l, err)
	}
	left, err := restic.ReadLocks(answer)
	if err != nil {
		return fmt.Errorf("remove the lock of %s: %w", l, err)
	}
	if slices.ContainsFunc(left, func(there restic.Lock) bool { return there.Host == l.Host && there.PID == l.PID }) {
		return fmt.Errorf("remove the lock of %s: it is still there", l)
	}
	t.warn(fmt.Sprintf("removed the lock of %s: its pod is gone", l))
	return nil
}

// blame says whose lock it is, and what can be done about that.
func blame(f *catalog.Failure, held Held) {
	kind := ""
	if held.Exclusive {
		kind = "exclusively "
	}
	f.Cause = fmt.Errorf("locked %sby %s", kind, held)
	if held.Holder == Alive {
		f.Next = "wait: a mover of this cluster works on it; or wait longer: --retry-lock 1h"
	}
}

// Locks are those in the repository, and who holds them.
func Locks(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, w catalog.Watcher) ([]Held, error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not looked at", again: r.again("repo unlock")}
	if err := t.ready(); err != nil {
		return nil, err
	}
	held, err := t.locks(ctx)
	if err != nil {
		return nil, t.failed(ctx, err)
	}
	return held, nil
}

func (t *tending) locks(ctx context.Context) ([]Held, error) {
	_, answer, err := t.work(ctx, restic.StepLocks)
	if err != nil {
		return nil, err
	}
	locks, err := restic.ReadLocks(answer)
	if err != nil {
		return nil, err
	}
	return t.holders(ctx, locks)
}

// Unlocked is what became of locks.
type Unlocked struct {
	Removed, Left []Held
}

// Unlock removes the locks among there, which Locks has found, that movers
// have left which are gone, and those that nobody has renewed for half an
// hour; with all, every lock there is, whoever holds it.
func Unlock(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, there []Held, all bool, w catalog.Watcher) (Unlocked, error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not unlocked", again: r.again("repo unlock")}
	left, err := t.unlock(ctx, there, all)
	if err != nil {
		return Unlocked{}, t.failed(ctx, err)
	}
	u := Unlocked{}
	for _, held := range there {
		if slices.ContainsFunc(left, func(l restic.Lock) bool { return l.Host == held.Host && l.PID == held.PID }) {
			u.Left = append(u.Left, held)
		} else {
			u.Removed = append(u.Removed, held)
		}
	}
	return u, nil
}

// unlock removes what Unlock says, and returns what is left.
func (t *tending) unlock(ctx context.Context, there []Held, all bool) ([]restic.Lock, error) {
	works := []restic.Work{}
	for _, held := range there {
		if held.Holder == Gone && !all {
			works = append(works, restic.Work{Step: restic.StepUnlock, Dead: &held.Lock})
		}
	}
	switch {
	case all:
		works = append(works, restic.Work{Step: restic.StepUnlock, Args: []string{"--remove-all"}})
	case len(works) == 0:
		works = append(works, restic.Work{Step: restic.StepUnlock})
	}
	var left []restic.Lock
	for _, w := range works {
		_, answer, err := t.mover(ctx, w)
		if err != nil {
			return nil, err
		}
		if left, err = restic.ReadLocks(answer); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// work follows the copy's mover until it has ended. One that found a lock
// which a mover of ours has left is started again: when that lock is removed,
// or, since its holder is alive, to wait for it.
func (m *making) work(ctx context.Context) (restic.End, error) {
	for {
		end, err := m.follow(ctx)
		if err != nil {
			return end, err
		}
		report := restic.ReadReport(end.Text, end.Exit)
		t := m.tending()
		if m.locks.Mark == "" || !t.suspect(report) {
			return end, nil
		}
		if err := m.free(ctx, t, *report.Lock); err != nil {
			return end, err
		}
		if err := m.restart(ctx); err != nil {
			return end, err
		}
	}
}

// free removes the lock of a mover that is gone. Where it is alive, or that
// fails, the next mover waits as for any other.
func (m *making) free(ctx context.Context, t *tending, l restic.Lock) error {
	m.freeing.Lock() // copies of one run share the name of such a mover
	defer m.freeing.Unlock()
	holder, err := t.judge(ctx, l)
	m.holder = holder
	m.released++
	if err == nil && holder == Gone {
		err = t.release(ctx, l)
	}
	if ctx.Err() != nil {
		return &restarting{context.Cause(ctx)}
	}
	if err != nil || holder != Gone || m.released >= maxReleases {
		m.locks.Mark = ""
	}
	if err != nil {
		m.tell(catalog.Event{State: catalog.Warning, Message: err.Error()})
	}
	return nil
}

// restart puts another mover in the place of the one that has ended.
func (m *making) restart(ctx context.Context) error {
	namespace, name := m.namespace(), m.copy.Name
	if err := m.cluster.RemoveMover(ctx, namespace, name); err != nil {
		return &restarting{fmt.Errorf("remove mover %s/%s: %w", namespace, name, err)}
	}
	job, err := m.job()
	if err == nil {
		err = m.cluster.StartMover(ctx, job)
	}
	if err != nil {
		return &restarting{fmt.Errorf("start mover %s/%s: %w", namespace, name, err)}
	}
	return nil
}

// restarting is the failure to start a mover once more: none runs.
type restarting struct{ cause error }

func (r *restarting) Error() string { return r.cause.Error() }
func (r *restarting) Unwrap() error { return r.cause }

// tending is work on the repository that the copy goes into.
func (m *making) tending() *tending {
	return &tending{
		cluster: m.cluster, now: m.now, watcher: m.watcher, undone: "not unlocked", again: m.again(), late: "c",
		request: WorkRequest{
			Run: m.request.Run, Repository: m.copy.Repository, Namespace: m.copy.Snapshot.Namespace, Image: m.request.Image, Pod: m.request.Pod,
			Deadline: unlockTimeout, Nonce: string(m.request.Run) + m.copy.Name,
		},
	}
}

// unlockTimeout is how long removing a lock may take.
const unlockTimeout = 10 * time.Minute
