package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// restored is what `restore -o json` prints.
type restored = kit.RestoreRun

// restore runs `restore -o json`, wants that exit code, and at least one item
// where it is 0.
func restore(t *testing.T, code int, args ...string) restored {
	t.Helper()
	r := kit.Backsnap(t, append([]string{"restore", "-o", "json"}, args...)...)
	if r.Code != code {
		t.Fatalf("exit %d, want %d", r.Code, code)
	}
	var doc restored
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
		t.Fatalf("read result: %v", err)
	}
	if doc.ExitCode != code || code == 0 && len(doc.Items) == 0 {
		t.Fatalf("document %+v", doc)
	}
	for _, item := range doc.Items {
		if item.Left != "" {
			t.Errorf("%s left behind: %s", item.Claim, item.Left)
		}
	}
	return doc
}

// noTrace wants no trace of a restore's way, but the claims themselves.
func noTrace(t *testing.T, backupNamespace string, run restored) {
	t.Helper()
	if left := kit.Names(t, backupNamespace, "job,pod,pvc,volumesnapshot"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
	selector := "backsnap.sh/role,backsnap.sh/run=" + run.Run
	if left := strings.TrimSpace(kit.Kubectl(t, "get", "volumesnapshotcontent,pv", "-l", selector, "-o", "name")); left != "" {
		t.Errorf("left in the cluster: %s", left)
	}
	if left := strings.TrimSpace(kit.Kubectl(t, "get", "pvc,volumesnapshot", "-A", "-l", selector, "-o", "name")); left != "" {
		t.Errorf("left in namespaces: %s", left)
	}
}

// reclaim is what becomes of the volume of a claim.
func reclaim(t *testing.T, namespace, claim string) string {
	t.Helper()
	volume := kit.Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", "jsonpath={.spec.volumeName}")
	return kit.Kubectl(t, "get", "pv", volume, "-o", `jsonpath={.spec.persistentVolumeReclaimPolicy} {.spec.claimRef.namespace}/{.spec.claimRef.name} {.metadata.annotations.backsnap\.sh/reclaim}`)
}

// TestRestoreServesTheDatabase: a table is dropped, and servers that mount what
// was restored have it: from the snapshot beside the app, and, when the app is
// gone, from the copy in another namespace, which never sees the repository's
// Secret.
func TestRestoreServesTheDatabase(t *testing.T) {
	t.Parallel()
	const password = "repository password"
	repository := kit.NewRepository(t, password)
	namespace, other := kit.Namespace(t), kit.Namespace(t)
	postgres := kit.Postgres(t, namespace, "postgres", kit.Options{})
	postgres.SQL(t, `create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i`)
	const checksum = `select count(*), md5(string_agg(q::text, ',' order by id)) from quiet q`
	want := postgres.SQL(t, checksum)
	run := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	taken := run.Of(t, postgres.Claim())
	postgres.SQL(t, `drop table quiet`)
	in := []string{"-n", namespace, "--backup-namespace", repository.Namespace}

	beside := restore(t, 0, append(in, "statefulset/postgres", "--to-pvc", "data-second-0")...)
	if item := beside.Items[0]; !item.Bound || item.From.Snapshot != taken.Snapshot || item.From.Copy != "" {
		t.Errorf("item %+v, want it from %s", item, taken.Snapshot)
	}
	if got := kit.Postgres(t, namespace, "second", kit.Options{}).SQL(t, checksum); got != want {
		t.Errorf("from the snapshot: %q, want %q", got, want)
	}
	noTrace(t, repository.Namespace, beside)

	// A name that is there is refused, and nothing is made.
	if doc := restore(t, 4, append(in, postgres.Claim(), "--to-pvc", "data-second-0")...); doc.Code != "BS062" {
		t.Errorf("into a claim that is there: %+v", doc)
	}
	if doc := restore(t, 1, append(in, postgres.Claim(), "--at", "2001-01-01T00:00Z")...); doc.Code != "BS061" {
		t.Errorf("from before there was a set: %+v", doc)
	}

	kit.Kubectl(t, "delete", "-n", namespace, "statefulset/postgres", "pvc/"+postgres.Claim())
	watched := watchEverything(t, other, repository.Namespace)
	secrets := follow(t, "get", "secrets", "-n", other, "-w", "-o", "yaml")
	far := restore(t, 0, append(in, postgres.Claim(), "--from", "copy", "--to-namespace", other, "--to-pvc", "data-third-0")...)
	if item := far.Items[0]; !item.Bound || item.From.Copy != taken.Copies[0].Snapshot || item.Namespace != other {
		t.Errorf("item %+v, want it from copy %s", item, taken.Copies[0].Snapshot)
	}
	if seen := secrets.String(); seen != "" {
		t.Errorf("Secrets in the namespace that was restored to:\n%s", seen)
	}
	for what, text := range watched() {
		for _, secret := range []string{password, kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY")} {
			if found := shows(text, secret); found != "" {
				t.Errorf("%s show a secret as %q", what, found)
			}
		}
	}
	if got := kit.Postgres(t, other, "third", kit.Options{}).SQL(t, checksum); got != want {
		t.Errorf("from the copy: %q, want %q", got, want)
	}
	if got, want := reclaim(t, other, "data-third-0"), "Delete "+other+"/data-third-0 "; got != want {
		t.Errorf("volume is %q, want %q", got, want)
	}
	noTrace(t, repository.Namespace, far)

	// From the snapshot into another namespace: its static copy goes, the
	// snapshot stays as it was.
	static := restore(t, 0, append(in, postgres.Claim(), "--from", "snapshot", "--to-namespace", other, "--to-pvc", "cloned")...)
	noTrace(t, repository.Namespace, static)
	kit.Pod(t, other, "look", "cloned")
	if version := kit.Exec(t, other, "look", "cat /cloned/pgdata/PG_VERSION"); version != "15\n" {
		t.Errorf("cloned volume holds version %q", version)
	}
	again := restore(t, 0, append(in, "vs/"+taken.Snapshot)...)
	noTrace(t, repository.Namespace, again)
}

// listed is the digest of all that matters of a tree, with how many lines it has
// and how many of them are of some kinds.
const listed = `/tmp/tree list %[1]s >/tmp/list && sha256sum </tmp/list && head -n 1 /tmp/list && wc -l </tmp/list && ` +
	`for what in ' one with ' security.capability system.posix_acl_default system.posix_acl_access user.n; do echo "$(grep -cF "$what" /tmp/list) $what"; done`

// TestRestoreBringsBackWhatAFileCanBe compares a tree that is hard to keep with
// what a restore from its copy makes of it, the volume's root included. There
// are some thousand files of every kind and name; make faults has 50,000.
func TestRestoreBringsBackWhatAFileCanBe(t *testing.T) {
	t.Parallel()
	files := 5_000
	if os.Getenv("BACKSNAP_FAULTS") == "all" {
		files = 50_000
	}
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, namespace), "apply", "-f", "-")
	kit.Pod(t, namespace, "app", "data")
	tree := treeProgram(t)
	putTree(t, tree, namespace, "app")
	want := kit.Exec(t, namespace, "app", fmt.Sprintf("/tmp/tree make /data %d && chown 999:998 /data && chmod 2775 /data && sync && ", files)+fmt.Sprintf(listed, "/data"))
	kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)

	doc := restore(t, 0, "data", "-n", namespace, "--backup-namespace", repository.Namespace, "--from", "copy:main", "--to-pvc", "back")
	kit.Pod(t, namespace, "look", "back")
	putTree(t, tree, namespace, "look")
	if got := kit.Exec(t, namespace, "look", fmt.Sprintf(listed, "/back")); got != want {
		t.Errorf("restored tree:\n%s\nwant\n%s\n%s", got, want, differing(t, namespace))
	}
	t.Log(want)
	if !strings.Contains(want, `"." 42775 999:998 `) || strings.Contains(want, "\n0 ") {
		t.Errorf("the tree is not what it should be:\n%s", want)
	}
	noTrace(t, repository.Namespace, doc)

	// A wrong password: restic's own words, and nothing is left of the attempt.
	wrong := repository
	wrong.Password = "not the password"
	wrong.Secret(t)
	failed := restore(t, 12, "data", "-n", namespace, "--backup-namespace", repository.Namespace, "--from", "copy", "--to-pvc", "never")
	if item := failed.Items[0]; item.State != "Failed" || item.Code != "BS053" || !strings.Contains(item.Error, "wrong password") {
		t.Errorf("item %+v", item)
	}
	noTrace(t, repository.Namespace, failed)
	if claims := kit.Names(t, namespace, "pvc"); strings.Contains(claims, "never") {
		t.Errorf("claims: %s", claims)
	}
}

