package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

const (
	mine   = catalog.Run("20261122-011500-x7k2")
	theirs = catalog.Run("20261122-010000-abcd")
)

var leaseKind = schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leases"}

// server keeps leases as an API server does: with resourceVersions, which
// client-go's fake ignores.
type server struct {
	*fake.Clientset
	mu      sync.Mutex
	version int
	refused map[string]error // what a verb answers, whatever is asked
}

func newServer() *server {
	s := &server{Clientset: fake.NewClientset(), refused: map[string]error{}}
	s.PrependReactor("create", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		l := a.(clienttesting.CreateAction).GetObject().(*coordinationv1.Lease)
		l.UID = types.UID("uid-" + s.next(l))
		return false, nil, nil
	})
	s.PrependReactor("update", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		l := a.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
		there, err := s.named(a.GetNamespace(), l.Name)
		if err == nil && l.ResourceVersion != there.ResourceVersion {
			err = apierrors.NewConflict(leaseKind, l.Name, errors.New("the object has been modified"))
		}
		s.next(l)
		return err != nil, nil, err
	})
	s.PrependReactor("delete", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		there, err := s.named(a.GetNamespace(), a.(clienttesting.DeleteAction).GetName())
		if err != nil {
			return true, nil, err
		}
		want := a.(clienttesting.DeleteActionImpl).DeleteOptions.Preconditions
		if want == nil || *want.UID != there.UID || *want.ResourceVersion != there.ResourceVersion {
			return true, nil, apierrors.NewConflict(leaseKind, there.Name, errors.New("precondition failed"))
		}
		return false, nil, nil
	})
	s.PrependReactor("*", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		err := s.refused[a.GetVerb()]
		return err != nil, nil, err
	})
	return s
}

// refuse makes all calls of verb fail from now on.
func (s *server) refuse(verb string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[verb] = err
}

// next gives l a new resourceVersion.
func (s *server) next(l *coordinationv1.Lease) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	l.ResourceVersion = strconv.Itoa(s.version)
	return l.ResourceVersion
}

func (s *server) lease(namespace string) (*coordinationv1.Lease, error) {
	return s.named(namespace, catalog.LeaseName)
}

func (s *server) named(namespace, name string) (*coordinationv1.Lease, error) {
	o, err := s.Tracker().Get(coordinationv1.SchemeGroupVersion.WithResource("leases"), namespace, name)
	if err != nil {
		return nil, err
	}
	return o.(*coordinationv1.Lease), nil
}

// take makes another run the holder of shop's lease.
func (s *server) take(t *testing.T, run catalog.Run) {
	t.Helper()
	l, err := s.lease("shop")
	if err != nil {
		t.Error(err)
		return
	}
	other := string(run)
	l.Spec.HolderIdentity = &other
	s.next(l)
	if err := s.Tracker().Update(coordinationv1.SchemeGroupVersion.WithResource("leases"), l, "shop"); err != nil {
		t.Error(err)
	}
}

// held is who holds the lease of namespace, "" for nobody.
func (s *server) held(namespace string) string {
	l, err := s.lease(namespace)
	if err != nil {
		return ""
	}
	return holderOf(l)
}

// verbs are the calls made so far.
func (s *server) verbs() (verbs []string) {
	for _, a := range s.Actions() {
		verbs = append(verbs, a.GetVerb())
	}
	return verbs
}

// takes makes run the holder of shop's lease, alive until the function that it
// returns is called: as a process that is killed, it then says nothing more.
func (s *server) takes(t *testing.T, run catalog.Run) (release func() error, kill func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	h := &leases{run: run, name: catalog.LeaseName, holder: "pid 1 on there", duration: defaultDuration}
	l, err := h.acquire(ctx, s.CoordinationV1().Leases("shop"), "shop", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h.held = []*lease{l}
	h.wg.Go(func() { _ = h.renew(ctx, l) }) // lost: no matter here
	return func() error { cancel(); h.wg.Wait(); return h.release(context.WithoutCancel(ctx)) }, cancel
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s: -want +got\n%s", what, diff.Diff(want, got))
	}
}

func TestFreeNamespacesCostOneRequestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		began := time.Now()
		ctx, release, err := Namespaces(t.Context(), s, []string{"shop", "crm", "shop"}, mine, Options{})
		if err != nil {
			t.Fatal(err)
		}
		run, seconds, at, transitions := string(mine), int32(15), metav1.NewMicroTime(began), int32(0)
		notes := catalog.HandsOff()
		notes["backsnap.sh/holder"] = holder()
		got, err := s.lease("shop")
		if err != nil {
			t.Fatal(err)
		}
		got.TypeMeta, got.ManagedFields = metav1.TypeMeta{}, nil // the fake's own
		equal(t, "lease", &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "backsnap", UID: "uid-2", ResourceVersion: "2",
				Labels:      map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": run},
				Annotations: notes,
			},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity: &run, LeaseDurationSeconds: &seconds, AcquireTime: &at, RenewTime: &at, LeaseTransitions: &transitions,
			},
		}, got)
		equal(t, "error while held", nil, ctx.Err())
		if err := errors.Join(release(), release()); err != nil {
			t.Fatal(err)
		}
		equal(t, "requests", []string{"create", "create", "delete", "delete"}, s.verbs())
		equal(t, "left", "", s.held("shop")+s.held("crm"))
	})
}

// The lease outlives the end of the context, for there is still to be cleaned
// up, and is renewed every third of its duration until it is released.
func TestRenewalUntilRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		parent, interrupt := context.WithCancel(t.Context())
		_, release, err := Namespaces(parent, s, []string{"shop"}, mine, Options{Duration: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		interrupt()
		time.Sleep(35 * time.Second)
		equal(t, "holder", string(mine), s.held("shop"))
		if err := release(); err != nil {
			t.Fatal(err)
		}
		equal(t, "requests", []string{"create", "update", "update", "update", "delete"}, s.verbs())
		time.Sleep(time.Hour)
		equal(t, "requests", 5, len(s.verbs()))
	})
}

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		began := time.Now()
		release, _ := s.takes(t, theirs)
		time.Sleep(time.Minute)
		asked := time.Now()
		_, _, err := Namespaces(t.Context(), s, []string{"crm", "shop"}, mine, Options{})
		equal(t, "failure", error(&catalog.Failure{
			Code:    catalog.CodeBusy,
			Message: "namespace shop is taken by run 20261122-010000-abcd (pid 1 on there) since " + began.UTC().Format(time.RFC3339),
			State:   "nothing changed",
			Next:    "wait until that run has ended, or let this one wait: --lock-timeout=10m",
		}), err)
		equal(t, "time waited", time.Duration(0), time.Since(asked))
		equal(t, "lease of the other namespace", "", s.held("crm"))
		if err := release(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWaitForALiveHolder(t *testing.T) {
	t.Run("until it lets go", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			release, _ := s.takes(t, theirs)
			// Not at the moment of a renewal: the fake's watches forget.
			time.AfterFunc(62*time.Second, func() { _ = release() })
			began := time.Now()
			_, mineBack, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{Timeout: 2 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "time waited", 62*time.Second, time.Since(began))
			equal(t, "holder", string(mine), s.held("shop"))
			if err := mineBack(); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("until the time is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			release, _ := s.takes(t, theirs)
			began := time.Now()
			_, _, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{Timeout: 2 * time.Minute})
			equal(t, "code", catalog.CodeBusy, catalog.CodeOf(err))
			equal(t, "time waited", 2*time.Minute, time.Since(began))
			if err := release(); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("until ^C", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			release, _ := s.takes(t, theirs)
			interrupted := errors.New("interrupted")
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(interrupted) })
			_, _, err := Namespaces(ctx, s, []string{"shop"}, mine, Options{Timeout: 2 * time.Minute})
			if !errors.Is(err, interrupted) {
				t.Errorf("error %v, want %v", err, interrupted)
			}
			if err := release(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// A version that the server no longer knows, and a watch that it ends, make one
// look again.
func TestWaitSurvivesTheEndOfItsWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		release, _ := s.takes(t, theirs)
		watches := 0
		s.PrependWatchReactor("leases", func(clienttesting.Action) (bool, watch.Interface, error) {
			switch watches++; watches {
			case 1:
				return true, nil, apierrors.NewResourceExpired("too old")
			case 2:
				ended := watch.NewRaceFreeFake()
				ended.Stop()
				return true, ended, nil
			}
			return false, nil, nil
		})
		time.AfterFunc(62*time.Second, func() { _ = release() })
		began := time.Now()
		_, mineBack, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{Timeout: 2 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "time waited", 62*time.Second, time.Since(began))
		if err := mineBack(); err != nil {
			t.Fatal(err)
		}
		equal(t, "first calls", []string{"create", "create", "get", "watch", "create", "get", "watch", "create", "get", "watch"}, s.verbs()[:10])
	})
}

