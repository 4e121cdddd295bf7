package plugins_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// What a careful person would type, without any of our checks: the same dump
// with the same proof.
const byHand = `set -e
cd "$1"
pg_dumpall -w --globals-only >globals
pg_dump -w -Fc -Z1 -d postgres >dump
pg_restore -f /dev/null dump
sha256sum globals dump
sync -f .
psql -XAtqw -d postgres -c "SELECT pg_logical_emit_message(true, 'x', 'y')" -c CHECKPOINT
sync -f .
`

// BenchmarkPostgresDump compares ours with the same by hand, on a database of
// the given size.
func BenchmarkPostgresDump(b *testing.B) {
	for _, size := range []struct {
		name string
		rows string
	}{{"empty", "0"}, {"100MiB", "400000"}} {
		b.Run(size.name, func(b *testing.B) {
			p := newPgServer(b, "", "max_wal_size=4GB")
			p.sql("postgres", "CREATE TABLE t AS SELECT i, md5(i::text) || repeat(md5((i % 977)::text), 6) AS s FROM generate_series(1, "+size.rows+") AS i", "CHECKPOINT")
			c := newBox(b, "dash")
			c.volume, c.uid, c.env = p.volume, p.uid, []string{"PGDATA=" + p.data}
			c.disk(1<<24, 1<<23, 65536, 60000)
			script := filepath.Join(c.dir, "by-hand")
			must(b, os.WriteFile(script, []byte(byHand), 0o644))
			b.Run("ours", func(b *testing.B) {
				for b.Loop() {
					s := c.start(lookup(b, "postgres").Dump(nonce, request(run)))
					out, _ := s.end()
					_, err := plugins.ReadDump(nonce, out)
					must(b, err)
					cpu(b, s.cmd)
				}
			})
			b.Run("byhand", func(b *testing.B) {
				for b.Loop() {
					cmd := exec.Command("dash", script, p.volume)
					cmd.SysProcAttr = credential(p.uid)
					cmd.Env = []string{"PATH=" + p.bin + ":" + os.Getenv("PATH"), "PGHOST=" + p.socket, "PGUSER=postgres"}
					out, err := cmd.CombinedOutput()
					if err != nil {
						b.Fatalf("%v\n%s", err, out)
					}
					cpu(b, cmd)
				}
			})
		})
	}
}

// cpu reports what the processes of the last turn have cost, which other work on
// the machine disturbs less than the time.
func cpu(b *testing.B, cmd *exec.Cmd) {
	b.ReportMetric(float64((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Milliseconds()), "cpu-ms")
}
