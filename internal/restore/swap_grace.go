package restore

import (
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// DefaultGrace is how long what was replaced is kept in any case: as long as
// what prune has marked.
const DefaultGrace = 24 * time.Hour

// Terms are how long a restore in place waits for the app, and leaves a person
// to find out that it was wrong.
type Terms struct {
	// AppTimeout is how long the app may take to stop, and to be ready again.
	AppTimeout time.Duration
	// Grace is how long Commit leaves the replaced volumes alone; 0 for not at all.
	Grace time.Duration
}

// KeptUntil is from when the volumes that are kept may go: the latest of what
// stands on them, in UTC. It is zero if nothing does, which is so too when a
// person has taken it off.
func (s Swap) KeptUntil() (time.Time, error) {
	var until time.Time
	for _, v := range s.Kept() {
		if v.DeleteAfter == "" {
			continue
		}
		t, err := catalog.ReadDeleteAfter(v.DeleteAfter, time.UTC)
		if err != nil {
			return until, fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if t.After(until) {
			until = t
		}
	}
	return until, nil
}

// inGrace is that the volumes which are kept may not go yet; nil if they may.
func (s Swap) inGrace(now time.Time) error {
	until, err := s.KeptUntil()
	command := fmt.Sprintf("kubectl backsnap restore --commit %s -n %s", s.Run, s.Namespace)
	f := &catalog.Failure{
		Code: catalog.CodeGrace, Message: fmt.Sprintf("run %s is not committed: its replaced volumes are kept for a while", s.Run),
		Cause: err, State: "nothing changed", Next: "at once, on purpose: " + command + " --grace 0",
	}
	switch {
	case err != nil:
		return f
	case !now.Before(until):
		return nil
	}
	when := until.Format(time.RFC3339)
	f.Message = fmt.Sprintf("run %s is not committed: its replaced volumes are kept until %s, for %s more", s.Run, when, until.Sub(now).Round(time.Second))
	f.Next = fmt.Sprintf("from %s on: %s; %s", when, command, f.Next)
	return f
}
