package main

import (
	"path/filepath"
	"testing"
)

func TestCloneHoldsWhatWasThereAtTheCut(t *testing.T) {
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
}
