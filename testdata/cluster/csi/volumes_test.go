package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestCloneIsIndependent(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	v := r.volume(n, volumeRequest("data", 64<<20, asFiles))
	dir := r.use(n, v.VolumeId, asFiles, false)
	write(t, filepath.Join(dir, "file"), "before", true)
	s := r.snapshot(n, "s", v.VolumeId)
	write(t, filepath.Join(dir, "file"), "after!", true)

	c := r.volume(n, cloneRequest("clone", s.SnapshotId, 0, asFiles))
	cloned := r.use(n, c.VolumeId, asFiles, false)
	if got := read(t, filepath.Join(cloned, "file")); got != "before" {
		t.Errorf("the clone holds %q", got)
	}
	write(t, filepath.Join(cloned, "file"), "cloned", true)
	if got := read(t, filepath.Join(dir, "file")); got != "after!" {
		t.Errorf("after a write to the clone the volume holds %q", got)
	}
	r.release(n, v.VolumeId)
	r.release(n, c.VolumeId)

	second := r.volume(n, cloneRequest("second", s.SnapshotId, 0, asFiles))
	_, err := n.DeleteSnapshot(r.ctx(), &csi.DeleteSnapshotRequest{SnapshotId: s.SnapshotId})
	check(t, err)
	_, err = n.DeleteVolume(r.ctx(), &csi.DeleteVolumeRequest{VolumeId: v.VolumeId})
	check(t, err)
	if got := read(t, filepath.Join(r.use(n, second.VolumeId, asFiles, false), "file")); got != "before" {
		t.Errorf("a second clone, without its snapshot and volume, holds %q", got)
	}
}

func TestCloneMayBeLarger(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	v := r.volume(n, volumeRequest("data", 64<<20, asFiles))
	dir := r.use(n, v.VolumeId, asFiles, false)
	write(t, filepath.Join(dir, "file"), "text", true)
	s := r.snapshot(n, "s", v.VolumeId) // in use: with a journal to replay
	if s.SizeBytes != 64<<20 {
		t.Errorf("the snapshot tells size %d", s.SizeBytes)
	}
	c := r.volume(n, cloneRequest("clone", s.SnapshotId, 256<<20, asFiles))
	if c.CapacityBytes != 256<<20 {
		t.Errorf("the clone tells size %d", c.CapacityBytes)
	}
	cloned := r.use(n, c.VolumeId, asFiles, false)
	var fsInfo unix.Statfs_t
	check(t, unix.Statfs(cloned, &fsInfo))
	if size := int64(fsInfo.Blocks) * fsInfo.Bsize; size < 200<<20 || size > 256<<20 {
		t.Errorf("the clone's file system has %d bytes", size)
	}
	if got := read(t, filepath.Join(cloned, "file")); got != "text" {
		t.Errorf("the clone holds %q", got)
	}
	_, err := n.CreateVolume(r.ctx(), cloneRequest("small", s.SnapshotId, 32<<20, asFiles))
	wantCode(t, err, codes.OutOfRange)
}

func TestVolumeIsFullAsADiskIs(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	bytes := r.use(n, r.volume(n, volumeRequest("bytes", 16<<20, asFiles)).VolumeId, asFiles, false)
	chunk := make([]byte, 1<<20)
	f := open(t, filepath.Join(bytes, "file"))
	var err error
	written := 0
	for ; err == nil; written++ {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, unix.ENOSPC) || written > 16 {
		t.Errorf("16 MiB took %d MiB, then %v", written, err)
	}

	inodes := r.use(n, r.volume(n, volumeRequest("inodes", 16<<20, asFiles)).VolumeId, asFiles, false)
	var before, after unix.Statfs_t
	check(t, unix.Statfs(inodes, &before))
	files := uint64(0)
	for err = nil; err == nil; files++ {
		err = os.WriteFile(filepath.Join(inodes, fmt.Sprint(files)), nil, 0o600)
	}
	check(t, unix.Statfs(inodes, &after))
	if !errors.Is(err, unix.ENOSPC) || files-1 != before.Ffree || after.Ffree != 0 || after.Bfree == 0 {
		t.Errorf("with %d inodes free %d files were made, then %v with %d blocks free", before.Ffree, files-1, err, after.Bfree)
	}
}

