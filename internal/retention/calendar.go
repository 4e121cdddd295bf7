package retention

import (
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Calendar is points as the calendar alone would have them: each good one
// stands for the periods of its cut, in its own zone, that no earlier one of
// its claims stands for. It is for copies in a repository, which carry no
// labels: dates and marks stay as they are. The order is that of points, which
// are not changed.
func Calendar(points []Point) []Point {
	labelled := make([]Point, len(points))
	order := make([]int, len(points))
	for i, p := range points {
		labelled[i], order[i] = p, i
		labelled[i].Members = slices.Clone(p.Members)
		for m := range labelled[i].Members {
			labelled[i].Members[m].Retain = catalog.Retain{Calendar: true}.Label()
			labelled[i].Members[m].Periods = nil
		}
	}
	taken := tiers{}
	slices.SortStableFunc(order, func(a, b int) int { return earlier(points[a], points[b]) })
	for _, i := range order {
		if p := labelled[i]; p.State == Good {
			periods := taken.free(p)
			for m := range p.Members {
				p.Members[m].Periods = periods
				taken.add(p.Namespace, p.Members[m])
			}
		}
	}
	return labelled
}

// tiers are the keys that are taken, by period, key and claim.
type tiers map[tier]bool

type tier struct {
	namespace, claim string
	period           catalog.Period
	key              string
}

func (t tiers) add(namespace string, m Member) {
	for period, key := range m.Periods {
		t[tier{namespace, m.Claim, period, key}] = true
	}
}

// free are the periods of p's cut for which one of its claims has nobody.
func (t tiers) free(p Point) map[catalog.Period]string {
	free := map[catalog.Period]string{}
	for _, period := range catalog.Periods {
		key := period.Key(p.Cut.In(p.zone()))
		for _, m := range p.Members {
			if !t[tier{p.Namespace, m.Claim, period, key}] {
				free[period] = key
			}
		}
	}
	return free
}

// shareTiers mends in points what backup-ns does to the second claim of a
// namespace: it looks for somebody who stands for a day, week or month in the
// whole namespace, so that the snapshots of one claim get all labels and those
// of the others none, and die the day after. A good calendar snapshot without
// labels stands for each period of its cut for which another claim of its
// namespace has somebody, and its own claim has not.
func shareTiers(points []Point) {
	own, anyone := tiers{}, tiers{}
	var bare []int
	for i, p := range points {
		if p.State != Good || !p.Members[0].BackupNS {
			continue
		}
		m := p.Members[0]
		own.add(p.Namespace, m)
		anyone.add(p.Namespace, Member{Periods: m.Periods})
		if m.Retain == "calendar" && len(m.Periods) == 0 {
			bare = append(bare, i)
		}
	}
	slices.SortStableFunc(bare, func(a, b int) int { return earlier(points[a], points[b]) })
	for _, i := range bare {
		p := points[i]
		periods := own.free(p)
		for period, key := range periods {
			if !anyone[tier{p.Namespace, "", period, key}] {
				delete(periods, period)
			}
		}
		p.Members[0].Periods = periods
		own.add(p.Namespace, p.Members[0])
	}
}
