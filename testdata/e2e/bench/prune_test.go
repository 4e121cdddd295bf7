package bench_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	snapshotclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// The design's sizes and budgets for prune.
const (
	pruneNamespaces = 50
	pruneClaims     = 10 // in each of them
	pruneNights     = 20 // of each claim
	pruneSwept      = 2  // of these, whose time has come
	pruneCount      = pruneNamespaces * pruneClaims * pruneNights
	pruneDriver     = "none.csi.backsnap.test"
	budgetPlan      = 1.3
	budgetPlanSize  = 150 // MiB
	// backup-ns starts six processes and rests for five seconds, one snapshot
	// after the other.
	theirsEach = 5*time.Second + 6*50*time.Millisecond
)

// pages are what a plan has to read.
var pages = []string{
	"/apis/snapshot.storage.k8s.io/v1/volumesnapshots?limit=500&labelSelector=" + url.QueryEscape(catalog.LabelManagedBy+"="+catalog.ManagedBy),
	"/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents?limit=500",
	"/api/v1/persistentvolumeclaims?limit=500",
	"/api/v1/namespaces?limit=500",
}

// BenchmarkPrune is a plan over 10,000 snapshots of 500 claims in 50
// namespaces, against reading the same kinds and throwing them away, and the
// sweep of 1,000 of them. API server, etcd and snapshot controller are real;
// instead of a driver there is one that has nothing to delete.
func BenchmarkPrune(b *testing.B) {
	config := kit.Config(b)
	config.QPS = -1
	many := newCrowd(config, pruneNamespaces, pruneClaims, pruneNights)
	many.swept = pruneSwept
	many.fill(b)
	b.ResetTimer()

	var floors, plans []time.Duration
	var memory int64
	for range rounds {
		floors = append(floors, readAll(b, config, pages))
		plan, used := pruneBy(b, os.Getenv("KUBECONFIG"), "--dry-run")
		plans, memory = append(plans, plan), max(memory, used)
	}
	proxy := kit.NewProxy(b, nil)
	pruneBy(b, proxy.Kubeconfig, "--dry-run")
	ratio := median(plans).Seconds() / median(floors).Seconds()
	b.Logf("plan over %d snapshots: raw read %s, by us %s, %d requests", pruneCount, round(median(floors)), round(median(plans)), len(kit.Counted(proxy.Requests())))
	b.Logf("budget: %.2f x the raw read, %d MiB; we are at %.2f, %d MiB", budgetPlan, budgetPlanSize, ratio, memory)

	swept := pruneNamespaces * pruneClaims * pruneSwept
	sweeping := kit.NewProxy(b, nil)
	wall, _ := pruneBy(b, sweeping.Kubeconfig, "--sweep-only", "--yes", fmt.Sprintf("--max-delete=%d", swept))
	theirs := time.Duration(swept) * theirsEach
	b.Logf("sweep of %d: %s, %.0f a second, %d requests; backup-ns would take %s", swept, round(wall), float64(swept)/wall.Seconds(), len(kit.Counted(sweeping.Requests())), theirs)
	if gone := many.gone.Load(); gone != int64(swept) {
		b.Fatalf("the storage has let go of %d snapshots, want %d", gone, swept)
	}
	b.ReportMetric(ratio, "x-read")
	b.ReportMetric(float64(memory), "MiB")
	b.ReportMetric(float64(swept)/wall.Seconds(), "swept/s")
}

// pruneBy returns how long a prune of all took and the most memory it had, in
// MiB.
func pruneBy(b *testing.B, kubeconfig string, args ...string) (time.Duration, int64) {
	b.Helper()
	cmd := exec.Command("kubectl-backsnap", append([]string{"prune", "-A", "--repository", "none", "--keep", "daily=100", "--progress=none", "-o", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var said strings.Builder
	cmd.Stderr = &said
	started := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("%v\n%s", err, said.String())
	}
	return time.Since(started), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss >> 10
}

// readAll reads all pages of those kinds at once and keeps nothing of them but
// where the next one begins.
func readAll(b *testing.B, config *rest.Config, kinds []string) time.Duration {
	b.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		b.Fatal(err)
	}
	started := time.Now()
	var reading sync.WaitGroup
	for _, path := range kinds {
		reading.Go(func() {
			if err := readPages(client, config.Host+path); err != nil {
				b.Errorf("read %s: %v", path, err)
			}
		})
	}
	reading.Wait()
	return time.Since(started)
}

func readPages(client *http.Client, address string) error {
	for next := ""; ; {
		answer, err := client.Get(address + "&continue=" + url.QueryEscape(next))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %w", answer.Status, err)
		}
		// The token stands in the list's metadata, before or after its items.
		edges := string(text[:min(len(text), 4096)]) + string(text[max(len(text)-4096, 0):])
		_, after, _ := strings.Cut(edges, `"continue":"`)
		if next, _, _ = strings.Cut(after, `"`); next == "" {
			return nil
		}
	}
}