func TestReadOnlyPublish(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	v := r.volume(n, volumeRequest("files", 16<<20, asFiles))
	dir := r.use(n, v.VolumeId, asFiles, true)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write below a read-only target: %v", err)
	}
	r.release(n, v.VolumeId)

	v = r.volume(n, volumeRequest("device", 16<<20, asBlock))
	device := r.use(n, v.VolumeId, asBlock, true)
	f := open(t, device)
	if _, err := f.Write([]byte("text")); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to a read-only device: %v", err)
	}
	f.Close()
	r.release(n, v.VolumeId)
	write(t, r.use(n, v.VolumeId, asBlock, false), "text", true)
	r.release(n, v.VolumeId)
	if got := read(t, r.use(n, v.VolumeId, asBlock, true)); got != "text" {
		t.Errorf("the device holds %q", got)
	}
	_, err := n.NodePublishVolume(r.ctx(), &csi.NodePublishVolumeRequest{
		VolumeId: v.VolumeId, StagingTargetPath: r.path("stage-" + v.VolumeId), TargetPath: r.path("another"), VolumeCapability: asBlock[0],
	})
	wantCode(t, err, codes.FailedPrecondition)
	r.release(n, v.VolumeId)
	device = r.use(n, v.VolumeId, asBlock, true)
	_, err = n.NodeUnpublishVolume(r.ctx(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.VolumeId, TargetPath: device})
	check(t, err)
	if loops := must(loopsOn(r.store().volumes.image(v.VolumeId))); len(loops) != 1 {
		t.Errorf("staged only it is attached to %v", loops)
	}
	r.release(n, v.VolumeId)
	// The kernel gives the device that was just freed to the next volume.
	v = r.volume(n, volumeRequest("next", 16<<20, asFiles))
	write(t, filepath.Join(r.use(n, v.VolumeId, asFiles, false), "file"), "text", true)
}

func TestNodesShareThePoolButNotAVolumeInUse(t *testing.T) {
	r := newRig(t)
	a, b := r.start("a", ""), r.start("b", "")
	v := r.volume(a, volumeRequest("data", 16<<20, asFiles))
	write(t, filepath.Join(r.use(a, v.VolumeId, asFiles, false), "file"), "text", true)
	stage := &csi.NodeStageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: r.path("stage-b"), VolumeCapability: asFiles[0]}
	_, err := b.NodeStageVolume(r.ctx(), stage)
	wantCode(t, err, codes.FailedPrecondition)
	_, err = b.DeleteVolume(r.ctx(), &csi.DeleteVolumeRequest{VolumeId: v.VolumeId})
	wantCode(t, err, codes.FailedPrecondition)
	s := r.snapshot(b, "s", v.VolumeId)
	c := r.volume(b, cloneRequest("clone", s.SnapshotId, 0, asFiles))
	if got := read(t, filepath.Join(r.use(b, c.VolumeId, asFiles, false), "file")); got != "text" {
		t.Errorf("the clone on the other node holds %q", got)
	}
	r.release(a, v.VolumeId)
	if got := read(t, filepath.Join(r.use(b, v.VolumeId, asFiles, false), "file")); got != "text" {
		t.Errorf("moved to the other node the volume holds %q", got)
	}
}

func TestVolumeIsStagedAtOnePlace(t *testing.T) {
	for name, as := range map[string][]*csi.VolumeCapability{"ext4": asFiles, "raw device": asBlock} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			n := r.start("a", "")
			v := r.volume(n, volumeRequest("data", 16<<20, as))
			r.use(n, v.VolumeId, as, false)
			_, err := n.NodeStageVolume(r.ctx(), &csi.NodeStageVolumeRequest{
				VolumeId: v.VolumeId, StagingTargetPath: r.path("elsewhere"), VolumeCapability: as[0],
			})
			wantCode(t, err, codes.FailedPrecondition)
		})
	}
}

