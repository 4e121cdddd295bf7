package kit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Writer commits rows 1, 2, 3 ... into the table busy of a database, each
// acknowledged by the server before the next, and notes the longest time in
// which it could not. A connection that breaks is made anew.
type Writer struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	acked   int
	last    time.Time
	longest time.Duration
}

// Write starts a writer, which ends with the test, and waits for its first row.
func Write(t testing.TB, db Database) *Writer {
	t.Helper()
	db.SQL(t, "create table if not exists busy (id int primary key)")
	ctx, cancel := context.WithCancel(t.Context())
	w := &Writer{cancel: cancel, done: make(chan struct{}), last: time.Now()}
	go func() {
		defer close(w.done)
		for ctx.Err() == nil {
			w.session(ctx, db)
			nap(ctx, 200*time.Millisecond)
		}
	}()
	t.Cleanup(w.Stop)
	Until(t, "first row of the writer", func() string {
		if w.Acknowledged() == 0 {
			return "none"
		}
		return ""
	})
	return w
}

// session writes over one connection until that breaks.
func (w *Writer) session(ctx context.Context, db Database) {
	cmd := exec.CommandContext(ctx, "kubectl", "exec", "-i", "-n", db.Namespace, db.Pod(), "--", "sh", "-c", db.client())
	in, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return
	}
	if cmd.Start() != nil {
		return
	}
	defer cmd.Wait()
	defer in.Close()
	insert := "insert into busy values (%d) on conflict do nothing; select %[1]d;\n"
	if db.engine == "mariadb" {
		insert = "insert ignore into busy values (%d); select %[1]d;\n"
	}
	w.write(ctx, insert, in, bufio.NewScanner(out))
}

func (w *Writer) write(ctx context.Context, insert string, in io.Writer, out *bufio.Scanner) {
	for i := w.Acknowledged() + 1; ctx.Err() == nil; i++ {
		if _, err := fmt.Fprintf(in, insert, i); err != nil || !out.Scan() || out.Text() != strconv.Itoa(i) {
			return
		}
		w.acknowledge(i)
		nap(ctx, 20*time.Millisecond) // the machine is busy enough
	}
}

func (w *Writer) acknowledge(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.acked, w.longest, w.last = i, max(w.longest, now.Sub(w.last)), now
}

// Acknowledged is the last row that the server has committed for sure.
func (w *Writer) Acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acked
}

// Longest is the longest time without a committed row since it was asked last.
func (w *Writer) Longest() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest := max(w.longest, time.Since(w.last))
	w.longest = 0
	return longest
}

// Stop ends the writer. It may be called more than once.
func (w *Writer) Stop() {
	w.cancel()
	<-w.done
}

// nap waits for d or the end of ctx.
func nap(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
