package catalog_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"regexp"
	"testing"
	"testing/iotest"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestNewRun(t *testing.T) {
	for _, c := range []struct {
		name   string
		now    time.Time
		random []byte
		want   catalog.Run
	}{
		{"the moment is in UTC", in(t, "2026-11-22T01:15", "Asia/Tokyo"), []byte{0, 1, 2, 3}, "20261122-011500-abcd"},
		{"every byte gives a character", in(t, "2026-11-22T01:15", "UTC"), []byte{34, 35, 254, 255}, "20261122-011500-9ajk"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := catalog.NewRun(c.now, bytes.NewReader(c.random))
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestNewRunIsReadAgain(t *testing.T) {
	form := regexp.MustCompile(`^20261122-011500-[a-km-z0-9]{4}$`)
	seen := map[catalog.Run]bool{}
	for range 100 {
		run, err := catalog.NewRun(in(t, "2026-11-22T01:15", "UTC"), rand.Reader)
		if err != nil || !form.MatchString(string(run)) {
			t.Fatalf("got %q, %v", run, err)
		}
		if again, err := catalog.ParseRun(string(run)); err != nil || again != run {
			t.Errorf("%q is read as %q, %v", run, again, err)
		}
		seen[run] = true
	}
	if len(seen) < 90 {
		t.Errorf("100 runs of one second have %d ids", len(seen))
	}
}

func TestNewRunWithoutRandomness(t *testing.T) {
	broken := errors.New("no entropy")
	if got, err := catalog.NewRun(time.Time{}, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := catalog.NewRun(time.Time{}, bytes.NewReader([]byte{1, 2, 3})); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("three bytes: got %q, %v", got, err)
	}
}

func TestParseRunRefuses(t *testing.T) {
	for _, text := range []string{
		"", "20261122-011500", "20261122-011500-x7k", "20261122-011500-x7k22", "20261122-011500-X7K2", "20261322-011500-x7k2", "20260230-011500-x7k2",
		"20261122-251500-x7k2", "20261122 011500 x7k2", " 20261122-011500-x7k2", "20261122-011500-x7k2\n", "run/20261122-011500-x7k2",
	} {
		if got, err := catalog.ParseRun(text); err == nil {
			t.Errorf("%q is read as %q", text, got)
		}
	}
}
