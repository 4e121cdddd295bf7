package restore_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// TestPlan compares the whole of one planned claim.
func TestPlan(t *testing.T) {
	s := copied(shot("01:00", "data"), "main")
	s.Record.Claim.AccessModes = []string{"ReadWriteMany"}
	r := request()
	r.From.Kind, r.ToNamespace = restore.Copy, "scratch"
	p := plan(t, newCluster(s), r)
	want := []restore.Volume{{
		Point: restore.Point{Snapshot: s, Copy: &s.Copies[0]}, Way: restore.Fill, Name: elsewhere,
		Class:      catalog.StorageClass{Name: "fast", Driver: "csi.example.com"},
		Repository: catalog.Repository{Name: "main", Namespace: "backsnap", Secret: "main-secret"},
		Claim: catalog.Claim{
			Namespace: "scratch", Name: "data-restored-20261122-091500", StorageClass: "fast", Request: 10 << 30,
			AccessModes: []string{"ReadWriteMany"}, VolumeMode: "Filesystem", Annotations: catalog.HandsOff(),
			Labels: map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": string(run), "backsnap.sh/namespace": "shop", "backsnap.sh/pvc": "data"},
		},
	}}
	if diff := cmp.Diff(want, p.Volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"create persistentvolumeclaims in scratch", "get persistentvolumeclaims in scratch", "watch persistentvolumeclaims in scratch", "delete persistentvolumeclaims in scratch",
		"create persistentvolumeclaims in backsnap", "get persistentvolumeclaims in backsnap", "watch persistentvolumeclaims in backsnap", "delete persistentvolumeclaims in backsnap",
		"create jobs.batch in backsnap", "watch jobs.batch in backsnap", "delete jobs.batch in backsnap", "list pods in backsnap", "watch pods in backsnap",
		"get persistentvolumes", "patch persistentvolumes",
		"create leases.coordination.k8s.io in scratch", "get leases.coordination.k8s.io in scratch", "update leases.coordination.k8s.io in scratch", "delete leases.coordination.k8s.io in scratch",
	}, texts(p.Rights())); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}

func texts(rights []catalog.Right) []string {
	var out []string
	for _, r := range rights {
		out = append(out, r.String())
	}
	return out
}

