package restic_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

const (
	id      = "8174d253d51fa83ca7cd3e3b4654146042e92b2355ef11e8915e5e68a4d0a5b5"
	summary = `{"message_type":"summary","files_new":1,"data_added":100705,"data_added_packed":100664,` +
		`"total_files_processed":1,"total_bytes_processed":100000,"total_duration":0.47,"snapshot_id":"` + id + `"}`
	status = `{"message_type":"status","percent_done":0.5,"bytes_done":50,"total_bytes":100}`
)

// container stands for a mover's: a shell, the programs of its image, and a
// stub for restic.
type container struct {
	t        *testing.T
	dir      string
	shell    []string
	restic   string // what the stub does, as a case over its command
	patience string
	limit    string
	retry    string
	env      []string
}

// inShells runs f in both shells that movers meet: restic's own image has busybox.
func inShells(t *testing.T, f func(t *testing.T, c *container)) {
	t.Helper()
	for _, shell := range []string{"dash", "busybox"} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("no %s on this machine: apt-get install %s", shell, shell)
			}
			c := &container{t: t, dir: t.TempDir(), shell: []string{path}, patience: "20", limit: "20", retry: "0s"}
			if shell == "busybox" {
				c.shell = append(c.shell, "sh")
			}
			c.programs("base64", "cat", "gzip", "mkfifo", "mv", "rm", "sha256sum", "sleep", "wc")
			must(t, os.Symlink("/bin/sh", filepath.Join(c.dir, "sh")))
			f(t, c)
		})
	}
}

// programs puts programs into the image.
func (c *container) programs(names ...string) {
	c.t.Helper()
	for _, name := range names {
		path := c.shell[0]
		if filepath.Base(path) != "busybox" {
			var err error
			path, err = exec.LookPath(name)
			must(c.t, err)
		}
		must(c.t, os.Symlink(path, filepath.Join(c.dir, name)))
	}
}

// command is the wrapper as the Job has it, but for the place of the report.
func (c *container) command(mode string, args ...string) *exec.Cmd {
	c.t.Helper()
	job, err := restic.Work{Repository: catalog.Repository{Secret: "main"}}.Job()
	must(c.t, err)
	script := strings.ReplaceAll(job.Command[2], "/dev/termination-log", filepath.Join(c.dir, "termination-log"))
	stub := fmt.Sprintf("#!/bin/sh\nDIR=%s\nprintf '%%s\\n' \"$RESTIC_REPOSITORY\" \"$@\" >\"$DIR/$1.args\"\n%s\n", c.dir, c.restic)
	must(c.t, os.WriteFile(filepath.Join(c.dir, "restic"), []byte(stub), 0o755))
	argv := append(append(c.shell[1:], "-c", script, "backsnap", mode, c.patience, c.limit, c.retry), args...)
	cmd := exec.Command(c.shell[0], argv...)
	cmd.Env = append([]string{"PATH=" + c.dir, "TMPDIR=" + c.dir, "RESTIC_REPOSITORY=/repo"}, c.env...)
	return cmd
}

// ended is what is left of a mover.
type ended struct {
	exit   int
	log    string
	report string
}

func (c *container) run(mode string, args ...string) ended {
	c.t.Helper()
	cmd := c.command(mode, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return ended{exit: cmd.ProcessState.ExitCode(), log: log.String(), report: c.read("termination-log")}
}

func (c *container) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Fatal(err)
	}
	return string(text)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s:\n-want %+v\n+got  %+v", what, want, got)
	}
}

