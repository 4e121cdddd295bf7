package offsite

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// The defaults of a Request.
const (
	DefaultImage           = restic.DefaultImage
	DefaultParallel        = 4
	DefaultDeadline        = 24 * time.Hour
	DefaultBackupNamespace = "backsnap"
)

// Request is what was asked for.
type Request struct {
	Run             catalog.Run
	BackupNamespace string
	// Repositories are those to copy to, by name. nil is all that there are,
	// an empty slice none.
	Repositories []string
	// Choice is that of single claims, by `namespace/claim`: what their
	// annotation says, read by ParseRepositories. It goes before Repositories.
	Choice map[string][]string
	// InNamespace: each copy is made beside its snapshot, into a repository of
	// that namespace.
	InNamespace bool
	Image       string        // with restic in it
	Pod         restic.Pod    // of the movers
	UploadLimit int           // KiB/s of one mover; 0 for none
	Parallel    int           // movers at once, at least 1
	PerNode     int           // movers of all runs on one node; 0: as many as fit
	Deadline    time.Duration // of restic in a mover
	// RetryLock is how long a mover waits for a lock of somebody who is alive,
	// or of whom that is not known; 0 for not at all.
	RetryLock time.Duration
	// Detach: Run starts the movers, all of them, and waits for none.
	Detach bool
	// Timeout is how long Run waits; what still runs then is left running.
	// 0 waits until the end.
	Timeout time.Duration
}

// Plan is the copies that are to be made.
type Plan struct {
	Request Request
	Copies  []Copy // by namespace, claim, repository
}

// Copy is one copy of one snapshot into one repository.
type Copy struct {
	Snapshot   catalog.Snapshot
	Repository catalog.Repository
	// Name is that of its content, snapshot, clone and Job.
	Name string
	// Recorded: it is on record among Snapshot.Copies and not made again.
	Recorded bool
	// Adopted is the earlier run whose mover, of that name, makes it already;
	// "" for none.
	Adopted catalog.Run
}

// Beside reports whether the mover runs in the snapshot's own namespace, where
// it needs no static copy of it.
func (c Copy) Beside() bool { return c.Repository.Namespace == c.Snapshot.Namespace }

// String is `shop/data to main`.
func (c Copy) String() string {
	return fmt.Sprintf("%s/%s to %s", c.Snapshot.Namespace, c.Snapshot.Claim, c.Repository.Name)
}

