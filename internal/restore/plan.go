package restore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// The defaults of a Request.
const (
	DefaultParallel = 3
	DefaultDeadline = 24 * time.Hour
	DefaultTimeout  = time.Hour
)

// Request is what was asked for.
type Request struct {
	Run    catalog.Run
	Target Target
	// At is the time that the set may not be later than; zero for the latest.
	// AtText is how it is called.
	At     time.Time
	AtText string
	From   From
	// Cluster is the one whose copies are restored; "" for this one.
	Cluster string
	// List lists repositories; nil where none is to be asked. Sure: they are
	// asked in any case.
	List List
	Sure bool
	// Paths are all that is wanted of each volume, relative to its root, as
	// ParsePaths makes them; none for all of it.
	Paths []string
	// Local says that it is wanted on this machine; nil for new claims.
	Local *Local

	ToNamespace     string // "" for that of Target
	ToClaim         string // "" for `<claim>-restored-<time of the run>`; of one claim only
	StorageClass    string // "" for the recorded one
	Size            int64  // bytes; 0 for what the record and the snapshot need
	BackupNamespace string // where movers run
	Image           string // with restic in it
	Pod             restic.Pod
	Parallel        int // claims at once, at least 1
	// Deadline is how long restic may take in a mover, Timeout how long a
	// volume may take to be made, RetryLock how long a mover waits for a lock.
	Deadline, Timeout, RetryLock time.Duration
}

// Way is how a claim gets its data.
type Way string

// The ways.
const (
	Clone  Way = "clone"  // the storage clones the snapshot
	Static Way = "static" // the same, from a static copy of the snapshot in the claim's namespace
	Fill   Way = "fill"   // a mover fills a volume, which is then handed over
)

// Plan is what Run will do, and all that it needs to know.
type Plan struct {
	Request
	Chosen  []Chosen
	Passed  []Passed
	Lacking []Lacking
	Asked   Asked
	Makes   bool     // ToNamespace is not there, and made
	Volumes []Volume // by claim
}

// Volume is one claim that is to be made.
type Volume struct {
	Point
	Way        Way
	Claim      catalog.Claim // to be
	Class      catalog.StorageClass
	Repository catalog.Repository // where Way is Fill
	// Name is that of all that is made on the way: static copy, filled claim,
	// mover.
	Name string
	// Notes are what a person should know of it beforehand.
	Notes []string
	// To is the folder on this machine that Request.Local means for it, and
	// Dumps are those that are wanted.
	To    string
	Dumps []catalog.Dump
	// Exact is the size in bytes in which the claim is asked for if the storage
	// refuses the larger one of Claim; 0 for none.
	Exact int64
}

// Waits reports whether Run leaves the claim unbound: its volume is made when
// the first pod mounts it.
func (v Volume) Waits() bool { return v.Way != Fill && v.Class.WaitsForConsumer }

// Place is the namespace in which v is made, or, where Way is Fill, filled.
func (p Plan) Place(v Volume) string {
	if v.Way == Fill {
		return p.BackupNamespace
	}
	return v.Claim.Namespace
}

// MakePlan looks at the cluster and decides. It changes nothing. Its error is a
// catalog.Failure: nothing to restore from, a name that is taken, a class that
// is not there, a size that is too small.
func MakePlan(ctx context.Context, c Cluster, r Request) (Plan, error) {
	return makePlan(ctx, c, r, restoredName)
}

