package e2e_test

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// copyAgain runs `copy -o json` and wants that exit code.
func copyAgain(t *testing.T, code int, args ...string) kit.Run {
	t.Helper()
	return kit.ReadRun(t, code, kit.Backsnap(t, append([]string{"copy", "-o", "json"}, args...)...))
}

// states are the copies of an item: repository, state, code, beginning of the id.
func states(item kit.Item) string {
	var all []string
	for _, c := range item.Copies {
		all = append(all, strings.TrimRight(fmt.Sprintf("%s %s %.8s %s", c.Repository, c.State, c.Snapshot, c.Code), " "))
	}
	return strings.Join(all, ", ")
}

// TestCopyFillsTheGap: of two repositories one cannot be used. The other copy
// is good and on record; `copy` makes the missing one from the snapshot that is
// there, and no copy twice, even where nothing in the cluster tells of it.
func TestCopyFillsTheGap(t *testing.T) {
	t.Parallel()
	main := kit.NewRepository(t, "one password")
	second := kit.AddRepository(t, main.Namespace, "second", "another password")
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Pod(t, namespace, "app", "data")
	kit.Exec(t, namespace, "app", "head -c 4000000 /dev/urandom >/data/noise; for i in $(seq 200); do echo $i >/data/$i; done; sync")
	in := []string{"-n", namespace, "--backup-namespace", main.Namespace}

	wrong := second
	wrong.Password = "not the password"
	wrong.Secret(t)
	taken := kit.Snapshot(t, 3, in...).Of(t, "data")
	if len(taken.Copies) != 2 || taken.State != "Protected" {
		t.Fatalf("item %+v", taken)
	}
	id := taken.Copies[0].Snapshot
	if got, want := states(taken), fmt.Sprintf("main Ok %.8s, second Failed  BS053", id); got != want {
		t.Errorf("with a wrong password: %s\nwant %s", got, want)
	}
	if got := record(t, namespace, taken.Snapshot); !strings.Contains(got, id) || strings.Contains(got, "second") {
		t.Errorf("on record: %s", got)
	}

	second.Secret(t)
	filled := copyAgain(t, 0, in...).Of(t, "data")
	if len(filled.Copies) != 2 {
		t.Fatalf("item %+v", filled)
	}
	other := filled.Copies[1].Snapshot
	if got, want := states(filled), fmt.Sprintf("main AlreadyThere %.8s, second Ok %.8s", id, other); got != want {
		t.Errorf("copy: %s\nwant %s", got, want)
	}

	// As after a client that died before it could write anything down.
	kit.Kubectl(t, "annotate", "volumesnapshot", taken.Snapshot, "-n", namespace, "backsnap.sh/copies-")
	found := copyAgain(t, 0, append(in, "vs/"+taken.Snapshot)...).Of(t, "data")
	if got, want := states(found), fmt.Sprintf("main AlreadyThere %.8s, second AlreadyThere %.8s", id, other); got != want {
		t.Errorf("copy of what nothing tells of: %s\nwant %s", got, want)
	}
	if got := record(t, namespace, taken.Snapshot); !strings.Contains(got, id) || !strings.Contains(got, other) {
		t.Errorf("on record: %s", got)
	}
	for _, r := range []kit.Repository{main, second} {
		if all := r.Snapshots(t); len(all) != 1 {
			t.Errorf("%s holds %d snapshots, want 1: %v", r.Name, len(all), all)
		}
	}
	if all := strings.Fields(kit.Names(t, namespace, "volumesnapshot")); len(all) != 1 {
		t.Errorf("snapshots in the cluster: %v, want one", all)
	}

	// What has not changed is not stored again.
	next := kit.Snapshot(t, 0, append(in, "--repository", "main")...).Of(t, "data")
	if added := next.Copies[0].Added; added > 100_000 {
		t.Errorf("the next copy of unchanged data stored %d bytes", added)
	}
	for _, s := range main.Snapshots(t) {
		if s.ID != id && s.Parent != id {
			t.Errorf("parent of %s is %q, want %s", s.ID, s.Parent, id)
		}
	}
	if left := kit.Names(t, main.Namespace, "job,pod,pvc,volumesnapshot"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
	if left := kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left in the namespace: %s", left)
	}
}

