package offsite_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// paced is a cluster whose movers log a line each.
type paced struct {
	*cluster
	lines map[string]string // by pod
}

func (p paced) MoverLog(_ context.Context, _, pod string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(p.lines[pod])), nil
}

// Several copies are told of together too: what they have read, how fast, and
// how long that will take.
func TestSeveralCopiesAreSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		status := func(seconds, done, total int) string {
			return fmt.Sprintf(`{"message_type":"status","seconds_elapsed":%d,"total_bytes":%d,"bytes_done":%d}`+"\n", seconds, total, done)
		}
		c, w := paced{newCluster(t), map[string]string{"a": status(1, 20, 100), "b": status(2, 60, 300), "c": ""}}, &events{}
		for i, claim := range []string{"a", "b", "c"} {
			c.follow[claim] = func(_ context.Context, seen func(restic.Sight)) (restic.End, error) {
				time.Sleep(time.Duration(i) * time.Minute)
				seen(restic.Sight{Pod: claim, Running: true})
				time.Sleep(10 * time.Minute)
				if claim == "b" {
					return ends(12, "check", 0), nil
				}
				return ends(0, "backup", 0), nil
			}
		}
		began := time.Now()
		_, err := offsite.Run(t.Context(), c, time.Now, plan(t, "a", "b", "c"), w)
		equal(t, "code", catalog.CodeRepoPassword, catalog.CodeOf(err))
		var sums []catalog.Event
		for _, e := range w.all {
			if e.Claim == "" {
				e.Time = time.Time{}.Add(e.Time.Sub(began))
				sums = append(sums, e)
			}
		}
		after := func(minutes int) time.Time { return time.Time{}.Add(time.Duration(minutes) * time.Minute) }
		all := func(e catalog.Event) catalog.Event {
			e.Run, e.Phase = run, catalog.PhaseUpload
			return e
		}
		equal(t, "sums", []catalog.Event{
			all(catalog.Event{Time: after(0), State: catalog.Progress, Message: "0 of 3 copies", Bytes: 20, Total: 100, Rate: 20, Left: 4 * time.Second}),
			all(catalog.Event{Time: after(1), State: catalog.Progress, Message: "0 of 3 copies", Bytes: 80, Total: 400, Rate: 50, Left: 6 * time.Second}),
			all(catalog.Event{Time: after(10), State: catalog.Progress, Message: "1 of 3 copies", Bytes: 160, Total: 400, Rate: 30, Left: 8 * time.Second}),
			all(catalog.Event{Time: after(11), State: catalog.Progress, Message: "1 of 3 copies", Bytes: 100, Total: 100}),
			all(catalog.Event{Time: after(12), State: catalog.OK, Message: "2 of 3 copies", Bytes: 200, Took: 12 * time.Minute}),
		}, sums)
	})
}
