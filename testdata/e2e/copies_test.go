// Package e2e_test holds what kubectl backsnap promises against a real
// cluster, with real databases, restic and S3. These tests run on any cluster
// that has the images; those that turn the knobs of the test storage are in
// faults.
package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestCopiesLoadIntoAnEmptyServer is the whole point: what lies in the
// repository, fetched by restic alone, is the database.
func TestCopiesLoadIntoAnEmptyServer(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	postgres := kit.Postgres(t, namespace, "postgres", kit.Options{})
	mariadb := kit.MariaDB(t, namespace, "mariadb", kit.Options{})
	postgres.SQL(t, `create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i`)
	mariadb.SQL(t, `create table quiet as select seq as id, md5(seq) as what from seq_1_to_20000`)

	writers := []*kit.Writer{kit.Write(t, postgres), kit.Write(t, mariadb)}
	before := []int{writers[0].Acknowledged(), writers[1].Acknowledged()}
	run := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	for _, w := range writers {
		w.Stop()
	}

	checkRepository(t, repository, namespace, run)
	for i, db := range []kit.Database{postgres, mariadb} {
		checkDump(t, repository, db, run.Of(t, db.Claim()), before[i])
	}
	for _, kind := range []string{"job,pod,pvc", "volumesnapshot"} {
		if left := kit.Names(t, repository.Namespace, kind); left != "" {
			t.Errorf("left in the backup namespace: %s", left)
		}
	}
}

// checkRepository looks at the repository with restic alone.
func checkRepository(t *testing.T, repository kit.Repository, namespace string, run kit.Run) {
	t.Helper()
	repository.Restic(t, "check", "--read-data")
	found := map[string]kit.ResticSnapshot{}
	for _, s := range repository.Snapshots(t) {
		found[s.Hostname] = s
	}
	if len(found) != 2 {
		t.Fatalf("restic lists %d hosts, want 2: %v", len(found), found)
	}
	for _, item := range run.Items {
		s, ok := found["e2e/"+namespace+"/"+item.Claim]
		if !ok {
			t.Fatalf("restic has no snapshot of host e2e/%s/%s: %v", namespace, item.Claim, found)
		}
		if len(item.Copies) != 1 || item.Copies[0].Snapshot != s.ID {
			t.Errorf("copies of %s are %v, restic says %s", item.Claim, item.Copies, s.ID)
		}
		if !slices.Equal(s.Paths, []string{"/data"}) {
			t.Errorf("paths of %s are %v, want /data", item.Claim, s.Paths)
		}
		for _, tag := range []string{"backsnap", "ns=" + namespace, "pvc=" + item.Claim, "snapshot=" + item.Snapshot, "run=" + run.Run, "app=" + item.App, "set=1", "consistency=application"} {
			if !slices.Contains(s.Tags, tag) {
				t.Errorf("tag %s of %s is missing: %v", tag, item.Claim, s.Tags)
			}
		}
		cut := kit.Kubectl(t, "get", "volumesnapshot", item.Snapshot, "-n", namespace, "-o", "jsonpath={.status.creationTime}")
		if got := s.Time.UTC().Format(time.RFC3339); got != cut {
			t.Errorf("restic's time of %s is %s, the cut was at %s", item.Claim, got, cut)
		}
	}
}

// checkDump loads the dump of item into an empty server and compares.
func checkDump(t *testing.T, repository kit.Repository, db kit.Database, item kit.Item, before int) {
	t.Helper()
	if item.Dump == nil || !item.Dump.Verified {
		t.Fatalf("%s has no verified dump: %+v", item.Claim, item)
	}
	scratch := kit.Namespace(t)
	var empty kit.Database
	checksum, load := "", ""
	switch db.Name {
	case "postgres":
		empty = kit.Postgres(t, scratch, "empty", kit.Options{})
		checksum, load = `select count(*), md5(string_agg(q::text, ',' order by id)) from quiet q`, `exec pg_restore --exit-on-error -U postgres -d shop`
	default:
		empty = kit.MariaDB(t, scratch, "empty", kit.Options{})
		checksum = `checksum table quiet`
		load = `zcat | MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb --binary-mode`
	}
	id := item.Copies[0].Snapshot
	for _, part := range item.Dump.Parts {
		if !strings.Contains(part.What, "shop") && part.What != "databases" {
			continue
		}
		script := load
		if strings.HasSuffix(part.Path, ".zst") || db.Name != "postgres" {
			script = strings.Replace(load, "zcat", decompressor(repository.Restic(t, "dump", id, "/data/"+part.Path)), 1)
		}
		kit.Apply(t, repository.Restic(t, "dump", id, "/data/"+part.Path), "exec", "-i", "-n", scratch, empty.Pod(), "--", "sh", "-c", script)
	}
	if got, want := empty.SQL(t, checksum), db.SQL(t, checksum); got != want {
		t.Errorf("quiet table of %s: %q, want %q", db.Name, got, want)
	}
	var count, low, high int
	text := empty.SQL(t, `select count(*), min(id), max(id) from busy`)
	if _, err := fmt.Sscan(strings.NewReplacer("|", " ", "\t", " ").Replace(text), &count, &low, &high); err != nil {
		t.Fatalf("read %q: %v", text, err)
	}
	if low != 1 || count != high || high < before {
		t.Errorf("busy table of %s holds %d rows from %d to %d; want no gap and all %d acknowledged before the dump", db.Name, count, low, high, before)
	}
}

// decompressor is the command that reads text, by its magic bytes.
func decompressor(text string) string {
	switch {
	case strings.HasPrefix(text, "\x28\xb5\x2f\xfd"):
		return "zstd -dc"
	case strings.HasPrefix(text, "\x1f\x8b"):
		return "gzip -dc"
	}
	return "cat"
}