// makePlan is MakePlan with the default names of new claims.
func makePlan(ctx context.Context, c Cluster, r Request, names called) (Plan, error) {
	r.ToNamespace = cmp.Or(r.ToNamespace, r.Target.Namespace)
	r, err := selecting(r)
	if err != nil {
		return Plan{}, err
	}
	f, err := find(ctx, c, r)
	if err != nil {
		return Plan{}, err
	}
	if r.Local != nil && slices.Contains(f.inventory.Lost, r.ToNamespace) {
		r.ToNamespace = r.BackupNamespace // nothing is made there, so another will do
	}
	p := planner{Request: r, inventory: f.inventory, cluster: c, classes: map[string]catalog.StorageClass{}, called: names}
	plan := Plan{Request: r, Chosen: f.Chosen, Passed: f.Passed, Lacking: f.Lacking, Asked: f.Asked}
	if plan.Makes, err = p.makes(); err != nil {
		return Plan{}, err
	}
	for _, chosen := range f.Chosen {
		p.own = p.ownNames(chosen)
		for _, point := range chosen.Points {
			v, err := p.volume(ctx, point)
			if err != nil {
				return Plan{}, err
			}
			plan.Volumes = append(plan.Volumes, v)
		}
	}
	if err := p.haveFiles(plan); err != nil {
		return Plan{}, err
	}
	if r.Local != nil {
		return p.local(plan)
	}
	return plan, p.checkNames(plan.Volumes)
}

