package faults_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// killed ends the client.
func killed(t *testing.T) func(*os.Process) {
	return func(client *os.Process) {
		if err := client.Kill(); err != nil {
			t.Errorf("kill the client: %v", err)
		}
	}
}

// finish gives the command of a client that was killed again, rolls back what
// came of it, and commits: what it says is the row's.
func (s stand) finish(t *testing.T, dead string) (again, back, left string) {
	t.Helper()
	again = "had ended"
	run := s.ended(t)
	if run == "" {
		if run = s.swap(t, "deployment/app", "--in-place"); run == dead {
			again = "finishes it"
		} else {
			again = "begins anew"
		}
	}
	s.serves(t, "the same command again", "set", 1)
	s.undo(t, run, 1)
	return again, "undone", s.left(t, "committed")
}

// undoAtOnce rolls back what a client has begun that was killed, and commits.
func (s stand) undoAtOnce(t *testing.T, dead string) string {
	t.Helper()
	said := "undone"
	r := kit.Backsnap(t, "restore", "--rollback", dead, "-n", s.namespace, "--yes", "--lock-timeout", "3m")
	switch {
	case r.Code == 1 && strings.Contains(r.Stderr, "[BS004]"):
		said = "nothing to undo"
	case r.Code != 0:
		t.Errorf("roll back at once: exit %d", r.Code)
	}
	s.serves(t, "rolled back at once", "live", 1)
	if kit.Kubectl(t, "get", "pv", "-l", "backsnap.sh/run="+dead, "-o", "name") != "" {
		s.swap(t, "--commit", dead, "--grace", "0")
		s.serves(t, "committed", "live", 1)
	}
	if said == "undone" {
		s.left(t, "rolled back at once")
	}
	return said
}

// killRestore ends a restore in place after one of its writes, twice: once the
// same command is given again, once it is rolled back at once. ok is false
// where that write never comes.
func killRestore(t *testing.T, s stand, when func() moment) (row []string, ok bool) {
	t.Helper()
	s.prepare(t)
	dead := s.strike(t, when(), killed(t))
	if dead.what == "" {
		return nil, false
	}
	t.Logf("killed after %s", dead.what)
	again, back, left := s.finish(t, dead.run)
	s.prepare(t)
	dead = s.strike(t, when(), killed(t))
	if dead.what == "" {
		return nil, false
	}
	return []string{dead.what, again, back, s.undoAtOnce(t, dead.run), left}, true
}

// interrupted ends the client as ^C does.
func interrupted(t *testing.T) func(*os.Process) {
	return func(client *os.Process) {
		if err := client.Signal(os.Interrupt); err != nil {
			t.Errorf("interrupt the client: %v", err)
		}
	}
}

// interruptRestore is ^C after one of the writes of a restore in place: either
// everything is put back, or the volumes are exchanged and the app is scaled
// up. ok is false where that write never comes.
func interruptRestore(t *testing.T, s stand, when moment) (row []string, ok bool) {
	t.Helper()
	s.prepare(t)
	r := s.strike(t, when, interrupted(t))
	if r.what == "" {
		return nil, false
	}
	t.Logf("^C after %s", r.what)
	if r.Code != 130 && r.Code != 0 {
		t.Errorf("^C after %s: exit %d, want 130", r.what, r.Code)
	}
	became := "as it was"
	if s.ended(t) == r.run {
		became = "restored"
		s.serves(t, "^C after "+r.what, "set", 1)
		s.undo(t, r.run, 1)
	} else {
		s.serves(t, "^C after "+r.what, "live", 1)
		s.unsafe(t, "^C after "+r.what, r.run)
	}
	return []string{r.what, fmt.Sprint(r.Code), became, s.left(t, "^C after "+r.what)}, true
}

// each does something after each write of a run: some places, each with what
// start has made for it, take the writes in turn, until one finds that a run
// makes no more. It returns the rows, with the number of the write before each.
func each[S any](t *testing.T, start func(*testing.T) S, do func(t *testing.T, s S, n int) (row []string, ok bool)) [][]string {
	t.Helper()
	const places, tooMany = 3, 100
	var next atomic.Int32
	var mu sync.Mutex
	found := map[int][]string{}
	t.Run("each", func(t *testing.T) {
		for i := range places {
			t.Run(fmt.Sprintf("place %d", i), func(t *testing.T) {
				t.Parallel()
				s := start(t)
				for n := int(next.Add(1)); n < tooMany && !t.Failed(); n = int(next.Add(1)) {
					row, ok := do(t, s, n)
					if !ok {
						t.Logf("a run makes %d writes", n-1)
						next.Store(tooMany)
						return
					}
					mu.Lock()
					found[n] = append([]string{fmt.Sprint(n)}, row...)
					mu.Unlock()
				}
			})
		}
	})
	var rows [][]string
	for _, n := range slices.Sorted(maps.Keys(found)) {
		rows = append(rows, found[n])
	}
	return rows
}

