package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// rule is one of a Role.
type rule struct{ group, resource, verbs string }

// roleInNamespace is all that `snapshot --in-namespace` and `list` need of a
// user, where nothing runs inside a pod.
var roleInNamespace = []rule{
	{"snapshot.storage.k8s.io", "volumesnapshots", "create,get,list,watch,patch,delete"},
	{"coordination.k8s.io", "leases", "create,get,update,delete"},
	{"", "persistentvolumeclaims", "create,list,watch,delete"},
	{"", "pods", "list,watch"},
	{"", "secrets", "list"},
	{"batch", "jobs", "create,list,watch,delete"},
}

// user makes a ServiceAccount that has these rules in namespace and nothing
// else, and is what it is called.
func user(t *testing.T, namespace, name string, rules []rule) string {
	t.Helper()
	var text strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&text, "  - {apiGroups: [%q], resources: [%q], verbs: [%s]}\n", r.group, r.resource, r.verbs)
	}
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: %[1]s, namespace: %[2]s}
rules:
%[3]s---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: %[1]s, namespace: %[2]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: %[1]s}
subjects: [{kind: ServiceAccount, name: %[1]s, namespace: %[2]s}]
`, name, namespace, &text), "apply", "-f", "-")
	return "--as=system:serviceaccount:" + namespace + ":" + name
}

// TestSnapshotAndListUnderANamespacedRoleAlone: with it a snapshot is taken,
// copied beside the app, and listed. Without any rule of it nothing is touched.
func TestSnapshotAndListUnderANamespacedRoleAlone(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	repository := kit.NewRepositoryIn(t, namespace, "repository password")
	// The volume is bound to the node of its pod, and so must the clone be.
	kit.Claim(t, namespace, "data", "btrfs-local")
	kit.Pod(t, namespace, "app", "data")

	for i, missing := range roleInNamespace {
		rules := append(append([]rule{}, roleInNamespace[:i]...), roleInNamespace[i+1:]...)
		as := user(t, namespace, "without-"+missing.resource, rules)
		r := kit.Backsnap(t, "snapshot", "-n", namespace, "--in-namespace", "--snapshot-class", "btrfs", as)
		if r.Code != 4 || !strings.Contains(r.Stderr, "[BS031]") || !strings.Contains(r.Stderr, " "+missing.resource) {
			t.Errorf("without %s: exit %d, want 4 and BS031", missing.resource, r.Code)
		}
	}
	const kinds = "volumesnapshot,job,lease,pvc"
	if made := kit.Names(t, namespace, kinds); made != "persistentvolumeclaim/data" {
		t.Fatalf("without a right there were made: %s", made)
	}
	if r := kit.Backsnap(t, "list", "-n", namespace, "--as=system:serviceaccount:"+namespace+":without-volumesnapshots"); r.Code != 4 || !strings.Contains(r.Stderr, "BS031") {
		t.Errorf("list without the right: exit %d, want 4 and BS031", r.Code)
	}

	as := user(t, namespace, "backup", roleInNamespace)
	allowed(t, namespace, as, "create", "jobs")
	noClass := kit.Snapshot(t, 4, "-n", namespace, "--in-namespace", as).Of(t, "data")
	if noClass.Code != "BS021" {
		t.Errorf("without a default snapshot class: %+v", noClass)
	}
	r := kit.Backsnap(t, "snapshot", "-n", namespace, "--in-namespace", "--snapshot-class", "btrfs", "-o", "json", as)
	item := kit.ReadRun(t, 0, r).Of(t, "data")
	if len(item.Copies) != 1 || item.Copies[0].State != "Ok" {
		t.Errorf("item %+v", item)
	}
	if !strings.Contains(r.Stderr, "labels are not mirrored") {
		t.Error("it is not said that the content has no labels")
	}
	if found := repository.Snapshots(t); len(found) != 1 || found[0].Hostname != "e2e/"+namespace+"/data" {
		t.Errorf("restic has %+v", found)
	}
	alone := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "--snapshot-class", "btrfs", as).Of(t, "data")
	names := kit.Must(t, "list", "-n", namespace, "-o", "name", as)
	for _, snapshot := range []string{item.Snapshot, alone.Snapshot} {
		if !strings.Contains(names, "/"+snapshot+"\n") {
			t.Errorf("%s is not listed:\n%s", snapshot, names)
		}
	}
	if left := kit.Names(t, namespace, "job,lease,pvc"); left != "persistentvolumeclaim/data" {
		t.Errorf("left: %s", left)
	}
	handle := handleOf(t, namespace, alone.Snapshot)
	wide := []string{"list", "-n", namespace, "-o", "wide"}
	if text := kit.Must(t, wide...); !strings.Contains(text, " "+handle+" ") {
		t.Errorf("handle %s is not to be seen:\n%s", handle, text)
	}
	if text := kit.Must(t, append(wide, as)...); strings.Contains(text, handle) || !strings.Contains(text, alone.Snapshot) {
		t.Errorf("without the right to read contents:\n%s", text)
	}
}

// handleOf is what the storage calls a snapshot.
func handleOf(t *testing.T, namespace, snapshot string) string {
	t.Helper()
	content := kit.Kubectl(t, "get", "volumesnapshot", snapshot, "-n", namespace, "-o", "jsonpath={.status.boundVolumeSnapshotContentName}")
	return kit.Kubectl(t, "get", "volumesnapshotcontent", content, "-o", "jsonpath={.status.snapshotHandle}")
}

// allowed waits until the server knows of a right.
func allowed(t *testing.T, namespace, as, verb, resource string) {
	t.Helper()
	kit.Until(t, "right to "+verb+" "+resource, func() string {
		return strings.TrimPrefix(strings.TrimSpace(kit.Command(t, nil, "", "kubectl", "auth", "can-i", verb, resource, "-n", namespace, as).Stdout), "yes")
	})
}

// beside is a namespace with one bound claim and a Secret of repository.
func beside(t *testing.T, repository kit.Repository) string {
	t.Helper()
	namespace := kit.Namespace(t)
	repository.In(t, namespace)
	kit.Claim(t, namespace, "data", "")
	// Nobody looks for the driver's class.
	kit.Kubectl(t, "annotate", "pvc", "data", "-n", namespace, "backsnap.sh/snapshot-class=btrfs")
	kit.Bound(t, namespace, "data")
	return namespace
}

// nothingLeft checks that of copies nothing is left beside the app.
func nothingLeft(t *testing.T, namespace string, claims ...string) {
	t.Helper()
	want := ""
	for _, claim := range claims {
		want += "persistentvolumeclaim/" + claim + "\n"
	}
	if left := kit.Names(t, namespace, "job,lease,pvc"); left != strings.TrimSpace(want) {
		t.Errorf("left in %s: %s", namespace, left)
	}
}

// failedCopy is a run whose snapshot stands and whose copy failed.
func failedCopy(t *testing.T, code string, words []string, args ...string) {
	t.Helper()
	r := kit.Backsnap(t, append([]string{"snapshot", "-o", "json"}, args...)...)
	item := kit.ReadRun(t, 3, r).Of(t, "data")
	if item.State != "Protected" || len(item.Copies) != 1 || item.Copies[0].Code != code {
		t.Errorf("want %s: item %+v", code, item)
	}
	for _, word := range words {
		if !strings.Contains(r.Stderr, word) {
			t.Errorf("%q is not to be read in\n%s", word, r.Stderr)
		}
	}
}

// TestTroublesOfMoversAreNamedWithTheirCause: each kind is told by what the
// cluster says of it, with the next step; what passes is waited for, what does
// not is given up at once.
func TestTroublesOfMoversAreNamedWithTheirCause(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	t.Run("more", func(t *testing.T) { // returns when all of them have ended
		t.Run("want of memory", func(t *testing.T) {
			if os.Getenv("BACKSNAP_FAULTS") != "all" {
				t.Skip("takes the node's memory: make faults")
			}
			t.Parallel()
			hungry(t, beside(t, repository))
		})
		t.Run("quota and LimitRange", func(t *testing.T) { t.Parallel(); quotas(t, beside(t, repository)) })
		t.Run("Pod Security", func(t *testing.T) { t.Parallel(); restricted(t, repository) })
		t.Run("a claim that is not there, an image that is not there", func(t *testing.T) {
			t.Parallel()
			namespace := beside(t, repository)
			// What passes: the claim comes to be, and the copy is made.
			run := begin(t, "snapshot", "-n", namespace, "--in-namespace", "--cache-claim", "cache")
			run.says(t, "Unschedulable: ", "cache", "not found")
			kit.Claim(t, namespace, "cache", "")
			run.ends(t, 0)
			again := kit.Snapshot(t, 0, "-n", namespace, "--in-namespace", "--cache-claim", "cache", "--dry-run=client")
			if item := again.Of(t, "cache"); item.State != "Skipped" {
				t.Errorf("the cache is backed up: %+v", item)
			}
			nothingLeft(t, namespace, "cache", "data")

			run = begin(t, "snapshot", "-n", namespace, "--in-namespace", "--restic-image", "127.0.0.1:1/restic:1")
			run.says(t, "ErrImagePull: ", "127.0.0.1:1/restic:1")
			run.interrupt(t)
			run.ends(t, 130)
		})
		t.Run("a Secret that goes away", func(t *testing.T) { t.Parallel(); lostSecret(t, beside(t, repository), repository) })
	})
}

// hungry: a mover whose container has no memory left. Files in /dev/shm count,
// and nothing but restic is large enough to be killed for them.
func hungry(t *testing.T, namespace string) {
	slow(t, namespace)
	run := begin(t, "snapshot", "-n", namespace, "--in-namespace", "--limit-upload", "200", "--mover-requests", "memory=32Mi", "--mover-limits", "memory=64Mi")
	pod := mover(t, namespace, "")
	kit.Until(t, "the mover to be killed", func() string {
		if run.said(t, "OOMKilled: restic needs more memory than its limit of 64Mi") {
			return ""
		}
		r := kit.Command(t, nil, "", "kubectl", "exec", "-n", namespace, pod, "--", "sh", "-c", "dd if=/dev/zero of=/dev/shm/full bs=1M")
		return fmt.Sprintf("exec ends with %d: %s", r.Code, r.Stderr)
	})
	run.says(t, "next: ", "-n "+namespace+" --in-namespace --mover-limits=memory=128Mi")
	run.ends(t, 3)
	nothingLeft(t, namespace, "data")
	told, err := os.ReadFile(run.log)
	if err != nil {
		t.Fatal(err)
	}
	kit.Day{Group: "Mover", What: "mover out of memory (OOMKilled)", Exit: 3, Code: "BS055"}.Seen(t, nil, string(told))
}

// slow fills the claim, so that a copy with an upload limit takes some time.
func slow(t *testing.T, namespace string) {
	t.Helper()
	kit.Pod(t, namespace, "app", "data")
	kit.Exec(t, namespace, "app", "head -c 3000000 /dev/urandom >/data/file; sync")
}

// quotas: what the namespace does not admit is named, and is no missing right.
func quotas(t *testing.T, namespace string) {
	object := func(kind, name, spec string) {
		kit.Apply(t, fmt.Sprintf("apiVersion: v1\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec: %s\n", kind, name, namespace, spec), "apply", "-f", "-")
	}
	copied := []string{"-n", namespace, "--in-namespace"}
	object("ResourceQuota", "tight", "{hard: {limits.memory: 512Mi}}")
	kit.Until(t, "quota to be counted", func() string {
		if kit.Kubectl(t, "get", "resourcequota", "tight", "-n", namespace, "-o", "jsonpath={.status.hard}") == "" {
			return "no status"
		}
		return ""
	})
	failedCopy(t, "BS055", []string{"exceeded quota: tight", "raise ResourceQuota tight in " + namespace, "--mover-limits"}, copied...)
	kit.Snapshot(t, 0, append(copied, "--mover-limits", "memory=256Mi")...)
	kit.Kubectl(t, "delete", "resourcequota", "tight", "-n", namespace)

	object("LimitRange", "small", "{limits: [{type: Container, max: {memory: 128Mi}}]}")
	failedCopy(t, "BS055", []string{"maximum memory usage per Container is 128Mi", "kubectl describe limitrange -n " + namespace}, copied...)
	kit.Kubectl(t, "delete", "limitrange", "small", "-n", namespace)

	object("ResourceQuota", "few", "{hard: {persistentvolumeclaims: 1}}")
	kit.Until(t, "quota to be counted", func() string {
		used := kit.Kubectl(t, "get", "resourcequota", "few", "-n", namespace, "-o", "jsonpath={.status.used.persistentvolumeclaims}")
		return strings.TrimPrefix(used+" of 1", "1 of 1")
	})
	failedCopy(t, "BS055", []string{"exceeded quota: few", "raise ResourceQuota few"}, copied...)
	nothingLeft(t, namespace, "data")
}

// restricted: Pod Security is answered with the user that the app runs as; as
// that user restic reads what it may, and says what it may not.
func restricted(t *testing.T, repository kit.Repository) {
	namespace := beside(t, repository)
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: %s}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
    - name: root
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "chmod 755 /data; for i in 1 2 3 4; do echo x >/data/secret$i; chmod 600 /data/secret$i; done; echo x >/data/open; sync"]
      volumeMounts: [{name: data, mountPath: /data}]
  containers:
    - name: app
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sleep, "100000"]
      securityContext: {runAsUser: 1234}
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`, namespace), "apply", "-f", "-")
	kit.Kubectl(t, "wait", "-n", namespace, "pod/app", "--for=condition=Ready", "--timeout", kit.Patience.String())
	kit.Kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")

	copied := []string{"-n", namespace, "--in-namespace"}
	failedCopy(t, "BS032", []string{`violates PodSecurity "restricted`, "--run-as-user=1234"}, copied...)
	as := append(copied, "--run-as-user", "1234")
	failedCopy(t, "BS054", []string{"4 files could not be read", "secret1", "secret2", "secret3", "without --run-as-user"}, as...)
	kit.Exec(t, namespace, "app", "id -u | grep -qx 1234")
	// Who has the repository alone is told that it is not whole.
	found := list(t, "-n", namespace, "--backup-namespace", namespace, "--from-repository", repository.Name, "--run-as-user", "1234").Items
	torn := 0
	for _, point := range found {
		for _, copy := range point.Copies {
			if copy.Partial {
				torn++
			}
		}
	}
	if torn != 1 {
		t.Errorf("%d copies are called partial, want the one that is: %+v", torn, found)
	}
	nothingLeft(t, namespace, "data")
	kit.Kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline", "--overwrite")
	kit.Snapshot(t, 0, copied...) // root reads them all
}

