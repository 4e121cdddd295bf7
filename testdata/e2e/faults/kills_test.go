package faults_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// all reports whether this is `make faults`.
func all() bool { return os.Getenv("BACKSNAP_FAULTS") == "all" }

// shop is a database and a repository that nobody else uses.
type shop struct {
	db         kit.Database
	repository kit.Repository
}

func newShop(t *testing.T) shop {
	t.Helper()
	s := shop{repository: kit.NewRepository(t, "repository password")}
	s.db = kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	s.db.SQL(t, "create table orders as select i from generate_series(1, 1000) i")
	return s
}

// snapshot are the arguments of a run with its copy.
func (s shop) snapshot(args ...string) []string {
	return append([]string{"snapshot", "-n", s.db.Namespace, "--backup-namespace", s.repository.Namespace}, args...)
}

// write writes a row into the database.
func (s shop) write(t *testing.T) {
	t.Helper()
	s.db.SQL(t, "insert into orders values (0)")
}

// movers waits until no mover works any more: until then its run lives.
func (s shop) movers(t *testing.T) {
	t.Helper()
	kit.Until(t, "movers to end", func() string {
		jobs := kit.Kubectl(t, "get", "jobs", "-n", s.repository.Namespace, "-o",
			`jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.status=="True")].type} {.metadata.deletionTimestamp}{"\n"}{end}`)
		for line := range strings.Lines(jobs) {
			if !strings.Contains(line, "Complete") && !strings.Contains(line, "Failed") && strings.HasSuffix(line, " \n") {
				return line
			}
		}
		return ""
	})
}

// labelled fails for what stands there without our labels and a run.
func (s shop) labelled(t *testing.T) {
	t.Helper()
	const kinds = "volumesnapshot,job,pvc,lease"
	for _, ns := range []string{s.db.Namespace, s.repository.Namespace} {
		ours := kit.Kubectl(t, "get", kinds, "-n", ns, "-o", "name", "-l", "app.kubernetes.io/managed-by=backsnap,backsnap.sh/run")
		for _, name := range strings.Fields(kit.Names(t, ns, kinds)) {
			if name != "persistentvolumeclaim/"+s.db.Claim() && !strings.Contains(ours, name+"\n") {
				t.Errorf("%s in %s is unlabelled", name, ns)
			}
		}
	}
}

// left waits until there is nothing but restore points that have their copy,
// and returns what is left all the same, "none" for nothing.
func (s shop) left(t *testing.T) string {
	t.Helper()
	kit.Until(t, "nothing to be left", func() string {
		var left []string
		left = append(left, strings.Fields(kit.Names(t, s.repository.Namespace, "volumesnapshot,job,pvc,pod,lease"))...)
		left = append(left, strings.Fields(kit.Names(t, s.db.Namespace, "lease"))...)
		for line := range strings.Lines(kit.Kubectl(t, "get", "volumesnapshot", "-n", s.db.Namespace, "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.metadata.labels.backsnap\.sh/consistency} {.metadata.annotations.backsnap\.sh/copies}{"\n"}{end}`)) {
			if fields := strings.Fields(line); len(fields) == 1 || fields[1] != "application" {
				left = append(left, "volumesnapshot/"+strings.TrimSpace(line))
			}
		}
		for line := range strings.Lines(kit.Kubectl(t, "get", "volumesnapshotcontent", "-l", "backsnap.sh/role=static", "-o",
			`jsonpath={range .items[*]}{.metadata.name} {.spec.volumeSnapshotRef.namespace}{"\n"}{end}`)) {
			if strings.HasSuffix(line, " "+s.repository.Namespace+"\n") {
				left = append(left, "volumesnapshotcontent/"+strings.TrimSpace(line))
			}
		}
		for _, file := range strings.Fields(kit.Exec(t, s.db.Namespace, s.db.Pod(), "ls -A /var/lib/postgresql/data")) {
			if strings.HasSuffix(file, ".part") {
				left = append(left, file)
			}
		}
		return strings.Join(left, ", ")
	})
	return "none"
}

// kill is a row of the table.
type kill struct{ when, what, writable, exit, left string }

// cells are the row's.
func (k kill) cells() []string { return []string{k.when, k.what, k.writable, k.exit, k.left} }

func cells(kills []kill) (rows [][]string) {
	for _, k := range kills {
		rows = append(rows, k.cells())
	}
	return rows
}

// killClient ends the client after its nth write, by a signal that it cannot
// catch, and looks at the database, at what is left, and at the next run. ok is
// false where a run makes fewer writes.
func killClient(t *testing.T, s shop, n int) (k kill, ok bool) {
	t.Helper()
	var writes atomic.Int32
	var last atomic.Value
	client := make(chan int, 1)
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Resource == "leases" && r.Verb == "update" || int(writes.Add(1)) != n {
			return // renewals come when they come
		}
		last.Store(s.words(r))
		pid := <-client
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Errorf("kill the client: %v", err)
		}
	})
	cmd := kit.Start(t, proxy.Kubeconfig, s.snapshot()...)
	client <- cmd.Process.Pid
	cmd.Wait()
	if int(writes.Load()) < n {
		return kill{}, false
	}
	k = kill{when: fmt.Sprint(n), what: fmt.Sprint(last.Load())}
	t.Logf("killed after write %d: %s", n, k.what)
	s.write(t)
	k.writable = "yes"
	s.labelled(t)
	s.movers(t)
	run := kit.Snapshot(t, 0, s.snapshot("--lock-timeout", "3m")[1:]...)
	k.exit = fmt.Sprint(run.ExitCode)
	k.left = s.left(t)
	return k, true
}

