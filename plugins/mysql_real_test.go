package plugins_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// mariadb is a real server.
type mariadb struct {
	t        testing.TB
	data     string // the volume
	socket   string
	password string
	uid      int
}

// newMariadb starts a fresh server; password is root's.
func newMariadb(t *testing.T, password string, options ...string) *mariadb {
	t.Helper()
	if testing.Short() {
		t.Skip("a real server takes its time")
	}
	server, err := exec.LookPath("mariadbd")
	if err != nil {
		t.Skip("no MariaDB server on this machine: apt-get install mariadb-server")
	}
	dir := tempDir(t)
	m := &mariadb{t: t, data: tempDir(t), socket: filepath.Join(dir, "mysqld.sock"), uid: os.Getuid()}
	if m.uid == 0 {
		m.uid = serverUID
	}
	must(t, os.Chown(dir, m.uid, m.uid))
	must(t, os.Chown(m.data, m.uid, m.uid))
	small := []string{"--no-defaults", "--datadir=" + m.data, "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"}
	install := exec.Command("mariadb-install-db", append(small, "--auth-root-authentication-method=normal", "--skip-test-db")...)
	install.SysProcAttr, install.Dir = credential(m.uid), "/"
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	cmd := exec.Command(server, append(small, append(options, "--socket="+m.socket, "--pid-file="+filepath.Join(dir, "pid"), "--skip-networking")...)...)
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = credential(m.uid), "/", log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	m.await(func() bool { return m.command("mariadb-admin", "ping").Run() == nil })
	m.passwd(password)
	return m
}

// await returns once ok holds.
func (m *mariadb) await(ok func() bool) {
	m.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	m.t.Fatal("that does not come")
}

// passwd gives root another password.
func (m *mariadb) passwd(password string) {
	m.t.Helper()
	m.sql("ALTER USER root@localhost IDENTIFIED BY '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'")
	m.password = password
}

func (m *mariadb) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, append([]string{"--no-defaults", "--socket=" + m.socket, "--user=root", "--default-character-set=utf8mb4"}, args...)...)
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+m.password)
	return cmd
}

// sql runs statements as root and returns what they give.
func (m *mariadb) sql(statements string) string {
	m.t.Helper()
	cmd := m.command("mariadb", "-NB")
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", statements, err, out)
	}
	return strings.TrimSpace(string(out))
}

// shells runs f in each shell, in a box that has the server.
func (m *mariadb) shells(t *testing.T, f func(t *testing.T, b *box)) {
	t.Helper()
	shells(t, func(t *testing.T, b *box) {
		whole := m.t
		defer func() { m.t = whole }()
		m.t, b.volume, b.uid = t, m.data, m.uid
		b.disk(1<<20, 1<<19, 65536, 60000)
		b.link("mariadb", "mariadb-dump")
		b.env = []string{"MYSQL_UNIX_PORT=" + m.socket, "MARIADB_ROOT_PASSWORD=" + m.password}
		f(t, b)
	})
}

// text is all that the server holds, as its own tool writes it.
func (m *mariadb) text(databases []string) string {
	m.t.Helper()
	cmd := m.command("mariadb-dump", append([]string{"--skip-dump-date", "--hex-blob", "--routines", "--events", "--triggers", "--databases", "--"}, databases...)...)
	out, err := cmd.Output()
	must(m.t, err)
	return string(out) + m.sql("SELECT user, host, is_role, authentication_string FROM mysql.user WHERE user NOT IN ('root', 'mariadb.sys') ORDER BY user, host; SHOW GRANTS FOR clerk")
}

// What was dumped is what a fresh server has after it was loaded.
func TestMariadbRealRoundTrip(t *testing.T) {
	m := newMariadb(t, hostile[0])
	names := []string{"shop", "it's \"b\\l\" $HOME %s *", " lead", "--force", "日本", "new\nline"}
	m.sql("CREATE USER clerk IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO clerk; CREATE ROLE seller; GRANT seller TO clerk")
	for _, name := range names {
		m.sql("CREATE DATABASE `" + name + "`; USE `" + name + "`;\n" + `CREATE TABLE t (i int PRIMARY KEY, b varbinary(16), s text CHARACTER SET utf8mb4);
			INSERT INTO t SELECT seq, UNHEX(MD5(seq)), REPEAT(CONCAT(CHAR(39), CHAR(92), CHAR(10), '💾'), seq % 7) FROM seq_1_to_2000;
			CREATE VIEW v AS SELECT COUNT(*) FROM t; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1;
			CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET NEW.i = NEW.i`)
		if !strings.ContainsAny(name, "'\"\\\n") { // mariadb-dump 10.11 cannot dump the events of such a database
			m.sql("USE `" + name + "`;\nCREATE EVENT e ON SCHEDULE EVERY 1 YEAR DO SELECT 1")
		}
	}
	must(t, os.Mkdir(filepath.Join(m.data, "lost+found"), 0o700))
	must(t, os.Chown(filepath.Join(m.data, "lost+found"), m.uid, m.uid))
	m.shells(t, func(t *testing.T, b *box) {
		seen := watchArguments(t, m.password)
		probe, err := b.probe("mysql")
		must(t, err)
		got, err := b.dump("mysql", run)
		must(t, err)
		same(t, "processes that show the password", seen(), nil)
		same(t, "databases", probe.Databases, len(names))
		same(t, "warnings", got.Warnings, nil)
		same(t, "barrier", got.Barrier, &plugins.Barrier{Forced: true, How: "innodb_log_checkpoint_now"})
		same(t, "parts", len(got.Parts), 2)
		r := newMariadb(t, "")
		for _, part := range got.Parts {
			r.sql(b.unpacked(part.Path))
		}
		// Its root has the other one's password now.
		r.password = m.password
		sameText(t, "databases", r.text(names), m.text(names))
	})
}

