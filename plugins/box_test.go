package plugins_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

const (
	nonce = "0123456789abcdef0123456789abcdef"
	run   = "20261122-011500-x7k2"
)

// box stands for a container: a shell, what is on its PATH, its environment and
// a directory that is its volume.
type box struct {
	t      *testing.T
	shell  string // "dash" or "busybox"
	bin    string // stub programs, first on PATH
	volume string // what df says is the mount
	env    []string
	uid    int
}

// serverUID is the user that test servers run as: PostgreSQL refuses root.
const serverUID = 65534

// shells runs f once in each shell that scripts must work in.
func shells(t *testing.T, f func(t *testing.T, b *box)) {
	for _, shell := range []string{"dash", "busybox"} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("no %s on this machine", shell)
			}
			f(t, newBox(t, shell))
		})
	}
}

// serve has the box run as a user that servers take, and its volume theirs.
func (b *box) serve() {
	b.t.Helper()
	if os.Getuid() == 0 {
		b.uid = serverUID
		must(b.t, os.Chown(b.volume, b.uid, b.uid))
	}
}

func newBox(t *testing.T, shell string) *box {
	t.Helper()
	dir := tempDir(t)
	b := &box{t: t, shell: shell, bin: filepath.Join(dir, "bin"), volume: filepath.Join(dir, "volume"), uid: os.Getuid()}
	must(t, os.MkdirAll(b.bin, 0o755))
	must(t, os.MkdirAll(b.volume, 0o755))
	if shell == "busybox" {
		linkApplets(t, b.bin)
	}
	b.disk(1<<20, 1<<19, 1000, 900)
	return b
}

// tempDir is one that other users can enter.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "backsnap")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// linkApplets gives dir the programs of an image that has nothing but busybox.
func linkApplets(t *testing.T, dir string) {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	must(t, err)
	out, err := exec.Command(busybox, "--list").Output()
	must(t, err)
	for name := range strings.FieldsSeq(string(out)) {
		must(t, os.Symlink(busybox, filepath.Join(dir, name)))
	}
}

// stub puts a shell script on the PATH.
func (b *box) stub(name, script string) {
	b.t.Helper()
	file := filepath.Join(b.bin, name)
	os.Remove(file)
	must(b.t, os.WriteFile(file, []byte("#!/bin/sh\n"+script), 0o755))
}

// disk has df say so: sizes in KiB, then inodes.
func (b *box) disk(size, free, inodes, freeInodes int) {
	b.stub("df", `echo "Filesystem Total Used Available Capacity Mounted on"
case $1 in
-Pi) echo "/dev/a b `+itoa(inodes)+` 1 `+itoa(freeInodes)+` 1% `+b.volume+`" ;;
*) echo "/dev/a b `+itoa(size)+` 1 `+itoa(free)+` 1% `+b.volume+`" ;;
esac
`)
}

// session is a command under way in a box.
type session struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr *stream
}

// stream keeps what is written and wakes those who wait for it.
type stream struct {
	mu   sync.Mutex
	cond *sync.Cond
	b    bytes.Buffer
}

func newStream() *stream {
	s := &stream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.cond.Broadcast()
	return s.b.Write(p)
}

func (s *stream) bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

// wait returns once ok holds for what was written.
func (s *stream) wait(ok func([]byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok(s.b.Bytes()) {
		s.cond.Wait()
	}
}

// patience is what any single command of these tests may take.
const patience = 2 * time.Minute

// start runs c as an exec would.
func (b *box) start(c plugins.Command) *session {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	shell, err := exec.LookPath(b.shell)
	must(b.t, err)
	args := c.Argv[1:]
	if b.shell == "busybox" {
		args = append([]string{"sh"}, args...)
	}
	s := &session{cmd: exec.CommandContext(ctx, shell, args...), stdout: newStream(), stderr: newStream()}
	path := b.bin + ":" + os.Getenv("PATH")
	s.cmd.Env = append([]string{"PATH=" + path, "HOME=/nonexistent"}, b.env...)
	s.cmd.Stdout, s.cmd.Stderr = s.stdout, s.stderr
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = credential(b.uid)
	s.stdin, err = s.cmd.StdinPipe()
	must(b.t, err)
	must(b.t, s.cmd.Start())
	_, err = s.stdin.Write(c.Stdin)
	must(b.t, err)
	return s
}

// end waits for the command to end, and for all that hold its output.
func (s *session) end() ([]byte, string) {
	s.cmd.Wait() // its status is in the end line
	s.stdin.Close()
	return s.stdout.bytes(), string(s.stderr.bytes())
}

// exec runs c to its end; standard input stays open all the while.
func (b *box) exec(c plugins.Command, err error) ([]byte, string) {
	b.t.Helper()
	must(b.t, err)
	return b.start(c).end()
}

// credential runs a program as uid, if that is another than ours.
func credential(uid int) *syscall.SysProcAttr {
	if uid == os.Getuid() {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

func lookup(t *testing.T, name string) plugins.Plugin {
	t.Helper()
	p, err := plugins.Lookup(name)
	must(t, err)
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
