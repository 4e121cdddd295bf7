package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sigs.k8s.io/yaml"

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

// examples are the command lines in the help of all commands, and those of the
// documentation that hold no placeholder, without what is the shell's.
func examples(t *testing.T) []string {
	t.Helper()
	var lines []string
	add := func(text string) {
		for line := range strings.Lines(text) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if args, ok := strings.CutPrefix(line, "kubectl backsnap "); ok {
				args, _, _ = strings.Cut(args, " #")
				args, _, _ = strings.Cut(args, " >")
				if !strings.Contains(args, "$(") {
					lines = append(lines, strings.ReplaceAll(strings.TrimSpace(args), "'", ""))
				}
			}
		}
	}
	for _, cmd := range commandsOf(cli.New(&cli.Env{Getenv: func(string) string { return "" }})) {
		add(cmd.Example)
	}
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	inline := regexp.MustCompile("`(kubectl backsnap [^`]+)`")
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		add(string(text))
		for _, found := range inline.FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(`[A-Z]{2}|[|\[]|\.\.\.`).MatchString(found[1]) {
				add(found[1])
			}
		}
	}
	return lines
}

func TestExamplesRun(t *testing.T) {
	lines := examples(t)
	if len(lines) < 20 {
		t.Fatalf("only %d examples: %q", len(lines), lines)
	}
	for _, args := range lines {
		w := shopWorld()
		if !strings.HasPrefix(args, "schedule create") {
			scheduleWorld(w)
		}
		if _, claim, named := strings.Cut(args, "--to-pvc "); named { // of the runbooks: the claim is lost
			w.Claims = slices.DeleteFunc(w.Claims, func(c worldClaim) bool { return c.Name == "shop/"+claim })
		}
		if strings.Contains(args, "--into-claim") { // it takes a repository of the app's own namespace
			beside := w.Repositories[0]
			beside.Namespace = "shop"
			w.Repositories = append(w.Repositories, beside)
		}
		if code, _, stderr := invoke(t, w, nil, strings.Fields(args)...); code != 0 && !(code == 7 && strings.HasPrefix(args, "status")) {
			t.Errorf("kubectl backsnap %s: exit %d\n%s", args, code, stderr)
		}
	}
}

// What a script reads on standard output is one document that parses, whatever
// became of the command.
func TestDocumentsParse(t *testing.T) {
	for _, line := range append(examples(t), "snapshot nothing", "snapshot -A --consistency=application", "list -n empty") {
		args := strings.Fields(line)
		if slices.Contains(args, "-o") || slices.Contains(args, "--help") || slices.Contains([]string{"completion", "help", "logs", "options"}, args[0]) || args[0] == "schedule" && args[1] != "create" && args[1] != "list" {
			continue
		}
		for _, format := range []string{"json", "yaml", "name"} {
			_, stdout, stderr := invoke(t, shopWorld(), nil, append(slices.Clone(args), "-o", format)...)
			var doc map[string]any
			switch format {
			case "json":
				if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc["kind"] == nil {
					t.Errorf("%s -o json: %v\n%s%s", line, err, stdout, stderr)
				}
			case "yaml":
				if err := yaml.Unmarshal([]byte(stdout), &doc); err != nil || doc["kind"] == nil {
					t.Errorf("%s -o yaml: %v\n%s%s", line, err, stdout, stderr)
				}
			case "name":
				if args[0] != "version" && stdout != "" && !regexp.MustCompile(`^([a-z.0-9]+(/[a-z.0-9:-]+){1,2}\n)+$`).MatchString(stdout) {
					t.Errorf("%s -o name:\n%s", line, stdout)
				}
			}
		}
	}
}

// gone is a pipe that nobody reads any more.
type gone struct{ tries int }

func (g *gone) Write([]byte) (int, error) {
	g.tries++
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

// That nobody reads its output is no reason for a run to stop half-way, nor for
// another exit code.
func TestAPipeThatIsClosed(t *testing.T) {
	getenv := func(name string) string { return map[string]string{"NOW": "2026-11-22T01:15:00Z", "TZ": "UTC"}[name] }
	for _, mode := range []string{"plain", "json", "none"} {
		w, out, errs := shopWorld(), &gone{}, &gone{}
		code := command{args: []string{"snapshot", "-n", "shop", "--progress=" + mode}, world: w, getenv: getenv, out: out, err: errs}.run(t)
		made := slices.ContainsFunc(w.Snapshots, func(s worldSnapshot) bool { return s.Consistency == "application" && len(s.Copies) == 2 })
		if code != 0 || !made || out.tries == 0 {
			t.Errorf("%s: exit %d, %d writes, left %+v", mode, code, out.tries, w.Snapshots)
		}
	}
	out := &gone{}
	w := shopWorld()
	w.Later = []worldSnapshot{{Name: "shop/later", Claim: "shop/data", Run: "20261122-011500-p9aa"}}
	if code := (command{args: []string{"list", "-w", "-o", "name"}, world: w, getenv: getenv, out: out, err: &gone{}}).run(t); code != 0 || out.tries != 2 {
		t.Errorf("list -w: exit %d, %d writes", code, out.tries)
	}
}

// In a pipe there is no control character, and lines can be taken apart.
func TestPipes(t *testing.T) {
	lines := append(examples(t), "version", "options", "snapshot nothing", "snapshot --retain=x", "nonsense", "snapshot -A --consistency=application")
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
