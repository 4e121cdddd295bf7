// Package kit is what the tests on a real cluster share: namespaces, databases
// in pods, repositories, the plugin run as a user runs it, and a proxy before
// the API server that records and can stop the client.
//
// The cluster is that of `go run ./testdata/cluster env`.
package kit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Patience is how long anything on the cluster may take in a test.
const Patience = 3 * time.Minute

// Result is one finished command.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Command runs name with args and stdin to its end; any exit code will do.
func Command(t testing.TB, env []string, stdin, name string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*Patience) // restic alone waits ten minutes for a lock
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", name, err)
	}
	return Result{Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}
}

// Kubectl runs the real kubectl and returns its standard output. It must succeed.
func Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return Apply(t, "", args...)
}

// Apply is Kubectl with a standard input.
func Apply(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	r := Command(t, nil, stdin, "kubectl", args...)
	if r.Code != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Backsnap runs the plugin through the real kubectl.
func Backsnap(t testing.TB, args ...string) Result {
	t.Helper()
	return BacksnapWith(t, nil, args...)
}

// BacksnapWith is Backsnap with environment variables of its own.
func BacksnapWith(t testing.TB, env []string, args ...string) Result {
	t.Helper()
	r := Command(t, env, "", "kubectl", append([]string{"backsnap"}, args...)...)
	t.Logf("kubectl backsnap %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	return r
}

// Must is a Backsnap that has to end with exit code 0; its standard output is
// returned.
func Must(t testing.TB, args ...string) string {
	t.Helper()
	r := Backsnap(t, args...)
	if r.Code != 0 {
		t.Fatalf("kubectl backsnap %s: exit %d, want 0", strings.Join(args, " "), r.Code)
	}
	return r.Stdout
}

// Random is a short name that no other test has.
func Random(prefix string) string {
	var b [4]byte
	rand.Read(b[:])
	return prefix + "-" + hex.EncodeToString(b[:])
}

// Namespace makes a namespace that goes with the test.
func Namespace(t testing.TB) string {
	t.Helper()
	name := Random("e2e")
	Kubectl(t, "create", "namespace", name)
	Own(t, name)
	return name
}

// Own makes a namespace that the test has made go with it.
func Own(t testing.TB, name string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			dump(t, name)
		}
		cleanup(t, "delete", "namespace", name, "--wait=false", "--ignore-not-found")
	})
}

// dump logs what a failed test left.
func dump(t testing.TB, namespace string) {
	for _, args := range [][]string{
		{"get", "pod,pvc,volumesnapshot,lease", "-n", namespace, "-o", "wide"},
		{"get", "events", "-n", namespace},
		{"get", "volumesnapshotcontent"},
	} {
		out, _ := exec.Command("kubectl", args...).CombinedOutput()
		t.Logf("kubectl %s\n%s", strings.Join(args, " "), out)
	}
}

// Afterwards runs kubectl when the test has ended.
func Afterwards(t testing.TB, args ...string) {
	t.Helper()
	t.Cleanup(func() { cleanup(t, args...) })
}

// cleanup runs kubectl after the test's own context is gone.
func cleanup(t testing.TB, args ...string) {
	if out, err := exec.Command("kubectl", args...).CombinedOutput(); err != nil {
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Forget deletes what was applied, after the test's own context is gone.
func Forget(t testing.TB, manifest string) {
	cmd := exec.Command("kubectl", "delete", "--ignore-not-found", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Logf("kubectl delete: %v\n%s", err, out)
	}
}

// Release takes all finalizers off an object, after the test's own context is
// gone.
func Release(t testing.TB, kind, name, namespace string) {
	cleanup(t, "patch", kind, name, "-n", namespace, "--type", "merge", "-p", `{"metadata": {"finalizers": null}}`)
}

// Env is the value of one of the cluster's variables. The test fails without it.
func Env(t testing.TB, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: run these tests by make e2e, or evaluate what `go run ./testdata/cluster env` prints", name)
	}
	return value
}

// Until polls check until it returns "" or Patience is over: the test then
// fails with what check said last. A look mostly starts a kubectl, which keeps
// a core busy for a tenth of a second: what lasts is looked at once a second.
func Until(t testing.TB, what string, check func() string) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for pause := 200 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		said := check()
		if said == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for %s: %s", what, said)
		}
		if nap(t.Context(), pause); t.Context().Err() != nil {
			t.Fatalf("wait for %s: %v", what, t.Context().Err())
		}
	}
}

// Exec runs a shell script in a container and returns its standard output.
func Exec(t testing.TB, namespace, pod, script string) string {
	t.Helper()
	return Kubectl(t, "exec", "-n", namespace, pod, "--", "sh", "-c", script)
}

// Quote is s as one word of a POSIX shell.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// YAML is s as a double-quoted scalar.
func YAML(s string) string { return fmt.Sprintf("%q", s) }
