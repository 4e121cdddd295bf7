package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// recipe is a command of docs/retention.md, and what prune then says.
var recipe = regexp.MustCompile(`^kubectl label vs/([a-z-]+) .+? # +(.+)$`)

// day is a moment at noon, so many days ago.
func (h handbook) day(ago int) time.Time { return h.today.AddDate(0, 0, -ago) }

// handbook is docs/retention.md on the day of the test: there it is 22 November 2026.
type handbook struct{ today time.Time }

// keys are the days, weeks and months of docs/retention.md.
var keys = regexp.MustCompile(`\b2[0-9]{3}-(?:[0-9]{2}-[0-9]{2}|w[0-9]{2}|[0-9]{2}\b)`)

// shift is text with its days, weeks and months as far from today as they are
// from the handbook's.
func (h handbook) shift(t *testing.T, text string) string {
	t.Helper()
	return keys.ReplaceAllStringFunc(text, func(key string) string {
		for period, layout := range map[catalog.Period]string{catalog.Daily: time.DateOnly, catalog.Monthly: "2006-01"} {
			at, err := time.Parse(layout, key)
			if err != nil {
				continue
			}
			if period == catalog.Monthly {
				months := (at.Year()-2026)*12 + int(at.Month()-time.November)
				return time.Date(h.today.Year(), h.today.Month()+time.Month(months), 1, 0, 0, 0, 0, time.UTC).Format(layout)
			}
			return h.today.Add(at.Sub(time.Date(2026, time.November, 22, 0, 0, 0, 0, time.UTC))).Format(layout)
		}
		var week int
		if _, err := fmt.Sscanf(key, "2026-w%d", &week); err != nil {
			t.Fatalf("%s is no key", key)
		}
		return catalog.Weekly.Key(h.today.AddDate(0, 0, 7*(week-47)))
	})
}

// snapshots are those that the handbook labels, beside a newer one.
func (h handbook) snapshots(t *testing.T, namespace string) []catalog.Snapshot {
	t.Helper()
	uid := kit.Kubectl(t, "get", "pvc", "data", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
	point := func(name string, ago int, s catalog.Snapshot) catalog.Snapshot {
		cut := h.day(ago)
		s.Namespace, s.Name, s.Claim, s.Run, s.Consistency = namespace, name, "data", catalog.Run(cut.Format("20060102-150405")+"-aaaa"), catalog.Crash
		s.Record = &catalog.Record{
			Version: catalog.RecordVersion, Run: s.Run, App: "pvc/data", Members: []string{"data"}, TimeZone: "UTC", Consistency: catalog.Crash, Cut: cut,
			Claim: catalog.ClaimRecord{Name: "data", UID: uid},
		}
		return s
	}
	stands := func(period catalog.Period, ago int) catalog.Snapshot {
		return catalog.Snapshot{Retain: "calendar", Periods: map[catalog.Period]string{period: period.Key(h.day(ago))}}
	}
	return []catalog.Snapshot{
		point("newest", 0, stands(catalog.Daily, 0)),
		point("daily", 1, stands(catalog.Daily, 1)),
		point("days-due", 31, catalog.Snapshot{Retain: "days", DeleteAfter: h.day(1).Format(time.DateOnly)}),
		point("marked", 40, catalog.Snapshot{Retain: "calendar", DeleteAfter: catalog.MarkUntil(h.day(1)), Marked: h.day(2)}),
		point("pinned", 50, catalog.Snapshot{Retain: "calendar", Pinned: true, PinnedAs: "audit"}),
		point("monthly", 12, stands(catalog.Monthly, 0)),
	}
}

// reset gives a snapshot the labels that it had at first.
func reset(t *testing.T, s catalog.Snapshot) {
	t.Helper()
	labels := map[string]any{catalog.LabelRetain: nil, catalog.LabelDeleteAfter: nil, catalog.LabelPin: nil}
	for _, p := range catalog.Periods {
		labels[p.Label()] = nil
	}
	for key, value := range s.Labels() {
		labels[key] = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		t.Fatal(err)
	}
	kit.Kubectl(t, "patch", "volumesnapshot", s.Name, "-n", s.Namespace, "--type=merge", "-p", string(patch))
}

// standIn is a kubeconfig for somebody who stands in that namespace.
func standIn(t *testing.T, namespace string) string {
	t.Helper()
	text, err := os.ReadFile(kit.Env(t, "KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Kubectl(t, "--kubeconfig", file, "config", "set-context", "--current", "--namespace", namespace)
	return file
}

// TestRecipesOfRetention runs every command of docs/retention.md on snapshots
// of the storage, and compares what prune then decides with what stands beside
// it.
func TestRecipesOfRetention(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	now := time.Now().UTC()
	h := handbook{time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)}
	snapshots := h.snapshots(t, namespace)
	kit.Points(t, snapshots)
	env := []string{"KUBECONFIG=" + standIn(t, namespace)}
	commands := readRunbooks(t, "retention.md", namespace)["By hand"].commands
	if len(commands) < 10 {
		t.Errorf("%d recipes", len(commands))
	}
	for _, command := range commands {
		command = h.shift(t, command)
		parts := recipe.FindStringSubmatch(command)
		if parts == nil {
			t.Errorf("%s: no recipe with its outcome", command)
			continue
		}
		typed(t, env, t.TempDir(), command)
		if got := h.decision(t, env, parts[1]); got != parts[2] {
			t.Errorf("%s\n got: %s", command, got)
		}
		for _, s := range snapshots {
			if s.Name == parts[1] {
				reset(t, s)
			}
		}
	}
}

// decision is what prune would do to one snapshot, and why.
func (h handbook) decision(t *testing.T, env []string, name string) string {
	t.Helper()
	r := kit.BacksnapWith(t, env, "prune", "--dry-run", "--keep", "daily=7,weekly=4,monthly=12", "--max-delete", "100%", "-o", "json")
	var p pruned
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil || r.Code != 0 {
		t.Fatalf("exit %d: %v", r.Code, err)
	}
	for _, item := range p.Items {
		if item.Snapshots[0].Name == name {
			reason, _, _ := strings.Cut(item.Reason, "; swept after")
			return item.Decision + ": " + reason
		}
	}
	return "it is not in the plan"
}
