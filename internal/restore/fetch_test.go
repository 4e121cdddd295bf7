package restore_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// volume is a folder of this machine that stands for a volume: the script that
// hands out its files runs here.
type volume string

// exec is Exec of a cluster whose pods have the volume at /data.
func (v volume) exec(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	temp, err := os.MkdirTemp("", "backsnap-serve")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + temp, "BACKSNAP_DATA=" + string(v)}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	go func() { io.Copy(in, stdin); in.Close() }()
	return cmd.Run()
}

// answer is what a pod says instead of what the script would.
type answer struct {
	out   []byte
	reply string // lines, without what every line begins with
	err   error
}

// answers is Exec of a pod that says this, by mode.
func answers(all map[string]answer) func(context.Context, []string, io.Reader, io.Writer, io.Writer) error {
	return func(_ context.Context, _ []string, stdin io.Reader, stdout, stderr io.Writer) error {
		in := bufio.NewReader(stdin)
		n := 0
		if _, err := fmt.Fscanf(in, "%d\n", &n); err != nil {
			return err
		}
		if _, err := in.Discard(n); err != nil {
			return err
		}
		nonce, _ := in.ReadString('\n')
		mode, _ := in.ReadString('\n')
		a := all[strings.TrimSpace(mode)]
		if _, err := stdout.Write(a.out); err != nil {
			return err
		}
		for line := range strings.Lines(a.reply) {
			fmt.Fprintf(stderr, "backsnap %s %s", strings.TrimSpace(nonce), line)
		}
		return a.err
	}
}

// sent is the reply to what was sent whole.
func sent(out []byte) string {
	sum := sha256.Sum256(out)
	return fmt.Sprintf("end exit=0 bytes=%d sha256=%s\n", len(out), hex.EncodeToString(sum[:]))
}

// here brings files of claim data to dir.
func here(dir string, paths ...string) restore.Request {
	r := request()
	r.Local, r.Paths = &restore.Local{Dir: dir}, paths
	return r
}

// fetch brings what r wants.
func fetch(t *testing.T, c *cluster, r restore.Request, out io.Writer) (restore.Brought, error) {
	t.Helper()
	f := restore.Fetching{Cluster: c, Follow: c.follow, Reach: c.reach, Now: now, Out: out}
	brought, err := f.Fetch(t.Context(), plan(t, c, r), &watcher{})
	if left := c.left(); len(left) > 0 || brought[0].Left != nil {
		t.Errorf("left in the cluster: %q, %v, after:\n%s", left, brought[0].Left, strings.Join(c.diary, "\n"))
	}
	return brought[0], err
}

// plant makes files of every kind in a new folder.
func plant(t *testing.T) volume {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	well(t, os.MkdirAll(in("deep/er"), 0o755))
	for _, name := range []string{"plain", "new\nline", "-rf", "*", "not utf-8 \xff", "with, comma", "deep/er/file", "deep/unreadable"} {
		well(t, os.WriteFile(in(name), []byte("this is "+name), 0o640))
	}
	well(t, os.WriteFile(in("sparse"), append(make([]byte, 1<<20), "end"...), 0o644))
	well(t, os.Truncate(in("sparse"), 3<<20))
	well(t, os.Symlink("/etc", in("out")))
	well(t, os.Link(in("plain"), in("deep/again")))
	well(t, syscall.Mkfifo(in("pipe"), 0o640))
	well(t, os.Chmod(in("deep/er"), 0o555))
	t.Cleanup(func() { os.Chmod(in("deep/er"), 0o755) })
	when := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, name := range []string{"plain", "deep/er/file", "deep/er", "deep", "pipe"} {
		well(t, os.Chtimes(in(name), when, when))
	}
	return volume(dir)
}

