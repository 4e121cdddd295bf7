package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// newPool makes and mounts a pool of its own.
func newPool(t *testing.T) (file, at string, s *store) {
	t.Helper()
	dir := scratch(t)
	file, at = filepath.Join(dir, "files", "pool.img"), filepath.Join(dir, "pool")
	t.Cleanup(func() { unmountPool(at) })
	check(t, os.MkdirAll(filepath.Dir(file), 0o700))
	check(t, os.WriteFile(file+".new", []byte("half a file system"), 0o600)) // as a killed call leaves it
	for range 2 {
		check(t, mountPool(file, "1G", at))
	}
	s, err := openStore(at, "a.csi.test")
	check(t, err)
	return file, at, s
}

func TestPoolKeepsWhatIsInItAndMountsTwice(t *testing.T) {
	file, at, s := newPool(t)
	check(t, s.volumes.put("v", volume{ID: "v"}))
	second := filepath.Join(scratch(t), "second") // as on a node with mounts of its own
	t.Cleanup(func() { unmountPool(second) })
	check(t, mountPool(file, "1G", second))
	if got := names(t, filepath.Join(second, "a.csi.test", "volumes")); !slices.Equal(got, []string{"v.json"}) {
		t.Errorf("mounted twice the pool holds %v", got)
	}
	for range 2 {
		check(t, unmountPool(second))
		check(t, unmountPool(at))
	}
	if left := must(loopsOn(file)); len(left) > 0 {
		t.Errorf("after unmount the devices %v are left", left)
	}
	if _, err := openStore(at, "a.csi.test"); err == nil {
		t.Error("a folder without a pool is taken for one")
	}
	check(t, mountPool(file, "1G", at))
	if got := names(t, s.volumes.dir); !slices.Equal(got, []string{"v.json"}) {
		t.Errorf("mounted again the pool holds %v", got)
	}
}

func TestUnmountedPoolTakesItsVolumesAway(t *testing.T) {
	pool, at, s := newPool(t)
	dir := scratch(t)
	attach := func(id string, flags uint32) *os.File {
		check(t, createSubvolume(s.volumes.subvolume(id)))
		check(t, os.WriteFile(s.volumes.image(id), make([]byte, 16<<20), 0o600))
		check(t, run("mkfs.ext4", "-q", "-F", s.volumes.image(id)))
		device, err := attachLoop(s.volumes.image(id), "a", flags)
		check(t, err)
		t.Cleanup(func() { device.Close() })
		return device
	}
	files := attach("files", unix.LO_FLAGS_AUTOCLEAR)
	check(t, run("mount", files.Name(), dir))
	check(t, bind(dir, dir, true))
	check(t, files.Close())

	raw, file := attach("raw", 0), filepath.Join(dir+"-device")
	check(t, bindDevice(raw.Name(), file, false))
	check(t, raw.Close())
	kubelet, err := attachLoop(file, "kubelet", 0) // it puts a device on raw volumes
	check(t, err)
	check(t, kubelet.Close())

	attach("left by a killed driver", 0).Close()
	attach("deleted", 0).Close()
	check(t, deleteSubvolume(s.volumes.subvolume("deleted")))

	check(t, unmountPool(at))
	for _, path := range []string{raw.Name(), pool} {
		if left := must(loopsOn(path)); len(left) > 0 {
			t.Errorf("the devices %v are left", left)
		}
	}
	for _, point := range []string{at, dir, file} {
		if m, there, err := mountAt(point); there || err != nil {
			t.Errorf("mounted is %v (%v)", m, err)
		}
	}
}
