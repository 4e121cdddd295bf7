package offsite

import (
	"cmp"
	"context"
	"path"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// Check has restic examine the repository: its structure, and the data of
// subset, in restic's words for --read-data-subset (`1/7`, `5%`, `10G`); "" for
// none. Faults are a catalog.Failure of CodeDamaged.
func Check(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, subset string, w catalog.Watcher) (restic.Findings, error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not examined", again: r.again("repo check")}
	if err := t.ready(); err != nil {
		return restic.Findings{}, err
	}
	var args []string
	if subset != "" {
		args = []string{"--read-data-subset", subset}
	}
	report, _, err := t.work(ctx, restic.StepExamine, args...)
	if report.Findings == nil {
		report.Findings = &restic.Findings{}
	}
	if report.Damaged() {
		t.undone = "is damaged"
	}
	if err != nil {
		return *report.Findings, t.failed(ctx, err)
	}
	return *report.Findings, nil
}

// ReadStats has restic count what the repository holds.
func ReadStats(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, w catalog.Watcher) (restic.Stats, error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not counted", again: r.again("repo stats")}
	if err := t.ready(); err != nil {
		return restic.Stats{}, err
	}
	_, answer, err := t.work(ctx, restic.StepStats)
	if err != nil {
		return restic.Stats{}, t.failed(ctx, err)
	}
	stats, err := restic.ReadStats(answer)
	if err != nil {
		return restic.Stats{}, t.failed(ctx, err)
	}
	return stats, nil
}

// Listed is what lies in a repository.
type Listed struct {
	// Snapshots are the copies of one cluster: each as the snapshot that it was
	// made of, with that copy alone.
	Snapshots []catalog.Snapshot
	// Clusters are the names of all others that have copies there, sorted.
	Clusters []string
}

// List is what lies in the repository of the cluster of that name, "" for this
// one, also of copies that are not whole: Partial says so. It is all of it, or
// an error: mostly a catalog.Failure of CodeListing.
func List(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, cluster string, w catalog.Watcher) (Listed, error) {
	all, err := everything(ctx, c, now, r, w)
	if err != nil {
		return Listed{}, err
	}
	partial := restic.Partial(all)
	var found Listed
	for _, s := range all {
		switch name := s.Cluster(); name {
		case "":
		case cmp.Or(cluster, r.Repository.Cluster):
			shot := copied(s, r.Repository.Name)
			shot.Copies[0].Partial = partial[s.ID]
			found.Snapshots = append(found.Snapshots, shot)
		default:
			found.Clusters = append(found.Clusters, name)
		}
	}
	slices.Sort(found.Clusters)
	found.Clusters = slices.Compact(found.Clusters)
	return found, nil
}

// ListRights are what List of r needs to be allowed to do.
func (r WorkRequest) ListRights() []catalog.Right {
	var rights catalog.Rights
	place := r.Repository.Namespace
	rights.Add("batch", "jobs", place, "create", "watch", "delete")
	rights.Add("", "pods", place, "list", "watch")
	rights.Add("", "pods/log", place, "get")
	return rights
}

// everything is what restic lists, of the namespaces asked for: all of it, or
// an error.
func everything(ctx context.Context, c Cluster, now func() time.Time, r WorkRequest, w catalog.Watcher) ([]restic.Snapshot, error) {
	t := &tending{cluster: c, now: now, request: r, watcher: w, undone: "not listed", again: r.listAgain(), long: r.shorter(), late: r.Late}
	if err := t.ready(); err != nil {
		return nil, err
	}
	_, answer, err := t.work(ctx, restic.StepList, restic.ListArgs(r.Of)...)
	if err != nil {
		return nil, t.failed(ctx, err)
	}
	all, err := restic.ReadSnapshots(answer)
	if err != nil {
		return nil, t.failed(ctx, err)
	}
	return all, nil
}

// listAgain is the command that lists once more.
func (r WorkRequest) listAgain() string {
	scope := " -A"
	if len(r.Of) == 1 {
		scope = " -n " + r.Of[0]
	}
	return "kubectl backsnap list" + scope + at(r.Repository.Namespace) + " --from-repository=" + r.Repository.Name
}

// shorter is how a list gets shorter that is longer than what a node keeps of a log.
func (r WorkRequest) shorter() string {
	text := "if that ends alike each time, the node keeps less of a log than the list takes: raise its kubelet's containerLogMaxSize"
	if len(r.Of) != 1 {
		text += ", or list one namespace: -n NAMESPACE"
	}
	return text
}

// copied is the snapshot that the copy s was made of, as far as its tags tell.
func copied(s restic.Snapshot, repository string) catalog.Snapshot {
	shot := catalog.Snapshot{
		Namespace: s.Tag("ns"), Name: s.Tag("snapshot"), UID: s.Tag("vsuid"), Claim: s.Tag("pvc"),
		Run: catalog.Run(s.Tag("run")), Consistency: catalog.Consistency(s.Tag("consistency")), Retain: s.Tag("retain"),
		DeleteAfter: s.Tag("delete-after"), Pinned: s.Tag("pin") != "",
		Cut: s.Time, Created: s.Time, CopyOnly: true,
		Copies: []catalog.Copy{{Repository: repository, Snapshot: s.ID, Bytes: s.Bytes, Files: s.Files, Added: s.Added, Finished: s.Ended}},
	}
	tag := s.Tag("record")
	if tag == "" {
		return shot
	}
	record, err := catalog.ReadTag(tag)
	if err != nil {
		shot.Err = err.Error()
	}
	if record != nil {
		shot.Record, shot.Claim, shot.RestoreSize, shot.Class = record, record.Claim.Name, record.RestoreSize, record.SnapshotClass
	}
	return shot
}

// Merge puts together what the cluster has and what lies in the repositories
// of these names. Of a copy the repository is the truth: one on record that
// does not lie there is left out.
func Merge(cluster, repositories []catalog.Snapshot, names []string) []catalog.Snapshot {
	merged := slices.Clone(cluster)
	at := map[string]int{}
	for i, s := range merged {
		merged[i].Copies = slices.DeleteFunc(slices.Clone(s.Copies), func(c catalog.Copy) bool { return slices.Contains(names, c.Repository) })
		at[identity(s)] = i
	}
	for _, s := range repositories {
		i, found := at[identity(s)]
		if !found || s.UID == "" { // whose it is, no tag says
			at[identity(s)] = len(merged)
			merged = append(merged, s)
			continue
		}
		merged[i].Copies = append(merged[i].Copies, s.Copies...)
	}
	for _, s := range merged {
		slices.SortStableFunc(s.Copies, byRepository)
	}
	return merged
}

// byRepository puts a copy that is not whole behind those of its repository
// that are.
func byRepository(a, b catalog.Copy) int {
	if c := cmp.Compare(a.Repository, b.Repository); c != 0 || a.Partial == b.Partial {
		return c
	}
	if a.Partial {
		return 1
	}
	return -1
}

// identity tells snapshots apart: by UID, which no two clusters share.
func identity(s catalog.Snapshot) string {
	return path.Join(s.Namespace, s.Name, s.UID)
}
