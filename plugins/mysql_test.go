package plugins_test

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// myServer is what a stub server says of itself.
type myServer struct {
	version   string
	variables string // lines of SHOW GLOBAL VARIABLES
	old       int    // tables that are not transactional, in each database
	following bool
}

var (
	mysql8    = myServer{version: "8.4.3", variables: "gtid_executed\\t0a-1:1-5,\\\\n0b-2:1-7\\n"}
	mariadb11 = myServer{version: "11.4.2-MariaDB-ubu2404", variables: "gtid_binlog_pos\\t0-1-9\\n"}
)

// fakeMysql gives b a server that seems to run, with its data on the volume's
// top, and Oracle's programs as stubs that work: mysql and mysqldump.
func fakeMysql(b *box, s myServer, databases ...string) {
	b.t.Helper()
	socket := filepath.Join(b.dir, "s.sock")
	l, err := net.Listen("unix", socket)
	must(b.t, err)
	b.t.Cleanup(func() { l.Close() })
	b.env = []string{"MYSQL_UNIX_PORT=" + socket, "MYSQL_ROOT_PASSWORD=secret"}
	var facts strings.Builder
	for _, name := range databases {
		fmt.Fprintf(&facts, "bs db %s 2048 %d\\n", hex.EncodeToString([]byte(name)), s.old)
	}
	fmt.Fprintf(&facts, "version\\t%s\\ndatadir\\t%s/\\nread_only\\tOFF\\nskip_networking\\tOFF\\n%s", s.version, b.volume, s.variables)
	status := ""
	if s.following {
		status = "echo Waiting"
	}
	b.stub("mysql", fmt.Sprintf(`cat "${1#*=}" >"$DIR/options"
printf '%%s\n' "$@" >>"$DIR/arguments"
for last; do :; done
case $last in
*information_schema*) printf '%s' ;;
*"ALL SLAVES"*) case %s in *MariaDB*) ;; *) exit 1 ;; esac; %s ;;
*"REPLICA STATUS"*) %s ;;
*"SLAVE STATUS"*) exit 1 ;;
"SELECT 'SHOW CREATE USER'"*) echo "SHOW CREATE USER 'a'@'%%';" ;;
"SELECT 'SHOW GRANTS FOR'"*) echo "SHOW GRANTS FOR 'a'@'%%';" ;;
--raw) statements=$(cat)
	case $statements in
	*"SHOW CREATE USER 'a'@"*) echo 'CREATE USER a@b' ;;
	*"SHOW GRANTS FOR 'a'@"*) echo 'GRANT x TO a@b'; echo 'GRANT y TO a@b' ;;
	esac ;;
*) printf '%%s\n' "$last" >>"$DIR/barrier" ;;
esac
`, facts.String(), s.version, status, status))
	b.stub("mysqldump", myVersion+`printf '%s|' "$@" >"$DIR/dumped"
cat "${1#*=}" >"$DIR/options"
echo "-- a dump"
shift 9
printf '%s\n' "$@"
echo "-- Dump completed on 2026-11-22  1:15:00"
`)
}

// myVersion is how a stub of Oracle's mysqldump begins: it knows no --system,
// does not dump tablespaces without the right PROCESS, and locks all tables for
// the GTIDs.
const myVersion = `case "$*" in
--version) echo "mysqldump  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)"; exit ;;
--help) echo "mysqldump [OPTIONS] --databases"; exit ;;
*--system*) echo "mysqldump: [ERROR] unknown variable 'system=users'." >&2; exit 7 ;;
esac
case "$*" in *--no-tablespaces*) ;; *) echo "mysqldump: Error: 'Access denied; you need (at least one of) the PROCESS privilege(s) for this operation'" >&2; exit 2 ;; esac
case "$*" in *--set-gtid-purged=OFF*) ;; *) echo "mysqldump: Couldn't execute 'FLUSH TABLES WITH READ LOCK': Access denied (1227)" >&2; exit 2 ;; esac
`

// unpacked is the text of a file of the box as the image's own compressor gives
// it back.
func (b *box) unpacked(name string) string {
	b.t.Helper()
	tool := "zstd"
	if b.shell == "busybox" {
		tool = "gzip"
	}
	cmd := exec.Command(tool, "-d", "-c")
	cmd.Stdin = strings.NewReader(b.files("")[name])
	out, err := cmd.Output()
	must(b.t, err)
	return string(out)
}

