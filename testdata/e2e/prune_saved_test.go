package e2e_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestPruneSparesWhatIsSavedMeanwhile: a label that is taken off when prune has
// listed and is about to delete saves the snapshot, and its content is retained
// as before; the other one that is due goes.
func TestPruneSparesWhatIsSavedMeanwhile(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	kit.Nights(t, namespace, "data", time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC), 4)
	for _, name := range []string{"data-2025-01-01", "data-2025-01-02"} {
		kit.Kubectl(t, "label", "volumesnapshot", name, "-n", namespace, "backsnap.sh/retain=days", "backsnap.sh/delete-after=2025-02-01", "--overwrite")
	}
	saved := contentOf(t, namespace, "data-2025-01-01")
	kit.Kubectl(t, "patch", "volumesnapshotcontent", saved, "--type=merge", "-p", `{"spec": {"deletionPolicy": "Retain"}}`)
	kit.Afterwards(t, "patch", "volumesnapshotcontent", saved, "--type=merge", "-p", `{"spec": {"deletionPolicy": "Delete"}}`) // it outlives the namespace

	var once sync.Once
	proxy := kit.NewProxy(t, func(r kube.Request) {
		// The content is made to go with its snapshot: that is deleted next.
		if r.Resource == "volumesnapshotcontents" && r.Verb == "patch" && strings.HasSuffix(r.Path, "/"+saved) {
			once.Do(func() {
				if r := kit.Command(t, nil, "", "kubectl", "label", "volumesnapshot", "data-2025-01-01", "-n", namespace, "backsnap.sh/delete-after-"); r.Code != 0 {
					t.Errorf("kubectl label: %s", r.Stderr)
				}
			})
		}
	})
	r := kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, "prune", "-n", namespace, "--keep", "daily=7", "--yes", "--max-delete=2")
	if r.Code != 0 || strings.Contains(r.Stdout, "data-2025-01-01") || !strings.Contains(r.Stderr, "kept data-2025-01-01: it has changed since it was listed") {
		t.Errorf("exit %d", r.Code)
	}
	if got, want := standing(t, namespace), []string{"data-2025-01-01", "data-2025-01-03", "data-2025-01-04"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	if got := kit.Kubectl(t, "get", "volumesnapshotcontent", saved, "-o", "jsonpath={.spec.deletionPolicy}"); got != "Retain" {
		t.Errorf("deletionPolicy %s", got)
	}
	// The next one keeps it, too.
	if got := prune(t, 0, "-n", namespace, "--keep", "daily=7", "--yes").states("Deleted"); len(got) > 0 {
		t.Errorf("deleted %v", got)
	}
}
