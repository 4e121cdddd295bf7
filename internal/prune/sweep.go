package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// errTimeout is the cause of a context that Plan.Timeout has ended.
var errTimeout = errors.New("not in time")

// sweeping is the deletions of one run.
type sweeping struct {
	*running
	places chan struct{} // so many snapshots may be on their way out of the storage

	mu      sync.Mutex
	waiting map[string]*leaving // by content
	stuck   map[string]int      // by driver: that have not gone since one of it has
	broken  error               // why contents are not watched any more
}

// leaving is a content that is to go.
type leaving struct {
	gone chan struct{}
	says string // its last error
}

// sweep deletes what is to be swept, paced by the storage: the next one goes
// when one is gone, or known to be stuck.
func (r *running) sweep(ctx context.Context, items [][]Item) {
	s := &sweeping{running: r, places: make(chan struct{}, max(r.Parallel, 1)), waiting: map[string]*leaving{}, stuck: map[string]int{}}
	var rows []int
	for i, row := range r.Rows {
		if row.Does == retention.Sweep {
			rows = append(rows, i)
		}
	}
	if len(rows) == 0 {
		return
	}
	stop := s.follow(ctx)
	defer stop()
	var sweeping sync.WaitGroup
	for _, i := range rows {
		sweeping.Go(func() { items[i] = s.row(ctx, r.Rows[i]) })
	}
	sweeping.Wait()
}

