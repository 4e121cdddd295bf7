package catalog

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// Period is a stretch of the calendar that a snapshot can stand for.
type Period string

// The periods, shortest first in Periods.
const (
	Hourly  Period = "hourly"
	Daily   Period = "daily"
	Weekly  Period = "weekly"
	Monthly Period = "monthly"
	Yearly  Period = "yearly"
)

// Periods are all periods, shortest first.
var Periods = []Period{Hourly, Daily, Weekly, Monthly, Yearly}

// Label is the key of the label that names the period a snapshot stands for.
func (p Period) Label() string { return "backsnap.sh/" + string(p) }

// Key names the hour, day, week, month or year that holds t: days, weeks,
// months and years in t's own location, "2024-12-30", "2025-w01", "2024-12",
// "2024"; hours in UTC, "2024-12-30T00Z", so that none comes twice when the
// clocks go back. Weeks are those of ISO 8601 and carry the ISO year, so that
// the keys of one Period sort in time order.
func (p Period) Key(t time.Time) string {
	switch p {
	case Hourly:
		t = t.UTC()
	case Weekly:
		year, week := t.ISOWeek()
		return fmt.Sprintf("%04d-w%02d", year, week)
	}
	return t.Format(p.form())
}

// Check is what is wrong with key, as a value of p's label: nil for one that
// Key can give.
func (p Period) Check(key string) error {
	if form := p.form(); form != "" {
		if t, err := time.Parse(form, key); err != nil || t.Format(form) != key {
			return fmt.Errorf("label %s %q: want the form %s", p.Label(), key, p.Key(time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC)))
		}
		return nil
	}
	if _, err := weekStart(key); err != nil {
		return fmt.Errorf("label %s %q: %w", p.Label(), key, err)
	}
	return nil
}

// form is how p's keys are laid out, for package time; "" for weeks, which it
// does not know.
func (p Period) form() string {
	switch p {
	case Hourly:
		return "2006-01-02T15Z"
	case Weekly:
		return ""
	case Monthly:
		return "2006-01"
	case Yearly:
		return "2006"
	}
	return time.DateOnly
}

// weekStart is the Monday of a weekly key, in UTC. A week that its year does
// not have is an error.
func weekStart(key string) (time.Time, error) {
	if !weekForm.MatchString(key) {
		return time.Time{}, errors.New("want the form 2026-w47")
	}
	year, _ := strconv.Atoi(key[:4])
	week, _ := strconv.Atoi(key[6:])
	monday := mondayOf(year, week)
	if Weekly.Key(monday) != key {
		return time.Time{}, errors.New("that year has no such week")
	}
	return monday, nil
}

var weekForm = regexp.MustCompile(`^[0-9]{4}-w[0-9]{2}$`)

// mondayOf is the first day of that ISO week, in UTC: 4 January is always in
// week 1.
func mondayOf(year, week int) time.Time {
	fourth := time.Date(year, time.January, 4, 0, 0, 0, 0, time.UTC)
	sinceMonday := (int(fourth.Weekday()) + 6) % 7
	return fourth.AddDate(0, 0, (week-1)*7-sinceMonday)
}

// FreePeriods are the periods that the set of claims cut at t, one namespace's
// claims by name, stands for: those of daily, weekly, monthly and so on for
// which at least one of its claims has no ready snapshot in taken. t is in
// the run's time zone. taken may hold any snapshots of that namespace,
// unready ones, those that are being deleted and those of other claims among
// them.
func FreePeriods(t time.Time, claims []string, taken []Snapshot) map[Period]string {
	free := map[Period]string{}
	for _, p := range Periods {
		if key := p.Key(t); !allStand(p, key, claims, taken) {
			free[p] = key
		}
	}
	return free
}

// allStand reports whether each claim has a ready snapshot that stands for p's key.
func allStand(p Period, key string, claims []string, taken []Snapshot) bool {
	for _, claim := range claims {
		if !stands(p, key, claim, taken) {
			return false
		}
	}
	return true
}

func stands(p Period, key, claim string, taken []Snapshot) bool {
	for _, s := range taken {
		if s.Ready && !s.Terminating && s.Role == "" && s.Claim == claim && s.Periods[p] == key {
			return true
		}
	}
	return false
}