func TestDriversDoNotMixUpVolumesOfOneName(t *testing.T) {
	r, other := newRig(t), newRig(t)
	n, m := r.start("a", ""), other.start("b", "")
	v, w := r.volume(n, volumeRequest("data", 16<<20, asFiles)), other.volume(m, volumeRequest("data", 16<<20, asFiles))
	if v.VolumeId != w.VolumeId {
		t.Errorf("the ids %s and %s differ: this test shows nothing", v.VolumeId, w.VolumeId)
	}
	write(t, filepath.Join(r.use(n, v.VolumeId, asFiles, false), "file"), "text", true)
	if got, want := names(t, other.use(m, w.VolumeId, asFiles, false)), []string{"lost+found"}; !slices.Equal(got, want) {
		t.Errorf("the other volume holds %v, want %v", got, want)
	}
	other.release(m, w.VolumeId)
	other.wantEmpty(m, []string{w.VolumeId})
	r.release(n, v.VolumeId)
}

func TestNodesWithMountsOfTheirOwnShareThePool(t *testing.T) {
	for _, test := range []struct {
		name string
		as   []*csi.VolumeCapability
		file string
	}{{"ext4", asFiles, "file"}, {"raw device", asBlock, ""}} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.apart = true
			a, b := r.start("a", ""), r.start("b", "")
			v := r.volume(a, volumeRequest("data", 16<<20, test.as))
			onA := filepath.Join(a.inside(r.use(a, v.VolumeId, test.as, false)), test.file)
			write(t, onA, "text", true)
			stage := &csi.NodeStageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: r.path("stage-" + v.VolumeId), VolumeCapability: test.as[0]}
			_, err := b.NodeStageVolume(r.ctx(), stage)
			wantCode(t, err, codes.FailedPrecondition)
			_, err = b.NodeUnstageVolume(r.ctx(), &csi.NodeUnstageVolumeRequest{VolumeId: v.VolumeId, StagingTargetPath: stage.StagingTargetPath})
			check(t, err)
			_, err = b.DeleteVolume(r.ctx(), &csi.DeleteVolumeRequest{VolumeId: v.VolumeId})
			wantCode(t, err, codes.FailedPrecondition)
			write(t, onA, "more", true)
			s := r.snapshot(b, "s", v.VolumeId)
			c := r.volume(b, cloneRequest("clone", s.SnapshotId, 0, test.as))
			if got := read(t, filepath.Join(b.inside(r.use(b, c.VolumeId, test.as, false)), test.file)); got != "more" {
				t.Errorf("the clone on the other node holds %q", got)
			}
			r.release(a, v.VolumeId)
			if got := read(t, filepath.Join(b.inside(r.use(b, v.VolumeId, test.as, false)), test.file)); got != "more" {
				t.Errorf("moved to the other node the volume holds %q", got)
			}
			r.release(b, v.VolumeId)
			r.release(b, c.VolumeId)
			r.wantEmpty(b, []string{v.VolumeId, c.VolumeId}, s.SnapshotId)
		})
	}
}

