package retention

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Policy is how many of the newest keys of each period keep their points. A
// period that is not in it keeps none.
type Policy map[catalog.Period]int

// maxKeys bounds a policy's numbers: a hundred years of days.
const maxKeys = 36525

// ParsePolicy reads `daily=7,weekly=4,monthly=12`, in any order; each period
// once, and none with 0. An empty policy would keep nothing and is an error.
func ParsePolicy(text string) (Policy, error) {
	policy := Policy{}
	for _, part := range strings.Split(text, ",") {
		name, number, found := strings.Cut(strings.TrimSpace(part), "=")
		period, known := periodOf(name)
		n, err := strconv.ParseUint(number, 10, 32)
		switch {
		case !found || !known:
			return nil, fmt.Errorf("keep %q: want %s", text, wanted)
		case err != nil || n < 1 || n > maxKeys:
			return nil, fmt.Errorf("keep %q: %s: want a number from 1 to %d; leave out what is not to be kept", text, name, maxKeys)
		case policy[period] != 0:
			return nil, fmt.Errorf("keep %q: %s twice", text, name)
		}
		policy[period] = int(n)
	}
	return policy, nil
}

const wanted = "one or more of hourly=N, daily=N, weekly=N, monthly=N, yearly=N, with commas between them"

func periodOf(name string) (catalog.Period, bool) {
	for _, p := range catalog.Periods {
		if string(p) == name {
			return p, true
		}
	}
	return "", false
}

// String is what ParsePolicy reads, the shortest period first.
func (p Policy) String() string {
	var parts []string
	for _, period := range catalog.Periods {
		if n := p[period]; n > 0 {
			parts = append(parts, string(period)+"="+strconv.Itoa(n))
		}
	}
	return strings.Join(parts, ",")
}
