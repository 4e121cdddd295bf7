package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// orphaned are what `prune --orphans -o json` prints of contents: what a sweep
// does with each.
func orphaned(t *testing.T, args ...string) map[string]string {
	t.Helper()
	var doc struct {
		Items []struct {
			Content  string `json:"volumeSnapshotContent"`
			Decision string `json:"decision"`
		}
	}
	if err := json.Unmarshal([]byte(kit.Must(t, append([]string{"prune", "--orphans", "-o", "json"}, args...)...)), &doc); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, item := range doc.Items {
		found[item.Content] = item.Decision
	}
	return found
}

// retainAndLose takes a snapshot's object away as one does by hand whose class
// retains: content and storage stay. It returns the content and its handle.
func retainAndLose(t *testing.T, namespace, snapshot string) (content, handle string) {
	t.Helper()
	content = contentOf(t, namespace, snapshot)
	handle = kit.Kubectl(t, "get", "volumesnapshotcontent", content, "-o", "jsonpath={.status.snapshotHandle}")
	kit.Kubectl(t, "patch", "volumesnapshotcontent", content, "--type=merge", "-p", `{"spec": {"deletionPolicy": "Retain"}}`)
	kit.Kubectl(t, "delete", "volumesnapshot", snapshot, "-n", namespace)
	return content, handle
}

// TestAContentIsAdopted: a content that has lost its snapshot is an orphan, is
// given one again with the labels and the record that it had, and gives back the
// bytes that it holds. Another one is swept, and the storage has nothing left of
// it; so it is with the one that was adopted, once it is pinned no more.
func TestAContentIsAdopted(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Pod(t, namespace, "app", "data")
	take := func(says string) string {
		t.Helper()
		kit.Exec(t, namespace, "app", "echo "+says+" >/data/file && head -c 100000 /dev/urandom >/data/"+says+" && sync")
		return kit.Snapshot(t, 0, "data", "-n", namespace, "--repository", "none").Of(t, "data").Snapshot
	}
	first, second, third := take("first"), take("second"), take("third")
	sum := kit.Exec(t, namespace, "app", "sha256sum </data/second")
	labels := kit.Labels(t, namespace, second)
	record := kit.Kubectl(t, "get", "volumesnapshot", second, "-n", namespace, "-o", `jsonpath={.metadata.annotations.backsnap\.sh/record}`)
	swept, sweptHandle := retainAndLose(t, namespace, first)
	content, handle := retainAndLose(t, namespace, second)
	if got, want := fmt.Sprint(orphaned(t, "-n", namespace)), fmt.Sprint(map[string]string{swept: "sweep", content: "sweep"}); got != want {
		t.Fatalf("orphans %s, want %s", got, want)
	}

	out := kit.Must(t, "adopt", content)
	if out != "volumesnapshot.snapshot.storage.k8s.io/"+second+" adopted\n" {
		t.Errorf("said %q", out)
	}
	labels["backsnap.sh/pin"] = "adopted"
	if got := kit.Labels(t, namespace, second); fmt.Sprint(got) != fmt.Sprint(labels) {
		t.Errorf("labels %v, want %v", got, labels)
	}
	if got := kit.Kubectl(t, "get", "volumesnapshot", second, "-n", namespace, "-o", `jsonpath={.metadata.annotations.backsnap\.sh/record}`); got != record {
		t.Errorf("record %s, want %s", got, record)
	}
	if kit.Kubectl(t, "get", "volumesnapshotcontent", content, "--ignore-not-found", "-o", "name") != "" {
		t.Errorf("content %s is there still", content)
	}
	kit.Must(t, "adopt", content) // once more changes nothing
	kit.Must(t, "restore", "vs/"+second, "-n", namespace, "--to-pvc", "again")
	kit.Pod(t, namespace, "look", "again")
	if got := kit.Exec(t, namespace, "look", "cat /again/file && sha256sum </again/second"); got != "second\n"+sum {
		t.Errorf("restored %q, want %q", got, "second\n"+sum)
	}

	swept2 := kit.Must(t, "prune", "--orphans=sweep", "-n", namespace, "--yes", "--max-delete", "1")
	if swept2 != "volumesnapshotcontent.snapshot.storage.k8s.io/"+swept+" deleted\n" {
		t.Errorf("swept %q", swept2)
	}
	storageHasNot(t, namespace, sweptHandle)
	kit.Kubectl(t, "label", "volumesnapshot", second, "-n", namespace, "backsnap.sh/pin-")
	kit.Must(t, "prune", "vs/"+second, "-n", namespace, "--repository", "none", "--now", "--yes")
	storageHasNot(t, namespace, handle)
	if got := standing(t, namespace); !slices.Equal(got, []string{third}) {
		t.Errorf("left %v, want %s", got, third)
	}
}

// TestSnapshotsOfALostNamespace: what a namespace has left that was deleted is
// listed, and adopted once the namespace is there again; of a claim that was not
// made again the newest snapshot stays, and an older one is swept.
func TestSnapshotsOfALostNamespace(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	older := kit.Snapshot(t, 0, "data", "-n", namespace, "--repository", "none").Of(t, "data").Snapshot
	newer := kit.Snapshot(t, 0, "data", "-n", namespace, "--repository", "none").Of(t, "data").Snapshot
	var contents []string
	for _, snapshot := range []string{older, newer} {
		content := contentOf(t, namespace, snapshot)
		kit.Kubectl(t, "patch", "volumesnapshotcontent", content, "--type=merge", "-p", `{"spec": {"deletionPolicy": "Retain"}}`)
		contents = append(contents, content)
	}
	kit.Kubectl(t, "delete", "namespace", namespace)
	want := fmt.Sprint(map[string]string{contents[0]: "sweep", contents[1]: "leave"})
	if got := fmt.Sprint(orphaned(t, "-n", namespace)); got != want {
		t.Errorf("orphans %s, want %s", got, want)
	}
	if r := kit.Backsnap(t, append([]string{"adopt"}, contents...)...); r.Code != 4 || strings.Count(r.Stderr, "namespace "+namespace+" of its snapshot does not exist [BS047]") != 2 {
		t.Errorf("without its namespace: exit %d\n%s", r.Code, r.Stderr)
	}
	kit.Kubectl(t, "create", "namespace", namespace)
	kit.Must(t, append([]string{"adopt"}, contents...)...)
	if got := standing(t, namespace); !slices.Equal(got, []string{older, newer}) {
		t.Errorf("adopted %v, want %s and %s", got, older, newer)
	}
	sweep := []string{"prune", "--orphans=sweep", "-n", namespace, "--yes", "--max-delete", "2"}
	if out := kit.Must(t, sweep...); out != "" { // they are pinned
		t.Errorf("swept %q", out)
	}
	kit.Kubectl(t, "label", "volumesnapshot", older, newer, "-n", namespace, "backsnap.sh/pin-")
	if out := kit.Must(t, sweep...); out != "volumesnapshot.snapshot.storage.k8s.io/"+older+" deleted\n" {
		t.Errorf("swept %q", out)
	}
	if out := kit.Must(t, append(sweep, "--min-keep", "0")...); out != "volumesnapshot.snapshot.storage.k8s.io/"+newer+" deleted\n" {
		t.Errorf("swept %q", out)
	}
}
