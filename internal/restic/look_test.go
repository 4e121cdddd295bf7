package restic_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

func TestLookJob(t *testing.T) {
	look := restic.Look{
		Namespace: "shop", Name: "data-1", Image: "img", Run: run, Claim: "data-new", Deadline: time.Hour,
		Source: catalog.Source{Namespace: "shop", Claim: "data", Snapshot: "data-0", UID: "uid", Restores: "data-new"},
		Dumps:  []catalog.Dump{{Path: "a/b", SHA256: "00"}},
	}
	job, err := look.Job()
	must(t, err)
	isErrand(t, job, "data-new", "read", restic.Env{Name: "BACKSNAP_SUMS", Value: "00 \\0141\\0057\\0142\n"})
	look.Pod = restic.DefaultPod()
	look.Pod.User = 65534
	job, err = look.Job()
	must(t, err)
	equal(t, "mode of another user", []string{"mount"}, job.Args)
}

// The names of all files are read, and what those hold whose sum is known.
func TestLook(t *testing.T) {
	const name, text = "dumps/new\nline", "all of it\n"
	hash := sha256.Sum256([]byte(text))
	sum := hex.EncodeToString(hash[:])
	for _, test := range []struct {
		name, mode string
		spoil      func(t *testing.T, data string)
		want       restic.Looked
		says       string
	}{
		{"all is as it was", "read", func(*testing.T, string) {}, restic.Looked{Files: 2, Sums: 1}, ""},
		{"another user", "mount", func(*testing.T, string) {}, restic.Looked{}, ""},
		{"a dump is not what it was", "read", func(t *testing.T, data string) {
			must(t, os.WriteFile(filepath.Join(data, name), []byte("half"), 0o600))
		},
			restic.Looked{}, "and was " + sum + " when it was written"},
		{"a dump is gone", "read", func(t *testing.T, data string) { must(t, os.Remove(filepath.Join(data, name))) }, restic.Looked{}, "cannot be read: "},
		{"there is no volume", "mount", func(t *testing.T, data string) { must(t, os.RemoveAll(data)) }, restic.Looked{}, "the volume cannot be read: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			inShells(t, func(t *testing.T, c *container) {
				data := filepath.Join(c.dir, "data")
				must(t, os.MkdirAll(filepath.Join(data, "dumps"), 0o755))
				must(t, os.WriteFile(filepath.Join(data, name), []byte(text), 0o600))
				must(t, os.WriteFile(filepath.Join(data, "other"), nil, 0o600))
				test.spoil(t, data)
				job, err := restic.Look{Dumps: []catalog.Dump{{Path: name, SHA256: sum}}}.Job()
				must(t, err)
				c.more(t, "dd", "find", "head", "stat", "tr")
				got, err := c.look(t, job, test.mode, data)
				equal(t, "found", test.want, got)
				if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
					t.Errorf("error %v, want %q", err, test.says)
				}
			})
		})
	}
}

func TestReadLooked(t *testing.T) {
	for _, test := range []struct {
		name string
		end  restic.End
		says string
	}{
		{"cut", restic.End{Pod: "p", Text: "looked files="}, `"looked files="`},
		{"failed", restic.End{Pod: "p", Exit: 1, Text: "the device cannot be read: dd: I/O error\n"}, "the device cannot be read: dd: I/O error"},
		{"killed", restic.End{Pod: "p", Exit: 137, Killed: "OOMKilled"}, "OOMKilled"},
		{"never there", restic.End{Reason: "DeadlineExceeded", Message: "too late"}, "DeadlineExceeded too late"},
	} {
		if _, err := restic.ReadLooked(test.end); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
	}
}

// look runs the script as the Job has it, in one of the shells that pods meet.
func (c *container) look(t *testing.T, job restic.Job, mode, data string) (restic.Looked, error) {
	t.Helper()
	said := filepath.Join(c.dir, "termination-log")
	cmd := exec.Command(c.shell[0], append(slices.Clone(c.shell[1:]), "-c", strings.ReplaceAll(job.Command[2], "/dev/termination-log", said), "backsnap", mode)...)
	cmd.Env = []string{"PATH=" + c.dir, "TMPDIR=" + c.dir}
	for _, e := range job.Env {
		if e.Name == "BACKSNAP_SUMS" {
			cmd.Env = append(cmd.Env, "BACKSNAP_SUMS="+e.Value)
		}
	}
	cmd.Env = append(cmd.Env, "BACKSNAP_DATA="+data)
	if out, err := cmd.CombinedOutput(); len(out) > 0 {
		t.Errorf("it prints %q: %v", out, err)
	}
	return restic.ReadLooked(restic.End{Pod: "p", Exit: cmd.ProcessState.ExitCode(), Text: c.read("termination-log")})
}
