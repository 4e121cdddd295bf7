package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// linger is how long a watch outlives the last that waits on it: a run waits
// for the cut, then for ready, and the second wait should not begin anew.
const linger = 10 * time.Second

// Await shares one watch a namespace, "" being all of them, among all that wait there. Snapshots that
// this Cluster has created or labelled are seen at once as the server answered
// them, also where the watch is behind. The watch survives its own expiry and
// an API server that is away; a missing right ends the wait.
//
// done gets a slice of its own, sorted by namespace and name; maps and records in it are
// shared and must not be written to.
func (c *Cluster) Await(ctx context.Context, namespace string, done func([]catalog.Snapshot) (bool, error)) error {
	b := c.board(namespace)
	b.enter(ctx)
	defer b.leave()
	for {
		snapshots, changed, err := b.look()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return explain(err, "watch snapshots in "+cmp.Or(namespace, everywhere), snapshotRight("list", cmp.Or(namespace, everywhere)))
		}
		if snapshots != nil {
			if ok, err := done(snapshots); ok || err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// board is what is known of the snapshots of one namespace, kept up to date by
// a watch as long as somebody waits.
type board struct {
	list *cache.ListWatch
	// semantics is the client, which says whether it can stream lists: fakes cannot.
	semantics any

	mu      sync.Mutex
	waiting int
	stop    context.CancelFunc // of the watch; nil without one
	retire  *time.Timer        // ends the watch; nil while somebody waits
	synced  bool               // the watch has begun with all that there is
	err     error              // why there is no watch any more
	version string             // resourceVersion up to which the watch has told
	seen    map[string]catalog.Snapshot
	own     map[string]catalog.Snapshot // written by us later than version
	changed chan struct{}               // closed and replaced at each change
}

// board is the one of namespace.
func (c *Cluster) board(namespace string) *board {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.boards[namespace]; b != nil {
		return b
	}
	door := c.snapshots.SnapshotV1().VolumeSnapshots(namespace)
	b := &board{
		semantics: c.snapshots,
		list: &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
				options.LabelSelector = ours
				return door.List(ctx, options)
			},
			WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				options.LabelSelector = ours
				return door.Watch(ctx, options)
			},
		},
		seen:    map[string]catalog.Snapshot{},
		own:     map[string]catalog.Snapshot{},
		changed: make(chan struct{}),
	}
	c.boards[namespace] = b
	return b
}

// enter makes sure that a watch runs. It belongs to all that wait, so it
// outlives ctx.
func (b *board) enter(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting++
	if b.retire != nil {
		b.retire.Stop()
		b.retire = nil
	}
	if b.stop == nil {
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		b.stop, b.synced, b.err = stop, false, nil
		go b.follow(ctx)
	}
}

func (b *board) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting--; b.waiting == 0 {
		b.retire = time.AfterFunc(linger, b.end)
	}
}

// end stops the watch, unless somebody waits again.
func (b *board) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == 0 && b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

// follow keeps the board up to date until ctx is done or the server refuses.
func (b *board) follow(ctx context.Context) {
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(b.list, b.semantics),
		&snapshotv1.VolumeSnapshot{}, &boardStore{board: b, ctx: ctx}, cache.ReflectorOptions{Name: "snapshots"})
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, maxPause) {
		began := time.Now()
		err := reflector.ListAndWatchWithContext(ctx)
		if err != nil && refused(err) {
			b.fail(ctx, err)
			return
		}
		if time.Since(began) > time.Minute {
			pause = firstPause
		}
		_ = sleep(ctx, pause) // its error is ctx's, and the loop ends
	}
}

// refused reports whether asking again would get the same answer.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err) ||
		apierrors.IsMethodNotSupported(err) || apierrors.IsBadRequest(err) || apierrors.IsInvalid(err)
}

// fail ends the watch with err for all that wait.
func (b *board) fail(ctx context.Context, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() == nil {
		b.stop()
		b.stop, b.err = nil, err
		b.tell()
	}
}

