package kube

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// server answers lists and watches of snapshots as it is told to.
type server struct {
	fakes
	mu      sync.Mutex
	list    *snapshotv1.VolumeSnapshotList
	errs    []error // of the next lists, first
	lists   int
	watches []*watch.RaceFreeFakeWatcher
}

// newServer is for use in a bubble of synctest, which it leaves without a watch.
func newServer(t *testing.T, version string, items ...*snapshotv1.VolumeSnapshot) *server {
	s := &server{fakes: newFakes(nil, nil)}
	s.set(version, items...)
	t.Cleanup(func() { time.Sleep(2 * linger) })
	s.snapshots.PrependReactor("list", "volumesnapshots", func(clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lists++
		if len(s.errs) > 0 {
			err := s.errs[0]
			s.errs = s.errs[1:]
			return true, nil, err
		}
		return true, s.list.DeepCopy(), nil
	})
	s.snapshots.PrependWatchReactor("volumesnapshots", func(a clienttesting.Action) (bool, watch.Interface, error) {
		if labels := a.(clienttesting.WatchAction).GetWatchRestrictions().Labels.String(); labels != ours {
			t.Errorf("watch of %q, want %q", labels, ours)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		w := watch.NewRaceFreeFake()
		s.watches = append(s.watches, w)
		return true, w, nil
	})
	return s
}

func (s *server) set(version string, items ...*snapshotv1.VolumeSnapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = &snapshotv1.VolumeSnapshotList{ListMeta: metav1.ListMeta{ResourceVersion: version}}
	for _, item := range items {
		s.list.Items = append(s.list.Items, *item)
	}
}

// watching is the newest watch, once there is one.
func (s *server) watching() *watch.RaceFreeFakeWatcher {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watches[len(s.watches)-1]
}

func (s *server) counts() (lists, watches int) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists, len(s.watches)
}

// object is a snapshot of that name as of version.
func object(name, version string) *snapshotv1.VolumeSnapshot {
	v := there("uid-"+name, version)
	v.Name = name
	return v
}

// versions are the resourceVersions that done was called with.
type versions [][]string

func (v *versions) until(n int) func([]catalog.Snapshot) (bool, error) {
	return func(all []catalog.Snapshot) (bool, error) {
		var seen []string
		for _, s := range all {
			seen = append(seen, s.Name+"="+s.ResourceVersion)
		}
		if len(*v) == 0 || !slices.Equal((*v)[len(*v)-1], seen) {
			*v = append(*v, seen)
		}
		return len(*v) >= n, nil
	}
}

// background runs Await and gives its error when it has ended.
func (s *server) background(ctx context.Context, done func([]catalog.Snapshot) (bool, error)) <-chan error {
	result := make(chan error, 1)
	go func() { result <- s.Await(ctx, "shop", done) }()
	return result
}

func TestAwaitSeesWhatIsThereAndEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "5", object("b", "3"), object("a", "4"))
		var seen versions
		result := s.background(t.Context(), seen.until(4))
		w := s.watching()
		w.Add(object("c", "6"))
		synctest.Wait()
		w.Modify(object("a", "7"))
		synctest.Wait()
		w.Delete(object("b", "8"))
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		equal(t, "calls", versions{{"a=4", "b=3"}, {"a=4", "b=3", "c=6"}, {"a=7", "b=3", "c=6"}, {"a=7", "c=6"}}, seen)
	})
}

// Waits of one namespace share a watch, and one that follows within seconds
// finds it still there; later it has to begin anew.
func TestAwaitSharesItsWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "5", object("a", "4"))
		first, second := s.background(t.Context(), new(versions).until(2)), s.background(t.Context(), new(versions).until(2))
		s.watching().Modify(object("a", "6"))
		if err := errors.Join(<-first, <-second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(linger / 2)
		var seen versions
		if err := <-s.background(t.Context(), seen.until(1)); err != nil {
			t.Fatal(err)
		}
		equal(t, "call", versions{{"a=6"}}, seen)
		lists, watches := s.counts()
		equal(t, "lists and watches", []int{1, 1}, []int{lists, watches})

		time.Sleep(2 * linger)
		synctest.Wait()
		if !s.watching().IsStopped() {
			t.Error("the watch goes on though nobody waits")
		}
		s.set("6", object("a", "6"))
		if err := <-s.background(t.Context(), new(versions).until(1)); err != nil {
			t.Fatal(err)
		}
		lists, watches = s.counts()
		equal(t, "lists and watches", []int{2, 2}, []int{lists, watches})
	})
}

