package plugins_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// What the shared library promises to every plugin, seen through PostgreSQL's.

func TestReplacedAndLeftDumpsAreRemoved(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.older()
		for _, name := range []string{".backsnap-dead-1.dump", ".backsnap-dead-2.dump.part", ".backsnap-dump.json.part", "pgdata/.backsnap-dead-1.dump", "pgdata/.backsnap-dump.json"} {
			must(t, os.WriteFile(filepath.Join(b.volume, name), []byte("x"), 0o600))
		}
		must(t, os.WriteFile(filepath.Join(b.volume, ".backsnap-notes"), []byte("a user's own"), 0o600))
		_, err := b.dump("postgres", "new")
		must(t, err)
		same(t, "the volume", b.dumps(), []string{".backsnap-dump.json", ".backsnap-new-1.dump", ".backsnap-new-2.dump", ".backsnap-notes"})
		same(t, "the data directory", len(b.files("pgdata")), 2)
	})
}

// A dump that lies in a snapshot can be removed, and only that one. The next
// dump does without it.
func TestRemove(t *testing.T) {
	remove := func(t *testing.T, b *box, run, dir string) (int, error) {
		t.Helper()
		out, stderr := b.exec(lookup(t, "postgres").Remove(nonce, run, dir))
		t.Logf("%s%s", out, stderr)
		return plugins.ReadRemoval(nonce, out)
	}
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		dump, err := b.dump("postgres", "new")
		must(t, err)
		for _, name := range []string{".backsnap-newer-1.dump", ".backsnap-notes"} {
			must(t, os.WriteFile(filepath.Join(b.volume, name), []byte("x"), 0o600))
		}
		n, err := remove(t, b, "new", dump.Dir)
		must(t, err)
		same(t, "files removed", n, len(dump.Parts))
		same(t, "the volume", b.dumps(), []string{".backsnap-newer-1.dump", ".backsnap-notes"})
		n, err = remove(t, b, "new", dump.Dir)
		must(t, err)
		same(t, "files removed the second time", n, 0)
		_, err = b.dump("postgres", "next")
		must(t, err)
		same(t, "the volume after the next dump", b.dumps(), []string{".backsnap-dump.json", ".backsnap-next-1.dump", ".backsnap-next-2.dump", ".backsnap-notes"})
		before := b.files("")
		if _, err := remove(t, b, "new", dump.Dir); err != nil {
			t.Error(err)
		}
		same(t, "the dump of another run", b.files(""), before)
	})
}

// The old dump stands until the list names the new one, and what dead runs left
// does not stand in its way.
func TestDumpThatFailsRemovesOnlyLeftovers(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.older()
		before := b.files("")
		must(t, os.WriteFile(filepath.Join(b.volume, ".backsnap-dead-1.dump"), []byte("x"), 0o600))
		b.stub("pg_restore", "exit 1\n")
		if _, err := b.dump("postgres", "new"); err == nil {
			t.Error("no error")
		}
		same(t, "the volume", b.files(""), before)
	})
}

// A list that a broken disk has cut says nothing of what may go.
func TestBrokenListKeepsEveryDump(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.older()
		must(t, os.WriteFile(filepath.Join(b.volume, ".backsnap-dump.json"), []byte(`{"version":1,"run":"old","parts":[{"what`), 0o600))
		before := b.files("")
		b.stub("pg_restore", "exit 1\n")
		if _, err := b.dump("postgres", "new"); err == nil {
			t.Error("no error")
		}
		same(t, "the volume", b.files(""), before)
	})
}

// A run that is tried again does not write over its own good dump.
func TestSameRunTwice(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		_, err := b.dump("postgres", run)
		must(t, err)
		before := b.files("")
		work, err := os.ReadFile(filepath.Join(b.bin, "pg_restore"))
		must(t, err)
		b.stub("pg_restore", "exit 1\n")
		if _, err = b.dump("postgres", run); err == nil {
			t.Error("no error")
		}
		same(t, "the volume after a failure", b.files(""), before)
		must(t, os.WriteFile(filepath.Join(b.bin, "pg_restore"), work, 0o755))
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "the volume", b.dumps(), []string{".backsnap-" + run + "-1001.dump", ".backsnap-" + run + "-1002.dump", ".backsnap-dump.json"})
		same(t, "first part", got.Parts[0].Path, ".backsnap-"+run+"-1001.dump")
		got, err = b.dump("postgres", run)
		must(t, err)
		same(t, "the volume at last", b.dumps(), []string{".backsnap-" + run + "-1.dump", ".backsnap-" + run + "-2.dump", ".backsnap-dump.json"})
		same(t, "first part at last", got.Parts[0].Path, ".backsnap-"+run+"-1.dump")
	})
}

