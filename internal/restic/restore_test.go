package restic_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// TestRestoreJob compares the whole Job but for the script.
func TestRestoreJob(t *testing.T) {
	job, err := restic.Restore{
		Namespace: "backsnap", Name: "data-1", Image: "img", Run: run, Repository: catalog.Repository{Name: "main", Secret: "main-secret"},
		Source: catalog.Source{Namespace: "scratch", Claim: "data", Snapshot: "data-0", UID: "uid", Repository: "main", Restores: "back"},
		From:   "shop", Snapshot: id, Claim: "data-1", NodeAffinity: json.RawMessage(`{"required":{}}`), Deadline: time.Hour,
		Pod: restic.Pod{CPU: "1", PriorityClass: "low", User: 999, Keep: time.Hour}, Locks: restic.Locks{Retry: 7 * time.Second},
	}.Job()
	must(t, err)
	job.Command = nil
	equal(t, "job", restic.Job{
		Namespace: "backsnap", Name: "data-1", Image: "img", Secret: "main-secret",
		Labels: map[string]string{
			"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/role": "mover", "backsnap.sh/run": string(run),
			"backsnap.sh/namespace": "scratch", "backsnap.sh/pvc": "data",
		},
		Annotations: with(catalog.HandsOff(), "backsnap.sh/source",
			`{"namespace":"scratch","claim":"data","snapshot":"data-0","uid":"uid","repository":"main","restores":"back"}`),
		Args: []string{
			"restore", "60", "3600", "7s", "restore", id, "--json",
			"--target", "/", "--include", "/data", "--delete", "--sparse", "--verify", "--exclude-xattr", "security.selinux",
		},
		Env: []restic.Env{
			{Name: "RESTIC_CACHE_DIR", Value: "/cache"}, {Name: "RESTIC_PROGRESS_FPS", Value: "0.5"}, {Name: "TZ", Value: "UTC"}, {Name: "TMPDIR", Value: "/tmp"},
			{Name: "BACKSNAP_NAMESPACE", Value: "shop"}, {Name: "BACKSNAP_DATA", Value: "/data"},
		},
		Claim: "data-1", Writes: true, Powers: []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"},
		NodeAffinity: json.RawMessage(`{"required":{}}`), AnyNode: true,
		Pod:      restic.Pod{CPU: "1", PriorityClass: "low", Keep: 10 * time.Minute},
		Deadline: time.Hour + 30*time.Minute,
	}, job)
	if _, err := (restic.Restore{}).Job(); err == nil {
		t.Error("a repository without a Secret is no error")
	}
}

func with(notes map[string]string, key, value string) map[string]string {
	notes[key] = value
	return notes
}

