package catalog_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// TestRefillOnAClaim is how the annotation is spelled, and of which volume it
// counts.
func TestRefillOnAClaim(t *testing.T) {
	const spelled = `{"run":"20261122-091500-x7k2","volume":"pv","stage":"partial","repository":"main","copy":"7f3a"}`
	written := catalog.Refill{Run: "20261122-091500-x7k2", Volume: "pv", Stage: catalog.StagePartial, Repository: "main", Copy: "7f3a"}
	for name, c := range map[string]struct {
		note, volume string
		want         catalog.Refill
		counts       bool
	}{
		"of this volume":          {spelled, "pv", written, true},
		"of the volume before":    {spelled, "pv-new", written, false},
		"none":                    {"", "pv", catalog.Refill{}, false},
		"what cannot be read":     {"yes", "pv", catalog.Refill{Volume: "pv", Stage: catalog.StagePartial}, true},
		"what names no run":       {`{"volume":"pv","stage":"begun"}`, "pv", catalog.Refill{Volume: "pv", Stage: catalog.StagePartial}, true},
		"of a claim with nothing": {spelled, "", written, false},
	} {
		t.Run(name, func(t *testing.T) {
			claim := catalog.Claim{Volume: c.volume, Annotations: map[string]string{"backsnap.sh/refill": c.note}}
			got, counts := claim.Refill()
			if diff := cmp.Diff(c.want, got); diff != "" || counts != c.counts {
				t.Errorf("counts %v, want %v (-want +got):\n%s", counts, c.counts, diff)
			}
		})
	}
}

func TestPauseOnAWorkload(t *testing.T) {
	for note, want := range map[string]catalog.Pause{
		`{"run":"20261122-091500-x7k2","replicas":3}`: {Run: "20261122-091500-x7k2", Replicas: 3},
		"":               {},
		"three":          {},
		`{"replicas":3}`: {Replicas: 3},
	} {
		got, ok := catalog.App{Annotations: map[string]string{"backsnap.sh/refill": note}}.Pause()
		if got != want || ok != (want.Run != "") {
			t.Errorf("%q: %+v, %v", note, got, ok)
		}
	}
}
