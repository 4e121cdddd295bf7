package offsite_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// standing is a mover of that claim, with all that belongs to it.
func (c *cluster) standing(claim string, finished bool) {
	name := claim + "-mover"
	c.claims[name] = claim
	c.put("static", name)
	c.put("clone", name)
	c.put("mover", name)
	c.movers = append(c.movers, restic.Mover{
		Namespace: "backsnap", Name: name, Run: run, Job: true, Finished: finished, Clone: true, Static: true,
		Source: catalog.Source{Namespace: "shop", Claim: claim, Snapshot: claim + "-" + string(run), UID: "uid-" + claim, Repository: "main"},
	})
}

// collecting is a sweep that holds no namespace.
func collecting() offsite.Sweeping {
	return offsite.Sweeping{Run: "20261123-011500-aaaa", BackupNamespace: "backsnap"}
}

func TestCollect(t *testing.T) {
	c, w := newCluster(t), &events{}
	for _, claim := range []string{"done", "failed", "quicker", "snapshotless"} {
		c.standing(claim, true)
	}
	c.standing("running", false)
	c.follow["failed"] = says(ends(12, "check", 0))
	c.fail["quicker: follow"] = catalog.ErrGone
	c.fail["snapshotless: record"] = catalog.ErrGone
	outcomes, err := offsite.Sweep(t.Context(), c, at, collecting(), w)
	copyOf := func(claim string) offsite.Copy {
		return offsite.Copy{
			Name: claim + "-mover", Repository: catalog.Repository{Name: "main", Namespace: "backsnap"},
			Snapshot: catalog.Snapshot{Namespace: "shop", Name: claim + "-" + string(run), UID: "uid-" + claim, Claim: claim, Run: run},
		}
	}
	if len(outcomes) != 3 {
		t.Fatalf("outcomes %+v", outcomes)
	}
	equal(t, "outcomes", []offsite.Outcome{
		{Copy: copyOf("done"), State: offsite.Copied, Result: made()},
		{Copy: copyOf("failed"), State: offsite.Failed, Err: outcomes[1].Err},
		{Copy: copyOf("snapshotless"), State: offsite.Copied, Result: made()},
	}, outcomes)
	equal(t, "code", catalog.CodeRepoPassword, catalog.CodeOf(err))
	equal(t, "recorded", map[string][]catalog.Copy{"done-" + string(run): {made()}}, c.copies)
	all := []string{"follow", "record", "remove mover", "remove clone and volume", "remove static"}
	equal(t, "calls of done", all, c.diary["done"])
	equal(t, "calls of snapshotless", all, c.diary["snapshotless"])
	equal(t, "left", []string{
		"clone quicker-mover", "clone running-mover", "mover quicker-mover", "mover running-mover",
		"static quicker-mover", "static running-mover",
	}, c.left())
	equal(t, "events of snapshotless", []string{"ok"}, w.of("snapshotless"))
}

func TestCollectLeavesWhatItCannotRecord(t *testing.T) {
	c := newCluster(t)
	c.standing("data", true)
	c.fail["data: record"] = errors.New("boom")
	_, err := offsite.Sweep(t.Context(), c, at, collecting(), &events{})
	equal(t, "code", catalog.CodeMover, catalog.CodeOf(err))
	equal(t, "left", []string{"clone data-mover", "mover data-mover", "static data-mover"}, c.left())
}

// Left are what Sweep would take in or remove for who holds shop.
func TestLeavings(t *testing.T) {
	of := func(name string, m restic.Mover) restic.Mover {
		m.Name, m.Run = name, cmp.Or(m.Run, catalog.Run("20261122-011500-"+name[:4]))
		return m
	}
	shop := catalog.Source{Namespace: "shop"}
	restores := catalog.Source{Namespace: "shop", Restores: "data"}
	standing := []restic.Mover{
		of("clone without a mover", restic.Mover{Clone: true, Static: true, Source: shop}),
		of("done", restic.Mover{Job: true, Finished: true, Source: shop}),
		of("fill of a restore", restic.Mover{Job: true, Finished: true, Source: restores}),
		of("works", restic.Mover{Job: true, Clone: true, Source: shop}),
		of("beside one that works", restic.Mover{Clone: true, Source: shop, Run: "20261122-011500-work"}),
		of("done beside it", restic.Mover{Job: true, Finished: true, Source: shop, Run: "20261122-011500-work"}),
		of("elsewhere", restic.Mover{Clone: true, Source: catalog.Source{Namespace: "crm"}}),
		of("copies nothing", restic.Mover{Job: true, Finished: true}),
		of("own clone", restic.Mover{Clone: true, Source: shop}),
	}
	var names []string
	for _, m := range offsite.Leavings(standing, "20261122-011500-own ", func(namespace string) bool { return namespace == "shop" }) {
		names = append(names, m.Name)
	}
	equal(t, "left", []string{"clone without a mover", "done", "fill of a restore", "done beside it"}, names)
}

