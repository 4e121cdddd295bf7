package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestRepositoriesUnderPodSecurityRestricted: where movers may not be root, the
// error has the command that works, and so does all other work on a repository.
func TestRepositoriesUnderPodSecurityRestricted(t *testing.T) {
	t.Parallel()
	store := kit.Namespace(t)
	kit.Kubectl(t, "label", "namespace", store, "pod-security.kubernetes.io/enforce=restricted")
	file := filepath.Join(t.TempDir(), "main.env")
	text := fmt.Sprintf("RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=hunter2\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n",
		kit.Random("bucket"), kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	at := []string{"main", "--backup-namespace", store}
	r := kit.Backsnap(t, append([]string{"repo", "create", "--env-file", file, "--init"}, at...)...)
	_, rest, _ := strings.Cut(r.Stderr, "next:  kubectl backsnap ")
	next, _, _ := strings.Cut(rest, ";")
	if r.Code != 4 || !strings.Contains(r.Stderr, "[BS032]") || !strings.HasPrefix(next, "repo init main --backup-namespace="+store+" --run-as-user=") {
		t.Fatalf("as root: exit %d\n%s", r.Code, r.Stderr)
	}
	if said := kit.Must(t, strings.Fields(next)...); !strings.HasPrefix(said, "repository/main initialised") {
		t.Errorf("%s: %s", next, said)
	}
	shape := []string{"--run-as-user", "65534", "--mover-requests", "cpu=10m,memory=32Mi", "--mover-limits", "memory=512Mi"}
	for _, verb := range []string{"check", "stats", "unlock"} {
		kit.Must(t, append(append([]string{"repo", verb}, at...), shape...)...)
	}
	kit.Must(t, append([]string{"list", "-n", store, "--backup-namespace", store, "--from-repository", "main"}, shape...)...)
	if left := kit.Names(t, store, "job,pod"); left != "" {
		t.Errorf("left: %s", left)
	}
}
