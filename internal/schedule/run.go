package schedule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Cluster is what schedules need of a cluster.
type Cluster interface {
	// Schedules are the CronJobs of schedules in scope, by namespace and name.
	Schedules(ctx context.Context, scope catalog.Scope) ([]catalog.Schedule, error)
	// ManifestsOf are the objects that carry the labels of that schedule, its
	// CronJobs first and its ServiceAccount last, in those namespaces; "" among
	// them are those in none.
	ManifestsOf(ctx context.Context, namespace, name string, namespaces []string) ([]*unstructured.Unstructured, error)
	// MakeManifest makes o; dry: the server only checks it. That another has
	// its name is catalog.ErrTaken.
	MakeManifest(ctx context.Context, o *unstructured.Unstructured, dry bool) error
	// RemoveManifest deletes o, if it is still the one with its UID; of a CronJob
	// its Jobs too. That it is gone already is no error.
	RemoveManifest(ctx context.Context, o *unstructured.Unstructured) error
	// Suspend sets whether a CronJob makes Jobs by itself.
	SuspendSchedule(ctx context.Context, namespace, cronJob string, suspended bool) error
	// StartSchedule makes a Job of a CronJob, as kubectl create job --from does.
	StartSchedule(ctx context.Context, namespace, cronJob, job string) error
	// FollowJob copies the log of a Job's pods until the Job has ended, and is
	// the exit code of the last of them.
	FollowJob(ctx context.Context, namespace, job string, log io.Writer) (int, error)
}

// Create makes the objects, in their order, and calls made with each. It ends
// with the first that cannot be made; what was made before stands, and carries
// the schedule's labels.
func Create(ctx context.Context, c Cluster, objects []*unstructured.Unstructured, dry bool, made func(*unstructured.Unstructured)) error {
	for i, o := range objects {
		err := c.MakeManifest(ctx, o, dry)
		if errors.Is(err, catalog.ErrTaken) {
			return taken(o, i, dry)
		}
		if err != nil {
			return err
		}
		made(o)
	}
	return nil
}

func taken(o *unstructured.Unstructured, before int, dry bool) error {
	f := &catalog.Failure{
		Code: catalog.CodeExists, Message: fmt.Sprintf("schedule not created: %s %s is there already", o.GetKind(), o.GetName()), State: "nothing changed",
		Next: "remove the old one with kubectl backsnap schedule delete, or change it in place: schedule create ... --dry-run=client -o yaml | kubectl apply -f -",
	}
	if before > 0 && !dry {
		f.State = fmt.Sprintf("%d objects of the schedule are made", before)
	}
	return f
}

// Find are the CronJobs of the schedule of that name; that there is none is a
// failure.
func Find(ctx context.Context, c Cluster, namespace, name string) ([]catalog.Schedule, error) {
	all, err := c.Schedules(ctx, catalog.Scope{Namespaces: []string{namespace}})
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(all, func(s catalog.Schedule) bool { return s.Of != name && s.Name != name })
	if len(found) == 0 {
		return nil, notFound(namespace, name)
	}
	return found, nil
}

func notFound(namespace, name string) error {
	return &catalog.Failure{
		Code: catalog.CodeNotFound, Message: fmt.Sprintf("schedule %s/%s does not exist", namespace, name), State: "nothing changed",
		Next: "kubectl backsnap schedule list -n " + namespace,
	}
}

// Suspend has the CronJobs of a schedule make no Jobs, or make them again, and
// calls done with each.
func Suspend(ctx context.Context, c Cluster, namespace, name string, suspended bool, done func(catalog.Schedule)) error {
	found, err := Find(ctx, c, namespace, name)
	for _, s := range found {
		if one := c.SuspendSchedule(ctx, namespace, s.Name, suspended); one != nil {
			err = errors.Join(err, one)
			continue
		}
		done(s)
	}
	return err
}

// Delete removes what create has made, and calls done with each object. What it
// has worked on, and made, stays: the labels of the schedule are on none of that.
func Delete(ctx context.Context, c Cluster, namespace, name string, done func(*unstructured.Unstructured)) error {
	objects, err := find(ctx, c, namespace, name)
	if err != nil {
		return err
	}
	if len(objects) == 0 {
		return notFound(namespace, name)
	}
	for _, o := range objects {
		if one := c.RemoveManifest(ctx, o); one != nil {
			err = errors.Join(err, one)
			continue
		}
		done(o)
	}
	return err
}

// find are the objects of the schedule, wherever its ServiceAccount says that
// there are some.
func find(ctx context.Context, c Cluster, namespace, name string) ([]*unstructured.Unstructured, error) {
	objects, err := c.ManifestsOf(ctx, namespace, name, []string{namespace})
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		text := o.GetAnnotations()[catalog.AnnotationPlaces]
		if text == "" || text == namespace {
			continue
		}
		places := strings.Split(text, ",")
		for i := range places {
			if places[i] == catalog.PlaceCluster {
				places[i] = ""
			}
		}
		return c.ManifestsOf(ctx, namespace, name, places)
	}
	return objects, nil
}
