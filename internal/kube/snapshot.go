package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// ours selects what we created.
const ours = catalog.LabelManagedBy + "=" + catalog.ManagedBy

// answerTimeout is how long the answer to a create is waited for.
const answerTimeout = 10 * time.Second

var (
	// errReplaced says that another object has the name now.
	errReplaced = errors.New("another object has that name")
	// errNoUID says that the caller does not know which object it means.
	errNoUID = errors.New("its UID is not known")
)

func snapshotRight(verb, namespace string) catalog.Right {
	return catalog.Right{Verb: verb, Group: snapshotGroup, Resource: "volumesnapshots", Namespace: namespace}
}

// Create makes the VolumeSnapshot of s.Claim with s's labels, annotations and
// class. One that the same run made of the same claim is taken as the answer
// to an earlier attempt. ctx's end does not interrupt a request under way: what
// it made would be there, and nobody would know its UID.
func (c *Cluster) Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	doing := fmt.Sprintf("create snapshot %s/%s", s.Namespace, s.Name)
	object, err := snapshotObject(s)
	if err != nil {
		return s, err
	}
	door := c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace)
	var made *snapshotv1.VolumeSnapshot
	err = again(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
		defer cancel()
		made, err = door.Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		made, err = c.taken(ctx, s)
	}
	if err != nil {
		return s, explain(err, doing, snapshotRight("create", s.Namespace))
	}
	c.board(s.Namespace).put(made)
	s.UID, s.ResourceVersion = string(made.UID), made.ResourceVersion
	s.Created = made.CreationTimestamp.UTC()
	return s, nil
}

func snapshotObject(s catalog.Snapshot) (*snapshotv1.VolumeSnapshot, error) {
	notes, err := s.Annotations()
	if err != nil {
		return nil, err
	}
	object := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels(), Annotations: notes},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &s.Claim}},
	}
	if s.Class != "" {
		object.Spec.VolumeSnapshotClassName = &s.Class
	}
	return object, nil
}

// taken is the object that has s's name, if it is the one s asks for.
func (c *Cluster) taken(ctx context.Context, s catalog.Snapshot) (*snapshotv1.VolumeSnapshot, error) {
	var there *snapshotv1.VolumeSnapshot
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	source := there.Spec.Source.PersistentVolumeClaimName
	same := there.Labels[catalog.LabelManagedBy] == catalog.ManagedBy &&
		there.Labels[catalog.LabelRun] == string(s.Run) && source != nil && *source == s.Claim
	if !same || there.DeletionTimestamp != nil {
		return nil, errReplaced
	}
	return there, nil
}

// Complete reads s's content: Driver, Handle, Node, RestoreSize, and Cut to the
// nanosecond. Without the right to read contents s is returned as it is.
func (c *Cluster) Complete(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	content, err := c.content(ctx, s)
	if apierrors.IsForbidden(err) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return completed(s, content), nil
}