func TestMoverReportsWhatResticDid(t *testing.T) {
	const exitError = `{"message_type":"exit_error","code":%d,"message":"Fatal: %s"}`
	unread := func(n int) string {
		return fmt.Sprintf(`{"message_type":"error","error":{"message":"open f%d: denied"},"during":"archival","item":"/data/f%d"}`, n, n)
	}
	tests := []struct {
		name, mode, restic string
		exit               int
		log                []string // lines
		report             []string // lines, without the empty ones
	}{
		{
			name: "a backup", mode: "backup",
			restic: "case $1 in backup) echo '" + status + "'; echo '" + summary + "' ;; esac",
			log:    []string{status, summary},
			report: []string{"backsnap step=backup exit=0", "errors=0", summary},
		},
		{
			name: "what the check prints is in no log", mode: "backup",
			restic: "case $1 in cat) echo '{\"id\": \"1\"}' ;; backup) echo '" + summary + "' ;; esac",
			log:    []string{summary},
			report: []string{"backsnap step=backup exit=0", "errors=0", summary},
		},
		{
			name: "no repository", mode: "backup",
			restic: "echo '" + fmt.Sprintf(exitError, 10, "repository does not exist") + "' >&2; exit 10",
			exit:   10,
			log:    []string{fmt.Sprintf(exitError, 10, "repository does not exist")},
			report: []string{"backsnap step=check exit=10", "errors=0", fmt.Sprintf(exitError, 10, "repository does not exist")},
		},
		{
			name: "a partial backup names the first and the last", mode: "backup",
			restic: "case $* in *backsnap-partial*) exit 0 ;; esac; case $1 in backup) for n in 1 2 3 4 5 6; do echo '" + strings.ReplaceAll(unread(7), "7", `'$n'`) + "' >&2; done; echo '" + summary + "'; " +
				"echo '" + fmt.Sprintf(exitError, 3, "partial") + "' >&2; exit 3 ;; esac",
			exit: 3,
			log: []string{
				unread(1), unread(2), unread(3), unread(4), unread(5), unread(6), summary, fmt.Sprintf(exitError, 3, "partial"),
			},
			report: []string{
				"backsnap step=backup exit=3", "errors=6", summary,
				unread(1), unread(2), unread(3), unread(6), fmt.Sprintf(exitError, 3, "partial"),
			},
		},
		{
			name: "plain text, and no newline at its end", mode: "backup",
			restic: `case $1 in backup) printf 'killed \\n %%s by $(it)' >&2; exit 1 ;; esac`,
			exit:   1,
			log:    []string{`killed \n %s by $(it)`},
			report: []string{"backsnap step=backup exit=1", "errors=0", `killed \n %s by $(it)`},
		},
		{
			name: "a code that nobody knows", mode: "backup",
			restic: "case $1 in backup) exit 77 ;; esac",
			exit:   77,
			report: []string{"backsnap step=backup exit=77", "errors=0"},
		},
		{
			name: "a new repository", mode: "init",
			restic: `case $1 in init) echo '{"message_type":"initialized","id":"1"}' ;; *) exit 99 ;; esac`,
			log:    []string{`{"message_type":"initialized","id":"1"}`},
			report: []string{"backsnap step=init exit=0", "errors=0", `{"message_type":"initialized","id":"1"}`},
		},
		{
			name: "a repository that is there", mode: "init",
			restic: `case $1 in init) echo there >&2; exit 1 ;; esac`,
			log:    []string{"there"},
			report: []string{"backsnap step=check exit=0", "errors=0"},
		},
		{
			name: "a repository that is there, with another password", mode: "init",
			restic: `case $1 in init) echo there >&2; exit 1 ;; *) echo wrong >&2; exit 12 ;; esac`,
			exit:   12,
			log:    []string{"there", "wrong"},
			report: []string{"backsnap step=check exit=12", "errors=0", "wrong"},
		},
		{
			name: "a repository that cannot be made: init says why", mode: "init",
			restic: `case $1 in init) echo no right >&2; exit 1 ;; *) echo nothing here >&2; exit 10 ;; esac`,
			exit:   1,
			log:    []string{"no right", "nothing here"},
			report: []string{"backsnap step=init exit=1", "errors=0", "no right"},
		},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t, c.restic = t, test.restic
				got := c.run(test.mode, test.mode)
				equal(t, "exit", test.exit, got.exit)
				equal(t, "log", test.log, lines(got.log))
				equal(t, "report", test.report, lines(got.report))
				left, err := filepath.Glob(filepath.Join(c.dir, "backsnap.*"))
				must(t, err)
				equal(t, "files left", []string(nil), left)
			})
		}
	})
}

