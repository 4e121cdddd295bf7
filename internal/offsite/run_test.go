package offsite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// cleanUp is the order in which one thing holds the other.
var cleanUp = []string{"remove mover", "remove clone", "remove static"}

func made() catalog.Copy {
	return catalog.Copy{Repository: "main", Snapshot: id, Bytes: 100, Added: 40, Finished: finished}
}

func TestCopy(t *testing.T) {
	c, w := newCluster(t), &events{}
	p := plan(t, "data")
	outcomes, err := offsite.Run(t.Context(), c, at, p, w)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "outcomes", []offsite.Outcome{{Copy: p.Copies[0], State: offsite.Copied, Result: made()}}, outcomes)
	equal(t, "calls", append([]string{"expose", "clone", "start", "follow", "record"}, cleanUp...), c.diary["data"])
	equal(t, "left", []string(nil), c.left())
	equal(t, "recorded", []catalog.Copy{made()}, c.copies["data-"+string(run)])
	equal(t, "events", []catalog.Event{
		{
			Time: began, Run: run, Phase: catalog.PhaseUpload, State: catalog.Started,
			Namespace: "shop", App: "statefulset/mysql", Claim: "data", Name: "data-" + string(run), Repository: "main",
		},
		{
			Time: began, Run: run, Phase: catalog.PhaseUpload, State: catalog.OK,
			Namespace: "shop", App: "statefulset/mysql", Claim: "data", Name: "data-" + string(run), Repository: "main",
			Pod: "mover-pod", Copy: id, Bytes: 100, Added: 40,
		},
	}, w.all)
}

func TestCloneIsAsLargeAsItsSnapshot(t *testing.T) {
	tests := []struct {
		name              string
		restore, capacity int64
		want              int64
	}{
		{"as the driver says", 2048, 4096, 2048},
		{"as the volume was, where the driver says nothing", 0, 4096, 4096},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, p := newCluster(t), plan(t, "data")
			p.Copies[0].Snapshot.RestoreSize = test.restore
			p.Copies[0].Snapshot.Record.Claim.Capacity = test.capacity
			if _, err := offsite.Run(t.Context(), c, at, p, &events{}); err != nil {
				t.Fatal(err)
			}
			labels := catalog.Ours(catalog.RoleClone, run)
			labels[catalog.LabelNamespace], labels[catalog.LabelClaim] = "shop", "data"
			equal(t, "clone", catalog.Claim{
				Namespace: "backsnap", Name: p.Copies[0].Name, Labels: labels, Annotations: catalog.HandsOff(), Role: catalog.RoleClone,
				StorageClass: "fast", Request: test.want, AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem",
			}, c.clones[p.Copies[0].Name])
		})
	}
}

// Only where the clone is made for the node that its mover was given does the
// mover have to be where the storage has the snapshot.
func TestMoverGoesWhereTheVolumeIs(t *testing.T) {
	affinity := json.RawMessage(`{"required":{"nodeSelectorTerms":[]}}`)
	for _, waits := range []bool{false, true} {
		t.Run(fmt.Sprint("class waits: ", waits), func(t *testing.T) {
			c, p := newCluster(t), plan(t, "data")
			c.classes["fast"] = catalog.StorageClass{Name: "fast", WaitsForConsumer: waits}
			p.Copies[0].Snapshot.Record.Claim.NodeAffinity, p.Copies[0].Snapshot.Record.Claim.Node = affinity, "node-2"
			if _, err := offsite.Run(t.Context(), c, at, p, &events{}); err != nil {
				t.Fatal(err)
			}
			want, node := json.RawMessage(nil), ""
			if waits {
				want, node = affinity, "node-2"
			}
			equal(t, "node affinity", want, c.jobs[p.Copies[0].Name].NodeAffinity)
			equal(t, "node", node, c.jobs[p.Copies[0].Name].Node)
		})
	}
}

func TestVolumesOfAClassThatRetainsGoToo(t *testing.T) {
	c := newCluster(t)
	c.classes["fast"] = catalog.StorageClass{Name: "fast", Retains: true}
	if _, err := offsite.Run(t.Context(), c, at, plan(t, "data"), &events{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", []string{
		"expose", "clone", "start", "follow", "record", "remove mover", "remove clone and volume", "remove static",
	}, c.diary["data"])
}