// TestReportOfARestore is what is read of a mover that restores.
func TestReportOfARestore(t *testing.T) {
	const text = "backsnap step=restore exit=0\nerrors=0\n" +
		`{"message_type":"summary","seconds_elapsed":3,"total_files":5,"files_restored":4,"files_skipped":2,"total_bytes":40,"bytes_restored":40,"bytes_skipped":60}` + "\n\n\n\n" +
		"counted files=3 bytes=100\n"
	report := restic.ReadReport(text, 0)
	equal(t, "report", restic.Report{
		Step: restic.StepRestore, Restored: &restic.Restored{Items: 6, Total: 7, Bytes: 100, TotalBytes: 100}, Counted: &restic.Counted{Files: 3, Bytes: 100},
	}, report)
	if err := (restic.End{Pod: "pod"}).Err(report, restic.StepRestore); err != nil {
		t.Errorf("well ended: %v", err)
	}
	for name, end := range map[string]restic.End{
		"DeadlineExceeded: ":                 {Pod: "pod", Reason: "DeadlineExceeded"},
		"OOMKilled: ":                        {Pod: "pod", Killed: "OOMKilled"},
		"FailedCreate: exceeded quota: pods": {Reason: "FailedCreate", Message: "exceeded quota: pods"},
	} {
		failed := restic.ReadReport("backsnap step=restore exit=1\nerrors=1\nFatal: There were 1 errors\n", 1)
		if err := end.Err(failed, restic.StepRestore); err == nil || !strings.HasPrefix(strings.TrimPrefix(err.Error(), "exit 1: "), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func TestStatusOfARestore(t *testing.T) {
	got, ok := restic.ReadStatus([]byte(`{"message_type":"status","seconds_elapsed":10,"percent_done":0.25,"total_files":9,"total_bytes":4000,"bytes_restored":1000}`))
	equal(t, "progress", true, ok)
	equal(t, "status", restic.Status{Bytes: 1000, Total: 4000, Rate: 100, Left: 30 * time.Second}, got)
}

// TestMoverCounts lets the wrapper count a tree, in both shells.
func TestMoverCounts(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		data := filepath.Join(c.dir, "volume")
		must(t, os.MkdirAll(filepath.Join(data, "a\nb"), 0o755))
		for name, text := range map[string]string{"one": "12345", "a\nb/two words": "123", "empty": ""} {
			must(t, os.WriteFile(filepath.Join(data, name), []byte(text), 0o600))
		}
		must(t, os.Link(filepath.Join(data, "one"), filepath.Join(data, "also one")))
		must(t, os.Symlink("one", filepath.Join(data, "soft")))
		c.env = append(c.env, "BACKSNAP_DATA="+data)
		c.restic = `case $1 in
restore) echo '{"message_type":"summary","total_files":6,"files_restored":6,"total_bytes":8,"bytes_restored":8}' ;;
esac`
		c.programs("find", "stat", "awk")
		done := c.run("restore", "restore", id)
		report := restic.ReadReport(done.report, done.exit)
		equal(t, "exit", 0, done.exit)
		equal(t, "counted", &restic.Counted{Files: 4, Bytes: 13}, report.Counted)
		equal(t, "restored", &restic.Restored{Items: 6, Total: 6, Bytes: 8, TotalBytes: 8}, report.Restored)

		c.restic = `case $1 in
restore) echo 'Fatal: There were 1 errors' >&2; exit 1 ;;
esac`
		done = c.run("restore", "restore", id)
		equal(t, "report of a failure", restic.Report{Step: restic.StepRestore, Exit: 1, Lines: []string{"Fatal: There were 1 errors"}}, restic.ReadReport(done.report, done.exit))

		must(t, os.Remove(filepath.Join(c.dir, "stat")))
		c.restic = "true"
		done = c.run("restore", "restore", id)
		equal(t, "report without stat", restic.Report{
			Step: restic.StepRestore, Exit: 1, Lines: []string{"the image lacks what counts files: find, stat, awk"},
		}, restic.ReadReport(done.report, done.exit))
	})
}

// TestMuteRestore is one that says nothing for a while: then it is asked whether
// the repository answers at all.
func TestMuteRestore(t *testing.T) {
	const (
		restored = `echo '{"message_type":"summary","total_files":1,"files_restored":1,"total_bytes":0,"bytes_restored":0}'`
		begins   = `echo "$1" >>"$DIR/calls"; case $1 in `
	)
	tests := []struct {
		name, restic, patience string
		calls                  []string
		exit                   int
		report                 []string
	}{
		{
			"the repository does not answer", begins + "*) exec sleep 100 ;; esac", "1",
			[]string{"restore", "cat"}, 124, []string{"backsnap step=check exit=124", "errors=0"},
		},
		{
			"its password is wrong, which it takes long to find out", begins + "cat) exit 12 ;; *) exec sleep 100 ;; esac", "20",
			[]string{"restore", "cat"}, 12, []string{"backsnap step=check exit=12", "errors=0"},
		},
		{
			"it answers, restic only takes its time", begins + `cat) : >"$DIR/slow" ;; *) [ -e "$DIR/slow" ] || exec sleep 100; ` + restored + " ;; esac", "20",
			[]string{"restore", "cat", "restore"}, 0, nil,
		},
		{
			"one that has said something is let alone", "echo '" + status + `'; until [ -e "$DIR/backsnap.pipe.alive" ]; do sleep 0.05; done; ` + begins + "*) sleep 0.5; " + restored + " ;; esac", "20",
			[]string{"restore"}, 0, nil,
		},
	}
	inShells(t, func(t *testing.T, c *container) {
		c.programs("find", "stat", "awk")
		c.env = append(c.env, "BACKSNAP_DATA="+t.TempDir())
		// The while is over once the restore has begun.
		must(t, os.Remove(filepath.Join(c.dir, "sleep")))
		must(t, os.WriteFile(filepath.Join(c.dir, "sleep"), fmt.Appendf(nil, `#!/bin/sh
case $1 in
7)
	until [ -e %s/calls ]; do /bin/sleep 0.05; done
	exit 0
	;;
esac
exec /bin/sleep "$@"
`, c.dir), 0o755))
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t, c.restic, c.patience = t, test.restic, test.patience
				got := c.run("restore", "restore", id)
				equal(t, "calls", test.calls, lines(c.read("calls")))
				must(t, os.Remove(filepath.Join(c.dir, "calls")))
				equal(t, "exit", test.exit, got.exit)
				if test.report != nil {
					equal(t, "report", test.report, lines(got.report))
				}
			})
		}
	})
}
