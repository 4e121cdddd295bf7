package restic_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

const nonce = "5c0ffee5"

// listed is what restic prints of three snapshots.
var listed = `[{"time":"2026-11-22T01:15:42Z","tree":"x","paths":["/data"],"hostname":"prod-eu/shop/data","tags":["backsnap","ns=shop","pvc=data"],` +
	`"summary":{"backup_start":"2026-11-22T01:16:00Z","backup_end":"2026-11-22T01:17:00Z","data_added_packed":40,"total_bytes_processed":100},` +
	`"id":"` + id + `","short_id":"8174d253"},{"time":"2020-01-01T00:00:00+01:00","hostname":"laptop","id":"` + strings.Repeat("a", 64) + `"}]` + "\n"

// logOf is the log of a mover whose restic prints listed.
func logOf(t *testing.T, c *container) string {
	t.Helper()
	must(t, writeFile(c, "listed", listed))
	c.env = []string{"BACKSNAP_NONCE=" + nonce}
	c.restic = `case $1 in snapshots) echo "Load(<snapshot/1>) returned error, retrying after 1s: EOF" >&2; cat "$DIR/listed" ;; esac`
	got := c.run("list", "snapshots", "--json")
	equal(t, "exit", 0, got.exit)
	equal(t, "report", "backsnap step=list exit=0", lines(got.report)[0])
	return got.log
}

func TestAnswerComesThroughWholeOrNotAtAll(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		log := logOf(t, c)
		answer, err := restic.ReadAnswer(strings.NewReader(log), nonce)
		must(t, err)
		equal(t, "answer", listed, string(answer))
		list, err := restic.ReadSnapshots(answer)
		must(t, err)
		equal(t, "snapshots", []restic.Snapshot{
			{
				ID: id, Host: "prod-eu/shop/data", Time: time.Date(2026, 11, 22, 1, 15, 42, 0, time.UTC), Tags: []string{"backsnap", "ns=shop", "pvc=data"},
				Ended: time.Date(2026, 11, 22, 1, 17, 0, 0, time.UTC), Bytes: 100, Added: 40,
			},
			{ID: strings.Repeat("a", 64), Host: "laptop", Time: time.Date(2019, 12, 31, 23, 0, 0, 0, time.UTC), Ended: time.Time{}.UTC()},
		}, list)
		for n := range len(log) - 1 { // whatever is missing at the end, but for the last newline
			if _, err := restic.ReadAnswer(strings.NewReader(log[:n]), nonce); !errors.Is(err, restic.ErrCut) {
				t.Fatalf("the first %d of %d bytes: error %v", n, len(log), err)
			}
		}
		begin := strings.Index(log, "backsnap answer")
		for i, b := range []byte(log) { // whatever is changed in between
			if i < begin || b == '\n' {
				continue
			}
			other := bytes.Clone([]byte(log))
			other[i] = 'Q'
			if b == 'Q' {
				other[i] = 'R'
			}
			if got, err := restic.ReadAnswer(bytes.NewReader(other), nonce); err == nil && string(got) != listed {
				t.Fatalf("byte %d changed: %q", i, got)
			}
		}
		rows := strings.SplitAfter(log, "\n")
		for i := range rows { // a line that is lost, or there twice
			if lost := strings.Join(append(append([]string{}, rows[:i]...), rows[i+1:]...), ""); strings.Contains(rows[i], "retrying") || rows[i] == "" {
				continue
			} else if _, err := restic.ReadAnswer(strings.NewReader(lost), nonce); !errors.Is(err, restic.ErrCut) {
				t.Errorf("without line %d: error %v", i, err)
			}
			twice := strings.Join(append(append([]string{}, rows[:i+1]...), rows[i:]...), "")
			if _, err := restic.ReadAnswer(strings.NewReader(twice), nonce); i < len(rows)-2 && !errors.Is(err, restic.ErrCut) {
				t.Errorf("line %d twice: error %v", i, err)
			}
		}
		if _, err := restic.ReadAnswer(strings.NewReader(log), "another"); !errors.Is(err, restic.ErrCut) {
			t.Errorf("with another nonce: error %v", err)
		}
	})
}

// restic ends with 0 when it leaves snapshots out that it cannot read.
func TestListThatLeavesSnapshotsOutIsNone(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.env = []string{"BACKSNAP_NONCE=" + nonce}
		for _, said := range []string{`Ignoring "1234": load failed`, "could not load snapshots: EOF", "error printing snapshots: write: no space"} {
			c.restic = "case $1 in snapshots) for n in 1 2 3 4 5 6; do echo noise $n >&2; done; echo '" + said + "' >&2; for n in 1 2 3; do echo more $n >&2; done; echo '[]' ;; esac"
			got := c.run("list", "snapshots")
			report := restic.ReadReport(got.report, got.exit)
			equal(t, "errors", 1, report.Errors)
			if err := report.Err(restic.StepList); err == nil {
				t.Errorf("%s: no error", said)
			}
		}
	})
}

func TestListThatFailsHasNoAnswer(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.env = []string{"BACKSNAP_NONCE=" + nonce}
		c.restic = `case $1 in snapshots) echo '[]'; exit 1 ;; esac`
		got := c.run("list", "snapshots")
		equal(t, "exit", 1, got.exit)
		equal(t, "log", []string(nil), lines(got.log))
	})
}

func TestReadStats(t *testing.T) {
	got, err := restic.ReadStats([]byte(`{"total_size":50,"total_uncompressed_size":100,"compression_ratio":2,"total_blob_count":7,"snapshots_count":3}` + "\n"))
	must(t, err)
	equal(t, "stats", restic.Stats{Snapshots: 3, Blobs: 7, Stored: 50, Uncompressed: 100, Ratio: 2}, got)
	for _, text := range []string{"", "{}", `{"snapshots_count":`} {
		if _, err := restic.ReadStats([]byte(text)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}
