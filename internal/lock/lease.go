package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Options say how long to wait. The zero value waits for no live holder.
type Options struct {
	// Timeout is how long to wait in all until live holders let go. One that
	// seems to be dead is watched for its lease's duration whatever Timeout is.
	Timeout time.Duration
	// Duration is for how long a lease holds without being renewed, in whole
	// seconds; 0 is 15 s. It is renewed every third of it.
	Duration time.Duration
	// Over is a run whose leases are taken though it may live; "" for none.
	// It stops when it sees that, and not before that is sure to have happened
	// does Namespaces return.
	Over catalog.Run
	// Name is that of the Leases; "" is catalog.LeaseName. Another one keeps apart
	// those who work on one thing in the namespace, and nobody else.
	Name string
	// Doubt is called with true when nothing may be written any more, because a
	// lease could not be renewed and others may take it soon, and with false
	// when it was renewed after all: an API server that is away keeps the
	// others from it too. nil: such a lease is lost at once.
	Doubt func(bool)
}

// maxDoubt is how long a lease may be in doubt before it counts as lost.
const maxDoubt = 5 * time.Minute

const (
	defaultDuration = 15 * time.Second
	answerTimeout   = 10 * time.Second
	watchPause      = time.Second // before a watch that broke is tried again
)

// Namespaces takes the Lease of each of the namespaces for run, one after the
// other by name, and renews them until release is called. A free one costs one
// request. One with a live holder is a catalog.Failure of CodeBusy that names
// it, once o.Timeout is over. A holder is dead when its lease was seen not to
// change for as long as it lasts, measured by our own clock: no two machines'
// clocks are ever compared to decide that.
//
// The context returned is cancelled, with the reason as its cause, when a
// lease is lost: then nothing more may be written. Nor may it while o.Doubt says so. The end of ctx does not end
// the leases, for there is still to be cleaned up: release does, and it is
// safe to call more than once. Its error is that a lease stays behind, which
// the next run takes over when it has expired.
func Namespaces(ctx context.Context, client kubernetes.Interface, namespaces []string, run catalog.Run, o Options) (context.Context, func() error, error) {
	if o.Duration == 0 {
		o.Duration = defaultDuration
	}
	h := &leases{run: run, over: o.Over, name: cmp.Or(o.Name, catalog.LeaseName), holder: holder(), duration: o.Duration, doubt: o.Doubt}
	ctx, lose := context.WithCancelCause(ctx)
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	release := sync.OnceValue(func() error {
		defer lose(nil)
		stop()
		h.wg.Wait()
		return h.release(ctx)
	})
	deadline := time.Now().Add(o.Timeout)
	for _, namespace := range slices.Compact(slices.Sorted(slices.Values(namespaces))) {
		l, err := h.acquire(ctx, client.CoordinationV1().Leases(namespace), namespace, deadline)
		if err != nil {
			if left := release(); left != nil {
				err = errors.Join(err, left)
			}
			return nil, nil, err
		}
		h.held = append(h.held, l)
		h.wg.Go(func() {
			if err := h.renew(alive, l); err != nil {
				lose(err)
			}
			h.settle(l) // who waits to write sees first that it is lost
		})
	}
	if h.notice > 0 { // else ^C would be noticed here by chance
		if err := pause(ctx, h.notice); err != nil {
			return nil, nil, errors.Join(err, release())
		}
	}
	return ctx, release, nil
}

// what is what a Lease in namespace stands for.
func (h *leases) what(namespace string) string {
	if h.name == catalog.LeaseName {
		return "namespace " + namespace
	}
	return fmt.Sprintf("lease %s in %s", h.name, namespace)
}

// leases are those that one run holds.
type leases struct {
	run      catalog.Run
	over     catalog.Run // whose leases are free to us
	name     string      // of the Leases
	holder   string
	duration time.Duration
	// notice is how long over may go on before it knows that a lease of its is
	// ours.
	notice time.Duration

	held []*lease
	wg   sync.WaitGroup // the renewals

	doubt    func(bool)
	mu       sync.Mutex
	doubtful int // leases in doubt
}

// lease is one that is held.
type lease struct {
	door      coordinationclient.LeaseInterface
	namespace string
	object    *coordinationv1.Lease // as last written
	written   time.Time             // when that write was sent
	doubted   time.Time             // since when it is in doubt; zero while it is not
}

