package e2e_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

func TestKubectlFindsThePlugin(t *testing.T) {
	listed := kit.Command(t, nil, "", "kubectl", "plugin", "list")
	if listed.Code != 0 || !strings.Contains(listed.Stdout, "kubectl-backsnap") || strings.Contains(listed.Stdout+listed.Stderr, "warning") {
		t.Errorf("kubectl plugin list: exit %d\n%s%s", listed.Code, listed.Stdout, listed.Stderr)
	}
	for _, args := range [][]string{{"--help"}, {"snapshot", "--help"}, {"list", "--help"}, {"repo", "init", "--help"}} {
		help := kit.Must(t, args...)
		if !strings.Contains(help, "kubectl backsnap") || strings.Contains(help, "kubectl-backsnap") {
			t.Errorf("help %v names the plugin wrongly:\n%s", args, help)
		}
	}
}

// TestKubectlCompletesThePlugin has a real kubectl complete what is typed, as a
// shell asks it to, after `completion install`.
func TestKubectlCompletesThePlugin(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.App(t, namespace)
	binary, err := exec.LookPath("kubectl-backsnap")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "kubectl-backsnap")); err != nil { // as krew has it
		t.Fatal(err)
	}
	env := []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
	if r := kit.Command(t, env, "", "kubectl", "backsnap", "completion", "install"); r.Code != 0 || r.Stdout != filepath.Join(dir, "kubectl_complete-backsnap")+" created\n" {
		t.Fatalf("exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, c := range []struct {
		typed []string
		want  string
	}{
		{[]string{"snap"}, "snapshot\tDump databases, cut their volumes as VolumeSnapshots, copy them off-site\n:36\n"},
		{[]string{"snapshot", "-n", namespace, ""}, "deployment/app\ndata\n:36\n"},
		{[]string{"snapshot", "-n", namespace[:len(namespace)-1]}, namespace + "\n:4\n"},
		{[]string{"restore", "data", "--from", ""}, "auto\nsnapshot\ncopy\n:4\n"},
	} {
		if r := kit.Command(t, env, "", "kubectl", append([]string{"__complete", "backsnap"}, c.typed...)...); r.Code != 0 || r.Stdout != c.want {
			t.Errorf("%q: exit %d\n%s%s", c.typed, r.Code, r.Stdout, r.Stderr)
		}
	}
}

// TestThePluginNeedsNothingInPATH runs it alone, with an empty PATH.
func TestThePluginNeedsNothingInPATH(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	binary, err := exec.LookPath("kubectl-backsnap")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "snapshot", "-n", namespace, "--repository", "none", "-o", "name")
	cmd.Env = []string{"KUBECONFIG=" + os.Getenv("KUBECONFIG"), "PATH=", "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := kit.Names(t, namespace, "volumesnapshot"); !strings.HasPrefix(left, "volumesnapshot.snapshot.storage.k8s.io/data-") {
		t.Errorf("snapshots: %q", left)
	}
}

// TestLabelsAreTheContract compares all labels of two databases' snapshots.
func TestLabelsAreTheContract(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	postgres := kit.Postgres(t, namespace, "postgres", kit.Options{})
	mariadb := kit.MariaDB(t, namespace, "mariadb", kit.Options{})
	run := kit.Snapshot(t, 0, "-n", namespace, "--retain", "calendar", "--timezone", "UTC", "--repository", "none")
	for _, db := range []kit.Database{postgres, mariadb} {
		item := run.Of(t, db.Claim())
		cut, err := time.Parse(time.RFC3339, kit.Kubectl(t, "get", "volumesnapshot", item.Snapshot, "-n", namespace, "-o", "jsonpath={.status.creationTime}"))
		if err != nil {
			t.Fatal(err)
		}
		year, week := cut.UTC().ISOWeek()
		want := map[string]string{
			"app.kubernetes.io/managed-by": "backsnap",
			"backsnap.sh/namespace":        namespace,
			"backsnap.sh/pvc":              db.Claim(),
			"backsnap.sh/run":              run.Run,
			"backsnap.sh/consistency":      "application",
			"backsnap.sh/retain":           "calendar",
			"backsnap.sh/hourly":           cut.UTC().Format("2006-01-02T15Z"),
			"backsnap.sh/daily":            cut.UTC().Format("2006-01-02"),
			"backsnap.sh/weekly":           weekKey(year, week),
			"backsnap.sh/monthly":          cut.UTC().Format("2006-01"),
			"backsnap.sh/yearly":           cut.UTC().Format("2006"),
		}
		if got := kit.Labels(t, namespace, item.Snapshot); !maps.Equal(got, want) {
			t.Errorf("labels of %s\n got %v\nwant %v", item.Snapshot, got, want)
		}
		content := kit.Kubectl(t, "get", "volumesnapshot", item.Snapshot, "-n", namespace, "-o", "jsonpath={.status.boundVolumeSnapshotContentName}")
		mirrored := kit.Kubectl(t, "get", "volumesnapshotcontent", content, "-o", `jsonpath={.metadata.labels.backsnap\.sh/run} {.metadata.labels.backsnap\.sh/daily}`)
		if mirrored != run.Run+" "+want["backsnap.sh/daily"] {
			t.Errorf("content %s mirrors %q", content, mirrored)
		}
	}
}

