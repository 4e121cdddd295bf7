package catalog_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// The labels are as backup-ns 0.3.0 writes them (lib/vs.go and its golden
// files).
func TestReadBackupNS(t *testing.T) {
	vienna := at(t, "2026-11-22T00:32", "Europe/Vienna").Location()
	calendar := map[string]string{
		"backup-ns.sh/pvc": "data", "backup-ns.sh/type": "cronjob", "backup-ns.sh/pod": "backup-29394032-abcde",
		"backup-ns.sh/retain": "daily_weekly_monthly",
		"backup-ns.sh/daily":  "2026-11-22", "backup-ns.sh/weekly": "w47", "backup-ns.sh/monthly": "2026-11",
	}
	with := func(changes ...string) map[string]string {
		labels := map[string]string{}
		for k, v := range calendar {
			labels[k] = v
		}
		for i := 0; i < len(changes); i += 2 {
			labels[changes[i]] = changes[i+1]
		}
		return labels
	}
	cut := in(t, "2026-11-21T23:32", "UTC") // 00:32 of the 22nd in Vienna
	for _, c := range []struct {
		name        string
		cut         time.Time
		labels      map[string]string
		annotations map[string]string
		want        catalog.Snapshot
	}{
		{
			name: "the first of its day, week and month", cut: cut, labels: calendar,
			want: catalog.Snapshot{Claim: "data", Retain: "calendar", Periods: map[catalog.Period]string{"daily": "2026-11-22", "weekly": "2026-w47", "monthly": "2026-11"}},
		},
		{
			name: "a later one of the day", cut: cut,
			labels: map[string]string{"backup-ns.sh/pvc": "data", "backup-ns.sh/type": "cronjob", "backup-ns.sh/retain": "daily_weekly_monthly"},
			want:   catalog.Snapshot{Claim: "data", Retain: "calendar", Periods: map[catalog.Period]string{}},
		},
		{
			name: "for days", cut: cut,
			labels: map[string]string{
				"backup-ns.sh/pvc": "data", "backup-ns.sh/type": "adhoc", "backup-ns.sh/retain": "days", "backup-ns.sh/retain-days": "30",
				"backup-ns.sh/delete-after": "2026-12-22",
			},
			want: catalog.Snapshot{Claim: "data", Retain: "days", DeleteAfter: "2026-12-22", Periods: map[catalog.Period]string{}},
		},
		{
			name: "a week as before version 0.2", cut: cut, labels: with("backup-ns.sh/weekly", "2026-w47"),
			want: catalog.Snapshot{Claim: "data", Retain: "calendar", Periods: map[catalog.Period]string{"daily": "2026-11-22", "weekly": "2026-w47", "monthly": "2026-11"}},
		},
		{
			name: "and with the wrong year, as on 30 December 2024", cut: in(t, "2024-12-30T00:00", "UTC"),
			labels: with("backup-ns.sh/weekly", "2024-w01"),
			want:   catalog.Snapshot{Claim: "data", Retain: "calendar", Periods: map[catalog.Period]string{"daily": "2026-11-22", "weekly": "2025-w01", "monthly": "2026-11"}},
		},
		{
			name: "marked by us, and pinned", cut: cut,
			labels:      with("backup-ns.sh/delete-after", "20261123T092000Z", "backsnap.sh/pin", "unmarked"),
			annotations: map[string]string{"backsnap.sh/marked": "2026-11-22T09:20:00Z"},
			want: catalog.Snapshot{
				Claim: "data", Retain: "calendar", DeleteAfter: "20261123T092000Z", Marked: time.Date(2026, 11, 22, 9, 20, 0, 0, time.UTC), Pinned: true, PinnedAs: "unmarked",
				Periods: map[catalog.Period]string{"daily": "2026-11-22", "weekly": "2026-w47", "monthly": "2026-11"},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := catalog.Snapshot{Cut: c.cut}
			ours, err := got.ReadBackupNS(c.labels, c.annotations, vienna)
			if !ours || err != nil {
				t.Errorf("%t, %v", ours, err)
			}
			c.want.Cut, c.want.BackupNS = c.cut, true
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("snapshot (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadBackupNSOfOthers(t *testing.T) {
	s := catalog.Snapshot{Name: "x"}
	ours, err := s.ReadBackupNS(map[string]string{"backup-ns.sh/type": "adhoc", "backup-ns.sh/pvc": "data"}, nil, time.UTC)
	if ours || err != nil {
		t.Errorf("one without retain is read: %t, %v", ours, err)
	}
	if diff := cmp.Diff(catalog.Snapshot{Name: "x"}, s); diff != "" {
		t.Errorf("it is changed (-want +got):\n%s", diff)
	}
}

// A week without its year is the one nearest to the cut.
func TestBackupNSWeeks(t *testing.T) {
	for _, c := range []struct{ cut, label, want string }{
		{"2026-11-22T12:00", "w47", "2026-w47"},
		{"2024-12-30T12:00", "w01", "2025-w01"},
		{"2024-12-29T12:00", "w52", "2024-w52"},
		{"2025-01-05T12:00", "w01", "2025-w01"},
		{"2021-01-03T12:00", "w53", "2020-w53"},
		{"2026-12-31T12:00", "w53", "2026-w53"},
		{"2027-01-02T12:00", "w53", "2026-w53"},
		{"2026-01-01T12:00", "w52", "2025-w52"}, // set by hand, a week off
		{"2025-07-01T12:00", "w53", "2026-w53"}, // 2024 and 2025 have none
		{"2026-11-22T12:00", "2026-w47", "2026-w47"},
		{"2020-12-31T12:00", "2020-w53", "2020-w53"},
		{"2021-01-01T12:00", "2021-w53", "2020-w53"}, // the calendar's year beside the ISO week
		{"2026-11-22T12:00", "2025-w47", "2025-w47"}, // set by hand: a year is what it says
		{"2026-11-22T12:00", "this", "this"},
		{"2026-11-22T12:00", "w7", "w7"},
	} {
		s := catalog.Snapshot{Cut: in(t, c.cut, "UTC")}
		if _, err := s.ReadBackupNS(map[string]string{"backup-ns.sh/retain": "daily_weekly_monthly", "backup-ns.sh/weekly": c.label}, nil, time.UTC); err != nil {
			t.Error(err)
		}
		if got := s.Periods[catalog.Weekly]; got != c.want {
			t.Errorf("%s cut at %s is %s, want %s", c.label, c.cut, got, c.want)
		}
	}
}

func TestSpelled(t *testing.T) {
	theirs, ours := catalog.Snapshot{BackupNS: true}, catalog.Snapshot{}
	got := []string{
		theirs.Spelled(catalog.LabelDeleteAfter), theirs.Spelled(catalog.Daily.Label()), theirs.Spelled(catalog.LabelPin), theirs.Spelled(catalog.LabelManagedBy),
		ours.Spelled(catalog.LabelDeleteAfter),
	}
	want := []string{"backup-ns.sh/delete-after", "backup-ns.sh/daily", "backsnap.sh/pin", "app.kubernetes.io/managed-by", "backsnap.sh/delete-after"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// A day on what backup-ns keeps by the calendar is its pruner's mark; on what
// it keeps for a number of days it is what --retain is to us.
func TestMarkedByPruneOfBackupNS(t *testing.T) {
	for retain, want := range map[string]bool{"daily_weekly_monthly": true, "days": false} {
		s := catalog.Snapshot{Cut: at(t, "2026-11-22T00:32", "UTC")}
		if _, err := s.ReadBackupNS(map[string]string{"backup-ns.sh/retain": retain, "backup-ns.sh/delete-after": "2026-12-22"}, nil, time.UTC); err != nil {
			t.Fatal(err)
		}
		if got := s.MarkedByPrune(); got != want {
			t.Errorf("%s: %t", retain, got)
		}
	}
}
