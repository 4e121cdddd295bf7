package catalog_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// full is a restore point that says all that one can say.
func full(t *testing.T) catalog.Snapshot {
	t.Helper()
	record := fullRecord(t)
	return catalog.Snapshot{
		Namespace: "shop", Name: "data-mysql-0-20261122-011500-x7k2", Claim: "data-mysql-0", Run: run,
		Consistency: catalog.Application, Retain: "calendar", DeleteAfter: "20261123T092000Z", Pinned: true, Periods: sunday,
		Record: &record,
		Copies: []catalog.Copy{{Repository: "main", Snapshot: strings.Repeat("7f3a91c2", 8), Bytes: 2254857830, Added: 412 << 20, Finished: at(t, "2026-11-22T01:18", "UTC")}},
	}
}

func TestLabels(t *testing.T) {
	role := full(t)
	role.Role = catalog.RoleSafety
	for _, c := range []struct {
		name string
		s    catalog.Snapshot
		want map[string]string
	}{
		{"one that is being taken", catalog.Snapshot{Namespace: "shop", Claim: "data", Run: run, Retain: "days", DeleteAfter: "2026-12-22"}, map[string]string{
			"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/namespace": "shop", "backsnap.sh/pvc": "data", "backsnap.sh/run": "20261122-011500-x7k2",
			"backsnap.sh/retain": "days", "backsnap.sh/delete-after": "2026-12-22",
		}},
		{"one that has all", role, map[string]string{
			"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/role": "safety", "backsnap.sh/namespace": "shop", "backsnap.sh/pvc": "data-mysql-0",
			"backsnap.sh/run": "20261122-011500-x7k2", "backsnap.sh/consistency": "application", "backsnap.sh/retain": "calendar",
			"backsnap.sh/hourly": "2026-11-22T01Z", "backsnap.sh/daily": "2026-11-22", "backsnap.sh/weekly": "2026-w47", "backsnap.sh/monthly": "2026-11", "backsnap.sh/yearly": "2026",
			"backsnap.sh/delete-after": "20261123T092000Z", "backsnap.sh/pin": "true",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := c.s.Labels()
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			for key, value := range got {
				if problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(problems) > 0 {
					t.Errorf("%s=%s: %v", key, value, problems)
				}
			}
		})
	}
}