// look is what is known now, nil before the watch has begun, and what will be
// closed when that changes.
func (b *board) look() ([]catalog.Snapshot, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || !b.synced {
		return nil, b.changed, b.err
	}
	all := maps.Clone(b.seen)
	for name, s := range b.own {
		if newer(s.ResourceVersion, all[name].ResourceVersion) {
			all[name] = s
		}
	}
	snapshots := make([]catalog.Snapshot, 0, len(all))
	snapshots = slices.AppendSeq(snapshots, maps.Values(all))
	sortSnapshots(snapshots)
	return snapshots, b.changed, nil
}

// key names s on a board, which may be that of all namespaces.
func key(s catalog.Snapshot) string { return s.Namespace + "/" + s.Name }

// tell wakes all that wait. The caller holds the lock.
func (b *board) tell() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// put is an answer to a write of ours, which a watch may not have seen yet.
func (b *board) put(v *snapshotv1.VolumeSnapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := fromObject(v)
	if newer(s.ResourceVersion, b.version) {
		b.own[key(s)] = s
		b.tell()
	}
}

// reached notes that the watch has told all up to version. The caller holds
// the lock.
func (b *board) reached(version string) {
	if newer(version, b.version) {
		b.version = version
	}
	maps.DeleteFunc(b.own, func(_ string, s catalog.Snapshot) bool { return !newer(s.ResourceVersion, b.version) })
}

// newer compares two resourceVersions. They are decimal numbers that grow
// (KEP-5504); "" is older than any.
func newer(a, b string) bool {
	if b == "" {
		return a != ""
	}
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order > 0
}

// boardStore is what the reflector writes to. It writes nothing once its watch
// was stopped: another may have begun.
type boardStore struct {
	board *board
	ctx   context.Context
}

var errStopped = errors.New("watch stopped")

// change runs do on the board, and wakes all that wait.
func (b *boardStore) change(do func(*board)) error {
	b.board.mu.Lock()
	defer b.board.mu.Unlock()
	if b.ctx.Err() != nil {
		return errStopped
	}
	do(b.board)
	b.board.tell()
	return nil
}

func (b *boardStore) Add(object any) error {
	v, ok := object.(*snapshotv1.VolumeSnapshot)
	if !ok {
		return fmt.Errorf("watch sent a %T", object)
	}
	s := fromObject(v)
	return b.change(func(board *board) { board.seen[key(s)] = s })
}

func (b *boardStore) Update(object any) error { return b.Add(object) }

func (b *boardStore) Delete(object any) error {
	v, ok := object.(*snapshotv1.VolumeSnapshot)
	if !ok {
		return fmt.Errorf("watch sent a %T", object)
	}
	return b.change(func(board *board) { delete(board.seen, v.Namespace+"/"+v.Name) })
}

// Replace is the state as of version. One that is older than what was told
// already, as an API server may have that lags behind, is refused: what is
// missing from it would seem to be deleted.
func (b *boardStore) Replace(objects []any, version string) error {
	seen := map[string]catalog.Snapshot{}
	for _, object := range objects {
		v, ok := object.(*snapshotv1.VolumeSnapshot)
		if !ok {
			return fmt.Errorf("list sent a %T", object)
		}
		s := fromObject(v)
		seen[key(s)] = s
	}
	behind := false
	err := b.change(func(board *board) {
		if behind = newer(board.version, version); !behind {
			board.seen, board.synced = seen, true
			board.reached(version)
		}
	})
	if behind {
		return fmt.Errorf("list is as of %s, which is in the past", version)
	}
	return err
}

// UpdateResourceVersion is called after each event.
func (b *boardStore) UpdateResourceVersion(version string) {
	_ = b.change(func(board *board) { board.reached(version) }) // stopped: no matter any more
}

func (b *boardStore) Resync() error { return nil }
