package bench_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// budgetRestore is the most that a restore from a copy may take, of what bare
// restic takes.
const budgetRestore = 1.1

// BenchmarkRestore is a restore from a copy by us, from the command to the claim
// that is bound, against `restic restore --verify` in a pod of the same size on
// an empty claim, from the moment that the two are asked for to the pod's end.
// Both start one pod and make one volume.
func BenchmarkRestore(b *testing.B) {
	for _, data := range contents {
		b.Run(data.name, func(b *testing.B) { measureRestore(b, data.size, data.fill) })
	}
}

func measureRestore(b *testing.B, size, fill string) {
	ns := filled(b, size, fill)
	repository := kit.NewRepository(b, "bench")
	run := kit.Snapshot(b, 0, "data", "-n", ns, "--backup-namespace", repository.Namespace, "--consistency", "crash")
	copied := run.Of(b, "data").Copies[0].Snapshot
	bare := repository.In(b, ns)
	b.ResetTimer()
	var by [2][]time.Duration
	for i := range rounds {
		time.Sleep(pause)
		by[0] = append(by[0], bareRestore(b, bare, copied, size, i))
		time.Sleep(pause)
		by[1] = append(by[1], ourRestore(b, ns, repository, i))
	}
	compare(b, by)
	ratio := median(by[1]).Seconds() / median(by[0]).Seconds()
	b.Logf("budget: %.2f x bare restic; we are at %.2f", budgetRestore, ratio)
	b.ReportMetric(ratio, "x-restic")
}

// ourRestore restores the copy into a new claim and removes that.
func ourRestore(b *testing.B, ns string, repository kit.Repository, round int) time.Duration {
	b.Helper()
	name := fmt.Sprintf("ours-%d", round)
	cmd := exec.Command("kubectl-backsnap", "restore", "data", "-n", ns, "--backup-namespace", repository.Namespace, "--from", "copy", "--to-pvc", name, "--quiet")
	cmd.Env = os.Environ()
	started := time.Now()
	out, err := cmd.CombinedOutput()
	wall := time.Since(started)
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	kit.Kubectl(b, "delete", "pvc", name, "-n", ns)
	return wall
}

// bareRestore runs restic alone, in a pod that has what our movers have, on a
// claim of its own.
func bareRestore(b *testing.B, repository kit.Repository, copied, size string, round int) time.Duration {
	b.Helper()
	name := fmt.Sprintf("bare-%d", round)
	started := time.Now()
	claim(b, repository.Namespace, name, size, "")
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
      command: [restic, restore, %[3]s, --target, /, --include, /data, --delete, --sparse, --verify]
      env: [{name: RESTIC_CACHE_DIR, value: /cache}, {name: GOMEMLIMIT, value: 870MiB}]
      envFrom: [{secretRef: {name: main}}]
      resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 1Gi}}
      volumeMounts: [{name: data, mountPath: /data}, {name: cache, mountPath: /cache}]
  volumes:
    - {name: data, persistentVolumeClaim: {claimName: %[1]s}}
    - {name: cache, emptyDir: {}}
`, name, repository.Namespace, copied), "apply", "-f", "-")
	kit.Kubectl(b, "wait", "-n", repository.Namespace, "pod/"+name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout", (3 * kit.Patience).String())
	wall := time.Since(started)
	kit.Kubectl(b, "delete", "pod/"+name, "pvc/"+name, "-n", repository.Namespace)
	return wall
}
