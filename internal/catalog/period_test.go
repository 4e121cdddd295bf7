package catalog_test

import (
	"testing"
	"time"
	_ "time/tzdata" // the zones of the cases must not depend on the machine

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// at is a moment, written in a zone: `2026-11-22T01:15:00 Europe/Berlin`.
func at(t *testing.T, clock, zone string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	moment, err := time.ParseInLocation("2006-01-02T15:04", clock, loc)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

// in is a moment given in UTC, seen from a zone.
func in(t *testing.T, utc, zone string) time.Time {
	t.Helper()
	return at(t, utc, "UTC").In(at(t, utc, zone).Location())
}

func TestPeriodKey(t *testing.T) {
	for _, c := range []struct {
		name string
		t    time.Time
		want []string // hourly, daily, weekly, monthly, yearly
	}{
		{"an ordinary Sunday", at(t, "2026-11-22T01:15", "UTC"), []string{"2026-11-22T01Z", "2026-11-22", "2026-w47", "2026-11", "2026"}},
		{"the week begins on Monday", at(t, "2026-11-23T00:00", "UTC"), []string{"2026-11-23T00Z", "2026-11-23", "2026-w48", "2026-11", "2026"}},
		{"December's last days are in the next year's first week", at(t, "2024-12-30T12:00", "UTC"), []string{"2024-12-30T12Z", "2024-12-30", "2025-w01", "2024-12", "2024"}},
		{"the Sunday before is not", at(t, "2024-12-29T12:00", "UTC"), []string{"2024-12-29T12Z", "2024-12-29", "2024-w52", "2024-12", "2024"}},
		{"New Year's Day in the old year's week 53", at(t, "2021-01-01T00:00", "UTC"), []string{"2021-01-01T00Z", "2021-01-01", "2020-w53", "2021-01", "2021"}},
		{"and the third of January still", at(t, "2021-01-03T23:59", "UTC"), []string{"2021-01-03T23Z", "2021-01-03", "2020-w53", "2021-01", "2021"}},
		{"the fourth of January is always in week 1", at(t, "2021-01-04T00:00", "UTC"), []string{"2021-01-04T00Z", "2021-01-04", "2021-w01", "2021-01", "2021"}},
		{"a year that ends in week 53", at(t, "2026-12-31T23:59", "UTC"), []string{"2026-12-31T23Z", "2026-12-31", "2026-w53", "2026-12", "2026"}},
		{"leap day", at(t, "2028-02-29T06:00", "UTC"), []string{"2028-02-29T06Z", "2028-02-29", "2028-w09", "2028-02", "2028"}},

		{"Berlin has the next day, week and already the hour of UTC", in(t, "2026-11-22T23:30", "Europe/Berlin"), []string{"2026-11-22T23Z", "2026-11-23", "2026-w48", "2026-11", "2026"}},
		{"New York has the same moment a day earlier", in(t, "2026-11-22T23:30", "America/New_York"), []string{"2026-11-22T23Z", "2026-11-22", "2026-w47", "2026-11", "2026"}},
		{"Kiritimati is in the new year when London is not", in(t, "2026-12-31T10:30", "Pacific/Kiritimati"), []string{"2026-12-31T10Z", "2027-01-01", "2026-w53", "2027-01", "2027"}},
		{"Pago Pago is in the old one when London is not", in(t, "2027-01-01T10:30", "Pacific/Pago_Pago"), []string{"2027-01-01T10Z", "2026-12-31", "2026-w53", "2026-12", "2026"}},

		{"half past two before the clocks go back", in(t, "2026-10-25T00:30", "Europe/Berlin"), []string{"2026-10-25T00Z", "2026-10-25", "2026-w43", "2026-10", "2026"}},
		{"half past two again: the same day, another hour", in(t, "2026-10-25T01:30", "Europe/Berlin"), []string{"2026-10-25T01Z", "2026-10-25", "2026-w43", "2026-10", "2026"}},
		{"the last minute before the clocks go forward", in(t, "2026-03-29T00:59", "Europe/Berlin"), []string{"2026-03-29T00Z", "2026-03-29", "2026-w13", "2026-03", "2026"}},
		{"and the first after", in(t, "2026-03-29T01:00", "Europe/Berlin"), []string{"2026-03-29T01Z", "2026-03-29", "2026-w13", "2026-03", "2026"}},
		{"half an hour off: Kathmandu's midnight", in(t, "2026-11-21T18:20", "Asia/Kathmandu"), []string{"2026-11-21T18Z", "2026-11-22", "2026-w47", "2026-11", "2026"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, p := range catalog.Periods {
				got = append(got, p.Key(c.t))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

// Prune sorts keys as text: that must be the order of time.
func TestPeriodKeysSortInTimeOrder(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia"} {
		last := map[catalog.Period]string{}
		for moment := in(t, "2009-12-01T00:30", zone); moment.Year() < 2030; moment = moment.Add(11 * time.Hour) {
			for _, p := range catalog.Periods {
				key := p.Key(moment)
				if key < last[p] {
					t.Fatalf("%s: %s of %s is %s, before it was %s", zone, p, moment, key, last[p])
				}
				last[p] = key
			}
		}
	}
}

func TestPeriodLabel(t *testing.T) {
	var got []string
	for _, p := range catalog.Periods {
		got = append(got, p.Label())
	}
	want := []string{"backsnap.sh/hourly", "backsnap.sh/daily", "backsnap.sh/weekly", "backsnap.sh/monthly", "backsnap.sh/yearly"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

// periods of the Saturday and Sunday of one week.
var (
	saturday = map[catalog.Period]string{"hourly": "2026-11-21T01Z", "daily": "2026-11-21", "weekly": "2026-w47", "monthly": "2026-11", "yearly": "2026"}
	sunday   = map[catalog.Period]string{"hourly": "2026-11-22T01Z", "daily": "2026-11-22", "weekly": "2026-w47", "monthly": "2026-11", "yearly": "2026"}
)

func ready(claim string, periods map[catalog.Period]string) catalog.Snapshot {
	return catalog.Snapshot{Namespace: "shop", Claim: claim, Ready: true, Periods: periods}
}

func TestFreePeriods(t *testing.T) {
	type periods = map[catalog.Period]string
	with := func(s catalog.Snapshot, change func(*catalog.Snapshot)) catalog.Snapshot {
		change(&s)
		return s
	}
	newDay := periods{"hourly": "2026-11-22T01Z", "daily": "2026-11-22"}
	for _, c := range []struct {
		name   string
		claims []string
		taken  []catalog.Snapshot
		want   periods
	}{
		{name: "the first snapshot stands for everything", claims: []string{"data"}, want: sunday},
		{
			name: "the day after stands for its day: week, month and year have somebody", claims: []string{"data"},
			taken: []catalog.Snapshot{ready("data", saturday)}, want: newDay,
		},
		{
			name: "the second of a day and hour stands for nothing", claims: []string{"data"},
			taken: []catalog.Snapshot{ready("data", sunday)}, want: periods{},
		},
		{
			name: "another claim of the namespace takes nothing away", claims: []string{"data"},
			taken: []catalog.Snapshot{ready("logs", sunday)}, want: sunday,
		},
		{
			name: "a set stands for a period until each of its claims has one", claims: []string{"data", "wal"},
			taken: []catalog.Snapshot{ready("data", sunday)}, want: sunday,
		},
		{
			name: "a set whose claims all have one", claims: []string{"data", "wal"},
			taken: []catalog.Snapshot{ready("data", sunday), ready("wal", sunday)}, want: periods{},
		},
		{
			name: "the claims may have it from different runs", claims: []string{"data", "wal"},
			taken: []catalog.Snapshot{ready("data", sunday), ready("wal", saturday)}, want: newDay,
		},
		{
			name: "one that is not ready stands for nothing", claims: []string{"data"},
			taken: []catalog.Snapshot{with(ready("data", sunday), func(s *catalog.Snapshot) { s.Ready = false })}, want: sunday,
		},
		{
			name: "one that is being deleted stands for nothing any more", claims: []string{"data"},
			taken: []catalog.Snapshot{with(ready("data", sunday), func(s *catalog.Snapshot) { s.Terminating = true })}, want: sunday,
		},
		{
			name: "a safety snapshot stands for nothing", claims: []string{"data"},
			taken: []catalog.Snapshot{with(ready("data", sunday), func(s *catalog.Snapshot) { s.Role = catalog.RoleSafety })}, want: sunday,
		},
		{
			name: "one kept for days takes no period", claims: []string{"data"},
			taken: []catalog.Snapshot{with(ready("data", nil), func(s *catalog.Snapshot) { s.Retain, s.DeleteAfter = "days", "2026-12-22" })}, want: sunday,
		},
		{
			name: "a label set by hand counts", claims: []string{"data"},
			taken: []catalog.Snapshot{ready("data", periods{"weekly": "2026-w47"})},
			want:  periods{"hourly": "2026-11-22T01Z", "daily": "2026-11-22", "monthly": "2026-11", "yearly": "2026"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := catalog.FreePeriods(at(t, "2026-11-22T01:15", "UTC"), c.claims, c.taken)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("free periods (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFreePeriodsAreThoseOfTheRunsZone(t *testing.T) {
	taken := []catalog.Snapshot{ready("data", sunday)}
	got := catalog.FreePeriods(in(t, "2026-11-22T23:30", "Europe/Berlin"), []string{"data"}, taken)
	want := map[catalog.Period]string{"hourly": "2026-11-22T23Z", "daily": "2026-11-23", "weekly": "2026-w48"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("free periods (-want +got):\n%s", diff)
	}
}

func TestPeriodCheck(t *testing.T) {
	for moment := in(t, "2009-12-01T00:30", "UTC"); moment.Year() < 2030; moment = moment.Add(37 * time.Hour) {
		for _, p := range catalog.Periods {
			if err := p.Check(p.Key(moment)); err != nil {
				t.Fatalf("%s: %v", p, err)
			}
		}
	}
	for _, c := range []struct {
		period catalog.Period
		key    string
	}{
		{"hourly", "2026-11-22"}, {"hourly", "2026-11-22T24Z"}, {"hourly", "2026-11-22T01"}, {"hourly", "2026-11-22T01z"},
		{"daily", "2026-2-3"}, {"daily", "2026-02-29"}, {"daily", "yesterday"}, {"daily", "2026-11"}, {"daily", " 2026-11-22"},
		{"weekly", "w47"}, {"weekly", "2026-w0"}, {"weekly", "2026-w00"}, {"weekly", "2026-w54"}, {"weekly", "2025-w53"}, {"weekly", "2026-W47"}, {"weekly", "2026-w47 "},
		{"monthly", "2026-13"}, {"monthly", "2026-1"}, {"monthly", "2026"},
		{"yearly", "26"}, {"yearly", "2026-11"}, {"yearly", ""},
	} {
		if c.period.Check(c.key) == nil {
			t.Errorf("%s %q passes", c.period, c.key)
		}
	}
}