func TestEachClassIsReadOnce(t *testing.T) {
	c := newCluster(t)
	if _, err := offsite.Run(t.Context(), c, at, plan(t, "a", "b", "c", "d"), &events{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", []string{"class fast"}, c.diary[""])
}

func TestCopyOnRecordIsNotMadeAgain(t *testing.T) {
	s := snapshot("data")
	s.Copies = []catalog.Copy{{Repository: "main", Snapshot: "7f3a"}}
	p, err := offsite.New(request(), []catalog.Repository{repository("main"), repository("second")}, []catalog.Snapshot{s})
	if err != nil {
		t.Fatal(err)
	}
	c, w := newCluster(t), &events{}
	outcomes, err := offsite.Run(t.Context(), c, at, p, w)
	if err != nil {
		t.Fatal(err)
	}
	second := made()
	second.Repository = "second"
	equal(t, "outcomes", []offsite.Outcome{
		{Copy: p.Copies[0], State: offsite.Known, Result: s.Copies[0]},
		{Copy: p.Copies[1], State: offsite.Copied, Result: second},
	}, outcomes)
	equal(t, "movers", 1, len(c.jobs))
}

// failure reads the Failure of an outcome.
func failure(t *testing.T, o offsite.Outcome) catalog.Failure {
	t.Helper()
	var f *catalog.Failure
	if !errors.As(o.Err, &f) {
		t.Fatalf("%v is no Failure", o.Err)
	}
	return *f
}

func TestWhatResticSaysBecomesAFailure(t *testing.T) {
	tests := []struct {
		name  string
		end   restic.End
		state offsite.State
		code  catalog.Code
		says  string
		next  string
	}{
		{
			name: "partial", end: ends(3, "backup", 7, "open /data/a: denied"), state: offsite.Partial, code: catalog.CodeRepoPartial,
			says: "copy of shop/data to main is not whole: 7 files could not be read: open /data/a: denied",
			next: "make it again: kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop",
		},
		{
			name: "no repository", end: ends(10, "check", 0, "Fatal: no"), state: offsite.Failed, code: catalog.CodeNoRepository,
			says: "copy of shop/data to main not made: the repository does not exist: Fatal: no",
			next: "kubectl backsnap repo init main",
		},
		{
			name: "locked", end: ends(11, "backup", 0), state: offsite.Failed, code: catalog.CodeRepoLocked,
			says: "copy of shop/data to main not made: the repository is locked",
			next: "wait for who holds the lock; if nobody works on the repository any more: kubectl backsnap repo unlock main",
		},
		{
			name: "wrong password", end: ends(12, "check", 0), state: offsite.Failed, code: catalog.CodeRepoPassword,
			says: "copy of shop/data to main not made: the password is wrong",
			next: "set RESTIC_PASSWORD in Secret backsnap/main-secret to the repository's password",
		},
		{
			name: "no answer", end: ends(124, "check", 0), state: offsite.Failed, code: catalog.CodeMover,
			says: "copy of shop/data to main not made: the repository did not answer within 1m0s; does its bucket exist?",
			next: "see whether s3:main can be reached from the cluster; a new repository: kubectl backsnap repo init main",
		},
		{
			name: "a code that nobody knows", end: ends(77, "backup", 0, "strange"), state: offsite.Failed, code: catalog.CodeMover,
			says: "copy of shop/data to main not made: exit 77: strange",
			next: "make it again: kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop",
		},
		{
			name:  "a good exit code without a summary",
			end:   restic.End{Pod: "p", Text: "backsnap step=backup exit=0\nerrors=0"},
			state: offsite.Failed, code: catalog.CodeMover,
			says: "copy of shop/data to main not made: restic ended without a summary",
			next: "make it again: kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop",
		},
		{
			name:  "killed",
			end:   restic.End{Pod: "p", Exit: 137, Killed: "OOMKilled", Reason: "BackoffLimitExceeded"},
			state: offsite.Failed, code: catalog.CodeMover,
			says: "copy of shop/data to main not made: OOMKilled: restic was killed, most likely because it ran out of memory",
			next: "kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop --mover-limits=memory=2Gi",
		},
		{
			name:  "the Job's time was up",
			end:   restic.End{Pod: "p", Exit: 130, Reason: "DeadlineExceeded", Text: "backsnap step=backup exit=130"},
			state: offsite.Failed, code: catalog.CodeMover,
			says: "copy of shop/data to main not made: DeadlineExceeded: restic was told to stop",
			next: "make it again: kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop",
		},
		{
			name:  "there never was a pod",
			end:   restic.End{Reason: "DeadlineExceeded", Message: "Job was active too long"},
			state: offsite.Failed, code: catalog.CodeMover,
			says: "copy of shop/data to main not made: exit 1: DeadlineExceeded: Job was active too long",
			next: "make it again: kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.follow["data"] = func(context.Context, func(restic.Sight)) (restic.End, error) { return test.end, nil }
			outcomes, err := offsite.Run(t.Context(), c, at, plan(t, "data"), &events{})
			f := failure(t, outcomes[0])
			equal(t, "state", test.state, outcomes[0].State)
			equal(t, "code", test.code, f.Code)
			equal(t, "error", test.says, f.Error())
			equal(t, "next", test.next, f.Next)
			equal(t, "joined", test.says, err.Error())
			equal(t, "calls", append([]string{"expose", "clone", "start", "follow"}, cleanUp...), c.diary["data"])
			equal(t, "left", []string(nil), c.left())
			equal(t, "recorded", 0, len(c.copies))
		})
	}
}

func TestPartialCopyIsNamedAndNotRecorded(t *testing.T) {
	c := newCluster(t)
	c.follow["data"] = func(context.Context, func(restic.Sight)) (restic.End, error) { return ends(3, "backup", 1), nil }
	outcomes, _ := offsite.Run(t.Context(), c, at, plan(t, "data"), &events{})
	equal(t, "result", made(), outcomes[0].Result)
	equal(t, "recorded", 0, len(c.copies))
}

// What fails is taken back as far as it was made, in order.
func TestFailureTakesBackWhatWasMade(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name, call string
		err        error
		calls      []string
		left       []string // kinds
	}{
		{"the static copy", "expose", boom, []string{"expose", "remove static"}, nil},
		{"the clone", "clone", boom, []string{"expose", "clone", "remove clone", "remove static"}, nil},
		{"the mover", "start", boom, append([]string{"expose", "clone", "start"}, cleanUp...), nil},
		{"another has the name of the static copy", "expose", catalog.ErrTaken, []string{"expose"}, nil},
		{"another has the name of the clone", "clone", catalog.ErrTaken, []string{"expose", "clone", "remove static"}, nil},
		{"another has the name of the mover", "start", catalog.ErrTaken, []string{"expose", "clone", "start", "remove clone", "remove static"}, nil},
		{"the mover is gone", "follow", catalog.ErrGone, append([]string{"expose", "clone", "start", "follow"}, cleanUp...), nil},
		{"the snapshot is gone when the copy is made", "record", catalog.ErrGone, append([]string{"expose", "clone", "start", "follow", "record"}, cleanUp...), nil},
		{
			"the mover cannot be followed: it may make its copy yet", "follow", boom,
			[]string{"expose", "clone", "start", "follow"}, []string{"clone", "mover", "static"},
		},
		{
			"the copy cannot be recorded: its mover stays to tell", "record", boom,
			[]string{"expose", "clone", "start", "follow", "record"}, []string{"clone", "mover", "static"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.fail["data: "+test.call] = test.err
			p := plan(t, "data")
			outcomes, err := offsite.Run(t.Context(), c, at, p, &events{})
			if !errors.Is(err, test.err) || catalog.CodeOf(err) != catalog.CodeMover {
				t.Errorf("error %v, want one of %v with a code", err, test.err)
			}
			equal(t, "calls", test.calls, c.diary["data"])
			var left []string
			for _, kind := range test.left {
				left = append(left, kind+" "+p.Copies[0].Name)
			}
			equal(t, "left", left, c.left())
			if outcomes[0].State == offsite.Copied {
				t.Error("it counts as copied")
			}
		})
	}
}

