package cli_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// world is a cluster as cluster.yaml has it: short, and written back after
// each command, so that a script can compare what is left.
type world struct {
	Namespaces   map[string]map[string]string `json:"namespaces,omitempty"` // their annotations
	Classes      []worldClass                 `json:"classes,omitempty"`
	Claims       []worldClaim                 `json:"claims,omitempty"`
	Pods         []worldPod                   `json:"pods,omitempty"`
	Repositories []worldRepository            `json:"repositories,omitempty"`
	Snapshots    []worldSnapshot              `json:"snapshots,omitempty"`
	Contents     []worldContent               `json:"contents,omitempty"` // of no snapshot
	// Meanwhile are labels that a person sets, or with null takes off, once a
	// run has planned.
	Meanwhile map[string]map[string]*string `json:"meanwhile,omitempty"`
	Later     []worldSnapshot               `json:"later,omitempty"`  // that come, a second apart, once somebody watches; then comes ^C
	Movers    []worldMover                  `json:"movers,omitempty"` // that stand in the backup namespace
	Storage   worldStorage                  `json:"storage,omitzero"`
	// Absent: the backup namespace is not there. Pods are those of movers.
	Absent    bool              `json:"absent,omitempty"`
	Gone      []string          `json:"gone,omitempty"` // namespaces that are lost
	MoverPods []string          `json:"moverPods,omitempty"`
	Events    map[string]string `json:"events,omitempty"`  // about namespace/name
	Held      []string          `json:"held,omitempty"`    // namespace/run that holds it
	Dead      []string          `json:"dead,omitempty"`    // the same of a run that died; namespace/run/name where the Lease has another name
	Missing   []string          `json:"missing,omitempty"` // rights
	Busy      string            `json:"busy,omitempty"`    // namespace that another run holds
	Lost      string            `json:"lost,omitempty"`    // namespace that another run takes after two seconds
	Broken    string            `json:"broken,omitempty"`  // what the server fails with
	NoAPI     bool              `json:"noAPI,omitempty"`
	Interrupt string            `json:"interrupt,omitempty"` // when ^C comes: dump, create, copy
	// Apps are the workloads, Volumes those of restores in place.
	Apps    []worldApp    `json:"apps,omitempty"`
	Volumes []worldVolume `json:"volumes,omitempty"`
	// Marks are those of copies, by repository and restic snapshot.
	Marks map[string]map[string]string `json:"marks,omitempty"`
	// Restored are the claims that restores have made.
	Restored  []string        `json:"restored,omitempty"`
	Schedules []worldSchedule `json:"schedules,omitempty"`
	// History is what was done to it, in order of the alphabet.
	History []string `json:"history,omitempty"`
}

type worldClass struct {
	Name    string `json:"name"`
	Driver  string `json:"driver"`
	Default bool   `json:"default,omitempty"`
}