// lostSecret: the Secret goes right before the Job is made. The mover's pod
// cannot mount it, which is told; when it is back, the copy is made.
func lostSecret(t *testing.T, namespace string, repository kit.Repository) {
	lost := make(chan error, 1)
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Verb == "create" && r.Resource == "persistentvolumeclaims" { // the clone: the Job is next
			lost <- exec.Command("kubectl", "delete", "secret", repository.Name, "-n", namespace).Run()
		}
	})
	run := beginWith(t, proxy.Kubeconfig, "snapshot", "-n", namespace, "--in-namespace")
	if err := <-lost; err != nil {
		t.Fatal(err)
	}
	run.says(t, "FailedMount: ", repository.Name, "not found")
	repository.In(t, namespace)
	run.ends(t, 0)
	nothingLeft(t, namespace, "data")
}

// TestAMoverThatIsKilledOrEvictedTriesAgain: the copy is made all the same.
func TestAMoverThatIsKilledOrEvictedTriesAgain(t *testing.T) {
	t.Parallel()
	namespace := beside(t, kit.NewRepository(t, "repository password"))
	slow(t, namespace)
	run := begin(t, "snapshot", "-n", namespace, "--in-namespace", "--limit-upload", "200")

	first := mover(t, namespace, "")
	kit.Until(t, "restic in "+first, func() string {
		return kit.Command(t, nil, "", "kubectl", "exec", "-n", namespace, first, "--", "sh", "-c",
			`for p in /proc/[0-9]*; do case $(tr '\0' ' ' <$p/cmdline) in "restic backup "*) kill -9 ${p#/proc/} && exit;; esac; done; exit 1`).Stderr
	})
	run.says(t, "exit 137; the Job tries again")
	second := mover(t, namespace, first)
	kit.Apply(t, fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, second, namespace),
		"create", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/eviction", namespace, second), "-f", "-")
	run.ends(t, 0)
	nothingLeft(t, namespace, "data")
	kit.Day{Group: "Mover", What: "mover killed, the next one evicted"}.Seen(t, nil, "")
}