// A dead holder's lease is taken over once it was seen unchanged for as long as
// it lasts, whatever the clock of its machine said and though nobody asked to
// wait.
func TestDeadHolder(t *testing.T) {
	for _, test := range []struct {
		name  string
		clock time.Duration // of the holder, against ours
		ago   time.Duration // it died
		lasts time.Duration // its lease
		// timeout is how long we would wait for a live one.
		timeout time.Duration
		wait    time.Duration
		want    catalog.Code
	}{
		{"died long ago", 0, time.Hour, 15 * time.Second, 0, 15 * time.Second, ""},
		{"its lease lasts longer than ours", 0, time.Hour, time.Minute, 0, time.Minute, ""},
		{"its clock was slow", -time.Hour, time.Hour, 15 * time.Second, 0, 15 * time.Second, ""},
		{"died a moment ago: it may be alive", 0, time.Second, 15 * time.Second, 0, 0, catalog.CodeBusy},
		{"its clock was fast: it may be alive", time.Hour, time.Minute, 15 * time.Second, 0, 0, catalog.CodeBusy},
		{"died a moment ago, and there is time to see that", time.Hour, time.Second, 15 * time.Second, time.Minute, 15 * time.Second, ""},
		{"died a moment ago, and there is not time enough", 0, time.Second, 15 * time.Second, 10 * time.Second, 10 * time.Second, catalog.CodeBusy},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				_, kill := s.takes(t, theirs)
				kill()
				synctest.Wait()
				shift(t, s, test.clock, test.lasts)
				time.Sleep(test.ago)
				began := time.Now()
				_, release, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{Timeout: test.timeout})
				equal(t, "code", test.want, catalog.CodeOf(err))
				equal(t, "time waited", test.wait, time.Since(began))
				if err != nil {
					return
				}
				l, err := s.lease("shop")
				if err != nil {
					t.Fatal(err)
				}
				equal(t, "holder", string(mine), holderOf(l))
				equal(t, "transitions", int32(1), *l.Spec.LeaseTransitions)
				if err := release(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// shift sets the lease's times as a machine has them whose clock is off by d,
// and for how long it lasts.
func shift(t *testing.T, s *server, d, lasts time.Duration) {
	t.Helper()
	l, err := s.lease("shop")
	if err != nil {
		t.Fatal(err)
	}
	at := metav1.NewMicroTime(l.Spec.RenewTime.Add(d))
	seconds := int32(lasts / time.Second)
	l.Spec.RenewTime, l.Spec.LeaseDurationSeconds = &at, &seconds
	if err := s.Tracker().Update(coordinationv1.SchemeGroupVersion.WithResource("leases"), l, "shop"); err != nil {
		t.Fatal(err)
	}
}

// A live holder whose clock is an hour slow seems dead, until it renews.
func TestSlowClockIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.PrependReactor("update", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
			l := a.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
			at := metav1.NewMicroTime(l.Spec.RenewTime.Add(-time.Hour))
			l.Spec.RenewTime = &at
			return false, nil, nil
		})
		release, _ := s.takes(t, theirs)
		time.Sleep(6 * time.Second) // renewed once, an hour ago as it says
		began := time.Now()
		_, _, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{})
		equal(t, "code", catalog.CodeBusy, catalog.CodeOf(err))
		equal(t, "time waited", 4*time.Second, time.Since(began)) // until it renewed again
		equal(t, "holder", string(theirs), s.held("shop"))
		if err := release(); err != nil {
			t.Fatal(err)
		}
	})
}

