package schedule_test

import (
	"slices"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/schedule"
)

func table(t *testing.T, text string) schedule.Cron {
	t.Helper()
	c, err := schedule.ParseCron(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParseCron(t *testing.T) {
	for text, want := range map[string]string{
		"15 1 * * *":            "",
		" @daily ":              "",
		"@every 1h":             "",
		"0 0 29 2 *":            "",
		"":                      `schedule "": it is empty: want five fields such as 15 1 * * *, or @daily`,
		"0 2 31 2 *":            `schedule "0 2 31 2 *": it never comes: there is no such day`,
		"TZ=0":                  `schedule "TZ=0": a time zone has no place in it: use --timezone`,
		"CRON_TZ=UTC 0 2 * * *": `schedule "CRON_TZ=UTC 0 2 * * *": a time zone has no place in it: use --timezone`,
		"0 0 2 * * *":           `schedule "0 0 2 * * *": 6 fields: want five: minute, hour, day of month, month, day of week`,
		"61 * * * *":            `schedule "61 * * * *": end of range (61) above maximum (59): 61`,
	} {
		got := ""
		if _, err := schedule.ParseCron(text); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

// A time table without a minute gets one that depends on the name alone.
func TestSpread(t *testing.T) {
	daily := table(t, "@daily")
	if a, b := daily.Spread("shop/nightly"), daily.Spread("shop/nightly"); a.String() != b.String() {
		t.Errorf("%s, and then %s", a, b)
	}
	if a, b := daily.Spread("shop/nightly"), daily.Spread("crm/nightly"); a.String() == b.String() {
		t.Errorf("both %s", a)
	}
	for _, text := range []string{"@hourly", "@daily", "@weekly", "@monthly", "@yearly"} {
		if got := table(t, text).Spread("shop/nightly").String(); got[0] == '@' {
			t.Errorf("%s stays", got)
		}
	}
	if got := table(t, "15 1 * * *").Spread("shop/nightly").String(); got != "15 1 * * *" {
		t.Errorf("15 1 * * * became %s", got)
	}
}

func TestLongest(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"15 1 * * *":       day,
		"@weekly":          7 * day,
		"@monthly":         31 * day,
		"0 0 29 2 *":       4*365*day + day,
		"@every 90m":       90 * time.Minute,
		"*/5 8-17 * * 1-5": 62*time.Hour + 5*time.Minute, // over the weekend
		"0 */6 * * *":      6 * time.Hour,
	} {
		if got := table(t, text).Longest(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestNextIsByTheZonesClock(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	got := table(t, "15 1 * * *").Next(time.Date(2026, 11, 22, 0, 0, 0, 0, berlin))
	if want := time.Date(2026, 11, 22, 0, 15, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("got %s, want %s", got.UTC(), want)
	}
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	daily := table(t, "@daily")
	never := func(n int) []schedule.Candidate {
		var all []schedule.Candidate
		for i := range n {
			all = append(all, schedule.Candidate{Name: string(rune('a' + i)), Cron: daily})
		}
		return all
	}
	for _, tt := range []struct {
		name   string
		all    []schedule.Candidate
		newest time.Time
		want   int
	}{
		{"taken today", []schedule.Candidate{{Name: "a", Cron: daily, Last: ago(11 * time.Hour)}}, ago(11 * time.Hour), 0},
		{"taken yesterday", []schedule.Candidate{{Name: "a", Cron: daily, Last: ago(13 * time.Hour)}}, ago(13 * time.Hour), 1},
		{"many turns missed are one run", []schedule.Candidate{{Name: "a", Cron: daily, Last: ago(900 * time.Hour)}}, ago(900 * time.Hour), 1},
		{"the first run takes a tenth", never(20), time.Time{}, 2},
		{"a quarter of an hour later a part", never(20), ago(15 * time.Minute), 1},
		{"three hours later half", never(20), ago(3 * time.Hour), 10},
		{"a day later all", never(20), ago(24 * time.Hour), 20},
		{"one is not kept waiting", never(1), time.Time{}, 1},
		{"nothing", nil, time.Time{}, 0},
	} {
		got := schedule.Due(tt.all, tt.newest, now, time.UTC)
		if len(got) != tt.want || !slices.IsSorted(got) {
			t.Errorf("%s: got %v, want %d", tt.name, got, tt.want)
		}
	}
}
