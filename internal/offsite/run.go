package offsite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// cleanupTimeout bounds what is still done after ^C. A mover that is stopped
// has a minute to remove its lock.
const cleanupTimeout = 3 * time.Minute

// exposeTimeout is how long a static copy may take to be ready: the data is
// there already.
const exposeTimeout = 5 * time.Minute

// ErrDetached says that a mover was left running.
var ErrDetached = errors.New("its mover runs on")

// errTimeout is the cause of a context that Request.Timeout has ended.
var errTimeout = errors.New("not in time")

// State is what became of a copy.
type State string

// The states.
const (
	Copied   State = "Ok"
	Known    State = "AlreadyThere" // on record, or in the repository, before
	Partial  State = "Partial"      // in the repository, but some files could not be read; it is not recorded
	Failed   State = "Failed"
	Detached State = "Detached"   // its mover runs on
	Skipped  State = "NotStarted" // interrupted before its mover was started; nothing is left of it
)

// Outcome is one copy and what became of it.
type Outcome struct {
	Copy   Copy
	State  State
	Result catalog.Copy  // where State is Copied, Known or Partial
	Took   time.Duration // 0 from Collect
	// Err is a catalog.Failure, nil where State is Copied or Known, or Detached
	// because that was asked for.
	Err error
	// Left is why something that was made for the copy could not be removed;
	// nil if nothing is left, or its mover runs on. It says nothing about the copy.
	Left error
}

// Run makes the copies of p, at most Request.Parallel at once. The outcomes
// are in p's order. A copy that fails stops no other; the error joins theirs.
//
// When ctx ends, movers that run are left running, with all that they need,
// and their errors are ErrDetached: Sweep finds them later. What was begun
// and has no mover yet is removed. now is the caller's clock.
func Run(ctx context.Context, c Cluster, now func() time.Time, p Plan, w catalog.Watcher) ([]Outcome, error) {
	if p.Request.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.Request.Timeout, errTimeout)
		defer cancel()
	}
	p, err := adopt(ctx, c, p)
	if err != nil {
		return nil, err
	}
	w = sum(p, w)
	outcomes := make([]Outcome, len(p.Copies))
	places := make(chan struct{}, max(p.Request.Parallel, 1))
	classes := &classes{cluster: c, known: map[string]catalog.StorageClass{}}
	freeing := &sync.Mutex{}
	var running sync.WaitGroup
	for i, copy := range p.Copies {
		if copy.Recorded {
			result, _ := copy.Snapshot.CopyIn(copy.Repository.Name)
			outcomes[i] = Outcome{Copy: copy, State: Known, Result: result}
			continue
		}
		m := &making{cluster: c, now: now, request: p.Request, copy: copy, slot: p.Request.slot(i), watcher: w, classes: classes, freeing: freeing,
			locks: restic.Locks{Retry: p.Request.RetryLock, Mark: restic.Mark(copy.Repository)}}
		leave := enter(ctx, places)
		running.Go(func() {
			defer leave()
			outcomes[i] = m.take(ctx)
		})
	}
	running.Wait()
	return outcomes, join(outcomes)
}

// join joins what the outcomes tell.
func join(outcomes []Outcome) error {
	var errs []error
	for _, o := range outcomes {
		errs = append(errs, o.Err)
	}
	return errors.Join(errs...)
}

// adopt finds the movers of earlier runs that are at a copy of p, as one is
// whose client was interrupted: it is waited for, and none is started beside
// it. Of a snapshot that this run has taken itself there can be none.
func adopt(ctx context.Context, c Cluster, p Plan) (Plan, error) {
	if !slices.ContainsFunc(p.Copies, func(copy Copy) bool {
		return !copy.Recorded && copy.Snapshot.Run != p.Request.Run
	}) {
		return p, nil
	}
	var movers []restic.Mover
	for _, namespace := range p.Namespaces() {
		there, err := c.Movers(ctx, namespace)
		if err != nil {
			return p, fmt.Errorf("look for movers in %s: %w", namespace, err)
		}
		movers = append(movers, there...)
	}
	p.Copies = slices.Clone(p.Copies)
	for i := range p.Copies {
		copy := &p.Copies[i]
		for _, m := range movers {
			if m.Job && !m.Ending && m.Namespace == copy.Repository.Namespace && m.Source.UID == copy.Snapshot.UID && m.Source.Repository == copy.Repository.Name {
				copy.Name, copy.Adopted = m.Name, m.Run
			}
		}
	}
	return p, nil
}