// follow watches contents until stop is called.
func (s *sweeping) follow(ctx context.Context) (stop func()) {
	if s.seen.contents.byName == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.cluster.FollowContents(ctx, s.standing, s.see); err != nil {
			s.lose(err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// standing are the contents that are waited for.
func (s *sweeping) standing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.waiting {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *sweeping) see(content catalog.Content, gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.waiting[content.Name]
	switch {
	case l == nil:
	case gone:
		delete(s.waiting, content.Name)
		close(l.gone)
	default:
		l.says = content.Err
	}
}

// lose notes that nobody will see contents go any more.
func (s *sweeping) lose(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
	for name, l := range s.waiting {
		delete(s.waiting, name)
		close(l.gone)
	}
}

// row sweeps one restore point: all of it, or, where something has changed
// since it was judged, nothing.
func (s *sweeping) row(ctx context.Context, row Row) []Item {
	items := make([]Item, len(row.Snapshots))
	for i, shot := range row.Snapshots {
		items[i] = Item{Snapshot: shot, Point: row.Point}
	}
	if why := s.spared(row); why != "" {
		for i := range items {
			items[i] = s.keep(items[i], why)
		}
		return items
	}
	var deleting sync.WaitGroup
	for i := range items {
		deleting.Go(func() {
			s.places <- struct{}{}
			defer func() { <-s.places }()
			items[i] = s.one(ctx, items[i])
		})
	}
	deleting.Wait()
	s.report(row, items)
	return items
}

// spared is why a row stays, as things stand now; "" where it goes.
func (s *sweeping) spared(row Row) string {
	if !s.unchanged(row) {
		return "it has changed since it was listed: the next run judges it anew"
	}
	for _, shot := range row.Snapshots {
		if why := s.inUse.by(shot); why != "" {
			return why
		}
	}
	return ""
}

// report tells of one row.
func (s *sweeping) report(row Row, items []Item) {
	gone := 0
	for _, item := range items {
		if item.Outcome == Deleted {
			gone++
		}
	}
	if gone == len(items) {
		s.tell(catalog.Event{
			State: catalog.OK, Namespace: row.Point.Namespace, App: row.Point.App, Name: row.Point.Name,
			Message: fmt.Sprintf("%d of %d contents gone from the storage", gone, len(items)),
		})
	}
}

// one sweeps one snapshot and waits until the storage has let go of it.
func (s *sweeping) one(ctx context.Context, item Item) Item {
	if ctx.Err() != nil {
		return s.spare(ctx, item, context.Cause(ctx))
	}
	content, known := s.seen.contents.of(item.Snapshot)
	if known && s.hopeless(content.Driver) {
		item.Outcome, item.Reason = PutOff, fmt.Sprintf("driver %s has let go of none of the last %d: the next run tries again", content.Driver, s.Parallel)
		return item
	}
	discard := s.cluster.Discard
	if known && content.Policy == policyRetain {
		discard = s.discardReleased
		var err error
		if content, err = s.release(ctx, content); err != nil {
			return s.spare(ctx, item, err)
		}
	}
	var l *leaving
	if known {
		l = s.expect(content.Name)
	}
	if err := discard(ctx, item.Snapshot); err != nil {
		s.forget(content.Name)
		return s.spare(ctx, item, errors.Join(err, s.withdraw(ctx, content)))
	}
	if !known {
		return s.awaitSnapshot(ctx, item)
	}
	return s.await(ctx, item, content, l)
}

// release makes the storage's snapshot go with the content, and says so.
func (s *sweeping) release(ctx context.Context, content catalog.Content) (catalog.Content, error) {
	s.warn(content.Namespace, content.Snapshot, fmt.Sprintf("content %s: deletionPolicy Retain -> Delete, so that the storage frees it", content.Name))
	for {
		changed, err := s.cluster.SetPolicy(ctx, content, policyDelete)
		if !errors.Is(err, catalog.ErrChanged) {
			return changed, err
		}
		now, err := s.cluster.Content(ctx, content.Name)
		switch {
		case err != nil:
			return content, err
		case now.Role != content.Role || now.Handle != content.Handle || now.SnapshotUID != content.SnapshotUID:
			return content, catalog.ErrChanged
		case now.Policy == policyDelete:
			return now, nil
		}
		content = now
	}
}

// discardReleased deletes a snapshot whose content was just made to go with it:
// the snapshot-controller then puts its finalizer on the snapshot, which is no
// change that anybody has to judge.
func (s *sweeping) discardReleased(ctx context.Context, shot catalog.Snapshot) error {
	err := s.cluster.Discard(ctx, shot)
	for range 3 {
		if !errors.Is(err, catalog.ErrChanged) {
			return err
		}
		now, found, lookErr := s.reread(ctx, shot)
		if lookErr != nil {
			return errors.Join(err, lookErr)
		}
		version := now.ResourceVersion
		if now.ResourceVersion = shot.ResourceVersion; !found || !reflect.DeepEqual(now, shot) {
			return err
		}
		shot.ResourceVersion = version
		err = s.cluster.Discard(ctx, shot)
	}
	return err
}

// reread is a snapshot as it is now.
func (s *sweeping) reread(ctx context.Context, shot catalog.Snapshot) (now catalog.Snapshot, found bool, err error) {
	scope := catalog.Scope{Namespaces: []string{shot.Namespace}}
	var all []catalog.Snapshot
	if shot.BackupNS {
		all, err = s.cluster.BackupNS(ctx, scope, cmp.Or(s.Zone, s.Local, time.UTC))
	} else {
		all, err = s.cluster.Snapshots(ctx, scope)
	}
	i := slices.IndexFunc(all, func(there catalog.Snapshot) bool { return there.UID == shot.UID })
	if err != nil || i < 0 {
		return now, false, err
	}
	return all[i], true, nil
}

// withdraw gives a content its policy back whose snapshot stays, also after ^C.
func (s *sweeping) withdraw(ctx context.Context, content catalog.Content) error {
	if !content.Lent {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	for {
		_, err := s.cluster.SetPolicy(ctx, content, policyRetain)
		if !errors.Is(err, catalog.ErrChanged) {
			return unlessGone(err)
		}
		if content, err = s.cluster.Content(ctx, content.Name); err != nil || !content.Lent {
			return unlessGone(err)
		}
	}
}

// expect begins to wait for a content. That is before its snapshot is deleted:
// it may be gone at once.
func (s *sweeping) expect(name string) *leaving {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &leaving{gone: make(chan struct{})}
	if s.broken != nil {
		close(l.gone)
		return l
	}
	s.waiting[name] = l
	return l
}

func (s *sweeping) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, name)
}

// hopeless reports whether a driver has let go of none of its last snapshots.
func (s *sweeping) hopeless(driver string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stuck[driver] >= max(s.Parallel, 1)
}

// await waits until the content is gone.
func (s *sweeping) await(ctx context.Context, item Item, content catalog.Content, l *leaving) Item {
	err := s.leaves(ctx, content, l)
	if err == nil {
		item.Outcome = Deleted
		return item
	}
	s.forget(content.Name)
	return s.remains(ctx, item, content, s.says(content.Driver, l, err), err)
}

// leaves waits until the content is gone. A snapshot-controller that has not
// yet seen that it is to go lets it stand: it is then told again.
func (s *sweeping) leaves(ctx context.Context, content catalog.Content, l *leaving) error {
	timer, nudge := time.NewTimer(s.Timeout), time.NewTicker(nudgeAfter)
	defer timer.Stop()
	defer nudge.Stop()
	for {
		select {
		case <-l.gone:
			return s.went(content.Driver)
		case <-nudge.C:
			if err := s.nudge(ctx, content); err != nil {
				return err
			}
		case <-timer.C:
			return errTimeout
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// nudgeAfter is how long a content that was retained may stand untouched.
const nudgeAfter = 5 * time.Second

// nudge deletes a content that was retained, and that nobody has deleted with
// its snapshot.
func (s *sweeping) nudge(ctx context.Context, content catalog.Content) error {
	if !content.Lent {
		return nil
	}
	now, err := s.cluster.Content(ctx, content.Name)
	if err != nil || now.Terminating || !now.Lent {
		return unlessGone(err)
	}
	return s.cluster.DiscardContent(ctx, now)
}

// went notes that a content of the driver is gone; the error is that nobody
// has seen it.
func (s *sweeping) went(driver string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		s.stuck[driver] = 0
	}
	return s.broken
}

// says are the storage's last words about a content that does not go.
func (s *sweeping) says(driver string, l *leaving, err error) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, errTimeout) {
		s.stuck[driver]++
	}
	return l.says
}

// heard is the last that the cluster has warned of a snapshot or its content;
// "" for nothing, or nothing that may be read. csi-snapshotter tells that a
// driver refuses to delete there alone, and keeps the driver's words for its
// log.
func (s *sweeping) heard(ctx context.Context, shot catalog.Snapshot) string {
	notices, _ := s.cluster.Notices(ctx, []catalog.Snapshot{shot})
	for _, n := range slices.Backward(notices[shot.UID]) {
		if n.Type == "Warning" {
			return n.Reason + ": " + n.Message
		}
	}
	return ""
}

// remains is an item whose content does not go.
func (s *sweeping) remains(ctx context.Context, item Item, content catalog.Content, says string, err error) Item {
	shot := item.Snapshot
	item.Outcome = Stuck
	message := fmt.Sprintf("%s/%s deleted, and its content %s is not gone", shot.Namespace, shot.Name, content.Name)
	code, next := catalog.CodeStuck, "kubectl describe volumesnapshotcontent "+content.Name
	switch {
	case ctx.Err() != nil:
		code = cmp.Or(catalog.CodeOf(err), catalog.CodeInterrupted)
	case errors.Is(err, errTimeout):
		message += fmt.Sprintf(" after %s", s.Timeout)
		err = errors.New(cmp.Or(says, s.heard(ctx, shot), "neither snapshot-controller nor driver says why"))
	}
	item.Err = &catalog.Failure{
		Code: code, Message: message, Cause: err,
		State: "it is no restore point any more; the storage goes on with it, or frees it when it can", Next: next,
	}
	s.tell(catalog.Event{State: catalog.Failed, Namespace: shot.Namespace, Name: shot.Name, Message: fmt.Sprintf("%s: %v", shot.Name, item.Err)})
	return item
}

// awaitSnapshot waits until a snapshot is gone of whose content nothing is
// known.
func (s *sweeping) awaitSnapshot(ctx context.Context, item Item) Item {
	waiting, cancel := context.WithTimeoutCause(ctx, s.Timeout, errTimeout)
	defer cancel()
	err := s.cluster.Await(waiting, item.Snapshot.Namespace, func(all []catalog.Snapshot) (bool, error) {
		return !slices.ContainsFunc(all, func(there catalog.Snapshot) bool { return there.UID == item.Snapshot.UID }), nil
	})
	if err == nil {
		item.Outcome = Deleted
		return item
	}
	return s.remains(ctx, item, catalog.Content{Name: item.Snapshot.Content}, "", err)
}
