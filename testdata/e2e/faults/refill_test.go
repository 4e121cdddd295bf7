package faults_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// stay is an app that has a copy, and other data than that.
type stay struct {
	namespace    string
	server       kit.S3Server
	repository   kit.Repository
	copied, live string // sums of what the copy holds, and the volume
}

// sumOfStay is all that lies in the volume.
const sumOfStay = "cd /data && md5sum noise && ls -A | grep -v lost+found"

// newStay starts it, with a repository of its own namespace.
func newStay(t *testing.T) stay {
	t.Helper()
	s := stay{namespace: kit.Namespace(t), server: kit.NewS3Server(t)}
	s.repository = kit.Repository{Name: "main", Namespace: s.namespace, Bucket: kit.Random("bucket"), Password: "repository password"}
	s.repository.Secret(t)
	setSecret(t, s.repository, map[string]string{"RESTIC_REPOSITORY": "s3:" + s.server.Address() + "/" + s.repository.Bucket})
	kit.Must(t, "repo", "init", "main", "--backup-namespace", s.namespace, "--cluster-name", "e2e")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: app, namespace: %s}
spec:
  serviceName: app
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: app
          image: docker.io/library/busybox:1.36
          imagePullPolicy: IfNotPresent
          command: [sleep, "100000"]
          volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
`, s.namespace), "apply", "-f", "-")
	kit.Kubectl(t, "rollout", "status", "-n", s.namespace, "statefulset/app", "--timeout", kit.Patience.String())
	s.copied = kit.Exec(t, s.namespace, "app-0", "head -c 8000000 /dev/urandom >/data/noise && sync && "+sumOfStay)
	kit.Snapshot(t, 0, "-n", s.namespace, "--in-namespace", "--snapshot-class", "btrfs", "statefulset/app")
	s.change(t)
	return s
}

// change writes other data into the volume.
func (s *stay) change(t *testing.T) {
	t.Helper()
	s.live = kit.Exec(t, s.namespace, "app-0", "head -c 8000000 /dev/urandom >/data/noise && date >/data/later && sync && "+sumOfStay)
}

// into are the arguments of a restore into the claim.
func (s stay) into(args ...string) []string {
	return append([]string{"restore", "statefulset/app", "-n", s.namespace, "--into-claim", "--in-namespace", "--yes"}, args...)
}

// serves wants the app to run on that data, and nothing to be under way.
func (s stay) serves(t *testing.T, when, want string) {
	t.Helper()
	kit.Kubectl(t, "rollout", "status", "-n", s.namespace, "statefulset/app", "--timeout", kit.Patience.String())
	if got := kit.Kubectl(t, "get", "statefulset/app", "-n", s.namespace, "-o", "jsonpath={.spec.replicas}"); got != "1" {
		t.Fatalf("%s: %s replicas", when, got)
	}
	if got := kit.Exec(t, s.namespace, "app-0", sumOfStay); got != want {
		t.Errorf("%s: the app has %q, want %q", when, got, want)
	}
	left := s.noted(t)
	for name := range strings.Lines(kit.Names(t, s.namespace, "job,lease")) {
		if !strings.HasPrefix(name, "job.batch/list-") { // that of a client that was killed goes by itself, after ten minutes
			left += name
		}
	}
	if left != "" {
		t.Errorf("%s: left %s", when, left)
	}
}

// noted is what stands on claim and app.
func (s stay) noted(t *testing.T) string {
	t.Helper()
	const note = `jsonpath={.items[*].metadata.annotations.backsnap\.sh/refill}`
	return kit.Kubectl(t, "get", "pvc,statefulset", "-n", s.namespace, "-o", note)
}

// run is the run that the notes name.
func (s stay) run(t *testing.T) string {
	t.Helper()
	_, rest, found := strings.Cut(s.noted(t), `"run":"`)
	run, _, _ := strings.Cut(rest, `"`)
	if !found {
		t.Fatal("nothing is noted")
	}
	return run
}

// halted wants the app at 0, the claim marked as partial, and no snapshot to be
// taken of it.
func (s stay) halted(t *testing.T) {
	t.Helper()
	if got := kit.Kubectl(t, "get", "statefulset/app", "-n", s.namespace, "-o", "jsonpath={.spec.replicas}"); got != "0" {
		t.Errorf("%s replicas while the claim is partial", got)
	}
	if notes := s.noted(t); !strings.Contains(notes, `"stage":"partial"`) || !strings.Contains(notes, `"replicas":1`) {
		t.Errorf("noted: %s", notes)
	}
	if r := kit.Backsnap(t, "snapshot", "data-app-0", "-n", s.namespace, "--repository", "none"); r.Code != 4 || !strings.Contains(r.Stderr, "was restoring into it") {
		t.Errorf("snapshot of a partial claim: exit %d", r.Code)
	}
}

