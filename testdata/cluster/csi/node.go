package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// NodeGetInfo tells the node's name and where its volumes can be used.
func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node, AccessibleTopology: d.topology(d.node)}, nil
}

// NodeGetCapabilities tells what the node service can do.
func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	var all []*csi.NodeServiceCapability
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		all = append(all, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{
			Rpc: &csi.NodeServiceCapability_RPC{Type: t},
		}})
	}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: all}, nil
}

// NodeStageVolume attaches the volume to a loop device and mounts it at the
// staging path, or binds the device there if it is to be used raw.
func (d *driver) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if req.StagingTargetPath == "" {
		return nil, invalid("stage volume: no staging path")
	}
	if err := d.checkNodeCall(req.VolumeId, req.VolumeCapability); err != nil {
		return nil, fmt.Errorf("stage volume %s: %w", req.VolumeId, err)
	}
	unlock, err := d.store.lock(ctx, req.VolumeId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.stage(req); err != nil {
		return nil, fmt.Errorf("stage volume %s: %w", req.VolumeId, err)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (d *driver) checkNodeCall(id string, c *csi.VolumeCapability) error {
	if id == "" {
		return invalid("no volume id")
	}
	if c == nil {
		return invalid("no volume capability")
	}
	if _, err := d.store.volumes.get(id); err != nil {
		return err
	}
	return checkCapability(c)
}

// stagingPoint is what is mounted when the volume is staged: the staging path,
// or a file in it that the raw device is bound to.
func stagingPoint(staging string, block bool) (string, error) {
	if err := os.MkdirAll(staging, 0o750); err != nil {
		return "", err
	}
	staging, err := filepath.EvalSymlinks(staging)
	if err != nil || !block {
		return staging, err
	}
	return filepath.Join(staging, "device"), nil
}

func (d *driver) stage(req *csi.NodeStageVolumeRequest) error {
	block := req.VolumeCapability.GetBlock() != nil
	point, err := stagingPoint(req.StagingTargetPath, block)
	if err != nil {
		return err
	}
	image := d.store.volumes.image(req.VolumeId)
	staged, err := d.findStaged(image, point)
	if err != nil || staged {
		return err
	}
	if block {
		return d.bindRaw(image, point, false)
	}
	device, err := attachLoop(image, d.node, unix.LO_FLAGS_AUTOCLEAR)
	if err != nil {
		return err
	}
	defer device.Close()
	step("loop attached")
	// -w: rather no mount than one that is read-only because the device is.
	args := []string{"-w", "-t", "ext4"}
	if flags := req.VolumeCapability.GetMount().GetMountFlags(); len(flags) > 0 {
		args = append(args, "-o", strings.Join(flags, ","))
	}
	return run("mount", append(args, device.Name(), point)...)
}

// bindRaw binds a loop device of the image to the file at point.
func (d *driver) bindRaw(image, point string, readOnly bool) error {
	var flags uint32
	if readOnly {
		flags = unix.LO_FLAGS_READ_ONLY
	}
	device, err := attachLoop(image, d.node, flags)
	if err != nil {
		return err
	}
	defer device.Close()
	step("loop attached")
	return bindDevice(device.Name(), point, readOnly)
}

// findStaged tells whether the image is in use at point. If it is not, nobody
// uses it: any other use is an error, and what a killed call left is removed.
func (d *driver) findStaged(image, point string) (bool, error) {
	loops, mounts, err := usesOf(image)
	if err != nil {
		return false, err
	}
	for _, l := range loops {
		if l.owner != d.node {
			return false, failf(codes.FailedPrecondition, "it is in use on node %s", l.owner)
		}
	}
	if _, staged := at(mounts, point); staged {
		return true, nil
	}
	if len(mounts) > 0 {
		return false, failf(codes.FailedPrecondition, "it is in use at %s", mounts[0].point)
	}
	if err := detachAll(image); err != nil {
		return false, err
	}
	// A device that a pod's mount namespace still holds goes when that does.
	if loops, err = loopsOn(image); err == nil && len(loops) > 0 {
		err = failf(codes.FailedPrecondition, "it is in use by %s", loops[0].device)
	}
	return false, err
}

// usesOf lists the loop devices of the image and where they are mounted.
func usesOf(image string) ([]loop, []mount, error) {
	loops, err := loopsOn(image)
	if err != nil {
		return nil, nil, err
	}
	mounts, err := mountsOf(loops)
	return loops, mounts, err
}

func at(mounts []mount, point string) (mount, bool) {
	for _, m := range mounts {
		if m.point == point {
			return m, true
		}
	}
	return mount{}, false
}

func bindDevice(device, file string, readOnly bool) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	return bind(device, file, readOnly)
}

// NodeUnstageVolume undoes NodeStageVolume.
func (d *driver) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if req.VolumeId == "" || req.StagingTargetPath == "" {
		return nil, invalid("unstage volume %q: no id or no staging path", req.VolumeId)
	}
	unlock, err := d.store.lock(ctx, req.VolumeId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.unstage(req); err != nil {
		return nil, fmt.Errorf("unstage volume %s: %w", req.VolumeId, err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) unstage(req *csi.NodeUnstageVolumeRequest) error {
	if _, err := d.store.volumes.get(req.VolumeId); err != nil {
		return err
	}
	bound := filepath.Join(req.StagingTargetPath, "device")
	if isBlockDevice(bound) {
		if err := unmountAndRemove(bound); err != nil {
			return err
		}
	}
	if err := unmount(req.StagingTargetPath); err != nil {
		return err
	}
	image := d.store.volumes.image(req.VolumeId)
	loops, mounts, err := usesOf(image)
	if err != nil || len(mounts) > 0 {
		return err
	}
	for _, l := range loops {
		if l.owner != d.node {
			continue
		}
		if err := detachLoop(l.device, image); err != nil {
			return err
		}
	}
	return nil
}

func unmountAndRemove(path string) error {
	if err := unmount(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// NodePublishVolume shows the staged volume at the target path.
func (d *driver) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if req.TargetPath == "" {
		return nil, invalid("publish volume %q: no target path", req.VolumeId)
	}
	if err := d.checkNodeCall(req.VolumeId, req.VolumeCapability); err != nil {
		return nil, fmt.Errorf("publish volume %s: %w", req.VolumeId, err)
	}
	if req.StagingTargetPath == "" {
		return nil, failf(codes.FailedPrecondition, "publish volume %s: no staging path", req.VolumeId)
	}
	unlock, err := d.store.lock(ctx, req.VolumeId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.publish(req); err != nil {
		return nil, fmt.Errorf("publish volume %s: %w", req.VolumeId, err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *driver) publish(req *csi.NodePublishVolumeRequest) error {
	block := req.VolumeCapability.GetBlock() != nil
	mode := req.VolumeCapability.GetAccessMode().GetMode()
	readOnly := req.Readonly || mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	point, err := stagingPoint(req.StagingTargetPath, block)
	if err != nil {
		return err
	}
	target, err := realTarget(req.TargetPath)
	if err != nil {
		return err
	}
	image := d.store.volumes.image(req.VolumeId)
	_, mounts, err := usesOf(image)
	if err != nil {
		return err
	}
	staged, ok := at(mounts, point)
	if !ok {
		return failf(codes.FailedPrecondition, "it is not staged at %s", point)
	}
	if there, ok := at(mounts, target); ok {
		if there.readOnly != readOnly {
			return failf(codes.AlreadyExists, "it is published at %s with read-only=%t", target, there.readOnly)
		}
		return nil
	}
	others := slices.DeleteFunc(mounts, func(m mount) bool { return m.point == point })
	if len(others) > 0 && mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		return failf(codes.FailedPrecondition, "it is published at %s, and for one pod only", others[0].point)
	}
	if !block {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return err
		}
		return bind(point, target, readOnly)
	}
	for _, m := range others {
		if m.readOnly != readOnly {
			return failf(codes.FailedPrecondition, "it is published at %s with read-only=%t", m.point, m.readOnly)
		}
	}
	if readOnly {
		// A mount flag does not stop writes to a device: it gets one of its own.
		return d.bindRaw(image, target, true)
	}
	return bindDevice(staged.device(), target, false)
}

// realTarget resolves the folder of a path that need not exist itself.
func realTarget(path string) (string, error) {
	dir := filepath.Dir(filepath.Clean(path))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(dir)
	return filepath.Join(dir, filepath.Base(path)), err
}

// NodeUnpublishVolume undoes NodePublishVolume.
func (d *driver) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.VolumeId == "" || req.TargetPath == "" {
		return nil, invalid("unpublish volume %q: no id or no target path", req.VolumeId)
	}
	unlock, err := d.store.lock(ctx, req.VolumeId)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.unpublish(req); err != nil {
		return nil, fmt.Errorf("unpublish volume %s: %w", req.VolumeId, err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *driver) unpublish(req *csi.NodeUnpublishVolumeRequest) error {
	if _, err := d.store.volumes.get(req.VolumeId); err != nil {
		return err
	}
	target, err := realTarget(req.TargetPath)
	if err != nil {
		return err
	}
	m, _, err := mountAt(target)
	if err != nil {
		return err
	}
	device := m.device()
	if err := unmountAndRemove(target); err != nil {
		return err
	}
	left, err := mountsOf([]loop{{device: device}})
	if err != nil || device == "" || len(left) > 0 {
		return err
	}
	return detachLoop(device, d.store.volumes.image(req.VolumeId)) // a read-only one
}