// A proof is read where there is one; what cannot be read is said, and is none.
func TestProofIsRead(t *testing.T) {
	for text, want := range map[string]*catalog.Proof{
		"": nil,
		`{"level":"drill","at":"2026-11-22T03:00:00Z"}`: {Level: "drill", At: at(t, "2026-11-22T03:00", "UTC")},
		"yesterday": nil,
	} {
		var got catalog.Snapshot
		if err := got.ReadLabels(nil, map[string]string{catalog.AnnotationVerified: text}); (err != nil) != (text == "yesterday") {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got.Proof); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestLabelsAndAnnotationsAreReadAgain(t *testing.T) {
	long := full(t)
	long.Claim = claim253
	long.Record.Claim.Name = claim253
	bare := catalog.Snapshot{Namespace: "shop", Name: "data-x", Claim: "data", Run: run, Retain: "days", DeleteAfter: "2026-12-22", Periods: map[catalog.Period]string{}}
	for name, want := range map[string]catalog.Snapshot{
		"one that has all": full(t), "a claim too long for a label": long, "one that is being taken": bare,
	} {
		t.Run(name, func(t *testing.T) {
			notes, err := want.Annotations()
			if err != nil {
				t.Fatal(err)
			}
			got := catalog.Snapshot{Namespace: want.Namespace, Name: want.Name}
			if err := got.ReadLabels(want.Labels(), notes); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("read again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnnotations(t *testing.T) {
	s := full(t)
	record, err := json.Marshal(s.Record)
	if err != nil {
		t.Fatal(err)
	}
	want := catalog.HandsOff()
	want["backsnap.sh/record"] = string(record)
	want["backsnap.sh/copies"] = `[{"repository":"main","snapshot":"` + strings.Repeat("7f3a91c2", 8) + `","bytes":2254857830,"added":432013312,"finished":"2026-11-22T01:18:00Z"}]`
	got, err := s.Annotations()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	got, err = catalog.Snapshot{}.Annotations()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(catalog.HandsOff(), got); diff != "" {
		t.Errorf("of one without record and copies (-want +got):\n%s", diff)
	}
}

// What a person has written is read as far as it makes sense; what cannot be
// read is an error beside it.
func TestReadLabels(t *testing.T) {
	labels := map[string]string{"backsnap.sh/pvc": "data", "backsnap.sh/run": string(run), "backsnap.sh/pin": "", "backsnap.sh/weekly": "2026-w47", "backsnap.sh/daily": ""}
	base := catalog.Snapshot{Claim: "data", Run: run, Pinned: true, Periods: map[catalog.Period]string{"weekly": "2026-w47"}}
	copies := `[{"repository":"main","snapshot":"7f","bytes":1,"added":1,"finished":"2026-11-22T01:18:00Z"}]`
	copied := base
	copied.Copies = []catalog.Copy{{Repository: "main", Snapshot: "7f", Bytes: 1, Added: 1, Finished: at(t, "2026-11-22T01:18", "UTC")}}
	recorded := base
	recorded.Claim, recorded.Record = "whole-name", &catalog.Record{Version: 1, Claim: catalog.ClaimRecord{Name: "whole-name"}}
	for _, c := range []struct {
		name  string
		notes map[string]string
		want  catalog.Snapshot
		fails bool
	}{
		{"no annotations", nil, base, false},
		{"a record that is no JSON", map[string]string{"backsnap.sh/record": "{", "backsnap.sh/copies": copies}, copied, true},
		{"a record of a newer version", map[string]string{"backsnap.sh/record": `{"version":2,"claim":{"name":"x"}}`, "backsnap.sh/copies": copies}, copied, true},
		{"a record without a version", map[string]string{"backsnap.sh/record": `{"claim":{"name":"x"}}`}, base, true},
		{"a record without a claim", map[string]string{"backsnap.sh/record": `{"version":1}`}, base, true},
		{"copies that cannot be read hide no record", map[string]string{"backsnap.sh/record": `{"version":1,"claim":{"name":"whole-name"}}`, "backsnap.sh/copies": "?"}, recorded, true},
		{"fields that we do not know", map[string]string{"backsnap.sh/record": `{"version":1,"claim":{"name":"whole-name","colour":"red"},"mood":"good"}`}, recorded, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got catalog.Snapshot
			err := got.ReadLabels(labels, c.notes)
			if (err != nil) != c.fails {
				t.Errorf("error: %v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTier(t *testing.T) {
	for _, c := range []struct {
		name string
		s    catalog.Snapshot
		want string
	}{
		{"the longest of its periods", catalog.Snapshot{Retain: "calendar", Periods: map[catalog.Period]string{"daily": "2026-11-22", "weekly": "2026-w47"}}, "weekly"},
		{"a pin goes before everything", catalog.Snapshot{Pinned: true, Periods: sunday}, "pinned"},
		{"days", catalog.Snapshot{Retain: "days"}, "days"},
		{"a calendar one without a period", catalog.Snapshot{Retain: "calendar", Periods: map[catalog.Period]string{}}, "calendar"},
		{"nothing is known", catalog.Snapshot{}, ""},
	} {
		if got := c.s.Tier(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCopyIn(t *testing.T) {
	s := full(t)
	got, ok := s.CopyIn("main")
	if diff := cmp.Diff(s.Copies[0], got); diff != "" || !ok {
		t.Errorf("copy in main: %v (-want +got):\n%s", ok, diff)
	}
	if got, ok := s.CopyIn("cold"); ok || got != (catalog.Copy{}) {
		t.Errorf("copy in cold: %+v", got)
	}
}

func TestWithPeriodsCopies(t *testing.T) {
	periods := map[catalog.Period]string{"daily": "2026-11-22"}
	a := catalog.Snapshot{}.WithPeriods(periods)
	periods["daily"] = "changed"
	if diff := cmp.Diff(map[catalog.Period]string{"daily": "2026-11-22"}, a.Periods); diff != "" {
		t.Errorf("periods (-want +got):\n%s", diff)
	}
}

func TestApp(t *testing.T) {
	if got := full(t).App(); got != "statefulset/mysql" {
		t.Errorf("got %q", got)
	}
	if got := (catalog.Snapshot{}).App(); got != "" {
		t.Errorf("without a record: got %q", got)
	}
}

func ns(t *testing.T, clock string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339Nano, clock)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

// What is kept until it is copied may go once every copy that was asked for is
// on record, and never for want of knowing what was asked.
func TestFullyCopied(t *testing.T) {
	in := func(names ...string) (copies []catalog.Copy) {
		for _, name := range names {
			copies = append(copies, catalog.Copy{Repository: name})
		}
		return copies
	}
	wanted := func(names ...string) *catalog.Record { return &catalog.Record{Wanted: names} }
	for _, c := range []struct {
		name    string
		s       catalog.Snapshot
		missing []string
		full    bool
	}{
		{"no record", catalog.Snapshot{Copies: in("main")}, nil, false},
		{"nothing asked for", catalog.Snapshot{Record: wanted(), Copies: in("main")}, nil, false},
		{"none made", catalog.Snapshot{Record: wanted("cold", "main")}, []string{"cold", "main"}, false},
		{"one made", catalog.Snapshot{Record: wanted("cold", "main"), Copies: in("main", "other")}, []string{"cold"}, false},
		{"all made", catalog.Snapshot{Record: wanted("cold", "main"), Copies: in("main", "cold")}, nil, true},
	} {
		if diff := cmp.Diff(c.missing, c.s.MissingCopies()); diff != "" {
			t.Errorf("%s: missing (-want +got):\n%s", c.name, diff)
		}
		if got := c.s.FullyCopied(); got != c.full {
			t.Errorf("%s: fully copied %t", c.name, got)
		}
	}
}