// TestCopyOfARepositoryThatIsDown: nothing answers where one of two is to be.
// The mover waits a minute for it, and so does this.
func TestCopyOfARepositoryThatIsDown(t *testing.T) {
	if os.Getenv("BACKSNAP_FAULTS") != "all" {
		t.Skip("waits a minute: make faults")
	}
	t.Parallel()
	main := kit.NewRepository(t, "one password")
	second := kit.AddRepository(t, main.Namespace, "second", "another password")
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	in := []string{"-n", namespace, "--backup-namespace", main.Namespace}
	kit.Kubectl(t, "patch", "secret", "second", "-n", main.Namespace, "-p", `{"stringData":{"RESTIC_REPOSITORY":"s3:http://s3.backup-storage.svc:9/nothing"}}`)
	taken := kit.Snapshot(t, 3, in...).Of(t, "data")
	if len(taken.Copies) != 2 || taken.Copies[0].State != "Ok" || taken.Copies[1].Code != "BS055" {
		t.Fatalf("item %+v", taken)
	}
	second.Secret(t)
	filled := copyAgain(t, 0, in...).Of(t, "data")
	if filled.Snapshot != taken.Snapshot || len(filled.Copies) != 2 || filled.Copies[0].State != "AlreadyThere" || filled.Copies[1].State != "Ok" {
		t.Errorf("item %+v", filled)
	}
	if left := kit.Names(t, main.Namespace, "job,pod,pvc,volumesnapshot"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
}

// record is what stands on a snapshot of its copies.
func record(t *testing.T, namespace, snapshot string) string {
	t.Helper()
	return kit.Kubectl(t, "get", "volumesnapshot", snapshot, "-n", namespace, "-o", `jsonpath={.metadata.annotations.backsnap\.sh/copies}`)
}

// TestCopyLeavesOutWhatIsNoRestorePoint: a snapshot that somebody else took.
func TestCopyLeavesOutWhatIsNoRestorePoint(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: foreign, namespace: %s}
spec: {source: {persistentVolumeClaimName: data}}
`, namespace), "apply", "-f", "-")
	in := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
	if run := copyAgain(t, 1, append(in, "vs/foreign")...); len(run.Items) != 0 {
		t.Errorf("items %+v", run.Items)
	}
	if run := copyAgain(t, 0, in...); len(run.Items) != 0 {
		t.Errorf("items %+v", run.Items)
	}
}

// TestCopyKeepsWhatAFileCanBe compares a tree that is hard to keep with what
// restic, run by hand, restores of it.
func TestCopyKeepsWhatAFileCanBe(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Pod(t, namespace, "app", "data")
	tree := filepath.Join(t.TempDir(), "tree")
	if out, err := exec.Command("go", "build", "-o", tree, "./tree").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	kit.Apply(t, string(program), "exec", "-i", "-n", namespace, "app", "--", "sh", "-c", "cat >/tmp/tree && chmod +x /tmp/tree")
	want := kit.Exec(t, namespace, "app", "/tmp/tree make /data && sync && /tmp/tree list /data")

	item := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace).Of(t, "data")
	target := t.TempDir()
	repository.Restic(t, "restore", item.Copies[0].Snapshot, "--target", target, "--sparse")
	got := kit.Command(t, nil, "", tree, "list", filepath.Join(target, "data"))
	if got.Code != 0 {
		t.Fatalf("list: %s", got.Stderr)
	}
	have, lacks := strings.Split(got.Stdout, "\n"), strings.Split(want, "\n")
	for i := range max(len(have), len(lacks)) {
		if i >= len(have) || i >= len(lacks) || have[i] != lacks[i] {
			t.Fatalf("restored tree differs at line %d\n got %s\nwant %s", i+1, strings.Join(have[min(i, len(have)):], "\n"), strings.Join(lacks[min(i, len(lacks)):], "\n"))
		}
	}
	if len(lacks) < 30 || !strings.Contains(want, "security.capability") || !strings.Contains(want, "system.posix_acl_default") || !strings.Contains(want, "one with") {
		t.Errorf("the tree is not what it should be:\n%s", want)
	}
}

// device makes a claim without a file system.
func device(t *testing.T, namespace, name, size string) {
	t.Helper()
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, namespace: %s}
spec: {accessModes: [ReadWriteOnce], volumeMode: Block, resources: {requests: {storage: %s}}}
`, name, namespace, size), "apply", "-f", "-")
}

