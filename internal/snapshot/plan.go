package snapshot

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// Effort is how much consistency is asked for.
type Effort string

// The efforts, as `--consistency` names them.
const (
	// Auto dumps what a plugin recognises; a failed dump still gives a snapshot.
	Auto Effort = "auto"
	// Application gives a proven dump or nothing.
	Application Effort = "application"
	// Crash runs nothing in any pod.
	Crash Effort = "crash"
)

// ParseEffort reads an Effort.
func ParseEffort(s string) (Effort, error) {
	switch e := Effort(s); e {
	case Auto, Application, Crash:
		return e, nil
	}
	return "", fmt.Errorf("consistency %q: want auto, application or crash", s)
}

// NoPlugin is what a person names to have no plugin.
const NoPlugin = "none"

// Request is what was asked for. Annotations on a claim, else on its
// namespace, go before Effort, Plugin, Class and Retain.
type Request struct {
	Run     catalog.Run
	Targets []Target // none: every claim of the inventory
	// Selects reports whether a claim is meant; nil: all are.
	Selects func(catalog.Claim) bool
	// Excludes is why the claims of a namespace are left out, in words, ""
	// where they are not; nil: none is.
	Excludes func(namespace string) string
	Effort   Effort
	// Cache is the claim that keeps restic's cache, in namespace CacheIn, or in
	// every one where that is "": nothing that needs a backup. "" for none.
	Cache, CacheIn string
	Plugin         string // name of a plugin instead of detection; "none" for no plugin
	Class          string // name of a VolumeSnapshotClass instead of the driver's
	Retain         catalog.Retain
	Pin            bool
	// RemoveDump removes a dump from its volume once it lies in a restore point.
	RemoveDump bool
	// Zone is the time zone of period keys and days; its name is an IANA name.
	Zone        *time.Location
	DumpTimeout time.Duration
	Timeout     time.Duration // for a snapshot to be ready
	Parallel    int           // apps at once, at least 1
}

// Target is one thing named on the command line.
type Target struct {
	Namespace string
	Kind      string // "pvc", "namespace", or a workload's kind in lower case
	Name      string
}

// String is the target as kubectl spells it.
func (t Target) String() string { return t.Kind + "/" + t.Name }

// Plan is what Run will do, and all that it needs to know.
type Plan struct {
	Request
	Apps  []App  // by namespace and name
	Skips []Skip // claims in scope that are left out, by namespace and name
}

// App is one workload and the volumes of it that are cut together.
type App struct {
	Namespace string
	Name      string // `statefulset/mysql`; `pvc/data` where no pod mounts it
	Mounted   bool
	Volumes   []Volume
	Effort    Effort
	// User is the uid that the pods run as which mount the volumes; nil where
	// their specs do not say, or not the same.
	User *int64
	Hook *Hook // nil: no exec
	// Reason says in words why there is a hook, or why not.
	Reason string
	// Err, where it is not nil, is why nothing of this app can be taken.
	Err error
}

// Volume is one claim, how it is cut, and how long the snapshot is kept.
type Volume struct {
	Claim  catalog.Claim
	Class  string
	Name   string // of the snapshot to be
	Retain catalog.Retain
	// Wanted are the names of the repositories in which a copy is asked for,
	// sorted. MakePlan leaves it empty: who composes snapshot and copy knows.
	Wanted []string
	// Node is where a pod mounts it; only where the volume could not be read.
	Node string
}

// Hook is what runs inside an app's pods before the cut.
type Hook struct {
	Plugin plugins.Plugin
	// Candidates are the containers that look like the database, in order of
	// their pods. The probe tells primaries from replicas: every primary is
	// dumped, or the first replica where there is none.
	Candidates []Candidate
}

// Candidate is a container that may be dumped.
type Candidate struct {
	catalog.ContainerRef
	Image  string
	Mounts []catalog.Mount
	// NotRunning says in what state its pod is, where that is not Running.
	NotRunning string
}

// Skip is one claim that is left out.
type Skip struct {
	Claim  catalog.Claim
	Reason string // in words
	// Code and Next are those of a catalog.Failure; "" where a person asked
	// for the omission.
	Code catalog.Code
	Next string
}

// Wanted reports whether somebody asked for the omission: it is then no failure.
func (s Skip) Wanted() bool { return s.Code == "" }

// Err is the failure that the omission is, nil where somebody asked for it.
func (s Skip) Err() error {
	if s.Wanted() {
		return nil
	}
	return &catalog.Failure{
		Code:    s.Code,
		Message: fmt.Sprintf("%s/%s skipped: %s", s.Claim.Namespace, s.Claim.Name, s.Reason),
		State:   "no snapshot of it was taken",
		Next:    s.Next,
	}
}

// MakePlan decides what to do with the claims of an inventory. Its error is a
// catalog.Failure: a target that is not there, or a plugin that is unknown. An
// annotation that makes no sense is a Skip or the Err of its app alone.
// It reads no clock and no cluster.
func MakePlan(r Request, inv catalog.Inventory) (Plan, error) {
	known, err := plugins.All()
	if err != nil {
		return Plan{}, err
	}
	if err := checkPlugin(r.Plugin); err != nil {
		return Plan{}, err
	}
	p := planner{Request: r, inv: inv, known: known}
	if err := p.chooseClaims(); err != nil {
		return Plan{}, err
	}
	plan := Plan{Request: r}
	for _, group := range p.groups() {
		app, skips := p.app(group)
		plan.Skips = append(plan.Skips, skips...)
		if len(app.Volumes) > 0 {
			plan.Apps = append(plan.Apps, app)
		}
	}
	slices.SortStableFunc(plan.Apps, func(a, b App) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(plan.Skips, func(a, b Skip) int {
		return cmp.Or(cmp.Compare(a.Claim.Namespace, b.Claim.Namespace), cmp.Compare(a.Claim.Name, b.Claim.Name))
	})
	return plan, nil
}

// checkPlugin refuses a plugin that there is not.
func checkPlugin(name string) error {
	if name == "" || name == NoPlugin {
		return nil
	}
	if _, err := plugins.Lookup(name); err != nil {
		return &catalog.Failure{Code: catalog.CodeUsage, Message: "choose plugin", Cause: err, State: "nothing changed", Next: "name one of these with --plugin"}
	}
	return nil
}

// Namespaces are those that Run will write to, sorted.
func (p Plan) Namespaces() []string {
	var names []string
	for _, a := range p.Apps {
		if a.Err == nil {
			names = append(names, a.Namespace)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Rights are what Run needs to be allowed to do.
func (p Plan) Rights() []catalog.Right {
	const group = "snapshot.storage.k8s.io"
	var rights catalog.Rights
	for _, namespace := range p.Namespaces() {
		rights.Add(group, "volumesnapshots", namespace, "create", "get", "list", "watch", "patch", "delete")
		if p.execs(namespace) {
			rights.Add("", "pods/exec", namespace, "get", "create")
		}
	}
	return rights
}

// Grants are Rights and what Run does besides where it may, which is not asked
// for: a role made for it has them. With the contents come a cut to the
// nanosecond, and the labels on them.
func (p Plan) Grants() []catalog.Right {
	grants := catalog.Rights(p.Rights())
	if len(grants) > 0 {
		grants.Add("snapshot.storage.k8s.io", "volumesnapshotcontents", "", "get", "patch")
	}
	return grants
}

func (p Plan) execs(namespace string) bool {
	return slices.ContainsFunc(p.Apps, func(a App) bool { return a.Namespace == namespace && a.Hook != nil && a.Err == nil })
}
