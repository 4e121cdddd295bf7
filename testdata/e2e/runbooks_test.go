package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// runbook is one chapter of docs/runbooks.md: its manifests by file name, and
// its commands.
type runbook struct {
	files    map[string]string
	commands []string
}

// ofShop is where a command or manifest of the runbooks names the namespace.
var ofShop = regexp.MustCompile(`(-n |namespace/|namespace |ns=|prod-us/)shop\b`)

// readRunbooks are the chapters by title, for a namespace of that name.
func readRunbooks(t *testing.T, namespace string) map[string]runbook {
	t.Helper()
	text, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	chapters := map[string]runbook{}
	for _, chapter := range strings.Split(string(text), "\n## ")[1:] {
		title, rest, _ := strings.Cut(chapter, "\n")
		book := runbook{files: map[string]string{}}
		for i, block := range strings.Split(rest, "\n```") {
			kind, body, _ := strings.Cut(block, "\n")
			name, isFile := strings.CutPrefix(strings.SplitN(body, "\n", 2)[0], "# ")
			switch {
			case i%2 == 0: // what is between two blocks
			case kind == "yaml" && isFile:
				book.files[name] = body
			case kind == "console":
				for line := range strings.Lines(body) {
					command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
					if !ok {
						t.Fatalf("%s: %q is no command", title, line)
					}
					book.commands = append(book.commands, ofShop.ReplaceAllString(command, "${1}"+namespace))
				}
			default:
				t.Fatalf("%s: a block of %q that is neither manifest nor commands", title, kind)
			}
		}
		chapters[title] = book
	}
	return chapters
}

// run runs the chapter's commands one after the other as a person would who
// has main.env and the manifests at hand.
func (b runbook) run(t *testing.T, dir, backupNamespace string) {
	t.Helper()
	for name, text := range b.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range b.commands {
		r := kit.Command(t, []string{"BACKSNAP_BACKUP_NAMESPACE=" + backupNamespace}, "", "sh", "-euc", `cd "$1" && eval "$2"`, "sh", dir, command)
		t.Logf("$ %s\n%s%s", command, r.Stdout, r.Stderr)
		if r.Code != 0 {
			t.Fatalf("%s: exit %d", command, r.Code)
		}
	}
}

// TestRunbooks runs every command of docs/runbooks.md: something is lost, and
// with the chapter's commands it is back, row for row.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	namespace, backups, dir := kit.Namespace(t), kit.Random("e2e"), t.TempDir()
	chapters := readRunbooks(t, namespace)
	kit.Own(t, backups)
	env := fmt.Sprintf("RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=hunter2\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n",
		kit.Random("bucket"), kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY"))
	if err := os.WriteFile(filepath.Join(dir, "main.env"), []byte(env), 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Must(t, "repo", "create", "main", "--backup-namespace", backups, "--env-file", filepath.Join(dir, "main.env"), "--cluster-name", "prod-us", "--init")
	db := kit.MariaDB(t, namespace, "mysql", kit.Options{})
	db.SQL(t, "create table orders (id int primary key, what char(32)) as select seq as id, md5(seq) as what from seq_1_to_20000")
	const orders = "set session group_concat_max_len = 100000000; select count(*), md5(group_concat(id, what order by id)) from orders"
	want := db.SQL(t, orders)
	var manifests strings.Builder
	for _, object := range []string{"secret/mysql", "statefulset/mysql"} {
		manifests.WriteString("---\n" + kit.Kubectl(t, "apply", "view-last-applied", object, "-n", namespace))
	}
	if err := os.WriteFile(filepath.Join(dir, "app.yaml"), []byte(manifests.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", backups)

	loseNamespace := func(t *testing.T) {
		kit.Kubectl(t, "delete", "namespace", namespace, "--timeout", kit.Patience.String())
	}
	for _, day := range []struct {
		title string
		lose  func(*testing.T)
	}{
		{"A wrong DELETE", func(t *testing.T) { db.SQL(t, "delete from orders where id > 100") }},
		{"A lost volume", func(t *testing.T) {
			kit.Kubectl(t, "delete", "pvc", db.Claim(), "-n", namespace, "--wait=false")
			db.SQL(t, "drop table orders")
		}},
		{"A lost namespace", loseNamespace},
		{"A lost cluster", func(t *testing.T) {
			loseNamespace(t)
			backups = kit.Random("e2e") // where nothing is known of a repository
			kit.Own(t, backups)
		}},
		{"Nothing but kubectl and restic", loseNamespace},
	} {
		book, known := chapters[day.title]
		if !known || len(book.commands) == 0 {
			t.Fatalf("the runbooks have no commands for %q", day.title)
		}
		delete(chapters, day.title)
		day.lose(t)
		book.run(t, dir, backups)
		if got := db.SQL(t, orders); got != want {
			t.Fatalf("%s: the table is %q, want %q", day.title, got, want)
		}
	}
	for title, book := range chapters {
		t.Errorf("no test runs the %d commands of %q", len(book.commands), title)
	}
}
