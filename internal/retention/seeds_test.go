package retention_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// The tests of this file bear the numbers of the study of the programs before
// ours: each shows that we do not do what one of them did. Those of the study
// that speak of dumps, Jobs and API calls are where these things are tested.

// backupNS is a snapshot as backup-ns 0.3.0 leaves it: name, claim, the moment
// of its cut, and the labels that it carries besides.
func backupNS(t *testing.T, claim, cut string, labels ...string) catalog.Snapshot {
	t.Helper()
	vienna := mustZone("Europe/Vienna")
	at, err := time.ParseInLocation("2006-01-02 15:04", cut, vienna)
	if err != nil {
		t.Fatal(err)
	}
	s := catalog.Snapshot{Namespace: "shop", Name: claim + "-" + at.Format("2006-01-02-150405") + "-abcdef", Cut: at.UTC(), Created: at.UTC(), Ready: true}
	all := map[string]string{"backup-ns.sh/pvc": claim, "backup-ns.sh/type": "cronjob", "backup-ns.sh/retain": "daily_weekly_monthly"}
	for _, label := range labels {
		name, value, _ := strings.Cut(label, "=")
		all["backup-ns.sh/"+name] = value
	}
	if _, err := s.ReadBackupNS(all, nil, vienna); err != nil {
		t.Fatal(err)
	}
	return s
}

// judged are the verdicts on what backup-ns left, by the snapshots' names
// without their random end.
func judged(t *testing.T, keep string, snapshots ...catalog.Snapshot) map[string]string {
	t.Helper()
	got := map[string]string{}
	points := retention.Points(snapshots, retention.Options{Local: mustZone("Europe/Vienna")})
	for _, v := range retention.Judge(points, retention.Rules{Policy: policy(t, keep), Grace: 24 * time.Hour}, now) {
		got[strings.TrimSuffix(v.Point.Name, "-abcdef")] = said(v)
	}
	return got
}