// TestRestoreIntoAClaimFromADamagedCopy: the app stays at 0, the claim says that
// it is partial, and the printed command goes back to what there was.
func TestRestoreIntoAClaimFromADamagedCopy(t *testing.T) {
	t.Parallel()
	s := newStay(t)
	s.server.Damage(t, s.repository.Bucket)
	r := kit.Backsnap(t, s.into()...)
	back := "kubectl backsnap restore --rollback " + s.run(t) + " -n " + s.namespace + " --yes"
	if r.Code != 1 || !strings.Contains(r.Stderr, "[BS085]") || !strings.Contains(r.Stderr, "/data/noise") || !strings.Contains(r.Stderr, back) {
		t.Errorf("exit %d, want 1, BS085, the file and %s", r.Code, back)
	}
	s.halted(t)
	kit.Must(t, strings.Fields(strings.TrimPrefix(back, "kubectl backsnap "))...)
	s.serves(t, "gone back", s.live)
}

// TestInterruptedRestoreIntoAClaim is ^C while the mover works, and before.
func TestInterruptedRestoreIntoAClaim(t *testing.T) {
	t.Parallel()
	s := newStay(t)
	for _, c := range []struct {
		resource string
		says     string
	}{{"statefulsets/scale", "everything is as it was before"}, {"jobs", "stays at 0, 1 remembered"}} {
		var process atomic.Pointer[os.Process]
		var once sync.Once     // a second ^C would end it without putting anything back
		var downs atomic.Int32 // once the app is told to stop: before that, jobs list
		proxy := kit.NewProxy(t, func(r kube.Request) {
			scaled := downs.Load() > 0 || r.Resource == "statefulsets/scale" && downs.Add(1) > 0
			if p := process.Load(); p != nil && scaled && r.Verb != "delete" && r.Resource == c.resource {
				once.Do(func() { p.Signal(os.Interrupt) })
			}
		})
		p, end := kit.BackgroundWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, s.into()...)
		process.Store(p)
		if r := end(); r.Code != 130 || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("^C at %s: exit %d, want 130 and %q", c.resource, r.Code, c.says)
		}
		if c.resource == "statefulsets/scale" {
			s.serves(t, "interrupted", s.live)
		}
	}
	s.halted(t)
	kit.Must(t, s.into()...)
	s.serves(t, "the same again", s.copied)
}

// TestKilledRestoreIntoAClaim ends the client after a write by a signal that it
// cannot catch: when it has told the app to stop and when it has started the
// mover; by `make faults` after each of its writes. The same command again
// finishes it, and a rollback goes back.
func TestKilledRestoreIntoAClaim(t *testing.T) {
	t.Parallel()
	s := newStay(t)
	if !all() {
		s.kill(t, func(_ int, r kube.Request) bool { return r.Resource == "statefulsets/scale" }, false)
		jobs := 0 // the list, the trial, the mover
		s.kill(t, func(_ int, r kube.Request) bool {
			if r.Resource == "jobs" && r.Verb == "create" {
				jobs++
			}
			return jobs == 3
		}, true)
		return
	}
	for n := 1; s.kill(t, func(write int, _ kube.Request) bool { return write == n }, n%2 == 0); n++ {
	}
}

// kill ends the client after the first write that at takes, and then gives the
// command again, or goes back. It is false where a run makes no such write.
func (s *stay) kill(t *testing.T, at func(write int, r kube.Request) bool, again bool) bool {
	t.Helper()
	var mu sync.Mutex
	writes, ended := 0, ""
	client := make(chan int, 1)
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Resource == "leases" && r.Verb == "update" {
			return // renewals come when they come
		}
		mu.Lock()
		defer mu.Unlock()
		if writes++; ended != "" || !at(writes, r) {
			return
		}
		ended = fmt.Sprintf("killed after write %d, %s %s", writes, r.Verb, r.Resource)
		if err := syscall.Kill(<-client, syscall.SIGKILL); err != nil {
			t.Errorf("kill the client: %v", err)
		}
	})
	cmd := kit.Start(t, proxy.Kubeconfig, s.into("--lock-timeout", "3m")...)
	client <- cmd.Process.Pid
	cmd.Wait()
	mu.Lock()
	defer mu.Unlock()
	notes := s.noted(t)
	t.Logf("%s: %s", ended, notes)
	switch {
	case ended == "":
		s.serves(t, "not killed", s.copied)
		return false
	case again || notes == "":
		kit.Must(t, s.into("--lock-timeout", "3m")...)
		s.serves(t, ended+", again", s.copied)
		s.change(t)
	default:
		kit.Must(t, "restore", "--rollback", s.run(t), "-n", s.namespace, "--yes", "--lock-timeout", "3m")
		s.serves(t, ended+", gone back", s.live)
	}
	return true
}
