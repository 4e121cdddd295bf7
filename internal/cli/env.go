// Package cli turns flags into requests and plans and results into text, one
// file a command. It composes verbs (snapshot, then copy) and decides
// nothing: what is done is the verbs' business.
//
// What was asked for goes to standard output; progress, warnings and errors
// go to standard error. Exit codes are decided in exit.go alone.
package cli

import (
	"context"
	"io"
	"time"

	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
	"github.com/backsnap/kubectl-backsnap/internal/schedule"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// Cluster is what the commands need of a cluster: the sum of what the verbs do.
type Cluster interface {
	snapshot.Cluster
	offsite.Cluster
	restore.RefillCluster
	prune.Cluster
	prune.CopyCluster
	schedule.Cluster
	// TrySnapshot, TryClone and TryMover are whether the server would take what
	// would be made of a snapshot, a copy's clone, a copy's mover. It stores
	// nothing.
	TrySnapshot(ctx context.Context, s catalog.Snapshot) error
	TryClone(ctx context.Context, clone catalog.Claim) error
	TryMover(ctx context.Context, job restic.Job) error
	// CompleteAll are snapshots with what their contents say, in their order; as
	// they are where the contents may not be read.
	CompleteAll(ctx context.Context, snapshots []catalog.Snapshot) ([]catalog.Snapshot, error)
	// Notices are what the cluster has said of snapshots, by UID, oldest first.
	// What may be read comes beside a failure of CodeForbidden for what may not.
	Notices(ctx context.Context, snapshots []catalog.Snapshot) (map[string][]catalog.Notice, error)
	// Holdings are the namespaces in scope that runs hold, by name.
	Holdings(ctx context.Context, scope catalog.Scope) ([]catalog.Holding, error)
	// Leases are all that runs hold in scope, by namespace and name.
	Leases(ctx context.Context, scope catalog.Scope) ([]catalog.Holding, error)
	// AwaitRelease returns when the run of h has let go of its namespace, or is
	// dead.
	AwaitRelease(ctx context.Context, h catalog.Holding) error
	// LogLines are what the pods of a Job have logged so far.
	LogLines(ctx context.Context, namespace, job string) ([]catalog.Line, error)
	// EventLines are the events about objects of these names and their pods,
	// by time; none without the right to see events.
	EventLines(ctx context.Context, namespace string, names []string) ([]catalog.Line, error)
	// TryRemove asks the server whether it would delete that object, and
	// deletes nothing.
	TryRemove(ctx context.Context, o catalog.Object) error
	// Version is the server's, `v1.36.3`.
	Version(ctx context.Context) (string, error)
}

// Env is the world a command runs in: its only seams.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time
	Getenv   func(string) string
	Random   io.Reader // of run ids
	ReadFile func(string) ([]byte, error)
	// Dir is the folder from which names of files begin that are written; ""
	// for that of the process.
	Dir string
	// Connect makes the cluster that flags and kubeconfig name.
	Connect func(genericclioptions.RESTClientGetter) (Cluster, error)
	// Lock holds the namespaces for a run, and a slot of this machine where
	// slots are asked for. The context it returns ends, with the reason as its
	// cause, when they are lost; release gives them back.
	Lock func(ctx context.Context, c Cluster, l Lock) (held context.Context, release func() error, err error)
	// Hush silences the libraries; nil where there is nothing to silence.
	Hush func()
	// Program is the path by which this program was called.
	Program string
	// Version is this program's, `v0.1.0`.
	Version string
}

// Lock is what a run needs for itself.
type Lock struct {
	Run        catalog.Run
	Namespaces []string
	Slots      int // at most so many runs on this machine; 0: any number
	Dir        string
	Timeout    time.Duration // to wait for a busy one
	Over       catalog.Run   // whose namespaces are taken though it may live; "" for none
	// Lease is the name of the Leases, where one thing in a namespace is held and
	// not all of it; "" for the run's own.
	Lease string
}