// TestKilledWhileRestoringInPlace ends the client after some of its writes, and
// in `make faults` after each of them: the same command again finishes what it
// has begun, a rollback undoes that, a rollback at once undoes it too, nothing
// is lost, and a commit leaves nothing.
func TestKilledWhileRestoringInPlace(t *testing.T) {
	t.Parallel()
	if all() {
		rows := each(t, newStand, func(t *testing.T, s stand, n int) ([]string, bool) {
			return killRestore(t, s, func() moment { return nth(n) })
		})
		restoreKills.write(t, 0, "The client is ended by SIGKILL after each of its writes",
			[]string{"killed after write", "what was written", "the same command again", "then --rollback", "--rollback at once", "left after --commit"}, rows)
		return
	}
	for _, c := range []struct{ verb, resource, path string }{
		{"create", "jobs", ""},                         // the new volume is being checked
		{"update", "deployments/scale", ""},            // the app is scaled down
		{"delete", "persistentvolumeclaims", "s/data"}, // its claim is gone
	} {
		t.Run(c.verb+" "+c.resource, func(t *testing.T) {
			t.Parallel()
			s := newStand(t)
			s.prepare(t)
			dead := s.strike(t, after(c.verb, c.resource, c.path), killed(t))
			if dead.what == "" {
				t.Fatal("a restore makes no such write")
			}
			s.finish(t, dead.run)
		})
	}
}

// TestInterruptedWhileRestoringInPlace: ^C after some of its writes, and in
// `make faults` after each of them.
func TestInterruptedWhileRestoringInPlace(t *testing.T) {
	t.Parallel()
	if all() {
		rows := each(t, newStand, func(t *testing.T, s stand, n int) ([]string, bool) { return interruptRestore(t, s, nth(n)) })
		restoreKills.write(t, 1, "^C after each of its writes", []string{"^C after write", "what was written", "exit", "the app", "left"}, rows)
		return
	}
	s := newStand(t)
	for _, c := range []struct{ verb, resource, path, became string }{
		{"update", "deployments/scale", "", "as it was"},
		{"delete", "persistentvolumeclaims", "s/data", "restored"},
	} {
		row, ok := interruptRestore(t, s, after(c.verb, c.resource, c.path))
		if !ok || row[2] != c.became {
			t.Errorf("^C after %s %s: %q, want %s", c.verb, c.resource, row, c.became)
		}
	}
}

// TestRaisedWhileRestoringInPlace: somebody scales the app up while it is to
// stand still. Before its claim is removed everything is put back; after that
// the new volume is there when its pods start.
func TestRaisedWhileRestoringInPlace(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.prepare(t)
	r := s.strike(t, after("update", "deployments/scale", ""), func(*os.Process) { s.scale(t, 2) })
	if r.Code != 5 || !strings.Contains(r.Stderr, "[BS034]") || !strings.Contains(r.Stderr, "everything is as it was before") {
		t.Errorf("raised once it was scaled down: exit %d, want 5 and BS034", r.Code)
	}
	s.serves(t, "raised once it was scaled down", "live", 2)
	s.unsafe(t, "raised once it was scaled down", r.run)
	s.left(t, "raised once it was scaled down")

	r = s.strike(t, after("delete", "persistentvolumeclaims", "s/data"), func(*os.Process) { s.scale(t, 1) })
	if r.Code != 0 {
		t.Errorf("raised once its claim was gone: exit %d, want 0", r.Code)
	}
	s.serves(t, "raised once its claim was gone", "set", 1)
	s.undo(t, r.run, 1)
	s.left(t, "committed")
}

// TestTwoRestoresInPlace: while one restores an app, another is refused, and
// one that waits comes after it. They are undone in the reverse order.
func TestTwoRestoresInPlace(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.prepare(t)
	var later func() kit.Result
	first := s.strike(t, after("create", "jobs", ""), func(*os.Process) {
		refused := kit.Backsnap(t, s.restore()...)
		if refused.Code != 6 || !strings.Contains(refused.Stderr, "[BS035]") {
			t.Errorf("a second one meanwhile: exit %d, want 6 and BS035", refused.Code)
		}
		_, later = kit.Background(t, s.restore("--lock-timeout", "3m")...)
	})
	if first.Code != 0 || later == nil {
		t.Fatalf("the first one: exit %d, want 0", first.Code)
	}
	second := later()
	run := plannedRun.FindStringSubmatch(second.Stderr)
	if second.Code != 0 || run == nil {
		t.Fatalf("the one that waited: exit %d, want 0", second.Code)
	}
	s.serves(t, "restored twice", "set", 1)
	if r := kit.Backsnap(t, "restore", "--rollback", first.run, "-n", s.namespace, "--yes"); r.Code != 4 || !strings.Contains(r.Stderr, "[BS083]") {
		t.Errorf("roll the first one back before the second: exit %d, want 4 and BS083", r.Code)
	}
	s.swap(t, "--rollback", run[1])
	s.swap(t, "--commit", run[1], "--grace", "0")
	s.serves(t, "the second is undone", "set", 1)
	s.undo(t, first.run, 1)
	s.left(t, "both are undone")
}

// restoreKills is docs/faults/restore-kills.md.
var restoreKills = tables{
	file: "restore-kills.md", parts: make([]string, 2),
	head: `# What becomes of a restore in place that is ended

Written by ` + "`make faults`" + ` (testdata/e2e/faults/restore_kills_test.go): ` + "`kubectl backsnap restore deployment/app --in-place`" + ` of an app with one
volume. After each of these the app serves what it should, with the replicas that it had: the data of the set where the restore is
finished, that of before it where it is undone. Safety snapshots of finished restores are no leftovers: they stay for seven days.
`,
}
