package images_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/cluster/images"
)

// These tests run the images with runc as a kubelet would have them run: as
// process 1, with a container's capabilities, in a network of their own.

const patience = 2 * time.Minute

// scratch is a directory for all tests of this run, or empty if they are not
// asked for.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if os.Getenv("BACKSNAP_IMAGE_TESTS") == "1" {
		dir, err := os.MkdirTemp("", "images-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		scratch = dir
	}
	return m.Run()
}

// build builds the images, with a stand-in for restic, into the cache that the
// cluster uses.
var build = sync.OnceValues(func() ([]images.Image, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	restic := filepath.Join(scratch, "restic")
	if err := os.WriteFile(restic, []byte("#!/bin/sh\necho \"restic $*\"\n"), 0o755); err != nil {
		return nil, err
	}
	o := images.Options{Cache: filepath.Join(cache, "kubectl-backsnap"), Restic: restic, Log: os.Stderr}
	return images.Build(context.Background(), o)
})

// image is an unpacked image and what it says of its process.
type image struct {
	rootfs string
	Config struct {
		User, StopSignal     string
		Env, Entrypoint, Cmd []string
	}
}

var unpacking sync.Mutex

// unpack returns the image of this reference, unpacked once for all tests.
func unpack(t *testing.T, ref string) image {
	t.Helper()
	if scratch == "" {
		t.Skip("runs containers as root: set BACKSNAP_IMAGE_TESTS=1")
	}
	all, err := build()
	if err != nil {
		t.Fatal(err)
	}
	var archive string
	for _, i := range all {
		if i.Ref == ref {
			archive = i.Tar
		}
	}
	unpacking.Lock()
	defer unpacking.Unlock()
	dir := filepath.Join(scratch, filepath.Base(archive))
	img := image{rootfs: filepath.Join(dir, "rootfs")}
	fresh := os.MkdirAll(img.rootfs, 0o755) == nil && os.Mkdir(filepath.Join(dir, "archive"), 0o755) == nil
	if fresh {
		must(t, "tar", "-xf", archive, "-C", filepath.Join(dir, "archive"))
	}
	var manifests []struct {
		Config string
		Layers []string
	}
	read(t, filepath.Join(dir, "archive", "manifest.json"), &manifests)
	read(t, filepath.Join(dir, "archive", manifests[0].Config), &img)
	if fresh {
		for _, l := range manifests[0].Layers {
			must(t, "tar", "-xpf", filepath.Join(dir, "archive", l), "--numeric-owner", "-C", img.rootfs)
		}
	}
	return img
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// must runs a command that has to succeed, and returns what it wrote.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// run is what a pod asks for.
type run struct {
	ref     string
	env     []string
	args    []string          // instead of the image's own
	shell   string            // a script to run instead of the entrypoint
	uid     int               // another one than the image's, with group 0 and fsGroup
	volumes map[string]string // directory by path in the container
}

// fsGroup is the group that a kubelet gives to a volume for a pod that is not root.
const fsGroup = 2000

// container is one running, or ended, container.
type container struct {
	t      *testing.T
	id     string
	stop   string        // signal
	output string        // file
	ended  chan struct{} // closed when err is set
	err    error
}

var started atomic.Int64

// start starts a container, and ends it with the test.
func start(t *testing.T, r run) *container {
	t.Helper()
	img := unpack(t, r.ref)
	bundle, err := os.MkdirTemp(scratch, "bundle-") // overlay takes no path with a comma in it
	if err != nil {
		t.Fatal(err)
	}
	overlay(t, img.rootfs, bundle)
	writeSpec(t, bundle, img, r)
	c := &container{
		t: t, id: fmt.Sprintf("images-%d-%d", os.Getpid(), started.Add(1)), stop: cmp.Or(img.Config.StopSignal, "SIGTERM"),
		output: filepath.Join(bundle, "output"), ended: make(chan struct{}),
	}
	output, err := os.Create(c.output)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd := exec.Command("runc", "run", "--bundle", bundle, c.id)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.ended)
	}()
	t.Cleanup(func() {
		exec.Command("runc", "kill", c.id, "KILL").Run() // it may have ended
		<-c.ended
		if t.Failed() {
			t.Logf("%s\n%s", c.id, c.log())
		}
	})
	return c
}

