package faults_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// stand is an app that serves one file from one claim, for restores in place.
type stand struct{ namespace string }

func newStand(t *testing.T) stand {
	t.Helper()
	s := stand{kit.Namespace(t)}
	kit.Claim(t, s.namespace, "data", "")
	kit.App(t, s.namespace)
	return s
}

// prepare makes a restore point that holds "set" and lets the app serve "live".
// The Lease of a client that was killed is waited for.
func (s stand) prepare(t *testing.T) {
	t.Helper()
	s.ready(t)
	s.exec(t, "echo set >/data/what && sync")
	kit.Snapshot(t, 0, "-n", s.namespace, "--repository", "none", "--lock-timeout", "3m")
	s.exec(t, "echo live >/data/what && sync")
}

func (s stand) ready(t *testing.T) {
	t.Helper()
	kit.AppReady(t, s.namespace)
}

func (s stand) exec(t *testing.T, script string) string {
	t.Helper()
	return kit.Kubectl(t, "exec", "-n", s.namespace, "deployment/app", "--", "sh", "-c", script)
}

// serves fails unless the app, with so many replicas and no note of a run on
// it, serves text.
func (s stand) serves(t *testing.T, when, text string, replicas int) {
	t.Helper()
	s.ready(t)
	if got := strings.TrimSpace(s.exec(t, "cat /data/what")); got != text {
		t.Errorf("%s: the app serves %q, want %q", when, got, text)
	}
	if got := kit.Kubectl(t, "get", "deployment", "app", "-n", s.namespace, "-o", `jsonpath={.spec.replicas}{.metadata.annotations.backsnap\.sh/replicas}`); got != fmt.Sprint(replicas) {
		t.Errorf("%s: replicas and what is remembered of them are %q, want %d", when, got, replicas)
	}
}

// scale is what somebody else does.
func (s stand) scale(t *testing.T, replicas int) {
	t.Helper()
	kit.Kubectl(t, "scale", "deployment/app", "-n", s.namespace, fmt.Sprintf("--replicas=%d", replicas))
}

// restore are the arguments of a restore in place.
func (s stand) restore(args ...string) []string {
	return append([]string{"restore", "deployment/app", "-n", s.namespace, "--in-place", "--yes"}, args...)
}

// swap runs `restore -o json`, which must succeed, and is its run.
func (s stand) swap(t *testing.T, args ...string) string {
	t.Helper()
	out := kit.Must(t, append([]string{"restore", "-n", s.namespace, "--yes", "-o", "json", "--lock-timeout", "3m"}, args...)...)
	var doc struct{ Run string }
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc.Run == "" {
		t.Fatalf("read result: %v", err)
	}
	return doc.Run
}

// undo rolls run back and commits it: the app serves what it did before.
func (s stand) undo(t *testing.T, run string, replicas int) {
	t.Helper()
	s.swap(t, "--rollback", run)
	s.serves(t, "rolled back", "live", replicas)
	s.swap(t, "--commit", run, "--grace", "0")
	s.serves(t, "committed", "live", replicas)
}

// ended is the run that has replaced the volume of the claim and ended, "" if
// none has.
func (s stand) ended(t *testing.T) string {
	t.Helper()
	run := ""
	for line := range strings.Lines(kit.Kubectl(t, "get", "pv", "-l", "backsnap.sh/namespace="+s.namespace, "-o",
		`jsonpath={range .items[*]}{.metadata.labels.backsnap\.sh/run} {.metadata.annotations.backsnap\.sh/turn}{"\n"}{end}`)) {
		fields := strings.Fields(line)
		if len(fields) != 1 {
			return ""
		}
		run = fields[0]
	}
	return run
}

// left is what there is beside the app, its claim and safety snapshots, "none"
// for nothing. Anything is an error.
func (s stand) left(t *testing.T, when string) string {
	t.Helper()
	found := kit.Kubectl(t, "get", "pv", "-l", "backsnap.sh/namespace="+s.namespace, "-o", "name") + kit.Names(t, s.namespace, "lease") + "\n" +
		kit.Kubectl(t, "get", "pvc,pod", "-n", s.namespace, "-l", "app.kubernetes.io/managed-by=backsnap", "-o", "name")
	if left := strings.Join(strings.Fields(found), ", "); left != "" {
		t.Errorf("%s: left %s", when, left)
		return left
	}
	return "none"
}

// unsafe are the safety snapshots of a run that has not touched the app, or has
// put everything back: there should be none.
func (s stand) unsafe(t *testing.T, when, run string) {
	t.Helper()
	if left := kit.Kubectl(t, "get", "volumesnapshot", "-n", s.namespace, "-l", "backsnap.sh/role=safety,backsnap.sh/run="+run, "-o", "name"); left != "" {
		t.Errorf("%s: left %s", when, left)
	}
}

// moment reports whether the time has come, of each write that the server has
// done.
type moment func(kube.Request) bool

// nth is after so many writes.
func nth(n int) moment {
	var writes atomic.Int32
	return func(kube.Request) bool { return int(writes.Add(1)) == n }
}

// after is after the first write of that verb to an object of that resource;
// path is how its path ends.
func after(verb, resource, path string) moment {
	return func(r kube.Request) bool {
		return r.Verb == verb && r.Resource == resource && strings.HasSuffix(r.Path, path)
	}
}

// struck is a run to which something was done.
type struck struct {
	kit.Result
	run  string // of a restore in place
	what string // the write after which it was done; "" if that time never came
}

// plannedRun is how a run names itself when it begins.
var plannedRun = regexp.MustCompile(`(?m)^Plan .* run (\S+)$`)

// strike restores in place and does something to it once the time has come,
// before the client sees the answer.
func (s stand) strike(t *testing.T, when moment, do func(client *os.Process)) struck {
	t.Helper()
	result := strike(t, when, do, s.restore()...)
	found := plannedRun.FindStringSubmatch(result.Stderr)
	if found == nil {
		t.Fatal("the run is not known")
	}
	result.run = found[1]
	return result
}

// strike runs the plugin with args and does something to it once the time has
// come, before the client sees the answer.
func strike(t *testing.T, when moment, do func(client *os.Process), args ...string) struck {
	t.Helper()
	var once sync.Once
	come, done := make(chan string, 1), make(chan struct{})
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Status/100 != 2 || r.Resource == "leases" && r.Verb == "update" || !when(r) {
			return // a conflict changes nothing and is tried again; renewals come when they come
		}
		once.Do(func() {
			come <- r.Verb + " " + r.Resource
			<-done
		})
	})
	process, wait := kit.BackgroundWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, args...)
	ended := make(chan kit.Result, 1)
	go func() { ended <- wait() }()
	var result struck
	select {
	case result.what = <-come:
		do(process)
		close(done)
		result.Result = <-ended
	case result.Result = <-ended:
		close(done)
	}
	return result
}
