// Package kube makes every call to the API server, and turns API objects into
// our types and back. It decides nothing: what to make, to wait for and to
// remove is the verbs' business, whose Cluster interfaces it satisfies.
//
// A write is sent again when its answer was lost. Names are deterministic and
// every change names the UID it means, so that a second one does no harm.
package kube

import (
	"context"
	"fmt"
	"sync"

	snapshotclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Cluster is one cluster, as the user of one kubeconfig sees it. It is safe
// for use by several goroutines.
type Cluster struct {
	config    *rest.Config
	core      kubernetes.Interface
	snapshots snapshotclient.Interface
	dynamic   dynamic.Interface // for the kinds of schedules
	restarts  *restarts

	mu     sync.Mutex
	boards map[string]*board // by namespace
}

// Connect makes the clients for config; it sends nothing. The config is
// copied. version is ours, for the User-Agent that audit logs show.
// client-go's throttle of 5 requests a second is lifted to 50: the server's
// own fairness rules decide.
func Connect(config *rest.Config, version string) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100
	config.UserAgent = "kubectl-backsnap/" + version
	if config.WarningHandler == nil && config.WarningHandlerWithContext == nil {
		// The server's warnings are for authors of manifests; what matters to
		// our users we say ourselves.
		config.WarningHandler = rest.NoWarnings{}
	}
	restarts := new(restarts)
	config.Wrap(restarts.wrap)
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	snapshots, err := snapshotclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make snapshot client: %w", err)
	}
	any, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make dynamic client: %w", err)
	}
	return &Cluster{config: config, core: core, snapshots: snapshots, dynamic: any, restarts: restarts, boards: map[string]*board{}}, nil
}

// Suspend keeps all writes back, but those to Leases, until it is called with
// false: while it is not known whether the run's own Leases are held still.
func (c *Cluster) Suspend(in bool) { c.restarts.suspend(in) }

// Core is the client for the built-in kinds, for package lock.
func (c *Cluster) Core() kubernetes.Interface { return c.core }

// Version is the server's version, `v1.36.3`.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	version, err := discovery.ToServerVersionInterfaceWithContext(c.core.Discovery()).ServerVersionWithContext(ctx)
	if err != nil {
		return "", fmt.Errorf("read server version: %w", err)
	}
	return version.GitVersion, nil
}

// Workload reports whether the workload of that kind, in lower case as in
// catalog.Workload, exists in namespace. A kind that mounts no claims is an
// error.
func (c *Cluster) Workload(ctx context.Context, namespace, kind, name string) (bool, error) {
	resource, get, err := c.workload(namespace, kind)
	if err != nil {
		return false, err
	}
	err = get(ctx, name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, explain(err, "look for "+kind+"/"+name, resource)
	}
	return true, nil
}

// workload is the right that a look at one workload of kind needs, and the look.
func (c *Cluster) workload(namespace, kind string) (catalog.Right, func(context.Context, string) error, error) {
	right := func(group, resource string) catalog.Right {
		return catalog.Right{Verb: "get", Group: group, Resource: resource, Namespace: namespace}
	}
	switch kind {
	case "statefulset":
		return right("apps", "statefulsets"), getter(c.core.AppsV1().StatefulSets(namespace).Get), nil
	case "deployment":
		return right("apps", "deployments"), getter(c.core.AppsV1().Deployments(namespace).Get), nil
	case "daemonset":
		return right("apps", "daemonsets"), getter(c.core.AppsV1().DaemonSets(namespace).Get), nil
	case "replicaset":
		return right("apps", "replicasets"), getter(c.core.AppsV1().ReplicaSets(namespace).Get), nil
	case "job":
		return right("batch", "jobs"), getter(c.core.BatchV1().Jobs(namespace).Get), nil
	case "pod":
		return right("", "pods"), getter(c.core.CoreV1().Pods(namespace).Get), nil
	}
	return catalog.Right{}, nil, fmt.Errorf("look for %s in %s: not a kind that mounts claims", kind, namespace)
}

func getter[T any](get func(context.Context, string, metav1.GetOptions) (T, error)) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		_, err := get(ctx, name, metav1.GetOptions{})
		return err
	}
}