func weekKey(year, week int) string {
	return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Format("2006") + "-w" + string([]byte{byte('0' + week/10), byte('0' + week%10)})
}

// TestPeriodsAreTakenOnce is the rule of the calendar over several runs.
func TestPeriodsAreTakenOnce(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "a", "")
	kit.Claim(t, namespace, "b", "")
	kit.Bound(t, namespace, "a", "b")
	periods := func(run kit.Run, claim string) []string {
		var names []string
		for key := range kit.Labels(t, namespace, run.Of(t, claim).Snapshot) {
			if name, ok := strings.CutPrefix(key, "backsnap.sh/"); ok && slices.Contains([]string{"hourly", "daily", "weekly", "monthly", "yearly", "delete-after"}, name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	snapshot := func(args ...string) kit.Run {
		return kit.Snapshot(t, 0, append([]string{"-n", namespace, "--repository", "none", "--timezone", "UTC"}, args...)...)
	}

	days := snapshot()
	if got := periods(days, "a"); !slices.Equal(got, []string{"delete-after"}) {
		t.Errorf("one kept for 30 days carries %v", got)
	}
	first := snapshot("--retain", "calendar")
	for _, claim := range []string{"a", "b"} {
		if got := periods(first, claim); !slices.Equal(got, []string{"daily", "hourly", "monthly", "weekly", "yearly"}) {
			t.Errorf("the first of the day of claim %s carries %v", claim, got)
		}
	}
	second := snapshot("--retain", "calendar")
	if got := periods(second, "a"); slices.Contains(got, "daily") || slices.Contains(got, "monthly") {
		t.Errorf("the second of the day carries %v", got)
	}
}

// TestEveryVolumeEndsProtectedOrSkipped covers a namespace of odd claims.
func TestEveryVolumeEndsProtectedOrSkipped(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	for name, class := range map[string]string{"plain": "plain", "pending": "btrfs-local", "good": "", "excluded": "", "left": "", "right": ""} {
		kit.Claim(t, namespace, name, class)
	}
	kit.Bound(t, namespace, "plain", "good", "excluded", "left", "right")
	kit.Kubectl(t, "annotate", "pvc", "excluded", "-n", namespace, "backsnap.sh/schedule=")
	kit.Pod(t, namespace, "pair", "left", "right")
	run := kit.Snapshot(t, 3, "-n", namespace, "--repository", "none")
	got := map[string]string{}
	for _, item := range run.Items {
		got[item.Claim] = strings.TrimSpace(item.State + " " + item.Consistency + item.Code)
	}
	want := map[string]string{
		"plain": "Skipped BS021", "pending": "Skipped BS024", "excluded": "Skipped",
		"good": "Protected crash", "left": "Protected fuzzy", "right": "Protected fuzzy",
	}
	if !maps.Equal(got, want) {
		t.Errorf("\n got %v\nwant %v", got, want)
	}
	if reason := run.Of(t, "good").Reason; reason != "not mounted" {
		t.Errorf("reason of good is %q, want not mounted", reason)
	}
}

// TestDryRunTouchesNothing watches every request.
func TestDryRunTouchesNothing(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Postgres(t, namespace, "postgres", kit.Options{})
	proxy := kit.NewProxy(t, nil)
	r := kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, "snapshot", "-n", namespace, "--dry-run=client")
	if r.Code != 0 || !strings.Contains(r.Stdout, "dump by plugin postgres") || !strings.Contains(r.Stdout, "data-postgres-0") {
		t.Errorf("exit %d\n%s", r.Code, r.Stdout)
	}
	for _, request := range proxy.Requests() {
		if request.Write() {
			t.Errorf("%s %s", request.Method, request.Path)
		}
	}
}

// TestRequestsStayInBudget counts them: a cluster is shared.
func TestRequestsStayInBudget(t *testing.T) {
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	kit.Postgres(t, namespace, "postgres", kit.Options{})
	count := func(args ...string) int {
		proxy := kit.NewProxy(t, nil)
		run := append([]string{"snapshot", "-n", namespace, "--backup-namespace", repository.Namespace}, args...)
		if r := kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, run...); r.Code != 0 {
			t.Fatalf("exit %d", r.Code)
		}
		requests := kit.Counted(proxy.Requests())
		for _, r := range requests {
			t.Logf("%-7s %s %d", r.Verb, r.Path, r.Status)
		}
		return len(requests)
	}
	alone := count("--repository", "none")
	if alone > 20 {
		t.Errorf("%d requests for a snapshot, want 20 at most", alone)
	}
	if copied := count(); copied > 20+14 {
		t.Errorf("%d requests with a copy, want 34 at most", copied)
	}
}

