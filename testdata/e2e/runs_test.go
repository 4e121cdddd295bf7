package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// backupOnly is everything that a copy is made with.
const backupOnly = "job,pod,pvc,volumesnapshot"

// What keeps a mover from its end for longer than a test: it copies what `slow`
// has made at 1 KiB/s, or no node has room for it.
var (
	atLength = []string{"--limit-upload", "1"}
	nowhere  = []string{"--mover-requests", "cpu=1000"}
)

// plain makes a repository, and a namespace with one claim.
func plain(t *testing.T) (kit.Repository, string) {
	t.Helper()
	repository, namespace := kit.NewRepository(t, "repository password"), kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	return repository, namespace
}

// TestARunThatNobodyWaitsFor: --wait=false leaves the movers to themselves, and
// `logs -f` takes in what they have done.
func TestARunThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	repository, namespace := plain(t)
	where := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
	r := kit.Backsnap(t, append([]string{"snapshot", "--wait=false"}, where...)...)
	if r.Code != 0 || !strings.Contains(r.Stdout, "copy under way to main") {
		t.Fatalf("exit %d\n%s", r.Code, r.Stdout)
	}
	_, rest, _ := strings.Cut(r.Stderr, "Follow them: kubectl backsnap ")
	follow := strings.Fields(strings.TrimSpace(rest))
	if len(follow) < 3 || follow[0] != "logs" {
		t.Fatalf("how to follow is not said:\n%s", r.Stderr)
	}
	if left := kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
	// A look does not change anything.
	kit.Must(t, "logs", follow[2], "-n", namespace, "--backup-namespace", repository.Namespace)

	text := kit.Must(t, follow...)
	for _, want := range []string{"asked for as data-", "ready: crash, not mounted", "copied to main as "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the log:\n%s", want, text)
		}
	}
	copies := kit.Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", `jsonpath={.items[0].metadata.annotations.backsnap\.sh/copies}`)
	if id := repository.Snapshots(t)[0].ID; !strings.Contains(copies, id) {
		t.Errorf("copies are %s, restic has %s", copies, id)
	}
	if left := kit.Names(t, repository.Namespace, backupOnly); left != "" {
		t.Errorf("left: %s", left)
	}
	if again := kit.Must(t, "logs", follow[2], "-n", namespace, "--backup-namespace", repository.Namespace, "--phase=upload"); !strings.Contains(again, "copied to main as ") {
		t.Errorf("later the log says\n%s", again)
	}
}

// started waits until a mover's Job stands, and returns its run.
func started(t *testing.T, repository kit.Repository) (run string) {
	t.Helper()
	kit.Until(t, "mover", func() string {
		run = kit.Kubectl(t, "get", "jobs", "-n", repository.Namespace, "-o", `jsonpath={.items[*].metadata.labels.backsnap\.sh/run}`)
		if run == "" {
			return "no Job"
		}
		return ""
	})
	return run
}

// TestDetachAndAbort: ^C while it is copied leaves the mover, and `abort` stops
// it and keeps the snapshot.
func TestDetachAndAbort(t *testing.T) {
	t.Parallel()
	repository, namespace := plain(t)
	slow(t, namespace)
	where := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
	client := kit.Start(t, os.Getenv("KUBECONFIG"), append(append([]string{"snapshot"}, atLength...), where...)...)
	run := "run/" + started(t, repository)
	if err := client.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	client.Wait()
	if code := client.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d after ^C, want 130", code)
	}
	if left := kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
	// Who follows it stops when nobody reads any more, though nothing comes.
	followed := kit.Command(t, nil, "", "sh", append([]string{"-c", `kubectl backsnap logs -f "$@" | head -n 1`, "sh", run}, where...)...)
	if strings.Count(followed.Stdout, "\n") != 1 || followed.Stderr != "" || kit.Names(t, repository.Namespace, "job") == "" {
		t.Errorf("logs -f | head: %+v", followed)
	}
	// Another run leaves it alone: its mover has not finished.
	kit.Snapshot(t, 0, append([]string{"--repository", "none"}, where...)...)

	refused := kit.Backsnap(t, append([]string{"abort", run}, where...)...)
	if refused.Code != 5 || !strings.Contains(refused.Stderr, "BS071") {
		t.Errorf("without a terminal: exit %d\n%s", refused.Code, refused.Stderr)
	}
	for _, how := range []string{"client", "server"} {
		kit.Must(t, append([]string{"abort", run, "--dry-run", how, "-o", "name"}, where...)...)
	}
	if kit.Names(t, repository.Namespace, "job") == "" {
		t.Error("a refused, or a dry, abort has removed the Job")
	}
	gone := kit.Must(t, append([]string{"abort", run, "--yes", "-o", "name"}, where...)...)
	if got := strings.Join(kindsOf(gone), " "); got != "job.batch persistentvolumeclaim volumesnapshot.snapshot.storage.k8s.io" {
		t.Errorf("aborted %s", gone)
	}
	// A node may take its time to let go of the pod.
	kit.Until(t, "nothing to be left", func() string { return kit.Names(t, repository.Namespace, backupOnly) })
	if n := len(strings.Fields(kit.Names(t, namespace, "volumesnapshot"))); n != 2 {
		t.Errorf("%d snapshots are left, want both", n)
	}
	unknown := kit.Backsnap(t, append([]string{"abort", "run/20200101-000000-none", "--yes"}, where...)...)
	if unknown.Code != 1 || !strings.Contains(unknown.Stderr, "BS004") {
		t.Errorf("unknown run: exit %d\n%s", unknown.Code, unknown.Stderr)
	}
}

