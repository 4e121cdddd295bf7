package retention_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// handbook are the snapshots that docs/retention.md labels by hand, beside a
// newer one.
func handbook(t *testing.T) map[string]catalog.Snapshot {
	t.Helper()
	old := func(name string, daysAgo int, labels, annotations map[string]string) catalog.Snapshot {
		return labelled(t, name, now.AddDate(0, 0, -daysAgo), labels, annotations)
	}
	mark := map[string]string{catalog.AnnotationMarked: "2026-11-20T09:20:00Z"}
	all := map[string]catalog.Snapshot{}
	for _, s := range []catalog.Snapshot{
		old("newest", 0, map[string]string{"backsnap.sh/retain": "calendar", "backsnap.sh/daily": "2026-11-22"}, nil),
		old("daily", 1, map[string]string{"backsnap.sh/retain": "calendar", "backsnap.sh/daily": "2026-11-21"}, nil),
		old("days-due", 31, map[string]string{"backsnap.sh/retain": "days", "backsnap.sh/delete-after": "2026-11-21"}, nil),
		old("marked", 40, map[string]string{"backsnap.sh/retain": "calendar", "backsnap.sh/delete-after": "20261121T092000Z"}, mark),
		old("pinned", 50, map[string]string{"backsnap.sh/retain": "calendar", "backsnap.sh/pin": "audit"}, nil),
		old("monthly", 12, map[string]string{"backsnap.sh/retain": "calendar", "backsnap.sh/monthly": "2026-11"}, nil),
	} {
		all[s.Name] = s
	}
	return all
}

// labelled is a snapshot as the cluster has it.
func labelled(t *testing.T, name string, cut time.Time, labels, annotations map[string]string) catalog.Snapshot {
	t.Helper()
	s := catalog.Snapshot{Namespace: "shop", Name: name}
	all := maps.Clone(labels)
	all[catalog.LabelRun], all[catalog.LabelClaim], all[catalog.LabelConsistency] = "20261122-011500-"+name, "data", "crash"
	if err := s.ReadLabels(all, annotations); err != nil {
		t.Fatal(err)
	}
	s.Cut, s.Ready = cut, true
	s.Record = &catalog.Record{Version: 1, App: "statefulset/mysql", Members: []string{"data"}, Claim: catalog.ClaimRecord{Name: "data", UID: "1"}, TimeZone: "UTC", Cut: cut}
	return s
}

// recipe is a command of docs/retention.md, and what it says becomes of the snapshot.
var recipe = regexp.MustCompile(`^\$ kubectl label vs/([a-z-]+) (.+?) +# (.+)$`)

// TestRecipesOfTheHandbook does what each command of docs/retention.md does to
// the labels, and compares what prune then decides with what stands beside it.
func TestRecipesOfTheHandbook(t *testing.T) {
	text, err := os.ReadFile("../../docs/retention.md")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "$ ") {
			continue
		}
		parts := recipe.FindStringSubmatch(strings.TrimSpace(line))
		if parts == nil {
			t.Errorf("%s: no recipe with its outcome", line)
			continue
		}
		tried++
		all := handbook(t)
		s, known := all[parts[1]]
		if !known {
			t.Fatalf("%s: there is no such snapshot", line)
		}
		all[s.Name] = relabelled(t, s, strings.Fields(parts[2]))
		points := retention.Points(slices.Collect(maps.Values(all)), retention.Options{})
		rules := retention.Rules{Policy: policy(t, "daily=7,weekly=4,monthly=12"), Grace: 24 * time.Hour}
		for _, v := range retention.Judge(points, rules, now) {
			if v.Point.Members[0].Name != s.Name {
				continue
			}
			reason, _, _ := strings.Cut(v.Reason, "; swept after")
			if got := string(v.Decision) + ": " + reason; got != parts[3] {
				t.Errorf("%s got: %s", line, got)
			}
		}
	}
	if tried < 10 {
		t.Errorf("%d recipes", tried)
	}
}

// relabelled is s after `kubectl label` with these arguments.
func relabelled(t *testing.T, s catalog.Snapshot, args []string) catalog.Snapshot {
	t.Helper()
	labels, annotations := s.Labels(), map[string]string{}
	if !s.Marked.IsZero() {
		annotations[catalog.AnnotationMarked] = s.Marked.Format(time.RFC3339)
	}
	overwrite := slices.Contains(args, "--overwrite")
	for _, arg := range args {
		key, value, sets := strings.Cut(arg, "=")
		bare, removes := strings.CutSuffix(arg, "-")
		switch {
		case arg == "--overwrite":
		case sets && labels[key] != "" && labels[key] != value && !overwrite:
			t.Errorf("%s: kubectl would refuse %s without --overwrite", s.Name, arg)
		case sets:
			labels[key] = value
		case removes && labels[bare] != "":
			delete(labels, bare)
		default:
			t.Errorf("%s: %s does nothing", s.Name, arg)
		}
	}
	return labelled(t, s.Name, s.Cut, labels, annotations)
}

// The handbook has each label that retention goes by, with values that can be.
func TestLabelsOfTheHandbook(t *testing.T) {
	text, err := os.ReadFile("../../docs/retention.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(backsnap.sh/[a-z-]+)` \\| (.+?) \\|").FindAllStringSubmatch(string(text), -1) {
		rows = append(rows, row[1])
		for _, value := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[2], -1) {
			p := point("2026-11-21", func(p *retention.Point) { setLabel(&p.Members[0], row[1], value[1]) })
			if v := retention.Judge([]retention.Point{p}, retention.Rules{Policy: policy(t, "daily=1")}, now.AddDate(0, 0, 1))[0]; v.Err != nil {
				t.Errorf("%s=%s: %v", row[1], value[1], v.Err)
			}
		}
	}
	want := []string{catalog.LabelRetain}
	for _, p := range catalog.Periods {
		want = append(want, p.Label())
	}
	want = append(want, catalog.LabelDeleteAfter, catalog.LabelPin)
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func setLabel(m *retention.Member, key, value string) {
	switch key {
	case catalog.LabelRetain:
		m.Retain = value
	case catalog.LabelDeleteAfter:
		m.DeleteAfter = value
	case catalog.LabelPin:
		m.Pinned = true
	default:
		m.Periods = map[catalog.Period]string{catalog.Period(strings.TrimPrefix(key, "backsnap.sh/")): value}
	}
}
