package kit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Fault turns one knob of the test storage for the claims of one namespace;
// testdata/cluster/csi/README.md tells the knobs.
type Fault map[string]any

// Failing is what a knob that fails a call takes.
func Failing(code, message string, count int) map[string]any {
	fault := map[string]any{"code": code, "message": message}
	if count > 0 {
		fault["count"] = count
	}
	return fault
}

// Faults sets the knobs for the claims of namespace, until the test ends. Tests
// that use it do not run side by side.
func Faults(t testing.TB, namespace string, faults ...Fault) {
	t.Helper()
	file := Env(t, "BACKSNAP_CLUSTER_CSI_FAULTS")
	for _, f := range faults {
		f["namespace"] = namespace
	}
	text, err := json.Marshal(faults)
	if err != nil {
		t.Fatal(err)
	}
	// The driver reads the file at each call: it must never see half of it.
	aside := filepath.Join(filepath.Dir(file), ".faults-"+namespace)
	if err := os.WriteFile(aside, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(aside, file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
}
