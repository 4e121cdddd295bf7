package restic_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Only whole ids go to restic, each once, and not too many at once.
func TestForgetArgs(t *testing.T) {
	number := func(n int) string { return fmt.Sprintf("%064x", n) }
	var many []string
	for n := range 2001 {
		many = append(many, number(n))
	}
	for _, test := range []struct {
		name  string
		ids   []string
		want  [][]string
		fails bool
	}{
		{name: "none"},
		{name: "sorted, each once", ids: []string{number(2), number(1), number(2)}, want: [][]string{{number(1), number(2)}}},
		{name: "many", ids: many, want: [][]string{many[:1000], many[1000:2000], many[2000:]}},
		{name: "the beginning of one", ids: []string{number(1), number(2)[:8]}, fails: true},
		{name: "a word", ids: []string{"latest"}, fails: true},
		{name: "a flag", ids: []string{"--keep-last=0"}, fails: true},
		{name: "nothing at all", ids: []string{""}, fails: true},
	} {
		got, err := restic.ForgetArgs(slices.Clone(test.ids))
		if (err != nil) != test.fails {
			t.Errorf("%s: error %v", test.name, err)
		}
		equal(t, test.name, test.want, got)
	}
}

func TestRepackSizes(t *testing.T) {
	for text, good := range map[string]bool{"20G": true, "0": true, "512M": true, "1T": true, "": false, "20GiB": false, "5%": false, "-1G": false, "1G --keep-last": false} {
		if err := restic.CheckRepack(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
	equal(t, "arguments", []string{"--max-unused", "10%", "--max-repack-size", "1G"}, restic.PruneArgs("1G", 0))
	equal(t, "with a limit", []string{"--max-unused", "10%", "--max-repack-size", "1G", "--limit-upload", "512"}, restic.PruneArgs("1G", 512))
}

// The Jobs that forget and that free room wait for a lock, and for no dead
// one's; what they run is restic's own.
func TestForgettingJobs(t *testing.T) {
	w := restic.Work{
		Namespace: "backsnap", Name: "x", Repository: catalog.Repository{Secret: "main"}, Deadline: time.Hour,
		Locks: restic.Locks{Retry: 10 * time.Minute, Mark: "-abc123"},
	}
	for step, args := range map[string][]string{restic.StepForget: {id}, restic.StepPrune: restic.PruneArgs("1G", 0)} {
		w.Step, w.Args = step, args
		job, err := w.Job()
		must(t, err)
		equal(t, step, append([]string{step, "60", "3600", "10m0s", step}, args...), job.Args)
	}
}

// What restic says of a repository that lets nothing go, and of room that it
// has freed, is read from the report that the wrapper leaves.
func TestMoverForgetsAndPrunes(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.restic = `case $1 in forget) echo "unable to remove snapshot/1234 from the repository" >&2
echo "failed to remove one or more snapshots" >&2; exit 3 ;; esac`
		got := c.run(restic.StepForget, "forget", id)
		report := restic.ReadReport(got.report, got.exit)
		if !report.Kept() || report.Err(restic.StepForget) == nil {
			t.Errorf("append-only: exit %d, %+v", got.exit, report)
		}
		equal(t, "forgets", "/repo\nforget\n"+id+"\n", c.read("forget.args"))

		c.restic = `case $1 in prune) echo "loading indexes..."; echo "to delete:            2 blobs / 1.5 MiB"
echo "total prune:          3 blobs / 1.750 MiB"; for n in 1 2 3 4 5; do echo "remaining $n"; done ;; esac`
		got = c.run(restic.StepPrune, append([]string{"prune"}, restic.PruneArgs("1G", 0)...)...)
		report = restic.ReadReport(got.report, got.exit)
		if err := report.Err(restic.StepPrune); err != nil || report.Freed() != "1.750 MiB" || report.Kept() {
			t.Errorf("prune: %v, freed %q, %+v", err, report.Freed(), report)
		}
		if !strings.Contains(got.log, "remaining 5") {
			t.Errorf("log: %s", got.log)
		}

		c.restic = `case $1 in forget) echo 'Ignoring "` + id + `": no matching ID found for prefix' >&2 ;; esac`
		got = c.run(restic.StepForget, "forget", id)
		if err := restic.ReadReport(got.report, got.exit).Err(restic.StepForget); err != nil {
			t.Errorf("an id that is not there: %v", err)
		}
	})
}

// A copy tells by itself until when it was to be kept: its snapshot goes first.
func TestTagsTellHowLong(t *testing.T) {
	s := catalog.Snapshot{Namespace: "shop", Name: "data-1", UID: "u", Claim: "data", Run: "20261122-011500-x7k2", Retain: "days", DeleteAfter: "2026-12-22"}
	more := func(s catalog.Snapshot) []string { return restic.Tags(s)[7:] }
	equal(t, "days", []string{"retain=days", "delete-after=2026-12-22"}, more(s))
	s.Pinned = true
	equal(t, "pinned", []string{"retain=days", "delete-after=2026-12-22", "pin=true"}, more(s))
	s.Pinned, s.Retain, s.DeleteAfter, s.Marked = false, "calendar", "20261123T092000Z", time.Now()
	equal(t, "marked by prune", []string{"retain=calendar"}, more(s))
}
