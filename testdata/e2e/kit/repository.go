package kit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Repository is a restic repository on the cluster's S3 server.
type Repository struct {
	Name, Namespace, Bucket, Password string
}

// NewRepository makes backup namespace, Secret and repository, through the
// plugin's own `repo init`.
func NewRepository(t testing.TB, password string) Repository {
	t.Helper()
	return NewRepositoryIn(t, Namespace(t), password)
}

// NewRepositoryIn is NewRepository with its Secret in namespace.
func NewRepositoryIn(t testing.TB, namespace, password string) Repository {
	t.Helper()
	return AddRepository(t, namespace, "main", password)
}

// AddRepository is NewRepositoryIn under another name than main.
func AddRepository(t testing.TB, namespace, name, password string) Repository {
	t.Helper()
	r := Repository{Name: name, Namespace: namespace, Bucket: Random("bucket"), Password: password}
	r.Secret(t)
	Must(t, "repo", "init", r.Name, "--backup-namespace", r.Namespace, "--cluster-name", "e2e")
	return r
}

// In is the same repository with a Secret in another namespace too.
func (r Repository) In(t testing.TB, namespace string) Repository {
	t.Helper()
	r.Namespace = namespace
	r.Secret(t)
	Kubectl(t, "annotate", "secret", r.Name, "-n", namespace, "backsnap.sh/cluster=e2e")
	return r
}

// Secret makes the repository's Secret.
func (r Repository) Secret(t testing.TB) {
	t.Helper()
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: %[1]s, namespace: %[2]s, labels: {backsnap.sh/repository: %[1]s}}
stringData:
  RESTIC_REPOSITORY: s3:http://s3.backup-storage.svc:9000/%[3]s
  RESTIC_PASSWORD: %[4]s
  AWS_ACCESS_KEY_ID: %[5]s
  AWS_SECRET_ACCESS_KEY: %[6]s
`, r.Name, r.Namespace, r.Bucket, YAML(r.Password), YAML(Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY")), YAML(Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))), "apply", "-f", "-")
}

// Environment is what restic needs to use the repository from outside of the
// cluster.
func (r Repository) Environment(t testing.TB) []string {
	t.Helper()
	return []string{
		"RESTIC_REPOSITORY=s3:" + Env(t, "BACKSNAP_CLUSTER_S3_URL") + "/" + r.Bucket,
		"RESTIC_PASSWORD=" + r.Password,
		"AWS_ACCESS_KEY_ID=" + Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"),
		"AWS_SECRET_ACCESS_KEY=" + Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"),
		"RESTIC_CACHE_DIR=" + t.TempDir(),
	}
}

// Restic runs restic by hand, from outside of the cluster, against the same
// repository.
func (r Repository) Restic(t testing.TB, args ...string) string {
	t.Helper()
	result := Command(t, r.Environment(t), "", Env(t, "BACKSNAP_CLUSTER_RESTIC"), args...)
	if result.Code != 0 {
		t.Fatalf("restic %v: exit %d\n%s%s", args, result.Code, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// Dump writes what restic has of path in a snapshot to w and returns how many
// bytes that were.
func (r Repository) Dump(t testing.TB, w io.Writer, snapshot, path string) int64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Env(t, "BACKSNAP_CLUSTER_RESTIC"), "dump", snapshot, path)
	cmd.Env = append(os.Environ(), r.Environment(t)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n, copyErr := io.Copy(w, out)
	if err := errors.Join(copyErr, cmd.Wait()); err != nil {
		t.Fatalf("restic dump %s %s: %v\n%s", snapshot, path, err, &errs)
	}
	return n
}

// ResticSnapshot is one snapshot as restic tells of it.
type ResticSnapshot struct {
	ID       string    `json:"id"`
	Parent   string    `json:"parent"`
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Paths    []string  `json:"paths"`
	Tags     []string  `json:"tags"`
}

// Snapshots are all that restic lists.
func (r Repository) Snapshots(t testing.TB) []ResticSnapshot {
	t.Helper()
	var list []ResticSnapshot
	if err := json.Unmarshal([]byte(r.Restic(t, "snapshots", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// Lock leaves the exclusive lock of a restic that was killed on the repository.
// Nobody else can know that it is dead.
func (r Repository) Lock(t testing.TB) {
	t.Helper()
	cmd := exec.Command(Env(t, "BACKSNAP_CLUSTER_RESTIC"), "check", "--read-data", "--limit-download", "1")
	cmd.Env = append(os.Environ(), r.Environment(t)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	Until(t, "the lock", func() string {
		if strings.TrimSpace(r.Restic(t, "list", "locks", "--no-lock")) == "" {
			return "none"
		}
		return ""
	})
}

// Stale leaves a lock of a process that is killed, on a host of that name.
func (r Repository) Stale(t testing.TB, host string) {
	t.Helper()
	cmd := exec.Command("unshare", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c",
		`hostname "$1" && shift && "$@" & wait`, "sh", host,
		Env(t, "BACKSNAP_CLUSTER_RESTIC"), "backup", "--stdin-from-command", "--", "sleep", "1000")
	cmd.Env = append(os.Environ(), r.Environment(t)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Until(t, "lock of "+host, func() string {
		if locks := strings.Fields(r.Restic(t, "list", "locks")); len(locks) == 1 {
			return ""
		}
		return "not there yet"
	})
	cmd.Process.Kill()
	cmd.Wait()
}

// Unlock removes every lock.
func (r Repository) Unlock(t testing.TB) {
	t.Helper()
	r.Restic(t, "unlock", "--remove-all")
}
