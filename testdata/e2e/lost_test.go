package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// checksum is a statement that tells all that is in the table quiet.
func checksum(engine string) string {
	if engine == "mariadb" {
		return "set session group_concat_max_len = 100000000; select count(*), md5(group_concat(id, what order by id)) from quiet"
	}
	return "select count(*), md5(string_agg(q::text, ',' order by id)) from quiet q"
}

// fill makes the table quiet.
func fill(engine string) string {
	if engine == "mariadb" {
		return "create table quiet (id int primary key, what char(32)) as select seq as id, md5(seq) as what from seq_1_to_20000"
	}
	return "create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i"
}

// TestALostNamespaceComesBackFromItsCopies: two databases that are written to
// are copied, their namespace is deleted with all that is in it, snapshots
// included, and S3 alone brings it back: servers started on the claims that
// were restored have each table as it was, and every row that was acknowledged
// before the run began.
func TestALostNamespaceComesBackFromItsCopies(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	start := map[string]func() kit.Database{
		"postgres": func() kit.Database { return kit.Postgres(t, namespace, "postgres", kit.Options{}) },
		"mariadb":  func() kit.Database { return kit.MariaDB(t, namespace, "mariadb", kit.Options{}) },
	}
	databases, want := map[string]kit.Database{}, map[string]string{}
	for engine, begin := range start {
		db := begin()
		db.SQL(t, fill(engine))
		databases[engine], want[engine] = db, db.SQL(t, checksum(engine))
	}
	// Not before both are there: what one writes keeps the other from starting.
	acknowledged := map[string]int{}
	var writers []*kit.Writer
	for engine, db := range databases {
		w := kit.Write(t, db)
		acknowledged[engine] = w.Acknowledged()
		writers = append(writers, w)
	}
	run := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	for _, w := range writers {
		w.Stop()
	}
	kit.Kubectl(t, "delete", "namespace", namespace, "--timeout", kit.Patience.String())
	if left := strings.TrimSpace(kit.Kubectl(t, "get", "volumesnapshotcontent,pv", "-l", "backsnap.sh/namespace="+namespace, "-o", "name")); left != "" {
		t.Fatalf("the cluster still has %s", left)
	}

	lost := []string{"namespace/" + namespace, "--from", "copy", "--backup-namespace", repository.Namespace}
	planned := restore(t, 0, append(slices.Clone(lost), "--dry-run=client")...)
	if there := kit.Kubectl(t, "get", "namespace", namespace, "--ignore-not-found", "-o", "name"); there != "" || len(planned.Items) != 2 {
		t.Errorf("a dry run of %d claims has made %q", len(planned.Items), there)
	}
	back := restore(t, 0, lost...)
	if back.Made != namespace || len(back.Items) != 2 {
		t.Errorf("made namespace %q and %d claims, want %q and 2", back.Made, len(back.Items), namespace)
	}
	for _, item := range back.Items {
		copies := run.Of(t, item.Claim).Copies // and so the claim has its own name
		if !item.Bound || item.Namespace != namespace || item.From.Copy != copies[0].Snapshot || item.Files == 0 {
			t.Errorf("item %+v, want it from copy %s", item, copies[0].Snapshot)
		}
	}
	noTrace(t, repository.Namespace, back)
	if labels := kit.Kubectl(t, "get", "namespace", namespace, "-o", `jsonpath={.metadata.labels.backsnap\.sh/run}`); labels != back.Run {
		t.Errorf("the namespace is labelled with run %q, want %q", labels, back.Run)
	}
	for engine, begin := range start {
		db := begin()
		if got := db.SQL(t, checksum(engine)); got != want[engine] {
			t.Errorf("%s: %q, want %q", engine, got, want[engine])
		}
		rows := db.SQL(t, fmt.Sprintf("select count(*) from busy where id <= %d; select max(id) - count(*) from busy", acknowledged[engine]))
		if got, want := strings.Fields(rows), []string{fmt.Sprint(acknowledged[engine]), "0"}; !slices.Equal(got, want) {
			t.Errorf("%s: acknowledged rows and holes: %q, want %q", engine, got, want)
		}
	}

	// What is there now would stay; of a claim that was never copied there is nothing.
	for _, item := range restore(t, 0, append(slices.Clone(lost), "--dry-run=client")...).Items {
		if !strings.Contains(item.Claim, "-restored-") {
			t.Errorf("item %+v, want a claim beside the one that is there", item)
		}
	}
	if doc := restore(t, 1, "nothing", "-n", namespace, "--backup-namespace", repository.Namespace); doc.Code != "BS061" {
		t.Errorf("of nothing: %+v", doc)
	}
}