// mover is the mover's pod in namespace that runs and is not the one named before.
func mover(t *testing.T, namespace, before string) (name string) {
	t.Helper()
	kit.Until(t, "another mover than "+before, func() string {
		running := strings.Fields(kit.Kubectl(t, "get", "pod", "-n", namespace, "-l", "backsnap.sh/role=mover",
			"--field-selector", "status.phase=Running", "-o", `jsonpath={.items[*].metadata.name}`))
		for _, name = range running {
			if name != before {
				return ""
			}
		}
		return fmt.Sprint("there are ", running)
	})
	return name
}

// running is a command on its way.
type running struct {
	cmd *exec.Cmd
	log string
}

func begin(t *testing.T, args ...string) *running {
	t.Helper()
	return beginWith(t, os.Getenv("KUBECONFIG"), args...)
}

func beginWith(t *testing.T, kubeconfig string, args ...string) *running {
	t.Helper()
	cmd := kit.Start(t, kubeconfig, args...)
	return &running{cmd: cmd, log: cmd.Stdout.(*os.File).Name()}
}

// says waits until one line of what the command has said holds all the words.
func (r *running) says(t *testing.T, words ...string) {
	t.Helper()
	kit.Until(t, fmt.Sprintf("%q", words), func() string {
		if r.said(t, words...) {
			return ""
		}
		text, _ := os.ReadFile(r.log)
		return "it has said: " + string(text)
	})
}

// said reports whether one line holds all the words.
func (r *running) said(t *testing.T, words ...string) bool {
	t.Helper()
	text, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			return true
		}
	}
	return false
}

func (r *running) interrupt(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// ends waits for the command's end.
func (r *running) ends(t *testing.T, code int) {
	t.Helper()
	ended := make(chan struct{})
	go func() { defer close(ended); r.cmd.Wait() }()
	select {
	case <-ended:
	case <-t.Context().Done():
	case <-time.After(2 * kit.Patience):
		t.Fatal("the command does not end")
	}
	if got := r.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit %d, want %d", got, code)
	}
}