// words are a request for people.
func (s shop) words(r kube.Request) string {
	where := ""
	switch {
	case strings.Contains(r.Path, "/namespaces/"+s.db.Namespace+"/"):
		where = " in the app's namespace"
	case strings.Contains(r.Path, "/namespaces/"+s.repository.Namespace+"/"):
		where = " in the backup namespace"
	}
	return r.Verb + " " + r.Resource + where
}

// TestLeaveNothingBehind ends the client after some of its writes, and in
// `make faults` after each of them: the database takes writes at once, what is
// left carries our labels, the next run succeeds and leaves nothing that is
// older than itself.
func TestLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	if !all() {
		for _, n := range []int{4, 8, 11} {
			t.Run(fmt.Sprintf("after write %d", n), func(t *testing.T) {
				t.Parallel()
				if _, ok := killClient(t, newShop(t), n); !ok {
					t.Errorf("a run makes fewer than %d writes", n)
				}
			})
		}
		return
	}
	rows := each(t, newShop, func(t *testing.T, s shop, n int) ([]string, bool) {
		k, ok := killClient(t, s, n)
		return k.cells()[1:], ok
	})
	snapshotKills.write(t, 0, "The client is ended by SIGKILL after each of its writes",
		[]string{"killed after write", "what was written", "app writable", "next run's exit", "leftovers"}, rows)
}

// TestLeaveNothingBehindOfAMover ends movers, by force, at several moments: the
// run goes on with another pod or says that the copy failed; nothing is left.
func TestLeaveNothingBehindOfAMover(t *testing.T) {
	t.Parallel()
	if !all() {
		t.Skip("takes minutes: make faults")
	}
	var kills []kill
	s := newShop(t)
	pod := []string{"-n", s.repository.Namespace, "-l", "backsnap.sh/role=mover"}
	force := append([]string{"delete", "pod", "--force", "--grace-period=0"}, pod...)
	for _, moment := range []struct {
		when, what string
		strike     func(t *testing.T)
	}{
		{"its pod is there", "pod deleted by force", func(t *testing.T) { kit.Kubectl(t, force...) }},
		{"its container runs", "pod deleted by force", func(t *testing.T) {
			kit.Kubectl(t, append([]string{"wait", "pod", "--for=jsonpath={.status.phase}=Running", "--timeout", kit.Patience.String()}, pod...)...)
			kit.Kubectl(t, force...)
		}},
		{"restic runs", "restic killed", func(t *testing.T) {
			kit.Kubectl(t, append([]string{"wait", "pod", "--for=jsonpath={.status.phase}=Running", "--timeout", kit.Patience.String()}, pod...)...)
			name := kit.Kubectl(t, append([]string{"get", "pod", "-o", "jsonpath={.items[0].metadata.name}"}, pod...)...)
			// It may be over before it can be killed: that is a moment, too.
			kit.Command(t, nil, "", "kubectl", "exec", "-n", s.repository.Namespace, name, "--", "sh", "-c",
				"until pidof restic; do :; done; kill -9 $(pidof restic)")
		}},
		{"its Job is there", "Job deleted", func(t *testing.T) {
			kit.Kubectl(t, append([]string{"delete", "job", "--wait=false"}, pod...)...)
		}},
	} {
		cmd := kit.Start(t, os.Getenv("KUBECONFIG"), s.snapshot()...)
		kit.Until(t, "mover", func() string {
			if kit.Kubectl(t, append([]string{"get", "pod", "-o", "name"}, pod...)...) == "" {
				return "no pod"
			}
			return ""
		})
		moment.strike(t)
		s.write(t)
		cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if code != 0 && code != 3 {
			t.Errorf("%s, %s: exit %d, want 0 or 3", moment.when, moment.what, code)
		}
		s.movers(t)
		kit.Snapshot(t, 0, s.snapshot()[1:]...)
		left := kit.Names(t, s.repository.Namespace, "volumesnapshot,job,pvc,pod")
		if left != "" {
			t.Errorf("%s, %s: left %s", moment.when, moment.what, left)
		}
		kills = append(kills, kill{moment.when, moment.what, "yes", fmt.Sprint(code), cmp.Or(left, "none")})
	}
	snapshotKills.write(t, 1, "A mover is ended while its client waits for it",
		[]string{"killed when", "how", "app writable", "the run's exit", "leftovers"}, cells(kills))
}

// snapshotKills is docs/faults/kills.md.
var snapshotKills = tables{
	file: "kills.md", parts: make([]string, 2),
	head: "# What is left when something is killed\n\nWritten by `make faults` (testdata/e2e/faults/kills_test.go), on PostgreSQL with a copy to S3. \"Leftovers\" are those after the next run.\n",
}

// tables is a file of docs/faults, of which each test writes a part.
type tables struct {
	file, head string

	mu    sync.Mutex
	parts []string
}

// write puts a part into the file, if the test has not failed. The file is
// written once all parts are there.
func (f *tables) write(t *testing.T, part int, title string, head []string, rows [][]string) {
	t.Helper()
	if t.Failed() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	line := func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
	f.parts[part] = "\n## " + title + "\n\n" + line(head) + strings.Repeat("|---", len(head)) + "|\n"
	for _, row := range rows {
		f.parts[part] += line(row)
	}
	if slices.Contains(f.parts, "") {
		return
	}
	const folder = "../../../docs/faults"
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, f.file), []byte(f.head+strings.Join(f.parts, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}