// content is the content of s. Both objects must name each other: a content
// that names another snapshot is somebody else's data.
func (c *Cluster) content(ctx context.Context, s catalog.Snapshot) (*snapshotv1.VolumeSnapshotContent, error) {
	doing := fmt.Sprintf("read content of snapshot %s/%s", s.Namespace, s.Name)
	if s.Content == "" {
		return nil, fmt.Errorf("%s: it is bound to none", doing)
	}
	var content *snapshotv1.VolumeSnapshotContent
	err := again(ctx, func(ctx context.Context) (err error) {
		content, err = c.snapshots.SnapshotV1().VolumeSnapshotContents().Get(ctx, s.Content, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, explain(err, doing, contentRight("get"))
	}
	if ref := content.Spec.VolumeSnapshotRef; !bound(content, s) {
		return nil, fmt.Errorf("%s: %s is bound to %s/%s with UID %s", doing, s.Content, ref.Namespace, ref.Name, ref.UID)
	}
	return content, nil
}

// bound reports whether content is that of s.
func bound(content *snapshotv1.VolumeSnapshotContent, s catalog.Snapshot) bool {
	ref := content.Spec.VolumeSnapshotRef
	return ref.Namespace == s.Namespace && ref.Name == s.Name && string(ref.UID) == s.UID
}

// completed is s with what its content says.
func completed(s catalog.Snapshot, content *snapshotv1.VolumeSnapshotContent) catalog.Snapshot {
	s.Driver, s.Node = content.Spec.Driver, content.Labels[labelNode]
	status := content.Status
	if status == nil {
		return s
	}
	if status.SnapshotHandle != nil {
		s.Handle = *status.SnapshotHandle
	}
	if status.RestoreSize != nil {
		s.RestoreSize = *status.RestoreSize
	}
	if status.CreationTime != nil && *status.CreationTime > 0 {
		s.Cut = time.Unix(0, *status.CreationTime).UTC()
	}
	return s
}

// Label writes s's labels and annotations, and no other key: what people and
// controllers have put there stays. It never removes one, for it may have been
// added by hand since s was read.
func (c *Cluster) Label(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	doing := fmt.Sprintf("label snapshot %s/%s", s.Namespace, s.Name)
	if s.UID == "" {
		return s, fmt.Errorf("%s: %w", doing, errNoUID)
	}
	notes, err := s.Annotations()
	if err != nil {
		return s, err
	}
	change, err := metadataPatch(s.UID, s.Labels(), notes)
	if err != nil {
		return s, fmt.Errorf("%s: %w", doing, err)
	}
	var changed *snapshotv1.VolumeSnapshot
	err = again(ctx, func(ctx context.Context) (err error) {
		changed, err = c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, change, metav1.PatchOptions{})
		return err
	})
	if otherUID(err) {
		err = errReplaced
	}
	if err != nil {
		return s, explain(err, doing, snapshotRight("patch", s.Namespace))
	}
	c.board(s.Namespace).put(changed)
	s.ResourceVersion = changed.ResourceVersion
	err = c.mirror(ctx, s)
	if err != nil && !errors.Is(err, catalog.ErrUnmirrored) {
		return s, fmt.Errorf("%s: mirror to its content: %w", doing, err)
	}
	return s, err
}

// otherUID reports whether err is that the object has another UID than the
// patch says: a conflict, or, of a custom resource, a field that is immutable.
func otherUID(err error) bool {
	cause, _ := apierrors.StatusCause(err, metav1.CauseTypeFieldValueInvalid)
	return apierrors.IsConflict(err) || cause.Field == "metadata.uid"
}

// mirror writes s's labels and annotations onto its content, whose name holds
// s's UID, so that it can be no other's: what is known of s then outlives it.
// Without a content it does nothing.
func (c *Cluster) mirror(ctx context.Context, s catalog.Snapshot) error {
	if s.Content == "" {
		return nil
	}
	notes, err := s.Annotations()
	if err != nil {
		return err
	}
	change, err := metadataPatch("", s.Labels(), notes)
	if err != nil {
		return err
	}
	err = again(ctx, func(ctx context.Context) error {
		_, err := c.snapshots.SnapshotV1().VolumeSnapshotContents().Patch(ctx, s.Content, types.MergePatchType, change, metav1.PatchOptions{})
		return err
	})
	if apierrors.IsForbidden(err) {
		return catalog.ErrUnmirrored
	}
	return ignoreGone(err)
}

// metadataPatch is the JSON merge patch that sets labels and annotations. The
// server refuses it with a conflict if the object's UID is another one; ""
// takes any.
func metadataPatch(uid string, labels, annotations map[string]string) ([]byte, error) {
	type metadata struct {
		UID         string            `json:"uid,omitempty"`
		Labels      map[string]string `json:"labels,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	return json.Marshal(map[string]metadata{"metadata": {UID: uid, Labels: labels, Annotations: annotations}})
}

// Delete removes s. That it is gone already, or that another object has its
// name now, is no error.
func (c *Cluster) Delete(ctx context.Context, s catalog.Snapshot) error {
	doing := fmt.Sprintf("delete snapshot %s/%s", s.Namespace, s.Name)
	if s.UID == "" {
		return fmt.Errorf("%s: %w", doing, errNoUID)
	}
	uid := types.UID(s.UID)
	err := again(ctx, func(ctx context.Context) error {
		return c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Delete(ctx, s.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return explain(err, doing, snapshotRight("delete", s.Namespace))
}

// Snapshots are all VolumeSnapshots with our labels in scope, those with a
// role among them, by namespace and name. Driver, Handle and a Cut finer than
// seconds are Complete's to fill.
func (c *Cluster) Snapshots(ctx context.Context, scope catalog.Scope) ([]catalog.Snapshot, error) {
	right := catalog.Right{Group: snapshotGroup, Resource: "volumesnapshots"}
	snapshots, err := each(scope, right, func(namespace string) ([]catalog.Snapshot, error) {
		return list(ctx, metav1.ListOptions{LabelSelector: ours}, c.snapshots.SnapshotV1().VolumeSnapshots(namespace).List,
			func(l *snapshotv1.VolumeSnapshotList) []catalog.Snapshot { // page by page: objects are large
				page := make([]catalog.Snapshot, len(l.Items))
				for i := range l.Items {
					page[i] = fromObject(&l.Items[i])
				}
				return page
			})
	})
	if err != nil {
		return nil, err
	}
	sortSnapshots(snapshots)
	return snapshots, nil
}

func sortSnapshots(snapshots []catalog.Snapshot) {
	slices.SortFunc(snapshots, func(a, b catalog.Snapshot) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// fromObject is v as the catalog has it.
func fromObject(v *snapshotv1.VolumeSnapshot) catalog.Snapshot {
	s := catalog.Snapshot{
		Namespace:       v.Namespace,
		Name:            v.Name,
		UID:             string(v.UID),
		ResourceVersion: v.ResourceVersion,
		Created:         v.CreationTimestamp.UTC(),
		Terminating:     v.DeletionTimestamp != nil,
		Held:            heldBy(v),
	}
	// A record that cannot be read leaves Record nil: such a snapshot is shown
	// and kept, never judged, and that is all that there is to do.
	_ = s.ReadLabels(v.Labels, v.Annotations)
	if source := v.Spec.Source.PersistentVolumeClaimName; s.Record == nil && source != nil {
		s.Claim = *source
	}
	if v.Spec.VolumeSnapshotClassName != nil {
		s.Class = *v.Spec.VolumeSnapshotClassName
	}
	if v.Status != nil {
		readStatus(&s, v.Status)
	}
	return s
}

func readStatus(s *catalog.Snapshot, status *snapshotv1.VolumeSnapshotStatus) {
	if status.CreationTime != nil {
		s.Cut = status.CreationTime.UTC()
		// A driver that gives no time of the cut says 1970 (Go's AsTime of a
		// missing value): the request's time is the nearest that is known.
		if s.Cut.Unix() <= 0 {
			s.Cut = s.Created
		}
	}
	s.Ready = status.ReadyToUse != nil && *status.ReadyToUse
	if status.Error != nil && status.Error.Message != nil {
		s.Err = *status.Error.Message
	}
	if status.BoundVolumeSnapshotContentName != nil {
		s.Content = *status.BoundVolumeSnapshotContentName
	}
	if status.RestoreSize != nil {
		s.RestoreSize = status.RestoreSize.Value()
	}
}
