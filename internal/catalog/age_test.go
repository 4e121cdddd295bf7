package catalog_test

import (
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestParseAge(t *testing.T) {
	day := 24 * time.Hour
	for text, want := range map[string]time.Duration{"90m": 90 * time.Minute, "24h": day, "7d": 7 * day, "2w": 14 * day, " 1d ": day, "none": 0} {
		if got, err := catalog.ParseAge(text); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "0", "0d", "-1h", "-3d", "1.5d", "7", "a week", "99999999999999d", "1000000w"} {
		if got, err := catalog.ParseAge(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}
