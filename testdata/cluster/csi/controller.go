package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

const (
	minSize     = 8 << 20 // smaller ones have no room for a journal
	defaultSize = 1 << 30
	sizeUnit    = 4 << 10

	localParameter = "local"
	claimName      = "csi.storage.k8s.io/pvc/name"
	claimNamespace = "csi.storage.k8s.io/pvc/namespace"
	volumeName     = "csi.storage.k8s.io/pv/name"
)

// ControllerGetCapabilities tells what the controller can do.
func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	types := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if d.snapshots {
		types = append(types,
			csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS)
	}
	var all []*csi.ControllerServiceCapability
	for _, t := range types {
		all = append(all, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: all}, nil
}

// CreateVolume makes an empty volume, or a clone of a snapshot.
func (d *driver) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if err := d.checkCreateVolume(req); err != nil {
		return nil, fmt.Errorf("create volume %s: %w", req.Name, err)
	}
	id := idOf("vol", req.Name)
	unlock, err := d.store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.store.volumes.get(id)
	if errors.Is(err, errAbsent) {
		v, err = d.makeVolume(id, req)
	} else if err == nil {
		err = compatible(v, req)
	}
	if err != nil {
		return nil, fmt.Errorf("create volume %s: %w", req.Name, err)
	}
	return d.volumeResponse(v, req), nil
}

func (d *driver) checkCreateVolume(req *csi.CreateVolumeRequest) error {
	if req.Name == "" {
		return invalid("no name")
	}
	for key, value := range req.Parameters {
		switch {
		case key == claimName, key == claimNamespace, key == volumeName:
		case key == localParameter && (value == "true" || value == "false"):
		default:
			return invalid("unknown parameter %s=%s", key, value)
		}
	}
	if len(req.MutableParameters) > 0 {
		return invalid("no mutable parameters are known")
	}
	if source := req.VolumeContentSource; source != nil {
		if source.GetSnapshot() == nil || !d.snapshots {
			return invalid("the content source is not supported")
		}
		if source.GetSnapshot().SnapshotId == "" {
			return invalid("no id of the snapshot")
		}
	}
	return checkCapabilities(req.VolumeCapabilities)
}

// checkCapabilities accepts ext4 file systems and raw block, on one node at a
// time.
func checkCapabilities(capabilities []*csi.VolumeCapability) error {
	if len(capabilities) == 0 {
		return invalid("no volume capabilities")
	}
	for _, c := range capabilities {
		if err := checkCapability(c); err != nil {
			return err
		}
	}
	return nil
}

func checkCapability(c *csi.VolumeCapability) error {
	if c.GetBlock() == nil && c.GetMount() == nil {
		return invalid("a volume capability has no access type")
	}
	if fsType := c.GetMount().GetFsType(); fsType != "" && fsType != "ext4" {
		return invalid("the file system %s is not supported", fsType)
	}
	switch mode := c.GetAccessMode().GetMode(); mode {
	case csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:
		return nil
	default:
		return invalid("the access mode %s is not supported", mode)
	}
}

func isBlock(capabilities []*csi.VolumeCapability) bool {
	for _, c := range capabilities {
		if c.GetMount() != nil {
			return false
		}
	}
	return true
}

// compatible tells whether v is what an earlier call like req has made.
func compatible(v volume, req *csi.CreateVolumeRequest) error {
	low, high := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	switch {
	case v.Size < low, high > 0 && v.Size > high:
	case v.Block != isBlock(req.VolumeCapabilities):
	case v.Snapshot != req.GetVolumeContentSource().GetSnapshot().GetSnapshotId():
	default:
		return nil
	}
	return failf(codes.AlreadyExists, "it exists, and is another")
}

func (d *driver) makeVolume(id string, req *csi.CreateVolumeRequest) (volume, error) {
	v := volume{
		ID:       id,
		Name:     req.Name,
		Block:    isBlock(req.VolumeCapabilities),
		Snapshot: req.GetVolumeContentSource().GetSnapshot().GetSnapshotId(),
		Claim:    claim{Namespace: req.Parameters[claimNamespace], Name: req.Parameters[claimName]},
	}
	var source snapshot
	if v.Snapshot != "" {
		var err error
		if source, err = d.store.snapshots.get(v.Snapshot); err != nil {
			return volume{}, err
		}
	}
	if err := d.failProvision(v, source); err != nil {
		return volume{}, err
	}
	var err error
	if v.Size, err = sizeFor(req.CapacityRange, source.Size); err != nil {
		return volume{}, err
	}
	if err := d.exactly(v, source); err != nil {
		return volume{}, err
	}
	if v.Node, err = d.nodeFor(req, source); err != nil {
		return volume{}, err
	}
	if err := d.fillVolume(v, source); err != nil {
		return volume{}, err
	}
	step("volume filled")
	return v, d.store.volumes.put(id, v)
}

func (d *driver) failProvision(v volume, source snapshot) error {
	f, err := d.faultsOf(v.Claim, source.Claim)
	if err != nil {
		return err
	}
	if p := f.FailProvision; p != nil && (source.ID != "" || !p.OnlyFromSnapshots) {
		return p.err()
	}
	if source.ID == "" {
		return nil
	}
	now := time.Now()
	if err := f.spoiled(source, now); err != nil {
		return err
	}
	if !f.ready(source, now) {
		return failf(codes.Unavailable, "clone %s: the snapshot is not ready", source.ID)
	}
	return nil
}

