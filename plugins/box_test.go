package plugins_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
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

// patience is what any single command of these tests may take.
const patience = 2 * time.Minute

// serverUID is the user that servers run as here: PostgreSQL refuses root.
const serverUID = 65534

// box stands for a container: a shell, the programs of its image, its
// environment, and a directory that is its volume.
type box struct {
	t      testing.TB
	shell  string // "dash" or "busybox"
	dir    string // for the test's own use
	bin    string // all that is on its PATH
	volume string // what df says is the mount
	env    []string
	uid    int
}

// shells runs f once for each shell that scripts must work in, each with the
// programs that go with it; SHELLS=bash has all tests run in that one.
func shells(t *testing.T, f func(t *testing.T, b *box)) {
	t.Helper()
	for _, shell := range strings.Fields(cmp.Or(os.Getenv("SHELLS"), "dash busybox")) {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("no %s on this machine: apt-get install %s", shell, shell)
			}
			f(t, newBox(t, shell))
		})
	}
}

func newBox(t testing.TB, shell string) *box {
	t.Helper()
	dir := tempDir(t)
	b := &box{t: t, shell: shell, dir: dir, bin: filepath.Join(dir, "bin"), volume: filepath.Join(dir, "volume"), uid: os.Getuid()}
	must(t, os.MkdirAll(b.bin, 0o755))
	must(t, os.MkdirAll(b.volume, 0o755))
	if shell == "busybox" {
		b.applets()
	} else {
		b.link("cat", "chown", "cp", "date", "dd", "grep", "gzip", "head", "id", "ls", "mv", "od", "rm", "sed", "setpriv",
			"sh", "sha256sum", "sleep", "sync", "tail", "tee", "touch", "tr", "wc", "zstd")
	}
	b.disk(1<<20, 1<<19, 65536, 60000)
	return b
}

// tempDir is one that other users can enter.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "backsnap")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// applets gives the box the programs of an image that has only busybox.
func (b *box) applets() {
	b.t.Helper()
	busybox, err := exec.LookPath("busybox")
	must(b.t, err)
	out, err := exec.Command(busybox, "--list").Output()
	must(b.t, err)
	for name := range strings.FieldsSeq(string(out)) {
		must(b.t, os.Symlink(busybox, filepath.Join(b.bin, name)))
	}
	b.remove("setpriv") // it knows no --reuid
}

// link puts programs of this machine into the box, as far as there are any.
func (b *box) link(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.remove(name)
		if file, err := exec.LookPath(name); err == nil {
			must(b.t, os.Symlink(file, filepath.Join(b.bin, name)))
		}
	}
}

func (b *box) remove(names ...string) {
	for _, name := range names {
		os.Remove(filepath.Join(b.bin, name))
	}
}

// stub puts a shell script on the PATH. $DIR in it is the box's own directory.
func (b *box) stub(name, script string) {
	b.t.Helper()
	b.remove(name)
	must(b.t, os.WriteFile(filepath.Join(b.bin, name), []byte("#!/bin/sh\nDIR="+b.dir+"\n"+script), 0o755))
}

// disk has df say so: sizes in KiB, then inodes.
func (b *box) disk(size, free, inodes, freeInodes int) {
	b.stub("df", fmt.Sprintf(`echo "Filesystem Total Used Available Capacity Mounted on"
case $1 in
-Pi) echo "host:/a b- c %d 1 %d 1%% %s" ;;
*) echo "host:/a b- c %d 1 %d 1%% %s" ;;
esac
`, inodes, freeInodes, b.volume, size, free, b.volume))
}

// serve has the box run as a user that servers accept, and its volume theirs.
func (b *box) serve() {
	b.t.Helper()
	if os.Getuid() == 0 {
		b.uid = serverUID
		must(b.t, os.Chown(b.volume, b.uid, b.uid))
		must(b.t, os.Chown(b.dir, b.uid, b.uid))
	}
}

// files is what the volume's directory dir holds: content by name, directories
// left out.
func (b *box) files(dir string) map[string]string {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.volume, dir))
	must(b.t, err)
	files := map[string]string{}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(b.volume, dir, e.Name()))
		must(b.t, err)
		files[e.Name()] = string(text)
	}
	return files
}

