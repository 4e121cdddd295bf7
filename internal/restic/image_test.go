package restic_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// TestRestoreJobOfADevice compares what differs from that of files.
func TestRestoreJobOfADevice(t *testing.T) {
	r := restic.Restore{
		Namespace: "backsnap", Name: "raw-1", Image: "img", Run: run, Repository: catalog.Repository{Name: "main", Secret: "main-secret"},
		From: "shop", Snapshot: id, Claim: "raw-1", Deadline: time.Hour, Locks: restic.Locks{Retry: 10 * time.Minute},
	}
	files, err := r.Job()
	must(t, err)
	r.Block, r.Size = true, 2<<30
	device, err := r.Job()
	must(t, err)
	files.Args = []string{"image", "60", "3600", "10m0s", "dump", "--json", id, "/data"}
	files.Env = append(files.Env, restic.Env{Name: "BACKSNAP_SIZE", Value: "2147483648"})
	files.Block, files.Powers = true, nil
	equal(t, "job", files, device)
}

// device is a file that stands for one, of that size.
func (c *container) device(content []byte) string {
	c.t.Helper()
	file := filepath.Join(c.dir, "device")
	must(c.t, os.WriteFile(file, content, 0o600))
	return file
}

// TestMoverPoursAnImage lets the wrapper write images onto a device, in both
// shells: whatever was on it, it then begins with the image, and what was
// there as the image has it was not written.
func TestMoverPoursAnImage(t *testing.T) {
	const chunk = 4 << 20
	noise := bytes.Repeat([]byte("noise and more of it\n"), 2*chunk/21+1)[:2*chunk]
	zeros := make([]byte, 2*chunk)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tests := []struct {
		name          string
		image, before []byte
		writes        int // chunks that are written
	}{
		{"whole chunks", noise, make([]byte, 3*chunk), 2},
		{"a part of a chunk at the end", noise[:chunk+4096], make([]byte, 2*chunk), 2},
		{"smaller than a chunk", noise[:512], make([]byte, chunk), 1},
		{"zeros where there are some", join(noise[:chunk], zeros, noise[:chunk]), make([]byte, 4*chunk), 2},
		{"zeros where there are none", zeros, join(noise, noise[:chunk]), 2},
		{"nothing", nil, make([]byte, chunk), 0},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t = t
				c.pours(test.before, test.image)
				done := c.run("image", "dump", "--json", id, "/data")
				report := restic.ReadReport(done.report, done.exit)
				equal(t, "report", restic.Report{Step: restic.StepImage, Counted: &restic.Counted{Files: 1, Bytes: int64(len(test.image))}}, report)
				want := join(test.image, test.before[len(test.image):])
				if got := []byte(c.read("device")); !bytes.Equal(got, want) {
					t.Errorf("the device has SHA-256 %x, want %x", sha256.Sum256(got), sha256.Sum256(want))
				}
				equal(t, "chunks written", test.writes, bytes.Count([]byte(c.read("writes")), []byte("\n")))
				left, err := filepath.Glob(filepath.Join(c.dir, "backsnap.*"))
				must(t, err)
				equal(t, "files left", []string(nil), left)
			})
		}
	})
}

// pours prepares for an image that restic sends, a device and a dd that counts
// what it writes onto it.
func (c *container) pours(before, image []byte) {
	c.t.Helper()
	device := c.device(before)
	must(c.t, os.WriteFile(filepath.Join(c.dir, "image"), image, 0o600))
	c.restic = `case $1 in
dump) cat "$DIR/image" ;;
esac`
	c.env = append(c.env, "BACKSNAP_DATA="+device, fmt.Sprintf("BACKSNAP_SIZE=%d", len(image)))
	must(c.t, os.MkdirAll(filepath.Join(c.dir, "real"), 0o755))
	for _, program := range []string{"cut", "date", "grep", "head", "md5sum", "mkfifo", "stat", "tail"} {
		c.link(program, program)
	}
	c.link("dd", "real/dd")
	os.Remove(filepath.Join(c.dir, "writes"))
	must(c.t, os.WriteFile(filepath.Join(c.dir, "dd"), []byte(`#!/bin/sh
case "$*" in
*backsnap.pipe.chunk\ of=*/device\ *) echo "$*" >>"${0%/*}/writes" ;;
esac
exec "${0%/*}/real/dd" "$@"
`), 0o755))
}

// link puts a program of this machine, or of its busybox, into the container.
func (c *container) link(program, as string) {
	c.t.Helper()
	file := filepath.Join(c.dir, as)
	if _, err := os.Lstat(file); err == nil {
		return
	}
	path := c.shell[0]
	if filepath.Base(path) != "busybox" {
		var err error
		path, err = exec.LookPath(program)
		must(c.t, err)
	}
	must(c.t, os.Symlink(path, file))
}

// TestMoverSaysWhyADeviceIsNotWritten: each failure has its own words, and none
// of them leaves a count that might be believed.
func TestMoverSaysWhyADeviceIsNotWritten(t *testing.T) {
	image := bytes.Repeat([]byte("x"), 5<<20)
	tests := []struct {
		name, restic, dd string
		exit             int
		says             string
	}{
		{name: "a damaged pack", restic: `head -c 4500000 "$DIR/image"; echo '{"message_type":"exit_error","code":1,"message":"Fatal: cannot dump file"}' >&2; exit 1`, exit: 1, says: "Fatal: cannot dump file"},
		{name: "no room", restic: `cat "$DIR/image"`, dd: `*of=*/device\ *seek=1*) echo "dd: error writing 'device': No space left on device" >&2; echo '0+0 records out' >&2; exit 1 ;;`, exit: 1, says: "write the device: dd: error writing 'device': No space left on device"},
		{name: "it is not forced out", restic: `cat "$DIR/image"`, dd: `*fsync*) echo 'dd: fsync failed: Input/output error' >&2; exit 1 ;;`, exit: 1, says: "write the device: dd: fsync failed: Input/output error"},
		{name: "it is another when it is read back", restic: `cat "$DIR/image"`, dd: `*skip=0*count=1\ iflag*) printf y | exec "${0%/*}/real/dd" of="${0%/*}/device" conv=notrunc bs=1 seek=7 2>/dev/null ;;`, exit: 1, says: "the device holds another image than was written to it: SHA-256 "},
		{name: "locked", restic: `exit 11`, exit: 11},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t = t
				c.pours(make([]byte, 8<<20), image)
				c.restic = "case $1 in\ndump) " + test.restic + " ;;\nesac"
				if test.dd != "" {
					must(t, os.WriteFile(filepath.Join(c.dir, "dd"), []byte("#!/bin/sh\ncase \"$*\" in\n"+test.dd+"\nesac\nexec \"${0%/*}/real/dd\" \"$@\"\n"), 0o755))
				}
				done := c.run("image", "dump", "--json", id, "/data")
				report := restic.ReadReport(done.report, done.exit)
				equal(t, "exit", test.exit, done.exit)
				equal(t, "counted", (*restic.Counted)(nil), report.Counted)
				if test.says != "" && (len(report.Lines) != 1 || len(report.Lines[0]) < len(test.says) || report.Lines[0][:len(test.says)] != test.says) {
					t.Errorf("report says %q, want %q", report.Lines, test.says)
				}
				left, err := filepath.Glob(filepath.Join(c.dir, "backsnap.*"))
				must(t, err)
				equal(t, "files left", []string(nil), left)
			})
		}
	})
}
