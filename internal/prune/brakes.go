package prune

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// skew is how far clocks may be apart before ours is taken for wrong.
const skew = 5 * time.Minute

// Limit is how many restore points one run may remove, and how many it may
// mark: a number, or a share of those that are meant.
type Limit struct {
	Number  int
	Percent int // 0: Number holds
}

// ParseLimit reads `25%` or a number.
func ParseLimit(text string) (Limit, error) {
	digits, share := strings.CutSuffix(text, "%")
	n, err := strconv.ParseUint(digits, 10, 31)
	switch {
	case err != nil, share && (n < 1 || n > 100):
		return Limit{}, fmt.Errorf("max-delete %q: want a share such as 25%%, or a number", text)
	case share:
		return Limit{Percent: int(n)}, nil
	}
	return Limit{Number: int(n)}, nil
}

// String is what ParseLimit reads.
func (l Limit) String() string {
	if l.Percent > 0 {
		return strconv.Itoa(l.Percent) + "%"
	}
	return strconv.Itoa(l.Number)
}

// of is how many of n that are. A share is rounded up: one of three may go at
// 25 %, or an app with few restore points would never lose one.
func (l Limit) of(n int) int {
	if l.Percent > 0 {
		return (n*l.Percent + 99) / 100
	}
	return l.Number
}

// clock refuses to judge by a clock that is behind what was cut by another.
func clock(now time.Time, snapshots []catalog.Snapshot) error {
	var newest catalog.Snapshot
	var last time.Time
	for _, s := range snapshots {
		for _, t := range []time.Time{s.Created, s.CutAt()} {
			if t.After(last) {
				newest, last = s, t
			}
		}
	}
	if !last.After(now.Add(skew)) {
		return nil
	}
	return &catalog.Failure{
		Code:    catalog.CodeClock,
		Message: fmt.Sprintf("nothing pruned: snapshot %s/%s is of %s, and it is %s here", newest.Namespace, newest.Name, last.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)),
		State:   "nothing changed",
		Next:    "set the clock of this machine; where it is right, that snapshot's time is wrong: look at it, and remove it by hand",
	}
}

// brakes are why the plan must not be run.
func (p Plan) brakes(verdicts []retention.Verdict) []error {
	var errs []error
	counted := slices.DeleteFunc(slices.Clone(p.Rows), func(r Row) bool {
		return r.Point.State != retention.Good && r.Point.State != retention.Partial
	})
	for _, does := range []retention.Decision{retention.Sweep, retention.Mark} {
		n := 0
		for _, r := range counted {
			if r.Does == does {
				n++
			}
		}
		if most := p.Limit.of(len(counted)); n > most {
			errs = append(errs, p.tooMany(does, n, len(counted)))
		}
	}
	return append(errs, p.last(verdicts)...)
}

func (p Plan) tooMany(does retention.Decision, n, of int) error {
	verb := "remove"
	if does == retention.Mark {
		verb = "mark"
	}
	return &catalog.Failure{
		Code:    catalog.CodeTooMany,
		Message: fmt.Sprintf("prune would %s %d of %d restore points (limit %s)", verb, n, of, p.Limit),
		State:   "nothing changed",
		Next:    fmt.Sprintf("look at the plan with --dry-run; if that is right: --max-delete=%d", n),
	}
}

// last refuses to sweep the last good restore point of a claim. The judge keeps
// it: this is to hold whatever the judge says.
func (p Plan) last(verdicts []retention.Verdict) []error {
	swept := map[string]bool{}
	for _, r := range p.Doing(retention.Sweep) {
		swept[nameOf(r.Point)] = true
	}
	type left struct {
		app       string
		good, out int
	}
	claims := map[string]*left{}
	var order []string
	for _, v := range verdicts {
		for _, m := range v.Point.Members {
			if v.Point.State != retention.Good {
				continue
			}
			key := v.Point.Namespace + "/" + m.Claim + "/" + m.UID
			if claims[key] == nil {
				claims[key] = &left{app: v.Point.App}
				order = append(order, key)
			}
			claims[key].good++
			if swept[nameOf(v.Point)] {
				claims[key].out++
			}
		}
	}
	var errs []error
	for _, key := range order {
		if l := claims[key]; l.good == l.out {
			claim := strings.Join(strings.Split(key, "/")[:2], "/")
			errs = append(errs, lastGood(fmt.Sprintf("prune would remove the last good restore point of %s (%s)", claim, l.app)))
		}
	}
	return errs
}

func lastGood(message string) error {
	return &catalog.Failure{Code: catalog.CodeLastGood, Message: message, State: "nothing changed", Next: "take a new one first: kubectl backsnap snapshot"}
}

// nameOf names a point among all.
func nameOf(p retention.Point) string { return p.Namespace + "/" + p.App + "/" + p.Name }