// older puts the dump of an earlier run on the volume.
func (b *box) older() {
	b.t.Helper()
	const list = `{"version":1,"run":"old","estimateKiB":2048,"parts":[{"what":"all","file":".backsnap-old-1.dump","format":"sql","bytes":4,"sha256":"00"}]}`
	for name, text := range map[string]string{".backsnap-dump.json": list + "\n", ".backsnap-old-1.dump": "good"} {
		file := filepath.Join(b.volume, name)
		must(b.t, os.WriteFile(file, []byte(text), 0o600))
		must(b.t, os.Chown(file, b.uid, -1))
	}
}

// dumps are the names among the volume's files that are ours.
func (b *box) dumps() []string {
	b.t.Helper()
	var ours []string
	for _, name := range slices.Sorted(maps.Keys(b.files(""))) {
		if strings.HasPrefix(name, ".backsnap") {
			ours = append(ours, name)
		}
	}
	return ours
}

// content is what a stub has left in the box's own directory.
func (b *box) content(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	must(b.t, err)
	return string(text)
}

// signal makes a pipe in the box's own directory through which a stub says that
// it has come somewhere: `echo >$DIR/name`. The function returned waits for it.
func (b *box) signal(name string) func() {
	b.t.Helper()
	file := filepath.Join(b.dir, name)
	must(b.t, syscall.Mkfifo(file, 0o666))
	must(b.t, os.Chmod(file, 0o666))
	return func() {
		b.t.Helper()
		_, err := os.ReadFile(file)
		must(b.t, err)
	}
}

// session is a command under way in a box.
type session struct {
	cmd            *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr buffer
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs c as an exec would.
func (b *box) start(c plugins.Command, err error) *session {
	b.t.Helper()
	must(b.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	shell, err := exec.LookPath(b.shell)
	must(b.t, err)
	args := c.Argv[1:]
	if b.shell == "busybox" {
		args = append([]string{"sh"}, args...)
	}
	s := &session{cmd: exec.CommandContext(ctx, shell, args...)}
	if b.shell == "bash" {
		s.cmd.Args[0] = "sh" // so that it keeps to POSIX
	}
	s.cmd.Env = append([]string{"PATH=" + b.bin, "HOME=/nonexistent"}, b.env...)
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = &s.stdout, &s.stderr, "/"
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
	return []byte(s.stdout.String()), s.stderr.String()
}

// exec runs c to its end; standard input stays open all the while.
func (b *box) exec(c plugins.Command, err error) ([]byte, string) {
	b.t.Helper()
	return b.start(c, err).end()
}

// probe runs a probe.
func (b *box) probe(plugin string) (plugins.Probe, error) {
	b.t.Helper()
	out, stderr := b.exec(lookup(b.t, plugin).Probe(nonce))
	p, err := plugins.ReadProbe(nonce, out)
	b.t.Logf("%s%s", out, stderr)
	return p, err
}

// dump runs a dump under the given run id.
func (b *box) dump(plugin, run string) (plugins.Dump, error) {
	b.t.Helper()
	out, stderr := b.exec(lookup(b.t, plugin).Dump(nonce, request(run)))
	d, err := plugins.ReadDump(nonce, out)
	b.t.Logf("%s%s", out, stderr)
	return d, err
}

func request(run string) plugins.DumpRequest {
	return plugins.DumpRequest{Run: run, Timeout: patience, Barrier: true}
}

// credential runs a program as uid, if that is another than ours.
func credential(uid int) *syscall.SysProcAttr {
	if uid == os.Getuid() {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

func lookup(t testing.TB, name string) plugins.Plugin {
	t.Helper()
	p, err := plugins.Lookup(name)
	must(t, err)
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sameText compares texts of many lines and shows where they part.
func sameText(t *testing.T, what, got, want string) {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		line := func(lines []string) string {
			if i < len(lines) {
				return fmt.Sprintf("%q", lines[i])
			}
			return "nothing"
		}
		if line(g) != line(w) {
			t.Errorf("%s, line %d:\n-want %s\n+got  %s", what, i+1, line(w), line(g))
			return
		}
	}
}

// same compares whole values.
func same[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n-want %#v\n+got  %#v", what, want, got)
	}
}
