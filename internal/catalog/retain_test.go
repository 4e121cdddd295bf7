package catalog_test

import (
	"testing"

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
	for _, text := range []string{"", "d", "30", "0d", "-1d", "+5d", "1.5d", "36501d", "99999999999999999999d", " 30d", "30d ", "30dd", "30D", "1w", "Calendar", "copied"} {
		if got, err := catalog.ParseRetain(text); err == nil {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}

func TestRetainString(t *testing.T) {
	for _, text := range []string{"calendar", "1d", "30d"} {
		r, err := catalog.ParseRetain(text)
		if err != nil || r.String() != text {
			t.Errorf("%q is written as %q, %v", text, r, err)
		}
	}
}

func TestRetainLabel(t *testing.T) {
	got := []string{catalog.Retain{Calendar: true}.Label(), catalog.Retain{Days: 7}.Label()}
	if diff := cmp.Diff([]string{"calendar", "days"}, got); diff != "" {
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
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.retain.DeleteAfter(in(t, c.cut, c.zone)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