// kindsOf are the kinds of `kind/name` lines.
func kindsOf(lines string) (kinds []string) {
	for line := range strings.Lines(lines) {
		kind, _, _ := strings.Cut(line, "/")
		kinds = append(kinds, kind)
	}
	return kinds
}

// TestAbortStopsALiveClient: the client loses its namespaces, also those that
// abort was not told of, and stops.
func TestAbortStopsALiveClient(t *testing.T) {
	t.Parallel()
	repository, namespace := plain(t)
	other := claims(t, "data")
	for _, of := range []string{namespace, other} {
		kit.Kubectl(t, "label", "pvc", "data", "-n", of, "test="+namespace)
	}
	client := kit.Start(t, os.Getenv("KUBECONFIG"), append([]string{"snapshot", "-A", "-l", "test=" + namespace, "--backup-namespace", repository.Namespace}, nowhere...)...)
	run := "run/" + strings.Fields(started(t, repository))[0]
	kit.Must(t, "abort", run, "--yes", "-n", other, "--backup-namespace", repository.Namespace)
	client.Wait()
	if code := client.ProcessState.ExitCode(); code == 0 {
		t.Error("the client has ended well")
	}
	if left := kit.Names(t, repository.Namespace, backupOnly) + kit.Names(t, namespace, "lease") + kit.Names(t, other, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
	labels := kit.Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", `jsonpath={.items[*].metadata.labels.backsnap\.sh/consistency}`)
	if labels != "crash" {
		t.Errorf("snapshots are %q, want the one that was ready", labels)
	}
}

// TestLeftoversOfDeadRuns makes by hand what a client leaves that is killed
// between two writes, and things that look alike and are not ours to remove.
func TestLeftoversOfDeadRuns(t *testing.T) {
	t.Parallel()
	repository, namespace := plain(t)
	other := kit.Namespace(t)
	const dead = "20260101-010101-dead"
	labels := func(role, of string) string {
		return fmt.Sprintf(`{app.kubernetes.io/managed-by: backsnap, backsnap.sh/run: %s, backsnap.sh/role: %s, backsnap.sh/namespace: %s, backsnap.sh/pvc: data}`, dead, role, of)
	}
	claim := func(name, labels, finalizers string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, namespace: %s, labels: %s, finalizers: [%s]}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Mi}}}
---`, name, repository.Namespace, labels, finalizers)
	}
	kit.Apply(t, claim("left", labels("clone", namespace), "")+
		claim("held", labels("clone", namespace), "example.com/hold")+
		claim("elsewhere", labels("clone", other), "")+
		claim("stranger", fmt.Sprintf("{backsnap.sh/run: %s, backsnap.sh/role: clone, backsnap.sh/namespace: %s}", dead, namespace), "")+
		fmt.Sprintf(`
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata:
  name: unfinished
  namespace: %[1]s
  labels: {app.kubernetes.io/managed-by: backsnap, backsnap.sh/run: %[2]s, backsnap.sh/namespace: %[1]s, backsnap.sh/pvc: data}