// restic stores nowhere that it could not read all: a note beside the copy does,
// and the report is that of the copy.
func TestMoverLeavesANoteOfACopyThatIsNotWhole(t *testing.T) {
	const denied = `{"message_type":"error","error":{"message":"denied"},"item":"/data/f"}`
	tests := []struct {
		name   string
		note   string // what restic does with it
		report []string
	}{
		{
			name: "it is left", note: `cp "$DIR/backsnap.pipe.note" "$DIR/note"; echo unheard`,
			report: []string{"backsnap step=backup exit=3", "errors=1", summary, denied},
		},
		{
			name: "it cannot be left", note: "exit 11",
			report: []string{"backsnap step=backup exit=3", "errors=1", summary, denied, "no note of that is left in the repository"},
		},
	}
	inShells(t, func(t *testing.T, c *container) {
		path, err := exec.LookPath("cp")
		must(t, err)
		must(t, os.Symlink(path, filepath.Join(c.dir, "cp")))
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t = t
				c.restic = "case $* in *backsnap-partial*) " + test.note + " ;; backup*) echo '" + summary + "'; echo '" + denied + "' >&2; exit 3 ;; esac"
				got := c.run("backup", "backup", "--json", "--host", "prod/shop/data", "/data")
				equal(t, "exit", 3, got.exit)
				equal(t, "log", []string{summary, denied}, lines(got.log))
				equal(t, "report", test.report, lines(got.report))
				equal(t, "arguments", "/repo backup --retry-lock 0s --json --tag backsnap-partial --tag of="+id+" --tag errors=1 --stdin-filename /partial --stdin-from-command -- cat "+
					filepath.Join(c.dir, "backsnap.pipe.note"), strings.Join(lines(c.read("backup.args")), " "))
			})
		}
		equal(t, "note", []string{"errors=1", summary, denied}, lines(c.read("note")))
	})
}

// A copy that is in the repository already is found by its tag, and believed
// only if restic would add nothing to it: one that is not whole carries the
// same tag.
func TestMoverFindsTheCopyThatIsThere(t *testing.T) {
	const other = "0000d253d51fa83ca7cd3e3b4654146042e92b2355ef11e8915e5e68a4d0a5b5"
	listed := func(ids ...string) string {
		var all []string
		for _, id := range ids {
			all = append(all, `{"time":"2026-11-22T01:15:42Z","paths":["/data"],"tags":["vsuid=5a1c","what=\\"id\\":\\"no\\""],`+
				`"summary":{"files_new":1,"data_added":5,"data_added_packed":40,"total_files_processed":1,"total_bytes_processed":100},"id":"`+id+`","short_id":"`+id[:8]+`"}`)
		}
		return "[" + strings.Join(all, ",") + "]"
	}
	would := func(n, changed, dirs int) string {
		return fmt.Sprintf(`{"message_type":"summary","dry_run":true,"files_new":%d,"files_changed":%d,"files_unmodified":3,"dirs_new":%d,"dirs_changed":1,"data_blobs":0}`, n, changed, dirs)
	}
	made := []string{"backsnap step=backup exit=0", "errors=0", summary}
	is := func(id string) []string {
		return []string{"backsnap step=find exit=0", "errors=0", `{"message_type":"summary","snapshot_id":"` + id + `","total_bytes_processed":100,"data_added_packed":40}`}
	}
	tests := []struct {
		name   string
		listed string
		would  map[string]string // what a dry run with that parent says
		exit   int               // of a dry run
		args   []string
		report []string
	}{
		{name: "none is there", listed: "[]", report: made},
		{name: "it is there", listed: listed(id), would: map[string]string{id: would(0, 0, 0)}, report: is(id)},
		{name: "files are missing in it", listed: listed(id), would: map[string]string{id: would(1, 0, 0)}, report: made},
		{name: "files are others in it", listed: listed(id), would: map[string]string{id: would(0, 1, 0)}, report: made},
		{name: "folders are missing in it", listed: listed(id), would: map[string]string{id: would(0, 0, 1)}, report: made},
		{name: "what it holds cannot be read", listed: listed(id), would: map[string]string{id: would(0, 0, 0)}, exit: 3, report: made},
		{
			name: "the first of two is whole", listed: listed(id, other),
			would: map[string]string{id: would(0, 0, 0), other: would(1, 0, 0)}, report: is(id),
		},
		{name: "an image of a block volume", listed: listed(id), args: []string{"--stdin-from-command", "--", "cat", "/data"}, report: is(id)},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t, c.env = t, []string{"BACKSNAP_COPY=vsuid=5a1c"}
				var stub strings.Builder
				fmt.Fprintf(&stub, "case \"$*\" in\n'snapshots --json --no-lock --tag vsuid=5a1c') cat <<'E'\n%s\nE\n;;\n", test.listed)
				for parent, says := range test.would {
					fmt.Fprintf(&stub, "*' --dry-run --parent %s '*) echo '%s'; exit %d ;;\n", parent, says, test.exit)
				}
				fmt.Fprintf(&stub, "backup*) echo '%s' ;;\nesac\n", summary)
				c.restic = stub.String()
				got := c.run("backup", append([]string{"backup", "--json"}, test.args...)...)
				equal(t, "exit", 0, got.exit)
				equal(t, "report", test.report, lines(got.report))
				left, err := filepath.Glob(filepath.Join(c.dir, "backsnap.*"))
				must(t, err)
				equal(t, "files left", []string(nil), left)
			})
		}
	})
}