// What we wrote is there at once, also where the watch is behind, and yields
// to what the watch says later.
func TestAwaitReadsItsOwnWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "5")
		s.snapshots.PrependReactor("create", "volumesnapshots", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, object("a", "9"), nil
		})
		if _, err := s.Create(t.Context(), wanted()); err != nil {
			t.Fatal(err)
		}
		var seen versions
		result := s.background(t.Context(), seen.until(3))
		w := s.watching()
		w.Add(object("b", "6")) // older than ours
		synctest.Wait()
		w.Delete(object("a", "10"))
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		equal(t, "calls", versions{{"a=9"}, {"a=9", "b=6"}, {"b=6"}}, seen)
	})
}

// What we label is there at once too.
func TestAwaitReadsItsOwnLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "5", object("a", "4"))
		s.snapshots.PrependReactor("patch", "volumesnapshots", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, object("a", "9"), nil
		})
		var seen versions
		result := s.background(t.Context(), seen.until(2))
		s.watching() // and silent
		if _, err := s.Label(t.Context(), fromObject(object("a", "4"))); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		equal(t, "calls", versions{{"a=4"}, {"a=9"}}, seen)
	})
}

// An answer of ours that comes late changes nothing: the watch knew it all.
func TestBoardDropsLateAnswers(t *testing.T) {
	b := newFakes(nil, nil).board("shop")
	store := &boardStore{board: b, ctx: t.Context()}
	look := func() (seen []string) {
		all, _, err := b.look()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			seen = append(seen, s.Name+"="+s.ResourceVersion)
		}
		return seen
	}
	if err := store.Replace([]any{object("a", "5")}, "8"); err != nil {
		t.Fatal(err)
	}
	b.put(object("gone", "7")) // deleted since, says the watch
	b.put(object("a", "4"))
	equal(t, "after late answers", []string{"a=5"}, look())
	b.put(object("a", "10"))
	if err := store.Update(object("a", "12")); err != nil {
		t.Fatal(err)
	}
	equal(t, "after a newer event", []string{"a=12"}, look())
	if err := store.Delete(object("a", "13")); err != nil {
		t.Fatal(err)
	}
	store.UpdateResourceVersion("13")
	equal(t, "after its deletion", []string(nil), look())
}

// A watch that the server ends is begun anew, with a list where the old
// version is no longer known.
func TestAwaitSurvivesTheEndOfItsWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "5", object("a", "4"))
		var seen versions
		result := s.background(t.Context(), seen.until(3))
		w := s.watching()
		w.Modify(object("a", "6"))
		synctest.Wait()
		s.set("8", object("a", "7"))
		w.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		equal(t, "calls", versions{{"a=4"}, {"a=6"}, {"a=7"}}, seen)
	})
}

// An API server that is away is waited for, and one that lags behind is not
// believed: what it does not list yet was not deleted.
func TestAwaitSurvivesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, "5", object("a", "4"))
		var seen versions
		result := s.background(t.Context(), seen.until(2))
		w := s.watching()
		s.mu.Lock()
		s.errs = []error{syscall.ECONNREFUSED, syscall.ECONNRESET}
		s.mu.Unlock()
		s.set("3")
		w.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
		time.Sleep(10 * time.Second)
		s.set("8", object("a", "7"))
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		equal(t, "calls", versions{{"a=4"}, {"a=7"}}, seen)
	})
}

func TestAwaitEnds(t *testing.T) {
	stop := errors.New("stop")
	t.Run("when it may not look", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, "5")
			s.errs = []error{denied("list", snapshotGroup, "volumesnapshots")}
			err := <-s.background(t.Context(), new(versions).until(1))
			equal(t, "code", catalog.CodeForbidden, catalog.CodeOf(err))
			lists, _ := s.counts()
			equal(t, "lists", 1, lists)
		})
	})
	t.Run("with the context's cause", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, "5")
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, stop)
			defer cancel()
			equal(t, "error", stop, <-s.background(ctx, new(versions).until(2)))
		})
	})
	t.Run("with done's error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, "5")
			equal(t, "error", stop, <-s.background(t.Context(), func([]catalog.Snapshot) (bool, error) { return false, stop }))
		})
	})
}
