// Package schedule makes the manifests of unattended work, plain CronJobs with
// an identity and no more rights than they need, and knows when something is
// due. It keeps no state of its own: what is there is in the CronJobs, and when
// something was last done is in the restore points.
package schedule

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Cron is when something is to be done: a time table as Kubernetes reads it.
type Cron struct {
	text  string
	table cron.Schedule
}

// String is the text that was parsed.
func (c Cron) String() string { return c.text }

// aDay from which a time table is tried. The parser looks five years ahead: that
// holds a 29th of February.
var aDay = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// ParseCron reads a time table with the parser of the CronJob controller, so
// that what is taken here fires there, and refuses what that accepts and should
// not: a time zone in the text, which the API refuses and the parser may panic
// over, and a table that never comes true.
func ParseCron(text string) (Cron, error) {
	bad := func(err error) (Cron, error) {
		return Cron{}, fmt.Errorf("schedule %q: %w", text, err)
	}
	trimmed := strings.TrimSpace(text)
	switch {
	case trimmed == "":
		return bad(errors.New("it is empty: want five fields such as 15 1 * * *, or @daily"))
	case strings.Contains(trimmed, "TZ="):
		return bad(errors.New("a time zone has no place in it: use --timezone"))
	case !strings.HasPrefix(trimmed, "@") && len(strings.Fields(trimmed)) != 5:
		return bad(fmt.Errorf("%d fields: want five: minute, hour, day of month, month, day of week", len(strings.Fields(trimmed))))
	}
	table, err := parse(trimmed)
	if err != nil {
		return bad(err)
	}
	if table.Next(aDay).IsZero() {
		return bad(errors.New("it never comes: there is no such day"))
	}
	return Cron{text: trimmed, table: table}, nil
}

// parse is the parser's call. It panics over some texts that are wrong.
func parse(text string) (table cron.Schedule, err error) {
	defer func() {
		if found := recover(); found != nil {
			err = fmt.Errorf("it cannot be read: %v", found)
		}
	}()
	return cron.ParseStandard(text)
}

// Next is the first time after t, by the clock of t's own zone.
func (c Cron) Next(t time.Time) time.Time {
	if table, ok := c.table.(*cron.SpecSchedule); ok {
		in := *table // the parser has put the machine's zone into it
		in.Location = t.Location()
		return in.Next(t)
	}
	return c.table.Next(t)
}

// Longest is the longest time between two turns that follow each other, by a clock
// that is never set. It looks at five years, or at as many turns as a month of
// minutes has.
func (c Cron) Longest() (longest time.Duration) {
	const most = 31 * 24 * 60
	last := c.Next(aDay)
	for range most {
		next := c.Next(last)
		if next.IsZero() || next.After(aDay.AddDate(5, 0, 0)) && longest > 0 {
			break
		}
		last, longest = next, max(longest, next.Sub(last))
	}
	return longest
}

// Spread gives a time table that names no minute one that depends on name alone:
// two schedules do not begin together, and the same one always comes out the
// same. @daily, @weekly, @monthly and @yearly come between midnight and six. A
// table that names its minute is what it was.
func (c Cron) Spread(name string) Cron {
	sum := fingerprint(name)
	minute, hour := sum%60, sum/60%6
	forms := map[string]string{
		"@hourly": "M * * * *", "@daily": "M H * * *", "@midnight": "M H * * *",
		"@weekly": "M H * * 0", "@monthly": "M H 1 * *", "@yearly": "M H 1 1 *", "@annually": "M H 1 1 *",
	}
	form, known := forms[c.text]
	if !known {
		return c
	}
	// Not by Sprintf: @hourly names no hour.
	text := strings.NewReplacer("M", fmt.Sprint(minute), "H", fmt.Sprint(hour)).Replace(form)
	spread, err := ParseCron(text)
	if err != nil {
		return c
	}
	return spread
}

// fingerprint is a number that depends on text alone.
func fingerprint(text string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(text)) // never fails
	return h.Sum32()
}
