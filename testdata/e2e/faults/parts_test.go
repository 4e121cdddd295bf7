package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// cluster runs a command of the test cluster's own program.
func cluster(args ...string) error {
	cmd := exec.Command("go", append([]string{"run", "./testdata/cluster"}, args...)...)
	cmd.Dir = "../../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cluster %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// pid is that of one process of the cluster.
func pid(t *testing.T, part string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(kit.Env(t, "BACKSNAP_CLUSTER_STATE"), "run", part+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var process struct{ Pid int }
	if err := json.Unmarshal(text, &process); err != nil {
		t.Fatal(err)
	}
	return process.Pid
}

// stop ends one process of the cluster by a signal and returns what starts it
// again, which is done in any case when the test ends. Other tests must not run
// meanwhile.
func stop(t *testing.T, part string, signal syscall.Signal) (start func()) {
	t.Helper()
	kit.All(t)
	state, process := kit.Env(t, "BACKSNAP_CLUSTER_STATE"), pid(t, part)
	if err := syscall.Kill(process, signal); err != nil {
		t.Fatal(err)
	}
	kit.Until(t, part+" to end", func() string {
		if syscall.Kill(process, 0) == nil {
			return "it runs"
		}
		return ""
	})
	up := func() {
		err := cluster("up", "--state", state)
		if err != nil { // its probe may be early: who watches an API server sees late that it is back
			err = cluster("up", "--state", state)
		}
		if err != nil {
			t.Errorf("bring %s up again: %v", part, err)
		}
	}
	t.Cleanup(up)
	return up
}

func TestSnapshotControllerDown(t *testing.T) {
	namespace := claim(t)
	start := stop(t, "snapshot-controller", syscall.SIGTERM)
	args := []string{"-n", namespace, "--repository", "none"}
	day := kit.Day{Group: "Cluster", What: "snapshot controller down", Exit: 6, Code: "BS022", Says: []string{"not cut after"}, Stays: "volumesnapshot"}
	item := day.Snapshot(t, nil, append(args, "--timeout", "20s")...).Of(t, "data")
	notAPoint(t, namespace, item)
	start()
	kit.Snapshot(t, 0, args...)
}

// own starts a cluster of two nodes that no other test uses, makes it this
// test's, and ends it with the test.
func own(t *testing.T) {
	t.Helper()
	kit.All(t)
	state, err := os.MkdirTemp("", "backsnap-own-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Before all is gone that is mounted there, nothing may be removed.
		if err := errors.Join(cluster("wipe", "--state", state)); err != nil {
			t.Error(err)
			return
		}
		if err := os.RemoveAll(state); err != nil {
			t.Error(err)
		}
	})
	if err := cluster("up", "--nodes", "2", "--state", state); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-euc", `env=$(go run ./testdata/cluster env --state "$1"); eval "$env"; env -0`, "sh", state)
	cmd.Dir = "../../.."
	all, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(string(all), "\x00") {
		if name, value, _ := strings.Cut(entry, "="); name == "PATH" || name == "KUBECONFIG" || strings.HasPrefix(name, "BACKSNAP_CLUSTER_") {
			t.Setenv(name, value)
		}
	}
}

// only lets new pods onto one node of the two.
func only(t *testing.T, node string) {
	t.Helper()
	for _, n := range []string{"node-1", "node-2"} {
		verb := "cordon"
		if n == node {
			verb = "uncordon"
		}
		kit.Kubectl(t, verb, n)
	}
}

// TestBadDaysOfAControlPlaneAndANode: what nobody else could stand beside it.
func TestBadDaysOfAControlPlaneAndANode(t *testing.T) {
	own(t)
	only(t, "node-1") // the database
	s := newShop(t)
	kit.Kubectl(t, "uncordon", "node-2")
	beat := kit.Inside(t, s.db)
	for _, day := range []struct {
		what string
		test func(*testing.T, shop, kit.Beat)
	}{
		{"prune", func(t *testing.T, s shop, _ kit.Beat) { pruneWithoutAControlPlane(t, s.repository) }},
		{"dump", apiServerGoesDuringTheDump}, {"copy", apiServerGoesDuringTheCopy}, {"node", nodeLost},
	} {
		if !t.Run(day.what, func(t *testing.T) { day.test(t, s, beat) }) {
			return // one day's mess would be the next one's
		}
	}
	s.db.NoParts(t)
}

// apiServerGoesDuringTheDump: the dump is lost with the connection to its pod,
// and is not called good.
func apiServerGoesDuringTheDump(t *testing.T, s shop, beat kit.Beat) {
	dumpTool(t, s.db, `"$0.away" "$@" | head -c 700; sleep 100000`)
	_, wait := kit.Background(t, "snapshot", "-o", "json", "-n", s.db.Namespace, "--repository", "none", "--consistency", "application")
	halfWay(t, s.db)
	stop(t, "kube-apiserver", syscall.SIGKILL)()
	day := kit.Day{Group: "Cluster", What: "API server killed and started again during the dump", Exit: 1, Code: "BS013"}
	r := wait()
	if left := kit.Names(t, s.db.Namespace, "volumesnapshot"); left != "" {
		t.Errorf("left %s", left)
	}
	s.db.NoParts(t)
	ownDumpTool(t, s.db)
	if kit.Names(t, s.db.Namespace, "lease") != "" { // on a machine that takes longer to start it than a lease lasts
		day.Left = "its lease, which is over"
		kit.Snapshot(t, 0, "-n", s.db.Namespace, "--repository", "none", "--lock-timeout", "3m")
	}
	day.Check(t, beat, r)
}

// upload starts a run whose copy takes minutes, and waits until its mover is at it.
func (s shop) upload(t *testing.T, limit string) (wait func() kit.Result) {
	t.Helper()
	kit.Exec(t, s.db.Namespace, s.db.Pod(), "head -c 3000000 /dev/urandom >"+postgresData+"/noise")
	_, wait = kit.Background(t, s.snapshot("-o", "json", "--limit-upload", limit)...)
	moverRuns(t, s.repository.Namespace)
	return wait
}

// apiServerGoesDuringTheCopy: for longer than a lease lasts that nobody renews.
// The run writes nothing until it knows that its namespace is its own still,
// and goes on.
func apiServerGoesDuringTheCopy(t *testing.T, s shop, beat kit.Beat) {
	wait := s.upload(t, "100")
	start := stop(t, "kube-apiserver", syscall.SIGTERM)
	time.Sleep(40 * time.Second) // that is the day
	start()
	day := kit.Day{Group: "Cluster", What: "API server away for a minute while it is copied"}
	item := day.Check(t, beat, wait()).Of(t, s.db.Claim())
	if item.State != "Protected" || item.Consistency != "application" || len(item.Copies) != 1 || item.Copies[0].State != "Ok" {
		t.Errorf("item %+v", item)
	}
}

// cutOff lets no packet between the nodes through, until the function that it
// returns is called: what is on the second lives, and nobody knows.
func cutOff(t *testing.T) (restore func()) {
	t.Helper()
	node := pid(t, "kubelet-2")
	rules := func(how string) error {
		var errs []error
		for _, rule := range []string{"INPUT -i", "OUTPUT -o", "FORWARD -i", "FORWARD -o"} {
			args := strings.Fields(fmt.Sprintf("--net=/proc/%d/ns/net iptables -w %s %s node1 -j DROP", node, how, rule))
			if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
				errs = append(errs, fmt.Errorf("nsenter %s: %w\n%s", strings.Join(args, " "), err, out))
			}
		}
		return errors.Join(errs...)
	}
	if err := rules("-I"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := rules("-D"); err != nil {
			t.Error(err)
		}
	}
}

