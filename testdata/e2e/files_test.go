package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// brought is what `restore --to-dir -o json` and `restore --dump-to -o json`
// print.
type brought struct {
	Run      string `json:"run"`
	ExitCode int    `json:"exitCode"`
	Code     string `json:"code"`
	Error    string `json:"error"`
	Items    []struct {
		Claim string `json:"pvc"`
		State string `json:"state"`
		Files int64  `json:"files"`
		Left  string `json:"left"`
		Code  string `json:"code"`
		Error string `json:"error"`
		Dumps []struct{ What, File, SHA256 string }
		From  struct {
			Copy string `json:"resticSnapshot"`
		} `json:"from"`
	} `json:"items"`
}

// bring runs `restore -o json` and wants that exit code, and nothing left behind.
func bring(t *testing.T, env []string, code int, args ...string) brought {
	t.Helper()
	r := kit.BacksnapWith(t, env, append([]string{"restore", "-o", "json"}, args...)...)
	var doc brought
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
		t.Fatalf("read result: %v", err)
	}
	if r.Code != code || doc.ExitCode != code {
		t.Fatalf("exit %d, document %+v, want exit %d", r.Code, doc, code)
	}
	for _, item := range doc.Items {
		if item.Left != "" {
			t.Errorf("%s left behind: %s", item.Claim, item.Left)
		}
	}
	return doc
}

// swept wants no trace of runs that have brought files here.
func swept(t *testing.T, namespace, backupNamespace string, runs ...brought) {
	t.Helper()
	for _, run := range runs {
		noTrace(t, backupNamespace, restored{Run: run.Run})
	}
	if left := kit.Names(t, namespace, "job,lease"); left != "" {
		t.Errorf("left in %s: %s", namespace, left)
	}
}

// localSum is the SHA-256 of a file of this machine.
func localSum(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// TestDumpsComeHere: the dumps of a set, from its snapshot and from its copy,
// are those that were proven, and a server takes one. A stream that is cut is an
// error, and no file.
func TestDumpsComeHere(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	postgres := kit.Postgres(t, namespace, "postgres", kit.Options{})
	postgres.SQL(t, `create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i`)
	item := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace).Of(t, postgres.Claim())
	in := []string{"statefulset/postgres", "-n", namespace, "--backup-namespace", repository.Namespace}
	dir := t.TempDir()

	var runs []brought
	for _, from := range []string{"snapshot", "copy"} {
		doc := bring(t, nil, 0, append(in, "--from", from, "--dump-to", filepath.Join(dir, from)+"/")...)
		runs = append(runs, doc)
		if n := len(doc.Items[0].Dumps); n != len(item.Dump.Parts) || n < 3 || (doc.Items[0].From.Copy != "") != (from == "copy") {
			t.Fatalf("from the %s: %+v, want %d dumps", from, doc, len(item.Dump.Parts))
		}
		for i, d := range doc.Items[0].Dumps {
			want := item.Dump.Parts[i]
			if d.What != want.What || d.SHA256 != want.SHA256 || localSum(t, d.File) != want.SHA256 {
				t.Errorf("from the %s: %+v holds %s, want %+v", from, d, localSum(t, d.File), want)
			}
		}
	}
	if names := entries(t, filepath.Join(dir, "copy")); !slices.Equal(names, []string{"globals.sql", "postgres.dump", "shop.dump"}) {
		t.Errorf("dumps are called %q", names)
	}
	archive, err := os.ReadFile(filepath.Join(dir, "copy", "shop.dump"))
	if err != nil {
		t.Fatal(err)
	}
	postgres.SQL(t, `drop table quiet`)
	kit.Apply(t, string(archive), "exec", "-i", "-n", namespace, postgres.Pod(), "--", "pg_restore", "-U", "postgres", "-d", "shop", "--exit-on-error")
	if rows := postgres.SQL(t, `select count(*) from quiet`); rows != "20000" {
		t.Errorf("%s rows of what came, want 20000", rows)
	}

	// One of several into one file; it is not overwritten.
	one := filepath.Join(dir, "one")
	if doc := bring(t, nil, 2, append(in, "--dump-to", one)...); !strings.Contains(doc.Error, "there are 3 dumps") {
		t.Errorf("several dumps into one file: %+v", doc)
	}
	runs = append(runs, bring(t, nil, 0, append(in, "--dump-to", one, "--dump", "shop")...))
	if localSum(t, one) != localSum(t, filepath.Join(dir, "copy", "shop.dump")) {
		t.Error("the one dump is another")
	}
	if doc := bring(t, nil, 4, append(in, "--dump-to", one, "--dump", "shop")...); doc.Code != "BS062" {
		t.Errorf("into a file that is there: %+v", doc)
	}

	// The second exec is that of the dump: the first one looks what there is.
	proxy := kit.NewBadStream(t, kit.Cut, 2, 10000)
	cut := bring(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, 1, append(in, "--dump-to", filepath.Join(dir, "cut"), "--dump", "shop")...)
	if proxy.Did() == "" || cut.Items[0].Code != "BS064" {
		t.Errorf("%q: %+v", proxy.Did(), cut)
	}
	runs = append(runs, cut)
	if names := entries(t, dir); !slices.Equal(names, []string{"copy", "one", "snapshot"}) {
		t.Errorf("left on this machine: %q", names)
	}
	swept(t, namespace, repository.Namespace, runs...)
}

