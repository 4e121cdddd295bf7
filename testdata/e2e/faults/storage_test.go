package faults_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestBadDaysOfTheStorage: one database on a volume whose driver is made to
// behave badly, one day after the other.
func TestBadDaysOfTheStorage(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	db := kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	writer := kit.Write(t, db)
	days := []struct {
		kit.Day
		fault kit.Fault
		args  []string
		long  bool // waits for longer than make test has
	}{
		{Day: kit.Day{What: "ready after a long delay"}, fault: kit.Fault{"readyDelay": "5s"}},
		{Day: kit.Day{What: "slow cut"}, fault: kit.Fault{"cutDelay": "4s"}},
		{Day: kit.Day{What: "cut error, then success"}, fault: kit.Fault{"errors": kit.Failing("Aborted", "try again", 2)}},
		{Day: kit.Day{What: "no restore size"}, fault: kit.Fault{"noRestoreSize": true}, args: []string{"--repository", repository.Name}},
		{
			Day:   kit.Day{What: "snapshot never ready", Exit: 6, Code: "BS022", Stays: "volumesnapshot"},
			fault: kit.Fault{"neverReady": true}, args: []string{"--timeout", "15s"},
		},
		{
			Day:   kit.Day{What: "final cut error", Exit: 6, Code: "BS022", Says: []string{"the array says no"}, Stays: "volumesnapshot"},
			fault: kit.Fault{"finalError": kit.Failing("InvalidArgument", "the array says no", 0)}, args: []string{"--timeout", "30s"},
		},
		{
			Day:   kit.Day{What: "clone never bound", Exit: 3, Code: "BS055", Says: []string{"no room for clones"}},
			fault: kit.Fault{"failProvision": map[string]any{"code": "ResourceExhausted", "message": "no room for clones", "onlyFromSnapshots": true}},
			args:  []string{"--repository", repository.Name}, long: true,
		},
	}
	for _, day := range days {
		day.Group = "Storage"
		t.Run(day.What, func(t *testing.T) {
			if day.long {
				kit.All(t)
			}
			kit.Faults(t, db.Namespace, day.fault)
			args := append([]string{"-n", db.Namespace, "--backup-namespace", repository.Namespace}, day.args...)
			if !strings.Contains(strings.Join(args, " "), "--repository") {
				args = append(args, "--repository", "none")
			}
			item := day.Snapshot(t, writer, args...).Of(t, db.Claim())
			if day.Exit == 0 && (item.State != "Protected" || item.Consistency != "application") {
				t.Errorf("item %+v", item)
			}
			if day.Exit == 6 {
				notAPoint(t, db.Namespace, item)
			}
		})
	}
	t.Run("delete refused", func(t *testing.T) { deleteRefused(t, db, writer) })
	db.NoParts(t)
}

// notAPoint checks that a snapshot that was given up carries nothing that makes
// it a restore point, and removes it.
func notAPoint(t *testing.T, namespace string, item kit.Item) {
	t.Helper()
	got := slices.Sorted(maps.Keys(kit.Labels(t, namespace, item.Snapshot)))
	want := []string{"app.kubernetes.io/managed-by", "backsnap.sh/delete-after", "backsnap.sh/namespace", "backsnap.sh/pvc", "backsnap.sh/retain", "backsnap.sh/run"}
	if !slices.Equal(got, want) {
		t.Errorf("labels\n got %v\nwant %v", got, want)
	}
	kit.Kubectl(t, "delete", "volumesnapshot", item.Snapshot, "-n", namespace, "--wait=false")
}

// deleteRefused: the storage does not let go of what ^C condemns. It is gone
// for the cluster as soon as the storage does.
func deleteRefused(t *testing.T, db kit.Database, writer *kit.Writer) {
	kit.Faults(t, db.Namespace, kit.Fault{"neverReady": true, "refuseDelete": kit.Failing("Internal", "the array keeps it", 0)})
	process, wait := kit.Background(t, "snapshot", "-o", "json", "-n", db.Namespace, "--repository", "none")
	kit.Until(t, "a cut", func() string {
		unready := kit.Kubectl(t, "get", "volumesnapshot", "-n", db.Namespace, "-o", `jsonpath={.items[?(@.status.readyToUse==false)].status.creationTime}`)
		if unready == "" {
			return "none"
		}
		return ""
	})
	if err := process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	r := wait()
	// Now it lets go.
	kit.Faults(t, db.Namespace)
	day := kit.Day{Group: "Storage", What: "delete refused, after ^C", Exit: 130, Code: "BS090"}
	day.Check(t, writer, r)
}
