package offsite

import (
	"context"
	"fmt"
	"regexp"
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
	work := WorkRequest{Run: r.Run, Repository: r.Repository, Namespace: r.Namespace, Image: r.Image, Pod: r.Pod, Deadline: r.Deadline}
	t := &tending{cluster: c, now: now, request: work, watcher: w, undone: "not initialised", again: work.again("repo init")}
	if err := r.check(); err != nil {
		return Initialised{}, err
	}
	if err := t.check(); err != nil {
		return Initialised{}, err
	}
	report, _, err := t.mover(ctx, restic.Work{Step: restic.StepInit})
	if err != nil {
		return Initialised{}, t.failed(ctx, err)
	}
	done := Initialised{Repository: r.Repository, Existed: report.Existed()}
	if done.Repository.Cluster, err = r.name(ctx, c); err != nil {
		return done, t.failed(ctx, fmt.Errorf("name the cluster: %w", err))
	}
	return done, nil
}

// check is whether the name makes sense.
func (r InitRequest) check() error {
	if r.ClusterName != "" && !clusterName.MatchString(r.ClusterName) {
		return wrong(fmt.Sprintf("cluster name %q: want up to 63 letters, digits, dots, dashes", r.ClusterName), "--cluster-name prod-eu")
	}
	if r.ClusterName != "" && r.Repository.Cluster != "" && r.ClusterName != r.Repository.Cluster {
		return wrong(fmt.Sprintf("this cluster is called %s in repository %s", r.Repository.Cluster, r.Repository.Name),
			"leave --cluster-name away: copies made under another name would not be found")
	}
	return nil
}

// name is what the cluster is called in the repository from now on.
func (r InitRequest) name(ctx context.Context, c Cluster) (string, error) {
	if r.Repository.Cluster != "" {
		return r.Repository.Cluster, nil
	}
	name := r.ClusterName
	if name == "" {
		uid, err := c.ClusterUID(ctx)
		if err != nil {
			return "", err
		}
		name = uid[:min(8, len(uid))]
	}
	return c.NameCluster(ctx, r.Repository, name)
}

// wrong is a request that makes no sense.
func wrong(message, next string) error {
	return &catalog.Failure{Code: catalog.CodeUsage, Message: message, State: "nothing changed", Next: next}
}
