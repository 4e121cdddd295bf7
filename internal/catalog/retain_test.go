package catalog_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestParseRetain(t *testing.T) {
	for text, want := range map[string]catalog.Retain{
		"calendar":             {Calendar: true},
		"daily_weekly_monthly": {Calendar: true},
		"1d":                   {Days: 1},
		"30d":                  {Days: 30},
		"36500d":               {Days: 36500},
		"copied":               {Copied: true},
		"1h":                   {Hours: 1},
		"12h":                  {Hours: 12},
		"876000h":              {Hours: 876000},
	} {
		got, err := catalog.ParseRetain(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestParseRetainRefuses(t *testing.T) {
	for _, text := range []string{"", "d", "30", "0d", "-1d", "+5d", "1.5d", "36501d", "99999999999999999999d", " 30d", "30d ", "30dd", "30D", "1w", "Calendar", "Copied", "h", "0h", "-1h", "1.5h", "876001h", "12H", "1d12h", "90m"} {
		if got, err := catalog.ParseRetain(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func TestRetainString(t *testing.T) {
	for _, text := range []string{"calendar", "copied", "1d", "30d", "1h", "12h", "48h"} {
		r, err := catalog.ParseRetain(text)
		if err != nil || r.String() != text {
			t.Errorf("%q is written as %q, %v", text, r, err)
		}
	}
}

func TestRetainLabel(t *testing.T) {
	got := []string{catalog.Retain{Calendar: true}.Label(), catalog.Retain{Copied: true}.Label(), catalog.Retain{Days: 7}.Label(), catalog.Retain{Hours: 7}.Label()}
	if diff := cmp.Diff([]string{"calendar", "copied", "days", "days"}, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestDeleteAfterIsTheLastDayOnWhichItIsKept(t *testing.T) {
	for _, c := range []struct {
		name      string
		retain    catalog.Retain
		cut, zone string // in UTC
		want      string
	}{
		{"a week", catalog.Retain{Days: 7}, "2026-11-22T01:15", "UTC", "2026-11-29"},
		{"over the end of a year", catalog.Retain{Days: 30}, "2026-12-15T01:15", "UTC", "2027-01-14"},
		{"over a leap day", catalog.Retain{Days: 2}, "2028-02-28T01:15", "UTC", "2028-03-01"},
		{"from the day in the run's zone", catalog.Retain{Days: 7}, "2026-11-22T23:30", "Europe/Berlin", "2026-11-30"},
		{"days of 25 hours are days", catalog.Retain{Days: 1}, "2026-10-24T22:30", "Europe/Berlin", "2026-10-26"},
		{"days of 23 hours are days", catalog.Retain{Days: 1}, "2026-03-28T23:30", "Europe/Berlin", "2026-03-30"},
		{"the calendar sets none", catalog.Retain{Calendar: true}, "2026-11-22T01:15", "UTC", ""},
		{"a copy sets none", catalog.Retain{Copied: true}, "2026-11-22T01:15", "UTC", ""},
		{"hours are to the second, in UTC", catalog.Retain{Hours: 12}, "2026-11-22T23:30", "Europe/Berlin", "20261123T113000Z"},
		{"hours do not care for the clocks", catalog.Retain{Hours: 24}, "2026-10-24T22:30", "Europe/Berlin", "20261025T223000Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.retain.DeleteAfter(in(t, c.cut, c.zone)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestReadDeleteAfter(t *testing.T) {
	for _, c := range []struct{ name, value, zone, want string }{
		{"kept through the day", "2026-11-29", "UTC", "2026-11-30T00:00"},
		{"of the zone it was taken in", "2026-11-29", "Europe/Berlin", "2026-11-29T23:00"},
		{"also if that day has 25 hours", "2026-10-25", "Europe/Berlin", "2026-10-25T23:00"},
		{"a moment is in UTC", "20261123T092000Z", "Europe/Berlin", "2026-11-23T09:20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			zone, err := time.LoadLocation(c.zone)
			if err != nil {
				t.Fatal(err)
			}
			got, err := catalog.ReadDeleteAfter(c.value, zone)
			if err != nil || got.UTC().Format("2006-01-02T15:04") != c.want {
				t.Errorf("got %s, %v, want %s", got.UTC(), err, c.want)
			}
		})
	}
	for _, value := range []string{"", "soon", "2026-13-01", "2026-11-29T00:00:00Z", "20261123T092000"} {
		if got, err := catalog.ReadDeleteAfter(value, time.UTC); err == nil {
			t.Errorf("%q is read as %s", value, got)
		}
	}
}

// Whatever Retain writes, ReadDeleteAfter reads: as many hours later, or the
// end of the last day.
func TestDeleteAfterIsRead(t *testing.T) {
	cut := in(t, "2026-11-22T23:30", "Europe/Berlin")
	for _, r := range []catalog.Retain{{Days: 1}, {Days: 30}, {Hours: 1}, {Hours: 720}} {
		until, err := catalog.ReadDeleteAfter(r.DeleteAfter(cut), cut.Location())
		least := cut.AddDate(0, 0, r.Days).Add(time.Duration(r.Hours) * time.Hour)
		if err != nil || until.Before(least) || until.Sub(least) > 24*time.Hour || r.Hours > 0 && !until.Equal(least) {
			t.Errorf("%s: until %s, %v; asked for %s", r, until, err, least)
		}
	}
}