func TestTopology(t *testing.T) {
	r := newRig(t)
	n := r.start("own", "")
	on := func(nodes ...string) []*csi.Topology {
		var all []*csi.Topology
		for _, node := range nodes {
			all = append(all, &csi.Topology{Segments: map[string]string{"topology." + r.driver + "/node": node}})
		}
		return all
	}
	info, err := n.NodeGetInfo(r.ctx(), &csi.NodeGetInfoRequest{})
	check(t, err)
	wantNodes(t, []*csi.Topology{info.AccessibleTopology}, on("own"))

	pinned := volumeRequest("pinned", 16<<20, asFiles)
	pinned.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: on("b"), Preferred: on("b")}
	v := r.volume(n, pinned)
	wantNodes(t, v.AccessibleTopology, on("b"))
	wantNodes(t, r.volume(n, pinned).AccessibleTopology, on("b"))
	s := r.snapshot(n, "s", v.VolumeId)

	for _, test := range []struct {
		name      string
		local     string
		snapshot  string
		requisite []string
		preferred []string
		want      []string
		code      codes.Code
	}{
		{name: "no requirement binds to no node"},
		{name: "several nodes bind to none", requisite: []string{"a", "b"}, preferred: []string{"b", "a"}},
		{name: "local binds to the preferred node", local: "true", requisite: []string{"a", "b"}, preferred: []string{"b", "a"}, want: []string{"b"}},
		{name: "local without a requirement binds to the driver's node", local: "true", want: []string{"own"}},
		{name: "local=false binds to none", local: "false"},
		{name: "a clone follows its snapshot", snapshot: s.SnapshotId, want: []string{"b"}},
		{name: "a clone follows its snapshot out of several", snapshot: s.SnapshotId, requisite: []string{"a", "b"}, want: []string{"b"}},
		{name: "a clone elsewhere is refused", snapshot: s.SnapshotId, requisite: []string{"a"}, code: codes.ResourceExhausted},
		{name: "another parameter is refused", local: "maybe", code: codes.InvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := volumeRequest(test.name, 16<<20, asFiles)
			if test.snapshot != "" {
				req = cloneRequest(test.name, test.snapshot, 16<<20, asFiles)
			}
			if test.local != "" {
				req.Parameters["local"] = test.local
			}
			if test.requisite != nil {
				req.AccessibilityRequirements = &csi.TopologyRequirement{Requisite: on(test.requisite...), Preferred: on(test.preferred...)}
			}
			resp, err := n.CreateVolume(r.ctx(), req)
			wantCode(t, err, test.code)
			wantNodes(t, resp.GetVolume().GetAccessibleTopology(), on(test.want...))
		})
	}
}

func TestConcurrentCallsMakeOneThing(t *testing.T) {
	r := newRig(t)
	nodes := []*node{r.start("a", ""), r.start("b", "")}
	ids := make([]string, 8)
	cuts := make([]string, len(ids))
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			n := nodes[i%2]
			v, err := n.CreateVolume(r.ctx(), volumeRequest("data", 16<<20, asFiles))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = v.Volume.VolumeId
			s, err := n.CreateSnapshot(r.ctx(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: ids[i]})
			if err != nil {
				t.Error(err)
				return
			}
			cuts[i] = s.Snapshot.CreationTime.AsTime().String()
		})
	}
	all.Wait()
	if len(slices.Compact(ids)) != 1 || len(slices.Compact(cuts)) != 1 {
		t.Errorf("made the volumes %v cut at %v", ids, cuts)
	}
}

func TestWithoutSnapshots(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "", "--snapshots=false")
	resp, err := n.ControllerGetCapabilities(r.ctx(), &csi.ControllerGetCapabilitiesRequest{})
	check(t, err)
	var got []string
	for _, c := range resp.Capabilities {
		got = append(got, c.GetRpc().Type.String())
	}
	if want := []string{"CREATE_DELETE_VOLUME", "SINGLE_NODE_MULTI_WRITER"}; !slices.Equal(got, want) {
		t.Errorf("capabilities %v, want %v", got, want)
	}
	v := r.volume(n, volumeRequest("data", 16<<20, asFiles))
	_, err = n.CreateSnapshot(r.ctx(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.VolumeId})
	wantCode(t, err, codes.Unimplemented)
	_, err = n.ListSnapshots(r.ctx(), &csi.ListSnapshotsRequest{})
	wantCode(t, err, codes.Unimplemented)
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("answered %v, want %v", err, want)
	}
}

func wantNodes(t *testing.T, got, want []*csi.Topology) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("accessible from %v, want %v", got, want)
	}
}