// ParseRepositories reads the value of --repository or of the annotation:
// nil for "", an empty slice for `none`, else the names between its commas,
// each once.
func ParseRepositories(text string) ([]string, error) {
	switch text {
	case "":
		return nil, nil
	case "none":
		return []string{}, nil
	}
	names := strings.Split(text, ",")
	for i, name := range names {
		if names[i] = strings.TrimSpace(name); names[i] == "" || names[i] == "none" {
			return nil, fmt.Errorf("repositories %q: want names with commas between them, or none", text)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Find is the repository of that name; else a catalog.Failure that says which
// there are.
func Find(repositories []catalog.Repository, name string) (catalog.Repository, error) {
	var there []string
	for _, r := range repositories {
		if r.Name == name {
			return r, nil
		}
		there = append(there, r.Name)
	}
	state := "there is none"
	if len(there) > 0 {
		state = "there is " + strings.Join(there, ", ")
	}
	return catalog.Repository{}, &catalog.Failure{
		Code:    catalog.CodeNoSecret,
		Message: fmt.Sprintf("no repository %s", name),
		State:   state,
		Next:    fmt.Sprintf("label its Secret in the backup namespace: kubectl label secret NAME %s=%s", catalog.LabelRepository, name),
	}
}

// New plans the copies of snapshots, one into each repository that is asked
// for. It is pure. Snapshots that are planned themselves need Namespace,
// Name, Claim and Run only; those for Run are ready and have a record.
//
// The error joins a catalog.Failure for each repository that is asked for and
// cannot be used; the plan holds the rest.
func New(r Request, repositories []catalog.Repository, snapshots []catalog.Snapshot) (Plan, error) {
	p := planner{request: r, repositories: repositories, usable: map[string]error{}}
	for _, s := range snapshots {
		p.add(s)
	}
	slices.SortStableFunc(p.copies, func(a, b Copy) int {
		return cmp.Or(
			cmp.Compare(a.Snapshot.Namespace, b.Snapshot.Namespace),
			cmp.Compare(a.Snapshot.Claim, b.Snapshot.Claim),
			cmp.Compare(a.Repository.Name, b.Repository.Name))
	})
	return Plan{Request: r, Copies: p.copies}, errors.Join(p.errs...)
}

type planner struct {
	request      Request
	repositories []catalog.Repository
	usable       map[string]error // by namespace/name, once it has been asked for
	copies       []Copy
	errs         []error
}

// add plans the copies of s.
func (p *planner) add(s catalog.Snapshot) {
	for _, name := range p.request.Wanted(p.repositories, s) {
		r, ok := p.repository(s.Namespace, name)
		if !ok {
			continue
		}
		_, recorded := s.CopyIn(name)
		p.copies = append(p.copies, Copy{Snapshot: s, Repository: r, Name: objectName(p.request.Run, s, r), Recorded: recorded})
	}
}

// Wanted are the names of the repositories in which a copy of s is asked for,
// sorted, also of those that cannot be used. Repositories are those there are.
func (r Request) Wanted(repositories []catalog.Repository, s catalog.Snapshot) []string {
	names, chosen := r.Choice[s.Namespace+"/"+s.Claim]
	if !chosen {
		names = r.Repositories
	}
	if names != nil {
		return names
	}
	for _, there := range r.within(repositories, s.Namespace) {
		names = append(names, there.Name)
	}
	slices.Sort(names)
	return names
}

// place is where snapshots of namespace are copied: movers, and the Secrets of
// the repositories.
func (r Request) place(namespace string) string {
	if r.InNamespace {
		return namespace
	}
	return r.BackupNamespace
}

// within are those of the repositories that snapshots of namespace may be
// copied to.
func (r Request) within(repositories []catalog.Repository, namespace string) []catalog.Repository {
	place := r.place(namespace)
	return slices.DeleteFunc(slices.Clone(repositories), func(there catalog.Repository) bool { return there.Namespace != place })
}

// repository is the one of that name for snapshots of namespace, if it can be
// used. That it cannot is said once.
func (p *planner) repository(namespace, name string) (catalog.Repository, bool) {
	r, err := Find(p.request.within(p.repositories, namespace), name)
	if err == nil {
		err = initialised(r)
	}
	key := p.request.place(namespace) + "/" + name
	if _, said := p.usable[key]; !said && err != nil {
		p.errs = append(p.errs, err)
	}
	p.usable[key] = err
	return r, err == nil
}

// objectName is what everything is called that run makes for the copy of s
// into r: the claim's name for people; cluster and backup namespace as a mark,
// so that a lock tells whose it is; namespace, snapshot and repository as a
// hash, since claims of one name from many namespaces meet in the backup
// namespace; the run. It is a DNS label, and so are the names of its Job's pods.
func objectName(run catalog.Run, s catalog.Snapshot, r catalog.Repository) string {
	sum := sha256.Sum256([]byte(s.Namespace + "/" + s.Name + "/" + r.Name))
	tail := cmp.Or(restic.Mark(r), "-") + hex.EncodeToString(sum[:4])
	claim := strings.ReplaceAll(s.Claim, ".", "-")
	return catalog.ObjectName(catalog.Shorten(claim, maxJob-len(tail)-len(run)-1)+tail, run, maxJob)
}

// slot is the place on its node that the mover of copy i takes. Each run begins
// at a place of its own, so that two do not wait for each other at the same.
func (r Request) slot(i int) string {
	if r.PerNode == 0 {
		return ""
	}
	sum := sha256.Sum256([]byte(r.Run))
	return strconv.Itoa((int(sum[0]) + i) % r.PerNode)
}

// maxJob is the longest name that a Job may have whose pods bear it whole: they
// add a dash and five characters, and may have 63.
const maxJob = 57

// Repositories are those that the plan copies to, each once, by name.
func (p Plan) Repositories() []catalog.Repository {
	var used []catalog.Repository
	for _, c := range p.Copies {
		if !slices.ContainsFunc(used, func(r catalog.Repository) bool { return r.Name == c.Repository.Name }) {
			used = append(used, c.Repository)
		}
	}
	slices.SortFunc(used, func(a, b catalog.Repository) int { return cmp.Compare(a.Name, b.Name) })
	return used
}

// Namespaces are those that the movers run in, sorted.
func (p Plan) Namespaces() []string {
	var names []string
	for _, c := range p.Copies {
		names = append(names, c.Repository.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Rights are what Run needs to be allowed to do, none if there is nothing to
// copy.
func (p Plan) Rights() []catalog.Right {
	if len(p.Copies) == 0 {
		return nil
	}
	const snapshots = "snapshot.storage.k8s.io"
	var rights catalog.Rights
	for _, c := range p.Copies {
		ns := c.Repository.Namespace
		if !c.Beside() {
			// Who may make a content may read and delete it: one question is enough.
			rights.Add(snapshots, "volumesnapshotcontents", "", "create")
			rights.Add(snapshots, "volumesnapshots", ns, "create", "list", "watch", "delete")
		}
		rights.Add("", "persistentvolumeclaims", ns, "create", "watch", "delete")
		rights.Add("batch", "jobs", ns, "create", "list", "watch", "delete")
		rights.Add("", "pods", ns, "list", "watch")
		rights.Add(snapshots, "volumesnapshots", c.Snapshot.Namespace, "patch")
	}
	return rights
}

// Grants are Rights and what goes with them, which is not asked for one by one:
// a role made for it has them all.
func (p Plan) Grants() []catalog.Right {
	const snapshots = "snapshot.storage.k8s.io"
	grants := catalog.Rights(p.Rights())
	for _, c := range p.Copies {
		ns := c.Repository.Namespace
		grants.Add("", "persistentvolumeclaims", ns, "get", "list")
		grants.Join(WorkGrants(ns))
		if c.Beside() {
			continue
		}
		grants.Add(snapshots, "volumesnapshots", ns, "get")
		grants.Add(snapshots, "volumesnapshotcontents", "", "get", "list", "delete")
		grants.Add("storage.k8s.io", "storageclasses", "", "get")
		grants.Add("", "persistentvolumes", "", "get", "patch") // of a clone whose class retains volumes
	}
	return grants
}

// WorkGrants are what having a mover work on a repository in namespace takes.
func WorkGrants(namespace string) []catalog.Right {
	var grants catalog.Rights
	grants.Add("batch", "jobs", namespace, "create", "get", "list", "watch", "delete")
	grants.Add("", "pods", namespace, "list", "watch")
	grants.Add("", "pods/log", namespace, "get")
	grants.Add("", "events", namespace, "watch") // why a mover does not start
	return grants
}