func well(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree is what lies below dir, by path: kind, mode, time, content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	well(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x links %d", sha256.Sum256(content), info.Sys().(*syscall.Stat_t).Nlink)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " to " + to
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			text += " " + info.ModTime().UTC().Format(time.DateTime)
		}
		name, err := filepath.Rel(dir, path)
		found[name] = text
		return err
	}))
	return found
}

// TestFetchFiles brings all of a volume, from either source, and some of it.
func TestFetchFiles(t *testing.T) {
	v := plant(t)
	for way, want := range map[restore.Way][]string{
		restore.Clone: {
			"try claim shop/" + name, "make claim shop/" + name + " from data-20261122-010000-aaaa", "await shop/" + name,
			"start mover shop/" + name, "reach shop/" + name, "exec", "exec", "remove mover shop/" + name, "remove claim shop/" + name + ", uid of " + name,
		},
		restore.Fill: {
			"make claim backsnap/" + name + " empty", "start mover backsnap/" + name, "follow backsnap/" + name + " with " + name, "remove mover backsnap/" + name,
			"start mover backsnap/" + name, "reach backsnap/" + name, "exec", "exec", "remove mover backsnap/" + name, "remove claim backsnap/" + name + ", uid of " + name,
		},
	} {
		t.Run(string(way), func(t *testing.T) {
			c := newCluster(copied(shot("01:00", "data"), "main"))
			c.exec = v.exec
			dir := filepath.Join(t.TempDir(), "not", "there yet")
			r := here(dir)
			r.From = by(way).From
			b, err := fetch(t, c, r, nil)
			well(t, err)
			if diff := cmp.Diff(want, c.diary); diff != "" {
				t.Errorf("done (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tree(t, string(v)), tree(t, dir)); diff != "" {
				t.Errorf("brought (-want +got):\n%s", diff)
			}
			is(t, b.Files, 10)
			for i, job := range c.jobs {
				if served := i == len(c.jobs)-1; served && job.Secret != "" || job.Writes == served {
					t.Errorf("job %d of %d: %+v", i, len(c.jobs), job)
				}
			}
			if stat, err := os.Stat(filepath.Join(dir, "sparse")); err != nil || stat.Sys().(*syscall.Stat_t).Blocks*512 > 1<<20 {
				t.Errorf("the sparse file is not sparse: %+v", stat)
			}
		})
	}
}

func TestFetchSomeFiles(t *testing.T) {
	c := newCluster(shot("01:00", "data"))
	v := plant(t)
	c.exec = v.exec
	dir := t.TempDir()
	well(t, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600))
	paths, err := restore.ParsePaths([]string{"deep/er,/new\nline", `with\, comma`, "not utf-8 \xff", "./out", "deep/er/file", "-rf,*"})
	well(t, err)
	b, err := fetch(t, c, here(dir, paths...), nil)
	well(t, err)
	is(t, b.Files, 6)
	got := tree(t, dir)
	want := tree(t, string(v))
	for name := range want {
		if !slices.Contains([]string{"deep/er", "deep/er/file", "new\nline", "with, comma", "not utf-8 \xff", "out", "-rf", "*"}, name) {
			delete(want, name)
		}
	}
	delete(got, "mine")
	delete(got, "deep") // is only on the way
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("brought (-want +got):\n%s", diff)
	}

	// What is there is never overwritten, and that is known before anything is made.
	c.diary = nil
	_, err = restore.MakePlan(t.Context(), c, here(dir, "plain", "deep"))
	check(t, err, []string{`deep" is there already`})
	_, err = restore.MakePlan(t.Context(), c, here(dir))
	check(t, err, []string{"is there already"})
	is(t, catalog.CodeOf(err), catalog.CodeExists)
	if len(c.diary) > 0 {
		t.Errorf("done: %q", c.diary)
	}
}