func TestNothingIsMadeForWhatCannotBeCopied(t *testing.T) {
	tests := []struct {
		name   string
		change func(s *catalog.Snapshot)
	}{
		{"no record", func(s *catalog.Snapshot) { s.Record = nil }},
		{"no storage class", func(s *catalog.Snapshot) { s.Record.Claim.StorageClass = "" }},
		{"a storage class that is gone", func(s *catalog.Snapshot) { s.Record.Claim.StorageClass = "old" }},
		{"no time of the cut", func(s *catalog.Snapshot) { s.Cut = time.Time{} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, p := newCluster(t), plan(t, "data")
			test.change(&p.Copies[0].Snapshot)
			outcomes, err := offsite.Run(t.Context(), c, at, p, &events{})
			equal(t, "state", offsite.Failed, outcomes[0].State)
			equal(t, "code", catalog.CodeMover, catalog.CodeOf(err))
			equal(t, "calls", []string(nil), c.diary["data"])
		})
	}
}

func TestFailuresDoNotStopEachOther(t *testing.T) {
	c := newCluster(t)
	c.follow["a"] = func(context.Context, func(restic.Sight)) (restic.End, error) { return ends(12, "check", 0), nil }
	c.follow["c"] = func(context.Context, func(restic.Sight)) (restic.End, error) { return ends(10, "check", 0), nil }
	outcomes, err := offsite.Run(t.Context(), c, at, plan(t, "a", "b", "c"), &events{})
	var codes []catalog.Code
	for _, o := range outcomes {
		codes = append(codes, catalog.CodeOf(o.Err))
	}
	equal(t, "codes", []catalog.Code{catalog.CodeRepoPassword, "", catalog.CodeNoRepository}, codes)
	equal(t, "joined", "copy of shop/a to main not made: the password is wrong\ncopy of shop/c to main not made: the repository does not exist", err.Error())
	equal(t, "left", []string(nil), c.left())
}

func TestAtMostSoManyMoversAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		p := plan(t, "a", "b", "c", "d", "e")
		p.Request.Parallel = 2
		for _, copy := range p.Copies {
			c.follow[copy.Snapshot.Claim] = func(context.Context, func(restic.Sight)) (restic.End, error) {
				time.Sleep(time.Minute)
				return ends(0, "backup", 0), nil
			}
		}
		if _, err := offsite.Run(t.Context(), c, at, p, &events{}); err != nil {
			t.Fatal(err)
		}
		equal(t, "movers at once", 2, c.most)
	})
}

// stays is a mover that runs until nobody waits for it any more.
func stays(ctx context.Context, seen func(restic.Sight)) (restic.End, error) {
	seen(restic.Sight{Pod: "p"})
	<-ctx.Done()
	return restic.End{}, context.Cause(ctx)
}

// A run that waits for no mover starts all of them, whatever Parallel says.
func TestDetach(t *testing.T) {
	c := newCluster(t)
	p := plan(t, "a", "b")
	p.Request.Parallel, p.Request.Detach = 1, true
	outcomes, err := offsite.Run(t.Context(), c, at, p, &events{})
	equal(t, "error", error(nil), err)
	for i, o := range outcomes {
		equal(t, "outcome", offsite.Outcome{Copy: p.Copies[i], State: offsite.Detached}, o)
		equal(t, "calls", []string{"expose", "clone", "start"}, c.diary[o.Copy.Snapshot.Claim])
	}
	equal(t, "left", 6, len(c.left()))
}

func TestInterruptLeavesMoversRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newCluster(t), &events{}
		c.follow["a"] = stays
		p := plan(t, "a", "b", "c")
		p.Request.Parallel = 2
		interrupt := errors.New("interrupt")
		ctx, cancel := context.WithCancelCause(t.Context())
		c.follow["b"] = func(context.Context, func(restic.Sight)) (restic.End, error) {
			time.Sleep(time.Minute)
			cancel(interrupt) // b has made its copy at that very moment
			return ends(0, "backup", 0), nil
		}
		outcomes, err := offsite.Run(ctx, c, at, p, w)
		var states []offsite.State
		for _, o := range outcomes {
			states = append(states, o.State)
		}
		equal(t, "states", []offsite.State{offsite.Detached, offsite.Copied, offsite.Skipped}, states)
		equal(t, "detached", true, errors.Is(err, offsite.ErrDetached) && errors.Is(err, interrupt))
		name := p.Copies[0].Name
		equal(t, "left", []string{"clone " + name, "mover " + name, "static " + name}, c.left())
		equal(t, "calls of a", []string{"expose", "clone", "start", "follow"}, c.diary["a"])
		equal(t, "calls of b", append([]string{"expose", "clone", "start", "follow", "record"}, cleanUp...), c.diary["b"])
		equal(t, "calls of c", []string(nil), c.diary["c"])
		equal(t, "failure of a", catalog.Failure{
			Code: catalog.CodeInterrupted, Message: "copy of shop/a to main not waited for", Cause: failure(t, outcomes[0]).Cause,
			State: "the snapshot stands; job/" + name + " in backsnap makes the copy, and the next run that copies records it and cleans up",
			Next:  "follow it: kubectl backsnap logs -f run/" + string(run) + " -n shop; or stop it: kubectl backsnap abort run/" + string(run) + " -n shop",
		}, failure(t, outcomes[0]))
		equal(t, "code of c", catalog.CodeInterrupted, catalog.CodeOf(outcomes[2].Err))
		equal(t, "events of a", []string{"started", "warning copy of shop/a to main not waited for: interrupt; its mover runs on"}, w.of("a"))
	})
}

func TestInterruptBeforeTheMoverRunsTakesBackWhatWasMade(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	c.exposed = cancel
	outcomes, err := offsite.Run(ctx, c, at, plan(t, "data"), &events{})
	equal(t, "state", offsite.Skipped, outcomes[0].State)
	equal(t, "detached", false, errors.Is(err, offsite.ErrDetached))
	equal(t, "code", catalog.CodeInterrupted, catalog.CodeOf(err))
	equal(t, "left", []string(nil), c.left())
}

func TestTimeoutIsNoInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.follow["data"] = stays
		p := plan(t, "data")
		p.Request.Timeout = time.Hour
		start := time.Now()
		outcomes, err := offsite.Run(t.Context(), c, at, p, &events{})
		equal(t, "waited", time.Hour, time.Since(start))
		equal(t, "state", offsite.Detached, outcomes[0].State)
		equal(t, "code", catalog.CodeNotReady, catalog.CodeOf(err))
	})
}

func TestWhatCannotBeRemovedSaysNothingOfTheCopy(t *testing.T) {
	c, w := newCluster(t), &events{}
	c.fail["data: remove clone"] = errors.New("boom")
	outcomes, err := offsite.Run(t.Context(), c, at, plan(t, "data"), w)
	if err != nil {
		t.Fatal(err)
	}
	name := outcomes[0].Copy.Name
	equal(t, "state", offsite.Copied, outcomes[0].State)
	equal(t, "left over", "remove clone backsnap/"+name+": boom", outcomes[0].Left.Error())
	equal(t, "left", []string{"clone " + name, "static " + name}, c.left())
	equal(t, "events", []string{"started", "ok", "warning remove clone backsnap/" + name + ": boom"}, w.of("data"))
}

