package restic_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
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

// TestServeJob compares the whole Job but for the script.
func TestServeJob(t *testing.T) {
	job, err := restic.Serve{
		Namespace: "shop", Name: "data-1", Image: "img", Run: run, Claim: "data-1", Deadline: time.Hour,
		Source: catalog.Source{Namespace: "shop", Claim: "data", Snapshot: "data-0", UID: "uid", Restores: "data-1"},
	}.Job()
	must(t, err)
	isErrand(t, job, "data-1", "300")
}

// isErrand compares the whole Job of a pod that has no Secret, but for its
// script; Kubernetes must find nothing in that to put in.
func isErrand(t *testing.T, job restic.Job, restores, arg string, env ...restic.Env) {
	t.Helper()
	for _, text := range job.Command {
		if strings.Contains(text, "$$") {
			t.Errorf("Kubernetes would read two dollars as one: %s", text)
		}
	}
	job.Command = nil
	equal(t, "job", restic.Job{
		Namespace: "shop", Name: "data-1", Image: "img",
		Labels: map[string]string{
			"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/role": "mover", "backsnap.sh/run": string(run),
			"backsnap.sh/namespace": "shop", "backsnap.sh/pvc": "data",
		},
		Annotations: with(catalog.HandsOff(), "backsnap.sh/source",
			`{"namespace":"shop","claim":"data","snapshot":"data-0","uid":"uid","repository":"","restores":"`+restores+`"}`),
		Args: []string{arg}, Env: append([]restic.Env{{Name: "BACKSNAP_DATA", Value: "/data"}, {Name: "TMPDIR", Value: "/tmp"}}, env...),
		Claim: restores, Pod: restic.Pod{CPU: "100m", Memory: "256Mi", MemoryLimit: "1Gi", Keep: 10 * time.Minute},
		Deadline: time.Hour + 30*time.Minute,
	}, job)
}