// devicePod starts a busybox that has a claim as /dev/raw.
func devicePod(t *testing.T, namespace, name, claim string) {
	t.Helper()
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: app
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sleep, "100000"]
      volumeDevices: [{name: raw, devicePath: /dev/raw}]
  volumes: [{name: raw, persistentVolumeClaim: {claimName: %[3]s}}]
`, namespace, name, claim), "apply", "-f", "-")
	kit.Kubectl(t, "wait", "-n", namespace, "pod/"+name, "--for=condition=Ready", "--timeout", kit.Patience.String())
}

// TestCopyOfABlockVolumeIsItsImage: 2 GiB with a few bytes in it.
func TestCopyOfABlockVolumeIsItsImage(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	device(t, namespace, "raw", "2Gi")
	devicePod(t, namespace, "app", "raw")
	want := kit.Exec(t, namespace, "app", `
for at in 0 700 2047; do head -c 1048576 /dev/urandom | dd of=/dev/raw bs=1M seek=$at conv=fsync 2>/dev/null || exit 1; done
sync
exec md5sum </dev/raw`) // of the sums the one that busybox is quick at

	item := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace).Of(t, "raw")
	if len(item.Copies) != 1 || item.Copies[0].State != "Ok" {
		t.Fatalf("item %+v", item)
	}
	if added := item.Copies[0].Added; added > 8<<20 {
		t.Errorf("an image of 3 MiB and zeros stored %d bytes", added)
	}
	sum := md5.New()
	bytes := repository.Dump(t, sum, item.Copies[0].Snapshot, "/data")
	if got := hex.EncodeToString(sum.Sum(nil)) + "  -\n"; bytes != 2<<30 || got != want {
		t.Errorf("restic dumps %d bytes with sum %s, the device has %s", bytes, got, want)
	}

	// A second copy is found by its tag, without reading the device again.
	kit.Kubectl(t, "annotate", "volumesnapshot", item.Snapshot, "-n", namespace, "backsnap.sh/copies-")
	again := copyAgain(t, 0, "raw", "-n", namespace, "--backup-namespace", repository.Namespace).Of(t, "raw")
	if got, want := states(again), fmt.Sprintf("main AlreadyThere %.8s", item.Copies[0].Snapshot); got != want {
		t.Errorf("copy again: %s, want %s", got, want)
	}
}

// TestMoversPerNodeAreBounded: of two runs at once, each with two volumes, no
// two movers are ever on one node together.
func TestMoversPerNodeAreBounded(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	watched := follow(t, "get", "pods", "-n", repository.Namespace, "-l", "backsnap.sh/slot", "-w", "--no-headers",
		"-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,PHASE:.status.phase")
	runs := make(chan kit.Result, 2)
	for range cap(runs) {
		namespace := kit.Namespace(t)
		for _, claim := range []string{"a", "b"} {
			kit.Claim(t, namespace, claim, "")
		}
		kit.Bound(t, namespace, "a", "b")
		go func() {
			runs <- kit.Backsnap(t, "snapshot", "-n", namespace, "--backup-namespace", repository.Namespace, "--movers-per-node=1", "-o", "json")
		}()
	}
	for range cap(runs) {
		if run := kit.ReadRun(t, 0, <-runs); len(run.Of(t, "a").Copies)+len(run.Of(t, "b").Copies) != 2 {
			t.Errorf("items %+v", run.Items)
		}
	}
	kit.Until(t, "all movers to be seen", func() string {
		seen, together := placed(watched.String())
		for _, pair := range together {
			t.Error(pair)
		}
		if len(seen) < 4 {
			return watched.String()
		}
		return ""
	})
}

// placed reads what kubectl saw of movers: all that got a node, and those that
// were on one together. From the moment that it has a node until its end a pod
// is there.
func placed(log string) (seen map[string]bool, together []string) {
	seen = map[string]bool{}
	node := map[string]string{}
	for line := range strings.Lines(log) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[1] == "<none>" {
			continue
		}
		delete(node, fields[0])
		if fields[2] != "Pending" && fields[2] != "Running" {
			continue
		}
		for other, at := range node {
			if at == fields[1] {
				together = append(together, fmt.Sprintf("%s and %s are on node %s together", fields[0], other, at))
			}
		}
		node[fields[0]], seen[fields[0]] = fields[1], true
	}
	return seen, together
}
