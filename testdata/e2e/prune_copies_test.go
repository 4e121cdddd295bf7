package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestPruneSixtyNightsOfCopies: of sixty nights of copies exactly those stay
// that the policy keeps. Marks that are lost only delay. What is another's, or
// contradicts itself, is not touched. The room is freed, and no mark is left.
func TestPruneSixtyNightsOfCopies(t *testing.T) {
	t.Parallel()
	kit.All(t) // sixty times restic
	repository, namespace := kit.NewRepository(t, "repository password"), kit.Namespace(t)
	first := time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC)
	copies := []kit.Copied{
		{Cluster: "other", Namespace: namespace, Claim: "data", Cut: first},
		{Cluster: "e2e", Namespace: "elsewhere", Claim: "data", Cut: first},
		{Cluster: "e2e", Namespace: namespace, Claim: "data", Cut: first, Host: "e2e/" + namespace + "/another"},
	}
	for i := range 60 {
		copies = append(copies, kit.Copied{Cluster: "e2e", Namespace: namespace, Claim: "data", Cut: first.AddDate(0, 0, i)})
	}
	repository.Put(t, copies...)
	args := []string{"prune", "-n", namespace, "--backup-namespace", repository.Namespace, "--keep", "daily=7,weekly=4,monthly=12", "--grace=1s", "--max-delete=100%", "--yes"}
	for _, when := range []string{"at first", "once the marks were lost"} {
		if out := kit.Must(t, args...); strings.Count(out, " marked\n") != 48 || strings.Contains(out, "forgotten") {
			t.Errorf("marked %s:\n%s", when, out)
		}
		if when == "at first" {
			kit.Kubectl(t, "delete", "configmap", "backsnap-marks-main", "-n", repository.Namespace)
		}
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
	if got := slices.Sorted(maps.Keys(repository.Days(t, "e2e/"+namespace+"/data"))); !slices.Equal(got, want) {
		t.Errorf("left\n got %v\nwant %v", got, want)
	}
	if all := repository.Snapshots(t); len(all) != len(want)+3 {
		t.Errorf("the repository has %d snapshots, want %d and those of 3 others", len(all), len(want))
	}
	if marks := kit.Kubectl(t, "get", "configmap", "backsnap-marks-main", "-n", repository.Namespace, "-o", "jsonpath={.data}"); marks != "" {
		t.Errorf("marks left: %s", marks)
	}
	repository.Restic(t, "check")
	if left := kit.Names(t, repository.Namespace, "job,pod,lease"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
}

// TestPruneTrustsNoShortListing: a repository that cannot be read, or in which
// nothing lies of what is on record, is not judged. A lock of a mover that is
// dead goes; that of somebody who may live is waited for.
func TestPruneTrustsNoShortListing(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := claims(t, "data")
	kit.CopiedNights(t, repository, namespace, "data", time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC), 2)
	judge := []string{"prune", "-n", namespace, "--backup-namespace", repository.Namespace, "--keep=daily=2", "--keep-copies=daily=1", "--grace=0", "--yes"}
	refused := func(what string, code int, says ...string) {
		t.Helper()
		r := kit.Backsnap(t, append(judge, "--retry-lock=0s")...)
		for _, part := range says {
			if r.Code != code || !strings.Contains(r.Stderr, part) {
				t.Errorf("%s: exit %d, want %d and %q", what, r.Code, code, part)
			}
		}
		if all := repository.Snapshots(t); len(all) != 2 {
			t.Errorf("%s: %d copies are left", what, len(all))
		}
	}
	full := repository
	repository.Password = "another"
	repository.Secret(t)
	repository = full
	refused("wrong password", 12, "[BS053]", "set RESTIC_PASSWORD in Secret "+repository.Namespace+"/main")
	empty := repository
	empty.Bucket = kit.Random("bucket")
	empty.Secret(t)
	kit.Must(t, "repo", "init", "main", "--backup-namespace", repository.Namespace)
	refused("an empty one", 5, "[BS045]", "copies in repository main not judged: 2 are on record, and none of them lies there")
	repository.Secret(t)

	repository.Stale(t, "laptop")
	refused("locked", 11, "[BS052]", "locked by host laptop since ")
	repository.Unlock(t)
	dead := "data" + restic.Mark(catalog.Repository{Cluster: "e2e", Namespace: repository.Namespace}) + "01234567-20261122-011500-x7k2-b7xkz"
	repository.Stale(t, dead)
	r := kit.Backsnap(t, append(judge, "--progress=plain")...)
	if r.Code != 0 || strings.Count(r.Stdout, " forgotten\n") != 1 || !strings.Contains(r.Stderr, "removed the lock of host "+dead) {
		t.Errorf("with a dead mover's lock: exit %d", r.Code)
	}
	if all := repository.Snapshots(t); len(all) != 1 {
		t.Errorf("%d copies are left, want 1", len(all))
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