// differing are the first lines in which the lists in the two pods differ.
func differing(t *testing.T, namespace string) string {
	t.Helper()
	lines := func(pod string) []string { return strings.Split(kit.Exec(t, namespace, pod, "cat /tmp/list"), "\n") }
	got, want := lines("look"), lines("app")
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, strings.Join(got[i:min(i+5, len(got))], "\n"), strings.Join(want[i:min(i+5, len(want))], "\n"))
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(got), len(want))
}

// treeProgram builds testdata/e2e/tree.
func treeProgram(t *testing.T) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tree")
	if out, err := exec.Command("go", "build", "-o", file, "./tree").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// putTree puts it into a pod as /tmp/tree.
func putTree(t *testing.T, program []byte, namespace, pod string) {
	t.Helper()
	kit.Apply(t, string(program), "exec", "-i", "-n", namespace, pod, "--", "sh", "-c", "cat >/tmp/tree && chmod +x /tmp/tree")
}

// TestRestoreOfADevice: a block volume from its copy, byte for byte.
func TestRestoreOfADevice(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	device(t, namespace, "raw", "256Mi")
	devicePod(t, namespace, "app", "raw")
	want := kit.Exec(t, namespace, "app", `
for at in 0 70 255; do head -c 1048576 /dev/urandom | dd of=/dev/raw bs=1M seek=$at conv=fsync 2>/dev/null || exit 1; done
sync
exec md5sum </dev/raw`)
	kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	doc := restore(t, 0, "raw", "-n", namespace, "--backup-namespace", repository.Namespace, "--from", "copy", "--to-pvc", "back")
	if got := doc.Items[0]; !got.Bound || got.Files != 1 || got.From.Copy == "" {
		t.Errorf("item %+v", got)
	}
	devicePod(t, namespace, "look", "back")
	if got := kit.Exec(t, namespace, "look", "exec md5sum </dev/raw"); got != want {
		t.Errorf("the restored device has sum %s, want %s", got, want)
	}
	noTrace(t, repository.Namespace, doc)
}