// enter waits for a place, until ctx is done, and returns how to leave it.
func enter(ctx context.Context, places chan struct{}) (leave func()) {
	select {
	case places <- struct{}{}:
		return func() { <-places }
	case <-ctx.Done():
		return func() {}
	}
}

// classes reads each storage class once.
type classes struct {
	cluster Cluster
	mu      sync.Mutex
	known   map[string]catalog.StorageClass
}

func (c *classes) read(ctx context.Context, name string) (catalog.StorageClass, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	class, ok := c.known[name]
	if ok {
		return class, nil
	}
	class, err := c.cluster.StorageClass(ctx, name)
	if err == nil {
		c.known[name] = class
	}
	return class, err
}

// making is one copy on its way.
type making struct {
	cluster Cluster
	now     func() time.Time
	request Request
	copy    Copy
	slot    string // on its node
	watcher catalog.Watcher
	classes *classes
	// late: nobody waited for the mover. That the snapshot is gone meanwhile
	// is no error.
	late bool

	began time.Time
	stage stage
	class catalog.StorageClass
	pod   string

	locks    restic.Locks
	freeing  *sync.Mutex // of all copies of a run: one removes locks at a time
	released int         // locks of dead movers
	holder   Holder      // of the last lock that looked like a mover's of ours
}

// stage is how far a copy has come, and so what there is to remove.
type stage int

const (
	nothing stage = iota
	static
	clone
	mover
)

// take makes the copy, unless ctx is done.
func (m *making) take(ctx context.Context) Outcome {
	m.began = m.now()
	if err := context.Cause(ctx); err != nil {
		outcome := Outcome{Copy: m.copy, State: Skipped, Err: m.interrupted(err)}
		m.announce(&outcome)
		return outcome
	}
	m.tell(catalog.Event{State: catalog.Started})
	return m.make(ctx)
}

// make is the whole way of one copy. How it ended is told before what was made
// for it is removed, which takes a moment.
func (m *making) make(ctx context.Context) Outcome {
	outcome := Outcome{Copy: m.copy, State: Failed}
	if m.copy.Adopted != "" {
		m.stage, m.class.Retains = mover, !m.copy.Beside() // as with what earlier runs have left
	} else if outcome.Err = m.start(ctx); outcome.Err != nil {
		if ctx.Err() != nil {
			outcome.State, outcome.Err = Skipped, m.interrupted(context.Cause(ctx))
		}
		return m.close(ctx, outcome)
	}
	if m.request.Detach {
		outcome.State = Detached
		return outcome
	}
	end, err := m.work(ctx)
	if lost(err) {
		outcome.State, outcome.Err = Detached, m.detached(ctx, err)
		m.announce(&outcome)
		return outcome
	}
	if err == nil {
		outcome.State, outcome.Result, err = m.result(end)
	}
	outcome.Err = m.failed(err)
	return m.finish(ctx, outcome)
}

// finish writes a copy down and removes what was made for it. A copy that
// could not be written down keeps its mover, whose report is the only trace of
// it, until somebody has.
func (m *making) finish(ctx context.Context, outcome Outcome) Outcome {
	if outcome.State != Copied && outcome.State != Known {
		return m.close(ctx, outcome)
	}
	if outcome.Err = m.record(ctx, outcome.Result); outcome.Err != nil {
		outcome.State = Failed
	}
	if outcome.Err != nil && !errors.Is(outcome.Err, catalog.ErrGone) {
		m.announce(&outcome)
		return outcome
	}
	return m.close(ctx, outcome)
}

// close tells the outcome and removes what was made for it.
func (m *making) close(ctx context.Context, outcome Outcome) Outcome {
	m.announce(&outcome)
	outcome.Left = m.cleanUp(ctx)
	return outcome
}

// namespace is where the copy is made: where its repository's Secret lies.
func (m *making) namespace() string { return m.copy.Repository.Namespace }

// follow watches the copy's mover until it has ended.
func (m *making) follow(ctx context.Context) (restic.End, error) {
	f := &follower{
		cluster: m.cluster, namespace: m.namespace(), name: m.copy.Name, clone: m.copy.Name, size: image(m.copy.Snapshot), tell: m.tell,
	}
	end, err := f.follow(ctx)
	m.pod = cmp.Or(end.Pod, f.pod)
	return end, err
}

