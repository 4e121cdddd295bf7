package catalog

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Retain is how long a snapshot is to be kept: by the calendar, for which
// prune's policy decides, or for a number of days from the day it was taken.
// The zero value is no answer.
type Retain struct {
	Calendar bool
	Days     int // more than 0 where Calendar is false
}

// ParseRetain reads `calendar` or a number of days, `30d`.
func ParseRetain(s string) (Retain, error) {
	if s == "calendar" || s == "daily_weekly_monthly" { // backup-ns's spelling
		return Retain{Calendar: true}, nil
	}
	text, ok := strings.CutSuffix(s, "d")
	days, err := strconv.ParseUint(text, 10, 16)
	if !ok || err != nil || days < 1 || days > 36500 {
		return Retain{}, fmt.Errorf("retain %q: want calendar, or days such as 30d", s)
	}
	return Retain{Days: int(days)}, nil
}

// String is what ParseRetain reads.
func (r Retain) String() string {
	if r.Calendar {
		return "calendar"
	}
	return strconv.Itoa(r.Days) + "d"
}

// Label is the value of LabelRetain: `calendar` or `days`.
func (r Retain) Label() string {
	if r.Calendar {
		return "calendar"
	}
	return "days"
}

// DeleteAfter is the value of LabelDeleteAfter for a snapshot cut at t in the
// run's time zone: the last day on which it is kept, `2026-11-29`; "" for
// the calendar, whose date prune sets.
func (r Retain) DeleteAfter(t time.Time) string {
	if r.Calendar {
		return ""
	}
	return t.AddDate(0, 0, r.Days).Format(time.DateOnly)
}