func TestSeed01TwoClaimsOfANamespaceBothKeepTheirTiers(t *testing.T) {
	// backup-ns asks the whole namespace whether the day is taken: logs gets no
	// label, and a delete-after at the next mark.
	got := judged(t, "daily=2,weekly=2,monthly=2",
		backupNS(t, "data", "2026-11-22 00:32", "daily=2026-11-22"),
		backupNS(t, "data", "2026-11-22 05:00"), // a second run of that day: it stands for nothing
		backupNS(t, "data", "2026-11-16 00:32", "daily=2026-11-16", "weekly=w47"),
		backupNS(t, "logs", "2026-11-22 00:33"),
		backupNS(t, "logs", "2026-11-22 05:01"),
		backupNS(t, "logs", "2026-11-16 00:33", "delete-after=2026-11-17"),
		backupNS(t, "logs", "2026-11-09 00:33", "delete-after=2026-11-10"), // nobody stands for that day any more
	)
	want := map[string]string{
		"data-2026-11-22-050000": "keep newest: newest good set stays; no period",
		"data-2026-11-22-003200": "keep daily: daily 1/2",
		"data-2026-11-16-003200": "keep weekly: weekly 1/2, daily 2/2",
		"logs-2026-11-22-050100": "keep newest: newest good set stays; no period",
		"logs-2026-11-22-003300": "keep daily: daily 1/2",
		"logs-2026-11-16-003300": "unmark weekly: weekly 1/2, daily 2/2",
		"logs-2026-11-09-003300": "sweep: no period, marked by backup-ns",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	// Our own runs ask claim by claim.
	for _, claim := range []string{"data", "logs"} {
		taken := []catalog.Snapshot{{Claim: "other", Ready: true, Periods: map[catalog.Period]string{"daily": "2026-11-22"}}}
		if key := catalog.FreePeriods(now, []string{claim}, taken)["daily"]; key != "2026-11-22" {
			t.Errorf("%s stands for day %q", claim, key)
		}
	}
}

func TestSeed02WhatIsNotKnownNeverMakesASnapshotExpendable(t *testing.T) {
	// A policy that cannot be read, as after an API error, leaves its claim alone.
	rules := retention.Rules{Policy: policy(t, "daily=1"), Own: func(string, string) (retention.Policy, bool, error) {
		return nil, false, fmt.Errorf("read annotation: the server is gone")
	}}
	for _, v := range retention.Judge([]retention.Point{point("2026-11-22"), point("2026-11-21"), point("2026-11-20", until("2026-11-20"))}, rules, now) {
		if v.Decision != retention.Leave || v.Err == nil {
			t.Errorf("%s: %s", v.Point.Name, said(v))
		}
	}
}

func TestSeed03AFailedSnapshotOwnsNoTier(t *testing.T) {
	failed := backupNS(t, "data", "2026-11-22 00:32", "daily=2026-11-22")
	failed.Ready, failed.Err = false, "no space left"
	got := judged(t, "daily=2", failed,
		backupNS(t, "data", "2026-11-21 00:32", "daily=2026-11-21"),
		backupNS(t, "data", "2026-11-20 00:32", "daily=2026-11-20"))
	want := map[string]string{
		"data-2026-11-22-003200": "mark: data: no space left; swept after 2026-11-23 10:20",
		"data-2026-11-21-003200": "keep daily: daily 1/2",
		"data-2026-11-20-003200": "keep daily: daily 2/2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if free := catalog.FreePeriods(now, []string{"data"}, []catalog.Snapshot{{Claim: "data", Periods: map[catalog.Period]string{"daily": "2026-11-22"}}}); free["daily"] == "" {
		t.Error("the good retry of a day gets no label")
	}
}

func TestSeed06AnExpiredMarkBesideALiveTierIsWithdrawn(t *testing.T) {
	got := judged(t, "daily=2",
		backupNS(t, "data", "2026-11-22 00:32", "daily=2026-11-22"),
		backupNS(t, "data", "2026-11-21 00:32", "daily=2026-11-21", "delete-after=2026-11-01"))
	want := map[string]string{"data-2026-11-22-003200": "keep daily: daily 1/2", "data-2026-11-21-003200": "unmark daily: daily 2/2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	ours := retention.Judge([]retention.Point{newest, point("2026-11-21", stands("daily"), marked(9*24*time.Hour))}, retention.Rules{Policy: policy(t, "daily=2")}, now)
	if ours[1].Decision != retention.Unmark {
		t.Error(said(ours[1]))
	}
}

func TestSeed09WeeksOverTheTurnOfTheYear(t *testing.T) {
	// A year-old w01 suppressed this year's, and 30 December 2024 came as 2024-w01.
	got := judged(t, "weekly=2",
		backupNS(t, "data", "2025-12-29 00:32", "weekly=w01"),
		backupNS(t, "data", "2025-01-06 00:32", "weekly=w02"),
		backupNS(t, "data", "2024-12-30 00:32", "weekly=2024-w01"),
		backupNS(t, "data", "2024-12-23 00:32", "weekly=w52"))
	want := map[string]string{
		"data-2025-12-29-003200": "keep weekly: weekly 1/2",
		"data-2025-01-06-003200": "keep weekly: weekly 2/2",
		"data-2024-12-30-003200": "mark: weekly 3/2; swept after 2026-11-23 10:20",
		"data-2024-12-23-003200": "mark: weekly 4/2; swept after 2026-11-23 10:20",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestSeed16NamesOfMoreThan63Characters(t *testing.T) {
	one, other := strings.Repeat("a", 63)+"-one", strings.Repeat("a", 63)+"-other"
	var points []retention.Point
	for i, claim := range []string{one, other} {
		points = append(points, point(fmt.Sprintf("2026-11-%d", 21-i), stands("daily"), each(func(m *retention.Member) { m.Claim = claim })))
	}
	for _, v := range retention.Judge(points, retention.Rules{Policy: policy(t, "daily=1"), Grace: time.Hour}, now) {
		if said(v) != "keep daily: daily 1/1" {
			t.Errorf("%s: %s", v.Point.Name, said(v))
		}
	}
}

func TestSeed20TheLastReadySnapshotIsNeverDeleted(t *testing.T) {
	histories(t, 2000, propertyOfTheNewest)
}

// propertyOfTheNewest: prune that runs day after day, with nothing new, leaves
// each claim that had a good point one.
func propertyOfTheNewest(t *rapid.T) {
	h := draw(t)
	had := goodOf(h.points, h.rules, now)
	points, last := h.points, now
	for _, days := range []int{0, 1, 2, 400} { // what has a date or a mark of this history has passed it by then
		last = now.AddDate(0, 0, days)
		points = done(retention.Judge(points, h.rules, last), last)
	}
	has := goodOf(points, h.rules, last)
	for claim := range had {
		if !has[claim] {
			t.Fatalf("%s has lost its last good point", claim)
		}
	}
}

// goodOf are the claims that have a good point.
func goodOf(points []retention.Point, rules retention.Rules, now time.Time) map[string]bool {
	claims := map[string]bool{}
	for _, v := range retention.Judge(points, rules, now) {
		for _, m := range v.Point.Members {
			if v.Point.State == retention.Good && v.Err == nil {
				claims[m.Claim] = true
			}
		}
	}
	return claims
}
