package restore

import (
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

var (
	// errTimeout is the cause of a context whose time was up.
	errTimeout = errors.New("not in time")
	// errDiffers says that what was restored is not what the copy holds.
	errDiffers = errors.New("what was restored is not what the copy holds")
)

// State is what became of a claim.
type State string

// The states.
const (
	Restored State = "Restored" // bound, or to be bound by its first consumer
	Failed   State = "Failed"   // nothing is left of it
)

// Outcome is one claim and what became of it.
type Outcome struct {
	Volume Volume
	State  State
	Bound  bool // false where it waits for its first consumer
	// Bytes and Files are what was written; 0 where the storage made a clone.
	Bytes, Files int64
	Took         time.Duration
	// Err is a catalog.Failure, nil where State is Restored.
	Err error
	// Left is why something that was made on the way could not be removed; nil
	// if nothing is left. It says nothing about the claim.
	Left error
}

// Check asks for all rights that p needs: a catalog.Failure of CodeForbidden
// names those that are missing.
func Check(ctx context.Context, c Cluster, p Plan) error {
	return lackNone(ctx, c, p.Rights())
}

// Run makes the claims of p, at most Parallel at once. The outcomes are in p's
// order. A claim that fails stops no other; the error joins theirs. When ctx
// ends, what was begun is removed. now is the caller's clock.
func Run(ctx context.Context, c Cluster, follow Follow, now func() time.Time, p Plan, w catalog.Watcher) ([]Outcome, error) {
	outcomes := make([]Outcome, len(p.Volumes))
	each(ctx, len(p.Volumes), p.Parallel, func(i int) {
		m := &making{cluster: c, follow: follow, now: now, plan: p, volume: p.Volumes[i], watcher: w}
		outcomes[i] = m.take(ctx)
	})
	var errs []error
	for _, o := range outcomes {
		errs = append(errs, o.Err)
	}
	return outcomes, errors.Join(errs...)
}

// each calls do for each i below n, a bounded number at once, and waits for all.
// Once ctx is done nobody waits for a place: do sees that it is.
func each(ctx context.Context, n, atOnce int, do func(i int)) {
	places := make(chan struct{}, max(atOnce, 1))
	var working sync.WaitGroup
	for i := range n {
		leave := func() { <-places }
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			leave = func() {}
		}
		working.Go(func() {
			defer leave()
			do(i)
		})
	}
	working.Wait()
}

// making is one claim on its way.
type making struct {
	cluster Cluster
	follow  Follow
	now     func() time.Time
	plan    Plan
	volume  Volume
	watcher catalog.Watcher

	began        time.Time
	bytes, files int64

	// What there is to remove if it fails, and where it is on its way.
	claim  string          // UID of the claim that was asked for
	static bool            // the static copy
	filled string          // UID of the claim that a mover fills
	mover  bool            // the mover
	kept   *catalog.Volume // the volume, once it outlives its claim
}

// take restores the claim. How it ended is told before what was made on the
// way is removed, which takes a moment.
func (m *making) take(ctx context.Context) Outcome {
	m.began = m.now()
	outcome := Outcome{Volume: m.volume, State: Failed}
	err := context.Cause(ctx)
	if err == nil {
		m.tell(catalog.Event{State: catalog.Started})
		err = m.make(ctx)
	}
	switch {
	case err == nil:
		outcome.State, outcome.Bound = Restored, !m.volume.Waits()
	case ctx.Err() != nil:
		outcome.Err = m.interrupted(context.Cause(ctx))
	default:
		outcome.Err = m.failed(err)
	}
	outcome.Volume = m.volume // the storage may have made it smaller
	outcome.Bytes, outcome.Files, outcome.Took = m.bytes, m.files, m.now().Sub(m.began)
	m.announce(outcome)
	outcome.Left = m.cleanUp(ctx, outcome.Err == nil)
	return outcome
}

// make asks the server first whether the claim could be made at all: not only
// once hours have been spent on its data.
func (m *making) make(ctx context.Context) error {
	if err := m.cluster.TryClaim(ctx, m.volume.Claim); err != nil {
		return err
	}
	if m.volume.Way == Fill {
		return m.fill(ctx)
	}
	return m.clone(ctx)
}

