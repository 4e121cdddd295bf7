package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

// onTerminal runs a command whose streams are a terminal of that size, and
// returns what the terminal was sent.
func onTerminal(t *testing.T, rows, columns uint16, env map[string]string, w *world, args ...string) string {
	t.Helper()
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	if err := pty.Setsize(tty, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	sent := make(chan string)
	go func() {
		text, _ := io.ReadAll(screen) // ends with EIO when the other side is closed
		sent <- strings.ReplaceAll(string(text), "\r\n", "\n")
	}()
	getenv := func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		return map[string]string{"NOW": "2026-11-22T01:15:00Z", "TZ": "UTC", "TERM": "xterm-256color"}[name]
	}
	code := command{args: args, world: w, getenv: getenv, out: tty, err: tty}.run(t)
	if err := tty.Close(); err != nil {
		t.Error(err)
	}
	text := <-sent
	if code != 0 {
		t.Errorf("exit code %d:\n%s", code, text)
	}
	return text
}

func mysqlWorld() *world {
	return &world{
		Classes:      []worldClass{{Name: "ebs-snap", Driver: "ebs.csi.aws.com"}},
		Claims:       []worldClaim{{Name: "shop/data-mysql-0", Driver: "ebs.csi.aws.com", Size: "50Gi"}},
		Pods:         []worldPod{{Name: "shop/mysql-0", Owner: "statefulset/mysql", Image: "mysql:8.4", Claims: []string{"data-mysql-0"}, Database: &database{Takes: "41s"}}},
		Repositories: []worldRepository{{Name: "main", Address: "s3:s3.example.com/acme", Cluster: "prod-eu", Restic: worldError{Takes: "2m17s", Percent: []int{46, 100}}}},
	}
}

const planText = `Plan  context prod-eu, namespace shop, run 20261122-011500-x7k2
  shop/statefulset/mysql   dump by plugin mysql in pod mysql-0, container main
    recognised by image mysql
    data-mysql-0             50.0 GiB  ebs.csi.aws.com  class ebs-snap
  off-site  main  s3:s3.example.com/acme
  keep      through 2026-12-22 UTC

`

// again moves up one line, and clears from there.
const again = "\x1b[1A\r\x1b[J"

func TestTerminal(t *testing.T) {
	want := planText +
		"  ..    dump      mysql-0          mysqldump\n" +
		again + "  ok    dump      mysql-0          2.1 GiB in 41s, proven\n" +
		"  ok    barrier   mysql-0          FLUSH BINARY LOGS\n" +
		"  ..    snapshot  data-mysql-0     asked for, waiting for the cut\n" +
		again + "  ..    snapshot  data-mysql-0     cut, waiting until it is ready\n" +
		again + "  ok    snapshot  data-mysql-0     ready in 5.0s\n" +
		"The app is running. Ctrl-C leaves the copies to their movers; kubectl backsnap logs -f run/20261122-011500-x7k2 -n shop\n" +
		"  ..    upload    data-mysql-0     to main\n" +
		again + "  ..    upload    data-mysql-0     [=========>----------]  46%  46.0/100.0 MiB  1.0 MiB/s  54s left\n" +
		again + "  ..    upload    data-mysql-0     [====================] 100%  100.0/100.0 MiB  1.0 MiB/s\n" +
		again + "  ok    upload    data-mysql-0     100.0 MiB in 2m17s, 40.0 MiB new, restic 4f2d3b57 to main\n" +
		"volumesnapshot.snapshot.storage.k8s.io/data-mysql-0-20261122-011500-x7k2 created (app-consistent, off-site 4f2d3b57)\n" +
		"1 of 1 volumes protected in 3m03s, 40.0 MiB new data stored\n" +
		"Restore: kubectl backsnap restore statefulset/mysql -n shop\n"
	colour := strings.NewReplacer("  ok  ", "  \x1b[32mok  \x1b[0m", "  ..  ", "  \x1b[36m..  \x1b[0m")
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"colour repeats what the glyphs say", nil, nil, colour.Replace(want)},
		{"NO_COLOR", map[string]string{"NO_COLOR": "1"}, nil, want},
		{"NO_COLOR goes before CLICOLOR_FORCE", map[string]string{"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, nil, want},
		{"the flag goes before both", map[string]string{"NO_COLOR": "1"}, []string{"--color=always"}, colour.Replace(want)},
		{"no colour", nil, []string{"--color=never"}, want},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := onTerminal(t, 30, 100, c.env, mysqlWorld(), append([]string{"snapshot", "-n", "shop"}, c.args...)...)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("sent to the terminal (-want +got):\n%s", diff)
			}
		})
	}
}

