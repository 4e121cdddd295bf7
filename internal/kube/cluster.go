// Package kube makes every call to the API server, and turns API objects into
// our types and back. It decides nothing: what to make, to wait for and to
// remove is the verbs' business, whose Cluster interfaces it satisfies.
package kube

import (
	"fmt"

	snapshotclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Cluster is one cluster, as the user of one kubeconfig sees it. It is safe
// for use by several goroutines.
type Cluster struct {
	config    *rest.Config
	core      kubernetes.Interface
	snapshots snapshotclient.Interface
}

// Connect makes the clients for config; it sends nothing. The config is
// copied. client-go's throttle of 5 requests a second is lifted to 50: the
// server's own fairness rules decide.
func Connect(config *rest.Config) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 100
	core, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	snapshots, err := snapshotclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make snapshot client: %w", err)
	}
	return &Cluster{config: config, core: core, snapshots: snapshots}, nil
}