// lines are those of text that are not empty.
func lines(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestMoverGivesResticItsArgumentsAsTheyAre(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		hostile := []string{"backup", "--tag", `a b'c"d$(id)*\`, "--tag", "", "--", "/data"}
		c.run("backup", hostile...)
		want := c.env
		want = append(want, "/repo")
		equal(t, "arguments", append(want, hostile...), strings.Split(strings.TrimSuffix(c.read("backup.args"), "\n"), "\n"))
		equal(t, "check", "/repo\ncat\nconfig\n--json\n--no-lock\n", c.read("cat.args"))
	})
}

func TestMoverReplacesTheNamespaceInTheAddress(t *testing.T) {
	tests := []struct{ name, address, namespace, want string }{
		{"once", "s3:http://s3/b/{namespace}", "shop", "s3:http://s3/b/shop"},
		{"twice, in the middle", "rest:http://u:p@h/{namespace}/x/{namespace}/y", "shop", "rest:http://u:p@h/shop/x/shop/y"},
		{"at the beginning", "{namespace}/b", "shop", "shop/b"},
		{"none", "s3:http://s3/b", "shop", "s3:http://s3/b"},
		{"a password of hostile characters", `rest:http://u:'"$HOME\n` + "`id`" + `*@h/{namespace}`, "shop", `rest:http://u:'"$HOME\n` + "`id`" + `*@h/shop`},
		{"a namespace that names itself", "b/{namespace}", "{namespace}", "b/{namespace}"},
		{"other braces", "b/{name}/{namespace", "shop", "b/{name}/{namespace"},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t, c.env = t, []string{"RESTIC_REPOSITORY=" + test.address, "BACKSNAP_NAMESPACE=" + test.namespace}
				c.run("backup", "backup")
				address, _, _ := strings.Cut(c.read("backup.args"), "\n")
				equal(t, "address", test.want, address)
			})
		}
	})
}

func TestMoverHandsTermOnAndReports(t *testing.T) {
	const stubborn = `case $1 in
%s) exec 3>&2 2>/dev/null
	trap 'echo "{\"message_type\":\"exit_error\",\"message\":\"interrupted\"}" >&3; : >"$DIR/unlocked"; exit 130' TERM
	: >"$DIR/up"
	while :; do sleep 0.1; done ;;
esac`
	inShells(t, func(t *testing.T, c *container) {
		for _, step := range []string{"check", "backup"} {
			t.Run(step, func(t *testing.T) {
				c := *c
				c.t, c.restic = t, fmt.Sprintf(stubborn, map[string]string{"check": "cat", "backup": "backup"}[step])
				for _, name := range []string{"up", "unlocked"} {
					os.Remove(filepath.Join(c.dir, name))
				}
				cmd := c.command("backup", "backup")
				must(t, cmd.Start())
				await(t, filepath.Join(c.dir, "up"))
				must(t, cmd.Process.Signal(syscall.SIGTERM))
				_ = cmd.Wait() // its exit code says it
				equal(t, "exit", 130, cmd.ProcessState.ExitCode())
				await(t, filepath.Join(c.dir, "unlocked"))
				equal(t, "report", []string{
					"backsnap step=" + step + " exit=130", "errors=0", `{"message_type":"exit_error","message":"interrupted"}`,
				}, lines(c.read("termination-log")))
			})
		}
	})
}

func TestMoverStoppedBeforeResticMinds(t *testing.T) {
	stopped(t, `: >"$DIR/up"; exec sleep 1000`)
}

// TestMoverStoppedWhileKeysAreTried: restic then says that the password is
// wrong, after which no other attempt would be made.
func TestMoverStoppedWhileKeysAreTried(t *testing.T) {
	stopped(t, `trap 'exit 12' TERM; : >"$DIR/up"; while :; do sleep 0.1; done`)
}