// TestPlans are the rules of size, class and name.
func TestPlans(t *testing.T) {
	claim := func(s catalog.Snapshot, change func(*catalog.ClaimRecord)) catalog.Snapshot {
		record := *s.Record
		change(&record.Claim)
		s.Record = &record
		return s
	}
	for _, c := range []struct {
		name   string
		change func(*restore.Request)
		shot   func(*catalog.Snapshot)
		world  func(*cluster)
		check  func(t *testing.T, v restore.Volume)
		fails  []string
	}{
		{name: "in its own namespace the storage clones it", check: func(t *testing.T, v restore.Volume) { is(t, v.Way, restore.Clone) }},
		{
			name: "in another from a static copy", change: func(r *restore.Request) { r.ToNamespace = "scratch" },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Way, restore.Static) },
		},
		{
			name: "the snapshot needs more than was asked for", shot: func(s *catalog.Snapshot) { s.RestoreSize = 11 << 30 },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.Request, 11<<30) },
		},
		{
			name: "more than is needed", change: func(r *restore.Request) { r.Size = 20 << 30 },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.Request, 20<<30) },
		},
		{
			name: "less than is needed", change: func(r *restore.Request) { r.Size = 1 << 30 },
			fails: []string{"it needs 10737418240 bytes, --size is 1073741824", "--size 10737418240"},
		},
		{
			name: "a record of no request: what it had", shot: func(s *catalog.Snapshot) { *s = claim(*s, func(c *catalog.ClaimRecord) { c.Request = 0 }) },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.Request, 12<<30) },
		},
		{
			name: "a record of no size", shot: func(s *catalog.Snapshot) {
				*s = claim(*s, func(c *catalog.ClaimRecord) { c.Request, c.Capacity = 0, 0 })
			},
			fails: []string{"its record names no size"},
		},
		{
			name: "no access mode is on record", shot: func(s *catalog.Snapshot) { *s = claim(*s, func(c *catalog.ClaimRecord) { c.AccessModes = nil }) },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.AccessModes[0], "ReadWriteOnce") },
		},
		{
			name: "its class is gone", shot: func(s *catalog.Snapshot) { *s = claim(*s, func(c *catalog.ClaimRecord) { c.StorageClass = "old" }) },
			fails: []string{"there is no storage class old", "--storage-class"},
		},
		{
			name: "it had no class", shot: func(s *catalog.Snapshot) { *s = claim(*s, func(c *catalog.ClaimRecord) { c.StorageClass = "" }) },
			fails: []string{"its claim had no storage class"},
		},
		{
			name: "a class of another driver", change: func(r *restore.Request) { r.StorageClass = "nfs" },
			world: func(c *cluster) { c.classes["nfs"] = catalog.StorageClass{Name: "nfs", Driver: "nfs.example.com"} },
			fails: []string{"class nfs is of driver nfs.example.com, the snapshot of csi.example.com", "--from copy"},
		},
		{
			name: "which a copy does not mind", change: func(r *restore.Request) { r.StorageClass, r.From.Kind = "nfs", restore.Copy },
			world: func(c *cluster) { c.classes["nfs"] = catalog.StorageClass{Name: "nfs", Driver: "nfs.example.com"} },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.StorageClass, "nfs") },
		},
		{
			name: "a class that waits for a consumer", world: func(c *cluster) {
				c.classes["fast"] = catalog.StorageClass{Name: "fast", Driver: "csi.example.com", WaitsForConsumer: true}
			},
			check: func(t *testing.T, v restore.Volume) {
				is(t, v.Waits(), true)
				is(t, v.Notes[0], "class fast waits for the first consumer: the volume is made when a pod mounts the claim")
			},
		},
		{
			name: "it waits in another namespace", change: func(r *restore.Request) { r.ToNamespace = "scratch" }, world: func(c *cluster) {
				c.classes["fast"] = catalog.StorageClass{Name: "fast", Driver: "csi.example.com", WaitsForConsumer: true}
			},
			check: func(t *testing.T, v restore.Volume) {
				is(t, v.Notes[1], "until then the static copy "+elsewhere+" of the snapshot has to stand; the next restore into scratch removes it")
			},
		},
		{
			name: "a mover is a consumer", change: func(r *restore.Request) { r.From.Kind = restore.Copy }, world: func(c *cluster) {
				c.classes["fast"] = catalog.StorageClass{Name: "fast", Driver: "csi.example.com", WaitsForConsumer: true}
			},
			check: func(t *testing.T, v restore.Volume) { is(t, v.Waits(), false) },
		},
		{
			name: "the claim was made anew since", world: func(c *cluster) { c.inventory.Claims[0].UID = "another" },
			check: func(t *testing.T, v restore.Volume) {
				is(t, v.Notes[0], "claim data was made anew since: this is of the one before, UID uid-of-data")
			},
		},
		{
			name: "a block volume from its snapshot", shot: func(s *catalog.Snapshot) { *s = claim(*s, func(c *catalog.ClaimRecord) { c.VolumeMode = "Block" }) },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.VolumeMode, "Block") },
		},
		{
			name: "a block volume from a copy", change: func(r *restore.Request) { r.From.Kind = restore.Copy },
			shot:  func(s *catalog.Snapshot) { *s = claim(*s, func(c *catalog.ClaimRecord) { c.VolumeMode = "Block" }) },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.VolumeMode, "Block") },
		},
		{
			name: "an image that is larger than what was asked for", change: func(r *restore.Request) { r.From.Kind = restore.Copy },
			shot: func(s *catalog.Snapshot) {
				*s = claim(*s, func(c *catalog.ClaimRecord) { c.VolumeMode = "Block" })
				s.Copies[0].Bytes = 13 << 30
			},
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.Request, 13<<30) },
		},
		{
			name: "a name that is taken", change: func(r *restore.Request) { r.ToClaim = "data" },
			fails: []string{"claim shop/data is there already", "--to-pvc"},
		},
		{
			name: "which is free in another namespace", change: func(r *restore.Request) { r.ToClaim, r.ToNamespace = "data", "scratch" },
			check: func(t *testing.T, v restore.Volume) { is(t, v.Claim.Name, "data") },
		},
		{
			name: "no such repository", change: func(r *restore.Request) { r.From = restore.From{Kind: restore.Copy, Repository: "cold"} },
			fails: []string{"no repository cold"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := copied(shot("01:00", "data"), "main")
			r := request()
			if c.shot != nil {
				c.shot(&s)
			}
			if c.change != nil {
				c.change(&r)
			}
			world := newCluster(s)
			if c.world != nil {
				c.world(world)
			}
			p, err := restore.MakePlan(t.Context(), world, r)
			check(t, err, c.fails)
			if err == nil {
				c.check(t, p.Volumes[0])
			}
			if len(world.diary) > 0 {
				t.Errorf("a plan has changed something: %q", world.diary)
			}
		})
	}
}

func is[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOneNameForSeveralClaims(t *testing.T) {
	r := request()
	r.Target, r.ToClaim = restore.Target{Namespace: "shop", Kind: "statefulset", Name: "mysql"}, "copy"
	_, err := restore.MakePlan(t.Context(), newCluster(shot("01:00", "binlog", "binlog", "data"), shot("01:00", "data", "binlog", "data")), r)
	check(t, err, []string{"--to-pvc copy: statefulset/mysql has 2 claims"})
}

// Who wants a copy and may not see repositories is told that, and not that there
// is none.
func TestRepositoriesThatMayNotBeSeen(t *testing.T) {
	for _, from := range []restore.From{{Kind: restore.Copy}, {Kind: restore.Copy, Repository: "main"}} {
		c := newCluster(copied(shot("01:00", "data"), "main"))
		c.inventory.Repositories = nil
		r := request()
		r.From = from
		_, err := restore.MakePlan(t.Context(), c, r)
		if code := catalog.CodeOf(err); code == catalog.CodeForbidden || code == "" {
			t.Errorf("%s, none is there: got %v", from, err)
		}
		c.missing = []catalog.Right{{Verb: "list", Resource: "secrets", Namespace: "backsnap"}}
		_, err = restore.MakePlan(t.Context(), c, r)
		is(t, catalog.CodeOf(err), catalog.CodeForbidden)
		check(t, err, []string{"cannot list secrets in backsnap"})
	}
}

// What the cluster refuses to show ends the plan.
func TestPlanOfABrokenCluster(t *testing.T) {
	broken := errors.New("broken")
	for _, call := range []string{"inventory", "snapshots"} {
		c := newCluster(shot("01:00", "data"))
		c.fail[call] = broken
		if _, err := restore.MakePlan(t.Context(), c, request()); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", call, err)
		}
	}
}