// clone makes the claim from the snapshot, or from a static copy of it.
func (m *making) clone(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.plan.Timeout, errTimeout)
	defer cancel()
	v := m.volume
	s, err := m.cluster.Current(ctx, v.Snapshot)
	switch {
	case err != nil:
		return err
	case !s.Ready:
		return fmt.Errorf("snapshot %s/%s is not ready any more: %s", s.Namespace, s.Name, s.Err)
	}
	source := s.Name
	if v.Way == Static {
		source = v.Name
		static := catalog.Snapshot{Namespace: v.Claim.Namespace, Name: v.Name, Claim: s.Claim, Role: catalog.RoleStatic, Run: m.plan.Run}
		m.static = true
		if err := m.cluster.Expose(ctx, s, static); err != nil {
			m.static = !errors.Is(err, catalog.ErrTaken)
			return fmt.Errorf("make static copy %s/%s: %w", static.Namespace, static.Name, err)
		}
	}
	if m.claim, err = m.cluster.MakeClaim(ctx, v.Claim, source); err != nil || v.Waits() {
		return err
	}
	return m.cloned(ctx, source)
}

// bound waits until the claim that was asked for has its volume. heard gets what
// there is to hear of it meanwhile.
func (m *making) bound(ctx context.Context, heard func(restic.Trouble)) error {
	said := ""
	err := m.cluster.AwaitBound(ctx, m.volume.Claim.Namespace, m.volume.Claim.Name, func(t restic.Trouble) {
		if text := t.String(); text != said {
			said = text
			m.tell(catalog.Event{State: catalog.Warning, Message: text})
		}
		heard(t)
	})
	if err != nil && said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// fill restores the copy into a claim in the backup namespace, and hands its
// volume over. The volume changes its owner while the mover's pod, whose restic
// has ended, still goes: that is waited for in the end only.
func (m *making) fill(ctx context.Context) (err error) {
	v := m.volume
	job, err := v.job(m.plan)
	if err != nil {
		return err
	}
	if m.filled, err = m.cluster.MakeClaim(ctx, m.filledClaim(), ""); err != nil {
		return fmt.Errorf("make claim %s/%s: %w", m.plan.BackupNamespace, v.Name, err)
	}
	m.mover = true
	if err := m.cluster.StartMover(ctx, job); err != nil {
		m.mover = !errors.Is(err, catalog.ErrTaken)
		return fmt.Errorf("start mover %s/%s: %w", job.Namespace, job.Name, err)
	}
	end, err := m.follow(ctx, job.Namespace, job.Name, v.Name, m.tell)
	if err != nil {
		return err
	}
	if err := m.prove(end); err != nil {
		return err
	}
	if m.plan.Local == nil {
		return m.hand(ctx)
	}
	if err := m.cluster.RemoveMover(ctx, job.Namespace, job.Name); err != nil { // another of its name is to read
		return fmt.Errorf("remove mover %s/%s: %w", job.Namespace, job.Name, err)
	}
	m.mover = false
	return nil
}

// filledClaim is the claim that the mover fills. It is labelled for the
// namespace that this run holds: while it does, nobody takes the claim for
// something that was left.
func (m *making) filledClaim() catalog.Claim {
	claim := m.volume.Claim
	claim.Namespace, claim.Name, claim.Role = m.plan.BackupNamespace, m.volume.Name, catalog.RoleClone
	claim.Labels = m.workLabels()
	return claim
}

// workLabels are those of what is made on the way.
func (m *making) workLabels() map[string]string {
	labels := catalog.Ours(catalog.RoleClone, m.plan.Run)
	labels[catalog.LabelNamespace] = m.volume.Claim.Namespace
	labels[catalog.LabelClaim] = catalog.ClaimLabel(m.volume.Snapshot.Claim)
	return labels
}

// prove compares what the mover has counted with what the copy holds.
func (m *making) prove(end restic.End) error {
	report := restic.ReadReport(end.Text, end.Exit)
	paths := m.volume.paths(m.plan.Request)
	if len(report.Missing) > 0 {
		return absent(pick(paths, report.Missing))
	}
	want := restic.StepRestore
	if m.volume.block() {
		want = restic.StepImage
	}
	if err := end.Err(report, want); err != nil {
		return err
	}
	done, counted, of := report.Restored, report.Counted, m.volume.Copy
	if done == nil { // of a device restic counts nothing
		done = &restic.Restored{}
	}
	m.bytes, m.files = counted.Bytes, counted.Files
	switch {
	// Folders on the way to a path are made too, and are in no total.
	case done.Items < done.Total, len(paths) == 0 && done.Items != done.Total:
		return fmt.Errorf("%w: restic has restored %d of %d items", errDiffers, done.Items, done.Total)
	case done.Bytes != done.TotalBytes:
		return fmt.Errorf("%w: restic has restored %d of %d bytes", errDiffers, done.Bytes, done.TotalBytes)
	case len(paths) > 0 && counted.Bytes < done.TotalBytes: // restic counts a hard link once
		return fmt.Errorf("%w: there are %d bytes, restic has restored %d", errDiffers, counted.Bytes, done.Bytes)
	case len(paths) > 0:
		return nil
	case of.Files > 0 && counted.Files != of.Files:
		return fmt.Errorf("%w: there are %d files, it has %d", errDiffers, counted.Files, of.Files)
	case counted.Bytes != of.Bytes:
		return fmt.Errorf("%w: there are %d bytes, it has %d", errDiffers, counted.Bytes, of.Bytes)
	}
	return nil
}

// hand gives the filled volume to the claim that was asked for. That claim is
// made last: the volume waits for it and for no other, so it is bound at once.
// The claim that was filled is without a volume then, and goes with its mover.
func (m *making) hand(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.plan.Timeout, errTimeout)
	defer cancel()
	filled := m.filledClaim()
	filled.UID = m.filled
	volume, err := m.cluster.KeepVolume(ctx, filled, m.workLabels())
	if err != nil {
		return err
	}
	m.kept = &volume
	if err := m.cluster.HandVolume(ctx, volume, m.volume.Claim); err != nil {
		return err
	}
	claim := m.volume.Claim
	claim.Volume = volume.Name
	if m.claim, err = m.cluster.MakeClaim(ctx, claim, ""); err != nil {
		return err
	}
	return m.bound(ctx, func(restic.Trouble) {})
}

