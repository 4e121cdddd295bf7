package retention

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// skew is how far a cut may lie in the future: the storage has its own clock.
const skew = 5 * time.Minute

// Judge decides of each point, the newest first. Points of several apps and
// namespaces may be mixed: they are judged apart. What was decided is a
// function of the points as a whole: all that there are of a claim must be
// among them.
func Judge(points []Point, rules Rules, now time.Time) []Verdict {
	sorted := slices.Clone(points)
	sortPoints(sorted)
	j := judging{rules: rules, now: now, wrong: make([]error, len(sorted)), stays: make([]bool, len(sorted)), keys: map[scope][]string{}}
	for i, p := range sorted {
		j.wrong[i] = j.check(p)
	}
	j.count(sorted)
	j.protect(sorted)
	verdicts := make([]Verdict, len(sorted))
	for i, p := range sorted {
		verdicts[i] = j.verdict(p, j.stays[i], j.wrong[i])
	}
	return verdicts
}

type judging struct {
	rules Rules
	now   time.Time
	wrong []error // of each point: what a person must mend first
	stays []bool  // each point: whether it is among the newest good ones
	keys  map[scope][]string
}

// scope is where keys are counted: one claim's, of one period.
type scope struct {
	namespace, claim string
	period           catalog.Period
}

// check is what is wrong with a point that is to be judged.
func (j judging) check(p Point) error {
	var wrong []error
	if p.Cut.After(j.now.Add(skew)) {
		wrong = append(wrong, fmt.Errorf("it was cut at %s, which is still to come", clock(p.Cut, p)))
	}
	for _, m := range p.Members {
		if err := j.checkMember(p, m); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", m.Claim, err))
		}
	}
	return errors.Join(wrong...)
}

func (j judging) checkMember(p Point, m Member) error {
	var wrong []error
	switch m.Retain {
	case "calendar", "days", "copied", "":
	default:
		wrong = append(wrong, fmt.Errorf("label %s %q: want calendar, days or copied", catalog.LabelRetain, m.Retain))
	}
	for _, period := range catalog.Periods {
		if key := m.Periods[period]; key != "" {
			wrong = append(wrong, j.checkKey(p, period, key))
		}
	}
	if m.DeleteAfter != "" {
		if _, err := catalog.ReadDeleteAfter(m.DeleteAfter, p.zone()); err != nil {
			wrong = append(wrong, fmt.Errorf("label %w", err))
		}
	}
	if _, err := j.policy(p, m); err != nil {
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

// east is where days begin first. A point's zone may be one that was asked
// for, and its label still from there.
var east = time.FixedZone("", 14*60*60)

func (j judging) checkKey(p Point, period catalog.Period, key string) error {
	if err := period.Check(key); err != nil {
		return err
	}
	if key > period.Key(j.now.In(p.zone())) && key > period.Key(p.Cut.In(east)) {
		return fmt.Errorf("label %s %q is still to come", period.Label(), key)
	}
	return nil
}

func (j judging) policy(p Point, m Member) (Policy, error) {
	if j.rules.Own == nil {
		return j.rules.Policy, nil
	}
	own, found, err := j.rules.Own(p.Namespace, m.Claim)
	if err != nil || !found {
		return j.rules.Policy, err
	}
	return own, nil
}

// count collects the keys of each claim, the newest first. A point with a
// person's date has no place among them: the date decides of it.
func (j judging) count(points []Point) {
	for i, p := range points {
		if p.State != Good || j.wrong[i] != nil {
			continue
		}
		for _, m := range p.Members {
			if m.dated() {
				continue
			}
			for period, key := range m.Periods {
				at := scope{p.Namespace, m.Claim, period}
				j.keys[at] = append(j.keys[at], key)
			}
		}
	}
	for at, keys := range j.keys {
		slices.Sort(keys)
		keys = slices.Compact(keys)
		slices.Reverse(keys)
		j.keys[at] = keys
	}
}

// rank is the place of key among the newest of its claim and period, from 1.
func (j judging) rank(p Point, m Member, period catalog.Period) int {
	key, rank := m.Periods[period], 1
	for _, newer := range j.keys[scope{p.Namespace, m.Claim, period}] {
		if newer <= key {
			break
		}
		rank++
	}
	return rank
}

// incarnation is one claim of those that had its name, one after the other.
type incarnation struct{ namespace, claim, uid string }

// protect finds the newest good points of each claim, and of each claim that
// had its name before. What is broken stays where nothing better is there.
func (j judging) protect(points []Point) {
	have, proven := map[incarnation]int{}, map[incarnation]bool{}
	least := max(j.rules.MinKeep, 1)
	each := func(state State, f func(i int, c incarnation)) {
		for i, p := range points {
			if p.State != state || j.wrong[i] != nil {
				continue
			}
			for _, m := range p.Members {
				f(i, incarnation{p.Namespace, m.Claim, m.UID})
			}
		}
	}
	newest := func(i int, c incarnation) {
		if have[c] < least {
			have[c]++
			j.stays[i] = true
			proven[c] = proven[c] || points[i].Consistency == catalog.Application
		}
	}
	each(Good, newest)
	each(Partial, newest)
	each(Good, func(i int, c incarnation) {
		if !proven[c] && points[i].Consistency == catalog.Application {
			proven[c] = true
			j.stays[i] = true
		}
	})
}

// verdict is what becomes of p: what most of its members speak for is of no
// matter, one that keeps it is enough.
func (j judging) verdict(p Point, stays bool, wrong error) Verdict {
	v := Verdict{Point: p, Decision: Leave, Reason: p.Because}
	if p.State == Unready || p.State == Foreign {
		return v
	}
	if wrong != nil {
		v.Err, v.Reason = wrong, strings.ReplaceAll(wrong.Error(), "\n", "; ")
		return v
	}
	opinions := make([]opinion, len(p.Members))
	for i, m := range p.Members {
		opinions[i] = j.opinion(p, m)
	}
	said := weightiest(opinions)
	v.Decision, v.KeptAs, v.Reason, v.When = said.decision, said.as, said.reason, said.when
	if v.Decision != Keep && stays {
		v.Decision, v.KeptAs, v.Protected, v.When = Keep, "newest", true, time.Time{}
		v.Reason = protection(p) + said.why
	}
	if v.Decision == Keep && slices.ContainsFunc(p.Members, Member.marked) {
		v.Decision = Unmark
	}
	v.On = on(p, v.Decision)
	return v
}

// on are the members of p on which decision is to be written.
func on(p Point, decision Decision) (names []string) {
	for _, m := range p.Members {
		if decision == Mark && !m.dated() || decision == Unmark && m.marked() {
			names = append(names, m.Name)
		}
	}
	return names
}

// protection says why p stays whatever else holds.
func protection(p Point) string {
	if p.State == Partial {
		return "nothing whole is there; "
	}
	return "newest good set stays; "
}

// weightiest is what a set's members say as one: the first of those that keep
// it, else the first that is yet to be marked, else the latest mark.
func weightiest(opinions []opinion) opinion {
	alike := !slices.ContainsFunc(opinions, func(o opinion) bool { return o.reason != opinions[0].reason })
	said := opinions[0]
	for _, o := range opinions[1:] {
		if weight := weights[o.decision] - weights[said.decision]; weight > 0 || weight == 0 && o.heavier(said) {
			said = o
		}
	}
	if !alike {
		said.reason, said.why = said.claim+": "+said.reason, said.claim+": "+said.why
	}
	return said
}

var weights = map[Decision]int{Sweep: 0, Marked: 1, Mark: 2, Keep: 3}
