package kube

import (
	"context"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// CompleteAll is Complete of many snapshots, in their order. The contents that
// carry their snapshot's labels are listed, others read one by one. Without the
// right to list contents the snapshots are returned as they are; so is one
// whose content is not there, or names another.
func (c *Cluster) CompleteAll(ctx context.Context, snapshots []catalog.Snapshot) ([]catalog.Snapshot, error) {
	contents, err := list(ctx, metav1.ListOptions{LabelSelector: selectContents(snapshots)}, c.snapshots.SnapshotV1().VolumeSnapshotContents().List,
		func(l *snapshotv1.VolumeSnapshotContentList) []snapshotv1.VolumeSnapshotContent { return l.Items })
	if apierrors.IsForbidden(err) {
		return snapshots, nil
	}
	if err != nil {
		return nil, explain(err, "list contents of snapshots", contentRight("list"))
	}
	named := map[string]*snapshotv1.VolumeSnapshotContent{}
	for i := range contents {
		named[contents[i].Name] = &contents[i]
	}
	full := slices.Clone(snapshots)
	for i, s := range full {
		content := named[s.Content]
		if content == nil && s.Content != "" {
			content, _ = c.content(ctx, s) // nil leaves the snapshot as it is
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if content != nil && bound(content, s) {
			full[i] = completed(s, content)
		}
	}
	return full, nil
}

// selectContents selects the contents of restore points: in one namespace if
// all are of that one.
func selectContents(snapshots []catalog.Snapshot) string {
	selector := ours + ",!" + catalog.LabelRole
	if len(snapshots) == 0 || slices.ContainsFunc(snapshots, func(s catalog.Snapshot) bool { return s.Namespace != snapshots[0].Namespace }) {
		return selector
	}
	return selector + "," + catalog.LabelNamespace + "=" + snapshots[0].Namespace
}