// overlay mounts a file system on bundle/rootfs whose changes last as long as the test.
func overlay(t *testing.T, lower, bundle string) {
	t.Helper()
	upper, work, root := filepath.Join(bundle, "upper"), filepath.Join(bundle, "work"), filepath.Join(bundle, "rootfs")
	for _, dir := range []string{upper, work, root} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "mount", "-t", "overlay", "overlay", "-o", "lowerdir="+lower+",upperdir="+upper+",workdir="+work, root)
	t.Cleanup(func() { must(t, "umount", root) })
}

// capabilities are those that a container runtime gives to root.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

func writeSpec(t *testing.T, bundle string, img image, r run) {
	t.Helper()
	must(t, "runc", "spec", "--bundle", bundle)
	path := filepath.Join(bundle, "config.json")
	var spec map[string]any
	read(t, path, &spec)
	args := append(slices.Clone(img.Config.Entrypoint), img.Config.Cmd...)
	switch {
	case r.shell != "":
		args = []string{"sh", "-c", r.shell}
	case r.args != nil:
		args = append(slices.Clone(img.Config.Entrypoint), r.args...)
	}
	caps := map[string]any{"bounding": capabilities}
	user := map[string]any{"uid": r.uid, "gid": 0}
	if r.uid == 0 {
		caps["effective"], caps["permitted"] = capabilities, capabilities
	} else {
		user["additionalGids"] = []int{fsGroup}
	}
	spec["process"] = map[string]any{
		"args": args, "env": slices.Concat(img.Config.Env, r.env), "cwd": "/", "user": user, "capabilities": caps,
	}
	spec["root"] = map[string]any{"path": "rootfs"}
	mounts := spec["mounts"].([]any)
	for in, dir := range r.volumes {
		mounts = append(mounts, map[string]any{"destination": in, "type": "bind", "source": dir, "options": []string{"rbind", "rw"}})
	}
	spec["mounts"] = mounts
	b, err := json.Marshal(spec)
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// exec runs a command in the container with more environment, and returns what
// it wrote without the space around it.
func (c *container) exec(env []string, args ...string) (string, error) {
	all := []string{"exec"}
	for _, e := range env {
		all = append(all, "--env", e)
	}
	out, err := exec.Command("runc", append(append(all, c.id), args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// serve gives the container an address that is not its loopback, where
// databases let everyone in, and waits until answers says yes.
func (c *container) serve(answers func() error) {
	c.t.Helper()
	c.await("started", func() error {
		var state struct{ Pid int }
		out, err := exec.Command("runc", "state", c.id).Output()
		if err != nil {
			return err
		}
		if err := json.Unmarshal(out, &state); err != nil || state.Pid == 0 {
			return fmt.Errorf("no process: %w", err)
		}
		return exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", state.Pid), "ip", "address", "replace", address+"/32", "dev", "lo").Run()
	})
	c.await("ready", answers)
}

// address is the one of a container, in a network that ends there.
const address = "192.0.2.1"

func (c *container) await(what string, done func() error) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-c.ended:
			c.t.Fatalf("%s: ended before it was %s: %v", c.id, what, c.err)
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not %s in time: %v", c.id, what, err)
		}
	}
}

// end sends the image's stop signal.
func (c *container) end() (exitCode int, log string) {
	c.t.Helper()
	must(c.t, "runc", "kill", c.id, c.stop)
	return c.wait()
}

// wait returns the exit code and all output once the container has ended.
func (c *container) wait() (exitCode int, log string) {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatalf("%s: does not end", c.id)
	}
	var exit *exec.ExitError
	switch {
	case c.err == nil:
		return 0, c.log()
	case !errors.As(c.err, &exit):
		c.t.Fatal(c.err)
	}
	return exit.ExitCode(), c.log()
}

// log is all output so far.
func (c *container) log() string {
	c.t.Helper()
	b, err := os.ReadFile(c.output)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b)
}
