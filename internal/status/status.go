// Package status answers whether every volume is protected: it holds what
// stands in a cluster against what is asked for, and says of each app how old
// its last good restore point is, its last copy and its last proof.
//
// It only reads, one List a kind, and runs nothing in any pod. What lies in a
// repository alone, its snapshot being gone, it does not see.
package status

import (
	"context"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Cluster is what status needs of a cluster.
type Cluster interface {
	// Inventory lists each kind once.
	Inventory(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error)
	// Snapshots are those of ours in scope, those with a role among them.
	Snapshots(ctx context.Context, scope catalog.Scope) ([]catalog.Snapshot, error)
	// Holdings are the namespaces in scope that runs hold.
	Holdings(ctx context.Context, scope catalog.Scope) ([]catalog.Holding, error)
}

// Level is how much a person requires of every app.
type Level string

// The levels, each with all of those before it.
const (
	Taken   Level = "snapshot" // a restore point within its goal
	Offsite Level = "offsite"  // and a copy of one
	Proven  Level = "proven"   // and a restore that was tried
)

// State is how well an app is protected.
type State string

// The states, worst first. Out is what somebody left out.
const (
	None State = "NONE"
	Late State = "LATE"
	Warn State = "WARN"
	OK   State = "ok"
	Out  State = "out"
)

// States are all states, worst first.
var States = []State{None, Late, Warn, OK, Out}

// rank is a state's place among States.
var rank = map[State]int{None: 0, Late: 1, Warn: 2, OK: 3, Out: 4}

// Request is what was asked for.
type Request struct {
	Scope catalog.Scope
	// Selects reports whether a claim is meant. mounters are the apps and pods
	// that have it, as kubectl spells them; nil: all are.
	Selects func(c catalog.Claim, mounters []string) bool
	// Excludes reports whether the claims of a namespace are left out; nil: none is.
	Excludes func(namespace string) bool
	MaxAge   time.Duration // goal of what has no annotation; 0 for none
	Require  Level
	// Next is when a schedule fires next after now, false where that is not
	// known; nil: it never is.
	Next func(schedule string, now time.Time) (time.Time, bool)
	Zone *time.Location // where the days of the calendar begin; nil is UTC
	Now  time.Time
}

// Report is what status has found out.
type Report struct {
	Request
	Apps []App // worst first, of what is late the oldest, then by namespace and name
	// Omitted are the namespaces that Excludes left out, sorted, of those that
	// hold claims.
	Omitted []string
	Unread  []string // kinds that the caller may not read
}

// App is one workload and its volumes, or a claim that no pod mounts.
type App struct {
	Namespace string
	Name      string // `statefulset/mysql`, `pvc/data`
	Judgement
	Volumes []Volume // by claim
	// Points are its restore points and what was to be one, the newest first.
	Points []Point
	// Attempt is when the last of them was tried; zero where none was.
	Attempt time.Time
}

// Volume is one claim.
type Volume struct {
	Claim string
	Size  int64 // bytes
	Judgement
	// Last is its snapshot of LastGood; nil where there is none.
	Last *catalog.Snapshot
}

// Judgement is what is said of an app and of each of its volumes. An app's
// times are those of its worst volume.
type Judgement struct {
	State  State
	Reason string // why State is not OK, in words
	// Do is the command with which to mend that, or to look at it; "" where there
	// is nothing to do.
	Do string
	// LastGood, LastCopy and LastProof are when the last good restore point was
	// cut, the last one that is copied to where it was to be, and when a restore
	// was tried last. Zero where there is none.
	LastGood, LastCopy, LastProof time.Time
	Next                          time.Time     // run; zero where it is not known
	Goal                          time.Duration // 0 for none
	Consistency                   catalog.Consistency
	Run                           catalog.Run // of LastGood; of the failed one where that is the reason
}

// Make lists once and judges.
func Make(ctx context.Context, c Cluster, r Request) (Report, error) {
	var (
		inventory catalog.Inventory
		snapshots []catalog.Snapshot
		alive     func(catalog.Run) bool
		all       sync.WaitGroup
		once      sync.Once
		failed    error
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := func(call func() error) {
		all.Go(func() {
			if err := call(); err != nil {
				once.Do(func() { failed = err; cancel() })
			}
		})
	}
	run(func() (err error) { inventory, err = c.Inventory(ctx, r.Scope); return err })
	run(func() (err error) { snapshots, err = c.Snapshots(ctx, r.Scope); return err })
	run(func() (err error) { alive, err = living(ctx, c, r.Scope); return err })
	all.Wait()
	if failed != nil {
		return Report{}, failed
	}
	return Judge(r, inventory, snapshots, alive), nil
}

// living are the runs that hold a namespace. Who may not see that takes all
// for alive: what is not ready of them is then no failure.
func living(ctx context.Context, c Cluster, scope catalog.Scope) (func(catalog.Run) bool, error) {
	holdings, err := c.Holdings(ctx, scope)
	if catalog.CodeOf(err) == catalog.CodeForbidden {
		return func(catalog.Run) bool { return true }, nil
	}
	runs := map[catalog.Run]bool{}
	for _, h := range holdings {
		runs[h.Run] = true
	}
	return func(run catalog.Run) bool { return runs[run] }, err
}

// Count is how many apps are in that state.
func (r Report) Count(s State) int {
	n := 0
	for _, a := range r.Apps {
		if a.State == s {
			n++
		}
	}
	return n
}

// Volumes is how many volumes the apps have.
func (r Report) Volumes() int {
	n := 0
	for _, a := range r.Apps {
		n += len(a.Volumes)
	}
	return n
}

// Unprotected is how many volumes have no restore point within their goal.
func (r Report) Unprotected() int {
	n := 0
	for _, a := range r.Apps {
		for _, v := range a.Volumes {
			if v.State == None || v.State == Late {
				n++
			}
		}
	}
	return n
}
