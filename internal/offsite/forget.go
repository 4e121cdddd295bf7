package offsite

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Shelf is what of a repository a cluster may judge.
type Shelf struct {
	// Copies are this cluster's beyond doubt: what restic calls the host, and
	// every tag that says whose they are, say the same. Each is as the snapshot
	// that it was made of, with that copy alone.
	Copies []catalog.Snapshot
	// Doubtful are restic's ids of those that carry this cluster's name and
	// contradict themselves.
	Doubtful []string
}

// Copies are those in the repository that may be judged: all of them, or an
// error, as List's.
func Copies(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, w catalog.Watcher) (Shelf, error) {
	all, err := everything(ctx, c, now, r, w)
	if err != nil {
		return Shelf{}, err
	}
	var shelf Shelf
	notes := restic.Notes(all)
	for _, s := range all {
		if s.Cluster() != r.Repository.Cluster {
			continue
		}
		shot := copied(s, r.Repository.Name)
		if !agrees(s, shot, r.Repository.Cluster) {
			shelf.Doubtful = append(shelf.Doubtful, s.ID)
			continue
		}
		shot.Copies[0].Note = notes[s.ID]
		shot.Copies[0].Partial = shot.Copies[0].Note != ""
		shelf.Copies = append(shelf.Copies, shot)
	}
	return shelf, nil
}

// agrees reports whether the copy s, read as shot, says of itself everywhere
// that it is of the same claim of that cluster, and from a run.
func agrees(s restic.Snapshot, shot catalog.Snapshot, cluster string) bool {
	claim := s.Tag("pvc")
	_, err := catalog.ParseRun(s.Tag("run"))
	return err == nil && shot.Namespace != "" && claim != "" && shot.UID != "" && s.Host == restic.Host(cluster, shot.Namespace, claim) &&
		(shot.Record == nil || shot.Record.Claim.Name == claim)
}

// Forget has restic take the snapshots of these ids, and no others, away from
// the repository. One that is not there is no error, and no answer of restic's
// is proof: who wants to know lists again. kept says that restic could not
// remove all of them, as where a repository lets nothing be removed.
func Forget(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, ids []string, w catalog.Watcher) (kept bool, err error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not pruned", again: r.pruneAgain(), late: r.Late}
	if err := t.ready(); err != nil {
		return false, err
	}
	parts, err := restic.ForgetArgs(ids)
	if err != nil {
		return false, err
	}
	for _, part := range parts {
		report, _, err := t.work(ctx, restic.StepForget, part...)
		if report.Kept() {
			kept = true
			continue
		}
		if err != nil {
			return kept, stated(t.failed(ctx, err), fmt.Sprintf("some of %d snapshots may be gone from it; the next prune goes on", len(ids)))
		}
	}
	return kept, nil
}

// Prune has restic free the room of what no snapshot needs any more, as much of
// it as repackSize allows. freed is how much that was, in restic's words.
func Prune(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, repackSize string, uploadLimit int, w catalog.Watcher) (freed string, err error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not freed of what was forgotten", again: r.pruneAgain(), late: r.Late}
	if err := t.ready(); err != nil {
		return "", err
	}
	report, _, err := t.work(ctx, restic.StepPrune, restic.PruneArgs(repackSize, uploadLimit)...)
	if err != nil {
		return "", stated(t.failed(ctx, err), "no copy that was kept is touched; the room is freed by the next prune")
	}
	return report.Freed(), nil
}

// pruneAgain is the command that prunes once more.
func (r WorkRequest) pruneAgain() string {
	scope := " -A"
	if len(r.Of) == 1 {
		scope = " -n " + r.Of[0]
	}
	return "kubectl backsnap prune" + scope + at(r.Repository.Namespace)
}

// stated is err with another state, where it is a failure that has one.
func stated(err error, state string) error {
	var f *catalog.Failure
	if errors.As(err, &f) {
		f.State = state
	}
	return err
}
