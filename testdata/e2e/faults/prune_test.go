package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestPruneIsKilled ends a prune by SIGKILL after some of its writes, in `make
// faults` after each: the next one removes what is due and nothing else, and no
// content of what stays would take its data with it.
func TestPruneIsKilled(t *testing.T) {
	t.Parallel()
	after := []int{2, 3, 4}
	if all() {
		after = []int{1, 2, 3, 4, 5, 6, 7, 8, 9}
	}
	for _, n := range after {
		t.Run(fmt.Sprintf("after write %d", n), func(t *testing.T) {
			t.Parallel()
			killPrune(t, n)
		})
	}
}

func killPrune(t *testing.T, n int) {
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	kit.Nights(t, namespace, "data", time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC), 6)
	contents := map[string]string{}
	for day := 1; day <= 6; day++ {
		name := fmt.Sprintf("data-2025-01-%02d", day)
		contents[name] = kit.Kubectl(t, "get", "volumesnapshot", name, "-n", namespace, "-o", "jsonpath={.status.boundVolumeSnapshotContentName}")
		kit.Kubectl(t, "patch", "volumesnapshotcontent", contents[name], "--type=merge", "-p", `{"spec": {"deletionPolicy": "Retain"}}`)
		// What is retained outlives the namespace.
		kit.Afterwards(t, "patch", "volumesnapshotcontent", contents[name], "--type=merge", "-p", `{"spec": {"deletionPolicy": "Delete"}}`)
	}
	due := []string{"data-2025-01-02", "data-2025-01-03", "data-2025-01-04"}
	for _, name := range due {
		kit.Kubectl(t, "label", "volumesnapshot", name, "-n", namespace, "backsnap.sh/delete-after=2025-02-01")
	}
	args := []string{"prune", "-n", namespace, "--keep", "daily=3", "--yes", "--max-delete=3"}

	var writes atomic.Int32
	client := make(chan int, 1)
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Resource == "leases" && r.Verb == "update" || int(writes.Add(1)) != n {
			return
		}
		if err := syscall.Kill(<-client, syscall.SIGKILL); err != nil {
			t.Errorf("kill the client: %v", err)
		}
	})
	cmd := kit.Start(t, proxy.Kubeconfig, args...)
	client <- cmd.Process.Pid
	cmd.Wait()

	// One of them is saved at the last moment, where it is there still.
	saved := kit.Command(t, nil, "", "kubectl", "label", "volumesnapshot", "data-2025-01-03", "-n", namespace, "backsnap.sh/delete-after-", "backsnap.sh/pin=saved").Code == 0 &&
		kit.Kubectl(t, "get", "volumesnapshot", "data-2025-01-03", "-n", namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.name}{.metadata.deletionTimestamp}") == "data-2025-01-03"
	kit.Must(t, append(args, "--lock-timeout=3m")...)
	var want []string
	for name := range contents {
		if !slices.Contains(due, name) || name == "data-2025-01-03" && saved {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	kit.Until(t, "what is due to be gone, and the rest to be retained", func() string {
		got := strings.Fields(kit.Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}"))
		if !slices.Equal(got, want) {
			return fmt.Sprintf("left %v, want %v", got, want)
		}
		for name, content := range contents {
			policy := kit.Kubectl(t, "get", "volumesnapshotcontent", content, "--ignore-not-found", "-o", "jsonpath={.spec.deletionPolicy}")
			if stays := slices.Contains(want, name); stays && policy != "Retain" || !stays && policy != "" {
				return fmt.Sprintf("deletionPolicy of the content of %s: %q", name, policy)
			}
		}
		return ""
	})
}