// format is what the box's image compresses SQL to.
func (b *box) format() string {
	if b.shell == "busybox" {
		return "sql.gz"
	}
	return "sql.zst"
}

func TestMysqlProbe(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, "shop", "blog")
		before := b.files("")
		got, err := b.probe("mysql")
		must(t, err)
		want := plugins.Probe{
			Engine: "mysql", Version: "8.4.3", Role: plugins.Primary, DataDir: b.volume, Mount: b.volume, Dir: b.volume, UID: os.Getuid(), GID: os.Getgid(),
			Tool: "mysqldump", ToolVersion: "8.4.3", Databases: 2,
			EstimateBytes: (2*2048/2 + 2*64 + 1024) << 10, SizeBytes: 1 << 30, FreeBytes: 1 << 29, ReserveBytes: 52428 << 10, FreeInodes: 60000,
		}
		same(t, "probe", got, want)
		same(t, "the volume", b.files(""), before)
		b.remove("zstd", "gzip")
		got, err = b.probe("mysql")
		must(t, err)
		want.EstimateBytes = (2*2048*3/2 + 2*64 + 1024) << 10
		same(t, "probe where nothing compresses", got, want)
	})
}

func TestMysqlProbeRoles(t *testing.T) {
	for _, c := range []struct {
		name, engine string
		s            myServer
		want         plugins.Role
	}{
		{"a primary", "mysql", mysql8, plugins.Primary},
		{"one that only reads", "mysql", myServer{version: "8.0.36", variables: "super_read_only\\tON\\n"}, plugins.Replica},
		{"one that follows and writes", "mysql", myServer{version: "8.0.36", following: true}, plugins.Replica},
		{"MariaDB", "mariadb", mariadb11, plugins.Primary},
		{"MariaDB that follows", "mariadb", myServer{version: "10.6.1-MariaDB", following: true}, plugins.Replica},
	} {
		t.Run(c.name, func(t *testing.T) {
			shells(t, func(t *testing.T, b *box) {
				fakeMysql(b, c.s)
				got, err := b.probe("mysql")
				must(t, err)
				same(t, "role", got.Role, c.want)
				same(t, "engine", got.Engine, c.engine)
			})
		})
	}
}

func TestMysqlDump(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, "shop", "blog")
		got, err := b.dump("mysql", run)
		must(t, err)
		files := b.files("")
		one, two := ".backsnap-"+run+"-1.dump", ".backsnap-"+run+"-2.dump"
		parts := []plugins.Part{part("databases", one, b.format(), files[one]), part("users", two, b.format(), files[two])}
		position := "0a-1:1-5,0b-2:1-7"
		same(t, "dump", got, plugins.Dump{
			Engine: "mysql", ServerVersion: "8.4.3", Tool: "mysqldump", ToolVersion: "8.4.3", Mount: b.volume, Dir: b.volume, Position: position,
			Parts: parts, Barrier: &plugins.Barrier{Forced: true, How: "FLUSH LOCAL ENGINE LOGS", Position: position},
		})
		list := readList(t, files)
		list.Finished = ""
		same(t, "list", list, dumpList{Version: 1, Run: run, Engine: "mysql", ServerVersion: "8.4.3", Tool: "mysqldump", ToolVersion: "8.4.3", Position: position, EstimateKiB: 2*2048/2 + 2*64 + 1024, Parts: listParts(parts)})
		same(t, "the databases", b.unpacked(one), "-- a dump\n--max-allowed-packet=1G\n--set-gtid-purged=OFF\n--databases\n--\nshop\nblog\n-- Dump completed on 2026-11-22  1:15:00\n")
		same(t, "the users", b.unpacked(two), "CREATE USER IF NOT EXISTS a@b;\nGRANT x TO a@b;\nGRANT y TO a@b;\n-- Dump completed\n")
		same(t, "arguments", b.content("dumped"), "--defaults-file=/proc/self/fd/0|--single-transaction|--quick|--hex-blob|--routines|--events|--triggers|--no-tablespaces|"+
			"--default-character-set=utf8mb4|--max-allowed-packet=1G|--set-gtid-purged=OFF|--databases|--|shop|blog|")
		same(t, "barrier", b.content("barrier"), "FLUSH LOCAL ENGINE LOGS\n")
		same(t, "files", b.dumps(), []string{one, two, ".backsnap-dump.json"})
	})
}

