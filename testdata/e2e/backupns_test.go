package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// backupNS is a VolumeSnapshot as backup-ns 0.3.0 writes it: its name, labels
// and annotation; name is the end that it gives by chance.
func backupNS(t *testing.T, namespace, claim, name string, labels ...string) string {
	t.Helper()
	all := map[string]string{
		"backup-ns.sh/pvc": claim, "backup-ns.sh/type": "cronjob", "backup-ns.sh/pod": "backup-29401234-abcde", "backup-ns.sh/retain": "daily_weekly_monthly",
	}
	for _, label := range labels {
		key, value, _ := strings.Cut(label, "=")
		all["backup-ns.sh/"+key] = value
	}
	return kit.VolumeSnapshot(t, namespace, name, claim, all, map[string]string{
		"backup-ns.sh/env-config": "BAK_DB_POSTGRES='true'\nBAK_LABEL_VS_RETAIN='daily_weekly_monthly'\nBAK_LABEL_VS_TYPE='cronjob'\nBAK_NAMESPACE='" + namespace + "'\nBAK_PVC_NAME='" + claim + "'\n",
	})
}

// TestPruneOfWhatBackupNSMade: objects exactly as backup-ns writes them, with
// its keys `w47` and `2026-w47`, its tiers of a whole namespace and its
// retained contents, are judged, marked and swept by its own labels; without
// --label-prefix nothing of them is touched.
func TestPruneOfWhatBackupNSMade(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	for _, claim := range []string{"data", "logs"} {
		kit.Claim(t, namespace, claim, "")
	}
	kit.Bound(t, namespace, "data", "logs")
	now := time.Now().UTC()
	today := time.Date(now.Year(), now.Month(), now.Day(), 12, 0, 0, 0, time.UTC)
	day := func(ago int) string { return today.AddDate(0, 0, -ago).Format(time.DateOnly) }
	week := func(ago int) string { return catalog.Weekly.Key(today.AddDate(0, 0, -7*ago)) } // 2026-w47
	bare := func(ago int) string { return week(ago)[len("2026-"):] }                        // w47
	month := today.Format("2006-01")
	made := map[string][]string{ // by the rest of the name
		"data-first":  {"daily=" + day(0), "weekly=" + bare(0), "monthly=" + month},
		"data-second": {"daily=" + day(1)},
		"data-third":  {"daily=" + day(2)},
		"data-week":   {"weekly=" + week(1)}, // as it was written before 0.2
		"data-weeks":  {"weekly=" + bare(2)},
		"data-saved":  {"daily=" + day(1), "delete-after=" + day(3)}, // its pruner's mark beside a live tier
		"data-due":    {"retain=days", "retain-days=30", "delete-after=" + day(1)},
		"data-later":  {"retain=days", "retain-days=30", "delete-after=" + day(-29)},
		"data-marked": {"delete-after=" + day(2)}, // by its pruner: no tier is left
		"logs-first":  {},                         // data-first has taken the labels of the namespace's day, week and month
	}
	var manifests strings.Builder
	for name, labels := range made {
		manifests.WriteString(backupNS(t, namespace, strings.Split(name, "-")[0], name, labels...))
	}
	kit.MakeReady(t, namespace, manifests.String(), len(made))
	// The storage's clock says when they were cut. The newest of each claim
	// stays, whatever its labels say: that is to be one that stays anyway.
	later := backupNS(t, namespace, "data", "data-newest", "daily="+day(0))
	kit.Until(t, "a second to pass", func() string {
		if time.Since(now) < 2*time.Second {
			return "not yet"
		}
		return ""
	})
	kit.MakeReady(t, namespace, later, len(made)+1)
	contents := map[string]string{}
	for name := range made { // its snapshot class has to retain
		contents[name] = contentOf(t, namespace, name)
		kit.Kubectl(t, "patch", "volumesnapshotcontent", contents[name], "--type=merge", "-p", `{"spec": {"deletionPolicy": "Retain"}}`)
		kit.Afterwards(t, "delete", "volumesnapshotcontent", contents[name], "--wait=false", "--ignore-not-found") // it outlives the namespace
	}
	args := []string{"-n", namespace, "--keep", "daily=2,weekly=2,monthly=1", "--timezone", "UTC", "--max-delete", "100%"}

	if got := prune(t, 0, append(args, "--yes")...); len(got.Items) > 0 {
		t.Errorf("without --label-prefix: %v", got.Items)
	}
	args = append(args, "--label-prefix", "backup-ns.sh")
	got := map[string]string{}
	for _, item := range prune(t, 0, append(args, "--dry-run")...).Items {
		reason, _, _ := strings.Cut(item.Reason, "; swept after")
		got[item.Set] = item.Decision + ": " + reason
	}
	want := map[string]string{
		"data-first": "keep: monthly 1/1, weekly 1/2, daily 1/2", "data-second": "keep: daily 2/2", "data-third": "mark: daily 3/2",
		"data-week": "keep: weekly 2/2", "data-weeks": "mark: weekly 3/2", "data-saved": "unmark: daily 2/2",
		"data-due": "sweep: delete-after " + day(1) + " has passed", "data-later": "keep: delete-after " + day(-29),
		"data-marked": "sweep: no period, marked by backup-ns", "data-newest": "keep: daily 1/2", "logs-first": "keep: monthly 1/1, weekly 1/2, daily 1/2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}

	p := prune(t, 0, append(args, "--yes", "--grace=1s")...)
	for state, want := range map[string][]string{
		"Deleted": {"data-due", "data-marked"}, "Marked": {"data-third", "data-weeks"}, "Unmarked": {"data-saved"},
	} {
		if got := p.states(state); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
	kit.Until(t, "what was marked to be swept", func() string {
		prune(t, 0, append(args, "--yes", "--grace=1s")...)
		if left := standing(t, namespace); slices.Contains(left, "data-third") || slices.Contains(left, "data-weeks") {
			return fmt.Sprint(left)
		}
		return ""
	})
	if got, want := standing(t, namespace), []string{"data-first", "data-later", "data-newest", "data-saved", "data-second", "data-week", "logs-first"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	for _, name := range []string{"data-due", "data-marked", "data-third", "data-weeks"} {
		if left := kit.Kubectl(t, "get", "volumesnapshotcontent", contents[name], "--ignore-not-found", "-o", "name"); left != "" {
			t.Errorf("%s of %s is there still", left, name)
		}
	}
	labels := kit.Kubectl(t, "get", "volumesnapshot", "data-saved", "-n", namespace, "-o", "jsonpath={.metadata.labels}")
	if strings.Contains(labels, "delete-after") || !strings.Contains(labels, `"backup-ns.sh/daily":"`+day(1)+`"`) {
		t.Errorf("labels of data-saved: %s", labels)
	}
}