// acquire waits until the lease of namespace is ours.
func (h *leases) acquire(ctx context.Context, door coordinationclient.LeaseInterface, namespace string, deadline time.Time) (*lease, error) {
	view := view{fallback: h.duration}
	for {
		l, there, err := h.create(ctx, door, namespace)
		for err == nil && there != nil {
			view.note(there)
			ended := h.over != "" && view.holder == string(h.over)
			if ended || view.free(h.run) {
				l, err = h.takeOver(ctx, door, namespace, there)
				if ended && l != nil {
					h.notice = max(h.notice, view.duration)
				}
				break // ours, or it has changed meanwhile
			}
			until := view.patience(deadline)
			if !time.Now().Before(until) {
				return nil, busy(h.what(namespace), view.holder, there.Annotations[catalog.AnnotationHolder], since(there))
			}
			there, err = next(ctx, door, there, until)
			err = explain(err, "wait for the lease of "+namespace, "watch", namespace)
		}
		if ctx.Err() != nil && err != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil || l != nil {
			return l, err
		}
	}
}

// write sends a write whose answer is waited for whatever happens to ctx: a
// lease that was taken must be known, to be given back.
func write(ctx context.Context, send func(context.Context) (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	return send(ctx)
}

// create makes the lease; else there is the one that exists.
func (h *leases) create(ctx context.Context, door coordinationclient.LeaseInterface, namespace string) (l *lease, there *coordinationv1.Lease, err error) {
	for {
		sent := time.Now()
		object, err := write(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
			return door.Create(ctx, h.claim(&coordinationv1.Lease{}, sent), metav1.CreateOptions{})
		})
		if err == nil {
			return &lease{door: door, namespace: namespace, object: object, written: sent}, nil, nil
		}
		if apierrors.IsNotFound(err) { // who may not look at namespaces has not seen that before
			return nil, nil, &catalog.Failure{
				Code: catalog.CodeNotFound, Message: "take the lease of " + namespace + ": the namespace does not exist", Cause: err,
				State: "nothing changed", Next: "kubectl create namespace " + namespace + "; or have the right to get namespaces, without which it is not seen to be gone",
			}
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, nil, explain(err, "take the lease of "+namespace, "create", namespace)
		}
		there, err := door.Get(ctx, h.name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return nil, there, explain(err, "read the lease of "+namespace, "get", namespace)
		}
	}
}

// takeOver writes us into a lease that is free; nil if it has changed since.
func (h *leases) takeOver(ctx context.Context, door coordinationclient.LeaseInterface, namespace string, there *coordinationv1.Lease) (*lease, error) {
	sent := time.Now()
	object, err := write(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
		return door.Update(ctx, h.claim(there.DeepCopy(), sent), metav1.UpdateOptions{})
	})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err, "take over the lease of "+namespace, "update", namespace)
	}
	return &lease{door: door, namespace: namespace, object: object, written: sent}, nil
}

// claim writes us into l as its holder from now on.
func (h *leases) claim(l *coordinationv1.Lease, now time.Time) *coordinationv1.Lease {
	l.Name = h.name
	l.Labels = catalog.Ours("", h.run)
	l.Annotations = catalog.HandsOff()
	l.Annotations[catalog.AnnotationHolder] = h.holder
	transitions := int32(0)
	if l.Spec.LeaseTransitions != nil {
		transitions = *l.Spec.LeaseTransitions + 1
	}
	run, seconds, at := string(h.run), int32(h.duration/time.Second), metav1.NewMicroTime(now)
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity:       &run,
		LeaseDurationSeconds: &seconds,
		AcquireTime:          &at,
		RenewTime:            &at,
		LeaseTransitions:     &transitions,
	}
	return l
}

// next waits for a change of the lease: the changed one, nil if it is gone,
// there itself when until has come or the watch has to begin anew.
func next(ctx context.Context, door coordinationclient.LeaseInterface, there *coordinationv1.Lease, until time.Time) (*coordinationv1.Lease, error) {
	w, err := door.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector(metav1.ObjectNameField, there.Name).String(),
		ResourceVersion: there.ResourceVersion,
	})
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return nil, nil // look again
	}
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			return there, nil
		case event, open := <-w.ResultChan():
			if !open || event.Type == watch.Error {
				return nil, pause(ctx, watchPause) // look again
			}
			changed, isLease := event.Object.(*coordinationv1.Lease)
			switch {
			case !isLease || changed.Name != there.Name:
			case event.Type == watch.Deleted:
				return nil, nil
			case changed.ResourceVersion != there.ResourceVersion:
				return changed, nil
			}
		}
	}
}

