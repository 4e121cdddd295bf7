package bench_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// BenchmarkDowntime is how long an app stands still while its volume of 2 GiB is
// replaced in place, from scaled down to ready, against the sum of what that
// takes by hand in a process that is running already: the app scaled to 0 and its
// volumes let go, its claim made again with the other volume, the app scaled to
// 1 and ready. On both sides the new volume is there before.
func BenchmarkDowntime(b *testing.B) {
	data := contents[0]
	ns := filled(b, data.size, data.fill)
	kit.Kubectl(b, "delete", "pod", "filler", "-n", ns)
	kit.App(b, ns)
	kit.AppReady(b, ns)
	kit.Snapshot(b, 0, "-n", ns, "--repository", "none")
	cluster, err := kube.Connect(kit.Config(b), "floor")
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	var hand [3][]time.Duration
	var sums, ours []time.Duration
	for i := range rounds {
		time.Sleep(pause)
		steps := swapByHand(b, cluster, ns, i)
		for step, took := range steps {
			hand[step] = append(hand[step], took)
		}
		sums = append(sums, steps[0]+steps[1]+steps[2])
		time.Sleep(pause)
		ours = append(ours, swapByUs(b, ns))
	}
	b.Logf("%-12s %10s %10s %10s", "", "median", "fastest", "slowest")
	for step, name := range []string{"scaled down", "swapped", "started"} {
		b.Logf("%-12s %s", name, spread(hand[step]))
	}
	b.Logf("%-12s %s", "sum", spread(sums))
	b.Logf("%-12s %s", "by us", spread(ours))
	ratio := median(ours).Seconds() / median(sums).Seconds()
	b.Logf("downtime: %.2f of the sum by hand", ratio)
	b.ReportMetric(ratio, "x-hand")
}

// swapByUs restores in place and commits, and is the downtime that it tells.
func swapByUs(b *testing.B, ns string) time.Duration {
	b.Helper()
	run := func(args ...string) []byte {
		out, err := exec.Command("kubectl-backsnap", append([]string{"restore", "-n", ns, "--yes", "--quiet", "-o", "json"}, args...)...).Output()
		if err != nil {
			b.Fatalf("restore %v: %v\n%s", args, err, out)
		}
		return out
	}
	var doc struct {
		Run      string
		Downtime float64 `json:"downtimeSeconds"`
	}
	if err := json.Unmarshal(run("data", "--in-place"), &doc); err != nil || doc.Downtime <= 0 {
		b.Fatalf("downtime %v: %v", doc.Downtime, err)
	}
	run("--commit", doc.Run, "--grace", "0")
	return time.Duration(doc.Downtime * float64(time.Second))
}

// swapByHand exchanges the volume of the claim for a clone of the snapshot, and
// is how long each of the three steps has taken.
func swapByHand(b *testing.B, cluster *kube.Cluster, ns string, round int) (took [3]time.Duration) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 2*kit.Patience)
	defer cancel()
	do := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	read := func(name string) (catalog.Claim, string) {
		claim, manifest, err := cluster.ReadClaim(ctx, ns, name)
		do(err)
		return claim, manifest
	}
	name := fmt.Sprintf("clone-%d", round)
	kit.Must(b, "restore", "data", "-n", ns, "--to-pvc", name, "--quiet")
	kit.Bound(b, ns, name)
	clone, _ := read(name)
	live, manifest := read("data")
	apps, err := cluster.Apps(ctx, ns)
	do(err)
	app := apps[slices.IndexFunc(apps, func(a catalog.App) bool { return a.Name == "app" })]
	mark := func(claim catalog.Claim, role catalog.Role) catalog.SwapVolume {
		v := catalog.SwapVolume{
			Volume: catalog.Volume{Name: claim.Volume, Run: catalog.Run(fmt.Sprintf("20260101-00000%d-hand", round)), Claim: claim},
			Role:   role, Namespace: ns, Of: "data", Manifest: manifest,
		}
		do(cluster.MarkVolume(ctx, v))
		return v
	}
	mark(live, catalog.RoleOld)
	offered := mark(clone, catalog.RoleNew)
	do(cluster.RemoveClaim(ctx, ns, name, clone.UID))
	do(cluster.OfferVolume(ctx, offered, catalog.Claim{Namespace: ns, Name: "data"}))
	for step, work := range []func(){
		func() {
			do(cluster.Scale(ctx, app, 0))
			do(cluster.AwaitIdle(ctx, ns, []string{"data"}, []string{live.Volume, clone.Volume}, nil))
		},
		func() {
			do(cluster.RemoveClaim(ctx, ns, "data", live.UID))
			do(cluster.RemakeClaim(ctx, manifest, clone.Volume))
			do(cluster.AwaitBound(ctx, ns, "data", func(restic.Trouble) {}))
		},
		func() {
			do(cluster.Scale(ctx, app, 1))
			do(cluster.AwaitReady(ctx, app, 1))
		},
	} {
		started := time.Now()
		work()
		took[step] = time.Since(started)
	}
	do(cluster.LetVolume(ctx, clone.Volume, "Delete"))
	do(cluster.LetVolume(ctx, live.Volume, "Delete"))
	do(cluster.AwaitVolumeGone(ctx, live.Volume))
	return took
}