// MariaDB's own tools come first, and know how to dump users.
func TestMariadbDump(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mariadb11, "shop")
		for _, name := range []string{"mysql", "mysqldump"} {
			must(t, os.Rename(filepath.Join(b.bin, name), filepath.Join(b.bin, map[string]string{"mysql": "mariadb", "mysqldump": "mariadb-dump"}[name])))
		}
		b.stub("mariadb-dump", `case "$*" in
--version) echo "mariadb-dump from 11.4.2-MariaDB, client 10.19 for debian-linux-gnu (x86_64)"; exit ;;
--help) echo "  --system=name  Dump system tables"; exit ;;
*--set-gtid-purged*) echo unknown >&2; exit 7 ;;
esac
echo "$*"
echo "-- Dump completed on 2026-11-22  1:15:00"
`)
		got, err := b.dump("mysql", run)
		must(t, err)
		same(t, "tool", got.Tool+" "+got.ToolVersion, "mariadb-dump 11.4.2-MariaDB")
		same(t, "server", got.Engine+" "+got.ServerVersion, "mariadb 11.4.2")
		same(t, "barrier", got.Barrier, &plugins.Barrier{Forced: true, How: "innodb_log_checkpoint_now", Position: "0-1-9"})
		same(t, "the users", b.unpacked(".backsnap-"+run+"-2.dump"), "--defaults-file=/proc/self/fd/0 --system=users --insert-ignore\n-- Dump completed on 2026-11-22  1:15:00\n")
	})
}

func TestMysqlHostileNames(t *testing.T) {
	names := []string{`two words`, `it's`, `say "x"`, `back\slash`, `$HOME`, "`id`", `$(id)`, `%s`, `*`, `-d`, `--help`, "new\nline", "tab\there", "naïve", "日本", `#x`, `a,b`}
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, names...)
		_, err := b.dump("mysql", run)
		must(t, err)
		_, after, _ := strings.Cut(b.content("dumped"), "|--databases|--|")
		same(t, "names", after, strings.Join(names, "|")+"|")
	})
}

func TestMysqlDumpFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *box)
		want   plugins.Error
	}{
		{"the tool half-way", func(b *box) {
			b.stub("mysqldump", myVersion+"echo '-- a dump'\necho 'mysqldump: Error 2013: Lost connection to server' >&2\nexit 3\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: mysqldump: Error 2013: Lost connection to server"}},
		{"the tool is killed", func(b *box) { b.stub("mysqldump", myVersion+"echo '-- a dump'\nkill -s KILL $$\n") },
			plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: mysqldump ended with status 137"}},
		{"the tool says nothing", func(b *box) { b.stub("mysqldump", myVersion+"echo '-- a dump'\nexit 5\n") },
			plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: mysqldump ended with status 5"}},
		{"it may not read", func(b *box) {
			b.stub("mysqldump", myVersion+"echo \"mysqldump: Couldn't execute 'SHOW EVENTS': Access denied (1044)\" >&2\nexit 2\n")
		}, plugins.Error{Kind: plugins.Permission, Message: "dump databases: mysqldump: Couldn't execute 'SHOW EVENTS': Access denied (1044)"}},
		{"a table changes every time", func(b *box) {
			b.stub("mysqldump", myVersion+"echo 'mysqldump: Error 1412: Table definition has changed' >&2\nexit 3\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: mysqldump: Error 1412: Table definition has changed"}},
		{"the compressor", func(b *box) {
			b.stub("zstd", "cat >/dev/null\necho 'zstd: out of memory' >&2\nexit 1\n")
			b.stub("gzip", "cat >/dev/null\necho 'zstd: out of memory' >&2\nexit 1\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: zstd: out of memory"}},
		{"the compressor is killed", func(b *box) {
			b.remove("zstd")
			b.stub("gzip", "kill -s KILL $$\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump databases: gzip ended with status 137"}},
		{"nothing comes out", func(b *box) { b.stub("mysqldump", myVersion) },
			plugins.Error{Kind: plugins.VerifyFailed, Message: "the dump of databases has no trailer: it was cut off"}},
		{"no trailer", func(b *box) { b.stub("mysqldump", myVersion+"echo '-- Dump completed'\necho '-- more'\n") },
			plugins.Error{Kind: plugins.VerifyFailed, Message: "the dump of databases has no trailer: it was cut off"}},
		{"it cannot be read back", func(b *box) {
			b.stub("zstd", "case $* in *-d*) echo 'corrupt' >&2; exit 1 ;; *) exec cat ;; esac\n")
			b.stub("gzip", "case $* in *-d*) echo 'corrupt' >&2; exit 1 ;; *) exec cat ;; esac\n")
		}, plugins.Error{Kind: plugins.VerifyFailed, Message: "the dump of databases cannot be read back: corrupt"}},
		{"the users", func(b *box) {
			b.stub("mysql", strings.Replace(b.script("mysql"), `"SELECT 'SHOW GRANTS FOR'"*)`, `"SELECT 'SHOW GRANTS FOR'"*) echo "ERROR 1142 (42000): SELECT command denied" >&2; exit 1 ;; never)`, 1))
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump users: ERROR 1142 (42000): SELECT command denied"}},
		{"the dump comes to the cap", func(b *box) {
			b.remove("zstd", "gzip")
			b.disk(1<<20, 52428+8000, 65536, 60000)
			b.stub("mysqldump", myVersion+"exec head -c 30000000 /dev/zero\n")
		}, plugins.Error{Kind: plugins.NoSpace, Message: "the dump of databases came to the cap of 7 MiB, which leaves the database its reserve"}},
		{"no client", func(b *box) { b.remove("mysql") }, plugins.Error{Kind: plugins.NoTool, Message: "the image has neither mariadb nor mysql"}},
		{"no dump tool", func(b *box) { b.remove("mysqldump") }, plugins.Error{Kind: plugins.NoTool, Message: "the image has neither mariadb-dump nor mysqldump"}},
		{"no space", func(b *box) { b.disk(1<<20, 52428, 65536, 60000) },
			plugins.Error{Kind: plugins.NoSpace, Message: "the dump needs about 1 MiB and the database 51 MiB in reserve, but only 51 MiB are free on the volume at VOLUME"}},
		{"no inodes", func(b *box) { b.disk(1<<20, 1<<19, 65536, 600) },
			plugins.Error{Kind: plugins.NoInodes, Message: "the dump needs 3 files and the database 671 in reserve, but only 600 inodes are free on the volume at VOLUME"}},
		{"the login", func(b *box) {
			b.stub("mysql", "cat \"${1#*=}\" >/dev/null\necho \"ERROR 1045 (28000): Access denied for user 'root'@'localhost'\" >&2\nexit 1\n")
		}, plugins.Error{Kind: plugins.Login, Message: "no login as root: ERROR 1045 (28000): Access denied for user 'root'@'localhost'"}},
		{"the server starts", func(b *box) {
			b.stub("mysql", "echo \"ERROR 2002 (HY000): Can't connect to local MySQL server through socket\" >&2\nexit 1\n")
		}, plugins.Error{Kind: plugins.Starting, Message: "the server runs but takes no connection yet: it starts, or replays its log"}},
		{"the server is full", func(b *box) { b.stub("mysql", "echo 'ERROR 1040 (08004): Too many connections' >&2\nexit 1\n") },
			plugins.Error{Kind: plugins.Unavailable, Message: "the server takes no connection: ERROR 1040 (08004): Too many connections"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			shells(t, func(t *testing.T, b *box) {
				fakeMysql(b, mysql8, "shop")
				b.older()
				before := b.files("")
				c.change(b)
				_, err := b.dump("mysql", "new")
				same(t, "error", failure(t, b, err), plugins.Error{Kind: c.want.Kind, Message: c.want.Message})
				same(t, "the volume", b.files(""), before)
			})
		})
	}
}

// script is what a stub runs.
func (b *box) script(name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.bin, name))
	must(b.t, err)
	return string(text)
}

func TestMysqlTriesAgainWhenATableChanges(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, "shop")
		b.stub("mysqldump", myVersion+`[ -e "$DIR/once" ] || { : >"$DIR/once"; echo "a long first half"; echo "mysqldump: Error 1412: Table definition has changed" >&2; exit 3; }
echo "-- Dump completed on 2026-11-22  1:15:00"
`)
		_, err := b.dump("mysql", run)
		must(t, err)
		same(t, "the databases", b.unpacked(".backsnap-"+run+"-1.dump"), "-- Dump completed on 2026-11-22  1:15:00\n")
	})
}

func TestMysqlWithoutUsersDatabases(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8)
		got, err := b.dump("mysql", run)
		must(t, err)
		same(t, "parts", len(got.Parts), 1)
		same(t, "part", got.Parts[0].What, "users")
		same(t, "warnings", got.Warnings, []string{"there is no database besides the server's own"})
	})
}

