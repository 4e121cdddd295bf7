package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// pruneCopyFlags say which copies are pruned, and how the movers are made that
// do it.
type pruneCopyFlags struct {
	podFlags
	lockWait
	inNamespace            bool
	backupNamespace        string
	repository, keepCopies string
	maxRepack              string
	cacheClaim, cacheSize  string
	deadline               time.Duration
	limitUpload            int
	repositories           []string         // what check has read; nil: all
	policy                 retention.Policy // of copies; nil: that of the snapshots
}

// add adds the flags, but for that of the backup namespace.
func (o *pruneCopyFlags) add(f *pflag.FlagSet) {
	f.StringVar(&o.repository, "repository", "", "Repositories whose copies are pruned too, `NAME,...`, or none; default: all that are initialised")
	f.StringVar(&o.keepCopies, "keep-copies", "", "How many `PERIODS=N,...` keep their copies; default: as the snapshots. Annotation "+catalog.AnnotationKeepCopies+" goes before it")
	f.StringVar(&o.maxRepack, "max-repack-size", restic.DefaultRepack, "How much `data` restic packs again at most to free room; the rest is left to the next prune")
	o.podFlags.add(f)
	o.addUser(f)
	o.lockWait.add(f)
	f.BoolVar(&o.inNamespace, "in-namespace", false, "Run the movers beside the app, with the repositories of its own namespace: needs no right beyond that")
	f.DurationVar(&o.deadline, "mover-deadline", offsite.DefaultDeadline, "The longest that one mover may take")
	f.StringVar(&o.cacheClaim, "cache-claim", "", "PersistentVolumeClaim beside the movers that keeps restic's cache; default: a folder that goes with the pod")
	f.StringVar(&o.cacheSize, "cache-size", "", "The `size` that this folder may grow to")
	f.IntVar(&o.limitUpload, "limit-upload", 0, "`KiB/s` that one mover sends at most; 0: any")
}

// check reads the flags; it refuses values that make no sense.
func (o *pruneCopyFlags) check() (err error) {
	mover := moverFlags{
		podFlags: o.podFlags, lockWait: o.lockWait, inNamespace: o.inNamespace, deadline: o.deadline, ttl: restic.DefaultPod().Keep,
		cacheClaim: o.cacheClaim, cacheSize: o.cacheSize, limitUpload: o.limitUpload,
	}
	if err := cmp.Or(mover.check(o.backupNamespace), restic.CheckRepack(o.maxRepack)); err != nil {
		return err
	}
	o.pod = mover.pod
	if o.repositories, err = offsite.ParseRepositories(o.repository); err != nil {
		return err
	}
	if o.keepCopies != "" {
		if o.policy, err = retention.ParsePolicy(o.keepCopies); err != nil {
			return fmt.Errorf("keep-copies: %w", err)
		}
	}
	return nil
}

// copyPruning is what a prune does with the copies of what it is about.
type copyPruning struct {
	env     *Env
	cluster Cluster
	flags   *pruneCopyFlags
	watcher progress
	request prune.Request
	atOnce  bool
	nonce   string // "" until it is drawn

	plans   []prune.CopyPlan
	errs    []error            // of each plan; nil where it can be run
	results []prune.CopyResult // of each plan; nil before it was run
}

// plan has the repositories listed, all at once, and judges what lies there.
// That one cannot be judged is its error, and no reason to leave the others.
// rows are the restore points in scope: where all namespaces are meant, theirs
// are those that have repositories of their own.
func (c *copyPruning) plan(ctx context.Context, rows []prune.Row) error {
	requests, err := c.requests(ctx, rowNamespaces(c.request.Scope, rows))
	if err != nil {
		return err
	}
	c.plans, c.errs = make([]prune.CopyPlan, len(requests)), make([]error, len(requests))
	var running sync.WaitGroup
	for i, r := range requests {
		running.Go(func() { c.plans[i], c.errs[i] = prune.PlanCopies(ctx, c.cluster, r) })
	}
	running.Wait()
	return context.Cause(ctx)
}

// requests are one for each repository, and for each namespace where every one
// has a repository of its own.
func (c *copyPruning) requests(ctx context.Context, namespaces []string) ([]prune.CopyRequest, error) {
	if c.flags.repositories != nil && len(c.flags.repositories) == 0 {
		return nil, nil
	}
	places := []string{c.flags.backupNamespace}
	if c.flags.inNamespace {
		places = namespaces
	}
	var requests []prune.CopyRequest
	for _, place := range places {
		found, err := c.chosen(ctx, place)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			scope, of := c.request.Scope, []string{""}
			if c.flags.inNamespace {
				scope = catalog.Scope{Namespaces: []string{place}}
			}
			if strings.Contains(r.Address, "{namespace}") {
				of = namespaces
				if c.flags.inNamespace {
					of = []string{place}
				}
			}
			for _, namespace := range of {
				request, err := c.of(r, scope, namespace, len(requests))
				if err != nil {
					return nil, err
				}
				requests = append(requests, request)
			}
		}
	}
	return requests, nil
}