// TestFetchOfWhatIsNotThere names what is missing, and leaves nothing here.
func TestFetchOfWhatIsNotThere(t *testing.T) {
	for path, fails := range map[string]string{"gone": `there is no "gone" in it`, "out/passwd": `the way to "out/passwd" leads through a symbolic link`} {
		c := newCluster(shot("01:00", "data"))
		c.exec = plant(t).exec
		dir := filepath.Join(t.TempDir(), "dir")
		_, err := fetch(t, c, here(dir, "plain", path), nil)
		check(t, err, []string{fails, "files of shop/data not brought to " + dir, "nothing of them is there"})
		is(t, catalog.CodeOf(err), catalog.CodeNotFound)
		gone(t, dir)
	}
	c := newCluster(copied(shot("01:00", "data"), "main"))
	c.end.Text = "backsnap step=restore exit=0\nerrors=0\nmissing path=1\ncounted files=0 bytes=0\n"
	r := here(filepath.Join(t.TempDir(), "dir"), "gone")
	r.From.Kind = restore.Copy
	_, err := fetch(t, c, r, nil)
	check(t, err, []string{`there is no "gone" in it`})
	is(t, catalog.CodeOf(err), catalog.CodeNotFound)
}

// gone wants nothing to be at dir.
func gone(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v, with %q", dir, err, tree(t, dir))
	}
}

// entry is one of an archive.
type entry struct {
	kind       byte
	name, link string
	content    string
}

// archive holds entries.
func archive(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		well(t, w.WriteHeader(&tar.Header{Typeflag: e.kind, Name: e.name, Linkname: e.link, Size: int64(len(e.content)), Mode: 0o755, Format: tar.FormatGNU}))
		_, err := io.WriteString(w, e.content)
		well(t, err)
	}
	well(t, w.Close())
	return b.Bytes()
}

