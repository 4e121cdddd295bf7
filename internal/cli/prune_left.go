package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// leavings are what dead runs have left of what a prune is about. A dump that
// was cut off is not among them: the pod removes it itself once its client is
// gone, and else the next dump.
type leavings struct {
	movers []restic.Mover
	leases []catalog.Holding // of namespaces in scope, and of repositories
}

func (l leavings) none() bool { return len(l.movers)+len(l.leases) == 0 }

// namespaces are those in which runs have died, or worked for, sorted.
func (l leavings) namespaces() []string {
	var names []string
	for _, m := range l.movers {
		names = append(names, m.Source.Namespace)
	}
	for _, h := range l.leases {
		if h.Lease == catalog.LeaseName {
			names = append(names, h.Namespace)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// notes say what goes.
func (l leavings) notes() []string {
	var notes []string
	for _, m := range l.movers {
		notes = append(notes, fmt.Sprintf("run %s has left: %s", m.Run, offsite.Parts(m)))
	}
	for _, h := range l.leases {
		notes = append(notes, fmt.Sprintf("run %s has left: lease %s/%s, which is over", h.Run, h.Namespace, h.Lease))
	}
	return notes
}

// findLeft looks for what dead runs have left. Who may not see it has nothing to
// do with it. What belongs to a namespace that a run holds is left to that run.
func (p *pruning) findLeft(ctx context.Context) error {
	if p.what != "" || p.options.markOnly {
		return nil
	}
	busy := map[string]bool{}
	for _, h := range p.plan.Held {
		if h.Over(p.started) {
			p.left.leases = append(p.left.leases, h)
		} else {
			busy[h.Namespace] = true
		}
	}
	scope := p.request.Scope
	here := func(namespace string) bool {
		return namespace != "" && !busy[namespace] && (scope.All || slices.Contains(scope.Namespaces, namespace))
	}
	for _, place := range p.places() {
		standing, err := p.cluster.Movers(ctx, place)
		if err == nil {
			p.left.movers = append(p.left.movers, offsite.Leavings(standing, p.request.Run, here)...)
			err = p.findLeases(ctx, place)
		}
		if err != nil && catalog.CodeOf(err) != catalog.CodeForbidden {
			return err
		}
	}
	return nil
}

// findLeases looks for those of repositories in place that are over.
func (p *pruning) findLeases(ctx context.Context, place string) error {
	held, err := p.cluster.Leases(ctx, catalog.Scope{Namespaces: []string{place}})
	for _, h := range held {
		if h.Lease != catalog.LeaseName && h.Over(p.started) {
			p.left.leases = append(p.left.leases, h)
		}
	}
	return err
}

// places are where movers are.
func (p *pruning) places() []string {
	if !p.options.copies.inNamespace {
		return []string{p.options.backupNamespace}
	}
	return rowNamespaces(p.request.Scope, p.plan.Rows)
}

// rowNamespaces are the namespaces in scope; where all are meant, those that have rows.
func rowNamespaces(scope catalog.Scope, rows []prune.Row) []string {
	if !scope.All {
		return scope.Namespaces
	}
	var names []string
	for _, row := range rows {
		names = append(names, row.Point.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sweepLeft removes what dead runs have left: in the namespaces that this one
// holds, and in those that it can take at once. That it cannot is told.
func (p *pruning) sweepLeft(ctx context.Context) {
	if p.what != "" || p.options.markOnly {
		return
	}
	s := &sweeper{
		cluster: p.cluster, now: p.env.Now, watcher: p.progress, run: p.request.Run,
		namespaces: p.plan.Namespaces(), places: p.places(),
	}
	others := slices.DeleteFunc(p.left.namespaces(), func(n string) bool { return slices.Contains(s.namespaces, n) })
	held, release, err := p.take(ctx, "", others)
	if s.tell(err); err == nil {
		s.namespaces = append(s.namespaces, others...)
	} else {
		held, release = ctx, func() error { return nil }
	}
	p.sweepRestores(held, s.namespaces)
	s.start(held, s.snapshots, s.copies)()
	s.tell(release())
	for _, h := range p.left.leases {
		if h.Lease == catalog.LeaseName {
			continue
		}
		_, release, err := p.take(ctx, h.Lease, []string{h.Namespace}) // who takes it and lets go removes it
		if err == nil {
			err = release()
		}
		s.tell(err)
	}
}

// take takes Leases that nobody should hold.
func (p *pruning) take(ctx context.Context, lease string, namespaces []string) (context.Context, func() error, error) {
	if len(namespaces) == 0 {
		return ctx, func() error { return nil }, nil
	}
	return p.env.Lock(ctx, p.cluster, Lock{Run: p.request.Run, Namespaces: namespaces, Lease: lease})
}

// sweepRestores removes what dead restores have left where runs have died, of
// the namespaces that this one holds.
func (p *pruning) sweepRestores(ctx context.Context, held []string) {
	for _, namespace := range p.left.namespaces() {
		if !slices.Contains(held, namespace) {
			continue
		}
		of := restore.Plan{Request: restore.Request{Run: p.request.Run, ToNamespace: namespace, BackupNamespace: p.options.backupNamespace}}
		restore.Sweep(ctx, p.cluster, p.env.Now, of, p.progress)
	}
}
