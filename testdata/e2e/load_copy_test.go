package e2e_test

import (
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestLoadFromACopy: the app's volume has lost its dump and the cluster its
// snapshot. The dump comes from the repository: into a second database, over
// what there is, and into another server. One that is not what the record says
// is not loaded.
func TestLoadFromACopy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		start     func(testing.TB, string, string, kit.Options) kit.Database
		fill, sum string
		in        string // another database, before sum
	}{
		"postgres": {
			kit.Postgres, `create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i`, postgresSum, "\\connect second\n",
		},
		"mariadb": {
			kit.MariaDB, "create table quiet (id int primary key, what varchar(40)); insert into quiet select seq, md5(seq) from seq_1_to_5000",
			"set session group_concat_max_len = 10000000; select count(*), md5(group_concat(concat(id, what) order by id)) from quiet", "use second;\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := kit.NewRepository(t, "repository password")
			namespace := kit.Namespace(t)
			db := c.start(t, namespace, "db", kit.Options{})
			db.SQL(t, c.fill)
			want := db.SQL(t, c.sum)
			in := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
			run := kit.Snapshot(t, 0, append(in, "statefulset/db")...)
			db.SQL(t, "delete from quiet where id > 100")
			half := db.SQL(t, c.sum)
			kit.Exec(t, namespace, db.Pod(), "rm "+db.Mount()+"/.backsnap*")
			kit.Kubectl(t, "delete", "volumesnapshot", run.Of(t, db.Claim()).Snapshot, "-n", namespace)
			in = append(in, "statefulset/db", "--from", "copy")

			load(t, 0, append(in, "--database", "shop=second")...)
			if got := db.SQL(t, c.in+c.sum); got != want || db.SQL(t, c.sum) != half {
				t.Errorf("in the second database %q, want %q", got, want)
			}
			doc := load(t, 0, append(in, "--database", "shop", "--yes")...)
			if got := db.SQL(t, c.sum); got != want || doc.Live {
				t.Errorf("over what there was %q, want %q; document %+v", got, want, doc)
			}
			next := c.start(t, namespace, "next", kit.Options{Password: "another"})
			load(t, 0, append(in, "--into", "statefulset/next", "--database", "shop", "--yes")...)
			if got := next.SQL(t, c.sum); got != want {
				t.Errorf("in the next server %q, want %q", got, want)
			}
			if left := kit.Names(t, repository.Namespace, "job,pvc,lease") + kit.Names(t, namespace, "job,lease"); strings.TrimSpace(left) != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}
