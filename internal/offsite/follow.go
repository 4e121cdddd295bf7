package offsite

import (
	"bufio"
	"bytes"
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// patience is how long a trouble may last before it is told, and before the
// copy is given up.
type patience struct{ tell, giveUp time.Duration }

// patienceWith t: some troubles never pass, some do when a node comes up or a
// registry answers again.
func patienceWith(t restic.Trouble) patience {
	switch kind(t) {
	case "slot":
		return patience{10 * time.Second, math.MaxInt64} // the Job's deadline ends it
	case "InvalidImageName", "ErrImageNeverPull":
		return patience{}
	case "CreateContainerConfigError": // the kubelet says so too while its own cache is behind
		return patience{0, 15 * time.Second}
	case takesTurns, "CreateContainerError", "RunContainerError":
		return patience{0, time.Minute}
	case "Unschedulable": // for a second every pod is that waits for its volume
		return patience{10 * time.Second, 5 * time.Minute}
	case restic.Quota, "Error":
		return patience{0, 5 * time.Minute}
	}
	return patience{3 * time.Second, 5 * time.Minute}
}

// takesTurns is the kind of ErrImagePull and ImagePullBackOff, which are one
// trouble told in two ways: the first says why.
const takesTurns = "image"

// kind is the reason, but for two that take turns with one another, and for
// waiting until another mover has left the node, which is as it should be.
func kind(t restic.Trouble) string {
	if t.Reason == "Unschedulable" && strings.Contains(t.Message, "didn't match pod anti-affinity rules") {
		return "slot"
	}
	if t.Reason == "ErrImagePull" || t.Reason == "ImagePullBackOff" {
		return takesTurns
	}
	return t.Reason
}

// troubled is the failure of a mover that could not work.
type troubled struct{ trouble restic.Trouble }

// Error is what the cluster says.
func (t *troubled) Error() string { return t.trouble.String() }

// code is the kind of failure that it is.
func (t *troubled) code() catalog.Code {
	if t.trouble.Reason == restic.PodSecurity {
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
	size      int64  // of what is read, where restic cannot know it; else 0
	tell      func(catalog.Event)
	// mute leaves the log alone: it holds an answer, or nothing of interest.
	mute bool
	// reach: that it runs is all that is wanted.
	reach bool

	giveUp  context.CancelCauseFunc
	reading sync.WaitGroup
	pod     string                         // the last one
	log     string                         // pod whose log is read
	lasting string                         // kind of the trouble that lasts, "" for none
	trouble atomic.Pointer[restic.Trouble] // what was said of it last
	told    sync.Map                       // what was said of it and told
	telling *time.Timer
	ending  *time.Timer
}

// Attend is follower for a mover that another verb has started: it returns when
// the mover has ended. That it could not work is a catalog.Failure.
func Attend(ctx context.Context, c Cluster, namespace, name, claim string, tell func(catalog.Event)) (restic.End, error) {
	f := &follower{cluster: c, namespace: namespace, name: name, clone: claim, tell: tell}
	end, err := f.follow(ctx)
	return end, couldNot(err, namespace, name)
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
	if s.Running && f.reach {
		f.giveUp(errRuns)
		return
	}
	if s.Running && s.Pod != f.log && !f.mute {
		f.log = s.Pod
		f.reading.Go(func() { f.progress(ctx, s.Pod) })
	}
	if s.Trouble == nil {
		f.calm()
		return
	}
	trouble := *s.Trouble
	if trouble.Lasting {
		f.giveUp(&troubled{trouble})
		return
	}
	wait := patienceWith(trouble)
	if wait.giveUp == 0 {
		f.giveUp(&troubled{trouble})
		return
	}
	if kind(trouble) != f.lasting {
		f.calm()
		f.lasting = kind(trouble)
		f.ending = time.AfterFunc(wait.giveUp, func() { f.giveUp(&troubled{*f.trouble.Load()}) })
	} else if last := f.trouble.Load(); last.Message == trouble.Message || f.lasting == takesTurns {
		return
	}
	f.trouble.Store(&trouble)
	f.warn(s.Pod, trouble, wait.tell)
}

// warn tells a trouble that lasts for so long, once. A mount may first want for
// its claim and then for its Secret: both are of one kind, and both are told.
func (f *follower) warn(pod string, trouble restic.Trouble, after time.Duration) {
	if f.telling != nil {
		f.telling.Stop()
	}
	tell := func() {
		if _, known := f.told.LoadOrStore(trouble.Message, true); !known {
			f.tell(catalog.Event{State: catalog.Warning, Pod: pod, Message: trouble.String()})
		}
	}
	if after == 0 {
		tell()
		return
	}
	f.telling = time.AfterFunc(after, tell)
}

// calm forgets the trouble.
func (f *follower) calm() {
	for _, timer := range []*time.Timer{f.telling, f.ending} {
		if timer != nil {
			timer.Stop()
		}
	}
	f.lasting = ""
	f.told.Clear()
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
			status = status.Of(f.size)
			f.tell(catalog.Event{
				State: catalog.Progress, Pod: pod, Bytes: status.Bytes, Total: status.Total, Rate: status.Rate, Left: status.Left,
			})
		}
		if err != nil {
			return
		}
	}
}
