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

// runbook is one section of docs/runbooks.md: its manifests by file name, and
// its commands.
type runbook struct {
	files    map[string]string
	commands []string
}

// ofShop is where a command or manifest of the runbooks names the namespace.
var ofShop = regexp.MustCompile(`(-n |namespace/|namespace |ns=|prod-us/)shop\b`)

// headings are those of chapters and of the sections in them.
var headings = regexp.MustCompile(`(?m)^###? (.*)\n`)

// readRunbooks are the sections of docs/FILE that have commands, by title, for
// a namespace of that name.
func readRunbooks(t *testing.T, file, namespace string) map[string]runbook {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../docs", file))
	if err != nil {
		t.Fatal(err)
	}
	text, sections := string(data), map[string]runbook{}
	at := headings.FindAllStringSubmatchIndex(text, -1)
	for i, heading := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		title := text[heading[2]:heading[3]]
		if book := readSection(t, title, text[heading[1]:end], namespace); len(book.commands) > 0 {
			sections[title] = book
		}
	}
	return sections
}

// readSection reads the blocks of one section.
func readSection(t *testing.T, title, text, namespace string) runbook {
	t.Helper()
	book := runbook{files: map[string]string{}}
	for i, block := range strings.Split("\n"+text, "\n```") {
		kind, body, _ := strings.Cut(block, "\n")
		name, isFile := strings.CutPrefix(strings.SplitN(body, "\n", 2)[0], "# ")
		switch {
		case i%2 == 0 || kind == "text": // what is between two blocks; what a command prints
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
	return book
}

// shop is the app of the runbooks, and a person's machine that has main.env
// and app.yaml on it.
type shop struct {
	namespace, backups, dir string
	db                      kit.Database
	orders                  string // what the table holds
}

const sumOfOrders = "set session group_concat_max_len = 100000000; select count(*), md5(group_concat(id, what order by id)) from orders"

// newShop starts the app, and snapshots and copies it.
func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{namespace: kit.Namespace(t), backups: kit.Random("e2e"), dir: t.TempDir()}
	kit.Own(t, s.backups)
	s.write(t, "main.env", fmt.Sprintf("RESTIC_REPOSITORY=s3:http://s3.backup-storage.svc:9000/%s\nRESTIC_PASSWORD=hunter2\nAWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n",
		kit.Random("bucket"), kit.Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY"), kit.Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY")))
	kit.Must(t, "repo", "create", "main", "--backup-namespace", s.backups, "--env-file", filepath.Join(s.dir, "main.env"), "--cluster-name", "prod-us", "--init")
	s.db = kit.MariaDB(t, s.namespace, "mysql", kit.Options{})
	s.db.SQL(t, "create table orders (id int primary key, what char(32)) as select seq as id, md5(seq) as what from seq_1_to_20000")
	s.orders = s.db.SQL(t, sumOfOrders)
	var manifests strings.Builder
	for _, object := range []string{"secret/mysql", "statefulset/mysql"} {
		manifests.WriteString("---\n" + kit.Kubectl(t, "apply", "view-last-applied", object, "-n", s.namespace))
	}
	s.write(t, "app.yaml", manifests.String())
	kit.Snapshot(t, 0, "-n", s.namespace, "--backup-namespace", s.backups)
	return s
}

func (s *shop) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// follow runs the commands of a section one after the other.
func (s *shop) follow(t *testing.T, book runbook) {
	t.Helper()
	for name, text := range book.files {
		s.write(t, name, text)
	}
	for _, command := range book.commands {
		typed(t, []string{"BACKSNAP_BACKUP_NAMESPACE=" + s.backups}, s.dir, command)
	}
}

// typed runs a command as a person types it, in that folder. It must succeed.
func typed(t *testing.T, env []string, dir, command string) {
	t.Helper()
	r := kit.Command(t, env, "", "sh", "-euc", `cd "$1" && eval "$2"`, "sh", dir, command)
	t.Logf("$ %s\n%s%s", command, r.Stdout, r.Stderr)
	if r.Code != 0 {
		t.Fatalf("%s: exit %d", command, r.Code)
	}
}

// loss is what has to happen before a section of the runbooks is needed.
type loss struct {
	title string
	lose  func(*testing.T, *shop)
}

func (s *shop) loseRows(t *testing.T) { s.db.SQL(t, "delete from orders where id > 100") }
func (s *shop) loseNamespace(t *testing.T) {
	kit.Kubectl(t, "delete", "namespace", s.namespace, "--timeout", kit.Patience.String())
}

// losses are those that leave the cluster, and those that leave S3 alone.
var losses = map[string][]loss{
	"data": {
		{"Only the rows that are missing", func(t *testing.T, s *shop) { s.loseRows(t) }},
		{"The whole database as it was", func(t *testing.T, s *shop) { s.db.SQL(t, "drop table orders") }},
		{"From the files, where there is no dump", func(t *testing.T, s *shop) { s.loseRows(t) }},
		{"The claim is there, and what is in it is bad", func(t *testing.T, s *shop) { s.db.SQL(t, "update orders set what = 'wrong'") }},
		{"The claim is gone", func(t *testing.T, s *shop) {
			kit.Kubectl(t, "delete", "pvc", s.db.Claim(), "-n", s.namespace, "--wait=false")
			s.db.SQL(t, "drop table orders")
		}},
		{"The claim and its volume have to stay", func(t *testing.T, s *shop) { s.db.SQL(t, "update orders set what = 'wrong'") }},
		{"The dump, from the copy", func(t *testing.T, s *shop) {
			s.db.SQL(t, "drop table orders")
			kit.Exec(t, s.namespace, s.db.Pod(), "rm "+s.db.Mount()+"/.backsnap*")
			kit.Kubectl(t, "delete", "volumesnapshot", "--all", "-n", s.namespace)
		}},
	},
	"places": {
		{"A lost namespace", func(t *testing.T, s *shop) { s.loseNamespace(t) }},
		{"A lost cluster", func(t *testing.T, s *shop) {
			s.loseNamespace(t)
			s.backups = kit.Random("e2e") // where nothing is known of a repository
			kit.Own(t, s.backups)
		}},
		{"Nothing but kubectl and restic", func(t *testing.T, s *shop) { s.loseNamespace(t) }},
		{"The dump, if the server does not start on the files", func(t *testing.T, s *shop) { s.loseNamespace(t) }},
	},
}

// TestRunbooks runs every command of docs/runbooks.md: something is lost, and
// with the commands of its section it is back, row for row.
func TestRunbooks(t *testing.T) {
	t.Parallel()
	unread := readRunbooks(t, "runbooks.md", "shop")
	for what, of := range losses {
		for _, l := range of {
			if _, there := unread[l.title]; !there {
				t.Errorf("the runbooks have no commands for %q", l.title)
			}
			delete(unread, l.title)
		}
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newShop(t)
			sections := readRunbooks(t, "runbooks.md", s.namespace)
			for _, l := range of {
				l.lose(t, s)
				s.follow(t, sections[l.title])
				if got := s.db.SQL(t, sumOfOrders); got != s.orders {
					t.Fatalf("%s: the table is %q, want %q", l.title, got, s.orders)
				}
			}
			if left := kit.Kubectl(t, "get", "pv", "-l", "backsnap.sh/role,backsnap.sh/namespace="+s.namespace, "-o", "name"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
	for title, book := range unread {
		t.Errorf("no test runs the %d commands of %q", len(book.commands), title)
	}
}
