package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestRetentionBesideResticForget has restic and us judge the same times by the
// same policy. What the package comment of retention says of the differences is
// what is compared: the same hours, days, weeks, months and years stay, of each
// we keep the first point and restic the last; with one point in each the same
// points stay.
func TestRetentionBesideResticForget(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	repository := newForgetting(t)
	var all, sparse []retention.Point
	for _, made := range []struct{ when, tag string }{
		{"2024-12-23 01:15", "sparse"}, {"2024-12-29 23:59", ""}, {"2024-12-30 00:01", "sparse"}, // of 2025-w01
		{"2025-01-05 12:00", ""}, {"2025-01-06 12:00", "sparse"},
		{"2025-03-29 23:30", "sparse"}, {"2025-03-30 03:15", ""}, // the clocks go forward, in the same week
		{"2025-10-24 01:15", ""}, {"2025-10-26 01:15", "sparse"}, {"2025-10-26 23:30", ""}, // a day of 25 hours
		{"2025-10-27 00:10", ""}, {"2025-10-31 23:59", "sparse"}, {"2025-11-01 00:00", ""},
		{"2026-01-01 00:30", "sparse"}, {"2026-01-02 01:15", ""}, {"2026-01-02 13:15", ""},
	} {
		cut, err := time.ParseInLocation("2006-01-02 15:04", made.when, berlin)
		if err != nil {
			t.Fatal(err)
		}
		repository.backup(cut, made.tag)
		p := retention.Point{
			Namespace: "shop", Name: cut.UTC().Format(time.RFC3339), Cut: cut, Zone: berlin, State: retention.Good,
			Members: []retention.Member{{Claim: "data", Name: made.when}},
		}
		all = append(all, p)
		if made.tag != "" {
			sparse = append(sparse, p)
		}
	}
	now := time.Date(2026, 1, 3, 0, 0, 0, 0, berlin)
	for _, policy := range []string{"daily=4,weekly=5,monthly=3,yearly=2", "hourly=3,weekly=9,yearly=9"} {
		theirs, _ := repository.forget(policy, "")
		ours, _ := judged(t, all, policy, now)
		sameStretches(t, policy, berlin, all, ours, theirs)
	}
	_, theirs := repository.forget("daily=2,weekly=4", "sparse")
	_, ours := judged(t, sparse, "daily=2,weekly=4", now)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Errorf("one point a week: kept (-restic +ours):\n%s", diff)
	}
}

// stands are the moments that are kept for each period, sorted.
type stands map[catalog.Period][]string

// sameStretches compares what stands for each period: the same stretches of the
// calendar, in the first of its points here and in the last there.
func sameStretches(t *testing.T, policy string, zone *time.Location, all []retention.Point, ours, theirs stands) {
	t.Helper()
	for _, period := range catalog.Periods {
		first, last := map[string]string{}, map[string]string{}
		for _, p := range all { // in order of time
			key := period.Key(p.Cut.In(zone))
			if first[key] == "" {
				first[key] = p.Name
			}
			last[key] = p.Name
		}
		var want []string
		for _, moment := range theirs[period] {
			cut, err := time.Parse(time.RFC3339, moment)
			if err != nil {
				t.Fatal(err)
			}
			key := period.Key(cut.In(zone))
			if last[key] != moment && moment != all[0].Name { // it keeps the oldest besides
				t.Errorf("%s: restic keeps %s for %s, not the last of it", policy, moment, key)
			}
			want = append(want, first[key])
		}
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), ours[period]); diff != "" {
			t.Errorf("%s: %s (-restic's, as first ones +ours):\n%s", policy, period, diff)
		}
	}
}

// judged is what we keep of points that are copies: for which periods, and all in all.
func judged(t *testing.T, points []retention.Point, text string, now time.Time) (stands, []string) {
	t.Helper()
	policy, err := retention.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	found := stands{}
	var kept []string
	for _, v := range retention.Judge(retention.Calendar(points), retention.Rules{Policy: policy, Grace: time.Hour}, now) {
		if v.Decision != retention.Keep || v.Protected {
			continue
		}
		kept = append(kept, v.Point.Name)
		for _, reason := range strings.Split(v.Reason, ", ") { // `weekly 2/5`
			period := catalog.Period(strings.Fields(reason)[0])
			found[period] = append(found[period], v.Point.Name)
		}
	}
	return found.sorted(), slices.Sorted(slices.Values(kept))
}

func (s stands) sorted() stands {
	for _, moments := range s {
		slices.Sort(moments)
	}
	return s
}

// forgetting is a repository on this machine, for restic's own judgement.
type forgetting struct {
	t   *testing.T
	env []string
	dir string
}

func newForgetting(t *testing.T) forgetting {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := forgetting{t, []string{"RESTIC_REPOSITORY=" + filepath.Join(dir, "repository"), "RESTIC_PASSWORD=one", "TZ=Europe/Berlin"}, dir}
	f.restic("init")
	return f
}

func (f forgetting) restic(args ...string) string {
	f.t.Helper()
	r := kit.Command(f.t, f.env, "", kit.Env(f.t, "BACKSNAP_CLUSTER_RESTIC"), append([]string{"--no-cache"}, args...)...)
	if r.Code != 0 {
		f.t.Fatalf("restic %s: exit %d: %s", args, r.Code, r.Stderr)
	}
	return r.Stdout
}

func (f forgetting) backup(cut time.Time, tag string) {
	f.t.Helper()
	args := []string{"backup", "--quiet", "--host", "shop", "--time", cut.Format("2006-01-02 15:04:05"), filepath.Join(f.dir, "data")}
	if tag != "" {
		args = append(args, "--tag", tag)
	}
	f.restic(args...)
}

// forget is what restic would keep: for which periods, and all in all.
func (f forgetting) forget(policy, tag string) (stands, []string) {
	f.t.Helper()
	args := []string{"forget", "--dry-run", "--json", "--group-by", "host"}
	if tag != "" { // an empty one would be: those without a tag
		args = append(args, "--tag", tag)
	}
	for _, part := range strings.Split(policy, ",") {
		name, n, _ := strings.Cut(part, "=")
		args = append(args, fmt.Sprintf("--keep-%s=%s", name, n))
	}
	var groups []struct {
		Reasons []struct {
			Snapshot struct{ Time time.Time }
			Matches  []string // `weekly snapshot`, `oldest weekly snapshot`
		}
	}
	if err := json.Unmarshal([]byte(f.restic(args...)), &groups); err != nil || len(groups) != 1 {
		f.t.Fatalf("restic %s: %d groups, %v", args, len(groups), err)
	}
	found := stands{}
	var kept []string
	for _, reason := range groups[0].Reasons {
		moment := reason.Snapshot.Time.UTC().Format(time.RFC3339)
		kept = append(kept, moment)
		for _, match := range reason.Matches {
			period := catalog.Period(strings.Fields(strings.TrimPrefix(match, "oldest "))[0])
			found[period] = append(found[period], moment)
		}
	}
	return found.sorted(), slices.Sorted(slices.Values(kept))
}
