// Package bench_test measures the plugin beside the same work done by hand, in
// one run on one cluster: what counts is the ratio. `make bench` prints it.
package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// rounds of each side, one after the other, so that both meet the same weather.
const rounds = 5

// Budgets of the design for one app with PostgreSQL.
const (
	budgetEmpty    = 500 * time.Millisecond // over the floor
	budgetLarge    = 1.1                    // times the floor
	budgetRequests = 20                     // besides watches and renewals
)

// BenchmarkSnapshotOfOneApp is `kubectl backsnap snapshot` against the floor:
// the same dump with the same proof by exec, then a VolumeSnapshot created and
// watched until it is ready, in one process that is running already.
func BenchmarkSnapshotOfOneApp(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		ours, floor := measure(b, "512Mi", "")
		b.Logf("budget: floor + %v; we are at floor + %v", budgetEmpty, (ours - floor).Round(time.Millisecond))
	})
	b.Run("1GiB", func(b *testing.B) {
		ours, floor := measure(b, "6Gi", `create table big as select i, md5(i::text) || md5((i + 1)::text) || md5((i + 2)::text) || md5((i + 3)::text) as what from generate_series(1, 6500000) i`)
		b.Logf("budget: %.2f x the floor; we are at %.2f", budgetLarge, ours.Seconds()/floor.Seconds())
	})
}

// measure prints both sides and returns their medians.
func measure(b *testing.B, size, fill string) (ours, floor time.Duration) {
	db := kit.Postgres(b, kit.Namespace(b), "postgres", kit.Options{Size: size})
	if fill != "" {
		db.SQL(b, fill)
		db.SQL(b, "checkpoint")
	}
	b.ResetTimer()
	var by [2][]time.Duration
	var count [2]int
	for i := range rounds {
		for side, take := range []func(*testing.B, kit.Database, int) (time.Duration, int){byHand, byUs} {
			wall, requests := take(b, db, i)
			by[side], count[side] = append(by[side], wall), requests
		}
	}
	floor, ours = median(by[0]), median(by[1])
	b.Logf("%-8s %10s %10s %10s %9s", "", "median", "fastest", "slowest", "requests")
	for side, name := range []string{"by hand", "by us"} {
		b.Logf("%-8s %s %9d", name, spread(by[side]), count[side])
	}
	b.Logf("budget: %d requests", budgetRequests)
	b.ReportMetric(ours.Seconds()/floor.Seconds(), "x-floor")
	return ours, floor
}

// spread is the median, the fastest and the slowest of d, in columns.
func spread(d []time.Duration) string {
	return fmt.Sprintf("%10s %10s %10s", round(median(d)), round(slices.Min(d)), round(slices.Max(d)))
}

func round(d time.Duration) string { return d.Round(time.Millisecond).String() }

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

// byUs is the program itself, start-up included. After the last round
// another run through a proxy counts its requests: the proxy's time is not ours.
func byUs(b *testing.B, db kit.Database, i int) (time.Duration, int) {
	b.Helper()
	time.Sleep(pause)
	started := time.Now()
	run(b, os.Getenv("KUBECONFIG"), db)
	wall := time.Since(started)
	if i < rounds-1 {
		return wall, 0
	}
	proxy := kit.NewProxy(b, nil)
	run(b, proxy.Kubeconfig, db)
	return wall, len(kit.Counted(proxy.Requests()))
}

func run(b *testing.B, kubeconfig string, db kit.Database) {
	b.Helper()
	cmd := exec.Command("kubectl-backsnap", "snapshot", "-n", db.Namespace, "--repository", "none", "--consistency", "application", "--quiet")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
}

// pause is how long both sides let the cluster be before each measurement.
const pause = 2 * time.Second

// floorScript is the least that a proven dump takes, compressed as ours is. It
// ends with the same flush of the volume.
const floorScript = `set -eu; cd /var/lib/postgresql/data; PATH=/usr/lib/postgresql/15/bin:$PATH
for db in shop postgres; do
	pg_dump -w -U postgres -Fc -Z1 -f .floor-$db.part -d $db
	pg_restore -f /dev/null .floor-$db.part
done
pg_dumpall -w -U postgres --globals-only -f .floor-globals.part
sha256sum .floor-*.part
sync .floor-*.part
for f in .floor-*.part; do mv "$f" "${f%.part}"; done
psql -XqtAw -U postgres -d postgres -c "select pg_logical_emit_message(true, 'floor', '')" -c checkpoint
sync -f .`

// byHand does the same work with as little as possible around it.
func byHand(b *testing.B, db kit.Database, i int) (time.Duration, int) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 2*kit.Patience)
	defer cancel()
	config := kit.Config(b)
	recorder := kube.Record(config, nil)
	cluster, err := kube.Connect(config, "floor")
	if err != nil {
		b.Fatal(err)
	}
	time.Sleep(pause)
	started := time.Now()
	ref := catalog.ContainerRef{Namespace: db.Namespace, Pod: db.Pod(), Container: "database"}
	var said bytes.Buffer
	if err := cluster.Exec(ctx, ref, []string{"sh", "-c", floorScript}, strings.NewReader(""), io.Discard, &said); err != nil {
		b.Fatalf("%v\n%s", err, &said)
	}
	snapshot, err := cluster.Create(ctx, catalog.Snapshot{
		Namespace: db.Namespace, Name: fmt.Sprintf("floor-%d", i), Claim: db.Claim(), Class: "btrfs", Run: catalog.Run(fmt.Sprintf("20260101-00000%d-hand", i)),
	})
	if err != nil {
		b.Fatal(err)
	}
	err = cluster.Await(ctx, db.Namespace, func(all []catalog.Snapshot) (bool, error) {
		return slices.ContainsFunc(all, func(s catalog.Snapshot) bool { return s.UID == snapshot.UID && s.Ready }), nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(started), len(kit.Counted(recorder.Requests()))
}

// BenchmarkStartUp is the program doing nothing: budget 80 ms.
func BenchmarkStartUp(b *testing.B) {
	var walls []time.Duration
	for range 10 {
		started := time.Now()
		if err := exec.Command("kubectl-backsnap", "version").Run(); err != nil {
			b.Fatal(err)
		}
		walls = append(walls, time.Since(started))
	}
	b.Logf("version: median %s; budget 80ms", round(median(walls)))
}
