package catalog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Retain is how long a snapshot is to be kept: by the calendar, for which
// prune's policy decides; until every copy that was asked for is on record;
// or for a time from its cut, which is whole days or any number of hours.
// Exactly one field is set; the zero value is no answer.
type Retain struct {
	Calendar bool
	Copied   bool
	Days     int
	Hours    int
}

// ParseRetain reads `calendar`, `copied`, a number of days, `30d`, or of
// hours, `12h`.
func ParseRetain(s string) (Retain, error) {
	switch s {
	case "calendar", "daily_weekly_monthly": // the latter is backup-ns's spelling
		return Retain{Calendar: true}, nil
	case "copied":
		return Retain{Copied: true}, nil
	}
	if n, ok := count(s, "d", 36500); ok {
		return Retain{Days: n}, nil
	}
	if n, ok := count(s, "h", 24*36500); ok {
		return Retain{Hours: n}, nil
	}
	return Retain{}, fmt.Errorf("retain %q: want days such as 30d, hours such as 12h, calendar or copied", s)
}

// count reads a number from 1 to most with that unit.
func count(s, unit string, most uint64) (int, bool) {
	text, ok := strings.CutSuffix(s, unit)
	n, err := strconv.ParseUint(text, 10, 32)
	return int(n), ok && err == nil && n >= 1 && n <= most
}

// String is what ParseRetain reads.
func (r Retain) String() string {
	switch {
	case r.Calendar:
		return "calendar"
	case r.Copied:
		return "copied"
	case r.Hours > 0:
		return strconv.Itoa(r.Hours) + "h"
	}
	return strconv.Itoa(r.Days) + "d"
}

// Label is the value of LabelRetain: `calendar`, `copied` or `days`, which
// stands for hours too.
func (r Retain) Label() string {
	switch {
	case r.Calendar:
		return "calendar"
	case r.Copied:
		return "copied"
	}
	return "days"
}

// DeleteAfter is the value of LabelDeleteAfter for a snapshot cut at t in the
// run's time zone: the last day on which it is kept, `2026-11-29`; for hours
// the moment in UTC, `20261123T092000Z`; "" for the calendar and for copied,
// whose date prune sets.
func (r Retain) DeleteAfter(t time.Time) string {
	switch {
	case r.Calendar || r.Copied:
		return ""
	case r.Hours > 0:
		return t.Add(time.Duration(r.Hours) * time.Hour).UTC().Format(deleteMoment)
	}
	return t.AddDate(0, 0, r.Days).Format(time.DateOnly)
}

// deleteMoment is the form of LabelDeleteAfter where it is no whole day: a
// label's value may hold no colon.
const deleteMoment = "20060102T150405Z"

// IsMoment reports whether a value of LabelDeleteAfter is a moment, as those of
// prune's marks and of hours are, and no day.
func IsMoment(value string) bool {
	_, err := time.Parse(deleteMoment, value)
	return err == nil
}

// ReadDeleteAfter is the moment from which a snapshot with that value of
// LabelDeleteAfter is kept no longer: the end of the day in zone, or the
// moment itself. Anything else is an error.
func ReadDeleteAfter(value string, zone *time.Location) (time.Time, error) {
	if t, err := time.Parse(deleteMoment, value); err == nil {
		return t, nil
	}
	day, err := time.ParseInLocation(time.DateOnly, value, zone)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %q: want 2026-11-29 or 20261123T092000Z", LabelDeleteAfter, value)
	}
	return day.AddDate(0, 0, 1), nil
}