// TestHostileArchives: whatever an archive holds, nothing is written outside
// the folder, and nothing stays in it.
func TestHostileArchives(t *testing.T) {
	file := entry{kind: tar.TypeReg, name: "./plain", content: "x"}
	folder := entry{kind: tar.TypeDir, name: "./dir/"}
	outside := filepath.Join(t.TempDir(), "outside")
	well(t, os.Mkdir(outside, 0o755))
	for _, c := range []struct {
		name    string
		paths   []string
		entries []entry
		fails   string
	}{
		{name: "a name that goes up", entries: []entry{{kind: tar.TypeReg, name: "../evil", content: "x"}}, fails: `it has an entry "../evil"`},
		{name: "one that goes up from a folder", entries: []entry{folder, {kind: tar.TypeReg, name: "./dir/../../evil", content: "x"}}, fails: `it has an entry "./dir/../../evil"`},
		{name: "one that goes up and comes back", entries: []entry{folder, {kind: tar.TypeReg, name: "./dir/../evil", content: "x"}}, fails: `it has an entry`},
		{name: "an absolute name", entries: []entry{{kind: tar.TypeReg, name: outside + "/evil", content: "x"}}, fails: `it has an entry "/`},
		{
			name: "a file through a link that leads out", entries: []entry{{kind: tar.TypeSymlink, name: "./way", link: outside}, {kind: tar.TypeReg, name: "./way/evil", content: "x"}},
			fails: `its entry "./way/evil" is in no folder of it`,
		},
		{
			name: "a file through a link that leads to a folder", entries: []entry{folder, {kind: tar.TypeSymlink, name: "./way", link: "dir"}, {kind: tar.TypeReg, name: "./way/evil", content: "x"}},
			fails: `its entry "./way/evil" is in no folder of it`,
		},
		{
			name: "a file in place of a link", entries: []entry{{kind: tar.TypeSymlink, name: "./way", link: outside + "/evil"}, {kind: tar.TypeReg, name: "./way", content: "x"}},
			fails: "file exists",
		},
		{name: "a hard link that leads out", entries: []entry{{kind: tar.TypeLink, name: "./evil", link: "../../outside/evil"}}, fails: "it is a link to"},
		{name: "a hard link to an absolute name", entries: []entry{{kind: tar.TypeLink, name: "./evil", link: "/etc/passwd"}}, fails: "it is a link to"},
		{name: "a hard link to what is not there", entries: []entry{{kind: tar.TypeLink, name: "./evil", link: "./gone"}}, fails: "no such file"},
		{name: "a hard link through a link", entries: []entry{{kind: tar.TypeSymlink, name: "./way", link: "/etc"}, {kind: tar.TypeLink, name: "./evil", link: "./way/passwd"}}, fails: `unpack "evil"`},
		{name: "a hard link to a folder", entries: []entry{folder, {kind: tar.TypeLink, name: "./evil", link: "./dir"}}, fails: "it is a link to the folder"},
		{name: "a file twice", entries: []entry{file, file}, fails: "file exists"},
		{name: "a folder twice", entries: []entry{folder, folder}, fails: "file exists"},
		{name: "a file that is no folder's", entries: []entry{{kind: tar.TypeReg, name: "./gone/file", content: "x"}}, fails: "is in no folder of it"},
		{name: "what nobody has asked for", paths: []string{"plain"}, entries: []entry{file, {kind: tar.TypeReg, name: "./plainer", content: "x"}}, fails: `it has an entry "./plainer"`},
		{name: "a folder above what was asked for", paths: []string{"dir/file"}, entries: []entry{folder}, fails: `it has an entry "./dir/"`},
		{name: "a kind that nobody knows", entries: []entry{{kind: 'Z', name: "./evil"}}, fails: `its kind is 'Z'`},
		{name: "more than there is", entries: []entry{file, {kind: tar.TypeReg, name: "./more", content: "x"}}, fails: "2 files have come, there are 1"},
		{name: "less than there is", fails: "0 files have come, there are 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			world := newCluster(shot("01:00", "data"))
			out := archive(t, c.entries...)
			world.exec = answers(map[string]answer{"survey": {reply: "end exit=0 files=1 bytes=1\n"}, "tar": {out: out, reply: sent(out)}})
			dir := filepath.Join(t.TempDir(), "dir")
			_, err := fetch(t, world, here(dir, c.paths...), nil)
			check(t, err, []string{c.fails})
			gone(t, dir)
			if found := tree(t, outside); len(found) > 0 {
				t.Errorf("written outside: %q", found)
			}
		})
	}
}

