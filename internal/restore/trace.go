package restore

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Trace is what there is in one namespace of a run that restores, or has.
type Trace struct {
	Namespace string
	Run       catalog.Run
	// Claims are those that it has made, by name. Of a restore in place they
	// are those that its new volumes come from: there are none once it has ended.
	Claims []catalog.Claim
	// Swap is the restore in place, without Pairs for none.
	Swap Swap
	// Safety are the snapshots that were taken before it, by name.
	Safety []catalog.Snapshot
}

// Traces looks for what a run has restored in scope, by namespace. unseen is why
// there may be more of it, where the caller may not look.
func Traces(ctx context.Context, c SwapCluster, scope catalog.Scope, run catalog.Run) (found []Trace, unseen, err error) {
	t := &tracing{cluster: c, scope: catalog.Scope{All: scope.All, Namespaces: scope.Namespaces}, run: run, found: map[string]*Trace{}, swaps: map[string]bool{}}
	for _, look := range []func(context.Context) error{t.claims, t.safety, t.volumes, t.exchanges} {
		err := look(ctx)
		switch {
		case catalog.Has(err, catalog.CodeForbidden):
			unseen = errors.Join(unseen, err)
		case err != nil:
			return nil, nil, err
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(t.found)) {
		found = append(found, *t.found[namespace])
	}
	return found, unseen, nil
}

type tracing struct {
	cluster SwapCluster
	scope   catalog.Scope
	run     catalog.Run
	found   map[string]*Trace
	swaps   map[string]bool // namespaces in which it restores in place
}

func (t *tracing) in(namespace string) *Trace {
	if t.found[namespace] == nil {
		t.found[namespace] = &Trace{Namespace: namespace, Run: t.run}
	}
	return t.found[namespace]
}

func (t *tracing) claims(ctx context.Context) error {
	inventory, err := t.cluster.Inventory(ctx, t.scope)
	for _, c := range inventory.Claims {
		if c.Labels[catalog.LabelRun] != string(t.run) || c.Labels[catalog.LabelManagedBy] != catalog.ManagedBy || c.Role != "" && c.Role != catalog.RoleNew {
			continue
		}
		of := t.in(c.Namespace)
		of.Claims = append(of.Claims, c)
		t.swaps[c.Namespace] = t.swaps[c.Namespace] || c.Role == catalog.RoleNew
	}
	return err
}

func (t *tracing) safety(ctx context.Context) error {
	snapshots, err := t.cluster.Snapshots(ctx, t.scope)
	for _, s := range snapshots {
		if s.Role == catalog.RoleSafety && s.Run == t.run {
			of := t.in(s.Namespace)
			of.Safety = append(of.Safety, s)
		}
	}
	return err
}

func (t *tracing) volumes(ctx context.Context) error {
	namespaces := t.scope.Namespaces
	if t.scope.All {
		namespaces = []string{""}
	}
	for _, namespace := range namespaces {
		volumes, err := t.cluster.SwapVolumes(ctx, namespace)
		if err != nil {
			return err
		}
		for _, v := range volumes {
			if v.Run == t.run {
				t.in(v.Namespace)
				t.swaps[v.Namespace] = true
			}
		}
	}
	return nil
}

func (t *tracing) exchanges(ctx context.Context) error {
	for namespace := range t.swaps {
		swap, err := FindSwap(ctx, t.cluster, namespace, t.run)
		if err != nil {
			return err
		}
		t.in(namespace).Swap = swap
	}
	return nil
}

// Names are those of all that belongs to t, and that events may be about:
// claims, snapshots, and the pods and Jobs that have worked on them.
func (t Trace) Names() []string {
	var names []string
	for _, c := range t.Claims {
		names = append(names, c.Name, workName(t.Run, t.Namespace, c.Labels[catalog.LabelClaim]))
	}
	for _, claim := range t.Swap.Claims() {
		names = append(names, claim, workName(t.Run, t.Namespace, claim))
	}
	for _, s := range t.Safety {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Standing is how far a restore in place is.
type Standing string

// The standings.
const (
	Prepared   Standing = "Prepared"   // its volumes are being made, and nothing of the app was touched
	Turning    Standing = "Turning"    // the volumes are being exchanged, or that was broken off
	Swapped    Standing = "Restored"   // the claims have the new volumes
	TurnedBack Standing = "RolledBack" // the claims have the volumes again that they had before
	Superseded Standing = "Superseded" // a later run has replaced the volumes
	Removed    Standing = "Removed"    // none of its volumes is kept any more
)

// Standing is how far t's restore in place is, "" for a restore to new claims.
func (t Trace) Standing() Standing {
	s := t.Swap
	switch {
	case len(s.Pairs) == 0 && len(t.Safety) == 0:
		return ""
	case len(s.Pairs) == 0:
		return Removed
	case !s.begun():
		return Prepared
	case s.Turn != "":
		return Turning
	case s.Placed(catalog.Forth):
		return Swapped
	case s.Placed(catalog.Back):
		return TurnedBack
	}
	return Superseded
}

// Other is the volume of p that its claim does not have just now; without a
// Name where that is gone.
func (p Pair) Other() catalog.SwapVolume {
	for _, v := range []catalog.SwapVolume{p.Old, p.New} {
		if v.Name != p.Live.Volume {
			return v
		}
	}
	return catalog.SwapVolume{}
}
