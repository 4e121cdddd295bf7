package bench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	snapshotclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// The design's sizes and budgets for many volumes.
const (
	namespaces   = 20
	volumes      = 10 // in each of them
	budgetMany   = 1.2
	budgetMemory = 200 // MiB
)

// BenchmarkManyVolumes is one run over 200 volumes in 20 namespaces against
// what the snapshot controller alone needs for as many VolumeSnapshots.
func BenchmarkManyVolumes(b *testing.B) {
	label := kit.Random("many")
	var all []string
	for range namespaces {
		ns := kit.Namespace(b)
		all = append(all, ns)
		kit.Apply(b, manyClaims(ns, label), "apply", "-f", "-")
	}
	for _, ns := range all {
		kit.Kubectl(b, "wait", "-n", ns, "pvc", "--all", "--for=jsonpath={.status.phase}=Bound", "--timeout", (3 * kit.Patience).String())
	}
	b.ResetTimer()
	floor := controllerAlone(b, all)
	for _, ns := range all {
		kit.Kubectl(b, "delete", "volumesnapshot", "--all", "-n", ns)
	}
	ours, memory := manyByUs(b, label)
	ratio := ours.Seconds() / floor.Seconds()
	b.Logf("%d volumes in %d namespaces: controller alone %s, by us %s", namespaces*volumes, namespaces, round(floor), round(ours))
	b.Logf("budget: %.2f x the controller alone, %d MiB; we are at %.2f, %d MiB", budgetMany, budgetMemory, ratio, memory)
	b.ReportMetric(ratio, "x-controller")
	b.ReportMetric(float64(memory), "MiB")
}

func manyClaims(ns, label string) string {
	var text strings.Builder
	for i := range volumes {
		fmt.Fprintf(&text, `
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-%d, namespace: %s, labels: {bench: %s}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 8Mi}}}
`, i, ns, label)
	}
	return text.String()
}

// controllerAlone asks for all snapshots at once and waits until all are ready.
func controllerAlone(b *testing.B, all []string) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	config := kit.Config(b)
	config.QPS = -1
	client, err := snapshotclient.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	var making sync.WaitGroup
	for _, ns := range all {
		making.Go(func() {
			if err := manySnapshots(ctx, client, ns); err != nil {
				b.Errorf("snapshots of %s: %v", ns, err)
			}
		})
	}
	making.Wait()
	return time.Since(started)
}

// manySnapshots makes a snapshot of each claim of ns and watches until all are
// ready.
func manySnapshots(ctx context.Context, client snapshotclient.Interface, ns string) error {
	class := "btrfs"
	watching, err := client.SnapshotV1().VolumeSnapshots(ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer watching.Stop()
	for i := range volumes {
		claim := fmt.Sprintf("data-%d", i)
		_, err := client.SnapshotV1().VolumeSnapshots(ns).Create(ctx, &snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Name: "floor-" + claim},
			Spec: snapshotv1.VolumeSnapshotSpec{
				Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim}, VolumeSnapshotClassName: &class,
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return awaitReady(watching, volumes)
}

// awaitReady reads a watch of snapshots until that many are ready.
func awaitReady(watching watch.Interface, want int) error {
	ready := map[string]bool{}
	for event := range watching.ResultChan() {
		s, ok := event.Object.(*snapshotv1.VolumeSnapshot)
		if ok && s.Status != nil && s.Status.ReadyToUse != nil && *s.Status.ReadyToUse {
			ready[s.Name] = true
		}
		if len(ready) == want {
			return nil
		}
	}
	return fmt.Errorf("the watch ended with %d ready", len(ready))
}

// manyByUs returns how long the run took and the most memory it had, in MiB.
func manyByUs(b *testing.B, label string) (wall time.Duration, memory int64) {
	b.Helper()
	cmd := exec.Command("kubectl-backsnap", "snapshot", "-A", "-l", "bench="+label, "--repository", "none", "--quiet")
	cmd.Env = os.Environ()
	started := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return time.Since(started), usage.Maxrss >> 10
}
