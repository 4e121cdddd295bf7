package bench_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// The sizes and budgets for status.
const (
	statusNamespaces = 500
	statusClaims     = 10 // in each of them
	statusNights     = 2  // of each claim
	budgetStatus     = 3 * time.Second
	budgetStatusSize = 200 // MiB
)

// BenchmarkStatus is `status -A` over 5,000 claims in 500 namespaces, each with a
// volume, a pod and two restore points, against reading the same kinds and
// throwing them away. API server, etcd and controllers are real; there is no
// storage, and no pod is ever started.
func BenchmarkStatus(b *testing.B) {
	config := kit.Config(b)
	config.QPS = -1
	many := newCrowd(config, statusNamespaces, statusClaims, statusNights)
	many.fill(b)
	b.Cleanup(func() { many.unmount(b) })
	many.everywhere(b, many.mount)
	for _, ns := range many.in { // one after the other: it is the controller that is waited for
		kit.Kubectl(b, "wait", "-n", ns, "pvc", "--all", "--for=jsonpath={.status.phase}=Bound", "--timeout", (3 * kit.Patience).String())
	}
	b.ResetTimer()

	kinds := append([]string{"/api/v1/persistentvolumes?limit=500", "/api/v1/pods?limit=500"}, pages...)
	var floors, walls []time.Duration
	var memory int64
	for range rounds {
		floors = append(floors, readAll(b, config, kinds))
		wall, used := statusBy(b, os.Getenv("KUBECONFIG"))
		walls, memory = append(walls, wall), max(memory, used)
	}
	proxy := kit.NewProxy(b, nil)
	statusBy(b, proxy.Kubeconfig)
	b.Logf("status of %d claims in %d namespaces: raw read %s, by us %s, %d requests", statusNamespaces*statusClaims, statusNamespaces, round(median(floors)), round(median(walls)), len(proxy.Requests()))
	b.Logf("budget: %s, %d MiB; we are at %s, %d MiB", budgetStatus, budgetStatusSize, round(median(walls)), memory)
	b.ReportMetric(median(walls).Seconds(), "s/status")
	b.ReportMetric(float64(memory), "MiB")
}

// statusBy returns how long a status of all took and the most memory it had, in
// MiB.
func statusBy(b *testing.B, kubeconfig string) (time.Duration, int64) {
	b.Helper()
	cmd := exec.Command("kubectl-backsnap", "status", "-A", "--fail-on=")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var table, said strings.Builder
	cmd.Stdout, cmd.Stderr = &table, &said
	started := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v\n%s", err, said.String())
	}
	wall := time.Since(started)
	if rows := strings.Count(table.String(), "\ne2e-"); rows < statusNamespaces*statusClaims {
		b.Fatalf("%d apps, want %d at least", rows, statusNamespaces*statusClaims)
	}
	return wall, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
}

// mount gives each claim of ns a volume, and a pod that no scheduler looks for.
func (c *crowd) mount(ctx context.Context, ns string) error {
	for i := range c.claims {
		claim := fmt.Sprintf("data-%d", i)
		if _, err := c.clients.CoreV1().PersistentVolumes().Create(ctx, volumeOf(ns, claim), metav1.CreateOptions{}); err != nil {
			return err
		}
		if _, err := c.clients.CoreV1().Pods(ns).Create(ctx, podOf(claim), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// unmount takes the volumes away; pods go with their namespaces.
func (c *crowd) unmount(b *testing.B) {
	c.everywhere(b, func(ctx context.Context, ns string) error {
		for i := range c.claims {
			if err := c.clients.CoreV1().PersistentVolumes().Delete(ctx, fmt.Sprintf("%s-data-%d", ns, i), metav1.DeleteOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
}

func volumeOf(ns, claim string) *corev1.PersistentVolume {
	name := ns + "-" + claim
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: "none", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("8Mi")},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef:                      &corev1.ObjectReference{Namespace: ns, Name: claim},
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: pruneDriver, VolumeHandle: name}},
		},
	}
}

func podOf(claim string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "app-" + claim},
		Spec: corev1.PodSpec{
			SchedulerName: "nobody",
			Containers:    []corev1.Container{{Name: "app", Image: "docker.io/library/busybox:1.36", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}}},
			Volumes:       []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
		},
	}
}
