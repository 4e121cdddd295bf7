package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The test binary is three programs. Started by go test it is a guard that
// runs itself again for the tests and cleans up when that process has ended,
// however it ended; the tests start it as the driver, so that they can kill it.
const (
	roleEnv = "CSI_BTRFS_TEST_ROLE" // "", "tests" or "driver"
	killEnv = "CSI_BTRFS_TEST_KILL" // the step at which the driver kills itself
	dirEnv  = "CSI_BTRFS_TEST_DIR"  // scratch folder of this run
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "driver":
		at := os.Getenv(killEnv)
		step = func(name string) {
			if name == at {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}
		main()
	case "tests":
		os.Exit(m.Run())
	default:
		code, err := guard()
		if err != nil {
			fmt.Fprintln(os.Stderr, "guard:", err)
			code = 1
		}
		os.Exit(code)
	}
}

func guard() (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests mount and attach: run them as root")
	}
	if err := cleanDead(); err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "csi-btrfs-test-")
	if err != nil {
		return 1, err
	}
	lock, err := tryLock(dir)
	if err != nil {
		return 1, err
	}
	defer lock.Close()
	defer func() { err = errors.Join(err, clean(dir)) }()
	if err := mountPool(filepath.Join(dir, "pool.img"), "20G", filepath.Join(dir, "pool")); err != nil {
		return 1, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	tests := exec.CommandContext(ctx, os.Args[0], os.Args[1:]...)
	tests.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	tests.Env = append(os.Environ(), roleEnv+"=tests", dirEnv+"="+dir)
	tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
	err = tests.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode()), nil
	}
	return 0, err
}

// cleanDead removes what runs left whose guard was killed.
func cleanDead() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "csi-btrfs-test-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		lock, err := tryLock(dir)
		if err != nil {
			continue // its guard lives
		}
		err = clean(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func tryLock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// clean takes away the pools below dir, then dir. The drivers die with the
// tests, but a moment later.
func clean(dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := unmountPools(dir)
		if err == nil {
			return os.RemoveAll(dir)
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func unmountPools(dir string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if m.fsType == "btrfs" && strings.HasPrefix(m.point, dir+"/") {
			if err := unmountPool(m.point); err != nil {
				return err
			}
		}
	}
	return nil
}

// rig is one pool folder and the processes that serve it.
type rig struct {
	t      *testing.T
	apart  bool // each node has a mount namespace of its own
	driver string
	dir    string
	faults string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := scratch(t)
	return &rig{t: t, driver: filepath.Base(dir) + ".csi.test", dir: dir, faults: filepath.Join(dir, "faults.json")}
}

// scratch makes a folder that the guard cleans up.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv(dirEnv), "rig-")
	check(t, err)
	return dir
}

func (r *rig) pool() string          { return filepath.Join(os.Getenv(dirEnv), "pool") }
func (r *rig) path(e string) string  { return filepath.Join(r.dir, e) }
func (r *rig) store() *store         { return must(openStore(r.pool(), r.driver)) }
func (r *rig) setFaults(text string) { check(r.t, writeAside(r.faults, []byte(text))) }

// node is a process of the driver and a client of it.
type node struct {
	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
	socket string
	exited chan error
	pid    int
}

// start runs a driver for the node and ends it with the test. With killAt it
// kills itself at that step.
func (r *rig) start(name, killAt string, flags ...string) *node {
	r.t.Helper()
	n := &node{socket: r.path(name + ".sock"), exited: make(chan error, 1)}
	args := append([]string{"--endpoint", n.socket, "--driver-name", r.driver, "--node-id", name,
		"--pool", r.pool(), "--faults", r.faults}, flags...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleEnv+"=driver", killEnv+"="+killAt)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if r.apart {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	os.Remove(n.socket)
	check(r.t, cmd.Start())
	n.pid = cmd.Process.Pid
	go func() { n.exited <- cmd.Wait(); close(n.exited) }()
	r.t.Cleanup(func() {
		n.kill()
		if r.t.Failed() {
			r.t.Logf("driver on %s:\n%s", name, log.String())
		}
	})
	eventually(r.t, func() bool {
		conn, err := net.Dial("unix", n.socket) // gRPC would wait a second before it tries again
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	conn := must(grpc.NewClient("unix://"+n.socket, grpc.WithTransportCredentials(insecure.NewCredentials())))
	r.t.Cleanup(func() { conn.Close() })
	n.IdentityClient, n.ControllerClient, n.NodeClient = csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	return n
}

func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	r.t.Cleanup(cancel)
	return ctx
}

// inside is where the test sees what is at path in the node's own namespace.
func (n *node) inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", n.pid, path) }

// kill ends the process with SIGKILL and waits for its end.
func (n *node) kill() {
	unix.Kill(n.pid, unix.SIGKILL)
	<-n.exited
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func mounted(c csi.VolumeCapability_AccessMode_Mode) []*csi.VolumeCapability {
	return []*csi.VolumeCapability{{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: c},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}}
}

var (
	asFiles = mounted(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)
	asBlock = []*csi.VolumeCapability{{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}}
)

// volumeRequest asks for size bytes for the claim test/<name>.
func volumeRequest(name string, size int64, as []*csi.VolumeCapability) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: as,
		Parameters:         map[string]string{claimNamespace: "test", claimName: name},
	}
}

func cloneRequest(name, snapshot string, size int64, as []*csi.VolumeCapability) *csi.CreateVolumeRequest {
	req := volumeRequest(name, size, as)
	req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
	}}
	return req
}

