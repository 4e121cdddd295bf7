package faults_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// stock is a claim with six nights of snapshots, which the storage would keep,
// and of copies. Of the snapshots 02 and 03 are due by a date, and 01 is to be
// marked; of the copies 01 and 02 were marked, and are due.
type stock struct {
	namespace  string
	repository kit.Repository
	contents   map[string]string // by snapshot
}

// newStock fills a new namespace. Several may have one repository.
func newStock(t *testing.T, r kit.Repository) stock {
	t.Helper()
	s := stock{namespace: kit.Namespace(t), repository: r, contents: map[string]string{}}
	kit.Claim(t, s.namespace, "data", "")
	kit.Bound(t, s.namespace, "data")
	copies := kit.CopiedNights(t, r, s.namespace, "data", time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC), 6)
	for line := range strings.Lines(kit.Kubectl(t, "get", "volumesnapshot", "-n", s.namespace, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.boundVolumeSnapshotContentName}{"\n"}{end}`)) {
		name, content, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.contents[name] = content
	}
	policy := func(policy string) []string {
		return append(append([]string{"patch", "volumesnapshotcontent"}, slices.Sorted(maps.Values(s.contents))...),
			"--type=merge", "-p", fmt.Sprintf(`{"spec": {"deletionPolicy": %q}}`, policy))
	}
	kit.Kubectl(t, policy("Retain")...)
	kit.Afterwards(t, policy("Delete")...) // what is retained outlives the namespace
	kit.Kubectl(t, "label", "volumesnapshot", "data-2025-01-02", "data-2025-01-03", "-n", s.namespace, "backsnap.sh/delete-after=2025-02-01")
	marked := catalog.Mark{Marked: time.Date(2025, time.January, 7, 0, 0, 0, 0, time.UTC), After: time.Date(2025, time.January, 8, 0, 0, 0, 0, time.UTC), Namespace: s.namespace}
	marks, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": r.Namespace, "name": catalog.MarksName(r.Name)},
		"data": catalog.MarkChange{Set: map[string]catalog.Mark{copies["2025-01-01"]: marked, copies["2025-01-02"]: marked}}.Entries(),
	})
	if err != nil {
		t.Fatal(err)
	}
	kit.Apply(t, string(marks), "apply", "--server-side", "--force-conflicts", "-f", "-")
	return s
}

// prune are the arguments of the prune that is disturbed, and of the next one.
func (s stock) prune(args ...string) []string {
	return append([]string{
		"prune", "-n", s.namespace, "--backup-namespace", s.repository.Namespace, "--keep=daily=3", "--keep-copies=daily=4", "--max-delete=3", "--yes",
	}, args...)
}

// save is what a person does at the last moment: true if the snapshot is there
// still, and stays.
func (s stock) save(t *testing.T) bool {
	t.Helper()
	const name = "data-2025-01-03"
	return kit.Command(t, nil, "", "kubectl", "label", "volumesnapshot", name, "-n", s.namespace, "backsnap.sh/delete-after-", "backsnap.sh/pin=saved").Code == 0 &&
		kit.Kubectl(t, "get", "volumesnapshot", name, "-n", s.namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.name}{.metadata.deletionTimestamp}") == name
}

// over waits until the Leases of a client that was killed are over.
func (s stock) over(t *testing.T) {
	t.Helper()
	kit.Until(t, "the leases of the dead to be over", func() string {
		for _, namespace := range []string{s.namespace, s.repository.Namespace} {
			var list struct {
				Items []struct {
					Spec struct {
						RenewTime            time.Time
						LeaseDurationSeconds int
					}
				}
			}
			if err := json.Unmarshal([]byte(kit.Kubectl(t, "get", "lease", "-n", namespace, "-o", "json")), &list); err != nil {
				t.Fatal(err)
			}
			for _, l := range list.Items {
				if end := l.Spec.RenewTime.Add(time.Duration(l.Spec.LeaseDurationSeconds+1) * time.Second); time.Now().Before(end) {
					return "one lasts until " + end.String()
				}
			}
		}
		return ""
	})
}

// next prunes once more, undisturbed, and waits until what is due is gone, and
// nothing else. It returns the cells of that.
func (s stock) next(t *testing.T, saved bool) []string {
	t.Helper()
	kit.Must(t, s.prune("--lock-timeout=3m")...)
	want := []string{"data-2025-01-01", "data-2025-01-04", "data-2025-01-05", "data-2025-01-06"}
	if saved {
		want = slices.Insert(want, 1, "data-2025-01-03")
	}
	kit.Until(t, "what is due to be gone, and the rest to be retained", func() string { return s.differs(t, want) })
	days := slices.Sorted(maps.Keys(s.repository.Days(t, "e2e/"+s.namespace+"/data")))
	if want := []string{"2025-01-03", "2025-01-04", "2025-01-05", "2025-01-06"}; !slices.Equal(days, want) {
		t.Errorf("copies of %v, want %v", days, want)
	}
	for _, name := range want {
		kept := name != "data-2025-01-01"
		if record := kit.Kubectl(t, "get", "volumesnapshot", name, "-n", s.namespace, "-o", `jsonpath={.metadata.annotations.backsnap\.sh/copies}`); (record != "") != kept {
			t.Errorf("copies on record of %s: %q", name, record)
		}
	}
	marks := kit.Kubectl(t, "get", "configmap", catalog.MarksName(s.repository.Name), "-n", s.repository.Namespace, "-o", "jsonpath={.data}")
	leases := strings.Join(strings.Fields(kit.Names(t, s.namespace, "lease")+" "+kit.Names(t, s.repository.Namespace, "lease")), ", ")
	if marks != "" || leases != "" {
		t.Errorf("left: marks %s, leases %s", marks, leases)
		return []string{"0", "gone", "there", "some"}
	}
	return []string{"0", "gone", "there", "none"}
}

// differs is how the snapshots differ from those of these names, with contents
// that are retained; "" for not at all.
func (s stock) differs(t *testing.T, want []string) string {
	t.Helper()
	got := strings.Fields(kit.Kubectl(t, "get", "volumesnapshot", "-n", s.namespace, "-o", "jsonpath={.items[*].metadata.name}"))
	if slices.Sort(got); !slices.Equal(got, want) {
		return fmt.Sprintf("left %v, want %v", got, want)
	}
	for name, content := range s.contents {
		policy := kit.Kubectl(t, "get", "volumesnapshotcontent", content, "--ignore-not-found", "-o", "jsonpath={.spec.deletionPolicy}")
		if stays := slices.Contains(want, name); stays && policy != "Retain" || !stays && policy != "" {
			return fmt.Sprintf("deletionPolicy of the content of %s: %q", name, policy)
		}
	}
	return ""
}

// nthOf is after the nth write of that verb to that resource.
func nthOf(n int, verb, resource string) moment {
	var writes atomic.Int32
	return func(r kube.Request) bool { return r.Verb == verb && r.Resource == resource && int(writes.Add(1)) == n }
}

// killPrune ends a prune after one of its writes; a person saves what is saved
// still, and the next one ends what it has begun. ok is false where that write
// never comes.
func killPrune(t *testing.T, r kit.Repository, when moment) (row []string, ok bool) {
	t.Helper()
	s := newStock(t, r)
	dead := strike(t, when, killed(t), s.prune()...)
	if dead.what == "" {
		return nil, false
	}
	t.Logf("killed after %s", dead.what)
	saved := s.save(t)
	s.over(t)
	return append([]string{dead.what}, s.next(t, saved)...), true
}

// TestPruneIsKilled ends a prune of snapshots and copies by SIGKILL after some
// of its writes, in `make faults` after each: the next one removes what is due
// and nothing else, and no content of what stays would take its data with it.
func TestPruneIsKilled(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) kit.Repository { return kit.NewRepository(t, "repository password") }
	if all() {
		rows := each(t, start, func(t *testing.T, r kit.Repository, n int) ([]string, bool) { return killPrune(t, r, nth(n)) })
		pruneFaults.write(t, 0, "The client is ended by SIGKILL after each of its writes", append([]string{"killed after write", "what was written"}, pruneCells...), rows)
		return
	}
	for what, when := range map[string]moment{
		"a snapshot was deleted": nthOf(1, "delete", "volumesnapshots"), // its content is Delete, and so is that of one that is saved
		"forget was started":     nthOf(2, "create", "jobs"),            // after that which lists
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if _, ok := killPrune(t, start(t), when); !ok {
				t.Error("a prune makes no such write")
			}
		})
	}
}

// pruneCells are the heads of what stock.next returns.
var pruneCells = []string{"next run's exit", "what was due", "what was to stay", "leases and marks left"}

// badDay is a prune that something stands in the way of.
type badDay struct {
	what string
	exit int
	code string // "" for one that ends well
	// slow: it ends well, or with 3 where it is well again too late for it.
	slow  bool
	args  []string
	begin func(t *testing.T, s stock) // before it
	when  moment                      // and then: do
	do    func(t *testing.T, s stock)
	end   func(t *testing.T, s stock) // all is well again
	long  bool
}

// check has the day come and go.
func (d badDay) check(t *testing.T, r kit.Repository) []string {
	t.Helper()
	s := newStock(t, r)
	if d.begin != nil {
		d.begin(t, s)
	}
	var result kit.Result
	if d.when == nil {
		result = kit.Backsnap(t, s.prune(d.args...)...)
	} else {
		struck := strike(t, d.when, func(*os.Process) { d.do(t, s) }, s.prune(d.args...)...)
		if result = struck.Result; struck.what == "" {
			t.Fatalf("%s: a prune makes no such write", d.what)
		}
	}
	if d.slow && result.Code == 3 {
		d.exit, d.code = 3, "[BS"
	}
	if result.Code != d.exit || (d.code == "") != !strings.Contains(result.Stderr, "error: ") || !strings.Contains(result.Stderr, d.code) {
		t.Errorf("%s: exit %d, want %d with %q", d.what, result.Code, d.exit, d.code)
	}
	for _, name := range []string{"data-2025-01-01", "data-2025-01-04", "data-2025-01-05", "data-2025-01-06"} {
		if kit.Kubectl(t, "get", "volumesnapshot", name, "-n", s.namespace, "--ignore-not-found", "-o", "name") == "" {
			t.Errorf("%s: %s is lost", d.what, name)
		}
	}
	if d.end != nil {
		d.end(t, s)
	}
	if d.slow {
		return append([]string{d.what, "0 or 3", ""}, s.next(t, false)...)
	}
	return append([]string{d.what, fmt.Sprint(d.exit), d.code}, s.next(t, false)...)
}

// dayCells are the heads of what check returns.
var dayCells = append([]string{"bad day", "its exit", "code"}, pruneCells...)

// TestBadDaysOfPrune: of the storage and of the repository.
func TestBadDaysOfPrune(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	door := kit.NewDoor(t)
	through := func(address string) func(*testing.T, stock) {
		return func(t *testing.T, s stock) {
			setSecret(t, s.repository, map[string]string{"RESTIC_REPOSITORY": "s3:" + address + "/" + s.repository.Bucket})
		}
	}
	own := through("http://s3.backup-storage.svc:9000")
	var rows [][]string
	for _, day := range []badDay{
		{
			what: "driver refuses to delete", exit: 3, code: "BS044", args: []string{"--timeout=10s"},
			begin: func(t *testing.T, s stock) {
				kit.Faults(t, s.namespace, kit.Fault{"refuseDelete": kit.Failing("Internal", "the array keeps it", 0)})
			},
			end: func(t *testing.T, s stock) { kit.Faults(t, s.namespace) },
		},
		{
			what: "repository locked by a pod that is dead",
			begin: func(t *testing.T, s stock) {
				s.repository.Stale(t, "data"+restic.Mark(catalog.Repository{Cluster: "e2e", Namespace: s.repository.Namespace})+"01234567-20261122-011500-x7k2-b7xkz")
			},
		},
		{
			what: "repository locked by somebody who may live", exit: 3, code: "BS052", args: []string{"--retry-lock=0s"}, long: true,
			begin: func(t *testing.T, s stock) { s.repository.Stale(t, "laptop") },
			end:   func(t *testing.T, s stock) { s.repository.Unlock(t) },
		},
		{
			what: "S3 down", exit: 3, code: "BS055", long: true,
			begin: func(t *testing.T, s stock) { through(door.Address())(t, s); door.Shut(t) },
			end:   func(t *testing.T, s stock) { door.Open(t); own(t, s) },
		},
		{
			what: "S3 goes down once copies are forgotten", exit: 3, code: "BS055", long: true,
			begin: func(t *testing.T, s stock) { through(door.Address())(t, s) },
			when:  nthOf(2, "delete", "jobs"), do: func(t *testing.T, _ stock) { door.Shut(t) },
			end: func(t *testing.T, s stock) { door.Open(t); own(t, s) },
		},
	} {
		if day.long && !all() {
			continue
		}
		t.Run(day.what, func(t *testing.T) { rows = append(rows, day.check(t, repository)) })
	}
	repository.Restic(t, "check", "--read-data")
	if all() {
		pruneFaults.write(t, 1, "The storage or the repository has a bad day", dayCells, rows)
	}
}

// pruneWithoutAControlPlane: what restarts parts that all others use.
func pruneWithoutAControlPlane(t *testing.T, r kit.Repository) {
	var start func()
	var rows [][]string
	for _, day := range []badDay{
		{
			what: "snapshot controller down", exit: 3, code: "BS044", args: []string{"--timeout=10s"},
			begin: func(t *testing.T, _ stock) { start = stop(t, "snapshot-controller", syscall.SIGTERM) },
			end:   func(*testing.T, stock) { start() },
		},
		{
			what: "API server killed while snapshots are swept, and started again", slow: true,
			when: nthOf(1, "delete", "volumesnapshots"), do: func(t *testing.T, _ stock) { stop(t, "kube-apiserver", syscall.SIGKILL)() },
		},
		{
			what: "API server killed while copies are forgotten, and started again", slow: true,
			when: nthOf(2, "create", "jobs"), do: func(t *testing.T, _ stock) { stop(t, "kube-apiserver", syscall.SIGKILL)() },
		},
	} {
		t.Run(day.what, func(t *testing.T) { rows = append(rows, day.check(t, r)) })
	}
	pruneFaults.write(t, 2, "A part of the cluster has a bad day", dayCells, rows)
}

// pruneFaults is docs/faults/prune.md.
var pruneFaults = tables{
	file: "prune.md", parts: make([]string, 3),
	head: `# What becomes of a prune that is ended, or hindered

Written by ` + "`make faults`" + ` (testdata/e2e/faults/prune_test.go): ` + "`kubectl backsnap prune`" + ` of six nights of snapshots and their copies on S3. Two
snapshots and two copies are due, one snapshot is to be marked; all contents are retained. After each of these the same command is given
again: what was due is gone, with its data, and what was to stay is there: snapshots, their contents' policy, copies and what is on record of them.
The movers of a client that is ended stand for ten minutes after they have finished, and then Kubernetes removes them.
`,
}
