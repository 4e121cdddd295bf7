package restore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// exact is a cluster whose storage makes clones of one size only.
type exact struct {
	*cluster
	size int64
	says string
}

func (c *exact) AwaitBound(ctx context.Context, namespace, name string, trouble func(restic.Trouble)) error {
	if err := c.did(ctx, "await %s/%s", namespace, name); err != nil {
		return err
	}
	if c.claims[namespace+"/"+name].Request == c.size {
		return nil
	}
	trouble(restic.Trouble{Reason: "ProvisioningFailed", Message: "no room"})
	trouble(restic.Trouble{Reason: "ProvisioningFailed", Message: c.says})
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
		return errors.New("it would wait for ever")
	}
}

const outOfRange = `failed to provision volume: rpc error: code = OutOfRange desc = 10737418240 is not 9663676416`

// A claim that had asked for more than its snapshot needs is asked for in the
// snapshot's size, if the storage makes no other; not where a person has named a
// size, and not over anything else that the storage says.
func TestExactSize(t *testing.T) {
	const new = "data-restored-20261122-091500"
	once := []string{"try claim shop/" + new, "make claim shop/" + new + " from data-20261122-010000-aaaa", "await shop/" + new}
	twice := append(append([]string{}, once...), "remove claim shop/"+new+", uid of "+new, once[1], once[2])
	failed := append(append([]string{}, once...), "remove claim shop/"+new+", uid of "+new)
	for name, c := range map[string]struct {
		says   string
		change func(*restore.Request, *catalog.Snapshot)
		want   []string
		size   int64
		code   catalog.Code
	}{
		"smaller than the claim had asked for": {outOfRange, nil, twice, 9 << 30, ""},
		"an invalid argument about the size": {
			"rpc error: code = InvalidArgument desc = the size must match the snapshot", nil, twice, 9 << 30, "",
		},
		"an invalid argument about something else": {"rpc error: code = InvalidArgument desc = no such pool", nil, failed, 10 << 30, catalog.CodeStorage},
		"no room":                           {"rpc error: code = ResourceExhausted desc = not enough capacity", nil, failed, 10 << 30, catalog.CodeStorage},
		"a size was named":                  {outOfRange, func(r *restore.Request, _ *catalog.Snapshot) { r.Size = 20 << 30 }, failed, 20 << 30, catalog.CodeStorage},
		"the snapshot's own size was named": {outOfRange, func(r *restore.Request, _ *catalog.Snapshot) { r.Size = 9 << 30 }, once, 9 << 30, ""},
		"nobody knows the snapshot's size":  {outOfRange, func(_ *restore.Request, s *catalog.Snapshot) { s.RestoreSize = 0 }, failed, 10 << 30, catalog.CodeStorage},
	} {
		t.Run(name, func(t *testing.T) {
			s := shot("01:00", "data")
			s.RestoreSize = 9 << 30
			r := request()
			if c.change != nil {
				c.change(&r, &s)
			}
			if s.RestoreSize == 0 {
				record := *s.Record
				record.RestoreSize, record.Claim.Capacity = 0, 0
				s.Record = &record
			}
			world := &exact{cluster: newCluster(s), size: 9 << 30, says: c.says}
			outcomes, err := restore.Run(t.Context(), world, world.follow, now, plan(t, world.cluster, r), &watcher{})
			is(t, catalog.CodeOf(err), c.code)
			is(t, outcomes[0].Volume.Claim.Request, c.size)
			if diff := cmp.Diff(c.want, world.diary); diff != "" {
				t.Errorf("done (-want +got):\n%s", diff)
			}
			want := []string{"claim shop/" + new}
			if c.code != "" {
				want = nil
			}
			if diff := cmp.Diff(want, world.left()); diff != "" {
				t.Errorf("there (-want +got):\n%s", diff)
			}
		})
	}
}

// What only comes to this machine is read from a clone of the snapshot's size. A
// claim that waits for its consumer cannot be asked for again: that is told.
func TestExactSizeBeforehand(t *testing.T) {
	s := shot("01:00", "data")
	s.RestoreSize = 9 << 30
	c := newCluster(s)
	r := request()
	r.Local = &restore.Local{Dir: t.TempDir() + "/new"}
	is(t, plan(t, c, r).Volumes[0].Claim.Request, 9<<30)
	c.classes["fast"] = catalog.StorageClass{Name: "fast", Driver: "csi.example.com", WaitsForConsumer: true}
	v := plan(t, c, request()).Volumes[0]
	is(t, v.Claim.Request, 10<<30)
	is(t, v.Notes[len(v.Notes)-1], "if the storage then says that it makes a volume in the snapshot's own size only: --size 9663676416")
}

// In place the claim has to fit on the new volume.
func TestExactSizeInPlace(t *testing.T) {
	for request, want := range map[int64]int64{8 << 30: 9 << 30, 10 << 30: 0} {
		w := newSwapWorld(t)
		for i := range w.snapshots {
			w.snapshots[i].RestoreSize = 9 << 30
		}
		for name, c := range w.held {
			c.Request = request
			w.held[name] = c
		}
		p, err := restore.MakeSwapPlan(t.Context(), w, restore.SwapRequest{Request: swapRequest(run).Request, Now: time.Time{}})
		must(t, "plan", err)
		is(t, p.Volumes[0].Exact, want)
	}
}
