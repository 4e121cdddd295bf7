package faults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// ownCluster is a cluster that a test may lose.
type ownCluster struct{ state string }

// newCluster starts one and has all that follows in this test work on it. It
// goes with the test.
func newCluster(t *testing.T) ownCluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "lost")
	if err != nil {
		t.Fatal(err)
	}
	c := ownCluster{state: filepath.Join(dir, "cluster")}
	t.Cleanup(func() {
		if _, err := c.wipe(t); err != nil {
			t.Errorf("wipe: %v", err)
			return // it may still be mounted
		}
		os.RemoveAll(dir)
	})
	c.up(t)
	return c
}

// command runs one of the cluster's own, also after the test's context is gone.
func (c ownCluster) command(verb string) (string, error) {
	cmd := exec.Command("go", "run", "./testdata/cluster", verb, "--state", c.state)
	cmd.Dir = "../../.."
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return string(out), err
}

func (c ownCluster) run(t *testing.T, verb string) string {
	t.Helper()
	out, err := c.command(verb)
	if err != nil {
		t.Fatalf("cluster %s: %v\n%s", verb, err, out)
	}
	return out
}

// wipe loses the cluster but for what lies on S3. Databases are at work on it:
// what one try could not end or unmount in time, the second finds ended.
func (c ownCluster) wipe(t *testing.T) (out string, err error) {
	t.Helper()
	for range 2 {
		if out, err = c.command("wipe"); err == nil {
			break
		}
		t.Logf("cluster wipe: %v\n%s", err, out)
	}
	return out, err
}

// exported is a line of `env`, but for PATH: one kubectl is as good as another.
var exported = regexp.MustCompile(`^export ([A-Z0-9_]+)='([^']*)'$`)

// up starts it, empty or as it was, and enters it.
func (c ownCluster) up(t *testing.T) {
	t.Helper()
	c.run(t, "up")
	for line := range strings.Lines(c.run(t, "env")) {
		if found := exported.FindStringSubmatch(strings.TrimSpace(line)); found != nil {
			t.Setenv(found[1], found[2])
		}
	}
}

// TestALostClusterComesBackFromS3: two databases are copied, the cluster is
// wiped, and in a new and empty one, which has another name and is told of the
// repository, S3 alone brings them back.
func TestALostClusterComesBackFromS3(t *testing.T) {
	kit.All(t)
	cluster := newCluster(t)
	file := filepath.Join(t.TempDir(), "main.env")
	text := fmt.Sprintf("RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=hunter2\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n",
		kit.Random("bucket"), kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Must(t, "repo", "create", "main", "--env-file", file, "--init")
	old := kit.Kubectl(t, "get", "secret", "main", "-n", "backsnap", "-o", `jsonpath={.metadata.annotations.backsnap\.sh/cluster}`)
	kit.Kubectl(t, "create", "namespace", "shop")
	start := map[string]func() kit.Database{
		"select count(*), md5(string_agg(q::text, ',' order by id)) from quiet q": func() kit.Database {
			return kit.Postgres(t, "shop", "postgres", kit.Options{})
		},
		"set session group_concat_max_len = 100000000; select count(*), md5(group_concat(id, what order by id)) from quiet": func() kit.Database {
			return kit.MariaDB(t, "shop", "mariadb", kit.Options{})
		},
	}
	want := map[string]string{}
	for checksum, begin := range start {
		db := begin()
		if db.Name == "postgres" {
			db.SQL(t, "create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i")
		} else {
			db.SQL(t, "create table quiet (id int primary key, what char(32)) as select seq as id, md5(seq) as what from seq_1_to_20000")
		}
		want[checksum] = db.SQL(t, checksum)
	}
	run := kit.Snapshot(t, 0, "-n", "shop")

	if _, err := cluster.wipe(t); err != nil {
		t.Fatal(err)
	}
	cluster.up(t)
	if there := kit.Kubectl(t, "get", "namespace", "shop", "backsnap", "--ignore-not-found", "-o", "name"); there != "" {
		t.Fatalf("the new cluster has %s", there)
	}
	kit.Must(t, "repo", "create", "main", "--env-file", file, "--init")
	nothing := kit.Backsnap(t, "list", "-A", "--from-repository", "main")
	if nothing.Code != 0 || nothing.Stdout != "" || !strings.Contains(nothing.Stderr, "Other clusters have copies there: "+old+"; ") {
		t.Errorf("list: exit %d\n%s%s", nothing.Code, nothing.Stdout, nothing.Stderr)
	}
	listed := strings.Fields(kit.Must(t, "list", "-A", "--from-repository", "main", "--from-cluster", old, "-o", "jsonpath={.items[*].metadata.name}"))
	if names := []string{run.Of(t, "data-mariadb-0").Snapshot, run.Of(t, "data-postgres-0").Snapshot}; !slices.Equal(listed, names) {
		t.Errorf("listed %v, want %v", listed, names)
	}
	r := kit.Backsnap(t, "restore", "namespace/shop", "--from", "copy:main", "--from-cluster", old, "-o", "json")
	var back struct {
		Made  string `json:"namespaceCreated"`
		Items []struct {
			Claim, State, Left string
			Bound              bool
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &back); err != nil || r.Code != 0 || back.Made != "shop" || len(back.Items) != 2 {
		t.Fatalf("restore: exit %d, error %v, %+v", r.Code, err, back)
	}
	for checksum, begin := range start {
		if db := begin(); db.SQL(t, checksum) != want[checksum] {
			t.Errorf("%s is not as it was: %q, want %q", db.Name, db.SQL(t, checksum), want[checksum])
		}
	}
	if left := strings.TrimSpace(kit.Kubectl(t, "get", "job,pod,pvc,volumesnapshot", "-n", "backsnap", "-o", "name")); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
}