// Of two that find the same dead holder one gets the lease; the other finds it
// alive again.
func TestTwoTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, kill := s.takes(t, theirs)
		kill()
		time.Sleep(time.Hour)
		runs := []catalog.Run{mine, "20261122-011500-zzzz"}
		releases, errs := make([]func() error, 2), make([]error, 2)
		var wg sync.WaitGroup
		for i, run := range runs {
			wg.Go(func() {
				_, releases[i], errs[i] = Namespaces(t.Context(), s, []string{"shop"}, run, Options{})
			})
		}
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("errors %v and %v: want one", errs[0], errs[1])
		}
		for i := range runs {
			if errs[i] != nil {
				equal(t, "code", catalog.CodeBusy, catalog.CodeOf(errs[i]))
				continue
			}
			equal(t, "holder", string(runs[i]), s.held("shop"))
			if err := releases[i](); err != nil {
				t.Error(err)
			}
		}
	})
}

// The answer to the create was lost: the lease that is there is ours.
func TestOwnLeaseIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, kill := s.takes(t, mine)
		kill()
		_, release, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		equal(t, "left", "", s.held("shop"))
	})
}

// ^C while the server is at it: the lease is known, and given back.
func TestTakingIsNotInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	var methods []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		interrupt()
		methods = append(methods, r.Method)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, r.Body) // the client may have gone
	}))
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, release, err := Namespaces(ctx, client, []string{"shop"}, mine, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	equal(t, "requests", []string{"POST", "DELETE"}, methods)
}

func TestLost(t *testing.T) {
	for _, test := range []struct {
		name    string
		happens func(*testing.T, *server)
		message string
		after   time.Duration // since the last renewal
		left    string        // holder after release
	}{
		{
			"taken over", func(t *testing.T, s *server) { s.take(t, theirs) },
			"lease of namespace shop lost: run 20261122-010000-abcd holds it now", 5 * time.Second, string(theirs),
		},
		{
			"deleted", func(t *testing.T, s *server) {
				if err := s.Tracker().Delete(coordinationv1.SchemeGroupVersion.WithResource("leases"), "shop", "backsnap"); err != nil {
					t.Fatal(err)
				}
			},
			"lease of namespace shop lost: nobody holds it now", 5 * time.Second, "",
		},
		{
			"the API server is away: given up before others may take it", func(_ *testing.T, s *server) {
				s.refuse("update", errors.New("connection refused"))
			},
			"lease of namespace shop lost: it could not be renewed", 12 * time.Second, "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				ctx, release, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				test.happens(t, s)
				<-ctx.Done()
				equal(t, "lost after", test.after, time.Since(began))
				var f *catalog.Failure
				if !errors.As(context.Cause(ctx), &f) {
					t.Fatalf("cause %v, want a failure", context.Cause(ctx))
				}
				equal(t, "code", catalog.CodeBusy, f.Code)
				equal(t, "message", test.message, f.Message)
				if err := release(); err != nil {
					t.Error(err)
				}
				equal(t, "left", test.left, s.held("shop"))
			})
		})
	}
}

// An API server that is away keeps others from the lease as well: nothing is
// written until the lease is known to be ours still, and it is not for ever.
func TestDoubt(t *testing.T) {
	for _, test := range []struct {
		name   string
		away   time.Duration
		taken  bool // by another, as soon as the server is back
		doubts []string
		lost   time.Duration // 0: not
	}{
		{"it comes back before there is doubt", 10 * time.Second, false, nil, 0},
		{"it comes back later", 2*time.Minute - time.Second/2, false, []string{"12s true", "2m0s false"}, 0},
		{"it comes back later, and another was faster", 2*time.Minute - time.Second/2, true, []string{"12s true", "2m0s false"}, 2 * time.Minute},
		{"it stays away", time.Hour, false, []string{"12s true", "5m12s false"}, 5*time.Minute + 12*time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				began := time.Now()
				var doubts []string
				ctx, release, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{Doubt: func(in bool) {
					doubts = append(doubts, fmt.Sprint(time.Since(began), " ", in))
				}})
				if err != nil {
					t.Fatal(err)
				}
				s.refuse("update", errors.New("connection refused"))
				back := time.AfterFunc(test.away, func() {
					s.refuse("update", nil)
					if test.taken {
						s.take(t, theirs)
					}
				})
				defer back.Stop()
				lost := time.Duration(0)
				select {
				case <-ctx.Done():
					lost = time.Since(began)
				case <-time.After(20 * time.Minute):
				}
				synctest.Wait()
				equal(t, "lost after", test.lost, lost)
				if err := release(); err != nil {
					t.Error(err)
				}
				equal(t, "doubts", test.doubts, doubts)
			})
		})
	}
}