// A node that is lost keeps its pod, and with it the clone: that is told, and
// what it does not keep is removed all the same.
func TestWhatALostNodeKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newCluster(t), &events{}
		held := &catalog.Held{Pod: "p", Node: "node-2"}
		c.fail["data: remove mover"], c.fail["data: remove clone"] = held, held
		c.follow["data"] = func(ctx context.Context, seen func(restic.Sight)) (restic.End, error) {
			seen(restic.Sight{Pod: "p", Running: true})
			seen(restic.Sight{Pod: "p", Trouble: &restic.Trouble{Reason: restic.NodeNotReady, Object: "node-2", Message: "it does not answer"}})
			<-ctx.Done()
			return restic.End{}, context.Cause(ctx)
		}
		start := time.Now()
		outcomes, _ := offsite.Run(t.Context(), c, at, plan(t, "data"), w)
		equal(t, "given up after", 5*time.Minute, time.Since(start))
		f := failure(t, outcomes[0])
		equal(t, "failure", []string{
			"copy of shop/data to main not made", "NodeNotReady: it does not answer",
			"the snapshot stands; what was made for the copy is deleted, and goes when node node-2 answers again or is removed from the cluster",
			"kubectl describe node node-2; then, also while it is away: kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop",
		}, []string{f.Message, f.Cause.Error(), f.State, f.Next})
		equal(t, "code", catalog.CodeMover, f.Code)
		equal(t, "left over", nil, outcomes[0].Left)
		equal(t, "left", []string(nil), c.left())
		name := outcomes[0].Copy.Name
		equal(t, "events", []string{
			"started", "warning NodeNotReady: it does not answer", "failed copy of shop/data to main not made: NodeNotReady: it does not answer",
			"warning remove mover backsnap/" + name + ": " + held.Error(), "warning remove clone backsnap/" + name + ": " + held.Error(),
		}, w.of("data"))
	})
}

func TestTroubles(t *testing.T) {
	image := restic.Trouble{Reason: "ErrImagePull", Message: "not found"}
	backOff := restic.Trouble{Reason: "ImagePullBackOff", Message: "back-off"}
	config := restic.Trouble{Reason: "CreateContainerConfigError", Message: "no secret"}
	forbidden := restic.Trouble{Reason: "PodSecurity", Message: "violates PodSecurity", Lasting: true}
	memory := restic.Trouble{Reason: "OOMKilled", Message: "limit of 1Gi", Lasting: true}
	nodes := restic.Trouble{Reason: "Unschedulable", Message: "no nodes"}
	slot := restic.Trouble{Reason: "Unschedulable", Message: "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules"}
	mount := restic.Trouble{Reason: "FailedMount", Message: "no device"}
	secret := restic.Trouble{Reason: "FailedMount", Message: "no secret"}
	type sight struct {
		after   time.Duration // since the one before
		trouble *restic.Trouble
	}
	tests := []struct {
		name   string
		sights []sight // then nothing happens for an hour, and the copy is made
		after  time.Duration
		code   catalog.Code
		cause  string
		events []string
	}{
		{
			name:   "that the Secret is gone passes soon or never",
			sights: []sight{{0, &config}}, after: 15 * time.Second, code: catalog.CodeMover, cause: "CreateContainerConfigError: no secret",
			events: []string{"warning CreateContainerConfigError: no secret"},
		},
		{
			name:   "what is said to last is given up at once",
			sights: []sight{{0, &memory}}, code: catalog.CodeMover, cause: "OOMKilled: limit of 1Gi",
		},
		{
			name:   "that Pod Security forbids it never passes",
			sights: []sight{{0, &forbidden}}, code: catalog.CodePodSecurity, cause: "PodSecurity: violates PodSecurity",
		},
		{
			name:   "an image may come to be within a minute, however often it is tried",
			sights: []sight{{0, &image}, {5 * time.Second, &backOff}, {20 * time.Second, &image}, {time.Second, &backOff}},
			after:  time.Minute, code: catalog.CodeMover, cause: "ErrImagePull: not found",
			events: []string{"warning ErrImagePull: not found"},
		},
		{
			name:   "a node may come to be within five",
			sights: []sight{{0, &nodes}}, after: 5 * time.Minute, code: catalog.CodeMover, cause: "Unschedulable: no nodes",
			events: []string{"warning Unschedulable: no nodes"},
		},
		{
			name:   "a slot on the node comes to be when another mover has ended, whenever that is",
			sights: []sight{{0, &slot}, {20 * time.Minute, nil}}, after: time.Hour + 20*time.Minute,
			events: []string{"warning Unschedulable: 0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules"},
		},
		{
			name:   "another trouble has its own time",
			sights: []sight{{0, &nodes}, {4 * time.Minute, &mount}},
			after:  9 * time.Minute, code: catalog.CodeMover, cause: "FailedMount: no device",
			events: []string{"warning Unschedulable: no nodes", "warning FailedMount: no device"},
		},
		{
			name:   "another of the same kind is told too, once, and is what the copy is given up with",
			sights: []sight{{0, &mount}, {4 * time.Second, &secret}, {4 * time.Second, &mount}, {4 * time.Second, &secret}},
			after:  5 * time.Minute, code: catalog.CodeMover, cause: "FailedMount: no secret",
			events: []string{"warning FailedMount: no device", "warning FailedMount: no secret"},
		},
		{
			name:   "another of the same kind at once leaves the first untold",
			sights: []sight{{0, &mount}, {time.Second, &secret}},
			after:  5 * time.Minute, code: catalog.CodeMover, cause: "FailedMount: no secret",
			events: []string{"warning FailedMount: no secret"},
		},
		{
			name:   "what passes at once is not told",
			sights: []sight{{0, &nodes}, {time.Second, nil}}, after: time.Hour + time.Second,
			events: []string{},
		},
		{
			name:   "what passes later is told and forgotten",
			sights: []sight{{0, &nodes}, {4 * time.Minute, nil}}, after: time.Hour + 4*time.Minute,
			events: []string{"warning Unschedulable: no nodes"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newCluster(t), &events{}
				c.follow["data"] = func(ctx context.Context, seen func(restic.Sight)) (restic.End, error) {
					for _, s := range test.sights {
						time.Sleep(s.after)
						seen(restic.Sight{Pod: "p", Trouble: s.trouble})
					}
					select {
					case <-time.After(time.Hour):
						return ends(0, "backup", 0), nil
					case <-ctx.Done():
						return restic.End{}, context.Cause(ctx)
					}
				}
				start := time.Now()
				outcomes, err := offsite.Run(t.Context(), c, at, plan(t, "data"), w)
				equal(t, "after", test.after, time.Since(start))
				equal(t, "code", test.code, catalog.CodeOf(err))
				last := "ok"
				if err != nil {
					equal(t, "cause", test.cause, failure(t, outcomes[0]).Cause.Error())
					last = "failed copy of shop/data to main not made: " + test.cause
				}
				equal(t, "events", append(append([]string{"started"}, test.events...), last), w.of("data"))
				equal(t, "left", []string(nil), c.left())
			})
		})
	}
}