// What the last dump took says what the next one needs, as the databases have
// grown since.
func TestEstimateLearns(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.stub("pg_dump", pgVersion+"echo archive of x\nexec head -c 10240000 /dev/zero\n")
		_, err := b.dump("postgres", run)
		must(t, err)
		got, err := b.probe("postgres")
		must(t, err)
		same(t, "estimate", got.EstimateBytes, (10002*13/10)<<10)
		must(t, os.WriteFile(filepath.Join(b.dir, "facts"), []byte(strings.Replace(pgFacts("primary", "on", "shop"), " 8192\n", " 11392\n", 1)), 0o644))
		got, err = b.probe("postgres")
		must(t, err)
		same(t, "estimate of twice as much", got.EstimateBytes, (2*10002*13/10)<<10)
		must(t, os.Remove(filepath.Join(b.volume, ".backsnap-dump.json")))
		got, err = b.probe("postgres")
		must(t, err)
		same(t, "estimate without a dump", got.EstimateBytes, (1024+64+(11392-7168)/2)<<10)
	})
}

// The end of standard input is the end of the dump, whatever the tool makes of
// a signal.
func TestClientGone(t *testing.T) {
	for _, c := range []struct{ name, tool string }{
		{"the tool obeys", "exec sleep 1000\n"},
		{"the tool starts another", "while :; do sleep 1000; done\n"},
		{"the tool does not listen", "trap '' TERM HUP INT\nwhile :; do sleep 1000; done\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // a tool that does not listen is waited for
			shells(t, func(t *testing.T, b *box) {
				t.Parallel()
				fakePostgres(b, "shop")
				b.older()
				before := b.files("")
				started := b.signal("started")
				b.stub("pg_dump", pgVersion+"echo half\necho $$ >$DIR/pid\necho >$DIR/started\n"+c.tool)
				s := b.start(lookup(t, "postgres").Dump(nonce, request("new")))
				started()
				must(t, s.stdin.Close())
				out, _ := s.end()
				_, err := plugins.ReadDump(nonce, out)
				same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.LostClient, Message: "the client is gone"})
				same(t, "the volume", b.files(""), before)
				same(t, "the tool runs", running(strings.TrimSpace(b.content("pid"))), false)
			})
		})
	}
}

// running reports whether there is such a process that has not ended: one that
// only waits for its parent has.
func running(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// A client that goes before it has sent everything leaves nothing either.
func TestClientGoneBeforeTheValues(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		c, err := lookup(t, "postgres").Dump(nonce, request("new"))
		must(t, err)
		for _, cut := range []int{3, 100, len(c.Stdin) / 2, len(c.Stdin) - len("\n0123456789abcdef0123456789abcdef\n"+run+"\n120\nyes\n"), len(c.Stdin) - len("120\nyes\n"), len(c.Stdin) - 1} {
			c := plugins.Command{Argv: c.Argv, Stdin: c.Stdin[:cut]}
			s := b.start(c, nil)
			s.stdin.Close()
			out, _ := s.end()
			if _, err := plugins.ReadDump(nonce, out); err == nil {
				t.Errorf("a dump of the first %d bytes is read", cut)
			}
			same(t, "the volume", b.dumps(), nil)
		}
	})
}

func TestTimeout(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.stub("pg_dump", pgVersion+"sleep 1000\n")
		out, _ := b.exec(lookup(t, "postgres").Dump(nonce, plugins.DumpRequest{Run: run, Timeout: time.Second}))
		_, err := plugins.ReadDump(nonce, out)
		same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.TimedOut, Message: "it took more than 1 s"})
		same(t, "the volume", b.dumps(), nil)
	})
}

// While a tool is silent the script gives signs of life: 15 seconds, by a sleep
// that does not.
func TestTicks(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.stub("sleep", "exec "+filepath.Join(b.bin, "true")+"\n")
		b.link("true")
		b.signal("ticked")
		b.stub("pg_dump", pgVersion+"echo archive of x\nread x <$DIR/ticked\n")
		s := b.start(lookup(t, "postgres").Dump(nonce, plugins.DumpRequest{Run: run, Timeout: 24 * time.Hour}))
		for !strings.Contains(s.stderr.String(), "TICK") {
			time.Sleep(time.Millisecond)
		}
		must(t, os.WriteFile(filepath.Join(b.dir, "ticked"), []byte("\n"), 0))
		out, stderr := s.end()
		_, err := plugins.ReadDump(nonce, out)
		must(t, err)
		line, _, _ := strings.Cut(stderr, "\n")
		same(t, "a tick", plugins.Tick(nonce, line), true)
	})
}