func TestMariadbRealPasswords(t *testing.T) {
	m := newMariadb(t, "first")
	m.shells(t, func(t *testing.T, b *box) {
		for _, password := range hostile {
			m.passwd(password)
			b.env = []string{b.env[0], "MARIADB_ROOT_PASSWORD=" + password}
			_, err := b.probe("mysql")
			must(t, err)
		}
		b.env = []string{b.env[0], "MARIADB_ROOT_PASSWORD=stale"}
		_, err := b.probe("mysql")
		same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.Login,
			Message: "no login as root: ERROR 1045 (28000): Access denied for user 'root'@'localhost' (using password: YES)"})
	})
}

func TestMariadbRealRoleAndOldTables(t *testing.T) {
	m := newMariadb(t, "x")
	m.sql("CREATE DATABASE shop; CREATE TABLE shop.old (i int) ENGINE MyISAM; SET GLOBAL read_only = ON")
	m.shells(t, func(t *testing.T, b *box) {
		got, err := b.probe("mysql")
		must(t, err)
		same(t, "role", got.Role, plugins.Replica)
		same(t, "warnings", got.Warnings, []string{"1 tables are not transactional: in the dump they are not of one moment"})
	})
}

// The server's own session ends with the client, be it waiting for a lock.
func TestMariadbRealClientGone(t *testing.T) {
	m := newMariadb(t, "x")
	m.sql("CREATE DATABASE shop; CREATE TABLE shop.t (i int)")
	holder := m.command("mariadb")
	stdin, err := holder.StdinPipe()
	must(t, err)
	must(t, holder.Start())
	t.Cleanup(func() { stdin.Close(); holder.Wait() })
	_, err = stdin.Write([]byte("LOCK TABLES shop.t WRITE;\n"))
	must(t, err)
	waiting := func() string {
		return m.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table metadata lock%'")
	}
	m.await(func() bool {
		return m.sql("SELECT COUNT(*) FROM information_schema.processlist WHERE db IS NULL AND command = 'Sleep' AND user = 'root'") != "0"
	})
	m.shells(t, func(t *testing.T, b *box) {
		s := b.start(lookup(t, "mysql").Dump(nonce, request(run)))
		m.await(func() bool { return waiting() == "1" })
		must(t, s.stdin.Close())
		out, _ := s.end()
		_, err := plugins.ReadDump(nonce, out)
		same(t, "kind", failure(t, b, err).Kind, plugins.LostClient)
		same(t, "the volume", b.dumps(), nil)
		m.await(func() bool { return waiting() == "0" })
	})
}

// A commit that the server has acknowledged without waiting for the disk is in
// a copy of the data directory taken once the barrier has passed.
func TestMariadbRealBarrier(t *testing.T) {
	m := newMariadb(t, "x", "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-log-at-timeout=2700")
	m.sql("CREATE DATABASE shop; CREATE TABLE shop.t (i int)")
	m.shells(t, func(t *testing.T, b *box) {
		flushed := func() string { return m.status("Innodb_lsn_flushed") }
		current := func() string { return m.status("Innodb_lsn_current") }
		m.sql("INSERT INTO shop.t VALUES (1)")
		if flushed() == current() {
			t.Log("the commit is on the disk before the barrier: this shows nothing")
		}
		position := current()
		out, _ := b.exec(lookup(t, "mysql").Barrier(nonce))
		got, err := plugins.ReadBarrier(nonce, out)
		must(t, err)
		same(t, "barrier", got, plugins.Barrier{Forced: true, How: "innodb_log_checkpoint_now"})
		same(t, "on the disk", m.sql("SELECT "+flushed()+" >= "+position), "1")
	})
}

func (m *mariadb) status(name string) string {
	m.t.Helper()
	_, value, _ := strings.Cut(m.sql("SHOW GLOBAL STATUS LIKE '"+name+"'"), "\t")
	return value
}
