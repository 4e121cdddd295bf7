package e2e_test

import (
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// roleIntoClaim is all that `restore --into-claim` needs of a user: nothing of
// the whole cluster.
var roleIntoClaim = []rule{
	{"snapshot.storage.k8s.io", "volumesnapshots", "create,list,watch,delete"},
	{"coordination.k8s.io", "leases", "create,get,update,delete"},
	{"", "persistentvolumeclaims", "get,list,patch"},
	{"", "pods", "list,watch"},
	{"", "pods/log", "get"},
	{"", "secrets", "list"},
	{"batch", "jobs", "create,list,watch,delete"},
	{"batch", "cronjobs", "list"},
	{"apps", "statefulsets", "get,list,patch,watch"},
	{"apps", "statefulsets/scale", "get,update"},
	{"apps", "deployments", "list"},
	{"apps", "daemonsets", "list"},
	{"autoscaling", "horizontalpodautoscalers", "list"},
}

// noted is what stands on claim and workload of a restore into the claim, "" for
// nothing.
func noted(t *testing.T, namespace, claim, workload string) string {
	t.Helper()
	const note = `jsonpath={.metadata.annotations.backsnap\.sh/refill}`
	return kit.Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", note) + kit.Kubectl(t, "get", workload, "-n", namespace, "-o", note)
}

// TestRestoreIntoAClaim: a table is dropped and rows are added. The copy is
// restored into the file system of the same claim, by a user with rights in the
// namespace alone; the database has exactly what the set holds. Rolled back it
// has what there was before.
func TestRestoreIntoAClaim(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.NewRepositoryIn(t, namespace, "repository password")
	db := kit.Postgres(t, namespace, "shop", kit.Options{})
	db.SQL(t, `create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i; create table late (id int)`)
	want := db.SQL(t, postgresSum)
	kit.Snapshot(t, 0, "-n", namespace, "--in-namespace", "--snapshot-class", "btrfs", "statefulset/shop")
	db.SQL(t, `drop table quiet; insert into late values (1), (2)`)
	claim, volume := claimOf(t, namespace, db.Claim()), volumeOfClaim(t, namespace, db.Claim())
	as := user(t, namespace, "keeper", roleIntoClaim)
	into := []string{"statefulset/shop", "-n", namespace, "--into-claim", as}

	// What is refused, and touches nothing.
	elsewhere := kit.Namespace(t)
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, "[BS002]", append(into, "--yes")},
		{5, "[BS071]", append(into, "--in-namespace")},
		{2, "[BS002]", append(into, "--in-namespace", "--yes", "--from", "snapshot")},
		{4, "[BS056]", []string{"data", "-n", elsewhere, "--into-claim", "--in-namespace", "--yes"}},
		{1, "[BS061]", append(into, "--in-namespace", "--yes", "--at", "2001-01-01T00:00Z")},
	} {
		if r := kit.Backsnap(t, append([]string{"restore"}, c.args...)...); r.Code != c.code || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("%v: exit %d, want %d and %s", c.args, r.Code, c.code, c.says)
		}
	}
	if got := db.SQL(t, `select count(*) from late`); got != "2" {
		t.Fatalf("%s rows after what was refused", got)
	}

	doc := swap(t, 0, "Restored", append(into, "--in-namespace")...)
	if item := doc.Items[0]; item.Volume != volume || item.Safety == "" || doc.Downtime <= 0 || doc.Workloads[0].Replicas != 1 {
		t.Errorf("document %+v", doc)
	}
	if got := db.SQL(t, postgresSum+`; select count(*) from late`); got != want+"\n0" {
		t.Errorf("restored %q, want %q", got, want)
	}
	if got := claimOf(t, namespace, db.Claim()); got != claim || volumeOfClaim(t, namespace, db.Claim()) != volume {
		t.Errorf("claim is %s, want %s", got, claim)
	}
	if left := noted(t, namespace, db.Claim(), "statefulset/shop") + kit.Names(t, namespace, "lease,job"); left != "" {
		t.Errorf("left: %s", left)
	}

	back := swap(t, 0, "RolledBack", "--rollback", doc.Run, "-n", namespace)
	if got := db.SQL(t, `select to_regclass('quiet') is null; select count(*) from late`); got != "t\n2" {
		t.Errorf("rolled back to %q", got)
	}
	calm(t, namespace, "statefulset/shop", back)
	swap(t, 0, "Committed", "--commit", back.Run, "--grace", "0", "-n", namespace)
	committed(t, namespace, doc.Run, back.Run)
}