// A renewal whose answer was lost, and a person who writes an annotation on the
// lease, change its version: it is still ours.
func TestChangedButOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		ctx, release, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := s.lease("shop")
		if err != nil {
			t.Fatal(err)
		}
		s.next(l)
		if err := s.Tracker().Update(coordinationv1.SchemeGroupVersion.WithResource("leases"), l, "shop"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		equal(t, "error", nil, ctx.Err())
		if err := release(); err != nil {
			t.Fatal(err)
		}
		equal(t, "left", "", s.held("shop"))
	})
}

// What cannot be released is tried again, and an error in the end.
func TestReleaseFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, release, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{})
		if err != nil {
			t.Fatal(err)
		}
		refused := errors.New("connection refused")
		s.refuse("delete", refused)
		began := time.Now()
		if err := release(); !errors.Is(err, refused) {
			t.Errorf("error %v, want %v", err, refused)
		}
		equal(t, "tried for", defaultDuration, time.Since(began))
	})
}

func TestForbidden(t *testing.T) {
	s := newServer()
	denied := apierrors.NewForbidden(leaseKind, "", nil)
	denied.ErrStatus.Message = `leases.coordination.k8s.io is forbidden: User "jo" cannot create resource "leases"`
	s.refuse("create", denied)
	_, _, err := Namespaces(t.Context(), s, []string{"shop"}, mine, Options{})
	equal(t, "failure", error(&catalog.Failure{
		Code:    catalog.CodeForbidden,
		Message: "take the lease of shop: you may not create leases.coordination.k8s.io in shop",
		Cause:   denied,
		State:   "nothing changed",
		Next:    "ask for that right, and see whether you have it: kubectl auth can-i create leases.coordination.k8s.io -n shop",
	}), err)
}

// A run that is aborted has stopped when its lease is ours.
func TestOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		victim, released, err := Namespaces(t.Context(), s, []string{"shop"}, theirs, Options{})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, release, err := Namespaces(t.Context(), s, []string{"crm", "shop"}, mine, Options{Over: theirs})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "waited", defaultDuration, time.Since(began))
		equal(t, "what it was told", "lease of namespace shop lost: run "+string(mine)+" holds it now", context.Cause(victim).Error())
		equal(t, "holder of shop", string(mine), s.held("shop"))
		if err := errors.Join(released(), release()); err != nil {
			t.Error(err)
		}
		equal(t, "left", "", s.held("shop")+s.held("crm"))
	})
}

// Another run's namespace is as busy as ever.
func TestOverIsForOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		_, release, err := Namespaces(t.Context(), s, []string{"shop"}, theirs, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Namespaces(t.Context(), s, []string{"shop"}, mine, Options{Over: "20261101-011500-zzzz"})
		equal(t, "code", catalog.CodeBusy, catalog.CodeOf(err))
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}

// A Lease of another name holds one thing in a namespace, and not all of it.
func TestNamedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		o := Options{Name: "backsnap-repository-main"}
		ctx, stop := context.WithCancel(t.Context())
		_, release, err := Namespaces(ctx, s, []string{"backsnap"}, theirs, o)
		if err != nil {
			t.Fatal(err)
		}
		_, done, err := Namespaces(t.Context(), s, []string{"backsnap"}, mine, Options{})
		if err != nil {
			t.Fatalf("the namespace is free: %v", err)
		}
		equal(t, "holder of the namespace", string(mine), s.held("backsnap"))
		if err := done(); err != nil {
			t.Error(err)
		}
		// It is renewed for longer than a dead one would be waited for.
		time.Sleep(3 * defaultDuration)
		_, _, err = Namespaces(t.Context(), s, []string{"backsnap"}, mine, o)
		if catalog.CodeOf(err) != catalog.CodeBusy || !strings.HasPrefix(err.Error(), "lease backsnap-repository-main in backsnap is taken by run "+string(theirs)) {
			t.Errorf("taken by another: %v", err)
		}
		stop()
		if err := release(); err != nil {
			t.Error(err)
		}
	})
}
