package plugins_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// mariadb is a real server whose data lie on a box's volume.
type mariadb struct {
	t        *testing.T
	b        *box
	data     string
	sock     string
	password string
}

// newMariadb starts a server for b; password is root's.
func newMariadb(t *testing.T, b *box, password string, options ...string) *mariadb {
	t.Helper()
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		t.Skip("no MariaDB server on this machine: apt-get install mariadb-server")
	}
	dir := tempDir(t)
	m := &mariadb{t: t, b: b, data: b.volume, sock: filepath.Join(dir, "mysqld.sock")}
	b.serve()
	must(t, os.Chown(dir, b.uid, b.uid))
	install := exec.Command("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir="+m.data)
	install.SysProcAttr, install.Dir = credential(b.uid), "/"
	out, err := install.CombinedOutput()
	if err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	args := append([]string{"--no-defaults", "--datadir=" + m.data, "--socket=" + m.sock, "--pid-file=" + filepath.Join(dir, "pid"),
		"--skip-networking", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"}, options...)
	cmd := exec.Command(server, args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = credential(b.uid), "/", log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	b.env = append(b.env, "MYSQL_UNIX_PORT="+m.sock)
	m.await()
	if password != "" {
		m.sql("ALTER USER root@localhost IDENTIFIED BY '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'")
		m.password = password
		b.env = append(b.env, "MARIADB_ROOT_PASSWORD="+password)
	}
	return m
}

// await returns once the server answers.
func (m *mariadb) await() {
	m.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if exec.Command("mariadb-admin", "--no-defaults", "--socket="+m.sock, "--user=root", "ping").Run() == nil {
			return
		}
	}
	m.t.Fatal("the MariaDB server does not answer")
}

// sql runs statements as root and returns what they print.
func (m *mariadb) sql(statements string) string {
	m.t.Helper()
	cmd := exec.Command("mariadb", "--no-defaults", "--socket="+m.sock, "--user=root", "--default-character-set=utf8mb4", "-NB")
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+m.password)
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", statements, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestMariadbReal(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		m := newMariadb(t, b, `p'w"$\ x#`)
		m.sql("create database shop; create table shop.t(i int primary key, b blob); insert into shop.t values (1,'x'),(2,0x00ff)")
		pg := lookup(t, "mysql")
		out, serr := b.exec(pg.Probe(nonce))
		fmt.Printf("%s\n---\n%s\n", out, serr)
		fmt.Println(plugins.ReadProbe(nonce, out))
		t0 := time.Now()
		out, serr = b.exec(pg.Dump(nonce, plugins.DumpRequest{Run: run, Timeout: time.Minute, Barrier: true}))
		fmt.Println(time.Since(t0))
		fmt.Printf("%s\n---\n%s\n", out, serr)
		fmt.Println(plugins.ReadDump(nonce, out))
		o, _ := exec.Command("sh", "-c", "ls -la "+b.volume+"/.back*; cat "+b.volume+"/.backsnap-dump.json; for i in "+b.volume+"/.b*.dump; do zcat $i || zstdcat $i; done").CombinedOutput()
		fmt.Println(string(o))
	})
}
