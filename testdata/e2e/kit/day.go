package kit

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Day is a bad day: what has happened, and what the plugin is to make of it.
type Day struct {
	Group, What string // its row in docs/faults/bad-days.md
	Exit        int
	Code        string   // of the failures; "" for a day that ends well
	Says        []string // parts of what it says on standard error
	// Stays is what of the run is there still, and by right: a kind, such as
	// volumesnapshot; "" for nothing.
	Stays string
	// Left says in the table what is left where that is no object; "" for nothing.
	Left string
}

// Pulse is a client that writes to an app's database without a break.
type Pulse interface {
	// Longest is the longest time in which it could not, since it was asked last.
	Longest() time.Duration
}

// Snapshot runs `snapshot -o json` on that day and checks it.
func (d Day) Snapshot(t testing.TB, w Pulse, args ...string) Run {
	t.Helper()
	return d.Check(t, w, Backsnap(t, append([]string{"snapshot", "-o", "json"}, args...)...))
}

// Check compares what `snapshot -o json` has made of the day: exit code, code
// of the failures, and that each of them names the state and the next step.
// Then it waits until nothing of the run is left, and writes the day's row. w
// has written to the app's database meanwhile; nil where there is none.
func (d Day) Check(t testing.TB, w Pulse, r Result) Run {
	t.Helper()
	run := ReadRun(t, d.Exit, r)
	said := d.told(t, r.Stderr)
	NothingLeft(t, run.Run, d.Stays)
	d.row(t, w, said)
	return run
}

// told are the failures that were told on standard error, once they are seen to
// be the day's.
func (d Day) told(t testing.TB, stderr string) []failure {
	t.Helper()
	said := failures(stderr)
	if d.Code != "" && len(said) == 0 {
		t.Errorf("%s: no failure is told", d.What)
	}
	if d.Code == "" && len(said) > 0 {
		t.Errorf("%s: a failure is told: %q", d.What, said[0].message)
	}
	for _, f := range said {
		if !strings.HasSuffix(f.message, "["+d.Code+"]") {
			t.Errorf("%s: code of %q, want %s", d.What, f.message, d.Code)
		}
		if f.state == "" || f.next == "" {
			t.Errorf("%s: %q names state %q and next step %q, want both", d.What, f.message, f.state, f.next)
		}
	}
	for _, part := range d.Says {
		if !strings.Contains(stderr, part) {
			t.Errorf("%s: %q is not said", d.What, part)
		}
	}
	return said
}

// Seen checks what was told and writes the day's row, for a test that looks at
// all else in its own way.
func (d Day) Seen(t testing.TB, w Pulse, stderr string) {
	t.Helper()
	d.row(t, w, d.told(t, stderr))
}

// failure is one `error:` with what stands below it.
type failure struct{ message, cause, state, next string }

func failures(stderr string) (all []failure) {
	for line := range strings.Lines(stderr) {
		line = strings.TrimRight(line, "\n")
		if message, ok := strings.CutPrefix(line, "error: "); ok {
			all = append(all, failure{message: message})
		}
		name, text, ok := strings.Cut(line, ": ")
		if len(all) == 0 || !ok {
			continue
		}
		f := &all[len(all)-1]
		switch text = strings.TrimSpace(text); name {
		case "  cause":
			f.cause = text
		case "  state":
			f.state = text
		case "  next":
			f.next = text
		}
	}
	return all
}

// leavings are the kinds that a run makes.
const leavings = "job,pod,pvc,volumesnapshot,volumesnapshotcontent,lease"

// NothingLeft waits until nothing of run is left in the cluster but restore
// points and their contents: no Lease, Job, pod, clone, static snapshot or
// content, no snapshot that claims nothing; stays is a kind that may be.
func NothingLeft(t testing.TB, run, stays string) {
	t.Helper()
	if run == "" {
		t.Fatal("the run is not known")
	}
	Until(t, "nothing left of run "+run, func() string {
		var list struct {
			Items []struct {
				Kind     string
				Metadata struct {
					Namespace, Name string
					Labels          map[string]string
				}
			}
		}
		text := Kubectl(t, "get", leavings, "-A", "-l", "app.kubernetes.io/managed-by=backsnap,backsnap.sh/run="+run, "-o", "json")
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, o := range list.Items {
			labels := o.Metadata.Labels
			point := labels["backsnap.sh/role"] == "" && labels["backsnap.sh/consistency"] != "" && strings.HasPrefix(o.Kind, "VolumeSnapshot")
			if !point && strings.ToLower(o.Kind) != stays {
				left = append(left, fmt.Sprintf("%s %s/%s", o.Kind, o.Metadata.Namespace, o.Metadata.Name))
			}
		}
		return strings.Join(left, ", ")
	})
}

// NoParts waits until no half-written dump lies in the database's volume.
func (d Database) NoParts(t testing.TB) {
	t.Helper()
	Until(t, "no partial dump in "+d.Claim(), func() string {
		r := Command(t, nil, "", "kubectl", "exec", "-n", d.Namespace, d.Pod(), "--", "sh", "-c", "ls -A "+d.Mount())
		if r.Code != 0 || strings.Contains(r.Stdout, ".part") {
			return r.Stdout + r.Stderr
		}
		return ""
	})
}

// Background starts the plugin itself, so that a signal reaches it, and returns
// its process and what waits for its end.
func Background(t testing.TB, args ...string) (*os.Process, func() Result) {
	t.Helper()
	return BackgroundWith(t, nil, args...)
}

// BackgroundWith is Background with environment variables of its own.
func BackgroundWith(t testing.TB, env []string, args ...string) (*os.Process, func() Result) {
	t.Helper()
	cmd := exec.Command("kubectl-backsnap", args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
	})
	return cmd.Process, func() Result {
		t.Helper()
		select {
		case <-done:
		case <-t.Context().Done():
			t.Fatal("the plugin does not end")
		}
		r := Result{Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}
		t.Logf("kubectl-backsnap %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		return r
	}
}

// All skips a test that restarts what others use, needs a cluster of its own
// or takes its time, unless all faults are asked for.
func All(t testing.TB) {
	t.Helper()
	if os.Getenv("BACKSNAP_FAULTS") != "all" {
		t.Skip("part of make faults")
	}
}
