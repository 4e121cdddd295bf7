package cli_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

func TestHelpIsKubectls(t *testing.T) {
	for _, cmd := range commandsOf(cli.New(&cli.Env{Getenv: func(string) string { return "" }})) {
		args := strings.Fields(strings.TrimPrefix(cmd.CommandPath(), "kubectl backsnap"))
		code, stdout, stderr := invoke(t, &world{}, nil, append(args, "--help")...)
		if code != 0 || stderr != "" || stdout == "" {
			t.Errorf("help of %q: exit %d, %q, %s", cmd.CommandPath(), code, stderr, stdout)
		}
		if strings.Contains(stdout, "kubectl-backsnap") {
			t.Errorf("help of %q names the binary:\n%s", cmd.CommandPath(), stdout)
		}
		if cmd.Short == "" {
			t.Errorf("%q has no summary", cmd.CommandPath())
		}
	}
}

// examples are the command lines in the help of all commands.
func examples() []string {
	var lines []string
	for _, cmd := range commandsOf(cli.New(&cli.Env{Getenv: func(string) string { return "" }})) {
		for line := range strings.Lines(cmd.Example) {
			if args, ok := strings.CutPrefix(strings.TrimSpace(line), "kubectl backsnap "); ok {
				lines = append(lines, args)
			}
		}
	}
	return lines
}

func TestExamplesRun(t *testing.T) {
	lines := examples()
	if len(lines) < 8 {
		t.Fatalf("only %d examples: %q", len(lines), lines)
	}
	for _, args := range lines {
		w := shopWorld()
		if code, _, stderr := invoke(t, w, nil, strings.Fields(args)...); code != 0 {
			t.Errorf("kubectl backsnap %s: exit %d\n%s", args, code, stderr)
		}
	}
}

// In a pipe there is no control character, and lines can be taken apart.
func TestPipes(t *testing.T) {
	lines := append(examples(), "version", "options", "snapshot nothing", "snapshot --retain=x", "nonsense", "snapshot -A --consistency=application")
	for _, line := range lines {
		for _, mode := range []string{"auto", "plain", "json", "none"} {
			_, stdout, stderr := invoke(t, shopWorld(), map[string]string{"BACKSNAP_PROGRESS": mode, "TERM": "xterm"}, strings.Fields(line)...)
			if strings.ContainsAny(stdout+stderr, "\x1b\r") {
				t.Errorf("kubectl backsnap %s: control characters:\n%q\n%q", line, stdout, stderr)
			}
			for event := range strings.Lines(stderr) {
				var doc map[string]any
				if strings.HasPrefix(event, "{") && json.Unmarshal([]byte(event), &doc) != nil {
					t.Errorf("kubectl backsnap %s: no JSON: %s", line, event)
				}
			}
		}
	}
}

// What a database says reaches neither the terminal nor a log as a command.
func TestDatabasesDoNotSteerTheTerminal(t *testing.T) {
	const evil = "\x1b]0;owned\x07\u009b31m\rmore"
	for _, db := range []database{{DumpFails: "dump exit 2 " + evil, Stderr: evil + "\n"}, {DumpFails: "dump " + evil}, {ProbeFails: "login " + evil}} {
		for _, mode := range []string{"plain", "json", "none"} {
			w := shopWorld()
			for i := range w.Pods {
				w.Pods[i].Database = &db
			}
			_, stdout, stderr := invoke(t, w, nil, "snapshot", "-n", "shop", "--progress="+mode)
			if strings.ContainsAny(stdout+stderr, "\x1b\x07\r\u009b") {
				t.Errorf("%s: control characters:\n%q\n%q", mode, stdout, stderr)
			}
		}
	}
}