// cleanUp removes what was made on the way, and, where it came to nothing, the
// claim itself; it stops where it cannot: what is left carries our labels.
func (m *making) cleanUp(ctx context.Context, done bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := m.remove(ctx, done)
	if err != nil {
		m.tell(catalog.Event{State: catalog.Warning, Message: "clean up: " + err.Error()})
	}
	return err
}

func (m *making) remove(ctx context.Context, done bool) error {
	c, v := m.cluster, m.volume
	if m.kept != nil && done {
		if err := c.LetVolume(ctx, m.kept.Name, m.kept.Reclaim); err != nil {
			return err
		}
	}
	if m.mover {
		if err := c.RemoveMover(ctx, m.plan.BackupNamespace, v.Name); err != nil {
			return err
		}
	}
	if m.claim != "" && !done {
		if err := m.discard(ctx, v.Claim.Namespace, v.Claim.Name, m.claim); err != nil {
			return err
		}
	}
	if m.kept != nil && !done { // the volume of a claim that is gone goes with this
		if err := c.LetVolume(ctx, m.kept.Name, "Delete"); err != nil {
			return err
		}
	}
	if m.filled != "" {
		if err := m.discard(ctx, m.plan.BackupNamespace, v.Name, m.filled); err != nil {
			return err
		}
	}
	if m.static && !(done && v.Waits()) {
		return c.RemoveStatic(ctx, v.Claim.Namespace, v.Name)
	}
	return nil
}

// discard removes a claim together with its volume, also where its class
// would retain that. A volume that is being handed over is let go by itself.
func (m *making) discard(ctx context.Context, namespace, name, uid string) error {
	if m.volume.Class.Retains && m.kept == nil {
		claim := catalog.Claim{Namespace: namespace, Name: name, UID: uid}
		volume, err := m.cluster.KeepVolume(ctx, claim, m.workLabels())
		switch {
		case errors.Is(err, catalog.ErrGone): // it has none yet
		case err != nil:
			return err
		default:
			if err := m.cluster.LetVolume(ctx, volume.Name, "Delete"); err != nil {
				return err
			}
		}
	}
	return m.cluster.RemoveClaim(ctx, namespace, name, uid)
}

// announce tells how it ended, and how long it took.
func (m *making) announce(o Outcome) {
	e := catalog.Event{State: catalog.OK, Took: o.Took, Bytes: o.Bytes}
	switch {
	case o.Err != nil:
		e.State, e.Message = catalog.Failed, o.Err.Error()
	case !o.Bound:
		e.Message = "made; it is bound when a pod mounts it"
	}
	m.tell(e)
}

