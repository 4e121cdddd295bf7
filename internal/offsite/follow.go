package offsite

import (
	"bufio"
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// tellAfter is how long a trouble lasts before it is told: a pod that waits for
// its volume is unschedulable for a second.
const tellAfter = 10 * time.Second

// patience is how long a trouble may last before the copy is given up: some
// never pass, some do when a node comes up or a registry answers again.
func patience(t restic.Trouble) time.Duration {
	switch kind(t) {
	case "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "PodSecurity":
		return 0
	case "image", "CreateContainerError", "RunContainerError":
		return time.Minute
	}
	return 5 * time.Minute
}

// kind is the reason, but for two that take turns with one another.
func kind(t restic.Trouble) string {
	if t.Reason == "ErrImagePull" || t.Reason == "ImagePullBackOff" {
		return "image"
	}
	return t.Reason
}

// troubled is the failure of a mover that could not work.
type troubled struct{ trouble restic.Trouble }

// Error is what the cluster says.
func (t *troubled) Error() string { return t.trouble.String() }

// code is the kind of failure that it is.
func (t *troubled) code() catalog.Code {
	if t.trouble.Reason == "PodSecurity" {
		return catalog.CodePodSecurity
	}
	return catalog.CodeMover
}

// follower watches one mover: it tells its troubles as they come, gives up on
// those that last, and reads the progress from the log.
type follower struct {
	cluster   Cluster
	namespace string
	name      string
	clone     string // "" for a mover without one
	tell      func(catalog.Event)

	giveUp  context.CancelCauseFunc
	reading sync.WaitGroup
	pod     string // the last one
	log     string // pod whose log is read
	trouble string // kind of the one that lasts, "" for none
	timers  []*time.Timer
}

// follow returns when the mover has ended. A trouble that lasts ends it with a
// *troubled; that ctx is done, with its cause.
func (f *follower) follow(ctx context.Context) (restic.End, error) {
	ctx, f.giveUp = context.WithCancelCause(ctx)
	end, err := f.cluster.FollowMover(ctx, f.namespace, f.name, f.clone, func(s restic.Sight) { f.see(ctx, s) })
	f.calm()
	cause := context.Cause(ctx)
	f.giveUp(nil)
	f.reading.Wait()
	if t, ok := cause.(*troubled); ok && err != nil {
		err = t
	}
	return end, err
}

// see is called with each change, one at a time.
func (f *follower) see(ctx context.Context, s restic.Sight) {
	f.pod = s.Pod
	if s.Running && s.Pod != f.log {
		f.log = s.Pod
		f.reading.Go(func() { f.progress(ctx, s.Pod) })
	}
	if s.Trouble == nil {
		f.calm()
		return
	}
	if trouble := *s.Trouble; kind(trouble) != f.trouble {
		f.calm()
		f.trouble = kind(trouble)
		warning := catalog.Event{State: catalog.Warning, Pod: s.Pod, Message: trouble.String()}
		f.timers = []*time.Timer{
			time.AfterFunc(tellAfter, func() { f.tell(warning) }),
			time.AfterFunc(patience(trouble), func() { f.giveUp(&troubled{trouble}) }),
		}
	}
}

// calm forgets the trouble.
func (f *follower) calm() {
	for _, timer := range f.timers {
		timer.Stop()
	}
	f.timers, f.trouble = nil, ""
}

// progress reads the log of pod until it ends or ctx is done. A log that
// cannot be read costs the progress and nothing else.
func (f *follower) progress(ctx context.Context, pod string) {
	log, err := f.cluster.MoverLog(ctx, f.namespace, pod)
	if err != nil {
		if ctx.Err() == nil {
			f.tell(catalog.Event{State: catalog.Warning, Pod: pod, Message: "no progress to be seen: " + err.Error()})
		}
		return
	}
	defer context.AfterFunc(ctx, func() { log.Close() })()
	defer log.Close()
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		if status, ok := restic.ReadStatus(bytes.TrimSpace(line)); ok && ctx.Err() == nil {
			f.tell(catalog.Event{
				State: catalog.Progress, Pod: pod, Bytes: status.Bytes, Total: status.Total, Rate: status.Rate, Left: status.Left,
			})
		}
		if err != nil {
			return
		}
	}
}