// TestRestoreWhereVolumesWait: a class that waits for the first consumer. From
// the snapshot the claim is made and left to wait, beside its static copy where
// it is in another namespace; a mover is a consumer.
func TestRestoreWhereVolumesWait(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace, other := kit.Namespace(t), kit.Namespace(t)
	kit.Claim(t, namespace, "data", "btrfs-local")
	kit.Pod(t, namespace, "app", "data")
	want := kit.Exec(t, namespace, "app", "head -c 3000000 /dev/urandom >/data/noise; sync; sha256sum </data/noise")
	kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	in := []string{"data", "-n", namespace, "--backup-namespace", repository.Namespace}

	waits := restore(t, 0, append(in, "--to-namespace", other, "--to-pvc", "waits")...)
	if item := waits.Items[0]; item.State != "Restored" || item.Bound {
		t.Errorf("item %+v", item)
	}
	filled := restore(t, 0, append(in, "--from", "copy", "--to-namespace", other, "--to-pvc", "filled")...)
	if item := filled.Items[0]; !item.Bound || item.Files != 1 {
		t.Errorf("item %+v", item)
	}
	kit.Pod(t, other, "look", "waits", "filled")
	for _, claim := range []string{"waits", "filled"} {
		if got := kit.Exec(t, other, "look", fmt.Sprintf("sha256sum </%s/noise", claim)); got != want {
			t.Errorf("%s holds %q, want %q", claim, got, want)
		}
	}
	// The static copy that waits was made from is removed by the next restore.
	last := restore(t, 0, append(in, "--from", "copy", "--to-namespace", other, "--to-pvc", "last")...)
	noTrace(t, repository.Namespace, last)
	noTrace(t, repository.Namespace, waits)
	if left := kit.Names(t, other, "volumesnapshot,lease"); left != "" {
		t.Errorf("left in %s: %s", other, left)
	}
}
