package kit

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gofrs/flock"
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

// Faults sets the knobs for the claims of namespace, in place of those that
// were set for it, until the test ends. Tests that use it may run side by
// side, in several programs too: each has its own entries in the one file that
// the driver reads, and leaves those of others alone.
func Faults(t testing.TB, namespace string, faults ...Fault) {
	t.Helper()
	file := Env(t, "BACKSNAP_CLUSTER_CSI_FAULTS")
	for _, f := range faults {
		f["namespace"] = namespace
	}
	if err := setFaults(file, namespace, faults); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setFaults(file, namespace, nil); err != nil {
			t.Error(err)
		}
	})
}

// setFaults writes the entries of namespace into file, under a lock beside it.
func setFaults(file, namespace string, faults []Fault) error {
	lock := flock.New(filepath.Join(filepath.Dir(file), ".faults.lock"))
	if err := lock.Lock(); err != nil {
		return err
	}
	defer lock.Unlock()
	var all []Fault
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all = slices.DeleteFunc(all, func(f Fault) bool { return f["namespace"] == namespace })
	if all = append(all, faults...); len(all) == 0 {
		err := os.Remove(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if text, err = json.Marshal(all); err != nil {
		return err
	}
	// The driver reads the file at each call: it must never see half of it.
	aside := filepath.Join(filepath.Dir(file), ".faults-"+namespace)
	if err := os.WriteFile(aside, text, 0o644); err != nil {
		return err
	}
	return os.Rename(aside, file)
}