// lost reports whether err says nothing of the mover, but that it can be
// followed no longer: it may well make its copy yet.
func lost(err error) bool {
	var t *troubled
	var r *restarting
	return err != nil && !errors.As(err, &t) && !errors.As(err, &r) && !errors.Is(err, catalog.ErrGone)
}

// start makes all that the copy needs, its mover last. Before the first write
// all is known that can be known without one.
func (m *making) start(ctx context.Context) error {
	clonedAs, err := m.clone(ctx)
	if err != nil {
		return m.failed(err)
	}
	job, err := m.job()
	if err != nil {
		return m.failed(err)
	}
	source, err := m.expose(ctx)
	if err != nil {
		return err
	}
	err = m.reach(clone, "make clone", func() error { return m.cluster.CreateClone(ctx, clonedAs, source) })
	if err != nil {
		return err
	}
	return m.reach(mover, "start mover", func() error { return m.cluster.StartMover(ctx, job) })
}

// expose makes the snapshot known where the mover runs, and is what it is
// called there: itself, if that is its own namespace.
func (m *making) expose(ctx context.Context) (string, error) {
	s, name := m.copy.Snapshot, m.copy.Name
	if m.copy.Beside() {
		return s.Name, nil
	}
	exposed := catalog.Snapshot{Namespace: m.namespace(), Name: name, Claim: s.Claim, Role: catalog.RoleStatic, Run: m.request.Run}
	return name, m.reach(static, "make static copy", func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, exposeTimeout, errTimeout)
		defer cancel()
		return m.cluster.Expose(ctx, s, exposed)
	})
}

// reach makes what belongs to a stage. It counts as made even if that fails,
// for the answer may have been lost; but not if another's object is in its place.
func (m *making) reach(to stage, doing string, do func() error) error {
	m.stage = to
	err := do()
	if errors.Is(err, catalog.ErrTaken) {
		m.stage = to - 1
	}
	if err == nil {
		return nil
	}
	return m.failed(fmt.Errorf("%s %s/%s: %w", doing, m.namespace(), m.copy.Name, err))
}

// cloneSize is what the driver says that s needs, else what the volume had:
// not what the claim has grown to since.
func cloneSize(s catalog.Snapshot) int64 { return cmp.Or(s.RestoreSize, s.Record.Claim.Capacity) }

// image is how large the image of a block volume is at least; 0 where s is of a
// file system, or it is not known.
func image(s catalog.Snapshot) int64 {
	if s.Record == nil || s.Record.Claim.VolumeMode != catalog.BlockMode {
		return 0
	}
	return cloneSize(s)
}

// clone is the claim that the mover reads.
func (m *making) clone(ctx context.Context) (catalog.Claim, error) {
	s := m.copy.Snapshot
	if s.Record == nil {
		return catalog.Claim{}, errors.New("the snapshot has no record that says what volume it was taken of")
	}
	source := s.Record.Claim
	if source.StorageClass == "" {
		return catalog.Claim{}, errors.New("its claim had no storage class, so no clone of it can be made")
	}
	var err error
	m.class, err = m.classes.read(ctx, source.StorageClass)
	if catalog.CodeOf(err) == catalog.CodeForbidden {
		// It may wait for its first consumer: then the mover goes where the
		// volume is. What the class retains, nobody here may change.
		m.class, err = catalog.StorageClass{Name: source.StorageClass, WaitsForConsumer: true}, nil
	}
	if err != nil {
		return catalog.Claim{}, err
	}
	labels := catalog.Ours(catalog.RoleClone, m.request.Run)
	labels[catalog.LabelNamespace] = s.Namespace
	labels[catalog.LabelClaim] = catalog.ClaimLabel(s.Claim)
	return catalog.Claim{
		Namespace: m.namespace(), Name: m.copy.Name,
		Labels: labels, Annotations: catalog.HandsOff(), Role: catalog.RoleClone,
		StorageClass: source.StorageClass, Request: cloneSize(s),
		AccessModes: []string{"ReadWriteOnce"}, VolumeMode: cmp.Or(source.VolumeMode, "Filesystem"),
	}, nil
}