// tell fills in what all events of this claim have in common.
func (m *making) tell(e catalog.Event) {
	v := m.volume
	e.Time, e.Run, e.Phase = m.now(), m.plan.Run, catalog.PhaseRestore
	e.Namespace, e.App, e.Claim, e.Name = v.Claim.Namespace, v.Snapshot.App(), v.Claim.Name, v.Snapshot.Name
	if v.Copy != nil {
		e.Repository, e.Copy = v.Repository.Name, v.Copy.Snapshot
	}
	m.watcher.Event(e)
}

// Sweep removes what restores into namespace have left there: static copies
// whose claim is bound, or gone, and volumes that a dead run was handing over.
// The caller holds the namespace, so that none of them is at work. run is its
// own. What could not be removed is told, and no reason to restore nothing.
func Sweep(ctx context.Context, c Cluster, now func() time.Time, p Plan, w catalog.Watcher) {
	s := &sweeping{cluster: c, plan: p, tell: func(run catalog.Run, message string) {
		w.Event(catalog.Event{Time: now(), Run: run, Phase: catalog.PhaseRestore, State: catalog.Warning, Namespace: p.ToNamespace, Message: message})
	}}
	if err := s.sweep(ctx); err != nil {
		s.tell(p.Run, "remove what earlier restores left: "+err.Error())
	}
}

type sweeping struct {
	cluster Cluster
	plan    Plan
	tell    func(catalog.Run, string)
	claims  []catalog.Claim
}

func (s *sweeping) sweep(ctx context.Context) error {
	scope := catalog.Scope{Namespaces: []string{s.plan.ToNamespace}}
	inventory, err := s.cluster.Inventory(ctx, scope)
	if err != nil {
		return err
	}
	s.claims = inventory.Claims
	snapshots, err := s.cluster.Snapshots(ctx, scope)
	if err != nil {
		return err
	}
	var errs []error
	for _, static := range snapshots {
		if s.over(static) {
			s.tell(static.Run, "removing static copy "+static.Name+", which its claim needs no more")
			errs = append(errs, s.cluster.RemoveStatic(ctx, static.Namespace, static.Name))
		}
	}
	return errors.Join(append(errs, s.volumes(ctx))...)
}

// over reports whether static was made for a claim of an earlier run that
// needs it no more. In the backup namespace there are those of copies too,
// which have no claim but a clone.
func (s *sweeping) over(static catalog.Snapshot) bool {
	if static.Role != catalog.RoleStatic || static.Run == s.plan.Run || static.Terminating {
		return false
	}
	i := slices.IndexFunc(s.claims, func(c catalog.Claim) bool {
		return c.Labels[catalog.LabelRun] == string(static.Run) && c.Labels[catalog.LabelClaim] == catalog.ClaimLabel(static.Claim)
	})
	if i < 0 {
		return s.plan.ToNamespace != s.plan.BackupNamespace
	}
	return s.claims[i].Role == "" && s.claims[i].Phase == "Bound"
}

// volumes ends what dead runs have begun: a volume whose new claim is bound is
// given back its reclaim policy, any other is removed with that claim.
func (s *sweeping) volumes(ctx context.Context) error {
	kept, err := s.cluster.KeptVolumes(ctx, s.plan.ToNamespace)
	if err != nil {
		return err
	}
	var errs []error
	for _, volume := range kept {
		if volume.Run != s.plan.Run {
			errs = append(errs, s.volume(ctx, volume))
		}
	}
	return errors.Join(errs...)
}

func (s *sweeping) volume(ctx context.Context, volume catalog.Volume) error {
	i := slices.IndexFunc(s.claims, func(c catalog.Claim) bool { return c.Role == "" && c.Volume == volume.Name })
	if i >= 0 && s.claims[i].Phase == "Bound" {
		s.tell(volume.Run, fmt.Sprintf("claim %s is bound: its volume %s is as it is to be", s.claims[i].Name, volume.Name))
		return s.cluster.LetVolume(ctx, volume.Name, volume.Reclaim)
	}
	s.tell(volume.Run, fmt.Sprintf("run %s has ended while it handed volume %s over: removing it", volume.Run, volume.Name))
	if i >= 0 {
		if err := s.cluster.RemoveClaim(ctx, s.claims[i].Namespace, s.claims[i].Name, s.claims[i].UID); err != nil {
			return err
		}
	}
	return s.cluster.LetVolume(ctx, volume.Name, "Delete")
}