// nodeLost: the mover's node is cut off while it uploads. That is named and
// given up; the next run makes its copy on the other node; and what the lost
// node keeps goes when it is back.
func nodeLost(t *testing.T, s shop, beat kit.Beat) {
	only(t, "node-2")
	wait := s.upload(t, "10")
	only(t, "node-1")
	restore := cutOff(t)
	r := wait()
	run := kit.ReadRun(t, 3, r)
	item := run.Of(t, s.db.Claim())
	if item.State != "Protected" || item.Consistency != "application" || len(item.Copies) != 1 || item.Copies[0].State != "Failed" {
		t.Errorf("item %+v", item)
	}
	for _, stays := range []string{
		"job,pod,pvc", // its pod, and what that uses, all of them deleted
		"volumesnapshot,volumesnapshotcontent",
	} {
		deleted := kit.Kubectl(t, "get", stays, "-n", s.repository.Namespace, "-l", "backsnap.sh/role,backsnap.sh/run="+run.Run, "-o", `jsonpath={range .items[*]}{.kind} {.metadata.deletionTimestamp}{"\n"}{end}`)
		for line := range strings.Lines(deleted) {
			if stays != "job,pod,pvc" || len(strings.Fields(line)) != 2 {
				t.Errorf("there is still a %s", line)
			}
		}
	}
	if next := kit.Snapshot(t, 0, s.snapshot()[1:]...).Of(t, s.db.Claim()); len(next.Copies) != 1 || next.Copies[0].State != "Ok" {
		t.Errorf("while the node is away: %+v", next)
	}
	restore()
	kit.NothingLeft(t, run.Run, "")
	kit.Day{
		Group: "Mover", What: "node lost with the mover on it", Exit: 3, Code: "BS055",
		Says: []string{"NodeNotReady: node node-2 does not answer", "when node node-2 answers again or is removed", "copy vs/"},
		Left: "pod, Job and clone, deleted; they go when the node is back or is removed from the cluster",
	}.Seen(t, beat, r.Stderr)
}
