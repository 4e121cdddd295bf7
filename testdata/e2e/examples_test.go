package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// examplesOf are the command lines among the examples of a command's help.
func examplesOf(t *testing.T, command string) []string {
	t.Helper()
	_, text, _ := strings.Cut(kit.Must(t, append(strings.Fields(command), "--help")...), "\nExamples:\n")
	for _, next := range []string{"\nAvailable Commands:\n", "\nOptions:\n", "\nUsage:\n"} {
		text, _, _ = strings.Cut(text, next)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "kubectl backsnap ") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		t.Fatalf("help of %s has no example", command)
	}
	return lines
}

// examplesOfReadme are those of the README, up to where it is about restores.
func examplesOfReadme(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, use, _ := strings.Cut(string(text), "\n## Use it\n")
	use, _, _ = strings.Cut(use, "\n### Get it back\n")
	var lines []string
	for line := range strings.Lines(use) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok && strings.HasPrefix(command, "kubectl backsnap ") {
			lines = append(lines, command)
		}
	}
	if len(lines) < 5 {
		t.Fatalf("the README shows %q only", lines)
	}
	return lines
}

// The runs that the examples name.
const (
	exampleEarlier = "20261121-011500-p9aa"
	exampleLater   = "20261122-011500-x7k2"
	exampleRestore = "20261121-091600-b2c1"
)

// TestExamplesDoWhatTheySay runs each example of the help, and of the README,
// of all commands but restore, whose examples the runbooks are. It is run as a
// person runs it whose context is the namespace shop, with a StatefulSet mysql
// labelled tier=data, main.env at hand and a second repository called new; only
// names that others could have too are other ones.
func TestExamplesDoWhatTheySay(t *testing.T) {
	kit.All(t)
	t.Parallel()
	namespace, backups, dir := kit.Namespace(t), kit.Random("e2e"), t.TempDir()
	db := kit.MariaDB(t, namespace, "mysql", kit.Options{})
	kit.Kubectl(t, "label", "pvc", db.Claim(), "-n", namespace, "tier="+namespace)
	kit.Own(t, backups)
	env := fmt.Sprintf("RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=hunter2\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n",
		kit.Random("bucket"), kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))
	if err := os.WriteFile(filepath.Join(dir, "main.env"), []byte(env), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(kit.Env(t, "KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Kubectl(t, "config", "set-context", "--current", "--namespace", namespace, "--kubeconfig", config)

	here := map[string]string{"-n shop": "-n " + namespace, "tier=data": "tier=" + namespace}
	done := map[string]bool{}
	run := func(lines []string, printed ...string) {
		t.Helper()
		for i := 0; i < len(printed); i += 2 {
			here[printed[i]] = printed[i+1]
		}
		for _, line := range lines {
			line, _, _ = strings.Cut(line, " #")
			line = strings.TrimSpace(line)
			for printed, real := range here {
				line = strings.ReplaceAll(line, printed, real)
			}
			if done[line] {
				continue
			}
			done[line] = true
			r := kit.Command(t, []string{"KUBECONFIG=" + config, "BACKSNAP_BACKUP_NAMESPACE=" + backups}, "", "sh", "-euc", `cd "$1" && eval "$2"`, "sh", dir, line)
			t.Logf("$ %s\n%s%s", line, r.Stdout, r.Stderr)
			if findings := r.Code == 7 && strings.HasPrefix(line, "kubectl backsnap status"); r.Code != 0 && !findings {
				t.Errorf("%s: exit %d\n%s", line, r.Code, r.Stderr)
			}
		}
	}
	in := []string{"-n", namespace, "--backup-namespace", backups}
	for _, command := range []string{"repo create", "repo init", "repo list", "snapshot", "repo", "repo check", "repo stats", "repo unlock"} {
		run(examplesOf(t, command))
	}
	taken := kit.Snapshot(t, 0, append(in, "--repository", "none")...)
	kit.AddRepository(t, backups, "new", "another password")
	run(examplesOf(t, "copy"), exampleEarlier, taken.Run, "vs/data-1", "vs/"+taken.Of(t, db.Claim()).Snapshot)
	run(append(examplesOf(t, "list"), examplesOf(t, "status")...))
	run(examplesOf(t, "describe"), exampleRestore, swap(t, 0, "Restored", append(in, "statefulset/mysql", "--in-place")...).Run)
	run(examplesOf(t, "logs"), exampleLater, taken.Run)
	run(examplesOfReadme(t))
	slow := kit.Snapshot(t, 0, append(in, "--repository", "main", "--wait=false", "--limit-upload", "1")...)
	run(examplesOf(t, "abort"), exampleLater, slow.Run)
	if left := kit.Names(t, backups, backupOnly) + kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
}
