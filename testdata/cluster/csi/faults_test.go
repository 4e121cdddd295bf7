package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// answer is what a call says, with the error as "Code: text".
type answer struct {
	ready bool
	size  int64
	err   string
}

func answerOf(s *csi.Snapshot, err error) answer {
	if err != nil {
		return answer{err: status.Code(err).String() + ": " + status.Convert(err).Message()}
	}
	return answer{ready: s.ReadyToUse, size: s.SizeBytes}
}

const size = 16 << 20

var good = answer{ready: true, size: size}

// faulty is a rig with a volume of the claim test/data.
type faulty struct {
	*rig
	*node
	volumeID string
}

func newFaulty(t *testing.T) faulty {
	r := newRig(t)
	n := r.start("a", "")
	return faulty{r, n, r.volume(n, volumeRequest("data", size, asFiles)).VolumeId}
}

func (f faulty) cut(name string) answer {
	resp, err := f.CreateSnapshot(f.ctx(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: f.volumeID})
	return answerOf(resp.GetSnapshot(), err)
}

func (f faulty) list(name string) answer {
	f.t.Helper()
	resp, err := f.ListSnapshots(f.ctx(), &csi.ListSnapshotsRequest{SnapshotId: idOf("snap", name)})
	if err == nil && len(resp.Entries) != 1 {
		f.t.Fatalf("listed %v", resp.Entries)
	}
	if err != nil {
		return answerOf(nil, err)
	}
	return answerOf(resp.Entries[0].Snapshot, nil)
}

func (f faulty) clone(name, snapshot string) answer {
	resp, err := f.CreateVolume(f.ctx(), cloneRequest(name, idOf("snap", snapshot), size, asFiles))
	if err != nil {
		return answerOf(nil, err)
	}
	return answer{ready: true, size: resp.Volume.CapacityBytes}
}

func (f faulty) want(what string, got, want answer) {
	f.t.Helper()
	if got != want {
		f.t.Errorf("%s: answered %+v, want %+v", what, got, want)
	}
}

func TestErrorsAreCountedForEachSnapshot(t *testing.T) {
	f := newFaulty(t)
	f.setFaults(`[{"errors": {"code": "Aborted", "message": "busy", "count": 2}}]`)
	busy := func(name string) answer { return answer{err: "Aborted: create snapshot " + name + ": busy"} }
	f.want("first call", f.cut("one"), busy("one"))
	f.want("another name", f.cut("two"), busy("two"))
	f.kill()
	f.node = f.start("a", "") // the count outlives the process
	f.want("second call", f.cut("one"), busy("one"))
	f.want("third call", f.cut("one"), good)
	f.want("repeated call", f.cut("one"), good)
	f.want("second call", f.cut("two"), busy("two"))
	f.want("third call", f.cut("two"), good)
	for _, code := range []string{"DeadlineExceeded", "ResourceExhausted", "Unavailable"} {
		f.setFaults(`[{"errors": {"code": "` + code + `", "message": "m", "count": 1}}]`)
		f.want("first call", f.cut(code), answer{err: code + ": create snapshot " + code + ": m"})
		f.want("second call", f.cut(code), good)
	}
	if left := names(t, f.store().path("errors")); len(left) > 0 {
		t.Errorf("the counts %v are left", left)
	}
}

func TestFinalError(t *testing.T) {
	f := newFaulty(t)
	f.setFaults(`[{"finalError": {"code": "InvalidArgument", "message": "never"}}]`)
	f.want("first call", f.cut("s"), answer{err: "InvalidArgument: create snapshot s: never"})
	f.want("second call", f.cut("s"), answer{err: "InvalidArgument: create snapshot s: never"})
	f.setFaults(`[]`)
	f.want("without the fault", f.cut("s"), good)
}

func TestReadiness(t *testing.T) {
	f := newFaulty(t)
	unready := answer{size: size}
	f.setFaults(`[{"neverReady": true}]`)
	f.want("cut", f.cut("s"), unready)
	f.want("repeated", f.cut("s"), unready)
	f.want("listed", f.list("s"), unready)
	f.want("cloned", f.clone("c", "s"), answer{err: "Unavailable: create volume c: clone " + idOf("snap", "s") + ": the snapshot is not ready"})
	f.setFaults(`[{"readyDelay": "1h"}]`)
	f.want("listed in the delay", f.list("s"), unready)
	f.setFaults(`[{"readyDelay": "1ns"}]`)
	f.want("listed after the delay", f.list("s"), good)
	f.setFaults(`[{"noRestoreSize": true}]`)
	f.want("repeated without size", f.cut("s"), answer{ready: true})
	f.want("listed without size", f.list("s"), answer{ready: true})
	f.want("cloned without size", f.clone("c", "s"), good)
}

func TestReadyThenError(t *testing.T) {
	f := newFaulty(t)
	f.setFaults(`[{"readyThenError": {"code": "Internal", "message": "lost"}}]`)
	f.want("the call that cuts", f.cut("s"), good)
	f.want("repeated", f.cut("s"), answer{err: "Internal: create snapshot s: lost"})
	f.want("listed", f.list("s"), answer{err: "Internal: list snapshots: lost"})
	f.want("cloned", f.clone("c", "s"), answer{err: "Internal: create volume c: lost"})
	f.setFaults(`[{"readyDelay": "1h", "readyThenError": {"code": "Internal", "message": "lost"}}]`)
	f.want("repeated in the delay", f.cut("s"), answer{size: size})
}