// The first process of a container is a server, which reaps no orphans: what
// they leave stays for ever.
func TestNoOrphans(t *testing.T) {
	const subreaper = 36 // PR_SET_CHILD_SUBREAPER
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, subreaper, 1, 0); errno != 0 {
		t.Skip("no subreaper: ", errno)
	}
	defer syscall.RawSyscall(syscall.SYS_PRCTL, subreaper, 0, 0)
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		_, err := b.dump("postgres", run)
		must(t, err)
		same(t, "orphans of a dump", children(t), nil)
		b.stub("psql", "exit 1\n")
		_, err = b.dump("postgres", run)
		if err == nil {
			t.Error("no error")
		}
		same(t, "orphans of a failure", children(t), nil)
		fake := newBox(t, b.shell)
		fakePostgres(fake, "shop")
		started := fake.signal("started")
		fake.stub("pg_dump", pgVersion+"echo >$DIR/started\nexec sleep 1000\n")
		s := fake.start(lookup(t, "postgres").Dump(nonce, request(run)))
		started()
		must(t, s.stdin.Close())
		s.end()
		same(t, "orphans of a client that is gone", children(t), nil)
	})
}

// children are the names of the processes whose parent is this test.
func children(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has gone meanwhile
		}
		name, rest, _ := strings.Cut(string(text), ") ")
		var state string
		var parent int
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == os.Getpid() {
			names = append(names, name)
		}
	}
	return names
}

func TestFilesBelongToTheServer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		must(t, os.Chown(filepath.Join(b.volume, "pgdata"), 1234, 5678))
		_, err := b.dump("postgres", run)
		must(t, err)
		for _, name := range b.dumps() {
			info, err := os.Stat(filepath.Join(b.volume, name))
			must(t, err)
			owner := info.Sys().(*syscall.Stat_t)
			same(t, name, []any{owner.Uid, owner.Gid, info.Mode()}, []any{uint32(1234), uint32(5678), os.FileMode(0o600)})
		}
	})
}

// The dump lies as near to the top of the volume as may be written.
func TestPlace(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		b.serve()
		fakePostgres(b, "shop")
		data := filepath.Join(b.volume, "pgdata")
		must(t, os.Chown(data, b.uid, b.uid))
		must(t, os.Chmod(b.volume, 0o555))
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "directory", got.Dir, data)
		same(t, "mount", got.Mount, b.volume)
		same(t, "path", got.Parts[0].Path, "pgdata/.backsnap-"+run+"-1.dump")
		must(t, os.Chmod(data, 0o555))
		_, err = b.dump("postgres", run)
		same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.Permission, Message: "no file can be written in VOLUME/pgdata by uid " + itoa(b.uid)})
		must(t, os.Chmod(data, 0o755))
	})
}

// A data directory may be reached by a link.
func TestLinkedDataDirectory(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		link := filepath.Join(b.dir, "link")
		must(t, os.Symlink(filepath.Join(b.volume, "pgdata"), link))
		b.env = []string{"PGDATA=" + link}
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "directory", got.Dir, b.volume)
	})
}

func TestSumsByWhatTheImageHas(t *testing.T) {
	for _, tool := range []string{"sha256sum", "openssl", "busybox"} {
		t.Run(tool, func(t *testing.T) {
			b := newBox(t, "dash")
			fakePostgres(b, "shop")
			b.remove("sha256sum")
			b.link(tool)
			if _, err := os.Stat(filepath.Join(b.bin, tool)); err != nil {
				t.Skipf("no %s on this machine", tool)
			}
			got, err := b.dump("postgres", run)
			must(t, err)
			same(t, "part", got.Parts[1], part("database shop", ".backsnap-"+run+"-2.dump", "custom", archive("dbname='shop'")))
		})
	}
}

// Oracle's images have bash for sh. What differs from the others is how it takes
// signals.
func TestBash(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash on this machine: apt-get install bash")
	}
	b := newBox(t, "bash")
	fakeMysql(b, mysql8, "shop")
	b.older()
	before := b.files("")
	started := b.signal("started")
	b.stub("mysqldump", myVersion+"echo half\necho >$DIR/started\nexec sleep 1000\n")
	s := b.start(lookup(t, "mysql").Dump(nonce, request("new")))
	started()
	must(t, s.stdin.Close())
	out, _ := s.end()
	_, err := plugins.ReadDump(nonce, out)
	same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.LostClient, Message: "the client is gone"})
	b.stub("mysqldump", myVersion+"kill -s KILL $$\n")
	_, err = b.dump("mysql", "new")
	same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: mysqldump ended with status 137"})
	b.remove("mysql")
	_, err = b.dump("mysql", "new")
	same(t, "error", failure(t, b, err).Kind, plugins.NoTool)
	same(t, "the volume", b.files(""), before)
}