// chosen are the repositories in place that are meant.
func (c *copyPruning) chosen(ctx context.Context, place string) ([]catalog.Repository, error) {
	found, err := c.cluster.Repositories(ctx, place, c.flags.repositories...)
	if err != nil {
		return nil, err
	}
	if c.flags.repositories == nil {
		return slices.DeleteFunc(found, func(r catalog.Repository) bool { return r.Cluster == "" }), nil
	}
	var named []catalog.Repository
	for _, name := range c.flags.repositories {
		r, err := offsite.Find(found, name)
		if err != nil {
			return nil, err
		}
		named = append(named, r)
	}
	return named, nil
}

// of is the work on the copies in r of the snapshots in scope. namespace is what
// {namespace} stands for, number tells it from other works of the run.
func (c *copyPruning) of(r catalog.Repository, scope catalog.Scope, namespace string, number int) (prune.CopyRequest, error) {
	if c.nonce == "" { // each mover has a log of its own: one does for all
		var drawn [16]byte
		if _, err := io.ReadFull(c.env.Random, drawn[:]); err != nil {
			return prune.CopyRequest{}, fmt.Errorf("draw nonce: %w", err)
		}
		c.nonce = hex.EncodeToString(drawn[:])
	}
	if namespace != "" {
		scope = catalog.Scope{Namespaces: []string{namespace}}
	}
	request := prune.CopyRequest{Request: c.request, Repository: r, For: namespace, Explicit: c.flags.policy != nil, AtOnce: c.atOnce}
	request.Scope = scope
	if request.Explicit {
		request.Policy = c.flags.policy
	}
	request.Store = &store{pruning: c, number: number, work: offsite.WorkRequest{
		Run: c.request.Run, Repository: r, Namespace: namespace, Of: scope.Namespaces, Image: c.flags.image, Pod: c.flags.pod,
		Deadline: c.flags.deadline, RetryLock: c.flags.retryLock, Nonce: c.nonce,
	}}
	return request, nil
}

// run does what was planned, one repository after the other. One that could not
// be judged has its error as result.
func (c *copyPruning) run(ctx context.Context) {
	c.results = make([]prune.CopyResult, len(c.plans))
	results := c.results
	for i, p := range c.plans {
		if c.errs[i] != nil || p.Idle() {
			results[i].Err = c.errs[i]
			continue
		}
		if err := context.Cause(ctx); err != nil {
			results[i].Err = err
			continue
		}
		results[i] = prune.RunCopies(ctx, c.cluster, c.env.Now, p, c.watcher)
	}
}

// store is one repository at work.
type store struct {
	pruning *copyPruning
	work    offsite.WorkRequest
	number  int
	movers  int // that were asked for so far
}

// next is the next work: its movers have names of their own.
func (s *store) next() offsite.WorkRequest {
	s.movers++
	r := s.work
	r.Late = fmt.Sprintf("-%d-%d", s.number, s.movers)
	return r
}

// List is what may be judged there.
func (s *store) List(ctx context.Context) ([]catalog.Snapshot, []string, error) {
	shelf, err := offsite.Copies(ctx, s.pruning.cluster, s.pruning.env.Now, s.next(), s.pruning.watcher)
	return shelf.Copies, shelf.Doubtful, err
}

// Hold takes the repository's Lease. It waits as long as for a lock of
// restic's.
func (s *store) Hold(ctx context.Context) (context.Context, func() error, error) {
	r := s.work.Repository
	return s.pruning.env.Lock(ctx, s.pruning.cluster, Lock{
		Run: s.work.Run, Namespaces: []string{r.Namespace}, Timeout: s.work.RetryLock, Lease: catalog.RepositoryLease(r.Name),
	})
}

// Forget has restic forget these ids.
func (s *store) Forget(ctx context.Context, ids []string) (bool, error) {
	return offsite.Forget(ctx, s.pruning.cluster, s.pruning.env.Now, s.next(), ids, s.pruning.watcher)
}

// Prune has restic free room.
func (s *store) Prune(ctx context.Context) (string, error) {
	flags := s.pruning.flags
	return offsite.Prune(ctx, s.pruning.cluster, s.pruning.env.Now, s.next(), flags.maxRepack, flags.limitUpload, s.pruning.watcher)
}