func TestRemediesOfTroubles(t *testing.T) {
	postgres := int64(999)
	again := "kubectl backsnap copy vs/data-20261122-011500-x7k2 -n shop"
	label := "kubectl label namespace backsnap --overwrite pod-security.kubernetes.io/enforce=baseline"
	tests := []struct {
		name    string
		trouble restic.Trouble
		user    *int64
		next    string
	}{
		{"Pod Security, the app's user known", restic.Trouble{Reason: "PodSecurity"}, &postgres, again + " --run-as-user=999, as which the app's pods run; or " + label},
		{"Pod Security, the app's user not known", restic.Trouble{Reason: "PodSecurity"}, nil, label},
		{"Pod Security, the app runs as root", restic.Trouble{Reason: "PodSecurity"}, new(int64), label},
		{"want of memory", restic.Trouble{Reason: "OOMKilled"}, nil, again + " --mover-limits=memory=3072Mi"},
		{"quota", restic.Trouble{Reason: "Quota", Object: "tight"}, nil, "raise ResourceQuota tight in backsnap, or need less: --mover-requests=cpu=Q,memory=Q --mover-limits=cpu=Q,memory=Q"},
		{"LimitRange", restic.Trouble{Reason: "LimitRange"}, nil, "kubectl describe limitrange -n backsnap; then raise it, or need less: --mover-requests=cpu=Q,memory=Q --mover-limits=cpu=Q,memory=Q"},
		{
			"a policy that lets nobody be root", restic.Trouble{Reason: "CreateContainerConfigError", Message: "container's runAsUser breaks non-root policy"}, nil,
			"let the mover be root in backsnap, which reads every file; or " + again + " --run-as-user=UID",
		},
		{"anything else", restic.Trouble{Reason: "FailedCreate"}, nil, "kubectl get events -n backsnap"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.trouble.Lasting = true
			c, p := newCluster(t), plan(t, "data")
			p.Request.Pod.MemoryLimit = "1536Mi"
			p.Copies[0].Snapshot.Record.User = test.user
			c.follow["data"] = func(ctx context.Context, seen func(restic.Sight)) (restic.End, error) {
				seen(restic.Sight{Trouble: &test.trouble})
				<-ctx.Done()
				return restic.End{}, context.Cause(ctx)
			}
			outcomes, _ := offsite.Run(t.Context(), c, at, p, &events{})
			equal(t, "next", test.next, failure(t, outcomes[0]).Next)
		})
	}
}