// TestStreams: what has not come through whole is not there.
func TestStreams(t *testing.T) {
	out := archive(t, entry{kind: tar.TypeReg, name: "./plain", content: strings.Repeat("x", 5000)})
	broken := errors.New("the connection is gone")
	survey := answer{reply: "end exit=0 files=1 bytes=5000\n"}
	for name, c := range map[string]struct {
		survey, tar answer
		code        catalog.Code
		fails       string
	}{
		"all well":                      {survey: survey, tar: answer{out: out, reply: sent(out)}},
		"an error after the last word":  {survey: survey, tar: answer{out: out, reply: sent(out), err: broken}},
		"zeros between and behind":      {survey: survey, tar: answer{out: slices.Concat(make([]byte, 512), out, make([]byte, 10240)), reply: sent(slices.Concat(make([]byte, 512), out, make([]byte, 10240)))}},
		"cut without an error":          {survey: survey, tar: answer{out: out[:3000]}, code: catalog.CodeStream, fails: "has not said how it ended"},
		"cut with an error":             {survey: survey, tar: answer{out: out[:3000], err: broken}, code: catalog.CodeStream, fails: "the connection is gone"},
		"cut behind the archive":        {survey: survey, tar: answer{out: out}, code: catalog.CodeStream, fails: "has not said how it ended"},
		"fewer bytes than were sent":    {survey: survey, tar: answer{out: out[:6144], reply: sent(out)}, code: catalog.CodeStream, fails: "6144 bytes have come, "},
		"other bytes than were sent":    {survey: survey, tar: answer{out: bytes.Replace(out, []byte("xxx"), []byte("xyx"), 1), reply: sent(out)}, code: catalog.CodeStream, fails: "its SHA-256 is"},
		"in the middle of a block":      {survey: survey, tar: answer{out: append(slices.Clone(out), 1, 2, 3), reply: sent(append(slices.Clone(out), 1, 2, 3))}, code: catalog.CodeStorage, fails: "ends in the middle of a block"},
		"tar fails":                     {survey: survey, tar: answer{out: out, reply: strings.Replace(sent(out), "exit=0", "exit=1", 1)}, code: catalog.CodeStorage, fails: "exit 1: it does not say why"},
		"the survey is cut":             {survey: answer{err: broken}, code: catalog.CodeStream, fails: "the connection is gone"},
		"a right is missing":            {survey: answer{err: &catalog.Failure{Code: catalog.CodeForbidden, Message: "not you"}}, code: catalog.CodeForbidden, fails: "not you"},
		"a reply that is none of ours":  {survey: answer{reply: "end exit=0 evil=1\n"}, code: catalog.CodeStream, fails: "evil"},
		"indexes of paths that are not": {survey: answer{reply: "missing 7\nend exit=4\n"}, code: catalog.CodeNotFound, fails: "there is no"},
	} {
		t.Run(name, func(t *testing.T) {
			world := newCluster(shot("01:00", "data"))
			world.exec = answers(map[string]answer{"survey": c.survey, "tar": c.tar})
			dir := filepath.Join(t.TempDir(), "dir")
			_, err := fetch(t, world, here(dir), nil)
			if c.fails == "" {
				well(t, err)
				is(t, len(tree(t, dir)), 1)
				return
			}
			check(t, err, []string{c.fails})
			is(t, catalog.CodeOf(err), c.code)
			gone(t, dir)
		})
	}
}

// A file that is too large for an archive comes by itself.
func TestLargeFiles(t *testing.T) {
	out := archive(t, entry{kind: tar.TypeDir, name: "./"}, entry{kind: tar.TypeDir, name: "./dir/"}, entry{kind: tar.TypeReg, name: "./dir/small", content: "x"})
	second := archive(t, entry{kind: tar.TypeReg, name: "./other", content: "yz"})
	out = append(out, second...)
	large := strings.Repeat("large", 1000)
	world := newCluster(shot("01:00", "data"))
	world.exec = answers(map[string]answer{
		"survey": {reply: "large " + hex.EncodeToString([]byte("./dir/big\x00")) + "\nend exit=0 files=3 bytes=5003 folders=2\n"},
		"tar":    {out: out, reply: sent(out)}, "raw": {out: []byte(large), reply: sent([]byte(large))},
	})
	dir := t.TempDir()
	b, err := fetch(t, world, here(dir), nil)
	well(t, err)
	text, err := os.ReadFile(filepath.Join(dir, "dir", "big"))
	well(t, err)
	is(t, string(text), large)
	is(t, len(tree(t, dir)), 4)
	if !slices.Contains(b.Notes, "1 files over 8 GiB have the mode and time of new files") {
		t.Errorf("notes %q", b.Notes)
	}
}