type worldClaim struct {
	Name        string            `json:"name"` // namespace/name, as all names here
	Driver      string            `json:"driver,omitempty"`
	Size        string            `json:"size,omitempty"`
	Mode        string            `json:"mode,omitempty"`
	Phase       string            `json:"phase,omitempty"`  // Bound
	Volume      string            `json:"volume,omitempty"` // pv-<claim>
	Role        string            `json:"role,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// worldPod mounts each of its claims at /NAME. Where a database runs in it, it
// has its data in the first.
type worldPod struct {
	Name     string    `json:"name"`
	Owner    string    `json:"owner"`
	Image    string    `json:"image"`
	Claims   []string  `json:"claims"`
	Database *database `json:"database,omitempty"`
}

type worldRepository struct {
	Name      string     `json:"name"`                // of its Secret, too
	Namespace string     `json:"namespace,omitempty"` // backsnap
	Address   string     `json:"address"`
	Cluster   string     `json:"cluster,omitempty"`
	Restic    worldError `json:"restic,omitzero"` // what it does to movers
	// Claim and Account are what create was told, Values what is in the Secret.
	Claim   string            `json:"claim,omitempty"`
	Account string            `json:"account,omitempty"`
	Values  map[string]string `json:"values,omitempty"`
	Locks   []worldLock       `json:"locks,omitempty"`
	Copies  []worldCopy       `json:"copies,omitempty"`
	Keeps   []string          `json:"keeps,omitempty"` // copies that cannot be removed
	Cut     bool              `json:"cut,omitempty"`   // the log of a mover ends early
	Left    int               `json:"left,omitempty"`  // snapshots that restic leaves out
	Faults  int               `json:"faults,omitempty"`
}

type worldLock struct {
	Host      string `json:"host"`
	PID       int    `json:"pid"`
	Exclusive bool   `json:"exclusive,omitempty"`
}

// worldCopy is a snapshot of restic's.
type worldCopy struct {
	ID   string    `json:"id"` // its first eight digits
	Host string    `json:"host"`
	Time time.Time `json:"time"`
	Tags []string  `json:"tags"`
	// App is that of the record, which is left out where it is empty.
	App     string   `json:"app,omitempty"`
	Members []string `json:"members,omitempty"` // of its set, in the record
}

// worldError is how restic ends in a mover.
type worldError struct {
	Exit  int    `json:"exit,omitempty"`
	Says  string `json:"says,omitempty"`
	Takes string `json:"takes,omitempty"` // 10s
	// Stuck is why the mover's pod never starts: `ImagePullBackOff: no such image`.
	Stuck string `json:"stuck,omitempty"`
	// Percent is the progress that it logs, a line every three seconds.
	Percent []int `json:"percent,omitempty"`
	// At is the only step that ends so; "" for every one.
	At string `json:"at,omitempty"`
	// Lacks is how many bytes are missing after a restore.
	Lacks int `json:"lacks,omitempty"`
	// Exists: a repository is there already.
	Exists bool `json:"exists,omitempty"`
}

type worldSnapshot struct {
	Name        string            `json:"name"`
	Claim       string            `json:"pvc"`
	App         string            `json:"app,omitempty"` // where it has a record
	Role        string            `json:"role,omitempty"`
	Run         string            `json:"run"`
	Consistency string            `json:"consistency,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	Retain      string            `json:"retain,omitempty"`
	DeleteAfter string            `json:"deleteAfter,omitempty"`
	Marked      time.Time         `json:"marked,omitzero"`
	BackupNS    bool              `json:"backupNS,omitempty"` // backup-ns looks after it
	Pinned      bool              `json:"pinned,omitempty"`
	PinnedAs    string            `json:"pinnedAs,omitempty"`
	Policy      string            `json:"policy,omitempty"` // of its content; Delete
	Lent        bool              `json:"lent,omitempty"`   // that content
	Periods     map[string]string `json:"periods,omitempty"`
	Cut         time.Time         `json:"cut,omitzero"`
	Ready       bool              `json:"ready,omitempty"`
	Error       string            `json:"error,omitempty"`
	Class       string            `json:"class,omitempty"`
	RestoreSize string            `json:"restoreSize,omitempty"`
	Members     []string          `json:"members,omitempty"`      // of its set; itself alone
	Storage     string            `json:"storageClass,omitempty"` // of its claim; fast
	Copies      []string          `json:"copies,omitempty"`       // repository/restic snapshot
	Wanted      []string          `json:"wanted,omitempty"`       // repositories, where it has a record
	Dumps       []string          `json:"dumps,omitempty"`        // what they are of, where it has a record
	// Record is the whole record instead of one that is made up.
	Record *catalog.Record `json:"record,omitempty"`
	Events []string        `json:"events,omitempty"` // `Warning SnapshotFailed: the array is full`
	Proof  *catalog.Proof  `json:"proof,omitempty"`
}

// worldMover is a Job with what it needs, or a part of that which was left.
type worldMover struct {
	Name       string     `json:"name"`
	Parts      []string   `json:"parts"` // static, clone, job
	Run        string     `json:"run,omitempty"`
	Snapshot   string     `json:"snapshot,omitempty"` // namespace/name
	Claim      string     `json:"pvc,omitempty"`
	Repository string     `json:"repository,omitempty"`
	Finished   bool       `json:"finished,omitempty"`
	Log        []string   `json:"log,omitempty"`
	Restic     worldError `json:"restic,omitzero"`
}