// However many apps there are, status is one screen with the worst on it; lines
// that the terminal wraps count as what they take.
func TestStatusIsOneScreen(t *testing.T) {
	w := &world{}
	for i := range 40 {
		w.Claims = append(w.Claims, worldClaim{Name: fmt.Sprintf("shop/data-%02d", i), Driver: "csi.example.com"})
	}
	for _, c := range []struct {
		rows, columns uint16
		shown         int // apps
		args          []string
	}{{24, 120, 9, nil}, {24, 60, 5, nil}, {200, 120, 40, nil}, {5, 120, 3, nil}, {0, 0, 40, nil}, {24, 120, 40, []string{"-o", "wide"}}, {24, 120, 40, []string{"--details"}}} {
		got := onTerminal(t, c.rows, c.columns, nil, w, append([]string{"status", "-n", "shop", "--fail-on=", "--color=never"}, c.args...)...)
		if n := strings.Count(got, "\n            next: kubectl backsnap snapshot data-") + strings.Count(got, "\n        next: kubectl"); n != c.shown || !strings.Contains(got, "data-00 ") {
			t.Errorf("%d x %d %v: %d apps, want %d:\n%s", c.rows, c.columns, c.args, n, c.shown, got)
		}
		hidden := fmt.Sprintf("... and %d more that are no worse: -o wide shows all\n40 apps, 40 volumes: ", 40-c.shown)
		if strings.Contains(got, hidden) != (c.shown < 40) {
			t.Errorf("%d x %d %v: %q is not told, or nothing is hidden:\n%s", c.rows, c.columns, c.args, hidden, got)
		}
		lines := 1 // the prompt
		for line := range strings.Lines(got) {
			lines += (len(line)-2)/max(int(c.columns), 1) + 1
		}
		if c.shown < 40 && c.shown > 3 && lines > int(c.rows) {
			t.Errorf("%d x %d: %d lines", c.rows, c.columns, lines)
		}
	}
}

// No line is wider than the terminal: a wrapped one could not be redrawn.
func TestTerminalIsNotTooNarrow(t *testing.T) {
	got := onTerminal(t, 30, 50, nil, mysqlWorld(), "snapshot", "-n", "shop", "--color=never")
	_, drawn, found := strings.Cut(got, planText)
	if !found {
		t.Fatalf("no plan:\n%s", got)
	}
	for line := range strings.Lines(drawn) {
		line = strings.TrimPrefix(strings.TrimSuffix(line, "\n"), again)
		if strings.HasPrefix(line, "  ") && len(line) > 50 {
			t.Errorf("%d columns: %q", len(line), line)
		}
	}
	if !strings.Contains(drawn, "  ..    upload    data-mysql-0     [=========>--~\n") {
		t.Errorf("a line that is too long is not cut:\n%s", drawn)
	}
}

// Where nothing can be redrawn, lines are written one after the other.
func TestTerminalThatCannotRedraw(t *testing.T) {
	for _, c := range []struct {
		name          string
		rows, columns uint16
		env           map[string]string
	}{
		{"of no size", 0, 0, nil},
		{"too narrow", 30, 39, nil},
		{"TERM=dumb", 30, 100, map[string]string{"TERM": "dumb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := onTerminal(t, c.rows, c.columns, c.env, mysqlWorld(), "snapshot", "-n", "shop")
			if strings.ContainsAny(got, "\x1b\r") {
				t.Errorf("control characters: %q", got)
			}
			if !strings.Contains(got, "\n01:15:41 dump     namespace=shop pod=mysql-0 state=ok ") {
				t.Errorf("no plain lines:\n%s", got)
			}
		})
	}
}

// What fails leaves no line that looks as if it went on.
func TestTerminalShowsFailures(t *testing.T) {
	w := mysqlWorld()
	w.Pods[0].Database.DumpFails = "dump mysqldump exited with \x1b[2J2"
	w.Repositories = nil
	w.Storage.Never = "data-mysql-0"
	code, _, stderr := invoke(t, w, nil, "snapshot", "-n", "shop", "--progress=tty", "--timeout=1m")
	if code != 6 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		again + "  FAIL  dump      mysql-0          mysqldump exited with  [2J2\n",
		again + "  FAIL  snapshot  data-mysql-0     not in time\n0 of 1 volumes protected in ",
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not to be seen:\n%q", want, stderr)
		}
	}
}

// An event that comes late, from somebody who still cleans up, is not written
// into what follows.
func TestClosedProgressIsSilent(t *testing.T) {
	for _, mode := range []string{"tty", "plain", "json", "none"} {
		var out bytes.Buffer
		p, err := cli.Progress(mode, &out)
		if err != nil {
			t.Fatal(err)
		}
		p.Event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.Started, Pod: "mysql-0"})
		if said := out.Len() > 0; said != (mode != "none") {
			t.Errorf("%s: said %q", mode, out.String())
		}
		p.Close()
		out.Reset()
		p.Event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.OK, Pod: "mysql-0"})
		if out.Len() > 0 {
			t.Errorf("%s: said %q when it was closed", mode, out.String())
		}
	}
}