func (r *rig) volume(n *node, req *csi.CreateVolumeRequest) *csi.Volume {
	r.t.Helper()
	resp, err := n.CreateVolume(r.ctx(), req)
	check(r.t, err)
	return resp.Volume
}

func (r *rig) snapshot(n *node, name, volume string) *csi.Snapshot {
	r.t.Helper()
	resp, err := n.CreateSnapshot(r.ctx(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	check(r.t, err)
	return resp.Snapshot
}

// use stages and publishes the volume and returns the path where it is.
func (r *rig) use(n *node, volume string, as []*csi.VolumeCapability, readOnly bool) string {
	r.t.Helper()
	staging, target := r.path("stage-"+volume), r.path("pod-"+volume)
	_, err := n.NodeStageVolume(r.ctx(), &csi.NodeStageVolumeRequest{
		VolumeId: volume, StagingTargetPath: staging, VolumeCapability: as[0],
	})
	check(r.t, err)
	_, err = n.NodePublishVolume(r.ctx(), &csi.NodePublishVolumeRequest{
		VolumeId: volume, StagingTargetPath: staging, TargetPath: target, VolumeCapability: as[0], Readonly: readOnly,
	})
	check(r.t, err)
	return target
}

// release undoes use.
func (r *rig) release(n *node, volume string) {
	r.t.Helper()
	_, err := n.NodeUnpublishVolume(r.ctx(), &csi.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: r.path("pod-" + volume)})
	check(r.t, err)
	_, err = n.NodeUnstageVolume(r.ctx(), &csi.NodeUnstageVolumeRequest{VolumeId: volume, StagingTargetPath: r.path("stage-" + volume)})
	check(r.t, err)
	if loops := must(loopsOn(r.store().volumes.image(volume))); len(loops) > 0 {
		r.t.Errorf("after unstage %s is still attached to %v", volume, loops)
	}
	if _, err := os.Lstat(r.path("pod-" + volume)); !errors.Is(err, fs.ErrNotExist) {
		r.t.Errorf("after unpublish the target is still there: %v", err)
	}
}

func write(t *testing.T, path, text string, sync bool) {
	t.Helper()
	f := must(os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600))
	defer f.Close()
	must(f.WriteString(text))
	if sync {
		check(t, f.Sync())
		dir := must(os.Open(filepath.Dir(path)))
		defer dir.Close()
		check(t, dir.Sync())
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return strings.TrimRight(string(text), "\x00")
}
