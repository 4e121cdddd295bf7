package status

import (
	"fmt"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// Weeks is how many weeks a calendar shows.
const Weeks = 12

// Glyph is what a calendar shows of one day.
type Glyph byte

// The glyphs: they carry the meaning, colour only repeats it.
const (
	Nothing  Glyph = '.' // nothing kept
	Broken   Glyph = 'x' // failed, nothing usable
	Crashed  Glyph = 'o' // crash-consistent only
	Inside   Glyph = '+' // app-consistent, cluster only
	Safe     Glyph = '#' // app-consistent and off-site
	ByWeek   Glyph = 'W' // like Safe, kept as weekly
	ByMonth  Glyph = 'M' // like Safe, kept as monthly
	Tomorrow Glyph = ' ' // a day that is yet to come
)

// worth is which glyph a day with several points has: the greatest's.
var worth = map[Glyph]int{Nothing: 0, Broken: 1, Crashed: 2, Inside: 3, ByMonth: 4, ByWeek: 5, Safe: 6}

// Calendar is what is kept of the last weeks.
type Calendar struct {
	Monday time.Time        // the first day, at midnight
	Days   [Weeks * 7]Glyph // from Monday on
	Points int              // good restore points, older ones too
	Copied int              // of them
	Oldest time.Time        // of them; zero where there is none
	Gap    [2]time.Time     // the longest time without one; zero where there are not two
	Recent time.Duration    // the longest of the last 30 days, in whole days; 0 where it cannot be told
}

// Calendar is what is kept of a. Days begin in zone.
func (a App) Calendar(zone *time.Location, now time.Time) Calendar {
	today := midnight(now.In(zone))
	c := Calendar{Monday: today.AddDate(0, 0, -weekday(today)-7*(Weeks-1))}
	last := weekday(today) + 7*(Weeks-1)
	for i := range c.Days {
		c.Days[i] = Nothing
		if i > last {
			c.Days[i] = Tomorrow
		}
	}
	var days []time.Time // with a good point, in order of time
	for _, p := range slices.Backward(a.Points) {
		day := midnight(p.when().In(zone))
		if p.State == retention.Good {
			c.count(p, day)
			days = append(days, day)
		}
		if i := daysBetween(c.Monday, day); i >= 0 && i <= last {
			if g := p.glyph(daysBetween(day, today)); worth[g] > worth[c.Days[i]] {
				c.Days[i] = g
			}
		}
	}
	c.gaps(days, today)
	return c
}

func (c *Calendar) count(p Point, day time.Time) {
	c.Points++
	if p.Copied {
		c.Copied++
	}
	if c.Oldest.IsZero() {
		c.Oldest = day
	}
}

// gaps finds the longest time between two days, the last of which is today,
// and that of the last 30 days.
func (c *Calendar) gaps(days []time.Time, today time.Time) {
	longest, recent := 0, 0
	for i, day := range days {
		next := today
		if i+1 < len(days) {
			next = days[i+1]
		}
		if n := daysBetween(day, next); n > longest {
			longest, c.Gap = n, [2]time.Time{day, next}
		}
		if n := min(daysBetween(day, next), daysBetween(today.AddDate(0, 0, -30), next)); n > recent {
			recent = n
		}
	}
	c.Recent = time.Duration(recent) * 24 * time.Hour
}

// glyph is what a day shows that p is of, so many days ago.
func (p Point) glyph(ago int) Glyph {
	switch {
	case p.State == retention.Failed:
		return Broken
	case p.State != retention.Good:
		return Nothing
	case p.Consistency != catalog.Application:
		return Crashed
	case !p.Copied:
		return Inside
	case ago < 7 || p.Kept == "":
		return Safe
	case p.Kept == string(catalog.Weekly):
		return ByWeek
	}
	return ByMonth
}

// Header is the months and the weeks above the days: each month's name above
// the week in which it begins.
func (c Calendar) Header() (months, weeks [Weeks]string) {
	for i := range Weeks {
		monday := c.Monday.AddDate(0, 0, 7*i)
		sunday := monday.AddDate(0, 0, 6)
		_, week := monday.ISOWeek()
		weeks[i] = fmt.Sprintf("w%02d", week)
		if i == 0 || sunday.Day() <= 7 {
			months[i] = sunday.Format("Jan")
		}
	}
	if months[1] != "" {
		months[0] = "" // the first would say what holds of a few days
	}
	return months, weeks
}

func midnight(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location())
}

// weekday is 0 for Monday.
func weekday(t time.Time) int { return (int(t.Weekday()) + 6) % 7 }

// daysBetween counts dates, not hours: a day may have 23 of them.
func daysBetween(a, b time.Time) int {
	utc := func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC) }
	return int(utc(b).Sub(utc(a)) / (24 * time.Hour))
}
