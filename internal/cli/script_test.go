package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata" // the zones of the scripts must not depend on the machine

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

const kubeconfig = `apiVersion: v1
kind: Config
current-context: prod-eu
clusters: [{name: prod, cluster: {server: "https://prod.example.com"}}]
contexts: [{name: prod-eu, context: {cluster: prod, namespace: shop}}]
`

// TestMain keeps the kubeconfig of whoever runs the tests out of them.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "backsnap-cli")
	if err == nil {
		file := filepath.Join(dir, "config")
		err = errors.Join(os.WriteFile(file, []byte(kubeconfig), 0o600), os.Setenv("KUBECONFIG", file))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// command is one command line and the world it meets.
type command struct {
	args     []string
	world    *world
	getenv   func(string) string
	in       string // standard input
	dir      string // in which it writes files; "" for one that goes
	out, err io.Writer
}

// run runs c in a bubble of its own, whose clock begins at $NOW: waiting
// costs nothing. It returns the exit code.
func (c command) run(t *testing.T) (code int) {
	began, err := time.Parse(time.RFC3339, c.getenv("NOW"))
	if err != nil {
		t.Fatal(err)
	}
	if c.dir == "" {
		c.dir = t.TempDir()
	}
	synctest.Test(t, func(t *testing.T) {
		zero := time.Now()
		now := func() time.Time { return began.Add(time.Since(zero)) }
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		live := newCluster(c.world, now, func() { cancel(&catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal interrupt"}) })
		code = cli.Main(ctx, &cli.Env{
			In: strings.NewReader(c.in), Out: c.out, Err: c.err, Now: now, Getenv: c.getenv, Random: strings.NewReader("\x16\x20\x0a\x1b0123456789abcdef"), ReadFile: readFile, Dir: c.dir, Program: filepath.Join(c.dir, "kubectl-backsnap"), Version: "v0.1.0",
			Connect: func(genericclioptions.RESTClientGetter) (cli.Cluster, error) { return live, nil },
			Lock:    live.lock,
		}, c.args)
		live.settle()
	})
	return code
}

// readFile is the file of that name, or what the examples of the help name.
func readFile(name string) ([]byte, error) {
	switch name {
	case "main.env":
		return []byte("RESTIC_REPOSITORY=s3:s3.example.com/acme\nRESTIC_PASSWORD=hunter2\n"), nil
	case "each.env":
		return []byte("RESTIC_REPOSITORY=s3:s3.example.com/{namespace}\nRESTIC_PASSWORD=hunter2\n"), nil
	}
	return os.ReadFile(name)
}

// lock is the Leases and slots of the world.
func (c *cluster) lock(ctx context.Context, _ cli.Cluster, l cli.Lock) (context.Context, func() error, error) {
	what := strings.Join(l.Namespaces, ",")
	if what != "" && what == c.w.Busy {
		return nil, nil, &catalog.Failure{Code: catalog.CodeBusy, Message: "namespace " + what + " is taken by run 20261122-010000-aaaa", State: "nothing changed", Next: "wait"}
	}
	c.meanwhile()
	c.did("lock %s for %s, %d slots in %q, wait %s", what, l.Run, l.Slots, l.Dir, l.Timeout)
	if l.Over != "" {
		c.did("lock %s over run %s", what, l.Over)
		c.w.Held = slices.DeleteFunc(c.w.Held, func(h string) bool {
			namespace, run := split(h)
			return run == string(l.Over) && slices.Contains(l.Namespaces, namespace)
		})
	}
	held, lose := context.WithCancelCause(ctx)
	if what == c.w.Lost {
		time.AfterFunc(2*time.Second, func() {
			lose(&catalog.Failure{Code: catalog.CodeBusy, Message: "the Lease of namespace " + what + " is lost"})
		})
	}
	return held, func() error { lose(nil); return nil }, nil
}

// scriptT lets the commands of a script know their test.
type scriptT struct{ *testing.T }

func (t scriptT) Run(name string, f func(testscript.T)) {
	t.T.Run(name, func(t *testing.T) { f(scriptT{t}) })
}

func (t scriptT) Verbose() bool { return testing.Verbose() }

type testKey struct{}

// The scripts hold cluster.yaml, run `backsnap` (which must exit with 0) or
// `exits CODE backsnap`, and compare what was said and the cluster.yaml that
// is left. $STDIN names a file that is its standard input.
func TestScripts(t *testing.T) {
	testscript.RunT(scriptT{t}, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("NOW", "2026-11-22T01:15:00Z")
			env.Setenv("TZ", "UTC")
			env.Values[testKey{}] = env.T().(scriptT).T
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"backsnap": func(ts *testscript.TestScript, neg bool, args []string) { backsnap(ts, 0, args) },
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				code, err := strconv.Atoi(args[0])
				ts.Check(err)
				backsnap(ts, code, args[2:])
			},
		},
	})
}

func backsnap(ts *testscript.TestScript, want int, args []string) {
	file := ts.MkAbs("cluster.yaml")
	w, err := readWorld(file)
	ts.Check(err)
	in := ""
	if name := ts.Getenv("STDIN"); name != "" {
		in = ts.ReadFile(name)
	}
	code := command{args: args, world: w, getenv: ts.Getenv, in: in, dir: ts.MkAbs("."), out: ts.Stdout(), err: ts.Stderr()}.run(ts.Value(testKey{}).(*testing.T))
	ts.Check(w.write(file))
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// invoke runs one command line on world and returns what came of it.
func invoke(t *testing.T, w *world, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	getenv := func(name string) string {
		if v, ok := env[name]; ok || name != "NOW" && name != "TZ" {
			return v
		}
		return map[string]string{"NOW": "2026-11-22T01:15:00Z", "TZ": "UTC"}[name]
	}
	code = command{args: args, world: w, getenv: getenv, out: &out, err: &errs}.run(t)
	return code, out.String(), errs.String()
}
