package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Swap is a restore in place as it stands. There is no journal: it is read
// from the volumes that were marked, the claims that new ones come from, the
// claims of the app, and the app.
type Swap struct {
	Namespace string
	Run       catalog.Run
	Turn      catalog.Turn // what is under way, "" for nothing
	Pairs     []Pair       // by claim
	Apps      []catalog.App
}

// Pair is a claim and its two volumes.
type Pair struct {
	Claim string
	// Live is the claim as it is, without a UID where it is not there just now.
	// Manifest makes it again.
	Live     catalog.Claim
	Manifest string
	// Old and New have no Name where they are gone, or another run's by now,
	// and no Role where they are not marked.
	Old, New catalog.SwapVolume
	// Temp is the claim that New comes from, without a UID once it is gone.
	Temp catalog.Claim
}

// wanted is the volume that the claim has in the end, and other the other one.
func (p *Pair) wanted(turn catalog.Turn) (wanted, other *catalog.SwapVolume) {
	if turn == catalog.Back {
		return &p.Old, &p.New
	}
	return &p.New, &p.Old
}

// placed reports whether the claim has the volume that it is to have.
func (p Pair) placed(turn catalog.Turn) bool {
	wanted, _ := p.wanted(turn)
	return wanted.Name != "" && p.Live.Volume == wanted.Name
}

// Placed reports whether all claims have the volumes that they are to have.
func (s Swap) Placed(turn catalog.Turn) bool {
	return !slices.ContainsFunc(s.Pairs, func(p Pair) bool { return !p.placed(turn) })
}

// Claims are the names of the claims.
func (s Swap) Claims() []string {
	var names []string
	for _, p := range s.Pairs {
		names = append(names, p.Claim)
	}
	return names
}

// begun reports whether any volume is marked: before, nothing of the app was
// touched.
func (s Swap) begun() bool {
	return slices.ContainsFunc(s.Pairs, func(p Pair) bool { return p.Old.Role != "" || p.New.Role != "" })
}

// concerns reports whether s is of that claim or workload.
func (s Swap) concerns(t Target) bool {
	if t.Kind == "pvc" {
		return slices.Contains(s.Claims(), t.Name)
	}
	return slices.ContainsFunc(s.Apps, func(a catalog.App) bool { return a.String() == t.String() })
}

// FindSwap reads the restore in place of that run. It has no Pairs where there
// is no trace of it.
func FindSwap(ctx context.Context, c SwapCluster, namespace string, run catalog.Run) (Swap, error) {
	s := Swap{Namespace: namespace, Run: run}
	volumes, err := c.SwapVolumes(ctx, namespace)
	if err != nil {
		return s, err
	}
	inventory, err := c.Inventory(ctx, catalog.Scope{Namespaces: []string{namespace}})
	if err != nil {
		return s, err
	}
	f := &finder{run: run, claims: inventory.Claims, pairs: map[string]*Pair{}, others: map[string]bool{}}
	s.Turn = f.marked(volumes)
	f.temporary()
	for _, p := range f.pairs {
		if err := f.complete(ctx, c, namespace, p); err != nil {
			return s, err
		}
		s.Pairs = append(s.Pairs, *p)
	}
	slices.SortFunc(s.Pairs, func(a, b Pair) int { return cmp.Compare(a.Claim, b.Claim) })
	if len(s.Pairs) > 0 {
		s.Apps, err = f.apps(ctx, c, s)
	}
	return s, err
}

// finder puts together what belongs to one run.
type finder struct {
	run    catalog.Run
	claims []catalog.Claim
	pairs  map[string]*Pair // by ClaimLabel
	others map[string]bool  // volumes that other runs have marked
}

// marked takes in the volumes, and is what is under way.
func (f *finder) marked(volumes []catalog.SwapVolume) catalog.Turn {
	var turn catalog.Turn
	for _, v := range volumes {
		if v.Run != f.run {
			f.others[v.Name] = true
			continue
		}
		p := f.pair(catalog.ClaimLabel(v.Of))
		p.Claim, p.Manifest = v.Of, v.Manifest
		if v.Role == catalog.RoleOld {
			p.Old = v
		} else {
			p.New = v
		}
		turn = cmp.Or(turn, v.Turn)
	}
	return turn
}

func (f *finder) pair(label string) *Pair {
	if f.pairs[label] == nil {
		f.pairs[label] = &Pair{}
	}
	return f.pairs[label]
}