// stopped: a mover that is stopped while this restic looks at the repository.
func stopped(t *testing.T, restic string) {
	inShells(t, func(t *testing.T, c *container) {
		c.restic = restic
		cmd := c.command("backup", "backup")
		must(t, cmd.Start())
		await(t, filepath.Join(c.dir, "up"))
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		_ = cmd.Wait() // its exit code says it
		equal(t, "exit", 130, cmd.ProcessState.ExitCode())
		equal(t, "report", []string{"backsnap step=check exit=130", "errors=0"}, lines(c.read("termination-log")))
	})
}

func TestMoverStoppedBeforeResticIsStarted(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.restic = `trap 'exit 130' TERM; while :; do sleep 0.1; done`
		mkfifo := filepath.Join(c.dir, "mkfifo")
		real, err := os.Readlink(mkfifo)
		must(t, err)
		must(t, os.Remove(mkfifo))
		must(t, os.Mkdir(filepath.Join(c.dir, "real"), 0o755))
		must(t, os.Symlink(real, filepath.Join(c.dir, "real", "mkfifo")))
		must(t, os.WriteFile(mkfifo, []byte("#!/bin/sh\nkill -TERM $PPID\nexec \"${0%/*}/real/mkfifo\" \"$@\"\n"), 0o755))
		got := c.run("backup", "backup")
		equal(t, "exit", 130, got.exit)
		equal(t, "report", "backsnap step=check exit=130", lines(got.report)[0])
	})
}

// await waits until the file is there.
func await(t *testing.T, file string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
	}
	t.Fatalf("%s did not come to be", file)
}

func TestMoverGivesUpOnARepositoryThatDoesNotAnswer(t *testing.T) {
	const orphan = `sleep 1000 & echo $! >"$DIR/orphan"; `
	tests := []struct {
		name, restic, step string
		patience, limit    string
	}{
		{"the check", "exec sleep 100", "check", "1", "20"},
		{"the backup", "case $1 in backup) exec sleep 100 ;; esac", "backup", "20", "1"},
		{"restic says that it was interrupted", orphan + "trap 'exit 130' TERM; wait", "check", "1", "20"},
		{"a program that restic leaves behind keeps its output", orphan + "exit 124", "check", "20", "20"},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t, c.restic, c.patience, c.limit = t, test.restic, test.patience, test.limit
				got := c.run("backup", "backup")
				c.kill("orphan")
				equal(t, "exit", 124, got.exit)
				equal(t, "report", []string{"backsnap step=" + test.step + " exit=124", "errors=0"}, lines(got.report))
			})
		}
	})
}

// kill ends the process whose id stands in that file, if there is one.
func (c *container) kill(file string) {
	c.t.Helper()
	text := strings.TrimSpace(c.read(file))
	if text == "" {
		return
	}
	must(c.t, os.Remove(filepath.Join(c.dir, file)))
	pid, err := strconv.Atoi(text)
	must(c.t, err)
	if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		must(c.t, err)
	}
}

func TestReportStaysWithinATerminationMessage(t *testing.T) {
	long := strings.Repeat("ä", 3000)
	inShells(t, func(t *testing.T, c *container) {
		c.restic = "case $1 in backup) for n in 1 2 3 4 5 6 7; do echo $n" + long + " >&2; done; echo '" + summary + "'; exit 3 ;; esac"
		got := c.run("backup", "backup")
		if len(got.report) > 4096 {
			t.Errorf("report has %d bytes, want at most 4096", len(got.report))
		}
		read := restic.ReadReport(got.report, got.exit)
		if read.Exit != restic.ExitPartial || read.Summary == nil || len(read.Lines) != 6 {
			t.Errorf("report reads as %+v", read)
		}
	})
}

// Kubernetes expands $$ and $(NAME) in a container's command (API reference,
// Container): the script must read the same here and there.
func TestMoverHoldsNothingThatKubernetesExpands(t *testing.T) {
	job, err := restic.Work{Repository: catalog.Repository{Secret: "main"}}.Job()
	must(t, err)
	expands := regexp.MustCompile(`\$\$|\$\([-._A-Za-z0-9]+\)`)
	equal(t, "expanded", []string(nil), expands.FindAllString(job.Command[2], -1))
}

func TestImageWithoutRestic(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		cmd := c.command("backup", "backup")
		must(t, os.Remove(filepath.Join(c.dir, "restic")))
		_ = cmd.Run() // its exit code says it
		equal(t, "exit", 127, cmd.ProcessState.ExitCode())
	})
}