// worldStorage is how the storage behaves.
type worldStorage struct {
	Never      string   `json:"never,omitempty"` // claim whose snapshot never gets ready
	Says       string   `json:"says,omitempty"`  // meanwhile
	FailCreate string   `json:"failCreate,omitempty"`
	Quota      string   `json:"quota,omitempty"` // namespace in which no clone may be made
	Keeps      []string `json:"keeps,omitempty"` // snapshots that it does not let go of
	Cut        bool     `json:"cut,omitempty"`   // files that are brought do not come whole
}

func readWorld(file string) (*world, error) {
	w := &world{}
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	return w, yaml.UnmarshalStrict(text, w)
}

func (w *world) write(file string) error {
	slices.Sort(w.History)
	slices.Sort(w.Restored)
	slices.SortFunc(w.Snapshots, func(a, b worldSnapshot) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(w.Movers, func(a, b worldMover) int { return cmp.Compare(a.Name, b.Name) })
	text, err := yaml.Marshal(w)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

func split(name string) (namespace, rest string) {
	namespace, rest, _ = strings.Cut(name, "/")
	return namespace, rest
}

func bytesOf(text string) int64 {
	if text == "" {
		return 10 << 30
	}
	q := resource.MustParse(text)
	return q.Value()
}

func (c worldClaim) claim() catalog.Claim {
	namespace, name := split(c.Name)
	return catalog.Claim{
		Namespace: namespace, Name: name, UID: "uid-of-" + name, Labels: c.Labels, Annotations: c.Annotations, Role: catalog.Role(c.Role),
		Phase: cmp.Or(c.Phase, "Bound"), Volume: cmp.Or(c.Volume, "pv-"+name), StorageClass: "fast", Driver: c.Driver, Request: bytesOf(c.Size), Capacity: bytesOf(c.Size),
		AccessModes: []string{"ReadWriteOnce"}, VolumeMode: cmp.Or(c.Mode, "Filesystem"),
	}
}

func (p worldPod) pod() catalog.Pod {
	namespace, name := split(p.Name)
	kind, owner := split(p.Owner)
	c := catalog.Container{Name: "main", Image: p.Image, Ready: true}
	for _, claim := range p.Claims {
		c.Mounts = append(c.Mounts, catalog.Mount{Claim: claim, Path: "/" + claim})
	}
	return catalog.Pod{
		Namespace: namespace, Name: name, Owner: catalog.Workload{Kind: kind, Name: owner}, Phase: "Running", Ready: true, Containers: []catalog.Container{c},
	}
}

func (r worldRepository) repository() catalog.Repository {
	return catalog.Repository{
		Name: r.Name, Namespace: cmp.Or(r.Namespace, "backsnap"), Secret: r.Name, Address: catalog.Redact(r.Address), Cluster: r.Cluster, Keys: []string{"RESTIC_PASSWORD", "RESTIC_REPOSITORY"},
		Claim: r.Claim, ServiceAccount: r.Account,
	}
}

// snapshot is s with a record made up around what it says.
func (s worldSnapshot) snapshot(w *world) catalog.Snapshot {
	namespace, name := split(s.Name)
	_, claim := split(s.Claim)
	created := s.Cut
	if !s.BackupNS {
		var err error
		if created, err = time.Parse("20060102-150405", s.Run[:len("20060102-150405")]); err != nil {
			panic(err)
		}
	}
	full := catalog.Snapshot{
		Namespace: namespace, Name: name, UID: "uid-" + name, Claim: claim, Role: catalog.Role(s.Role), Run: catalog.Run(s.Run), Consistency: catalog.Consistency(s.Consistency),
		Retain: s.Retain, DeleteAfter: s.DeleteAfter, Marked: s.Marked, BackupNS: s.BackupNS, Pinned: s.Pinned || s.PinnedAs != "", PinnedAs: s.PinnedAs, Created: created, Cut: s.Cut, Ready: s.Ready, Err: s.Error, Class: s.Class, Content: "content-" + name,
	}
	if s.RestoreSize != "" {
		full.RestoreSize = bytesOf(s.RestoreSize)
	}
	for p, key := range s.Periods {
		if full.Periods == nil {
			full.Periods = map[catalog.Period]string{}
		}
		full.Periods[catalog.Period(p)] = key
	}
	for _, c := range s.Copies {
		repository, id, _ := strings.Cut(c, "/")
		full.Copies = append(full.Copies, catalog.Copy{Repository: repository, Snapshot: id, Bytes: 1 << 30, Added: 1 << 20, Finished: s.Cut.Add(time.Minute)})
	}
	if s.App != "" {
		of := catalog.Claim{Name: claim, Driver: "csi.example.com", Capacity: 10 << 30, StorageClass: "fast"}
		if i := slices.IndexFunc(w.Claims, func(c worldClaim) bool { return c.Name == s.Claim }); i >= 0 {
			of = w.Claims[i].claim()
		}
		members := s.Members
		if members == nil {
			members = []string{claim}
		}
		full.Record = &catalog.Record{
			Version: 1, Run: full.Run, App: s.App, Members: members, SnapshotClass: s.Class, TimeZone: "UTC", Consistency: full.Consistency, Reason: s.Reason, Cut: s.Cut,
			Wanted: s.Wanted,
			Claim:  catalog.ClaimRecord{Name: claim, UID: of.UID, Capacity: of.Capacity, StorageClass: cmp.Or(s.Storage, of.StorageClass, "fast"), Driver: of.Driver, VolumeMode: cmp.Or(of.VolumeMode, "Filesystem")},
		}
	}
	for _, what := range s.Dumps {
		if full.Record == nil {
			break
		}
		full.Record.Plugin, full.Record.Server, full.Record.Container = "mysql", "mysql 8.4.3", "main"
		full.Record.Dumps = append(full.Record.Dumps, dumpOf(what))
	}
	if s.Record != nil {
		full.Record = s.Record
	}
	full.Proof = s.Proof
	return full
}

// worldSnapshotOf is the opposite of snapshot.
func worldSnapshotOf(s catalog.Snapshot) worldSnapshot {
	short := worldSnapshot{
		Name: s.Namespace + "/" + s.Name, Claim: s.Namespace + "/" + s.Claim, App: s.App(), Role: string(s.Role), Run: string(s.Run), Consistency: string(s.Consistency),
		Retain: s.Retain, DeleteAfter: s.DeleteAfter, Marked: s.Marked, BackupNS: s.BackupNS, Pinned: s.Pinned && s.PinnedAs == "", PinnedAs: s.PinnedAs, Cut: s.Cut, Ready: s.Ready, Error: s.Err, Class: s.Class, Proof: s.Proof,
	}
	if s.RestoreSize > 0 {
		short.RestoreSize = fmt.Sprintf("%dGi", s.RestoreSize>>30)
	}
	if s.Record != nil {
		short.Reason, short.Wanted = s.Record.Reason, s.Record.Wanted
		short.Consistency = string(cmp.Or(s.Consistency, s.Record.Consistency)) // a safety snapshot has no label of it
		for _, d := range s.Record.Dumps {
			short.Dumps = append(short.Dumps, d.What)
		}
		if len(s.Record.Members) > 1 {
			short.Members = s.Record.Members
		}
		if s.Record.Claim.StorageClass != "fast" {
			short.Storage = s.Record.Claim.StorageClass
		}
	}
	for p, key := range s.Periods {
		if short.Periods == nil {
			short.Periods = map[string]string{}
		}
		short.Periods[string(p)] = key
	}
	for _, c := range s.Copies {
		short.Copies = append(short.Copies, c.Repository+"/"+c.Snapshot)
	}
	slices.Sort(short.Copies) // they come as they are finished
	return short
}

func (w *world) did(format string, args ...any) {
	w.History = append(w.History, fmt.Sprintf(format, args...))
}
