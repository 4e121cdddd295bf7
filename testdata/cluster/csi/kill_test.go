package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func TestKilledCreateVolumeIsRepeated(t *testing.T) {
	for _, step := range []string{"subvolume created", "volume filled", "volume cloned"} {
		t.Run(step, func(t *testing.T) {
			r := newRig(t)
			n := r.start("a", "")
			v := r.volume(n, volumeRequest("data", 16<<20, asFiles))
			write(t, filepath.Join(r.use(n, v.VolumeId, asFiles, false), "file"), "text", true)
			s := r.snapshot(n, "s", v.VolumeId)
			req, want := volumeRequest("new", 64<<20, asFiles), []string{"lost+found"}
			if step == "volume cloned" {
				req, want = cloneRequest("new", s.SnapshotId, 64<<20, asFiles), []string{"file", "lost+found"}
			}
			n.kill()
			n = r.start("a", step)
			_, err := n.CreateVolume(r.ctx(), req)
			wantCode(t, err, codes.Unavailable)
			<-n.exited
			n = r.start("a", "")
			made := r.volume(n, req)
			if got := names(t, r.use(n, made.VolumeId, asFiles, false)); !slices.Equal(got, want) {
				t.Errorf("the volume holds %v, want %v", got, want)
			}
			r.release(n, v.VolumeId)
			r.release(n, made.VolumeId)
			r.wantEmpty(n, []string{v.VolumeId, made.VolumeId}, s.SnapshotId)
		})
	}
}

func TestKilledCreateSnapshotTellsTheCutThatWasMade(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	v := r.volume(n, volumeRequest("data", 16<<20, asFiles))
	dir := r.use(n, v.VolumeId, asFiles, false)
	n.kill()
	n = r.start("a", "cut")
	begin := time.Now()
	_, err := n.CreateSnapshot(r.ctx(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.VolumeId})
	wantCode(t, err, codes.Unavailable)
	<-n.exited
	end := time.Now()
	write(t, filepath.Join(dir, "later"), "text", true)

	n = r.start("a", "")
	s := r.snapshot(n, "s", v.VolumeId)
	const clockTick = 10 * time.Millisecond
	if cut := s.CreationTime.AsTime(); cut.Before(begin.Add(-clockTick)) || cut.After(end) {
		t.Errorf("the cut was made from %v to %v and tells %v", begin, end, cut)
	}
	listed, err := n.ListSnapshots(r.ctx(), &csi.ListSnapshotsRequest{SnapshotId: s.SnapshotId})
	check(t, err)
	if len(listed.Entries) != 1 || !proto.Equal(listed.Entries[0].Snapshot, s) {
		t.Errorf("told %v and listed %v", s, listed.Entries)
	}
	c := r.volume(n, cloneRequest("clone", s.SnapshotId, 0, asFiles))
	if got, want := names(t, r.use(n, c.VolumeId, asFiles, false)), []string{"lost+found"}; !slices.Equal(got, want) {
		t.Errorf("the cut holds %v, want %v", got, want)
	}
	r.release(n, v.VolumeId)
	r.release(n, c.VolumeId)
	r.wantEmpty(n, []string{v.VolumeId, c.VolumeId}, s.SnapshotId)
}

func TestCutOfAnotherVolumeIsNotTaken(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	other := r.volume(n, volumeRequest("other", 16<<20, asFiles))
	n.kill()
	n = r.start("a", "cut")
	_, err := n.CreateSnapshot(r.ctx(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: other.VolumeId})
	wantCode(t, err, codes.Unavailable)
	<-n.exited
	n = r.start("a", "")
	v := r.volume(n, volumeRequest("data", 64<<20, asFiles))
	s := r.snapshot(n, "s", v.VolumeId)
	info, err := os.Stat(r.store().snapshots.image(s.SnapshotId))
	check(t, err)
	if info.Size() != 64<<20 {
		t.Errorf("the snapshot's image has %d bytes", info.Size())
	}
}

func TestKilledStageIsRepeated(t *testing.T) {
	for _, test := range []struct {
		name string
		as   []*csi.VolumeCapability
	}{{"ext4", asFiles}, {"raw device", asBlock}} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			n := r.start("a", "loop attached")
			v := r.volume(n, volumeRequest("data", 16<<20, test.as))
			_, err := n.NodeStageVolume(r.ctx(), &csi.NodeStageVolumeRequest{
				VolumeId: v.VolumeId, StagingTargetPath: r.path("stage-" + v.VolumeId), VolumeCapability: test.as[0],
			})
			wantCode(t, err, codes.Unavailable)
			<-n.exited
			n = r.start("a", "")
			r.use(n, v.VolumeId, test.as, false)
			if devices := must(loopsOn(r.store().volumes.image(v.VolumeId))); len(devices) != 1 {
				t.Errorf("attached to %v", devices)
			}
			r.release(n, v.VolumeId)
			r.wantEmpty(n, []string{v.VolumeId})
		})
	}
}

func TestRestartedDriverKnowsWhatIsMounted(t *testing.T) {
	for _, test := range []struct {
		name string
		as   []*csi.VolumeCapability
	}{{"ext4", asFiles}, {"raw device", asBlock}} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			n := r.start("a", "")
			v := r.volume(n, volumeRequest("data", 16<<20, test.as))
			r.use(n, v.VolumeId, test.as, false)
			before := must(mountsOf(must(loopsOn(r.store().volumes.image(v.VolumeId)))))
			n.kill()
			n = r.start("a", "")
			r.use(n, v.VolumeId, test.as, false)
			after := must(mountsOf(must(loopsOn(r.store().volumes.image(v.VolumeId)))))
			if len(before) != 2 || !slices.Equal(before, after) {
				t.Errorf("mounted before %v, after the restart %v", before, after)
			}
			r.release(n, v.VolumeId)
			r.wantEmpty(n, []string{v.VolumeId})
		})
	}
}

func TestNodeThatLostItsMountsBeginsAnew(t *testing.T) {
	for _, test := range []struct {
		name string
		as   []*csi.VolumeCapability
		file string
	}{{"ext4", asFiles, "file"}, {"raw device", asBlock, ""}} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.apart = true
			n := r.start("a", "")
			v := r.volume(n, volumeRequest("data", 16<<20, test.as))
			write(t, filepath.Join(n.inside(r.use(n, v.VolumeId, test.as, false)), test.file), "text", true)
			n.kill() // and with it the mount namespace
			n = r.start("a", "")
			if got := read(t, filepath.Join(n.inside(r.use(n, v.VolumeId, test.as, false)), test.file)); got != "text" {
				t.Errorf("the volume holds %q", got)
			}
			if loops := must(loopsOn(r.store().volumes.image(v.VolumeId))); len(loops) != 1 {
				t.Errorf("attached to %v", loops)
			}
			r.release(n, v.VolumeId)
			r.wantEmpty(n, []string{v.VolumeId})
		})
	}
}

// wantEmpty deletes the volumes and snapshots and checks that the driver's
// folder holds nothing more.
func (r *rig) wantEmpty(n *node, volumes []string, snapshots ...string) {
	r.t.Helper()
	for _, id := range volumes {
		_, err := n.DeleteVolume(r.ctx(), &csi.DeleteVolumeRequest{VolumeId: id})
		check(r.t, err)
	}
	for _, id := range snapshots {
		_, err := n.DeleteSnapshot(r.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: id})
		check(r.t, err)
	}
	for _, dir := range []string{"volumes", "snapshots", "errors"} {
		if left := names(r.t, r.store().path(dir)); len(left) > 0 {
			r.t.Errorf("in %s there is left %v", dir, left)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
