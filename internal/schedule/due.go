package schedule

import (
	"cmp"
	"slices"
	"time"
)

// Candidate is something that has a schedule of its own: an app.
type Candidate struct {
	Name string // namespace/app: what the order of first runs comes from
	Cron Cron
	Last time.Time // cut of its newest good restore point; zero for none
}

// Over how long first runs are spread, and which part of all begins where
// nothing is there yet that says how often runs come.
const (
	firstSpan  = 6 * time.Hour
	firstShare = 10
)

// Due are the indexes of those that are due at now, sorted; days begin in zone.
// What has missed many turns is due once. What was never taken is due too, but
// not all at once: as many as the time since newest, the newest restore point of
// all (zero for none), is a part of six hours, one at least. Who runs it once a
// day gets them all, who runs it every quarter of an hour a part each time.
func Due(all []Candidate, newest, now time.Time, zone *time.Location) []int {
	var due, first []int
	for i, c := range all {
		switch {
		case c.Last.IsZero():
			first = append(first, i)
		case !c.Cron.Next(c.Last.In(zone)).After(now):
			due = append(due, i)
		}
	}
	slices.SortFunc(first, func(a, b int) int {
		return cmp.Or(cmp.Compare(fingerprint(all[a].Name), fingerprint(all[b].Name)), cmp.Compare(all[a].Name, all[b].Name))
	})
	due = append(due, first[:min(len(first), firsts(len(all), newest, now))]...)
	slices.Sort(due)
	return due
}

// firsts is how many of all that were never taken may be taken now.
func firsts(all int, newest, now time.Time) int {
	if newest.IsZero() {
		return (all + firstShare - 1) / firstShare
	}
	since := min(max(now.Sub(newest), 0), firstSpan)
	return max(1, int((time.Duration(all)*since+firstSpan-1)/firstSpan))
}
