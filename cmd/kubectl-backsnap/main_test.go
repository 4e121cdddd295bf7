package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// runAs makes the test binary another program, so that processes can be
// tested without building one.
const runAs = "KUBECTL_BACKSNAP_RUN_AS"

func TestMain(m *testing.M) {
	switch os.Getenv(runAs) {
	case "kubectl-backsnap":
		main()
	case "stubborn": // one whose cleaning up never ends
		ctx := interruptible(context.Background())
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println(context.Cause(ctx))
		select {}
	default:
		os.Exit(m.Run())
	}
}

// program is this one, with an empty PATH, an empty home, and no kubeconfig.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=", "HOME=" + cmd.Dir, runAs + "=kubectl-backsnap"}
	return cmd
}

// run is what a program said and its exit code.
func run(t *testing.T, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// The plugin needs nothing around it: neither programs nor a home.
func TestNeedsNothing(t *testing.T) {
	for _, c := range []struct {
		args   string
		code   int
		stdout string // begins with
		stderr string
	}{
		{"version", 0, "kubectl backsnap v0.0.0-dev (go1.", ""},
		{"--help", 0, "Back up the databases and volumes of a cluster", ""},
		{"snapshot --help", 0, "Make restore points", ""},
		{"options", 0, "The following options can be passed to any command", ""},
		{"snapshot", 1, "", "error: no cluster is configured: name a kubeconfig with --kubeconfig or $KUBECONFIG\n"},
		{"list", 1, "", "error: no cluster is configured: name a kubeconfig with --kubeconfig or $KUBECONFIG\n"},
		{"repo list", 1, "", "error: no cluster is configured: name a kubeconfig with --kubeconfig or $KUBECONFIG\n"},
		{"version --server", 1, "", "error: no cluster is configured: name a kubeconfig with --kubeconfig or $KUBECONFIG\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, stdout, stderr := run(t, program(t, strings.Fields(c.args)...))
			if code != c.code || !strings.HasPrefix(strings.TrimSpace(stdout), c.stdout) || c.stdout == "" && stdout != "" {
				t.Errorf("exit %d, standard output %q", code, stdout)
			}
			if diff := cmp.Diff(c.stderr, stderr); diff != "" {
				t.Errorf("standard error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKubeconfigThatCannotBeRead(t *testing.T) {
	cmd := program(t, "list")
	file := filepath.Join(cmd.Dir, "config")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "KUBECONFIG="+file)
	code, stdout, stderr := run(t, cmd)
	if code != 1 || stdout != "" || !strings.HasPrefix(stderr, "error: read kubeconfig: ") || !strings.Contains(stderr, file) {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

// A version is said without a look at kubeconfig or cluster.
func TestVersionAsksNobody(t *testing.T) {
	cmd := program(t, "version")
	file := filepath.Join(cmd.Dir, "config")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "KUBECONFIG="+file)
	if code, stdout, stderr := run(t, cmd); code != 0 || stderr != "" {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

// A reader that has enough, as head has, ends nothing.
func TestOutputThatNobodyReads(t *testing.T) {
	for _, args := range [][]string{{"options"}, {"version", "-o", "json"}, {"snapshot", "--help"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		cmd := program(t, args...)
		var errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = writer, &errs
		err = cmd.Run()
		writer.Close()
		if err != nil || errs.Len() > 0 {
			t.Errorf("%v: %v, %q", args, err, errs.String())
		}
	}
}

// ^C ends a request that is never answered.
func TestInterrupt(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			asked := make(chan struct{}, 10)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				<-r.Context().Done()
			}))
			defer server.Close()
			cmd := program(t, "list", "-A", "--server="+server.URL)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-asked
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 {
				t.Errorf("exit %d", code)
			}
			if want := fmt.Sprintf("\n%s: cleaning up; once more ends at once\n", signal); !strings.HasPrefix(errs.String(), want) {
				t.Errorf("standard error %q does not begin with %q", errs.String(), want)
			}
			server.CloseClientConnections()
		})
	}
}

// The first ^C leaves time to clean up, the second does not.
func TestSecondInterrupt(t *testing.T) {
	cmd := program(t)
	cmd.Env = append(cmd.Env, runAs+"=stubborn")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for _, want := range []string{"ready", "signal interrupt"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q", lines.Text(), want)
		}
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := io.ReadAll(stdout); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d", code)
	}
}