// rights are what pruning copies needs to be allowed to do.
func (c *copyPruning) rights() []catalog.Right {
	var rights catalog.Rights
	for i, p := range c.plans {
		if c.errs[i] != nil || p.Idle() {
			continue
		}
		rights.Join(copyRights(p.Copies.Repository.Namespace, len(p.Doing(retention.Sweep)) > 0))
	}
	return rights
}

// copyRights are what marking copies in a repository of that namespace takes, and
// where some are swept what having a mover do that takes.
func copyRights(place string, sweeps bool) []catalog.Right {
	var rights catalog.Rights
	rights.Add("", "configmaps", place, "get", "create", "patch")
	if sweeps {
		rights.Add("batch", "jobs", place, "create", "list", "watch", "delete")
		rights.Add("", "pods", place, "list", "watch")
		rights.Join(leases(place))
	}
	return rights
}

// idle reports whether nothing is to be done, or can be.
func (c *copyPruning) idle() bool {
	for i, p := range c.plans {
		if c.errs[i] == nil && !p.Idle() {
			return false
		}
	}
	return true
}

// sweeps is how many copies are to be forgotten.
func (c *copyPruning) sweeps() (sets, copies int) {
	for i, p := range c.plans {
		if c.errs[i] == nil {
			for _, row := range p.Doing(retention.Sweep) {
				sets, copies = sets+1, copies+len(row.Snapshots)
			}
		}
	}
	return sets, copies
}

// removing is the question before anything is removed.
func removing(sets, copied, copies int) string {
	if copied == 0 {
		return fmt.Sprintf("Remove %d sets?", sets)
	}
	return fmt.Sprintf("Remove %d sets, and %d copies of %d sets in repositories?", sets, copies, copied)
}

// stateForgotten is the state of a copy that is gone from its repository.
const stateForgotten = "Forgotten"

// copyStates are the states of copies that standard output tells.
var copyStates = map[string]string{stateForgotten: "forgotten", string(prune.Marked): "marked", string(prune.Unmarked): "unmarked"}

// copyLine is what standard output says of one copy.
func copyLine(repository, id, word string, nameOnly bool) string {
	name := "copy/" + repository + "/" + short(id)
	if nameOnly {
		return name
	}
	return name + " " + word
}

// report adds the copies to the document: what is to become of them, and what
// has, where that is known. The failures are those of whole repositories.
func (c *copyPruning) report(doc *pruneDoc) (failures []error) {
	for i, p := range c.plans {
		result := prune.CopyResult{Err: c.errs[i]}
		if c.results != nil {
			result = c.results[i]
		}
		failures = append(failures, split(result.Err)...)
		failures = append(failures, p.Bad...)
		states := map[string]string{}
		for state, rows := range map[string][]prune.Row{stateForgotten: result.Forgotten, string(prune.Marked): result.Marked, string(prune.Unmarked): result.Unmarked} {
			for _, row := range rows {
				for _, s := range row.Snapshots {
					states[s.Copies[0].Snapshot] = state
				}
			}
		}
		for _, row := range p.Rows {
			item := pruneItemOf(row)
			item.Repository = p.Copies.Repository.Name
			for j, s := range row.Snapshots {
				id := s.Copies[0].Snapshot
				item.Snapshots[j].Copy, item.Snapshots[j].State = id, states[id]
			}
			doc.Items = append(doc.Items, item)
		}
		doc.Notes = append(doc.Notes, copyNotes(p, result)...)
	}
	return failures
}

// copyNotes are what a person should know of a repository beside its rows.
func copyNotes(p prune.CopyPlan, r prune.CopyResult) []string {
	var notes []string
	name := p.Copies.Repository.Name
	if count := len(p.Doubtful); count > 0 {
		notes = append(notes, fmt.Sprintf("repository %s: %d copies are left alone: their host, tags or record do not agree, or cannot be read", name, count))
	}
	if p.Missing > 0 && r.Err == nil {
		notes = append(notes, fmt.Sprintf("repository %s: %d copies are on record and do not lie there", name, p.Missing))
	}
	return append(notes, r.Notes(p)...)
}

// printCopyPlans writes what is to become of copies, a table a repository.
func (p *pruning) printCopyPlans(w io.Writer) {
	for i, plan := range p.copies.plans {
		title := plan.Copies.Repository.Name
		if plan.Copies.For != "" {
			title += " of " + plan.Copies.For
		}
		if len(plan.Rows) > 0 {
			fmt.Fprintf(w, "\nCopies in repository %s\n", title)
			p.printRows(w, plan.Rows)
			fmt.Fprintln(w, p.summary(plan.Rows, "copies"))
		}
		for _, note := range copyNotes(plan, prune.CopyResult{Err: p.copies.errs[i]}) {
			fmt.Fprintf(w, "note: %s\n", printable(note))
		}
	}
}