// What is made and not admitted is no missing right, and has the same remedy.
func TestClonesThatAreNotAdmitted(t *testing.T) {
	c := newCluster(t)
	said := `persistentvolumeclaims "x" is forbidden: exceeded quota: few`
	c.fail["data: clone"] = &restic.Denied{Trouble: restic.Trouble{Reason: "Quota", Object: "few", Message: said}, Err: errors.New(said)}
	outcomes, _ := offsite.Run(t.Context(), c, at, plan(t, "data"), &events{})
	f := failure(t, outcomes[0])
	equal(t, "code", catalog.CodeMover, f.Code)
	equal(t, "next", "raise ResourceQuota few in backsnap, for the clone is a claim of the volume's size; or leave the copy out: --repository=none", f.Next)
}

// Beside the app there is no static copy, and nothing of the cluster to read.
func TestCopyInNamespace(t *testing.T) {
	own := repository("main")
	own.Namespace = "shop"
	r := request()
	r.InNamespace = true
	p, err := offsite.New(r, []catalog.Repository{repository("main"), repository("central"), own}, []catalog.Snapshot{snapshot("data")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "copies", 1, len(p.Copies))
	for _, right := range p.Rights() {
		if right.Namespace != "shop" {
			t.Errorf("it needs to %s", right)
		}
	}
	c := newCluster(t)
	c.fail[": class fast"] = &catalog.Failure{Code: catalog.CodeForbidden}
	affinity := json.RawMessage(`{"required":{"nodeSelectorTerms":[]}}`)
	p.Copies[0].Snapshot.Record.Claim.NodeAffinity = affinity
	if _, err := offsite.Run(t.Context(), c, at, p, &events{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", []string{"clone", "start", "follow", "record", "remove mover", "remove clone"}, c.diary["data"])
	job := c.jobs[p.Copies[0].Name]
	equal(t, "namespace", "shop", job.Namespace)
	equal(t, "node affinity", affinity, job.NodeAffinity)
}

func TestProgressIsReadFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newCluster(t), &events{}
		c.log = "starting\n" +
			`{"message_type":"status","seconds_elapsed":2,"seconds_remaining":8,"total_bytes":100,"bytes_done":20}` + "\n" +
			`{"message_type":"status","tot` + "\n" +
			`{"message_type":"status","seconds_elapsed":4,"total_bytes":100,"bytes_done":100}`
		c.follow["data"] = func(_ context.Context, seen func(restic.Sight)) (restic.End, error) {
			seen(restic.Sight{Pod: "p1", Running: true})
			synctest.Wait()
			seen(restic.Sight{Pod: "p1", Running: true})
			synctest.Wait()
			return ends(0, "backup", 0), nil
		}
		if _, err := offsite.Run(t.Context(), c, at, plan(t, "data"), w); err != nil {
			t.Fatal(err)
		}
		equal(t, "logs read", []string{"class fast", "log p1"}, c.diary[""])
		var progress []catalog.Event
		for _, e := range w.all {
			if e.State == catalog.Progress {
				progress = append(progress, catalog.Event{Pod: e.Pod, Claim: e.Claim, Bytes: e.Bytes, Total: e.Total, Rate: e.Rate, Left: e.Left})
			}
		}
		equal(t, "progress", []catalog.Event{
			{Pod: "p1", Claim: "data", Bytes: 20, Total: 100, Rate: 10, Left: 8 * time.Second},
			{Pod: "p1", Claim: "data", Bytes: 100, Total: 100, Rate: 25},
		}, progress)
	})
}

func TestLogThatCannotBeReadCostsTheProgressOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, w := newCluster(t), &events{}
		c.fail[": log p1"] = errors.New("you may not")
		c.follow["data"] = func(_ context.Context, seen func(restic.Sight)) (restic.End, error) {
			seen(restic.Sight{Pod: "p1", Running: true})
			synctest.Wait()
			return ends(0, "backup", 0), nil
		}
		if _, err := offsite.Run(t.Context(), c, at, plan(t, "data"), w); err != nil {
			t.Fatal(err)
		}
		equal(t, "events", []string{"started", "warning no progress to be seen: you may not", "ok"}, w.of("data"))
	})
}

const laterRun = catalog.Run("20261123-080000-aaaa")

// later is the plan of a run that copies what an earlier one has taken.
func later(t *testing.T, claims ...string) offsite.Plan {
	t.Helper()
	p := plan(t, claims...)
	p.Request.Run = laterRun
	return p
}

