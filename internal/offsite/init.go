package offsite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// InitRequest is a repository that is to be made.
type InitRequest struct {
	Run        catalog.Run
	Repository catalog.Repository
	// Namespace is what {namespace} in the address stands for; "" where the
	// address has none.
	Namespace string
	// ClusterName is what this cluster is to be called in the repository; ""
	// is what the Secret says, else the first 8 characters of the UID of
	// kube-system.
	ClusterName string
	Image       string
	Pod         restic.Pod    // of the mover
	Deadline    time.Duration // of restic
}

// Initialised is a repository that is there now.
type Initialised struct {
	Repository catalog.Repository
	Existed    bool // it was there before
}

// clusterName is what a cluster may be called: restic's host is
// <cluster>/<namespace>/<claim>.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

// Init makes the repository, unless it is there, and then writes the cluster's
// name onto its Secret, unless one stands there. When ctx ends before that,
// what was begun is removed.
func Init(ctx context.Context, c Cluster, now func() time.Time, r InitRequest, w catalog.Watcher) (Initialised, error) {
	i := &initialising{cluster: c, now: now, request: r, watcher: w}
	if err := i.check(); err != nil {
		return Initialised{}, err
	}
	report, err := i.make(ctx)
	if err != nil {
		return Initialised{}, i.failed(ctx, err)
	}
	done := Initialised{Repository: r.Repository, Existed: report.Existed()}
	if done.Repository.Cluster, err = i.name(ctx); err != nil {
		return done, i.failed(ctx, fmt.Errorf("name the cluster: %w", err))
	}
	return done, nil
}

type initialising struct {
	cluster Cluster
	now     func() time.Time
	request InitRequest
	watcher catalog.Watcher
}

// check is whether the request makes sense.
func (i *initialising) check() error {
	r := i.request
	usage := func(message, next string) error {
		return &catalog.Failure{Code: catalog.CodeUsage, Message: message, State: "nothing changed", Next: next}
	}
	if r.ClusterName != "" && !clusterName.MatchString(r.ClusterName) {
		return usage(fmt.Sprintf("cluster name %q: want up to 63 letters, digits, dots, dashes", r.ClusterName), "--cluster-name prod-eu")
	}
	if r.ClusterName != "" && r.Repository.Cluster != "" && r.ClusterName != r.Repository.Cluster {
		return usage(fmt.Sprintf("this cluster is called %s in repository %s", r.Repository.Cluster, r.Repository.Name),
			"leave --cluster-name away: copies made under another name would not be found")
	}
	if r.Namespace == "" && strings.Contains(r.Repository.Address, "{namespace}") {
		return usage(fmt.Sprintf("repository %s is one for each namespace: which one", r.Repository.Name),
			fmt.Sprintf("kubectl backsnap repo init %s --for-namespace NAMESPACE", r.Repository.Name))
	}
	return nil
}

// make runs the mover.
func (i *initialising) make(ctx context.Context) (restic.Report, error) {
	var report restic.Report
	r := i.request
	name := catalog.ObjectName("init-"+r.Repository.Name, r.Run, maxLabel)
	job, err := restic.Init{
		Namespace: r.Repository.Namespace, Name: name, Image: r.Image, Repository: r.Repository,
		Run: r.Run, For: r.Namespace, Deadline: r.Deadline, Pod: r.Pod,
	}.Job()
	if err != nil {
		return report, err
	}
	err = i.cluster.StartMover(ctx, job)
	if !errors.Is(err, catalog.ErrTaken) {
		defer i.cleanUp(ctx, job)
	}
	if err != nil {
		return report, fmt.Errorf("start mover %s/%s: %w", job.Namespace, name, err)
	}
	f := &follower{cluster: i.cluster, namespace: job.Namespace, name: name, tell: i.tell}
	end, err := f.follow(ctx)
	if err != nil {
		return report, err
	}
	report = restic.ReadReport(end.Text, end.Exit)
	return report, ended(end, report, restic.StepInit)
}

// cleanUp removes the mover. That it could not says nothing of the repository.
func (i *initialising) cleanUp(ctx context.Context, job restic.Job) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := i.cluster.RemoveMover(ctx, job.Namespace, job.Name); err != nil {
		i.tell(catalog.Event{State: catalog.Warning, Message: fmt.Sprintf("remove mover %s/%s: %v", job.Namespace, job.Name, err)})
	}
}

// name is what the cluster is called in the repository from now on.
func (i *initialising) name(ctx context.Context) (string, error) {
	r := i.request
	if r.Repository.Cluster != "" {
		return r.Repository.Cluster, nil
	}
	name := r.ClusterName
	if name == "" {
		uid, err := i.cluster.ClusterUID(ctx)
		if err != nil {
			return "", err
		}
		name = uid[:min(8, len(uid))]
	}
	return i.cluster.NameCluster(ctx, r.Repository, name)
}

func (i *initialising) failed(ctx context.Context, err error) error {
	r := i.request.Repository
	if ctx.Err() != nil {
		return &catalog.Failure{
			Code: interruptCode(context.Cause(ctx)), Message: fmt.Sprintf("repository %s not initialised", r.Name),
			Cause: context.Cause(ctx), State: "what was begun is removed", Next: "kubectl backsnap repo init " + r.Name,
		}
	}
	f := &catalog.Failure{
		Code:    catalog.CodeMover,
		Message: fmt.Sprintf("repository %s not initialised", r.Name),
		Cause:   err,
		State:   "nothing was copied, no Secret changed",
		Next:    fmt.Sprintf("see whether %s can be reached from the cluster, and the entries of Secret %s/%s", r.Address, r.Namespace, r.Secret),
	}
	var said *restic.Error
	var stuck *troubled
	switch {
	case errors.As(err, &said):
		f.Code = cmp.Or(said.Report.Exit.Code(), f.Code)
	case errors.As(err, &stuck):
		f.Code, f.Next = stuck.code(), "kubectl get events -n "+r.Namespace
	case catalog.CodeOf(err) != "":
		f.Code = catalog.CodeOf(err)
	}
	return f
}

func (i *initialising) tell(e catalog.Event) {
	e.Time, e.Run, e.Phase, e.Repository = i.now(), i.request.Run, catalog.PhaseUpload, i.request.Repository.Name
	i.watcher.Event(e)
}