// A path is a pattern that matches itself alone, whatever bytes it has.
func TestRestoreOfPaths(t *testing.T) {
	job, err := restic.Restore{Repository: catalog.Repository{Secret: "main"}, Paths: []string{"a/b", `[*]?\`, "new\nline", "\xff\xfe"}}.Job()
	must(t, err)
	i := slices.Index(job.Args, "--include")
	equal(t, "arguments", []string{"--include", "/data/a/b", "--include", `/data/\[\*\]\?\\`, "--include", "/data/new\nline", "--include", "/data/??", "--delete"}, job.Args[i:i+9])
	equal(t, "environment", restic.Env{Name: "BACKSNAP_PATHS", Value: `\0141\0057\0142` + "\n" + `\0133\0052\0135\0077\0134` + "\n" + `\0156\0145\0167\0012\0154\0151\0156\0145` + "\n" + `\0377\0376`}, job.Env[len(job.Env)-1])
}

// A mover says which of the paths are not there, whatever restic thinks of it.
func TestMissingPaths(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		data := filepath.Join(c.dir, "data")
		must(t, os.Mkdir(data, 0o755))
		must(t, os.WriteFile(filepath.Join(data, "new\nline"), []byte("x"), 0o644))
		c.more(t, "find", "stat", "awk")
		c.restic = `case $1 in restore) echo '{"message_type":"summary","total_files":2,"files_restored":2,"total_bytes":1,"bytes_restored":1}' ;; esac`
		job, err := restic.Restore{Repository: catalog.Repository{Secret: "main"}, Paths: []string{"gone", "new\nline", "gone\n"}}.Job()
		must(t, err)
		c.env = []string{"BACKSNAP_DATA=" + data, "BACKSNAP_PATHS=" + job.Env[len(job.Env)-1].Value}
		done := c.run("restore", "restore", id)
		equal(t, "missing", []int{0, 2}, restic.ReadReport(done.report, done.exit).Missing)
		equal(t, "exit", 0, done.exit)
	})
}

// more puts further programs into the container.
func (c *container) more(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		path, err := exec.LookPath(program)
		if filepath.Base(c.shell[0]) == "busybox" {
			path = c.shell[0]
		}
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(c.dir, program)))
	}
}

// asked is what came of an Ask.
type asked struct {
	out    []byte
	served restic.Served
	said   string
	err    error
	exit   int
}

// ask runs the script on the folder data, in one of the shells that pods meet.
func (c *container) ask(t *testing.T, data string, a restic.Ask) asked {
	t.Helper()
	a.Nonce = "n0nce"
	cmd := exec.Command(c.shell[0], append(slices.Clone(c.shell[1:]), restic.ServeArgv[1:]...)...)
	cmd.Env = []string{"PATH=" + c.dir, "TMPDIR=" + c.dir, "BACKSNAP_DATA=" + data}
	in, hold := io.Pipe()
	defer hold.Close()
	stdin, err := cmd.StdinPipe()
	must(t, err)
	go func() {
		io.Copy(stdin, io.MultiReader(bytes.NewReader(a.Stdin()), in))
		stdin.Close()
	}()
	reply := restic.NewReply(a.Nonce)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, reply
	_ = cmd.Run()
	served, err := reply.Served()
	if left, _ := filepath.Glob(filepath.Join(c.dir, "serve.*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	return asked{out.Bytes(), served, reply.Said(), err, cmd.ProcessState.ExitCode()}
}

// TestServe runs the script on real files in both shells.
func TestServe(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.more(t, "awk", "dd", "find", "mkdir", "od", "stat", "tar", "tee", "tr")
		data := t.TempDir()
		in := func(name string) string { return filepath.Join(data, name) }
		must(t, os.MkdirAll(in("deep/er"), 0o755))
		for name, text := range map[string]string{"plain": "one", "new\nline": "two", "-rf": "three", "*": "four", "end\n": "five", "\xff": "six", "deep/er/big": strings.Repeat("7", 5000)} {
			must(t, os.WriteFile(in(name), []byte(text), 0o644))
		}
		must(t, os.Symlink("/etc", in("out")))
		must(t, os.Link(in("plain"), in("deep/again")))

		all := c.ask(t, data, restic.Ask{Mode: restic.AskSurvey, Limit: 4999})
		equal(t, "survey of all", restic.Survey{Files: 8, Bytes: 5000 + 3 + 3 + 3 + 5 + 4 + 4 + 3, Folders: 3, Links: 1, Large: []string{"deep/er/big"}}, all.served.Survey)
		odd := []string{"new\nline", "-rf", "*", "end\n", "\xff", "out"}
		some := c.ask(t, data, restic.Ask{Mode: restic.AskSurvey, Paths: odd, Limit: 1 << 40})
		equal(t, "survey of some", restic.Survey{Files: 5, Bytes: 19, Links: 1}, some.served.Survey)
		gone := c.ask(t, data, restic.Ask{Mode: restic.AskSurvey, Paths: []string{"plain", "gone", "out/passwd"}, Limit: 1 << 40})
		equal(t, "survey of what is not there", restic.Survey{Missing: []int{1}, Led: []int{2}}, gone.served.Survey)
		equal(t, "exit", 4, gone.exit)

		archive := c.ask(t, data, restic.Ask{Mode: restic.AskTar})
		whole(t, archive)
		everything := []string{"*", "-rf", ".", "deep", "deep/again", "deep/er", "deep/er/big", "end\n", "new\nline", "out", "plain", "\xff"}
		equal(t, "all of it", everything, names(t, archive.out))
		archive = c.ask(t, data, restic.Ask{Mode: restic.AskTar, Limit: 4999})
		whole(t, archive)
		equal(t, "all that is not large", slices.DeleteFunc(everything, func(name string) bool { return name == "deep/er/big" }), names(t, archive.out))
		archive = c.ask(t, data, restic.Ask{Mode: restic.AskTar, Paths: odd})
		whole(t, archive)
		equal(t, "some of it", []string{"*", "-rf", "end\n", "new\nline", "out", "\xff"}, names(t, archive.out))
		raw := c.ask(t, data, restic.Ask{Mode: restic.AskRaw, Paths: []string{"end\n"}})
		whole(t, raw)
		equal(t, "one file", "five", string(raw.out))

		if failed := c.ask(t, data, restic.Ask{Mode: restic.AskRaw, Paths: []string{"gone"}}); failed.err != nil || failed.served.Exit != 1 || failed.said == "" {
			t.Errorf("a file that is gone: %+v", failed)
		}
		must(t, os.Remove(filepath.Join(c.dir, "tar")))
		if failed := c.ask(t, data, restic.Ask{Mode: restic.AskTar}); failed.err != nil || failed.served.Exit != 1 || !strings.Contains(failed.said, "tar") {
			t.Errorf("an image without tar: %+v", failed)
		}
	})
}

// whole wants the reply to tell of what has come.
func whole(t *testing.T, a asked) {
	t.Helper()
	sum := sha256.Sum256(a.out)
	equal(t, "reply", restic.Served{Bytes: int64(len(a.out)), SHA256: hex.EncodeToString(sum[:]), Survey: restic.Survey{Bytes: int64(len(a.out))}}, a.served)
	must(t, a.err)
}

// names are those of an archive, sorted.
func names(t *testing.T, archive []byte) []string {
	t.Helper()
	var list []string
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(list)
			return list
		}
		must(t, err)
		list = append(list, filepath.Clean(h.Name))
	}
}

// The script ends when its standard input does: nobody is there any more.
func TestServeEndsWithItsClient(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.more(t, "dd", "mkdir", "tee")
		must(t, os.WriteFile(filepath.Join(c.dir, "tar"), []byte("#!/bin/sh\necho begun\nexec sleep 1000\n"), 0o755))
		cmd := exec.Command(c.shell[0], append(slices.Clone(c.shell[1:]), restic.ServeArgv[1:]...)...)
		cmd.Env = []string{"PATH=" + c.dir, "TMPDIR=" + c.dir, "BACKSNAP_DATA=" + c.dir}
		stdin, err := cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		_, err = stdin.Write(restic.Ask{Nonce: "n", Mode: restic.AskTar}.Stdin())
		must(t, err)
		begun := make([]byte, len("begun\n"))
		_, err = io.ReadFull(out, begun)
		must(t, err)
		must(t, stdin.Close())
		_, _ = io.Copy(io.Discard, out)
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 143 {
			t.Errorf("it ended with %v", err)
		}
	})
}

// Nothing but a whole reply is one.
func TestReply(t *testing.T) {
	for text, fails := range map[string]string{
		"":                             "has not said how it ended",
		"backsnap n0nce end exit=0":    "has not said how it ended", // no end of line
		"backsnap other end exit=0\n":  "has not said how it ended",
		"backsnap n0nce end exit=x\n":  "exit",
		"backsnap n0nce end size=1\n":  "size: not known",
		"backsnap n0nce large 7\n":     "large 7",
		"backsnap n0nce missing one\n": "missing one",
	} {
		reply := restic.NewReply("n0nce")
		_, err := io.WriteString(reply, text)
		must(t, err)
		if _, err := reply.Served(); !errors.Is(err, restic.ErrCut) || !strings.Contains(err.Error(), fails) {
			t.Errorf("%q: got %v, want %q", text, err, fails)
		}
	}
	reply := restic.NewReply("n0nce")
	for i := range 9 {
		fmt.Fprintf(reply, "tar: %d\n", i)
	}
	fmt.Fprint(reply, "backsnap n0nce end exit=2 files=3\n")
	served, err := reply.Served()
	must(t, err)
	equal(t, "served", restic.Served{Exit: 2, Survey: restic.Survey{Files: 3}}, served)
	equal(t, "said", "tar: 0; tar: 1; tar: 2; tar: 3; tar: 4", reply.Said())
}
