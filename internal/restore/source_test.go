package restore_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// lost is s as a repository alone tells of it.
func lost(s catalog.Snapshot, repositories ...string) catalog.Snapshot {
	s = copied(s, repositories...)
	s.Ready, s.CopyOnly, s.Content = false, true, ""
	return s
}

// repositories answer what is asked of them, and remember it.
type repositories struct {
	lying    []catalog.Snapshot
	clusters []string
	err      error
	asked    [][]string
}

func (r *repositories) list(_ context.Context, recorded []catalog.Snapshot, names []string) (restore.Listed, error) {
	r.asked = append(r.asked, names)
	return restore.Listed{Snapshots: append(recorded, r.lying...), Clusters: r.clusters}, r.err
}

// TestRepositoriesAreAsked where what is on record does not lead to what was
// asked for, and nowhere else.
func TestRepositoriesAreAsked(t *testing.T) {
	one, two := shot("01:00", "data"), shot("02:00", "data")
	for _, c := range []struct {
		name     string
		request  func(*restore.Request)
		world    func(*cluster)
		recorded []catalog.Snapshot
		lying    []catalog.Snapshot
		clusters []string
		asked    string // repositories, by commas
		why      string
		want     string // name of the snapshot that is taken, from a copy after an @
		fails    []string
	}{
		{name: "a snapshot is there", recorded: []catalog.Snapshot{one}, lying: []catalog.Snapshot{lost(two, "main")}, want: one.Name},
		{
			name: "a copy is on record", request: func(r *restore.Request) { r.From.Kind = restore.Copy }, recorded: []catalog.Snapshot{copied(one, "main")},
			lying: []catalog.Snapshot{lost(two, "main")}, want: one.Name + "@main",
		},
		{
			name: "nothing is on record", lying: []catalog.Snapshot{lost(one, "cold"), lost(two, "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: two.Name + "@main",
		},
		{
			name: "what is on record will not do", recorded: []catalog.Snapshot{unready(two)}, lying: []catalog.Snapshot{lost(one, "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: one.Name + "@main",
		},
		{
			name: "what is on record is after the time asked", request: func(r *restore.Request) { r.At, r.AtText = at("01:30"), "01:30" },
			recorded: []catalog.Snapshot{two}, lying: []catalog.Snapshot{lost(one, "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: one.Name + "@main",
		},
		{
			name: "no copy is on record, and one is wanted", request: func(r *restore.Request) { r.From = restore.From{Kind: restore.Copy, Repository: "main"} },
			recorded: []catalog.Snapshot{two}, lying: []catalog.Snapshot{lost(one, "main")},
			asked: "main", why: "no set on record in this cluster will do", want: one.Name + "@main",
		},
		{
			name: "the snapshot alone will do", request: func(r *restore.Request) { r.From.Kind = restore.Snapshot }, lying: []catalog.Snapshot{lost(one, "main")},
			fails: []string{"no complete set of data in shop", "there is none"},
		},
		{
			name: "one snapshot that is gone, by its name", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "vs", one.Name },
			lying: []catalog.Snapshot{lost(one, "main"), lost(two, "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: one.Name + "@main",
		},
		{
			name: "a run that is gone", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "run", string(one.Run) },
			lying: []catalog.Snapshot{lost(one, "main"), lost(two, "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: one.Name + "@main",
		},
		{
			name: "a set of which a volume is missing is not taken", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "statefulset", "mysql" },
			lying: []catalog.Snapshot{lost(shot("02:00", "data", "binlog", "data"), "main"), lost(one, "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: one.Name + "@main",
		},
		{
			name: "a set of which a part is gone", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "statefulset", "mysql" },
			recorded: []catalog.Snapshot{shot("02:00", "data", "binlog", "data")}, lying: []catalog.Snapshot{lost(shot("02:00", "binlog", "binlog", "data"), "main")},
			asked: "cold,main", why: "no set on record in this cluster will do", want: "binlog-20261122-020000-aaaa@main data-20261122-020000-aaaa",
		},
		{
			name: "another cluster's: this one's records are of no interest", request: func(r *restore.Request) { r.Cluster = "prod-us" },
			recorded: []catalog.Snapshot{two}, lying: []catalog.Snapshot{lost(one, "main")},
			asked: "cold,main", why: "what cluster prod-us has copied is wanted", want: one.Name + "@main",
		},
		{
			name: "what is on record may not be seen", request: func(r *restore.Request) { r.From.Kind, r.ToNamespace = restore.Copy, "scratch" },
			world: func(c *cluster) { c.secret = "shop" }, recorded: []catalog.Snapshot{two}, lying: []catalog.Snapshot{lost(one, "main")},
			asked: "cold,main", why: "what is on record in namespace shop may not be read", want: one.Name + "@main",
		},
		{
			name: "a whole namespace's copies", request: func(r *restore.Request) {
				r.Target.Kind, r.Target.Name, r.From.Kind = "namespace", "shop", restore.Copy
			},
			recorded: []catalog.Snapshot{copied(one, "main")}, lying: []catalog.Snapshot{lost(two, "main")},
			asked: "cold,main", why: "what is on record does not tell all that there was in the namespace", want: two.Name + "@main",
		},
		{
			name: "a whole namespace that is on record", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "namespace", "shop" },
			recorded: []catalog.Snapshot{one}, lying: []catalog.Snapshot{lost(two, "main")}, want: one.Name,
		},
		{
			name: "an app of the namespace is not usable", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "namespace", "shop" },
			recorded: []catalog.Snapshot{one, unready(with(shot("01:00", "www"), func(s *catalog.Snapshot) { s.Record.App = "deployment/www" }))},
			lying:    []catalog.Snapshot{lost(with(shot("00:30", "www"), func(s *catalog.Snapshot) { s.Record.App = "deployment/www" }), "main")},
			asked:    "cold,main", why: "not every app has a set on record that will do", want: "www-20261122-003000-aaaa@main " + one.Name,
		},
		{
			name: "a copy was made again", lying: []catalog.Snapshot{with(lost(one, "main"), func(s *catalog.Snapshot) {
				s.Copies = append(s.Copies, catalog.Copy{Repository: "main", Snapshot: "again", Finished: at("03:00")}, catalog.Copy{Repository: "main", Snapshot: "between", Finished: at("02:00")})
			})},
			asked: "cold,main", why: "no set on record in this cluster will do", want: one.Name + "@main again",
		},
		{
			name: "it lies nowhere", recorded: []catalog.Snapshot{unready(one)}, asked: "cold,main",
			fails: []string{"its snapshot is not ready (the storage is full) and it has no copy; listed too: repositories cold, main", "see what there is: kubectl backsnap list -n shop --from-repository=cold,main"},
		},
		{
			name: "the namespace does not exist", world: func(c *cluster) { c.inventory.Lost = []string{"shop"} }, asked: "cold,main",
			fails: []string{"there is none; namespace shop does not exist; listed too: repositories cold, main"},
		},
		{
			name: "other clusters have copies there", request: func(r *restore.Request) { r.From = restore.From{Kind: restore.Copy, Repository: "main"} },
			clusters: []string{"prod-us", "test"}, asked: "main",
			fails: []string{"there are copies of other clusters: prod-us, test", "take those of such a cluster: --from-cluster prod-us"},
		},
		{
			name: "the nearest in a repository", request: func(r *restore.Request) { r.At, r.AtText, r.Cluster = at("00:30"), "00:30", "prod-us" },
			lying: []catalog.Snapshot{lost(one, "main")}, asked: "cold,main",
			fails: []string{"kubectl backsnap restore data -n shop --at 2026-11-22T01:00:00Z --from-cluster prod-us"},
		},
		{
			name: "there is no repository", world: func(c *cluster) { c.inventory.Repositories = nil },
			fails: []string{"there is none; no repository is known in namespace backsnap that could be asked"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, lying := request(), &repositories{lying: c.lying, clusters: c.clusters}
			r.List = lying.list
			if c.request != nil {
				c.request(&r)
			}
			world := newCluster(c.recorded...)
			world.inventory.Repositories = append([]catalog.Repository{{Name: "cold", Namespace: "backsnap", Secret: "cold"}}, world.inventory.Repositories...)
			if c.world != nil {
				c.world(world)
			}
			p, err := restore.MakePlan(t.Context(), world, r)
			check(t, err, c.fails)
			var asked, taken []string
			for _, names := range lying.asked {
				asked = append(asked, strings.Join(names, ","))
			}
			is(t, strings.Join(asked, "; "), c.asked)
			for _, v := range p.Volumes {
				name := v.Snapshot.Name
				if v.Copy != nil {
					name += "@" + v.Copy.Repository
				}
				if v.Copy != nil && !strings.HasSuffix(v.Copy.Snapshot, v.Snapshot.Name) {
					name += " " + v.Copy.Snapshot
				}
				taken = append(taken, name)
			}
			is(t, strings.Join(taken, " "), c.want)
			if err == nil {
				is(t, p.Asked.Why, c.why)
				is(t, strings.Join(p.Asked.Repositories, ","), c.asked)
			}
		})
	}
}

// A repository that cannot be listed may hold what is newest.
func TestARepositoryThatCannotBeListed(t *testing.T) {
	broken := &catalog.Failure{Code: catalog.CodeForbidden, Message: "broken", State: "nothing changed"}
	r := request()
	r.List = (&repositories{err: broken, lying: []catalog.Snapshot{lost(shot("01:00", "data"), "main")}}).list
	if _, err := restore.MakePlan(t.Context(), newCluster(), r); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	is(t, broken.State, "no set on record in this cluster will do; nothing changed")
}

// TestANamespace is which sets, names and rights the whole of one comes to.
func TestANamespace(t *testing.T) {
	app := func(s catalog.Snapshot, app string) catalog.Snapshot {
		return with(s, func(s *catalog.Snapshot) { s.Record.App = app })
	}
	www := func(clock string) catalog.Snapshot { return app(shot(clock, "www"), "deployment/www") }
	pair := func(clock string) []catalog.Snapshot {
		return []catalog.Snapshot{shot(clock, "binlog", "binlog", "data"), shot(clock, "data", "binlog", "data")}
	}
	for _, c := range []struct {
		name      string
		request   func(*restore.Request)
		claims    []string // of shop, that are there
		lost      []string // namespaces
		snapshots []catalog.Snapshot
		// want are the new claims, with the run that each comes from.
		want    []string
		passed  []string
		lacking []string // app: claims
		makes   bool
		fails   []string
	}{
		{
			name: "each app's newest set, under the names that they had", lost: []string{"shop"}, makes: true,
			snapshots: append(append(pair("01:00"), pair("02:00")...), www("01:30")),
			want:      []string{"shop/www 20261122-013000-aaaa", "shop/binlog 20261122-020000-aaaa", "shop/data 20261122-020000-aaaa"},
		},
		{
			name: "a set of which one claim is there goes beside it", claims: []string{"data"}, snapshots: append(pair("02:00"), www("01:30")),
			want: []string{"shop/www 20261122-013000-aaaa", "shop/binlog-restored-20261122-091500 20261122-020000-aaaa", "shop/data-restored-20261122-091500 20261122-020000-aaaa"},
		},
		{
			name: "in another namespace all names are free", claims: []string{"data"}, snapshots: pair("02:00"), lost: []string{"scratch"}, makes: true,
			request: func(r *restore.Request) { r.ToNamespace = "scratch" },
			want:    []string{"scratch/binlog 20261122-020000-aaaa", "scratch/data 20261122-020000-aaaa"},
		},
		{
			name: "as of a time", request: func(r *restore.Request) { r.At, r.AtText = at("01:45"), "01:45" },
			snapshots: append(append(pair("01:00"), pair("02:00")...), www("01:50"), app(shot("01:00", "old"), "pvc/old")),
			want:      []string{"shop/old 20261122-010000-aaaa", "shop/binlog 20261122-010000-aaaa", "shop/data 20261122-010000-aaaa"},
			passed:    []string{"20261122-020000-aaaa: statefulset/mysql: it is after 01:45", "20261122-015000-aaaa: deployment/www: it is after 01:45"},
		},
		{
			name: "an app of which no set is whole", snapshots: append(pair("02:00")[:1], www("01:30")),
			want: []string{"shop/www 20261122-013000-aaaa"}, lacking: []string{"statefulset/mysql: binlog data"},
		},
		{
			name: "a claim that changed hands", snapshots: append(pair("01:00"), app(shot("02:00", "data"), "pvc/data")),
			want: []string{"shop/data 20261122-020000-aaaa", "shop/binlog 20261122-010000-aaaa"},
		},
		{
			name: "a set of which newer ones hold all", snapshots: []catalog.Snapshot{app(shot("01:00", "data"), "deployment/old"), app(shot("02:00", "data"), "pvc/data")},
			want: []string{"shop/data 20261122-020000-aaaa"}, passed: []string{"20261122-010000-aaaa: deployment/old: newer sets hold its claims"},
		},
		{
			name: "an unusable set of which newer ones hold all", snapshots: []catalog.Snapshot{unready(app(shot("01:00", "data"), "deployment/old")), app(shot("02:00", "data"), "pvc/data")},
			want: []string{"shop/data 20261122-020000-aaaa"},
		},
		{name: "an app of two workloads", snapshots: []catalog.Snapshot{app(shot("01:00", "data"), "deployment/a+deployment/b")}, want: []string{"shop/data 20261122-010000-aaaa"}},
		{
			name: "nothing before the time asked", request: func(r *restore.Request) { r.At, r.AtText = at("00:30"), "00:30" }, snapshots: append(pair("01:00"), www("01:30")),
			fails: []string{"no complete set of namespace/shop at or before 00:30", "the nearest is 20261122-010000-aaaa", "kubectl backsnap restore namespace/shop -n shop --at 2026-11-22T01:00:00Z"},
		},
		{name: "nothing at all", fails: []string{"no complete set of namespace/shop at or before any time", "there is none"}},
		{
			name: "another namespace of single claims is not made", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name, r.ToNamespace = "pvc", "data", "scratch" },
			lost: []string{"scratch"}, snapshots: []catalog.Snapshot{shot("01:00", "data")}, fails: []string{"namespace scratch does not exist", "kubectl create namespace scratch"},
		},
		{
			name: "but its own is", request: func(r *restore.Request) { r.Target.Kind, r.Target.Name = "pvc", "data" },
			lost: []string{"shop"}, snapshots: []catalog.Snapshot{shot("01:00", "data")}, makes: true, want: []string{"shop/data-restored-20261122-091500 20261122-010000-aaaa"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request()
			r.Target.Kind, r.Target.Name = "namespace", "shop"
			if c.request != nil {
				c.request(&r)
			}
			world := newCluster(c.snapshots...)
			world.inventory.Claims, world.inventory.Lost = nil, c.lost
			for _, name := range c.claims {
				world.inventory.Claims = append(world.inventory.Claims, catalog.Claim{Namespace: "shop", Name: name, UID: "uid-of-" + name})
			}
			p, err := restore.MakePlan(t.Context(), world, r)
			check(t, err, c.fails)
			var got, passed, lacking []string
			for _, v := range p.Volumes {
				got = append(got, v.Claim.Namespace+"/"+v.Claim.Name+" "+string(v.Snapshot.Run))
			}
			for _, one := range p.Passed {
				passed = append(passed, string(one.Run)+": "+one.Reason)
			}
			for _, l := range p.Lacking {
				is(t, catalog.CodeOf(l.Err), catalog.CodeNoSet)
				lacking = append(lacking, l.App+": "+strings.Join(l.Claims, " "))
			}
			for what, pair := range map[string][2][]string{"claims": {c.want, got}, "passed over": {c.passed, passed}, "lacking": {c.lacking, lacking}} {
				if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			is(t, p.Makes, c.makes)
			is(t, strings.Contains(strings.Join(texts(p.Rights()), ";"), "create namespaces"), c.makes)
		})
	}
}

// TestPrepare makes the namespace with our labels, or nothing.
func TestPrepare(t *testing.T) {
	for _, makes := range []bool{false, true} {
		c, w := newCluster(), &watcher{}
		c.inventory.Lost = []string{"shop"}
		r := request()
		r.ToNamespace = "shop"
		made, err := restore.Prepare(t.Context(), c, now, restore.Plan{Request: r, Makes: makes}, w)
		if err != nil || made != makes {
			t.Errorf("made %t, error %v; want %t", made, err, makes)
		}
		var want, said []string
		if makes {
			want = []string{"create namespace shop, dry false, labels map[app.kubernetes.io/managed-by:backsnap backsnap.sh/run:" + string(run) + "]"}
			said = []string{"ok namespace made"}
		}
		if diff := cmp.Diff(want, c.diary); diff != "" {
			t.Errorf("done (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(said, w.said); diff != "" {
			t.Errorf("said (-want +got):\n%s", diff)
		}
	}
	c := newCluster()
	broken := errors.New("broken")
	c.fail["create namespace shop, dry false, labels map[app.kubernetes.io/managed-by:backsnap backsnap.sh/run:"+string(run)+"]"] = broken
	r := request()
	r.ToNamespace = "shop"
	if _, err := restore.Prepare(t.Context(), c, now, restore.Plan{Request: r, Makes: true}, &watcher{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
