package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// restorePoints is what `list -o json` prints.
type restorePoints struct{ Items []restorePoint }

type restorePoint struct {
	Metadata struct{ Namespace, Name string }
	Claim    string `json:"pvc"`
	Ready    bool
	CopyOnly bool
	Cut      time.Time
	Copies   []catalog.Copy
	Record   *catalog.Record
}

func list(t *testing.T, args ...string) restorePoints {
	t.Helper()
	var found restorePoints
	if err := json.Unmarshal([]byte(kit.Must(t, append([]string{"list", "-o", "json"}, args...)...)), &found); err != nil {
		t.Fatal(err)
	}
	return found
}

// claims makes bound claims that no pod mounts, in a namespace of their own.
func claims(t *testing.T, names ...string) string {
	t.Helper()
	namespace := kit.Namespace(t)
	for _, name := range names {
		kit.Claim(t, namespace, name, "")
	}
	kit.Bound(t, namespace, names...)
	return namespace
}

// TestARepositoryAloneTellsWhatThereIs: a snapshot that is gone is listed by
// its copy, with all that its record says.
func TestARepositoryAloneTellsWhatThereIs(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := claims(t, "gone", "there")
	from := []string{"--backup-namespace", repository.Namespace, "--from-repository", repository.Name}
	if found := list(t, append(from, "-A")...); slices.ContainsFunc(found.Items, func(p restorePoint) bool { return p.CopyOnly }) {
		t.Errorf("an empty repository lists %+v", found)
	}
	run := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	gone, there := run.Of(t, "gone"), run.Of(t, "there")
	before := list(t, "-n", namespace)
	kit.Kubectl(t, "delete", "volumesnapshot", gone.Snapshot, "-n", namespace)

	found := list(t, append(from, "-n", namespace)...)
	if len(found.Items) != 2 {
		t.Fatalf("%d restore points, want 2: %+v", len(found.Items), found)
	}
	for i, item := range []kit.Item{gone, there} {
		got, was := found.Items[i], before.Items[i]
		if got.Claim != item.Claim || got.Metadata.Name != item.Snapshot || got.CopyOnly != (item.Claim == "gone") || got.Ready == got.CopyOnly {
			t.Errorf("restore point %+v, want that of %s", got, item.Claim)
		}
		if len(got.Copies) != 1 || got.Copies[0].Repository != "main" || got.Copies[0].Snapshot != item.Copies[0].Snapshot {
			t.Errorf("copies of %s: %+v, want %s", item.Claim, got.Copies, item.Copies[0].Snapshot)
		}
		if got.Record == nil || got.Record.Claim.UID != was.Record.Claim.UID || got.Record.Reason != was.Record.Reason || !got.Cut.Equal(was.Cut.Truncate(time.Second)) && !got.Cut.Equal(was.Cut) {
			t.Errorf("record of %s:\n got %+v\nwant %+v", item.Claim, got.Record, was.Record)
		}
	}
	names := strings.Fields(kit.Must(t, append([]string{"list", "-n", namespace, "-o", "name"}, from...)...))
	if want := []string{"copy/main/" + gone.Copies[0].Snapshot[:8], "volumesnapshot.snapshot.storage.k8s.io/" + there.Snapshot}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	if plain := list(t, "-n", namespace); len(plain.Items) != 1 || plain.Items[0].Claim != "there" {
		t.Errorf("the cluster alone: %+v", plain)
	}
	if other := list(t, append(from, "-A", "--from-cluster", "another")...); len(other.Items) != 0 {
		t.Errorf("another cluster: %+v", other)
	}
	if left := kit.Names(t, repository.Namespace, "job,pod"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
}

// TestLocksOfTheDeadGo: those of movers that are gone, and no others.
func TestLocksOfTheDeadGo(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	at := []string{repository.Name, "--backup-namespace", repository.Namespace}
	mark := restic.Mark(catalog.Repository{Cluster: "e2e", Namespace: repository.Namespace})
	dead := "data" + mark + "01234567-20261122-011500-x7k2-b7xkz"

	repository.Stale(t, dead)
	check := kit.Backsnap(t, append([]string{"repo", "check", "--progress", "plain"}, at...)...)
	if check.Code != 0 || check.Stdout != "repository/main has no errors\n" || !strings.Contains(check.Stderr, "removed the lock of host "+dead) {
		t.Errorf("check: exit %d, %s%s", check.Code, check.Stdout, check.Stderr)
	}
	repository.Stale(t, dead)
	if said := kit.Must(t, append([]string{"repo", "unlock"}, at...)...); !strings.HasPrefix(said, "repository/main unlocked: host "+dead) || !strings.HasSuffix(said, "(pod gone)\n") {
		t.Errorf("unlock: %s", said)
	}
	if locks := repository.Restic(t, "list", "locks"); locks != "" {
		t.Errorf("locks left: %s", locks)
	}
}

// TestLocksOfOthersAreRespected: they are named, and go only when somebody
// says so.
func TestLocksOfOthersAreRespected(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	at := []string{repository.Name, "--backup-namespace", repository.Namespace}
	repository.Stale(t, "laptop")
	check := kit.Backsnap(t, append([]string{"repo", "check", "--retry-lock", "0s"}, at...)...)
	if check.Code != 11 || !strings.Contains(check.Stderr, "[BS052]") || !strings.Contains(check.Stderr, "locked by host laptop since ") || !strings.Contains(check.Stderr, "(no mover of this cluster)") {
		t.Errorf("check: exit %d, %s", check.Code, check.Stderr)
	}
	if said := kit.Must(t, append([]string{"repo", "unlock"}, at...)...); !strings.HasPrefix(said, "repository/main stays locked: host laptop since ") {
		t.Errorf("unlock: %s", said)
	}
	if r := kit.Backsnap(t, append([]string{"repo", "unlock", "--remove-all"}, at...)...); r.Code != 5 || !strings.Contains(r.Stderr, "[BS071]") {
		t.Errorf("unlock --remove-all: exit %d, %s", r.Code, r.Stderr)
	}
	if locks := strings.Fields(repository.Restic(t, "list", "locks")); len(locks) != 1 {
		t.Errorf("%d locks, want the one of another", len(locks))
	}
	if said := kit.Must(t, append([]string{"repo", "unlock", "--remove-all", "--yes"}, at...)...); !strings.HasPrefix(said, "repository/main unlocked: host laptop since ") {
		t.Errorf("unlock --remove-all --yes: %s", said)
	}
	if locks := repository.Restic(t, "list", "locks"); locks != "" {
		t.Errorf("locks left: %s", locks)
	}
}

// TestRepositoryIsMadeOnce by `repo create`, from a file; what stands there is
// never overwritten, and no value is ever shown.
func TestRepositoryIsMadeOnce(t *testing.T) {
	t.Parallel()
	const password = "hunter2 'quoted'"
	repository := kit.Repository{Name: "main", Namespace: kit.Random("e2e"), Bucket: kit.Random("bucket"), Password: password}
	kit.Own(t, repository.Namespace)
	file := filepath.Join(t.TempDir(), "main.env")
	write := func(password string) {
		text := fmt.Sprintf("# made by a test\nRESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=\"%s\"\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n",
			repository.Bucket, password, kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(password)
	create := []string{"repo", "create", repository.Name, "--backup-namespace", repository.Namespace, "--env-file", file, "--cluster-name", "e2e"}
	var shown []string
	run := func(code int, args ...string) kit.Result {
		r := kit.Backsnap(t, append(slices.Clone(create), args...)...)
		shown = append(shown, r.Stdout, r.Stderr)
		if r.Code != code {
			t.Errorf("%v: exit %d, want %d", args, r.Code, code)
		}
		return r
	}
	if r := run(0, "--dry-run=server"); r.Stdout != fmt.Sprintf("namespace/%s created (server dry run)\nsecret/main created (server dry run)\n", repository.Namespace) {
		t.Errorf("dry run: %s", r.Stdout)
	}
	if r := run(0, "--init"); !strings.HasPrefix(r.Stdout, fmt.Sprintf("namespace/%s created\nsecret/main created\nrepository/main initialised at s3:", repository.Namespace)) {
		t.Errorf("create: %s", r.Stdout)
	}
	if r := run(0); r.Stdout != "secret/main unchanged\n" {
		t.Errorf("again: %s", r.Stdout)
	}
	write("another password")
	if r := run(4); !strings.Contains(r.Stderr, "[BS058]") {
		t.Errorf("with another password: %s", r.Stderr)
	}
	for _, said := range shown {
		for _, secret := range []string{password, "another password", kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY")} {
			if spelling := shows(said, secret); spelling != "" {
				t.Errorf("a secret is shown: %s", said)
			}
		}
	}
	labels := kit.Kubectl(t, "get", "namespace", repository.Namespace, "-o", `jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}`)
	if labels != "backsnap" {
		t.Errorf("the namespace is managed by %q", labels)
	}
	at := []string{repository.Name, "--backup-namespace", repository.Namespace}
	stats := kit.Must(t, append([]string{"repo", "stats", "-o", "jsonpath={.snapshots}"}, at...)...)
	if stats != "0" {
		t.Errorf("stats: %s snapshots, want 0", stats)
	}
	wrong := repository
	wrong.Password = "not the password"
	wrong.Secret(t)
	if r := kit.Backsnap(t, append([]string{"repo", "stats"}, at...)...); r.Code != 12 || !strings.Contains(r.Stderr, "set RESTIC_PASSWORD in Secret "+repository.Namespace+"/main") {
		t.Errorf("wrong password: exit %d, %s", r.Code, r.Stderr)
	}
}

// TestRepositoryOnAClaim: one for each namespace, on a volume of the cluster.
func TestRepositoryOnAClaim(t *testing.T) {
	t.Parallel()
	store, namespace := kit.Namespace(t), claims(t, "data")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: store, namespace: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
`, store), "apply", "-f", "-")
	kit.Bound(t, store, "store")
	file := filepath.Join(t.TempDir(), "main.env")
	if err := os.WriteFile(file, []byte("RESTIC_REPOSITORY=/repository-claim/{namespace}\nRESTIC_PASSWORD=hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Must(t, "repo", "create", "main", "--backup-namespace", store, "--env-file", file, "--claim", "store", "--init", "--cluster-name", "e2e", "--for-namespace", namespace)
	item := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", store).Of(t, "data")
	found := list(t, "-n", namespace, "--backup-namespace", store, "--from-repository", "main")
	if len(found.Items) != 1 || len(found.Items[0].Copies) != 1 || len(item.Copies) != 1 || found.Items[0].Copies[0].Snapshot != item.Copies[0].Snapshot {
		t.Errorf("found %+v, want the copy of %+v", found, item)
	}
	kit.Must(t, "repo", "check", "main", "--backup-namespace", store, "--for-namespace", namespace, "--read-data-subset", "100%")
	if r := kit.Backsnap(t, "repo", "stats", "main", "--backup-namespace", store, "--for-namespace", "another"); r.Code != 10 || !strings.Contains(r.Stderr, "[BS051]") {
		t.Errorf("another namespace's repository: exit %d, %s", r.Code, r.Stderr)
	}
}

// TestKeysFromAnIdentity: the Secret holds none; the movers' ServiceAccount
// gets them from whoever knows it, as in EKS Pod Identity.
func TestKeysFromAnIdentity(t *testing.T) {
	t.Parallel()
	store, namespace := kit.Namespace(t), claims(t, "data")
	kit.Kubectl(t, "create", "serviceaccount", "mover", "-n", store)
	server(t, store, "identity", 8080)
	// It hands the keys out to nobody but the ServiceAccount: the token is a
	// JSON Web Token whose subject it looks for.
	script := fmt.Sprintf(`#!/bin/sh
payload=${HTTP_AUTHORIZATION#*.} payload=${payload%%.*}
case $(printf '%%s==' "$payload" | tr _- /+ | base64 -d 2>/dev/null) in
*'"sub":"system:serviceaccount:%s:mover"'*) printf 'Content-Type: application/json\r\n\r\n{"AccessKeyId":"%s","SecretAccessKey":"%s","Expiration":"2100-01-01T00:00:00Z"}' ;;
*) printf 'Status: 403 Forbidden\r\n\r\n' ;;
esac
`, store, kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))
	dir := t.TempDir()
	for name, text := range map[string]string{
		"keys": script,
		"main.env": fmt.Sprintf("RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=hunter2\n"+
			"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://identity.%s.svc:8080/cgi-bin/keys\nAWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/identity/token\n", kit.Random("bucket"), store),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	upload(t, store, "identity", filepath.Join(dir, "keys"), "/tmp/www/cgi-bin/keys")
	kit.Exec(t, store, "identity", "chmod +x /tmp/www/cgi-bin/keys; httpd -p 8080 -h /tmp/www")
	create := []string{"repo", "create", "main", "--backup-namespace", store, "--env-file", filepath.Join(dir, "main.env"), "--cluster-name", "e2e", "--init"}
	kit.Must(t, append(create, "--mover-service-account", "mover")...)
	item := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", store).Of(t, "data")
	if len(item.Copies) != 1 || item.Copies[0].State != "Ok" {
		t.Errorf("item %+v", item)
	}
	if r := kit.Backsnap(t, create...); r.Code != 4 || !strings.Contains(r.Stderr, "[BS058]") {
		t.Errorf("without the ServiceAccount: exit %d, %s", r.Code, r.Stderr)
	}
}

// server is a pod with a Service of its name, in which a test starts one.
func server(t *testing.T, namespace, name string, port int) {
	t.Helper()
	kit.Pod(t, namespace, name)
	kit.Kubectl(t, "label", "pod", name, "-n", namespace, "server="+name)
	kit.Kubectl(t, "expose", "pod", name, "-n", namespace, "--port", fmt.Sprint(port), "--selector", "server="+name)
}

// upload puts a file into a pod.
func upload(t *testing.T, namespace, pod, file, to string) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kit.Apply(t, string(content), "exec", "-i", "-n", namespace, pod, "--", "sh", "-c", "mkdir -p "+filepath.Dir(to)+" && cat >"+to)
}
