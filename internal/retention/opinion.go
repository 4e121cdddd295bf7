package retention

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// opinion is what one member says of its point.
type opinion struct {
	claim      string
	decision   Decision
	as, reason string
	why        string // of what is condemned, without what is to become of it
	when       time.Time
	// standing is how long a period keeps it: the longest is what is shown.
	standing int
}

// heavier reports whether o is to be shown rather than other, of the same
// decision.
func (o opinion) heavier(other opinion) bool {
	if o.decision == Keep {
		return o.standing > other.standing
	}
	return o.when.After(other.when)
}

// pinned is above all periods.
const pinned = 100

// opinion is what m alone would have done: its pin, then a person's date, then
// the periods it stands for, then how it is retained.
func (j judging) opinion(p Point, m Member) opinion {
	o := opinion{claim: m.Claim, decision: Keep}
	if m.Pinned {
		o.as, o.reason, o.standing = "pinned", "pinned", pinned
		return o
	}
	living, dead := j.periods(p, m)
	switch {
	case m.dated():
		return j.dated(p, m, o, living)
	case p.State == Failed:
		return j.condemned(p, m, o, p.Because)
	case p.State == Safety:
		o.as, o.reason = "safety", "its delete-after was taken off"
	case len(living) > 0:
		o.as, o.standing = string(living[0].period), living[0].standing
		o.reason = join(living)
	case m.Retain == "days":
		o.as, o.reason = "days", "its delete-after was taken off"
	case m.Retain == "":
		o.reason = "no label says how long"
	case m.Retain == "copied" && !m.Copied && len(m.Missing) > 0:
		o.as, o.reason = "copied", "no copy yet in "+strings.Join(m.Missing, ", ")
	case m.Retain == "copied" && !m.Copied:
		o.as, o.reason = "copied", "no copy was asked for"
	case !m.Marked.IsZero() && m.DeleteAfter == "":
		o.as, o.reason = "unmarked", "its mark was taken off by hand"
	case m.Retain == "copied":
		return j.condemned(p, m, o, "every copy is on record")
	case len(dead) > 0:
		return j.condemned(p, m, o, join(dead))
	default:
		return j.condemned(p, m, o, "no period")
	}
	return o
}

// dated is what a person's date says, or that of --retain, beside whatever
// periods: it is obeyed without a second grace.
func (j judging) dated(p Point, m Member, o opinion, living []place) opinion {
	until, _ := catalog.ReadDeleteAfter(m.DeleteAfter, p.zone()) // check has read it
	o.when = until
	o.as = span(p, until)
	o.reason = "delete-after " + dateText(m.DeleteAfter, p)
	if j.now.Before(until) {
		return o
	}
	o.decision, o.as = Sweep, ""
	o.reason += " has passed"
	if len(living) > 0 {
		o.reason += ", though it stands for " + join(living)
	}
	o.why = o.reason
	return o
}

// condemned is what becomes of m, which nothing keeps: it is marked, and swept
// once its mark has run out.
func (j judging) condemned(p Point, m Member, o opinion, why string) opinion {
	o.decision, o.when, o.reason, o.why = Mark, j.now.Add(j.rules.Grace), why, why
	if m.marked() {
		o.decision = Marked
		o.when, _ = catalog.ReadDeleteAfter(m.DeleteAfter, p.zone()) // check has read it
		o.reason = why + j.since(p, m, why)
	}
	if j.rules.Grace <= 0 && o.when.After(j.now) {
		o.when = j.now
	}
	if !j.now.Before(o.when) {
		o.decision = Sweep
		return o
	}
	o.reason += "; swept after " + clock(o.when, p)
	return o
}

// since says when m was marked, as far as is known.
func (j judging) since(p Point, m Member, why string) string {
	switch {
	case m.Marked.IsZero():
		return ", marked by backup-ns"
	case why == "no period":
		return fmt.Sprintf(" since %s, marked %s ago", m.Marked.In(p.zone()).Format(time.DateOnly), age(j.now.Sub(m.Marked)))
	}
	return fmt.Sprintf(", marked %s ago", age(j.now.Sub(m.Marked)))
}

// place is a period that a member stands for, and where its key stands among
// the newest of its claim.
type place struct {
	period         catalog.Period
	rank, standing int
	of             int
}

// periods are those that m stands for, the longest first: those that the
// policy keeps it for, and those it does not.
func (j judging) periods(p Point, m Member) (living, dead []place) {
	policy, _ := j.policy(p, m) // check has read it
	for standing, period := range slices.Backward(catalog.Periods) {
		if m.Periods[period] == "" {
			continue
		}
		at := place{period: period, rank: j.rank(p, m, period), of: policy[period], standing: standing + 1}
		switch {
		case at.rank <= at.of:
			living = append(living, at)
		case at.of > 0:
			dead = append(dead, at)
		}
	}
	return living, dead
}

func join(places []place) string {
	var texts []string
	for _, p := range places {
		texts = append(texts, fmt.Sprintf("%s %d/%d", p.period, p.rank, p.of))
	}
	return strings.Join(texts, ", ")
}

// marked reports whether prune's mark is in force on m: a day as its date is
// always a person's. backup-ns signs nothing, and marks calendar ones alone.
func (m Member) marked() bool {
	if m.BackupNS && m.Retain == "calendar" && m.DeleteAfter != "" {
		return true
	}
	return !m.Marked.IsZero() && catalog.IsMoment(m.DeleteAfter)
}

// dated reports whether a person, or --retain, has set the date of m.
func (m Member) dated() bool { return m.DeleteAfter != "" && !m.marked() }

func (p Point) zone() *time.Location {
	if p.Zone == nil {
		return time.UTC
	}
	return p.Zone
}

// earlier is the order of time.
func earlier(a, b Point) int { return a.Cut.Compare(b.Cut) }
