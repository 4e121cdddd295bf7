package catalog

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Inventory is what one look at a cluster shows, one List a kind: all that a
// plan is made from. Every slice may be empty and is sorted by namespace and
// name.
type Inventory struct {
	// Namespaces are the annotations of each namespace seen, by its name. A
	// namespace whose annotations may not be read is there with nil.
	Namespaces map[string]map[string]string
	// Lost are those in scope that do not exist, where the scope allows that.
	Lost    []string
	Claims  []Claim
	Pods    []Pod
	Classes []SnapshotClass
	// Repositories are those of the backup namespace, or, where the scope says
	// so, of its namespaces.
	Repositories []Repository
	// Unread are the kinds that the caller may not read or was not to: what
	// they would tell is not known.
	Unread []string
}

// Kinds of the whole cluster that an inventory can do without.
const (
	KindVolumes    = "persistentvolumes"
	KindClasses    = "volumesnapshotclasses"
	KindNamespaces = "namespaces"
)

// BlockMode is the VolumeMode of a volume without a file system.
const BlockMode = "Block"

// Claim is a PersistentVolumeClaim and what matters of its volume.
type Claim struct {
	Namespace, Name, UID string
	Labels, Annotations  map[string]string
	Role                 Role   // "" for a claim that is not ours
	Phase                string // Pending, Bound, Lost
	Terminating          bool
	Volume               string // PersistentVolume; "" until bound
	StorageClass         string
	// Driver is the CSI driver of the volume; "" where it is no CSI volume or
	// the claim is not bound.
	Driver            string
	Request, Capacity int64 // bytes
	AccessModes       []string
	VolumeMode        string // Filesystem or Block
	FileSystem        string
	// FilledFrom is the VolumeSnapshot, namespace/name, that its volume is, or
	// was, filled from; "" for none.
	FilledFrom string
	// NodeAffinity is the volume's spec.nodeAffinity as JSON; nil for none.
	NodeAffinity json.RawMessage
}

// Record is c as a snapshot's record has it.
func (c Claim) Record() ClaimRecord {
	return ClaimRecord{
		Name: c.Name, UID: c.UID, Request: c.Request, Capacity: c.Capacity, StorageClass: c.StorageClass, Driver: c.Driver,
		AccessModes: c.AccessModes, VolumeMode: c.VolumeMode, FileSystem: c.FileSystem, NodeAffinity: c.NodeAffinity,
	}
}

// Pod is a pod that mounts claims.
type Pod struct {
	Namespace, Name, UID string
	Labels, Annotations  map[string]string
	// Owner is the top workload: the Deployment of a ReplicaSet's pod, the
	// pod itself where nothing owns it.
	Owner       Workload
	Phase       string
	Ready       bool // all containers
	Terminating bool
	Node        string
	Started     time.Time
	Containers  []Container
}

// Container is one container of a pod that runs.
type Container struct {
	Name, Image string
	// User is the uid that its pod's spec says it runs as; nil where the image
	// decides.
	User   *int64
	Ready  bool
	Ports  []Port
	Env    []string // names only: values are none of our business
	Mounts []Mount
}

// Port is one port that a container declares.
type Port struct {
	Name   string
	Number int
}

// Mount is one claim in a container.
type Mount struct {
	Claim, Path, SubPath string
	ReadOnly             bool
}

// Workload names an app: its kind in lower case, as kubectl's TYPE/NAME has it.
type Workload struct {
	Kind, Name string // statefulset, deployment, daemonset, pod, job, ...
}

// String is `statefulset/mysql`.
func (w Workload) String() string { return w.Kind + "/" + w.Name }

// Typed reports whether the command line takes it by its TYPE: it has none for
// the kinds of operators.
func (w Workload) Typed() bool {
	return slices.Contains([]string{"statefulset", "deployment", "daemonset", "pod"}, w.Kind)
}

// SnapshotClass is a VolumeSnapshotClass.
type SnapshotClass struct {
	Name, Driver   string
	Default        bool
	DeletionPolicy string // Delete or Retain
}

// Repository is a restic repository: a labelled Secret in the backup namespace.
type Repository struct {
	Name              string
	Namespace, Secret string
	// Address is RESTIC_REPOSITORY without its userinfo, to be printed.
	Address string
	// Cluster is this cluster's name in restic's host names; "" until
	// `repo init` has set it.
	Cluster string
	// Keys are the names of the Secret's entries, sorted.
	Keys []string
	// ServiceAccount is whose identity its movers have, "" for nobody's.
	ServiceAccount string
	// Claim is the PersistentVolumeClaim beside the Secret that the repository
	// lies on; "" for one that lies elsewhere.
	Claim string
}