// TestFetchIsInterrupted at each step, and leaves nothing.
func TestFetchIsInterrupted(t *testing.T) {
	for _, way := range []restore.Way{restore.Clone, restore.Fill} {
		for step := range 12 {
			c := newCluster(copied(shot("01:00", "data"), "main"))
			c.exec = plant(t).exec
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			seen := 0
			c.on = func(string) {
				if seen++; seen == step+1 {
					cancel(&catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal"})
				}
			}
			dir := filepath.Join(t.TempDir(), "dir")
			r := here(dir)
			r.From = by(way).From
			p := plan(t, c, r)
			f := restore.Fetching{Cluster: c, Follow: c.follow, Reach: c.reach, Now: now}
			brought, err := f.Fetch(ctx, p, &watcher{})
			if left := c.left(); len(left) > 0 || brought[0].Left != nil {
				t.Errorf("%s, step %d: left %q, %v, after:\n%s", way, step, left, brought[0].Left, strings.Join(c.diary, "\n"))
			}
			if err != nil {
				is(t, catalog.CodeOf(err), catalog.CodeInterrupted)
				gone(t, dir)
			}
		}
	}
}

// dumped is a snapshot with the dumps that lie in v.
func dumped(t *testing.T, v volume, claim string) catalog.Snapshot {
	t.Helper()
	s := shot("01:00", claim)
	for what, text := range map[string]string{"globals": "-- sql", "database shop": "PGDMP shop", "database a/b": "\x1f\x8b gzip"} {
		path := ".backsnap-" + hex.EncodeToString([]byte(what)) + ".dump"
		well(t, os.WriteFile(filepath.Join(string(v), path), []byte(text), 0o600))
		sum := sha256.Sum256([]byte(text))
		s.Record.Dumps = append(s.Record.Dumps, catalog.Dump{What: what, Path: path, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:])})
	}
	return s
}

// to wants dumps in that file.
func to(file, dump string) restore.Request {
	r := request()
	r.Local = &restore.Local{File: file, Dump: dump}
	return r
}

