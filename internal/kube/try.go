package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// dry asks the server to do all but store: defaults, validation, quota and
// admission.
var dry = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// TrySnapshot is whether the server would take what Create makes of s.
func (c *Cluster) TrySnapshot(ctx context.Context, s catalog.Snapshot) error {
	object, err := snapshotObject(s)
	if err != nil {
		return err
	}
	err = again(ctx, func(ctx context.Context) error {
		_, err := c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Create(ctx, object, dry)
		return err
	})
	return explain(err, fmt.Sprintf("create snapshot %s/%s", s.Namespace, s.Name), snapshotRight("create", s.Namespace))
}

// TryClone is whether the server would take what CreateClone makes of clone.
func (c *Cluster) TryClone(ctx context.Context, clone catalog.Claim) error {
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.core.CoreV1().PersistentVolumeClaims(clone.Namespace).Create(ctx, cloneObject(clone, clone.Name), dry)
		return err
	})
	return admitted(err, fmt.Sprintf("create claim %s/%s", clone.Namespace, clone.Name), claimRight("create", clone.Namespace))
}

// TryMover is whether the server would take what StartMover makes of job. What
// Pod Security says of its pods comes later, when the Job makes them.
func (c *Cluster) TryMover(ctx context.Context, job restic.Job) error {
	object, err := jobObject(job)
	if err != nil {
		return err
	}
	err = again(ctx, func(ctx context.Context) error {
		_, err := c.core.BatchV1().Jobs(job.Namespace).Create(ctx, object, dry)
		return err
	})
	return admitted(err, fmt.Sprintf("create job %s/%s", job.Namespace, job.Name), jobRight("create", job.Namespace))
}