// What made a repository, or read from one, may be read still by its client.
func TestSweepLeavesAMoverThatCopiesNothing(t *testing.T) {
	c := newCluster(t)
	c.movers = []restic.Mover{{Namespace: "backsnap", Name: "init-main", Run: run, Job: true, Finished: true}}
	outcomes, err := offsite.Sweep(t.Context(), c, at, holding(), &events{})
	equal(t, "outcomes", []offsite.Outcome(nil), outcomes)
	equal(t, "error", error(nil), err)
	equal(t, "calls", []string(nil), c.diary[""])
}

// A mover that restores a copy makes none: a run elsewhere leaves it to its
// client, and who holds the namespace that it restores to removes it.
func TestSweepOfARestore(t *testing.T) {
	c := newCluster(t)
	c.standing("data", true)
	c.movers[0].Source.Restores = "back"
	outcomes, err := offsite.Sweep(t.Context(), c, at, collecting(), &events{})
	equal(t, "outcomes", []offsite.Outcome(nil), outcomes)
	equal(t, "error", error(nil), err)
	equal(t, "left", []string{"clone data-mover", "mover data-mover", "static data-mover"}, c.left())
	outcomes, err = offsite.Sweep(t.Context(), c, at, holding(), &events{})
	equal(t, "outcomes of who holds it", []offsite.Outcome(nil), outcomes)
	equal(t, "error of who holds it", error(nil), err)
	equal(t, "left by who holds it", []string(nil), c.left())
}

// holding is a sweep that holds shop.
func holding() offsite.Sweeping {
	s := collecting()
	s.Namespaces = []string{"shop"}
	return s
}

// part is a mover of that claim of which only a part stands.
func (c *cluster) part(claim string, of restic.Mover) {
	c.standing(claim, false)
	last := &c.movers[len(c.movers)-1]
	of.Namespace, of.Name, of.Source = last.Namespace, last.Name, last.Source
	if of.Run == "" {
		of.Run = run
	}
	*last = of
	for kind, stands := range map[string]bool{"mover": of.Job, "clone": of.Clone, "static": of.Static} {
		if !stands {
			c.drop(kind, of.Name)
		}
	}
}

// What a client that died has left is removed where its namespace is ours and
// no mover of its run works.
func TestSweep(t *testing.T) {
	static, both := restic.Mover{Static: true}, restic.Mover{Static: true, Clone: true}
	for _, c := range []struct {
		name  string
		sweep offsite.Sweeping
		parts map[string]restic.Mover
		left  []string
		told  string
	}{
		{"a static copy", holding(), map[string]restic.Mover{"data": static}, nil, "warning remove what run " + string(run) + " has left: static copy backsnap/data-mover"},
		{"a clone", holding(), map[string]restic.Mover{"data": both}, nil, "warning remove what run " + string(run) + " has left: clone, static copy backsnap/data-mover"},
		{"a Job that is being deleted", holding(), map[string]restic.Mover{"data": {Job: true, Ending: true, Static: true}}, nil, "warning remove what run " + string(run) + " has left: mover, static copy backsnap/data-mover"},
		{"not of another's namespace", collecting(), map[string]restic.Mover{"data": both}, []string{"clone data-mover", "static data-mover"}, ""},
		{"not of its own run", offsite.Sweeping{Run: run, BackupNamespace: "backsnap", Namespaces: []string{"shop"}}, map[string]restic.Mover{"data": static}, []string{"static data-mover"}, ""},
		{
			"not while a mover of the run works", holding(),
			map[string]restic.Mover{"data": static, "www": {Job: true, Static: true}, "old": {Run: "20261101-011500-bbbb", Static: true}},
			[]string{"mover www-mover", "static data-mover", "static www-mover"}, "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster, w := newCluster(t), &events{}
			for _, claim := range slices.Sorted(maps.Keys(c.parts)) {
				cluster.part(claim, c.parts[claim])
			}
			outcomes, err := offsite.Sweep(t.Context(), cluster, at, c.sweep, w)
			equal(t, "outcomes", []offsite.Outcome(nil), outcomes)
			equal(t, "error", error(nil), err)
			equal(t, "left", c.left, cluster.left())
			equal(t, "told", c.told, strings.Join(w.of("data"), "\n"))
		})
	}
}