func TestCutDelayOutlivesTheCaller(t *testing.T) {
	f := newFaulty(t)
	f.setFaults(`[{"cutDelay": "300ms"}]`)
	ctx, cancel := context.WithCancel(t.Context())
	begin, ended := time.Now(), make(chan error, 1)
	go func() {
		_, err := f.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: f.volumeID})
		ended <- err
	}()
	eventually(t, func() bool { return len(names(t, f.store().path("locks"))) > 0 })
	cancel()
	wantCode(t, <-ended, codes.Canceled)
	var listed []*csi.ListSnapshotsResponse_Entry
	eventually(t, func() bool {
		resp, err := f.ListSnapshots(f.ctx(), &csi.ListSnapshotsRequest{})
		check(t, err)
		listed = resp.Entries
		return len(listed) > 0
	})
	if delay := listed[0].Snapshot.CreationTime.AsTime().Sub(begin); delay < 300*time.Millisecond {
		t.Errorf("cut after %v, with a delay of 300ms", delay)
	}
}

func TestFailProvision(t *testing.T) {
	f := newFaulty(t)
	f.want("cut", f.cut("s"), good)
	f.setFaults(`[{"failProvision": {"code": "ResourceExhausted", "message": "full", "onlyFromSnapshots": true}}]`)
	f.want("clone", f.clone("c", "s"), answer{err: "ResourceExhausted: create volume c: full"})
	f.volume(f.node, volumeRequest("empty", size, asFiles))
	f.setFaults(`[{"claim": "data", "failProvision": {"code": "ResourceExhausted", "message": "full"}}]`)
	f.want("clone of the claim's snapshot", f.clone("c", "s"), answer{err: "ResourceExhausted: create volume c: full"})
	f.volume(f.node, volumeRequest("other", size, asFiles))
	f.setFaults(`[{"namespace": "test", "claim": "c", "failProvision": {"code": "ResourceExhausted", "message": "full"}}]`)
	f.want("clone for the claim", f.clone("c", "s"), answer{err: "ResourceExhausted: create volume c: full"})
	f.want("clone for another claim", f.clone("d", "s"), good)
}

func TestExactSize(t *testing.T) {
	f := newFaulty(t)
	f.want("cut", f.cut("s"), good)
	f.setFaults(`[{"claim": "data", "exactSize": true}]`)
	larger := cloneRequest("l", idOf("snap", "s"), 2*size, asFiles)
	_, err := f.CreateVolume(f.ctx(), larger)
	f.want("larger", answerOf(nil, err), answer{err: fmt.Sprintf("OutOfRange: create volume l: the size %d is not the %d of the snapshot", 2*size, size)})
	f.want("the same", f.clone("c", "s"), good)
	f.volume(f.node, volumeRequest("empty", 2*size, asFiles))
}

func TestRefuseDelete(t *testing.T) {
	f := newFaulty(t)
	f.want("cut", f.cut("s"), good)
	remove := func() answer {
		_, err := f.DeleteSnapshot(f.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: idOf("snap", "s")})
		return answerOf(&csi.Snapshot{}, err)
	}
	f.setFaults(`[{"refuseDelete": {"code": "FailedPrecondition", "message": "held"}}]`)
	f.want("refused", remove(), answer{err: "FailedPrecondition: delete snapshot " + idOf("snap", "s") + ": held"})
	f.want("still there", f.list("s"), good)
	f.setFaults(`[]`)
	f.want("deleted", remove(), answer{})
	f.setFaults(`[{"refuseDelete": {"code": "FailedPrecondition", "message": "held"}}]`)
	f.want("deleted already", remove(), answer{})
}

func TestFaultsConcernTheirClaims(t *testing.T) {
	const fail = `"finalError": {"code": "Internal", "message": "m"}`
	failed := answer{err: "Internal: create snapshot s: m"}
	for _, test := range []struct {
		name, file string
		want       answer
	}{
		{"an entry without a claim concerns all", `[{` + fail + `}]`, failed},
		{"by claim", `[{"claim": "data", ` + fail + `}]`, failed},
		{"by namespace", `[{"namespace": "test", ` + fail + `}]`, failed},
		{"another claim", `[{"claim": "other", ` + fail + `}]`, good},
		{"another namespace", `[{"namespace": "other", "claim": "data", ` + fail + `}]`, good},
		{"entries add up", `[{"noRestoreSize": true}, {"neverReady": true}]`, answer{}},
		{"the first entry wins", `[{"claim": "data", ` + fail + `}, {"finalError": {"code": "Aborted", "message": "n"}}]`, failed},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFaulty(t)
			f.setFaults(test.file)
			f.want("cut", f.cut("s"), test.want)
		})
	}
}

func TestFaultsThatDoNotParseFailTheCall(t *testing.T) {
	f := newFaulty(t)
	for _, file := range []string{
		`[{"neverReady": true}`,
		`[{"neverRaedy": true}]`,
		`[{"finalError": {"message": "without a code"}}]`,
		`[{"finalError": {"code": "Nonsense"}}]`,
		`[{"cutDelay": 5}]`,
		``,
	} {
		f.setFaults(file)
		_, err := f.CreateSnapshot(f.ctx(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: f.volumeID})
		wantCode(t, err, codes.Internal)
	}
}