// Claims are the names of the claims that p mounts, sorted, each once.
func (p Pod) Claims() []string {
	var names []string
	for _, c := range p.Containers {
		for _, m := range c.Mounts {
			names = append(names, m.Claim)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Redact is a restic address without the user name and password it may hold,
// as in `rest:https://user:password@host/`. Where it cannot be told whether a
// slash belongs to the password, the host is left out too.
func Redact(address string) string {
	scheme, rest, found := strings.Cut(address, "://")
	at := strings.LastIndexByte(rest, '@')
	if !found || at < 0 {
		return address
	}
	if strings.Contains(rest[:at], "/") {
		return scheme + "://***@" + rest[at+1:]
	}
	return scheme + "://" + rest[at+1:]
}

// Sort puts the inventory's slices in order of namespace and name.
func (v *Inventory) Sort() {
	slices.SortFunc(v.Claims, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(v.Pods, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), natural(a.Name, b.Name))
	})
	slices.SortFunc(v.Classes, func(a, b SnapshotClass) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(v.Repositories, func(a, b Repository) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
	})
	slices.Sort(v.Unread)
}

// natural orders the pods of a StatefulSet by ordinal: mysql-2 before mysql-10.
func natural(a, b string) int {
	if strings.TrimRight(a, "0123456789") == strings.TrimRight(b, "0123456789") {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}
	return cmp.Compare(a, b)
}

// Scope is what an inventory covers.
type Scope struct {
	All             bool     // every namespace
	Namespaces      []string // those, where All is false
	BackupNamespace string   // whose repositories are listed; "" for none
	// Lost: a namespace that does not exist is no error.
	Lost bool
	// InNamespace: repositories are those of the namespaces in scope, which must be
	// readable, and no kind of the whole cluster is looked at.
	InNamespace bool
	// Repositories are the names of those that are meant; nil for all. Where
	// Secrets may not be listed they are read by name: that of the Secret is
	// then the repository's, as `repo create` has it.
	Repositories []string
}

// Rights are what looking at all of it takes: a role made for it has them. What
// only adds to the picture may be missing.
func (s Scope) Rights() Rights {
	var rights Rights
	places, secrets := s.Namespaces, []string{s.BackupNamespace}
	if s.All {
		places = []string{""}
	}
	if s.InNamespace {
		secrets = places
	}
	for _, place := range places {
		rights.Add("", "persistentvolumeclaims", place, "list")
		rights.Add("", "pods", place, "list")
		if !s.All {
			rights.Add("", "namespaces", place, "get")
		}
	}
	if s.All {
		rights.Add("", "namespaces", "", "list")
	}
	if !s.InNamespace {
		rights.Add("", "persistentvolumes", "", "list")
		rights.Add("snapshot.storage.k8s.io", "volumesnapshotclasses", "", "list")
	}
	for _, place := range secrets {
		rights.secrets(place, s.Repositories)
	}
	return rights
}

// secrets adds what reading the Secrets of those repositories takes, nil for all.
func (r *Rights) secrets(place string, repositories []string) {
	if repositories == nil {
		r.Add("", "secrets", place, "list")
	}
	for _, name := range repositories {
		r.add(Right{Verb: "get", Resource: "secrets", Namespace: place, Name: name})
	}
}

// Right is one thing that a run needs to be allowed to do.
type Right struct {
	Verb, Group, Resource string // Resource may be pods/exec
	Namespace             string // "" for cluster-scoped resources
	Name                  string // of the one object; "" for all
}

// Rights are all that a run needs, each once.
type Rights []Right

// Add adds those of verbs on one resource that are not there yet.
func (r *Rights) Add(group, resource, namespace string, verbs ...string) {
	for _, verb := range verbs {
		r.add(Right{Verb: verb, Group: group, Resource: resource, Namespace: namespace})
	}
}

// Join adds those of others that are not there yet.
func (r *Rights) Join(others []Right) {
	for _, right := range others {
		r.add(right)
	}
}

func (r *Rights) add(right Right) {
	if !slices.Contains(*r, right) {
		*r = append(*r, right)
	}
}

// String is `create volumesnapshots.snapshot.storage.k8s.io in shop`.
func (r Right) String() string {
	s := r.Verb + " " + r.Resource
	if r.Group != "" {
		s += "." + r.Group
	}
	if r.Name != "" {
		s += " " + r.Name
	}
	if r.Namespace != "" {
		s += " in " + r.Namespace
	}
	return s
}
