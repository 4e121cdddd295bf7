package e2e_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// granted are the rights of the Roles that `schedule create` prints.
func granted(t *testing.T, args ...string) (rights catalog.Rights) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Namespace string }
			Rules    []struct{ APIGroups, Resources, ResourceNames, Verbs []string }
		}
	}
	text := kit.Must(t, append([]string{"schedule", "create", "--dry-run=client", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		for _, rule := range item.Rules {
			rights.Add(rule.APIGroups[0], rule.Resources[0], item.Metadata.Namespace, rule.Verbs...)
		}
	}
	return rights
}

// TestRolesOfSchedulesAreMinimal: under the rights of the Role that is made for it
// a run is green; each of them that is taken away is missed: the run fails with its
// name, or says what it does without.
func TestRolesOfSchedulesAreMinimal(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	snapshot := []string{"-n", namespace, "--if-due", "--schedule", "@daily", "--consistency", "crash", "--repository", "none"}
	rights := granted(t, append([]string{"nightly", "--cron", "@hourly"}, snapshot...)...)
	// What a run does without, and what is to be seen then.
	without := map[string]string{
		"get namespaces in " + namespace:                       "namespaces not read",
		"list persistentvolumes":                               "persistentvolumes not read",
		"list volumesnapshotclasses.snapshot.storage.k8s.io":   "volumesnapshotclasses not read",
		"get volumesnapshotcontents.snapshot.storage.k8s.io":   "",
		"patch volumesnapshotcontents.snapshot.storage.k8s.io": "",
	}
	users := usersWithoutOne(t, rights)
	for i, right := range rights {
		said, spared := without[right.String()]
		if spared {
			continue
		}
		r := kit.Backsnap(t, append([]string{"snapshot", "--as", users[i]}, snapshot...)...)
		if r.Code != 4 || !strings.Contains(r.Stderr, "[BS031]") || !strings.Contains(r.Stderr, right.String()) {
			t.Errorf("without %s: exit %d, want 4 and BS031 that names it%s", right, r.Code, said)
		}
	}
	if made := kit.Names(t, namespace, "volumesnapshot,lease"); made != "" {
		t.Errorf("made %s", made)
	}
	for i, right := range rights {
		if said, spared := without[right.String()]; spared && said != "" {
			r := kit.Backsnap(t, append([]string{"snapshot", "--as", users[i], "--dry-run=client"}, snapshot...)...)
			if r.Code != 0 || !strings.Contains(r.Stdout, said) {
				t.Errorf("without %s: exit %d, want 0 and %q", right, r.Code, said)
			}
		}
	}
	run := kit.Snapshot(t, 0, append([]string{"--as", users[len(rights)]}, snapshot...)...)
	if item := run.Of(t, "data"); item.State != "Protected" {
		t.Errorf("state %s", item.State)
	}
	if run := kit.Snapshot(t, 0, append([]string{"--as", users[len(rights)]}, snapshot...)...); len(run.Items) != 0 {
		t.Errorf("a second run took %+v", run.Items)
	}
}

// TestScheduleRunsInItsPod: what `schedule create` makes runs, each CronJob in a
// pod under Pod Security `restricted` with its own ServiceAccount: a restore point
// of every claim that is chosen in all namespaces, and a copy of it; then prune,
// and an examination of the repository. delete leaves the restore points alone.
func TestScheduleRunsInItsPod(t *testing.T) {
	t.Parallel()
	image := ownImage(t)
	repository := kit.NewRepository(t, "repository password")
	home, app, tier := kit.Namespace(t), kit.Namespace(t), kit.Random("tier")
	refusals := refusedTo(t, "system:serviceaccount:"+home+":", "system:serviceaccount:"+app+":")
	kit.Kubectl(t, "label", "namespace", home, app, "pod-security.kubernetes.io/enforce=restricted")
	kit.Claim(t, app, "data", "")
	kit.Claim(t, app, "left", "")
	kit.Bound(t, app, "data", "left")
	kit.Kubectl(t, "label", "pvc", "data", "-n", app, "tier="+tier)
	at := []string{"-n", home, "--backup-namespace", repository.Namespace}
	kit.Must(t, append([]string{
		"schedule", "create", "nightly", "-A", "--cron", "0 0 29 2 *", "--if-due", "--schedule", "@daily", "--selector", "tier=" + tier, "--image", image,
		"--repository", "main", "--check", "main", "--network-policy",
	}, at...)...)
	labels := catalog.LabelSchedule + "=nightly," + catalog.LabelNamespace + "=" + home
	kit.Afterwards(t, "delete", "clusterrole,clusterrolebinding", "-l", labels)
	said := kit.Must(t, "schedule", "run", "nightly", "-n", home)
	if n := strings.Count(said, "created (crash-consistent, off-site"); n != 1 || !strings.Contains(said, "protected=1 failed=0") {
		t.Errorf("%d restore points with a copy, want 1", n)
	}
	if copies := repository.Snapshots(t); len(copies) != 1 {
		t.Errorf("%d copies, want 1", len(copies))
	}
	if said := kit.Must(t, "schedule", "run", "nightly", "-n", home); strings.Contains(said, "created") {
		t.Error("taken a second time")
	}
	kit.Must(t, "schedule", "run", "nightly-check", "-n", home)
	owner := kit.Kubectl(t, "get", "jobs", "-n", home, "-o", `jsonpath={range .items[*]}{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name} {end}`)
	if strings.Count(owner, "CronJob/nightly ") != 2 {
		t.Errorf("Jobs of %q", owner)
	}
	pruneInPod(t, app, repository, image)
	// Who may not list Secrets is refused once, and then reads the one by its name.
	lists := func(refused string) bool {
		return strings.HasPrefix(refused, "list /api/v1/namespaces/"+repository.Namespace+"/secrets?")
	}
	if refused := slices.DeleteFunc(refusals(), lists); len(refused) > 0 {
		t.Errorf("refused:\n%s", strings.Join(refused, "\n"))
	}
	said = kit.Must(t, "schedule", "delete", "nightly", "-n", home)
	if left := kit.Kubectl(t, "get", "cronjob,networkpolicy,role,rolebinding,clusterrole,clusterrolebinding,serviceaccount", "-A", "-l", labels, "-o", "name"); left != "" {
		t.Errorf("left %s", left)
	}
	if strings.Contains(said, "volumesnapshot") || kit.Names(t, app, "volumesnapshot") == "" {
		t.Error("the restore point is gone")
	}
}

// pruneInPod takes a second restore point of namespace and has the first one go,
// both by the CronJobs of a schedule there.
func pruneInPod(t *testing.T, namespace string, repository kit.Repository, image string) {
	t.Helper()
	first := kit.Names(t, namespace, "volumesnapshot")
	kit.Must(t, "schedule", "create", "own", "data", "-n", namespace, "--backup-namespace", repository.Namespace, "--cron", "0 0 29 2 *", "--image", image,
		"--repository", "main", "--keep", "daily=1", "--retain", "calendar", "--suspended")
	kit.Afterwards(t, "delete", "clusterrole,clusterrolebinding", "-l", catalog.LabelSchedule+"=own,"+catalog.LabelNamespace+"="+namespace)
	kit.Must(t, "schedule", "run", "own", "-n", namespace)
	kit.Kubectl(t, "label", first, "-n", namespace, "--overwrite", "backsnap.sh/delete-after=2026-01-01")
	if said := kit.Must(t, "schedule", "run", "own-prune", "-n", namespace); !strings.Contains(said, first+" deleted") {
		t.Errorf("%s is not swept", first)
	}
	kit.Must(t, "schedule", "delete", "own", "-n", namespace)
}

// refusedTo returns what was refused to users with such a name from now on.
func refusedTo(t *testing.T, prefixes ...string) func() []string {
	t.Helper()
	log, err := os.Open(kit.Env(t, "BACKSNAP_CLUSTER_AUDIT_LOG"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	return func() (refused []string) {
		for lines := bufio.NewScanner(log); lines.Scan(); {
			var event struct {
				Verb, RequestURI string
				User             struct{ Username string }
				ResponseStatus   struct{ Code int }
			}
			if json.Unmarshal(lines.Bytes(), &event) != nil || event.ResponseStatus.Code != http.StatusForbidden {
				continue // also the rest of a line that was being written
			}
			for _, prefix := range prefixes {
				if strings.HasPrefix(event.User.Username, prefix) {
					refused = append(refused, event.Verb+" "+event.RequestURI)
				}
			}
		}
		return refused
	}
}

// ownImage is an image with the binary that is tested, on every node: its name is
// what is in it.
func ownImage(t *testing.T) string {
	t.Helper()
	if os.Getenv("BACKSNAP_CLUSTER_STATE") == "" {
		t.Skip("no node of this cluster takes an image from here")
	}
	file, err := exec.LookPath("kubectl-backsnap")
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	layer := archive(t, map[string][]byte{"kubectl-backsnap": binary})
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/kubectl-backsnap"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	name := "backsnap.test/kubectl-backsnap:" + digest(config)[:16]
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(image, archive(t, map[string][]byte{"manifest.json": manifest, "config.json": config, "layer.tar": layer}), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := kit.Command(t, nil, "", "go", "run", "../cluster", "load", "--state", os.Getenv("BACKSNAP_CLUSTER_STATE"), image); r.Code != 0 {
		t.Fatalf("load image: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	return name
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// archive is a tar file, the same for the same files.
func archive(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