// job is the mover. Where the class waits for the first consumer the clone is
// made where the mover is scheduled, and that must be where the storage has
// the snapshot: where the source volume is, or, where that could not be read,
// best where the app was. A class that does not wait chooses itself.
func (m *making) job() (restic.Job, error) {
	b := restic.Backup{
		Namespace: m.namespace(), Name: m.copy.Name, Run: m.request.Run,
		Image: m.request.Image, Pod: m.request.Pod, UploadLimit: m.request.UploadLimit,
		Repository: m.copy.Repository, Snapshot: m.copy.Snapshot,
		Claim: m.copy.Name, Slot: m.slot, Deadline: m.request.Deadline, Locks: m.locks,
	}
	if m.class.WaitsForConsumer {
		b.NodeAffinity, b.Node = m.copy.Snapshot.Record.Claim.NodeAffinity, m.copy.Snapshot.Record.Claim.Node
	}
	job, dropped, err := b.Job()
	for _, what := range dropped {
		m.tell(catalog.Event{State: catalog.Warning, Message: fmt.Sprintf("the copy's record goes without %s: it would be too long for restic", what)})
	}
	return job, err
}

// result is what the mover's end says of the copy.
func (m *making) result(end restic.End) (State, catalog.Copy, error) {
	report := restic.ReadReport(end.Text, end.Exit)
	var result catalog.Copy
	if report.Summary != nil {
		result = catalog.Copy{
			Repository: m.copy.Repository.Name, Snapshot: report.Summary.Snapshot,
			Bytes: report.Summary.Bytes, Files: report.Summary.Files, Added: report.Summary.Added, Finished: end.Finished.UTC(),
		}
	}
	err := end.Err(report, restic.StepBackup)
	switch {
	case err == nil && result.Bytes < image(m.copy.Snapshot):
		return Failed, catalog.Copy{}, fmt.Errorf("only %d of %d bytes of the device were read", result.Bytes, image(m.copy.Snapshot))
	case err == nil && report.Found():
		return Known, result, nil
	case err == nil:
		return Copied, result, nil
	case report.Exit == restic.ExitPartial && report.Summary != nil:
		return Partial, result, err
	}
	return Failed, catalog.Copy{}, err
}

// record writes the copy down. It is done, so ^C does not keep it from that.
func (m *making) record(ctx context.Context, result catalog.Copy) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := m.cluster.AddCopy(ctx, m.copy.Snapshot, result)
	if err == nil || m.late && errors.Is(err, catalog.ErrGone) {
		return nil
	}
	return m.unrecorded(result, err)
}

// cleanUp removes what was made for the copy, in the order in which one holds
// the other, and stops where it cannot: what is left carries our labels.
func (m *making) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := m.remove(ctx)
	if err != nil {
		m.tell(catalog.Event{State: catalog.Warning, Message: err.Error()})
	}
	return err
}

// remove removes what was made, down from the stage that was reached.
func (m *making) remove(ctx context.Context) error {
	c, namespace, name := m.cluster, m.namespace(), m.copy.Name
	if m.stage >= mover {
		if err := m.gone("remove mover", c.RemoveMover(ctx, namespace, name)); err != nil {
			return err
		}
	}
	if m.stage >= clone {
		if err := m.gone("remove clone", c.RemoveClone(ctx, namespace, name, m.class.Retains)); err != nil {
			return err
		}
	}
	if m.stage >= static && !m.copy.Beside() {
		return m.gone("remove static copy", c.RemoveStatic(ctx, namespace, name))
	}
	return nil
}

// gone is the error of a removal. What only others hold is as good as gone,
// and is named.
func (m *making) gone(doing string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s %s/%s: %w", doing, m.namespace(), m.copy.Name, err)
	var held *catalog.Held
	if errors.As(err, &held) {
		m.tell(catalog.Event{State: catalog.Warning, Message: err.Error()})
		return nil
	}
	return err
}

// announce tells how it ended, and how long it took.
func (m *making) announce(o *Outcome) {
	if !m.late {
		o.Took = m.now().Sub(m.began)
	}
	e := catalog.Event{State: catalog.OK, Took: o.Took, Copy: o.Result.Snapshot, Bytes: o.Result.Bytes, Added: o.Result.Added}
	if o.Err != nil {
		e.State, e.Message = catalog.Failed, o.Err.Error()
	}
	if o.State == Detached {
		e.State = catalog.Warning
	}
	m.tell(e)
}

// tell fills in what all events of this copy have in common.
func (m *making) tell(e catalog.Event) {
	s := m.copy.Snapshot
	e.Time, e.Run, e.Phase = m.now(), m.request.Run, catalog.PhaseUpload
	e.Namespace, e.App, e.Claim, e.Name = s.Namespace, s.App(), s.Claim, s.Name
	e.Repository = m.copy.Repository.Name
	if e.Pod == "" {
		e.Pod = m.pod
	}
	m.watcher.Event(e)
}
