package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// kindNamespace is the Kind of a Target that is a namespace with all its claims.
const kindNamespace = "namespace"

// Lacking is an app of which nothing can be restored, where a whole namespace
// was asked for.
type Lacking struct {
	App    string
	Claims []string // of its newest set
	Err    error    // a catalog.Failure of CodeNoSet
}

// whole takes of every app the newest set that will do. A claim that the sets
// of several apps hold, since it changed hands or no pod mounted it when one
// was taken, comes from the newest of them.
func (c chooser) whole(sets []catalog.Set) (Choice, error) {
	var choice Choice
	for _, app := range byApp(sets) {
		one := c
		one.Target = targetOf(app[0])
		best, err := one.newest(app)
		choice.Chosen = append(choice.Chosen, best.Chosen...)
		for _, p := range best.Passed {
			p.Reason = app[0].App + ": " + p.Reason
			choice.Passed = append(choice.Passed, p)
		}
		switch {
		case err == nil:
		case c.unborn(app):
			choice.Passed = append(choice.Passed, Passed{Run: app[0].Run, Cut: app[0].CutAt(), Reason: app[0].App + ": it is after " + c.AtText})
		default:
			choice.Lacking = append(choice.Lacking, Lacking{App: app[0].App, Claims: app[0].Members, Err: err})
		}
	}
	if len(choice.Chosen) == 0 {
		return c.newest(sets) // which says why there is none, and what would be the nearest
	}
	choice.once()
	slices.SortStableFunc(choice.Passed, func(a, b Passed) int { return b.Cut.Compare(a.Cut) })
	slices.SortFunc(choice.Chosen, func(a, b Chosen) int { return cmp.Compare(a.Set.App, b.Set.App) })
	return choice, nil
}

// byApp are the sets of each app, the newest first.
func byApp(sets []catalog.Set) [][]catalog.Set {
	var apps [][]catalog.Set
	at := map[string]int{}
	for _, set := range sets {
		i, met := at[set.App]
		if !met {
			i = len(apps)
			at[set.App] = i
			apps = append(apps, nil)
		}
		apps[i] = append(apps[i], set)
	}
	return apps
}

// targetOf is how one asks for the app of that set alone.
func targetOf(set catalog.Set) Target {
	first, _, _ := strings.Cut(set.App, "+")
	kind, name, _ := strings.Cut(first, "/")
	return Target{Namespace: set.Namespace, Kind: kind, Name: name}
}

// unborn reports whether the app was not there at the time asked, as far as its
// sets tell.
func (c chooser) unborn(app []catalog.Set) bool {
	return !c.At.IsZero() && !slices.ContainsFunc(app, func(s catalog.Set) bool { return !s.CutAt().After(c.At) })
}

// once leaves each claim to the newest set that holds it.
func (c *Choice) once() {
	slices.SortStableFunc(c.Chosen, func(a, b Chosen) int { return b.Cut.Compare(a.Cut) })
	taken := map[string]bool{}
	var kept []Chosen
	for _, chosen := range c.Chosen {
		points := slices.DeleteFunc(slices.Clone(chosen.Points), func(p Point) bool { return taken[p.Snapshot.Claim] })
		for _, p := range points {
			taken[p.Snapshot.Claim] = true
		}
		if len(points) == 0 {
			c.Passed = append(c.Passed, Passed{Run: chosen.Set.Run, Cut: chosen.Cut, Reason: chosen.Set.App + ": newer sets hold its claims"})
			continue
		}
		chosen.Points = points
		kept = append(kept, chosen)
	}
	c.Chosen = kept
	c.Lacking = slices.DeleteFunc(c.Lacking, func(l Lacking) bool {
		return !slices.ContainsFunc(l.Claims, func(claim string) bool { return !taken[claim] })
	})
}

// ownNames reports whether the claims of chosen get the names that they had:
// where a whole namespace is restored and none of them is there. A set in which
// some are new and some are not would be mounted as one.
func (p *planner) ownNames(chosen Chosen) bool {
	return p.Target.Kind == kindNamespace && !slices.ContainsFunc(chosen.Points, func(point Point) bool {
		return p.taken(p.ToNamespace, point.Snapshot.Claim)
	})
}

// taken reports whether there is a claim of that name.
func (p *planner) taken(namespace, name string) bool {
	return slices.ContainsFunc(p.inventory.Claims, func(c catalog.Claim) bool { return c.Namespace == namespace && c.Name == name })
}

// makes reports whether the namespace of the new claims has to be made: the
// source's own that is lost, or the one that a whole namespace goes to. Any
// other that does not exist was misspelled.
func (p *planner) makes() (bool, error) {
	if !slices.Contains(p.inventory.Lost, p.ToNamespace) {
		return false, nil
	}
	if p.Target.Kind == kindNamespace || p.ToNamespace == p.Target.Namespace {
		return true, nil
	}
	return false, &catalog.Failure{
		Code: catalog.CodeNotFound, Message: "namespace " + p.ToNamespace + " does not exist",
		State: "nothing changed", Next: "kubectl create namespace " + p.ToNamespace,
	}
}

// namespace is the one that is made.
func (p Plan) namespace() catalog.Meta {
	return catalog.Meta{Name: p.ToNamespace, Labels: catalog.Ours("", p.Run), Annotations: catalog.HandsOff()}
}

// Prepare makes the namespace of the new claims, if it is not there. It stays,
// whatever becomes of the claims: who knows what else is in it by then.
func Prepare(ctx context.Context, c Cluster, now func() time.Time, p Plan, w catalog.Watcher) (made bool, err error) {
	if !p.Makes {
		return false, nil
	}
	made, err = c.CreateNamespace(ctx, p.namespace(), false)
	if err != nil {
		return made, fmt.Errorf("make namespace %s: %w", p.ToNamespace, err)
	}
	if made {
		w.Event(catalog.Event{Time: now(), Run: p.Run, Phase: catalog.PhaseRestore, State: catalog.OK, Namespace: p.ToNamespace, Message: "namespace made"})
	}
	return made, nil
}
