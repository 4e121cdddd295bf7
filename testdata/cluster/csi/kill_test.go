package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
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

func TestPoolIsPutUpAndAwayAgain(t *testing.T) {
	dir := t.TempDir()
	file, at := filepath.Join(dir, "files", "pool.img"), filepath.Join(dir, "pool")
	check(t, os.MkdirAll(filepath.Dir(file), 0o700))
	check(t, os.WriteFile(file+".new", []byte("half a file system"), 0o600)) // as a killed call leaves it
	t.Cleanup(func() { unmountPool(at) })
	for range 2 {
		check(t, mountPool(file, "1G", at))
	}
	s, err := openStore(at, "a.csi.test")
	check(t, err)
	check(t, createSubvolume(s.volumes.subvolume("v")))
	check(t, os.WriteFile(s.volumes.image("v"), make([]byte, 16<<20), 0o600))
	check(t, run("mkfs.ext4", "-q", "-F", s.volumes.image("v")))
	for name, autoclear := range map[string]bool{"mounted": true, "attached": false} {
		device, err := attachLoop(s.volumes.image("v"), autoclear)
		check(t, err)
		point := filepath.Join(dir, name)
		check(t, os.Mkdir(point, 0o700))
		if autoclear {
			check(t, run("mount", device.Name(), point))
			check(t, bind(point, point, true))
		}
		check(t, device.Close())
	}
	for range 2 {
		check(t, unmountPool(at))
	}
	left := append(must(loopsOn(at)), must(loopsOn(file))...)
	var fsInfo unix.Statfs_t
	check(t, unix.Statfs(at, &fsInfo))
	if len(left) > 0 || fsInfo.Type == unix.BTRFS_SUPER_MAGIC {
		t.Errorf("after unmount loops %v and file system %x are left", left, fsInfo.Type)
	}
	if _, err := openStore(at, "a.csi.test"); err == nil {
		t.Error("a folder without a pool is taken for one")
	}
	check(t, mountPool(file, "1G", at))
	if got := names(t, s.volumes.subvolume("v")); !slices.Equal(got, []string{"image"}) {
		t.Errorf("mounted again the volume holds %v", got)
	}
	check(t, unmountPool(at))
}