// crowd are many claims with many snapshots, and their storage.
type crowd struct {
	clients    kubernetes.Interface
	snapshots  snapshotclient.Interface
	namespaces int
	claims     int       // in each of them
	nights     int       // of each claim
	swept      int       // of these, whose time has come
	first      time.Time // night
	in         []string  // namespaces
	gone       atomic.Int64
	emptied    chan struct{} // closed when all are gone
}

func newCrowd(config *rest.Config, namespaces, claims, nights int) *crowd {
	return &crowd{
		clients: kubernetes.NewForConfigOrDie(config), snapshots: snapshotclient.NewForConfigOrDie(config),
		namespaces: namespaces, claims: claims, nights: nights, first: time.Now().UTC().AddDate(0, 0, -nights), emptied: make(chan struct{}),
	}
}

// fill makes all, and waits until the snapshot controller has bound them. When
// b ends all go the way that they would go.
func (c *crowd) fill(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(func() {
		c.empty(b)
		cancel()
		c.everywhere(b, func(ctx context.Context, ns string) error {
			return c.clients.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{})
		})
	})
	for range c.namespaces {
		made, err := c.clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: kit.Random("e2e")}}, metav1.CreateOptions{})
		if err != nil {
			b.Fatal(err)
		}
		c.in = append(c.in, made.Name)
	}
	contents, err := c.snapshots.SnapshotV1().VolumeSnapshotContents().Watch(ctx, metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	go c.store(ctx, contents)
	c.everywhere(b, c.fillNamespace)
}

// empty deletes all that is left, and waits until the storage has let go.
func (c *crowd) empty(b *testing.B) {
	c.everywhere(b, func(ctx context.Context, ns string) error {
		return c.snapshots.SnapshotV1().VolumeSnapshots(ns).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	})
	select { // b's own context is over by now, and the controller needs its time
	case <-c.emptied:
	case <-time.After(30 * time.Minute):
		b.Errorf("the storage has let go of %d snapshots, want %d", c.gone.Load(), c.count())
	}
}

// count is how many snapshots there are at first.
func (c *crowd) count() int64 { return int64(c.namespaces * c.claims * c.nights) }

// everywhere does it in all namespaces, in fifty of them at once.
func (c *crowd) everywhere(b *testing.B, do func(ctx context.Context, ns string) error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	var doing sync.WaitGroup
	room := make(chan struct{}, 50)
	for _, ns := range c.in {
		room <- struct{}{}
		doing.Go(func() {
			defer func() { <-room }()
			if err := do(ctx, ns); err != nil {
				b.Errorf("namespace %s: %v", ns, err)
			}
		})
	}
	doing.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// store is a driver that has nothing to delete: what the controller wants
// deleted may go.
func (c *crowd) store(ctx context.Context, contents watch.Interface) {
	defer contents.Stop()
	for event := range contents.ResultChan() {
		content, ok := event.Object.(*snapshotv1.VolumeSnapshotContent)
		if !ok || content.Spec.Driver != pruneDriver {
			continue
		}
		if event.Type == watch.Deleted {
			if c.gone.Add(1) == c.count() {
				close(c.emptied)
			}
			continue
		}
		if content.DeletionTimestamp != nil && len(content.Finalizers) > 0 {
			go func() {
				_, _ = c.snapshots.SnapshotV1().VolumeSnapshotContents().Patch(ctx, content.Name, types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
			}()
		}
	}
}

func (c *crowd) fillNamespace(ctx context.Context, ns string) error {
	watching, err := c.snapshots.SnapshotV1().VolumeSnapshots(ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer watching.Stop()
	for i := range c.claims {
		if err := c.fillClaim(ctx, ns, fmt.Sprintf("data-%d", i)); err != nil {
			return err
		}
	}
	return awaitReady(watching, c.claims*c.nights)
}

func (c *crowd) fillClaim(ctx context.Context, ns, name string) error {
	class := "none"
	claim, err := c.clients.CoreV1().PersistentVolumeClaims(ns).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("8Mi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for i, s := range kit.Taken(ns, name, string(claim.UID), c.first, c.nights) {
		if i < c.swept {
			s.DeleteAfter = "2020-01-01"
		}
		if err := c.fillSnapshot(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// fillSnapshot makes a content that is ready, and the snapshot that the
// controller binds to it.
func (c *crowd) fillSnapshot(ctx context.Context, s catalog.Snapshot) error {
	notes, err := s.Annotations()
	if err != nil {
		return err
	}
	name, ready := s.Namespace+"-"+s.Name, true
	content, err := c.snapshots.SnapshotV1().VolumeSnapshotContents().Create(ctx, &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: s.Labels(), Annotations: notes, Finalizers: []string{"snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: pruneDriver, Source: snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &name},
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: s.Namespace, Name: s.Name},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	cut := s.Record.Cut.UnixNano()
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &name, CreationTime: &cut, ReadyToUse: &ready}
	if _, err = c.snapshots.SnapshotV1().VolumeSnapshotContents().UpdateStatus(ctx, content, metav1.UpdateOptions{}); err != nil {
		return err
	}
	_, err = c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Create(ctx, &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: s.Labels(), Annotations: notes},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &name}},
	}, metav1.CreateOptions{})
	return err
}
