package retention

import (
	"strconv"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// clock is a moment as a person in p's zone reads it.
func clock(t time.Time, p Point) string { return t.In(p.zone()).Format("2006-01-02 15:04") }

// dateText is a value of catalog.LabelDeleteAfter as a person in p's zone
// reads it: a day, or a moment.
func dateText(value string, p Point) string {
	if !catalog.IsMoment(value) {
		return value
	}
	t, err := catalog.ReadDeleteAfter(value, p.zone())
	if err != nil {
		return value
	}
	return clock(t, p)
}

// span is the time from p's cut until then as --retain has it: `30d`, `12h`.
// Whole days are kept through the last of them.
func span(p Point, until time.Time) string {
	cut, end := p.Cut.In(p.zone()), until.In(p.zone())
	days := dayNumber(end) - dayNumber(cut) - 1
	if end.Equal(time.Date(end.Year(), end.Month(), end.Day(), 0, 0, 0, 0, p.zone())) && days > 0 {
		return strconv.Itoa(days) + "d"
	}
	return strconv.Itoa(max(int(until.Sub(p.Cut).Hours()), 0)) + "h"
}

func dayNumber(t time.Time) int {
	return int(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / (24 * 60 * 60))
}

// age is a time that has passed, roughly: `2d`, `5h`, `12m`.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	case d >= 2*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Minutes())) + "m"
}
