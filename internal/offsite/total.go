package offsite

import (
	"fmt"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// total hands on the events of several copies, and after each that tells of
// bytes one of all together: without a claim and a repository. What has not
// begun yet is not in its numbers, but in its words.
type total struct {
	watcher catalog.Watcher
	copies  int // that are made

	mu     sync.Mutex
	began  time.Time
	of     map[string]catalog.Event // the last progress of each copy
	ended  int
	failed int
}

// sum is a watcher of p's copies that sums them up, where there is more than one.
func sum(p Plan, w catalog.Watcher) catalog.Watcher {
	copies := 0
	for _, c := range p.Copies {
		if !c.Recorded {
			copies++
		}
	}
	if copies < 2 {
		return w
	}
	return &total{watcher: w, copies: copies, of: map[string]catalog.Event{}}
}

// Event is called by all copies at once.
func (t *total) Event(e catalog.Event) {
	t.watcher.Event(e)
	t.mu.Lock()
	defer t.mu.Unlock()
	key := e.Namespace + "/" + e.Name + "/" + e.Repository
	switch e.State {
	case catalog.Started:
		if t.began.IsZero() {
			t.began = e.Time
		}
		return
	case catalog.Progress:
		t.of[key] = e
	case catalog.OK: // its rate counts no more
		t.ended++
		t.of[key] = catalog.Event{Bytes: e.Bytes, Total: e.Bytes}
	case catalog.Failed:
		t.ended, t.failed = t.ended+1, t.failed+1
		delete(t.of, key)
	default:
		return
	}
	t.watcher.Event(t.event(e))
}

// event is all copies together, as of e. When the last has ended it is the end
// of this too.
func (t *total) event(e catalog.Event) catalog.Event {
	all := catalog.Event{
		Time: e.Time, Run: e.Run, Phase: catalog.PhaseUpload, State: catalog.Progress,
		Message: fmt.Sprintf("%d of %d copies", t.ended-t.failed, t.copies),
	}
	for _, one := range t.of {
		all.Bytes += one.Bytes
		all.Total += one.Total
		all.Rate += one.Rate
	}
	if all.Rate > 0 {
		all.Left = time.Duration((all.Total-all.Bytes)/all.Rate) * time.Second
	}
	if t.ended == t.copies {
		all.State, all.Total, all.Took = catalog.OK, 0, e.Time.Sub(t.began)
	}
	return all
}