// namespaces are those of this cluster that a plan is made from.
func namespaces(r Request) []string {
	names := []string{r.ToNamespace}
	if r.Cluster == "" {
		names = append(names, r.Target.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// checkRepository wants the repository that was named to be there.
func checkRepository(r Request, repositories []catalog.Repository) error {
	if r.From.Repository == "" || slices.ContainsFunc(repositories, func(there catalog.Repository) bool { return there.Name == r.From.Repository }) {
		return nil
	}
	return &catalog.Failure{
		Code: catalog.CodeNoSecret, Message: "no repository " + r.From.Repository, State: "nothing changed",
		Next: "see which there are: kubectl backsnap repo list",
	}
}

type planner struct {
	Request
	inventory catalog.Inventory
	cluster   Cluster
	classes   map[string]catalog.StorageClass // by name, those that were read
	own       bool                            // the claims get the names that they had
	called    called                          // where they do not
}

// volume plans the claim that point is restored to.
func (p *planner) volume(ctx context.Context, point Point) (Volume, error) {
	s := point.Snapshot
	source := s.Record.Claim
	v := Volume{Point: point, Way: p.way(point), Name: workName(p.Run, p.ToNamespace, s.Claim)}
	size, err := p.size(point)
	if err != nil {
		return v, err
	}
	if v.Class, err = p.class(ctx, s, v.Way); err != nil {
		return v, err
	}
	if point.Copy != nil {
		i := slices.IndexFunc(p.inventory.Repositories, func(r catalog.Repository) bool { return r.Name == point.Copy.Repository })
		v.Repository = p.inventory.Repositories[i] // Choose has taken it from there
	}
	labels := catalog.Ours("", p.Run)
	labels[catalog.LabelNamespace] = s.Namespace
	labels[catalog.LabelClaim] = catalog.ClaimLabel(s.Claim)
	modes := source.AccessModes
	if len(modes) == 0 {
		modes = []string{"ReadWriteOnce"}
	}
	v.Claim = catalog.Claim{
		Namespace: p.ToNamespace, Name: p.name(s.Claim),
		Labels: labels, Annotations: catalog.HandsOff(),
		StorageClass: v.Class.Name, Request: size, AccessModes: modes, VolumeMode: cmp.Or(source.VolumeMode, "Filesystem"),
	}
	p.mayShrink(&v)
	v.Notes = p.notes(v)
	return v, nil
}

func (p *planner) way(point Point) Way {
	switch {
	case point.Copy != nil:
		return Fill
	case point.Snapshot.Namespace != p.ToNamespace:
		return Static
	}
	return Clone
}

// refuse is a claim that cannot be restored as it was asked for.
func (p *planner) refuse(s catalog.Snapshot, code catalog.Code, reason, next string) error {
	return &catalog.Failure{
		Code: code, Message: fmt.Sprintf("%s not restored from %s: %s", s.Claim, s.Name, reason), State: "nothing changed", Next: next,
	}
}

// size is what was asked for, else the larger of what the claim had asked for
// and what the snapshot, or the image of a device, needs.
func (p *planner) size(point Point) (int64, error) {
	s := point.Snapshot
	source := s.Record.Claim
	needed := max(source.Request, s.RestoreSize, s.Record.RestoreSize)
	if point.block() {
		needed = max(needed, point.Copy.Bytes)
	}
	if needed == 0 {
		needed = source.Capacity
	}
	switch {
	case p.Size == 0 && needed == 0:
		return 0, p.refuse(s, catalog.CodeUsage, "its record names no size", "name one with --size")
	case p.Size == 0:
		return needed, nil
	case point.Copy == nil && exactSize(s) > 0 && p.Size >= exactSize(s): // some drivers make no other
	case p.Size < needed:
		return 0, p.refuse(s, catalog.CodeUsage, fmt.Sprintf("it needs %d bytes, --size is %d", needed, p.Size), fmt.Sprintf("--size %d, or leave it away", needed))
	}
	return p.Size, nil
}

// class is the one that was asked for, else the recorded one. A snapshot can
// be cloned by its own driver only.
func (p *planner) class(ctx context.Context, s catalog.Snapshot, way Way) (catalog.StorageClass, error) {
	name := cmp.Or(p.StorageClass, s.Record.Claim.StorageClass)
	if name == "" {
		return catalog.StorageClass{}, p.refuse(s, catalog.CodeNoClass, "its claim had no storage class", "name one with --storage-class")
	}
	class, known := p.classes[name]
	if !known {
		var err error
		class, err = p.cluster.StorageClass(ctx, name)
		if errors.Is(err, catalog.ErrGone) {
			return class, p.refuse(s, catalog.CodeNoClass, "there is no storage class "+name, "name another with --storage-class: kubectl get storageclasses")
		}
		if err != nil {
			return class, err
		}
		p.classes[name] = class
	}
	if driver := s.Record.Claim.Driver; way != Fill && class.Driver != "" && driver != "" && class.Driver != driver {
		return class, p.refuse(s, catalog.CodeNoClass, fmt.Sprintf("class %s is of driver %s, the snapshot of %s", name, class.Driver, driver),
			"name a class of that driver with --storage-class, or restore a copy: --from copy")
	}
	return class, nil
}

// notes are what is out of the ordinary.
func (p *planner) notes(v Volume) []string {
	var notes []string
	s := v.Snapshot
	i := slices.IndexFunc(p.inventory.Claims, func(c catalog.Claim) bool { return c.Namespace == s.Namespace && c.Name == s.Claim })
	if i >= 0 && s.Record.Claim.UID != "" && p.inventory.Claims[i].UID != s.Record.Claim.UID {
		notes = append(notes, fmt.Sprintf("claim %s was made anew since: this is of the one before, UID %s", s.Claim, s.Record.Claim.UID))
	}
	if v.Waits() {
		notes = append(notes, fmt.Sprintf("class %s waits for the first consumer: the volume is made when a pod mounts the claim", v.Class.Name))
	}
	if v.Waits() && v.Exact > 0 {
		notes = append(notes, fmt.Sprintf("if the storage then says that it makes a volume in the snapshot's own size only: --size %d", v.Exact))
	}
	if v.Waits() && v.Way == Static {
		notes = append(notes, fmt.Sprintf("until then the static copy %s of the snapshot has to stand; the next restore into %s removes it", v.Name, p.ToNamespace))
	}
	return notes
}

// checkNames refuses names that are taken, and one name for several claims.
func (p *planner) checkNames(volumes []Volume) error {
	if p.ToClaim != "" && len(volumes) > 1 {
		return &catalog.Failure{
			Code: catalog.CodeUsage, Message: fmt.Sprintf("--to-pvc %s: %s has %d claims", p.ToClaim, p.Target, len(volumes)),
			State: "nothing changed", Next: "restore one claim at a time, or leave --to-pvc away",
		}
	}
	for _, v := range volumes {
		if p.taken(v.Claim.Namespace, v.Claim.Name) {
			return &catalog.Failure{
				Code: catalog.CodeExists, Message: fmt.Sprintf("claim %s/%s is there already", v.Claim.Namespace, v.Claim.Name),
				State: "nothing changed", Next: "choose another name with --to-pvc",
			}
		}
	}
	return nil
}

// name is that of the new claim.
func (p *planner) name(claim string) string {
	if p.own {
		return cmp.Or(p.ToClaim, claim)
	}
	return cmp.Or(p.ToClaim, p.called(claim, p.Run))
}

// called is what a new claim with the data of claim is called.
type called func(claim string, run catalog.Run) string

// restoredName is the default name of a new claim that a person is to use.
func restoredName(claim string, run catalog.Run) string {
	const form = len("20261122-011500")
	return catalog.Shorten(claim, 253-len("-restored-")-form) + "-restored-" + string(run)[:min(form, len(run))]
}

// passingName is that of a claim that is gone once its volume has found its
// place: no other run has the same, however soon it begins.
func passingName(claim string, run catalog.Run) string {
	return catalog.SnapshotName(claim+"-restored", run)
}

// workName is what everything is called that is made on the way to claim in
// that namespace. It is a DNS label, as a pod's host name is, and unlike those
// of other claims of that name: contents are in no namespace.
func workName(run catalog.Run, namespace, claim string) string {
	sum := sha256.Sum256([]byte(namespace + "/" + claim))
	tail := "-" + hex.EncodeToString(sum[:4])
	return catalog.ObjectName(catalog.Shorten(strings.ReplaceAll(claim, ".", "-"), 63-len(tail)-len(run)-1)+tail, run, 63)
}

// Rights are what Run needs to be allowed to do.
func (p Plan) Rights() []catalog.Right {
	const snapshots, storage = "snapshot.storage.k8s.io", "persistentvolumes"
	var rights catalog.Rights
	for _, v := range p.Volumes {
		if p.Local != nil {
			p.localRights(v, &rights)
			continue
		}
		to := v.Claim.Namespace
		rights.Add("", "persistentvolumeclaims", to, "create", "get", "watch", "delete")
		switch v.Way {
		case Static:
			rights.Add(snapshots, "volumesnapshotcontents", "", "get", "create", "delete")
			rights.Add(snapshots, "volumesnapshots", to, "create", "list", "watch", "delete")
		case Fill:
			rights.Add("", "persistentvolumeclaims", p.BackupNamespace, "create", "get", "watch", "delete")
			rights.Add("batch", "jobs", p.BackupNamespace, "create", "watch", "delete")
			rights.Add("", "pods", p.BackupNamespace, "list", "watch")
			rights.Add("", storage, "", "get", "patch")
		}
		if v.Way != Fill {
			rights.Add(snapshots, "volumesnapshots", v.Snapshot.Namespace, "get")
		}
	}
	if p.Makes {
		rights.Add("", "namespaces", "", "create")
	}
	rights.Add("coordination.k8s.io", "leases", p.ToNamespace, "create", "get", "update", "delete")
	return rights
}

// job is the mover that fills the claim of that name.
func (v Volume) job(p Plan) (restic.Job, error) {
	return restic.Restore{
		Namespace: p.BackupNamespace, Name: v.Name, Image: p.Image, Repository: v.Repository, Run: p.Run,
		Source: catalog.Source{
			Namespace: v.Claim.Namespace, Claim: v.Snapshot.Claim, Snapshot: v.Snapshot.Name, UID: v.Snapshot.UID,
			Repository: v.Repository.Name, Restores: v.Claim.Name,
		},
		From: v.Snapshot.Namespace, Snapshot: v.Copy.Snapshot, Claim: v.Name, Block: v.block(), Size: v.Copy.Bytes, Paths: v.paths(p.Request),
		NodeAffinity: v.Snapshot.Record.Claim.NodeAffinity, Deadline: p.Deadline,
		Pod: p.Pod, Locks: restic.Locks{Retry: p.RetryLock},
	}.Job()
}
