package bench_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// budgetCopy is the design's: our throughput over that of bare restic.
const budgetCopy = 0.95

// contents are what volumes hold: much data, and many files.
var contents = []struct{ name, size, fill string }{
	{"2GiB", "3Gi", `mkdir random text
		for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do head -c 67108864 /dev/urandom >random/$i; done
		for i in 1 2 3 4 5 6 7 8; do seq "${i}0000000" "${i}9999999" | head -c 134217728 >text/$i; done`},
	{"50000files", "1Gi", `for d in $(seq 1 50); do mkdir $d; for f in $(seq 1 1000); do echo "file $f of folder $d" >$d/$f; done; done`},
}

// BenchmarkCopy is a copy by us against `restic backup` in a pod of the same
// size on a clone of the same snapshot. What counts is the time that restic
// itself says it took: both sides start a pod. Each copy goes into an empty
// repository of its own.
func BenchmarkCopy(b *testing.B) {
	for _, data := range contents {
		b.Run(data.name, func(b *testing.B) { measureCopy(b, data.size, data.fill) })
	}
}

func measureCopy(b *testing.B, size, fill string) {
	ns := filled(b, size, fill)
	snapshot := kit.Snapshot(b, 0, "data", "-n", ns, "--repository", "none").Of(b, "data").Snapshot
	b.ResetTimer()
	var by [2][]time.Duration
	for i := range rounds {
		by[0] = append(by[0], bareCopy(b, ns, snapshot, size, i))
		by[1] = append(by[1], ourCopy(b, ns))
	}
	compare(b, by)
	ratio := median(by[0]).Seconds() / median(by[1]).Seconds()
	b.Logf("budget: %.2f of restic's own throughput; we are at %.2f", budgetCopy, ratio)
	b.ReportMetric(ratio, "x-restic")
}

// filled is a new namespace with a pod that has filled the claim `data`.
func filled(b *testing.B, size, fill string) string {
	b.Helper()
	ns := kit.Namespace(b)
	claim(b, ns, "data", size, "")
	kit.Pod(b, ns, "filler", "data")
	kit.Exec(b, ns, "filler", "set -e; cd /data; "+fill+"; sync")
	return ns
}

// compare prints what bare restic and we have taken.
func compare(b *testing.B, by [2][]time.Duration) {
	b.Logf("%-8s %10s %10s %10s", "", "median", "fastest", "slowest")
	for side, name := range []string{"restic", "by us"} {
		b.Logf("%-8s %s", name, spread(by[side]))
	}
}

// ourCopy snapshots the claim and copies it.
func ourCopy(b *testing.B, ns string) time.Duration {
	b.Helper()
	repository := kit.NewRepository(b, "bench")
	run := kit.Snapshot(b, 0, "data", "-n", ns, "--backup-namespace", repository.Namespace, "--consistency", "crash")
	took := worked(b, repository)
	kit.Kubectl(b, "delete", "volumesnapshot", run.Of(b, "data").Snapshot, "-n", ns)
	return took
}

// bareCopy runs restic alone, in a pod that has what our movers have.
func bareCopy(b *testing.B, ns, snapshot, size string, round int) time.Duration {
	b.Helper()
	repository := kit.Repository{Name: "main", Namespace: ns, Bucket: kit.Random("bucket"), Password: "bench"}
	repository.Secret(b)
	name := fmt.Sprintf("bare-%d", round)
	claim(b, ns, name, size, snapshot)
	kit.Apply(b, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  restartPolicy: Never
  containers:
    - name: restic
      image: docker.io/restic/restic:0.19.1
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "restic init && restic backup --host bare /data"]
      env: [{name: RESTIC_CACHE_DIR, value: /cache}]
      envFrom: [{secretRef: {name: main}}]
      resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 1Gi}}
      volumeMounts: [{name: data, mountPath: /data, readOnly: true}, {name: cache, mountPath: /cache}]
  volumes:
    - {name: data, persistentVolumeClaim: {claimName: %[1]s}}
    - {name: cache, emptyDir: {}}
`, name, ns), "apply", "-f", "-")
	kit.Kubectl(b, "wait", "-n", ns, "pod/"+name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout", (3 * kit.Patience).String())
	took := worked(b, repository)
	kit.Kubectl(b, "delete", "pod/"+name, "pvc/"+name, "secret/main", "-n", ns)
	return took
}

// claim makes a claim of that size, from a snapshot if one is named.
func claim(b *testing.B, ns, name, size, snapshot string) {
	b.Helper()
	source := ""
	if snapshot != "" {
		source = ", dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: " + snapshot + "}"
	}
	kit.Apply(b, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, namespace: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: %s}}%s}
`, name, ns, size, source), "apply", "-f", "-")
}

// worked is how long the one backup in the repository took by restic's word.
func worked(b *testing.B, repository kit.Repository) time.Duration {
	b.Helper()
	var list []struct {
		Summary struct {
			Start time.Time `json:"backup_start"`
			End   time.Time `json:"backup_end"`
		} `json:"summary"`
	}
	if err := json.Unmarshal([]byte(repository.Restic(b, "snapshots", "--json")), &list); err != nil {
		b.Fatal(err)
	}
	if len(list) != 1 {
		b.Fatalf("%d copies in the repository, want 1", len(list))
	}
	return list[0].Summary.End.Sub(list[0].Summary.Start)
}