func TestFetchDumps(t *testing.T) {
	v := volume(t.TempDir())
	c := newCluster(dumped(t, v, "data"))
	c.exec = v.exec
	dir := t.TempDir()
	_, err := fetch(t, c, to(dir+"/all/", ""), nil)
	well(t, err)
	_, err = fetch(t, c, to(dir+"/one", "shop"), nil)
	well(t, err)
	var out bytes.Buffer
	_, err = fetch(t, c, to("-", "globals"), &out)
	well(t, err)
	is(t, out.String(), "-- sql")
	var got []string
	for name := range tree(t, dir) {
		got = append(got, name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"all", "all/a%2Fb.sql.gz", "all/globals.sql", "all/shop.dump", "one"}, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if stat, err := os.Stat(dir + "/one"); err != nil || stat.Mode() != 0o600 {
		t.Errorf("mode %v, error %v", stat.Mode(), err)
	}

	for _, wrong := range []struct {
		request restore.Request
		code    catalog.Code
		fails   []string
	}{
		{to(dir+"/two", ""), catalog.CodeUsage, []string{"there are 3 dumps", "--dump NAME", "--dump-to " + dir + "/two/"}},
		{to("-", ""), catalog.CodeUsage, []string{"there are 3 dumps", "--dump-to DIR/"}},
		{to(dir+"/two", "shops"), catalog.CodeNoDump, []string{`has no dump "shops"`, "database shop"}},
		{to(dir+"/one", "shop"), catalog.CodeExists, []string{"is there already"}},
		{to(dir+"/all/", "shop"), catalog.CodeExists, []string{"shop.dump"}},
	} {
		_, err := restore.MakePlan(t.Context(), c, wrong.request)
		check(t, err, wrong.fails)
		is(t, catalog.CodeOf(err), wrong.code)
	}
	_, err = restore.MakePlan(t.Context(), newCluster(shot("01:00", "data")), to(dir+"/two", ""))
	check(t, err, []string{"has no dump", "--to-dir"})

	// A dump that is not the one on record does not stay.
	for _, change := range []func(*catalog.Dump){func(d *catalog.Dump) { d.Bytes++ }, func(d *catalog.Dump) { d.SHA256 = strings.Repeat("0", 64) }} {
		other := dumped(t, v, "data")
		for i := range other.Record.Dumps {
			change(&other.Record.Dumps[i])
		}
		c := newCluster(other)
		c.exec = v.exec
		_, err := fetch(t, c, to(dir+"/two", "shop"), nil)
		check(t, err, []string{"its record says"})
		is(t, catalog.CodeOf(err), catalog.CodeDiffers)
		gone(t, dir+"/two")
	}
}

// Files of several claims have a folder each.
func TestFoldersOfClaims(t *testing.T) {
	c := newCluster(shot("01:00", "binlog", "binlog", "data"), shot("01:00", "data", "binlog", "data"))
	c.exec = plant(t).exec
	dir := t.TempDir()
	r := here(dir, "plain")
	r.Target = restore.Target{Namespace: "shop", Kind: "statefulset", Name: "mysql"}
	_, err := fetch(t, c, r, nil)
	well(t, err)
	for _, claim := range []string{"binlog", "data"} {
		if _, err := os.Stat(filepath.Join(dir, claim, "plain")); err != nil {
			t.Error(err)
		}
	}
}

// TestSelecting is where files come from that are to be in a claim.
func TestSelecting(t *testing.T) {
	r := request()
	r.Paths = []string{"a"}
	is(t, plan(t, newCluster(copied(shot("01:00", "data"), "main")), r).Volumes[0].Way, restore.Fill)
	r.From.Kind = restore.Snapshot
	_, err := restore.MakePlan(t.Context(), newCluster(shot("01:00", "data")), r)
	check(t, err, []string{"holds all of it", "--from copy", "--to-dir"})
	r.From.Kind, r.Paths = restore.Auto, []string{"\xff"}
	_, err = restore.MakePlan(t.Context(), newCluster(shot("01:00", "data")), r)
	check(t, err, []string{"its name is no text"})
	block := shot("01:00", "data")
	block.Record.Claim.VolumeMode = "Block"
	_, err = restore.MakePlan(t.Context(), newCluster(block), here(t.TempDir()))
	check(t, err, []string{"a block volume, which has no files"})

	if diff := cmp.Diff([]string{
		"get volumesnapshots.snapshot.storage.k8s.io in shop",
		"create persistentvolumeclaims in shop", "get persistentvolumeclaims in shop", "watch persistentvolumeclaims in shop", "delete persistentvolumeclaims in shop",
		"create jobs.batch in shop", "watch jobs.batch in shop", "delete jobs.batch in shop", "list pods in shop", "watch pods in shop", "create pods/exec in shop",
		"create leases.coordination.k8s.io in shop", "get leases.coordination.k8s.io in shop", "update leases.coordination.k8s.io in shop", "delete leases.coordination.k8s.io in shop",
	}, texts(plan(t, newCluster(shot("01:00", "data")), here(t.TempDir())).Rights())); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}

func TestParsePaths(t *testing.T) {
	for _, c := range []struct {
		lists, want []string
		fails       string
	}{
		{lists: nil},
		{lists: []string{"b,a", "/c/", "./d//e"}, want: []string{"a", "b", "c", "d/e"}},
		{lists: []string{"a,a/b,ab,a"}, want: []string{"a", "ab"}},
		{lists: []string{`a\,b,c\d`}, want: []string{"a,b", `c\d`}},
		{lists: []string{"new\nline", " spaces "}, want: []string{" spaces ", "new\nline"}},
		{lists: []string{"a,"}, fails: "a path is empty"},
		{lists: []string{""}, fails: "a path is empty"},
		{lists: []string{"/"}, fails: "leave --file away"},
		{lists: []string{"."}, fails: "leave --file away"},
		{lists: []string{"../a"}, fails: "no .. in it"},
		{lists: []string{"a/../b"}, fails: "no .. in it"},
	} {
		got, err := restore.ParsePaths(c.lists)
		if c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) || c.fails == "" && err != nil {
			t.Errorf("%q: error %v, want %q", c.lists, err, c.fails)
		}
		if diff := cmp.Diff(c.want, got); diff != "" && c.fails == "" {
			t.Errorf("%q (-want +got):\n%s", c.lists, diff)
		}
	}
}