// TestNeverCallAnUnprovenBackupGood gives the database another password than
// its pod knows.
func TestNeverCallAnUnprovenBackupGood(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	db := kit.MariaDB(t, namespace, "mariadb", kit.Options{})
	writer := kit.Write(t, db) // it is logged in already
	db.SQL(t, "drop user if exists root@localhost, root@'%'; create user root@'%' identified by 'changed'; grant all on *.* to root@'%' with grant option; flush privileges")

	day := kit.Day{Group: "Database", What: "wrong database password", Exit: 1, Code: "BS012", Says: []string{"Access denied"}}
	failed := day.Snapshot(t, writer, "-n", namespace, "--repository", "none", "--consistency", "application")
	if item := failed.Of(t, db.Claim()); item.State != "Failed" || item.Code != "BS012" {
		t.Errorf("application: %+v", item)
	}
	if left := kit.Names(t, namespace, "volumesnapshot"); left != "" {
		t.Errorf("application left %s", left)
	}
	partial := kit.Snapshot(t, 3, "-n", namespace, "--repository", "none")
	if item := partial.Of(t, db.Claim()); item.State != "Protected" || item.Consistency != "crash" || item.Code != "BS012" {
		t.Errorf("auto: %+v", item)
	}
	db.NoParts(t)
}

// TestNeverShowASecret greps for passwords that hold everything a shell, JSON
// and YAML trip over.
func TestNeverShowASecret(t *testing.T) {
	// Not beside others: the log of a mover is looked for while it is there.
	const hostile = `p'w "d$HOME\x y`
	secrets := map[string]string{"database": "db" + hostile + kit.Random(""), "repository": "repo" + hostile + kit.Random("")}
	repository := kit.NewRepository(t, secrets["repository"])
	namespace := kit.Namespace(t)
	kit.Postgres(t, namespace, "postgres", kit.Options{Password: secrets["database"]})
	kit.MariaDB(t, namespace, "mariadb", kit.Options{Password: secrets["database"]})
	seen := watchEverything(t, namespace, repository.Namespace)
	r := kit.Backsnap(t, "snapshot", "-n", namespace, "--backup-namespace", repository.Namespace, "-v=9")
	if r.Code != 0 {
		t.Fatalf("exit %d", r.Code)
	}
	audit, err := os.ReadFile(kit.Env(t, "BACKSNAP_CLUSTER_AUDIT_LOG"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(audit), "/exec?") {
		t.Error("the audit log has no exec: it is not the one of this cluster")
	}
	texts := seen()
	texts["audit log"] = string(audit)
	texts["output"] = r.Stdout + r.Stderr
	texts["objects"] = kit.Kubectl(t, "get", "pod,job,event,pvc,lease,volumesnapshot,statefulset", "-A", "-o", "yaml") + kit.Kubectl(t, "get", "pv,volumesnapshotcontent", "-o", "json")
	for place, text := range texts {
		for whose, secret := range secrets {
			if spelling := shows(text, secret); spelling != "" {
				t.Errorf("the %s password is in the %s, as %q", whose, place, spelling)
			}
		}
	}
	for _, place := range []string{"pods of " + repository.Namespace, "log of movers"} {
		if !strings.Contains(texts[place], "restic") {
			t.Errorf("%s: nothing was seen there:\n%s", place, texts[place])
		}
	}
}

// TestFilesInTheVolumeAreTheDatabases looks at owner, mode and number.
func TestDumpFilesAreDotFilesOfTheDatabase(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	db := kit.Postgres(t, namespace, "postgres", kit.Options{})
	kit.Snapshot(t, 0, "-n", namespace, "--repository", "none")
	run := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none")
	listing := kit.Exec(t, namespace, db.Pod(), `cd /var/lib/postgresql/data && stat -c '%a %U %n' .backsnap*`)
	want := regexp.MustCompile(`^600 postgres \.backsnap-` + run.Run + `-1\.dump\n600 postgres \.backsnap-` + run.Run + `-2\.dump\n(600 postgres \.backsnap-` + run.Run + `-3\.dump\n)?600 postgres \.backsnap-dump\.json\n$`)
	if !want.MatchString(listing) {
		t.Errorf("files are\n%s\nwant %s", listing, want)
	}
	sums := kit.Exec(t, namespace, db.Pod(), `cd /var/lib/postgresql/data && sha256sum .backsnap-*.dump`)
	for _, part := range run.Of(t, db.Claim()).Dump.Parts {
		if !strings.Contains(sums, part.SHA256+"  "+filepath.Base(part.Path)) {
			t.Errorf("%s: sum %s is not that of the file\n%s", part.Path, part.SHA256, sums)
		}
	}
}