// What only others hold is as good as gone, and is named.
func TestSweepNamesWhoHoldsWhatItDeletes(t *testing.T) {
	c, w := newCluster(t), &events{}
	c.part("data", restic.Mover{Static: true, Clone: true})
	c.fail["data: remove clone and volume"] = &catalog.Held{Finalizers: []string{"example.com/hold"}}
	_, err := offsite.Sweep(t.Context(), c, at, holding(), w)
	equal(t, "error", error(nil), err)
	equal(t, "calls", []string{"remove mover", "remove clone and volume", "remove static"}, c.diary["data"])
	equal(t, "told", "warning remove clone backsnap/data-mover: it is deleted, and held by another's finalizer: example.com/hold", w.of("data")[1])
}

func TestAbort(t *testing.T) {
	c := newCluster(t)
	c.standing("done", true)
	c.standing("running", false)
	c.part("begun", restic.Mover{Static: true})
	c.part("other", restic.Mover{Run: "20261101-011500-bbbb", Static: true})
	if err := offsite.Abort(t.Context(), c, at, "backsnap", run, &events{}); err != nil {
		t.Error(err)
	}
	equal(t, "recorded", map[string][]catalog.Copy{"done-" + string(run): {made()}}, c.copies)
	equal(t, "left", []string{"static other-mover"}, c.left())
}

// What could not be removed is an error, and so is a copy that could not be
// written down: its mover is the only trace of it.
func TestAbortSaysWhatIsLeft(t *testing.T) {
	c := newCluster(t)
	c.standing("done", true)
	c.standing("running", false)
	c.fail["done: record"] = errors.New("boom")
	c.fail["running: remove mover"] = errors.New("bang")
	err := offsite.Abort(t.Context(), c, at, "backsnap", run, &events{})
	if err == nil || !strings.Contains(err.Error(), "boom") || !strings.Contains(err.Error(), "bang") {
		t.Errorf("error %v", err)
	}
	if left := c.left(); len(left) != 6 {
		t.Errorf("left %v", left)
	}
}

func TestCollectEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	c.standing("data", true)
	c.part("left", restic.Mover{Static: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	outcomes, err := offsite.Sweep(ctx, c, at, holding(), &events{})
	equal(t, "state", offsite.Detached, outcomes[0].State)
	equal(t, "code", catalog.CodeInterrupted, catalog.CodeOf(err))
	equal(t, "left", []string{"clone data-mover", "mover data-mover", "static data-mover", "static left-mover"}, c.left())
}

// Whoever follows a run takes its movers in, also those that have not finished
// yet, and those that the watch does not show any more.
func TestFollow(t *testing.T) {
	for _, blind := range []bool{false, true} {
		c := newCluster(t)
		c.blind = blind
		c.standing("done", true)
		c.standing("running", false)
		c.part("begun", restic.Mover{Static: true})
		c.part("other", restic.Mover{Run: "20261101-011500-bbbb", Job: true, Finished: true, Static: true})
		c.follow["running"] = says(ends(12, "check", 0))
		ended := make(chan struct{})
		close(ended)
		outcomes, err := offsite.Follow(t.Context(), c, at, "backsnap", run, ended, &events{})
		equal(t, "outcomes", 2, len(outcomes))
		equal(t, "code", catalog.CodeRepoPassword, catalog.CodeOf(err))
		equal(t, "recorded", map[string][]catalog.Copy{"done-" + string(run): {made()}}, c.copies)
		equal(t, "left", []string{"mover other-mover", "static begun-mover", "static other-mover"}, c.left())
	}
}

// ^C leaves the movers as they are.
func TestFollowEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	c.standing("data", false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := offsite.Follow(ctx, c, at, "backsnap", run, nil, &events{})
	equal(t, "code", catalog.CodeInterrupted, catalog.CodeOf(err))
	equal(t, "left", []string{"clone data-mover", "mover data-mover", "static data-mover"}, c.left())
}
