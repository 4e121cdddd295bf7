package faults_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// stop ends one process of the cluster and returns what starts it again, which
// is done in any case when the test ends. Other tests must not run meanwhile.
func stop(t *testing.T, part string) (start func()) {
	t.Helper()
	kit.All(t)
	state := kit.Env(t, "BACKSNAP_CLUSTER_STATE")
	text, err := os.ReadFile(filepath.Join(state, "run", part+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var process struct{ Pid int }
	if err := json.Unmarshal(text, &process); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(process.Pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kit.Until(t, part+" to end", func() string {
		if syscall.Kill(process.Pid, 0) == nil {
			return "it runs"
		}
		return ""
	})
	up := func() {
		cmd := exec.Command("go", "run", "./testdata/cluster", "up", "--state", state)
		cmd.Dir = "../../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("bring %s up again: %v\n%s", part, err, out)
		}
	}
	t.Cleanup(up)
	return up
}

func TestSnapshotControllerDown(t *testing.T) {
	namespace := claim(t)
	start := stop(t, "snapshot-controller")
	args := []string{"-n", namespace, "--repository", "none"}
	day := kit.Day{Group: "Cluster", What: "snapshot controller down", Exit: 6, Code: "BS022", Says: []string{"not cut after"}, Stays: "volumesnapshot"}
	item := day.Snapshot(t, nil, append(args, "--timeout", "20s")...).Of(t, "data")
	notAPoint(t, namespace, item)
	start()
	kit.Snapshot(t, 0, args...)
}