// exactly refuses clones that are larger than their snapshot, where that is a
// fault.
func (d *driver) exactly(v volume, source snapshot) error {
	f, err := d.faultsOf(v.Claim, source.Claim)
	if err == nil && f.ExactSize && source.ID != "" && v.Size != source.Size {
		err = failf(codes.OutOfRange, "the size %d is not the %d of the snapshot", v.Size, source.Size)
	}
	return err
}

// sizeFor chooses the size of a volume; atLeast is that of the snapshot it is
// made from, or 0.
func sizeFor(r *csi.CapacityRange, atLeast int64) (int64, error) {
	low, high := r.GetRequiredBytes(), r.GetLimitBytes()
	size := low
	if size == 0 {
		if size = atLeast; size == 0 {
			size = defaultSize
		}
		if high > 0 {
			size = min(size, high)
		}
	}
	size = max(size, minSize)
	size = (size + sizeUnit - 1) / sizeUnit * sizeUnit
	switch {
	case low < 0 || high < 0:
		return 0, invalid("a size is negative")
	case high > 0 && size > high:
		return 0, failf(codes.OutOfRange, "no size between %d and %d can be had", low, high)
	case size < atLeast:
		return 0, failf(codes.OutOfRange, "the size %d is less than the %d of the snapshot", size, atLeast)
	}
	return size, nil
}

// nodeFor tells which node alone may use the volume; empty means all. A clone
// stays where its snapshot is.
func (d *driver) nodeFor(req *csi.CreateVolumeRequest, source snapshot) (string, error) {
	allowed := d.nodes(req.GetAccessibilityRequirements().GetRequisite())
	preferred := append(d.nodes(req.GetAccessibilityRequirements().GetPreferred()), allowed...)
	if source.Node != "" {
		for _, node := range allowed {
			if node == source.Node {
				return node, nil
			}
		}
		if len(allowed) == 0 {
			return source.Node, nil
		}
		return "", failf(codes.ResourceExhausted, "the snapshot is on node %s", source.Node)
	}
	switch {
	case len(allowed) == 1:
		return allowed[0], nil
	case req.Parameters[localParameter] != "true":
		return "", nil
	case len(preferred) > 0:
		return preferred[0], nil
	}
	return d.node, nil
}

func (d *driver) nodes(topologies []*csi.Topology) []string {
	var nodes []string
	for _, t := range topologies {
		if node := t.Segments[d.topologyKey()]; node != "" {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// fillVolume makes the subvolume and its image, anew if a killed call left one.
func (d *driver) fillVolume(v volume, source snapshot) error {
	subvolume, image := d.store.volumes.subvolume(v.ID), d.store.volumes.image(v.ID)
	if err := deleteSubvolume(subvolume); err != nil {
		return err
	}
	if source.ID != "" {
		if err := snapshotSubvolume(d.store.snapshots.subvolume(source.ID), subvolume, false); err != nil {
			return err
		}
		step("volume cloned")
		return growImage(image, v, source)
	}
	if err := createSubvolume(subvolume); err != nil {
		return err
	}
	step("subvolume created")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, v.Size); err != nil {
		return err
	}
	if v.Block {
		return nil
	}
	// Blocks as on larger volumes, also on small ones; none reserved for root, so
	// that a volume is full for all at the same point; no zeros written, since
	// the image reads as zeros.
	return run("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "assume_storage_prezeroed=1", image)
}

// growImage fits a clone to its size. The file system grows here and not when
// it is mounted, since a mounted one needs CAP_SYS_RESOURCE to grow.
func growImage(image string, v volume, source snapshot) error {
	if v.Size == source.Size {
		return nil
	}
	if err := os.Truncate(image, v.Size); err != nil {
		return err
	}
	if v.Block {
		return nil
	}
	// resize2fs wants a checked file system. The check replays the journal, as
	// a mount would; real damage (-p repairs none) is an error.
	err := run("e2fsck", "-f", "-p", image)
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		return err
	}
	return run("resize2fs", image)
}

func (d *driver) volumeResponse(v volume, req *csi.CreateVolumeRequest) *csi.CreateVolumeResponse {
	out := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size, ContentSource: req.VolumeContentSource}
	if v.Node != "" {
		out.AccessibleTopology = []*csi.Topology{d.topology(v.Node)}
	}
	return &csi.CreateVolumeResponse{Volume: out}
}

func (d *driver) topology(node string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{d.topologyKey(): node}}
}

// DeleteVolume removes a volume that no node uses; its snapshots stay.
func (d *driver) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if req.VolumeId == "" {
		return nil, invalid("delete volume: no id")
	}
	unlock, err := d.store.lock(ctx, req.VolumeId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	loops, err := loopsOn(d.store.volumes.image(req.VolumeId))
	if err != nil {
		return nil, err
	}
	if len(loops) > 0 {
		return nil, failf(codes.FailedPrecondition, "delete volume %s: it is in use on node %s", req.VolumeId, loops[0].owner)
	}
	if err := d.store.volumes.remove(req.VolumeId); err != nil {
		return nil, fmt.Errorf("delete volume %s: %w", req.VolumeId, err)
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities confirms what CreateVolume would accept.
func (d *driver) ValidateVolumeCapabilities(_ context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.VolumeId == "" {
		return nil, invalid("validate capabilities: no volume id")
	}
	if len(req.VolumeCapabilities) == 0 {
		return nil, invalid("validate capabilities of %s: none given", req.VolumeId)
	}
	if _, err := d.store.volumes.get(req.VolumeId); err != nil {
		return nil, fmt.Errorf("validate capabilities: %w", err)
	}
	if err := checkCapabilities(req.VolumeCapabilities); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext:      req.VolumeContext,
			VolumeCapabilities: req.VolumeCapabilities,
			Parameters:         req.Parameters,
		},
	}, nil
}