// Where root's password is in nobody's hands, the image's user dumps what it
// sees; where it is and is refused, that is a fault.
func TestMysqlLimitedUser(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, "shop")
		b.stub("mysql", strings.Replace(b.script("mysql"), "printf", `grep -q '^user="app"' "$DIR/options" || { echo "ERROR 1045 (28000): Access denied" >&2; exit 1; }
printf`, 1))
		socket := b.env[0]
		b.env = []string{socket, "MYSQL_RANDOM_ROOT_PASSWORD=yes", "MYSQL_USER=app", "MYSQL_PASSWORD=x"}
		got, err := b.dump("mysql", run)
		must(t, err)
		same(t, "parts", len(got.Parts), 1)
		same(t, "part", got.Parts[0].What, "databases")
		same(t, "warnings", got.Warnings, []string{"root cannot log in: the dump has what app can see, and no users"})
		b.env = append(b.env, "MYSQL_ROOT_PASSWORD=stale")
		_, err = b.dump("mysql", run)
		same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.Login, Message: "no login as root: ERROR 1045 (28000): Access denied"})
		fakeless := newBox(t, b.shell)
		fakeMysql(fakeless, mysql8)
		fakeless.stub("mysql", strings.Replace(fakeless.script("mysql"), "printf", `grep -q '^user="app"' "$DIR/options" || exit 1
printf`, 1))
		fakeless.env = []string{fakeless.env[0], "MYSQL_USER=app", "MYSQL_PASSWORD=x"}
		_, err = fakeless.dump("mysql", run)
		same(t, "error", failure(t, fakeless, err), plugins.Error{Kind: plugins.Empty, Message: "app sees no database"})
	})
}

func TestMysqlWarnsOfOldTables(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		old := mysql8
		old.old, old.variables = 2, "innodb_doublewrite\\tOFF\\n"
		fakeMysql(b, old, "shop", "blog")
		got, err := b.dump("mysql", run)
		must(t, err)
		same(t, "warnings", got.Warnings, []string{"4 tables are not transactional: in the dump they are not of one moment"})
		same(t, "warnings of the barrier", got.Barrier.Warnings, []string{
			"innodb_doublewrite is off: after a crash of the machine pages can be torn",
			"4 tables are not transactional: in the snapshot they may be damaged",
		})
	})
}

func TestMysqlBarrierRefused(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, "shop")
		b.stub("mysql", strings.Replace(b.script("mysql"), "*) printf '%s\\n' \"$last\"", "*) echo 'ERROR 1227 (42000): Access denied' >&2; exit 1; printf '%s\\n' \"$last\"", 1))
		out, _ := b.exec(lookup(t, "mysql").Barrier(nonce))
		got, err := plugins.ReadBarrier(nonce, out)
		must(t, err)
		same(t, "barrier", got, plugins.Barrier{How: "ERROR 1227 (42000): Access denied", Position: "0a-1:1-5,0b-2:1-7"})
	})
}

// The password goes to the client as an option file on a pipe, and nowhere else.
func TestMysqlPassword(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakeMysql(b, mysql8, "shop")
		socket := b.env[0]
		secret := filepath.Join(b.dir, "secret")
		for _, password := range hostile {
			quoted := `password="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(password) + `"`
			want := "[client]\nuser=\"root\"\n" + quoted + "\nsocket=\"" + filepath.Join(b.dir, "s.sock") + "\"\n"
			b.env = []string{socket, "MARIADB_ROOT_PASSWORD=" + password}
			_, err := b.dump("mysql", run)
			must(t, err)
			same(t, "by value", b.content("options"), want)
			must(t, os.WriteFile(secret, []byte(password+"\n"), 0o644))
			b.env = []string{socket, "MYSQL_ROOT_PASSWORD_FILE=" + secret}
			_, err = b.probe("mysql")
			must(t, err)
			same(t, "by file", b.content("options"), want)
			if strings.Contains(b.content("arguments"), password) && len(password) > 3 {
				t.Errorf("password %q is among the arguments", password)
			}
		}
		b.env = []string{socket, "MYSQL_ROOT_PASSWORD=two\nlines"}
		_, err := b.dump("mysql", run)
		must(t, err)
		same(t, "with a newline", strings.Split(b.content("options"), "\n")[2], `password="two\nlines"`)
	})
}