// renew renews l until ctx is done or l is lost, which is the error. A lease
// that could not be renewed is in doubt a fifth of its duration before others
// may take it.
func (h *leases) renew(ctx context.Context, l *lease) error {
	wait := h.duration / 3
	for {
		if pause(ctx, wait) != nil {
			return nil // released
		}
		end := l.written.Add(h.duration - h.duration/5)
		if !l.doubted.IsZero() {
			end = time.Now().Add(answerTimeout)
		}
		attempt, cancel := context.WithDeadline(ctx, end)
		err := h.refresh(attempt, l)
		cancel()
		switch {
		case err == nil:
			h.settle(l)
			wait = h.duration / 3
			continue
		case catalog.CodeOf(err) == catalog.CodeBusy:
			return err
		case l.doubted.IsZero() && !time.Now().Before(end) && h.doubt != nil:
			h.suspect(l)
		case l.doubted.IsZero() && !time.Now().Before(end), !l.doubted.IsZero() && time.Since(l.doubted) >= maxDoubt:
			return &catalog.Failure{
				Code:    catalog.CodeBusy,
				Message: "lease of namespace " + l.namespace + " lost: it could not be renewed",
				Cause:   err,
				Next:    "see that the API server answers, and run again",
			}
		}
		wait = h.duration / 15
		if l.doubted.IsZero() {
			wait = min(wait, time.Until(end))
		}
	}
}

// suspect puts l in doubt.
func (h *leases) suspect(l *lease) {
	l.doubted = time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doubtful++; h.doubtful == 1 {
		h.doubt(true)
	}
}

// settle ends the doubt about l, if there is any.
func (h *leases) settle(l *lease) {
	if l.doubted.IsZero() {
		return
	}
	l.doubted = time.Time{}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doubtful--; h.doubtful == 0 {
		h.doubt(false)
	}
}

// refresh writes a new renewTime. That another has the lease is a
// catalog.Failure of CodeBusy.
func (h *leases) refresh(ctx context.Context, l *lease) error {
	object, sent := l.object.DeepCopy(), time.Now()
	at := metav1.NewMicroTime(sent)
	object.Spec.RenewTime = &at
	object, err := l.door.Update(ctx, object, metav1.UpdateOptions{})
	if err == nil {
		l.object, l.written = object, sent
		return nil
	}
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return err
	}
	// Somebody has changed it: perhaps we, and the answer was lost.
	there, err := l.door.Get(ctx, h.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return lost(l.namespace, "nobody")
	}
	if err != nil {
		return err
	}
	if name := holderOf(there); name != string(h.run) {
		return lost(l.namespace, "run "+name)
	}
	l.object = there
	return errors.New("the lease was changed by another") // and is ours: once more
}

func lost(namespace, to string) error {
	return &catalog.Failure{
		Code:    catalog.CodeBusy,
		Message: fmt.Sprintf("lease of namespace %s lost: %s holds it now", namespace, to),
		Next:    "run again when the other has ended",
	}
}

// release gives all leases back, also when ctx is done. It tries for as long as
// one lasts that nobody renews: after that it is free by itself.
func (h *leases) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.duration)
	defer cancel()
	failed := make([]error, len(h.held))
	var wg sync.WaitGroup
	for i, l := range h.held {
		wg.Go(func() { failed[i] = h.remove(ctx, l) })
	}
	wg.Wait()
	return errors.Join(failed...)
}

// remove deletes l unless another has it, trying until ctx is done.
func (h *leases) remove(ctx context.Context, l *lease) error {
	for {
		uid, version := l.object.UID, l.object.ResourceVersion
		err := l.door.Delete(ctx, h.name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		})
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		// The last renewal may have been written though its answer was lost.
		if there, e := l.door.Get(ctx, h.name, metav1.GetOptions{}); e == nil {
			if holderOf(there) != string(h.run) {
				return nil
			}
			l.object = there
		}
		if pause(ctx, h.duration/30) != nil {
			return explain(err, "release the lease of "+l.namespace, "delete", l.namespace)
		}
	}
}

// pause waits for d; the error is ctx's cause.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// explain is err as what a person sees of an operation on the Lease of namespace.
func explain(err error, doing, verb, namespace string) error {
	if err == nil {
		return nil
	}
	// Other reasons than a missing right are Forbidden too, such as a
	// namespace that is being removed.
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), " cannot ") {
		return fmt.Errorf("%s: %w", doing, err)
	}
	right := catalog.Right{Verb: verb, Group: coordinationv1.GroupName, Resource: "leases", Namespace: namespace}
	return &catalog.Failure{
		Code:    catalog.CodeForbidden,
		Message: fmt.Sprintf("%s: you may not %s", doing, right),
		Cause:   err,
		State:   "nothing changed",
		Next: fmt.Sprintf("ask for that right, and see whether you have it: kubectl auth can-i %s %s.%s -n %s",
			right.Verb, right.Resource, right.Group, right.Namespace),
	}
}