spec: {source: {persistentVolumeClaimName: data}}
`, namespace, dead), "apply", "-f", "-")
	// The finalizer would hold the namespace for ever.
	kit.Afterwards(t, "patch", "pvc", "held", "-n", repository.Namespace, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	r := kit.Backsnap(t, "snapshot", "-n", namespace, "--backup-namespace", repository.Namespace, "--progress", "plain")
	if r.Code != 0 || !strings.Contains(r.Stderr, "example.com/hold") {
		t.Errorf("exit %d; who holds it is to be named", r.Code)
	}
	if left := kit.Names(t, repository.Namespace, "pvc"); left != "persistentvolumeclaim/elsewhere\npersistentvolumeclaim/held\npersistentvolumeclaim/stranger" {
		t.Errorf("claims left:\n%s", left)
	}
	kit.Until(t, "unfinished snapshot to be gone", func() string {
		if names := kit.Names(t, namespace, "volumesnapshot"); strings.Contains(names, "unfinished") {
			return names
		}
		return ""
	})
}

// stopped starts a run that holds its namespace and its slot until it is let
// go: the answer to a write of its does not come before.
func stopped(t *testing.T, namespace string, args ...string) (client *exec.Cmd, run string, letGo func()) {
	t.Helper()
	reached, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Verb == "patch" && r.Resource == "volumesnapshots" {
			once.Do(func() { close(reached) })
			<-gate
		}
	})
	letGo = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(letGo)
	client = kit.Start(t, proxy.Kubeconfig, append([]string{"snapshot", "-n", namespace, "--repository", "none"}, args...)...)
	select {
	case <-reached:
	case <-time.After(kit.Patience):
		t.Fatal("the run does not come to its first patch")
	}
	run = kit.Kubectl(t, "get", "lease", "backsnap", "-n", namespace, "-o", "jsonpath={.spec.holderIdentity}")
	return client, run, letGo
}

// TestTwoRunsAtOnce: a second run in the namespace, and one too many on this
// machine, are told who is in their way; those that wait get their turn.
func TestTwoRunsAtOnce(t *testing.T) {
	t.Parallel()
	namespace, other := kit.Namespace(t), kit.Namespace(t)
	for _, ns := range []string{namespace, other} {
		kit.Claim(t, ns, "data", "")
		kit.Bound(t, ns, "data")
	}
	slots := t.TempDir()
	limited := func(n string) []string { return []string{"--lock-dir", slots, "--lock-slots", n} }
	first, run, letGo := stopped(t, namespace, limited("1")...)
	snapshot := func(ns string, args ...string) kit.Result {
		return kit.Backsnap(t, append([]string{"snapshot", "-n", ns, "--repository", "none"}, args...)...)
	}
	for what, r := range map[string]kit.Result{
		"namespace " + namespace + " is taken by run " + run + " (pid": snapshot(namespace),
		"slot 1 is taken by run " + run + " (pid":                      snapshot(other, limited("1")...),
	} {
		if r.Code != 6 || !strings.Contains(r.Stderr, "BS035") || !strings.Contains(r.Stderr, what) {
			t.Errorf("exit %d, %q is to be said:\n%s", r.Code, what, r.Stderr)
		}
	}
	if r := snapshot(other, limited("2")...); r.Code != 0 { // the second slot is free
		t.Errorf("exit %d", r.Code)
	}
	waiting := kit.Start(t, os.Getenv("KUBECONFIG"), append([]string{
		"snapshot", "-n", namespace, "--repository", "none", "--lock-timeout", kit.Patience.String(),
	}, limited("1")...)...)
	letGo()
	for name, cmd := range map[string]*exec.Cmd{"the first": first, "the one that waits": waiting} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestTheAPIServerGoesAway: it does so after each write of one run, whose
// answer is lost with all watches, and refuses the next requests too. The run
// comes through all the same, and nothing is made twice or left.
func TestTheAPIServerGoesAway(t *testing.T) {
	t.Parallel()
	repository, namespace := plain(t)
	proxy, writes := kit.NewAwayProxy(t)
	r := kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, "snapshot", "-n", namespace, "--backup-namespace", repository.Namespace, "-o", "json")
	run := kit.ReadRun(t, 0, r)
	if item := run.Of(t, "data"); item.State != "Protected" || len(item.Copies) != 1 || item.Copies[0].State != "Ok" {
		t.Errorf("item %+v", item)
	}
	if after := writes(); len(after) < 10 {
		t.Errorf("it was away after %d writes only: %q", len(after), after)
	}
	if n := len(strings.Fields(kit.Names(t, namespace, "volumesnapshot"))); n != 1 {
		t.Errorf("%d snapshots", n)
	}
	if n := len(repository.Snapshots(t)); n != 1 {
		t.Errorf("%d copies in the repository", n)
	}
	if left := kit.Names(t, repository.Namespace, backupOnly) + kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
}
