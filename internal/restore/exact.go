package restore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// errExact says that the storage makes a clone in the size of its snapshot only.
var errExact = errors.New("the storage makes a volume from a snapshot in the snapshot's own size only")

// exactSize is that of the snapshot, as far as it is on record: the least that
// a clone can have, and with some drivers (Longhorn, OpenEBS LVM) the only size.
// 0 where nothing tells.
func exactSize(s catalog.Snapshot) int64 {
	if size := max(s.RestoreSize, s.Record.RestoreSize); size > 0 {
		return size
	}
	return s.Record.Claim.Capacity
}

// mayShrink sets the size in which v is asked for again, if the storage refuses
// the larger one that the claim had: nobody has asked for that in so many words.
func (p *planner) mayShrink(v *Volume) {
	if exact := exactSize(v.Snapshot); v.Way != Fill && p.Size == 0 && exact > 0 && exact < v.Claim.Request {
		v.Exact = exact
	}
}

// refusesSize reports whether t is the storage's word that it makes no volume of
// the size that was asked for. That it has no room is another trouble.
func refusesSize(t restic.Trouble) bool {
	text := strings.ToLower(t.Message)
	return strings.Contains(text, "code = outofrange") ||
		strings.Contains(text, "code = invalidargument") && (strings.Contains(text, "size") || strings.Contains(text, "capacity"))
}

// cloned waits until the claim that was asked for has its volume. If the storage
// makes it in the snapshot's own size only, it is asked for once more in that.
func (m *making) cloned(ctx context.Context, source string) error {
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := m.bound(waiting, func(t restic.Trouble) {
		if m.volume.Exact > 0 && refusesSize(t) {
			stop(errExact)
		}
	})
	if err == nil || !errors.Is(context.Cause(waiting), errExact) {
		return err
	}
	claim := &m.volume.Claim
	if err := m.cluster.RemoveClaim(ctx, claim.Namespace, claim.Name, m.claim); err != nil {
		return err
	}
	m.claim = ""
	m.tell(catalog.Event{State: catalog.Warning, Message: fmt.Sprintf("%s: %d bytes, not %d", errExact, m.volume.Exact, claim.Request)})
	claim.Request, m.volume.Exact = m.volume.Exact, 0
	if m.claim, err = m.cluster.MakeClaim(ctx, *claim, source); err != nil {
		return err
	}
	return m.bound(ctx, func(restic.Trouble) {})
}
