package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// copyNights puts copies of so many nights into the repository, as runs would have
// made them of a claim that is long gone, and one of each kind of stranger.
func copyNights(t *testing.T, repository kit.Repository, namespace string, first time.Time, n int) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -e\n")
	add := func(i int, host string, cut time.Time) {
		run := catalog.Run(fmt.Sprintf("%s-n%03d", cut.Format("20060102-150405"), i))
		record := catalog.Record{
			Version: 1, Run: run, App: "pvc/data", Members: []string{"data"}, Claim: catalog.ClaimRecord{Name: "data", UID: "gone", Driver: "csi"},
			TimeZone: "UTC", Consistency: catalog.Crash, Cut: cut,
		}
		packed, err := record.Tag()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, "echo %d | \"$1\" backup -q --stdin --stdin-filename /data --host %s --time '%s'", i, host, cut.Format("2006-01-02 15:04:05"))
		for _, tag := range []string{"backsnap", "ns=" + namespace, "pvc=data", "uid=gone", "snapshot=data-" + string(run), "vsuid=" + string(run), "run=" + string(run), "app=pvc/data", "set=1", "consistency=crash", "retain=calendar", "record=" + packed} {
			fmt.Fprintf(&script, " --tag %s", kit.Quote(tag))
		}
		script.WriteString("\n")
	}
	for i := range n {
		add(i, "e2e/"+namespace+"/data", first.AddDate(0, 0, i))
	}
	add(100, "other/"+namespace+"/data", first)
	add(101, "e2e/"+namespace+"/another", first)
	file := filepath.Join(t.TempDir(), "nights.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := kit.Command(t, append(repository.Environment(t), "TZ=UTC"), "", "sh", file, kit.Env(t, "BACKSNAP_CLUSTER_RESTIC"))
	if r.Code != 0 {
		t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// nightsOf are the days of what lies in the repository of that host, sorted.
func nightsOf(t *testing.T, repository kit.Repository, host string) []string {
	t.Helper()
	var days []string
	for _, s := range repository.Snapshots(t) {
		if s.Hostname == host {
			days = append(days, s.Time.UTC().Format(time.DateOnly))
		}
	}
	slices.Sort(days)
	return days
}

// TestPruneSixtyNightsOfCopies: of sixty nights of copies exactly those stay
// that the policy keeps. What is another's, or contradicts itself, is not
// touched. Its room is freed, and no mark is left.
func TestPruneSixtyNightsOfCopies(t *testing.T) {
	t.Parallel()
	repository, namespace := kit.NewRepository(t, "repository password"), kit.Namespace(t)
	copyNights(t, repository, namespace, time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC), 60)
	args := []string{"prune", "-n", namespace, "--backup-namespace", repository.Namespace, "--keep", "daily=7,weekly=4,monthly=12", "--grace=1s", "--max-delete=100%", "--yes"}
	first := kit.Must(t, args...)
	if got := strings.Count(first, " marked\n"); got != 48 || strings.Contains(first, "forgotten") {
		t.Errorf("marked %d:\n%s", got, first)
	}
	forgotten := 0
	kit.Until(t, "the marks to run out", func() string {
		forgotten += strings.Count(kit.Must(t, args...), " forgotten\n")
		if forgotten < 48 {
			return fmt.Sprintf("%d forgotten", forgotten)
		}
		return ""
	})
	want := []string{"2025-01-01", "2025-02-01", "2025-02-03", "2025-02-10", "2025-02-17", "2025-02-23", "2025-02-24", "2025-02-25", "2025-02-26", "2025-02-27", "2025-02-28", "2025-03-01"}
	if got := nightsOf(t, repository, "e2e/"+namespace+"/data"); !slices.Equal(got, want) {
		t.Errorf("left\n got %v\nwant %v", got, want)
	}
	for _, host := range []string{"other/" + namespace + "/data", "e2e/" + namespace + "/another"} {
		if got := nightsOf(t, repository, host); len(got) != 1 {
			t.Errorf("of %s: %v", host, got)
		}
	}
	if marks := kit.Kubectl(t, "get", "configmap", "backsnap-marks-main", "-n", repository.Namespace, "-o", "jsonpath={.data}"); marks != "" {
		t.Errorf("marks left: %s", marks)
	}
	repository.Restic(t, "check")
	if left := kit.Names(t, repository.Namespace, "job,pod,lease"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
}

// TestPruneRemovesOneWithItsCopies: a restore point that is removed at once
// goes from its repository too, and an append-only repository keeps what it
// has, which is said.
func TestPruneRemovesOneWithItsCopies(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: worm, namespace: %s, labels: {backsnap.sh/repository: worm}}
stringData: {RESTIC_REPOSITORY: %q, RESTIC_PASSWORD: password}
`, repository.Namespace, kit.RestServer(t, "--append-only")), "apply", "-f", "-")
	at := []string{"--backup-namespace", repository.Namespace}
	kit.Must(t, append([]string{"repo", "init", "worm", "--cluster-name", "e2e"}, at...)...)
	namespace := claims(t, "data")
	run := kit.Snapshot(t, 0, append([]string{"-n", namespace}, at...)...)
	kit.Snapshot(t, 0, append([]string{"-n", namespace}, at...)...)

	r := kit.Backsnap(t, append([]string{"prune", "run/" + run.Run, "-n", namespace, "--now", "--yes"}, at...)...)
	if r.Code != 0 || strings.Count(r.Stdout, "copy/main/") != 1 || strings.Contains(r.Stdout, "copy/worm/") || !strings.Contains(r.Stderr, "repository worm lets nothing be removed") {
		t.Fatalf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if left := repository.Snapshots(t); len(left) != 1 {
		t.Errorf("in the repository: %+v", left)
	}
	found := list(t, append([]string{"-n", namespace, "--from-repository", "main,worm"}, at...)...)
	if len(found.Items) != 2 || len(found.Items[0].Copies)+len(found.Items[1].Copies) != 3 {
		t.Errorf("listed: %+v", found)
	}
}