// temporary takes in the claims that new volumes come from.
func (f *finder) temporary() {
	for _, c := range f.claims {
		if c.Role == catalog.RoleNew && c.Labels[catalog.LabelRun] == string(f.run) {
			f.pair(c.Labels[catalog.LabelClaim]).Temp = c
		}
	}
}

// complete fills in what can be told of a volume that is not marked yet: the
// new one is that of the temporary claim, the old one is the claim's own.
func (f *finder) complete(ctx context.Context, c SwapCluster, namespace string, p *Pair) error {
	if p.Claim == "" {
		i := slices.IndexFunc(f.claims, func(live catalog.Claim) bool {
			return live.Role == "" && catalog.ClaimLabel(live.Name) == p.Temp.Labels[catalog.LabelClaim]
		})
		if i < 0 {
			p.Claim = p.Temp.Labels[catalog.LabelClaim]
			return nil
		}
		p.Claim = f.claims[i].Name
	}
	live, manifest, err := c.ReadClaim(ctx, namespace, p.Claim)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	p.Live, p.Manifest = live, manifest
	whose := catalog.Claim{Namespace: namespace, Name: p.Claim, UID: live.UID}
	if p.New.Name == "" && p.Temp.Volume != "" {
		p.New.Volume = catalog.Volume{Name: p.Temp.Volume, Claim: catalog.Claim{Namespace: namespace, Name: p.Temp.Name, UID: p.Temp.UID}}
	}
	switch {
	case live.Volume == "":
	case p.Old.Name == "" && live.Volume != p.New.Name && p.Temp.UID != "": // an earlier run may have brought it there
		p.Old.Volume = catalog.Volume{Name: live.Volume, Claim: whose}
	case p.New.Name == "" && live.Volume != p.Old.Name && !f.others[live.Volume]:
		p.New.Volume = catalog.Volume{Name: live.Volume, Claim: whose}
	}
	return nil
}

// apps are those that mount the claims, and those that the run has scaled.
func (f *finder) apps(ctx context.Context, c SwapCluster, s Swap) ([]catalog.App, error) {
	all, err := c.Apps(ctx, s.Namespace)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(a catalog.App) bool {
		_, scaled := a.Remembered(f.run)
		return !a.Scalable() || !scaled && !slices.ContainsFunc(s.Claims(), a.Mounts)
	}), nil
}

// Unfinished is the restore in place of t that a run has begun and not ended,
// nil for none. What has touched nothing of the app yet does not count.
func Unfinished(ctx context.Context, c SwapCluster, t Target) (*Swap, error) {
	volumes, err := c.SwapVolumes(ctx, t.Namespace)
	if err != nil {
		return nil, err
	}
	seen := map[catalog.Run]bool{}
	for _, v := range volumes {
		if v.Turn == "" || seen[v.Run] {
			continue
		}
		seen[v.Run] = true
		s, err := FindSwap(ctx, c, t.Namespace, v.Run)
		if err != nil || s.concerns(t) {
			return &s, err
		}
	}
	return nil, nil
}

// CanTurn says why the volumes cannot be exchanged in that direction; nil if
// they can. The error is a catalog.Failure.
func (s Swap) CanTurn(turn catalog.Turn) error {
	if len(s.Pairs) == 0 {
		return &catalog.Failure{
			Code: catalog.CodeNotFound, Message: fmt.Sprintf("no trace of a restore in place by run %s in %s", s.Run, s.Namespace), State: "nothing changed",
			Next: "see what there is: kubectl get persistentvolumes -l " + catalog.LabelRole + "=" + string(catalog.RoleOld) + " -L " + catalog.LabelRun + "," + catalog.LabelNamespace + "," + catalog.LabelClaim,
		}
	}
	for _, p := range s.Pairs {
		wanted, other := p.wanted(turn)
		no := func(reason, next string) error {
			return &catalog.Failure{
				Code: catalog.CodeNotNow, Message: fmt.Sprintf("%s/%s cannot be turned back or forth: %s", s.Namespace, p.Claim, reason), State: "nothing changed", Next: next,
			}
		}
		switch {
		case wanted.Name == "":
			return no("the volume that it would have is gone: it was committed", "kubectl backsnap list -n "+s.Namespace)
		case other.Name == "" && s.begun():
			return no("another run has replaced its volume since", "roll that one back first: kubectl get persistentvolumes -L "+catalog.LabelRun+" -l "+catalog.LabelClaim+"="+catalog.ClaimLabel(p.Claim))
		case s.begun() && p.Manifest == "":
			return no("it is not there, and no volume has its manifest", "make it by hand with volumeName "+wanted.Name)
		}
	}
	return nil
}
