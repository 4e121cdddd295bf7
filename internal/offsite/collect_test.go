package offsite_test

import (
	"context"
	"errors"
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
		Namespace: "backsnap", Name: name, Run: run, Finished: finished,
		Source: catalog.Source{Namespace: "shop", Claim: claim, Snapshot: claim + "-" + string(run), UID: "uid-" + claim, Repository: "main"},
	})
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
	outcomes, err := offsite.Collect(t.Context(), c, at, "backsnap", w)
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
	_, err := offsite.Collect(t.Context(), c, at, "backsnap", &events{})
	equal(t, "code", catalog.CodeMover, catalog.CodeOf(err))
	equal(t, "left", []string{"clone data-mover", "mover data-mover", "static data-mover"}, c.left())
}

func TestCollectRemovesAMoverThatCopiedNothing(t *testing.T) {
	c := newCluster(t)
	c.movers = []restic.Mover{{Namespace: "backsnap", Name: "init-main", Run: run, Finished: true}}
	outcomes, err := offsite.Collect(t.Context(), c, at, "backsnap", &events{})
	equal(t, "outcomes", []offsite.Outcome(nil), outcomes)
	equal(t, "error", error(nil), err)
	equal(t, "calls", []string{"remove mover"}, c.diary[""])
}

func TestCollectEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	c.standing("data", true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	outcomes, err := offsite.Collect(ctx, c, at, "backsnap", &events{})
	equal(t, "state", offsite.Detached, outcomes[0].State)
	equal(t, "code", catalog.CodeInterrupted, catalog.CodeOf(err))
	equal(t, "left", []string{"clone data-mover", "mover data-mover", "static data-mover"}, c.left())
}