func TestAMoverOfAnEarlierRunIsWaitedFor(t *testing.T) {
	c, w := newCluster(t), &events{}
	c.run = laterRun
	c.standing("data", false)
	c.standing("other", false)
	c.movers[1].Source.Repository = "second" // another copy of the same snapshot
	outcomes, err := offsite.Run(t.Context(), c, at, later(t, "data", "other"), w)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "calls", []string{"follow", "record", "remove mover", "remove clone and volume", "remove static"}, c.diary["data"])
	equal(t, "state", offsite.Copied, outcomes[0].State)
	equal(t, "name", "data-mover", outcomes[0].Copy.Name)
	equal(t, "other is copied by a mover of its own", 1, len(c.jobs))
	for _, e := range w.all {
		equal(t, "run of "+string(e.State), laterRun, e.Run)
	}
}

func TestMoversThatCannotBeSeenKeepCopiesFromBeingMade(t *testing.T) {
	c := newCluster(t)
	boom := errors.New("boom")
	c.fail[": movers"] = boom
	_, err := offsite.Run(t.Context(), c, at, later(t, "data"), &events{})
	equal(t, "error", true, errors.Is(err, boom))
	equal(t, "jobs", 0, len(c.jobs))
}

// What is made carries the run that copies, whose Lease tells that it lives;
// the tags of the copy name the run that took the snapshot.
func TestWhatIsMadeCarriesTheRunThatCopies(t *testing.T) {
	c := newCluster(t)
	c.run = laterRun
	p := later(t, "data")
	if _, err := offsite.Run(t.Context(), c, at, p, &events{}); err != nil {
		t.Fatal(err)
	}
	name := p.Copies[0].Name
	equal(t, "run of the clone", string(laterRun), c.clones[name].Labels[catalog.LabelRun])
	equal(t, "run of the mover", string(laterRun), c.jobs[name].Labels[catalog.LabelRun])
	equal(t, "tag", true, slices.Contains(c.jobs[name].Args, "run="+string(run)))
}

func TestACopyThatIsInTheRepositoryIsRecorded(t *testing.T) {
	c := newCluster(t)
	c.follow["data"] = func(context.Context, func(restic.Sight)) (restic.End, error) {
		end := ends(0, "find", 0)
		end.Text += "\n" + `{"message_type":"summary","snapshot_id":"` + id + `","total_bytes_processed":100,"data_added_packed":40}`
		return end, nil
	}
	outcomes, err := offsite.Run(t.Context(), c, at, plan(t, "data"), &events{})
	equal(t, "error", error(nil), err)
	equal(t, "state", offsite.Known, outcomes[0].State)
	equal(t, "recorded", []catalog.Copy{made()}, c.copies["data-"+string(run)])
	equal(t, "left", []string(nil), c.left())
}

// A block volume is copied as an image. That its reader failed restic tells by
// 1 or 130; and an image that is too short is none.
func TestImageOfABlockVolume(t *testing.T) {
	tests := []struct {
		name  string
		end   restic.End
		size  int64 // of the device
		state offsite.State
		says  string
	}{
		{"whole", ends(0, "backup", 0), 100, offsite.Copied, ""},
		{"larger than the volume was", ends(0, "backup", 0), 99, offsite.Copied, ""},
		{"too short", ends(0, "backup", 0), 101, offsite.Failed, "copy of shop/data to main not made: only 100 of 101 bytes of the device were read"},
		{"the reader failed", ends(1, "backup", 0, "cat: read error"), 100, offsite.Failed, "copy of shop/data to main not made: exit 1: cat: read error"},
		{"the reader failed, in other words", ends(130, "backup", 0, "cat: read error"), 100, offsite.Failed, "copy of shop/data to main not made: restic was told to stop: cat: read error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c, p := newCluster(t), plan(t, "data")
			s := &p.Copies[0].Snapshot
			s.RestoreSize, s.Record.Claim.VolumeMode = test.size, catalog.BlockMode
			c.follow["data"] = func(context.Context, func(restic.Sight)) (restic.End, error) { return test.end, nil }
			outcomes, err := offsite.Run(t.Context(), c, at, p, &events{})
			said := ""
			if err != nil {
				said = err.Error()
			}
			equal(t, "state", test.state, outcomes[0].State)
			equal(t, "error", test.says, said)
			equal(t, "clone", catalog.BlockMode, c.clones[p.Copies[0].Name].VolumeMode)
			equal(t, "device", true, c.jobs[p.Copies[0].Name].Block)
		})
	}
}

// With N slots, and no two movers of one slot on a node, N movers at most run
// on it.
func TestMoversTakeSlotsInTurn(t *testing.T) {
	c, p := newCluster(t), plan(t, "a", "b", "c", "d", "e")
	p.Request.PerNode = 2
	if _, err := offsite.Run(t.Context(), c, at, p, &events{}); err != nil {
		t.Fatal(err)
	}
	of := map[string]int{}
	for _, job := range c.jobs {
		of[job.Labels[catalog.LabelSlot]]++
	}
	if len(of) != 2 || of["0"]+of["1"] != 5 || of["0"] < 2 || of["1"] < 2 {
		t.Errorf("movers by slot: %v", of)
	}
}
