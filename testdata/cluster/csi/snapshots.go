package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateSnapshot cuts the volume, or tells how the snapshot of that name does.
func (d *driver) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := d.checkCreateSnapshot(req); err != nil {
		return nil, fmt.Errorf("create snapshot %s: %w", req.Name, err)
	}
	id := idOf("snap", req.Name)
	unlock, err := d.store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s, f, err := d.makeSnapshot(id, req)
	if err != nil {
		return nil, fmt.Errorf("create snapshot %s: %w", req.Name, err)
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshotResponse(s, f)}, nil
}

func (d *driver) checkCreateSnapshot(req *csi.CreateSnapshotRequest) error {
	switch {
	case !d.snapshots:
		return failf(codes.Unimplemented, "this driver takes no snapshots")
	case req.Name == "":
		return invalid("no name")
	case req.SourceVolumeId == "":
		return invalid("no volume id")
	}
	for key := range req.Parameters {
		if !strings.HasPrefix(key, "csi.storage.k8s.io/") {
			return invalid("unknown parameter %s", key)
		}
	}
	return nil
}

func (d *driver) makeSnapshot(id string, req *csi.CreateSnapshotRequest) (snapshot, fault, error) {
	s, err := d.store.snapshots.get(id)
	if err == nil {
		return d.repeatSnapshot(s, req)
	}
	if !errors.Is(err, errAbsent) {
		return snapshot{}, fault{}, err
	}
	v, err := d.store.volumes.get(req.SourceVolumeId)
	if err != nil {
		return snapshot{}, fault{}, err
	}
	f, err := d.faultsOf(v.Claim)
	if err != nil {
		return snapshot{}, fault{}, err
	}
	if err := f.failCut(d.store, id); err != nil {
		return snapshot{}, fault{}, err
	}
	if err := d.delayCut(time.Duration(f.CutDelay)); err != nil {
		return snapshot{}, fault{}, err
	}
	s = snapshot{ID: id, Name: req.Name, Volume: v.ID, Size: v.Size, Node: v.Node, Claim: v.Claim}
	if s.Cut, err = d.cut(v, id); err != nil {
		return snapshot{}, fault{}, err
	}
	step("cut")
	if err := d.store.snapshots.put(id, s); err != nil {
		return snapshot{}, fault{}, err
	}
	return s, f, forgetFailedCuts(d.store, id)
}

func (d *driver) repeatSnapshot(s snapshot, req *csi.CreateSnapshotRequest) (snapshot, fault, error) {
	if s.Volume != req.SourceVolumeId {
		return snapshot{}, fault{}, failf(codes.AlreadyExists, "it exists, of volume %s", s.Volume)
	}
	f, err := d.faultsOf(s.Claim)
	if err == nil {
		err = f.spoiled(s, time.Now())
	}
	return s, f, err
}

// delayCut waits, though the caller may give up: storage that is slow cuts in
// the end, whoever still listens.
func (d *driver) delayCut(delay time.Duration) error {
	select {
	case <-time.After(delay):
		return nil
	case <-d.done:
		return failf(codes.Unavailable, "the driver ends")
	}
}

// cut makes the snapshot's subvolume and returns the moment it shows. One that
// a killed call has made of this volume stands: the storage had cut already.
func (d *driver) cut(v volume, id string) (time.Time, error) {
	from, to := d.store.volumes.subvolume(v.ID), d.store.snapshots.subvolume(id)
	source, err := readSubvolume(from)
	if err != nil {
		return time.Time{}, err
	}
	if made, err := readSubvolume(to); err == nil && made.isCutOf(source) {
		return made.createdAt(), nil
	}
	if err := deleteSubvolume(to); err != nil {
		return time.Time{}, err
	}
	start := time.Now().UTC()
	if err := snapshotSubvolume(from, to, true); err != nil {
		return time.Time{}, err
	}
	made, err := readSubvolume(to)
	if err != nil {
		return time.Time{}, err
	}
	// btrfs stamps the snapshot inside the transaction that makes it, but from
	// a clock that ticks every few milliseconds.
	if made.createdAt().Before(start) {
		return start, nil
	}
	return made.createdAt(), nil
}

func snapshotResponse(s snapshot, f fault) *csi.Snapshot {
	out := &csi.Snapshot{
		SnapshotId:     s.ID,
		SourceVolumeId: s.Volume,
		SizeBytes:      s.Size,
		CreationTime:   timestamppb.New(s.Cut),
		ReadyToUse:     f.ready(s, time.Now()),
	}
	if f.NoRestoreSize {
		out.SizeBytes = 0
	}
	return out
}

// DeleteSnapshot removes a snapshot; its clones stay.
func (d *driver) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	id := req.SnapshotId
	if id == "" {
		return nil, invalid("delete snapshot: no id")
	}
	unlock, err := d.store.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := d.removeSnapshot(id); err != nil {
		return nil, fmt.Errorf("delete snapshot %s: %w", id, err)
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

func (d *driver) removeSnapshot(id string) error {
	s, err := d.store.snapshots.get(id)
	if err != nil && !errors.Is(err, errAbsent) {
		return err
	}
	f, err := d.faultsOf(s.Claim)
	if err != nil {
		return err
	}
	if f.RefuseDelete != nil && s.ID != "" {
		return f.RefuseDelete.err()
	}
	if err := d.store.snapshots.remove(id); err != nil {
		return err
	}
	return forgetFailedCuts(d.store, id)
}

// ListSnapshots lists all snapshots in the order of their ids, or those asked
// for. The id of the last one told is the token for the rest.
func (d *driver) ListSnapshots(_ context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	if !d.snapshots {
		return nil, failf(codes.Unimplemented, "this driver takes no snapshots")
	}
	if token := req.StartingToken; token != "" && !isID(token) {
		return nil, failf(codes.Aborted, "list snapshots: unknown token %q", token)
	}
	all, err := d.wantedSnapshots(req)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	entries, err := readFaults(d.faults)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	resp := &csi.ListSnapshotsResponse{}
	for i, s := range all {
		f := entries.of(s.Claim)
		if err := f.spoiled(s, time.Now()); err != nil && req.SnapshotId != "" {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		resp.Entries = append(resp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotResponse(s, f)})
		if len(resp.Entries) == int(req.MaxEntries) && i+1 < len(all) {
			resp.NextToken = s.ID
			break
		}
	}
	return resp, nil
}

func (d *driver) wantedSnapshots(req *csi.ListSnapshotsRequest) ([]snapshot, error) {
	var all []snapshot
	if req.SnapshotId != "" {
		s, err := d.store.snapshots.get(req.SnapshotId)
		if err != nil && !errors.Is(err, errAbsent) {
			return nil, err
		}
		if err == nil {
			all = append(all, s)
		}
	} else {
		var err error
		if all, err = d.store.snapshots.list(); err != nil {
			return nil, err
		}
	}
	var wanted []snapshot
	for _, s := range all {
		if s.ID > req.StartingToken && (req.SourceVolumeId == "" || req.SourceVolumeId == s.Volume) {
			wanted = append(wanted, s)
		}
	}
	return wanted, nil
}