// entries are the names in a folder of this machine.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

// TestFilesComeHere: files of every kind, from a snapshot and from a copy, some
// and all, are on this machine what they were; a path that is not there is an
// error; and some of a copy's files alone are in a new claim.
func TestFilesComeHere(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Pod(t, namespace, "app", "data")
	tree := treeProgram(t)
	putTree(t, tree, namespace, "app")
	want := contents(kit.Exec(t, namespace, "app", "/tmp/tree make /data && cd /data && mkdir some && head -c 3000000 /dev/urandom >some/noise && ln -s /etc some/out && sync && /tmp/tree list /data"))
	kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	in := []string{"data", "-n", namespace, "--backup-namespace", repository.Namespace}
	dir := t.TempDir()
	lister := filepath.Join(t.TempDir(), "tree")
	if err := os.WriteFile(lister, tree, 0o755); err != nil {
		t.Fatal(err)
	}
	list := func(dir string) []string { return contents(kit.Command(t, nil, "", lister, "list", dir).Stdout) }

	var runs []brought
	odd := []string{"deep", "new\nline", "-rf", "*", "not utf-8 \xff\xfe", "Grüße 世界", "linked", "linked too", "sparse", "some/noise", "unreadable"}
	for _, from := range []string{"snapshot", "copy"} {
		all := filepath.Join(dir, "all of "+from)
		runs = append(runs, bring(t, nil, 0, append(in, "--from", from, "--to-dir", all)...))
		if got := list(all); !slices.Equal(got, want) {
			t.Errorf("all from the %s:\n%s\nwant\n%s", from, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		some := filepath.Join(dir, "some of "+from)
		args := append(in, "--from", from, "--to-dir", some)
		for _, name := range odd {
			args = append(args, "--file", name)
		}
		runs = append(runs, bring(t, nil, 0, args...))
		onTheWay := func(line string) bool { return strings.HasPrefix(line, "some\t") }
		if got, want := slices.DeleteFunc(list(some), onTheWay), below(want, odd); !slices.Equal(got, want) {
			t.Errorf("some from the %s:\n%s\nwant\n%s", from, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		wrong := map[string][2]string{"copy": {"deep/nowhere", "there is no "}, "snapshot": {"some/out/passwd", "symbolic link"}}[from]
		doc := bring(t, nil, 1, append(in, "--from", from, "--to-dir", filepath.Join(dir, "never"), "--file", "plain,"+wrong[0])...)
		if i := doc.Items[0]; i.Code != "BS004" || !strings.Contains(i.Error, wrong[0]) || !strings.Contains(i.Error, wrong[1]) || strings.Contains(i.Error, "plain") {
			t.Errorf("a path that cannot be brought: %+v", doc)
		}
		runs = append(runs, doc)
	}
	if doc := bring(t, nil, 4, append(in, "--to-dir", filepath.Join(dir, "some of copy"), "--file", "plain,deep")...); doc.Code != "BS062" {
		t.Errorf("onto files that are there: %+v", doc)
	}
	if names := entries(t, dir); len(names) != 4 {
		t.Errorf("on this machine are %q", names)
	}

	claim := restore(t, 0, append(in, "--file", "deep,linked,linked too,*", "--file", "new\nline", "--to-pvc", "some")...)
	kit.Pod(t, namespace, "look", "some")
	putTree(t, tree, namespace, "look")
	got := contents(kit.Exec(t, namespace, "look", "/tmp/tree list /some"))
	if want := below(want, []string{"deep", "linked", "linked too", "*", "new\nline"}); !slices.Equal(got, want) {
		t.Errorf("some in a claim:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if doc := restore(t, 1, append(in, "--file", "nowhere", "--to-pvc", "never")...); doc.Items[0].Code != "BS004" || !strings.Contains(doc.Items[0].Error, `"nowhere"`) {
		t.Errorf("a path that is not in the copy: %+v", doc)
	}
	if doc := restore(t, 4, append(in, "--file", "deep", "--from", "snapshot")...); doc.Code != "BS024" {
		t.Errorf("some of a snapshot in a claim: %+v", doc)
	}
	noTrace(t, repository.Namespace, claim)
	swept(t, namespace, repository.Namespace, runs...)
}

// contents are the lines of a tree's list without what another user's disk may
// have otherwise: the root, the file system's own folder, and of each file
// owner, mode and attributes.
func contents(list string) []string {
	var lines []string
	for line := range strings.Lines(list) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, `"`), `" `)
		fields := strings.Fields(rest)
		if name == "." || name == "lost+found" || len(fields) < 4 {
			continue
		}
		kind, time := fields[0][:len(fields[0])-4], fields[2][:strings.Index(fields[2], ".")]
		what, _, _ := strings.Cut(strings.Join(fields[3:], " "), " user.")
		what, _, _ = strings.Cut(what, " security.")
		what, _, _ = strings.Cut(what, " system.")
		if kind == "12" { // only the file itself has a time
			time = ""
		}
		lines = append(lines, name+"\t"+kind+" "+time+" "+what)
	}
	return lines
}

// below are the lines of what those paths name, and of what is below it.
func below(lines, paths []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		return !slices.ContainsFunc(paths, func(path string) bool {
			quoted := strings.Trim(strconv.Quote(path), `"`)
			return strings.HasPrefix(line, quoted+"\t") || strings.HasPrefix(line, quoted+"/")
		})
	})
}
