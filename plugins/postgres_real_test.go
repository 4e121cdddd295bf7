package plugins_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// postgres is a real server whose data lie on a box's volume.
type postgres struct {
	t    *testing.T
	bin  string
	data string
	sock string
}

// newPostgres starts a server for b; password is its superuser's.
func newPostgres(t *testing.T, b *box, password string) *postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("no PostgreSQL server on this machine: apt-get install postgresql")
	}
	p := &postgres{t: t, bin: filepath.Dir(found[len(found)-1]), data: filepath.Join(b.volume, "pgdata"), sock: tempDir(t)}
	b.serve()
	owner := b.uid
	must(t, os.Chown(p.sock, owner, owner))
	pw := filepath.Join(p.sock, "pw")
	must(t, os.WriteFile(pw, []byte(cmp.Or(password, "unused")+"\n"), 0o644))
	auth := "trust"
	if password != "" {
		auth = "scram-sha-256"
	}
	p.as(owner, "initdb", "-D", p.data, "-U", "postgres", "-A", auth, "--pwfile="+pw, "-N", "--no-locale", "-E", "UTF8")
	must(t, os.Remove(pw))
	p.as(owner, "pg_ctl", "-D", p.data, "-w", "-l", filepath.Join(p.sock, "log"), "-o", "-c listen_addresses='' -k "+p.sock, "start")
	t.Cleanup(func() { p.as(owner, "pg_ctl", "-D", p.data, "-m", "immediate", "stop") })
	b.env = append(b.env, "PGDATA="+p.data)
	if password != "" {
		b.env = append(b.env, "POSTGRES_PASSWORD="+password)
	}
	return p
}

func (p *postgres) as(uid int, program string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Env = credential(uid), "/", append(os.Environ(), "LC_ALL=C", "PGHOST="+p.sock, "PGUSER=postgres")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestPostgresReal(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		p := newPostgres(t, b, "")
		_ = p
		pg := lookup(t, "postgres")
		out, serr := b.exec(pg.Probe(nonce))
		fmt.Printf("%s\n---\n%s\n", out, serr)
		fmt.Println(plugins.ReadProbe(nonce, out))
		t0 := time.Now()
		out, serr = b.exec(pg.Dump(nonce, plugins.DumpRequest{Run: run, Timeout: time.Minute, Barrier: true}))
		fmt.Println(time.Since(t0))
		fmt.Printf("%s\n---\n%s\n", out, serr)
		fmt.Println(plugins.ReadDump(nonce, out))
		o, _ := exec.Command("ls", "-la", b.volume).CombinedOutput()
		fmt.Println(string(o))
		o, _ = exec.Command("cat", b.volume+"/.backsnap-dump.json").CombinedOutput()
		fmt.Println(string(o))
	})
}
