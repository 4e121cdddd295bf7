package restic_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

func writeFile(c *container, name, text string) error {
	return os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o644)
}

// locked is what restic 0.19.1 says of a lock in its way.
func locked(host string) string {
	return `{"message_type":"exit_error","code":11,"message":"Fatal: unable to create lock in backend: repository is already locked exclusively by PID 42 on ` + host +
		` by root (UID 0, GID 0)\nlock was created at 2026-11-22 01:15:42 (12.5s ago)\nstorage ID 1234abcd\nthe ` + "`unlock`" + ` command can be used to remove stale locks"}`
}

func TestReportNamesTheLock(t *testing.T) {
	report := restic.ReadReport("backsnap step=examine exit=11\nerrors=0\n"+locked("laptop"), 11)
	equal(t, "lock", &restic.Lock{
		ID: "1234abcd", Host: "laptop", User: "root", PID: 42, Exclusive: true, Since: time.Date(2026, 11, 22, 1, 15, 42, 0, time.UTC),
	}, report.Lock)
	// What has no JSON, as forget and prune, says it in several lines.
	plain := restic.ReadReport("backsnap step=forget exit=11\nerrors=0\nrepo already locked, waiting up to 0s for the lock\n"+
		"unable to create lock in backend: repository is already locked by PID 42 on laptop by root (UID 0, GID 0)\n"+
		"lock was created at 2026-11-22 01:15:42 (12.5s ago)\nstorage ID 1234abcd\n", 11)
	equal(t, "lock in plain words", &restic.Lock{
		ID: "1234abcd", Host: "laptop", User: "root", PID: 42, Since: time.Date(2026, 11, 22, 1, 15, 42, 0, time.UTC),
	}, plain.Lock)
	equal(t, "in words", "host laptop since 2026-11-22 01:15:42 UTC", report.Lock.String())
	equal(t, "no lock", (*restic.Lock)(nil), restic.ReadReport("backsnap step=examine exit=11\nerrors=0\nlocked by somebody", 11).Lock)
}

// A lock of a mover like this one is not waited for: who started it is asked.
func TestMoverWaitsForLocksOfOthersOnly(t *testing.T) {
	tests := []struct {
		name, host, mark, retry string
		calls                   string
		exit                    int
	}{
		{"another's is waited for", "laptop", "-0a1b2c", "9m", "backup --json\nbackup --retry-lock 9m --json\n", 0},
		{"one of ours is not", "data-0a1b2c33445566-20261122-011500-x7k2-abcde", "-0a1b2c", "9m", "backup --json\n", 11},
		{"but it is when that is wanted", "data-0a1b2c33445566-20261122-011500-x7k2-abcde", "", "9m", "backup --json\nbackup --retry-lock 9m --json\n", 0},
		{"nobody is waited for", "laptop", "", "0s", "backup --json\n", 11},
	}
	inShells(t, func(t *testing.T, c *container) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				c := *c
				c.t, c.retry, c.env = t, test.retry, []string{"BACKSNAP_MARK=" + test.mark}
				must(t, writeFile(&c, "calls", ""))
				c.restic = `case $1 in backup) echo "$*" >>"$DIR/calls"; case $2 in --retry-lock) echo '` + summary + `' ;; *) echo '` + locked(test.host) + `' >&2; exit 11 ;; esac ;; esac`
				got := c.run("backup", "backup", "--json")
				equal(t, "calls", test.calls, c.read("calls"))
				equal(t, "exit", test.exit, got.exit)
			})
		}
	})
}

func TestMoverTellsOfAllLocks(t *testing.T) {
	one, gone := strings.Repeat("a", 64), strings.Repeat("b", 64)
	inShells(t, func(t *testing.T, c *container) {
		c.env = []string{"BACKSNAP_NONCE=" + nonce}
		c.restic = `case "$1 $2 ${3-}" in
'list locks '*) echo ` + one + `; if [ ! -e "$DIR/seen" ]; then : >"$DIR/seen"; echo ` + gone + `; fi ;;
'cat lock ` + one + `') printf '{\n  "time": "2026-11-22T01:15:42.5Z",\n  "exclusive": true,\n  "hostname": "a b\\"",\n  "username": "root",\n  "pid": 42\n}\n' ;;
*) echo no such lock >&2; exit 1 ;; esac`
		got := c.run("locks")
		equal(t, "exit", 0, got.exit)
		answer, err := restic.ReadAnswer(strings.NewReader(got.log), nonce)
		must(t, err)
		locks, err := restic.ReadLocks(answer)
		must(t, err)
		equal(t, "locks", []restic.Lock{{ID: one, Host: `a b"`, User: "root", PID: 42, Exclusive: true, Since: time.Date(2026, 11, 22, 1, 15, 42, 500e6, time.UTC)}}, locks)
	})
}

func TestMoverThatCannotReadALockFails(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		c.env = []string{"BACKSNAP_NONCE=" + nonce}
		c.restic = `case "$1 $2" in 'list locks') echo ` + id + ` ;; *) echo denied >&2; exit 1 ;; esac`
		got := c.run("locks")
		equal(t, "exit", 1, got.exit)
		equal(t, "report", []string{"backsnap step=locks exit=1", "errors=0", "denied"}, lines(got.report))
		equal(t, "log", []string{"denied"}, lines(got.log))
	})
}

// restic must not find a process of the dead one's number.
func TestMoverThatUnlocksLetsNumbersPass(t *testing.T) {
	inShells(t, func(t *testing.T, c *container) {
		pid := os.Getpid()
		c.env = []string{"BACKSNAP_NONCE=" + nonce, "BACKSNAP_PID=" + strconv.Itoa(min(pid, 30000))}
		c.restic = `case $1 in unlock) echo "$*" >"$DIR/unlock" ;; esac`
		got := c.run("unlock", "unlock")
		equal(t, "exit", 0, got.exit)
		equal(t, "report", []string{"backsnap step=unlock exit=0", "errors=0"}, lines(got.report))
		equal(t, "unlock", "unlock\n", c.read("unlock"))
		answer, err := restic.ReadAnswer(strings.NewReader(got.log), nonce)
		must(t, err)
		equal(t, "locks left", "", string(answer))
	})
}

func TestWhoseLock(t *testing.T) {
	r := catalog.Repository{Name: "main", Namespace: "backsnap", Cluster: "prod-eu"}
	mark := restic.Mark(r)
	elsewhere, other := r, r
	elsewhere.Namespace, other.Cluster = "backup", "prod-us"
	for _, different := range []catalog.Repository{elsewhere, other} {
		if restic.Mark(different) == mark {
			t.Errorf("%+v has the mark of %+v", different, r)
		}
	}
	equal(t, "no cluster, no mark", "", restic.Mark(catalog.Repository{Namespace: "backsnap"}))
	for host, want := range map[string]bool{
		"data-mysql-0" + mark + "01234567-20261122-011500-x7k2-b7xkz": true,
		"check-main" + mark + "-20261122-011500-x7k2-b7xkz":           true,
		"check-main-000000-20261122-011500-x7k2-b7xkz":                false,
		"check-main" + mark + "-20261122-011500-x7k2":                 false,
		mark + "-20261122-011500-x7k2-b7xkz":                          false,
		"laptop":                                                      false, "": false,
	} {
		equal(t, host, want, restic.Ours(host, mark))
		equal(t, host+" without a mark", false, restic.Ours(host, ""))
	}
}

func TestUnlockJobTakesTheDeadOnesName(t *testing.T) {
	job, err := restic.Work{
		Step: restic.StepUnlock, Namespace: "backsnap", Name: "unlock-main", Repository: catalog.Repository{Name: "main", Secret: "main"},
		Run: run, Deadline: time.Minute, Nonce: nonce, Dead: &restic.Lock{Host: "data-pod", PID: 42},
	}.Job()
	must(t, err)
	equal(t, "host", "data-pod", job.Host)
	equal(t, "arguments", []string{"unlock", "60", "60", "0s", "unlock"}, job.Args)
	equal(t, "end of the environment", []restic.Env{
		{Name: "BACKSNAP_NAMESPACE"}, {Name: "BACKSNAP_MARK"}, {Name: "BACKSNAP_NONCE", Value: nonce}, {Name: "BACKSNAP_PID", Value: "42"},
	}, job.Env[len(job.Env)-4:])
}

func TestReadEnv(t *testing.T) {
	got, err := restic.ReadEnv([]byte("# a comment\n\nA=1\r\nB=' two \"quoted\" $X '\nC=\"it's\"\n_D=a=b # not a comment\n  \nE='x'"))
	must(t, err)
	equal(t, "entries", map[string][]byte{"A": []byte("1"), "B": []byte(` two "quoted" $X `), "C": []byte("it's"), "_D": []byte("a=b # not a comment"), "E": []byte("x")}, got)
	for text, want := range map[string]string{
		"A=1\nhunter2":         "line 2: no = in it; want KEY=VALUE",
		"export A=hunter2":     "line 1: no name of a variable before the =",
		" A=hunter2":           "line 1: no name of a variable before the =",
		"=hunter2":             "line 1: no name of a variable before the =",
		"A=hunter2 ":           "line 1: white space around the value of A; put it in quotes if it is meant",
		"A='hunter2":           "line 1: the quotes of the value of A do not enclose it",
		"A='hunter2' # secret": "line 1: the quotes of the value of A do not enclose it",
		"A='hun'ter2'":         "line 1: the quotes of the value of A do not enclose it",
		"A=''":                 "line 1: the quotes of the value of A do not enclose it",
		"A=":                   "line 1: A has no value",
		"A=1\n\nA=hunter2":     "line 3: A is there twice",
		"A=hun\x00ter2":        "line 1: a NUL byte in the value of A",
	} {
		_, err := restic.ReadEnv([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}

func TestCheckEnv(t *testing.T) {
	for _, test := range []struct {
		entries string
		claim   bool
		want    string
	}{
		{"RESTIC_REPOSITORY=s3:host/b\nRESTIC_PASSWORD=x", false, ""},
		{"RESTIC_REPOSITORY=s3:host/b\nRESTIC_PASSWORD_COMMAND=x", false, ""},
		{"RESTIC_REPOSITORY=/repository-claim\nRESTIC_PASSWORD=x", true, ""},
		{"RESTIC_REPOSITORY=/repository-claim/{namespace}\nRESTIC_PASSWORD=x", true, ""},
		{"RESTIC_REPOSITORY=s3:host/b", false, "it has no RESTIC_PASSWORD"},
		{"RESTIC_PASSWORD=x", false, "it has no RESTIC_REPOSITORY"},
		{"RESTIC_REPOSITORY=/repository-claim\nRESTIC_PASSWORD=x", false, "RESTIC_REPOSITORY lies on a claim: say which one"},
		{"RESTIC_REPOSITORY=/repository-claims\nRESTIC_PASSWORD=x", true, "RESTIC_REPOSITORY does not lie below /repository-claim, where movers see the claim"},
		{"RESTIC_REPOSITORY=/srv/restic\nRESTIC_PASSWORD=x", false, "RESTIC_REPOSITORY is a folder of the mover's, which goes with it; a repository in the cluster needs a claim"},
		{"RESTIC_REPOSITORY=s3:host/b\nRESTIC_PASSWORD=x\nTMPDIR=/x", false, "TMPDIR is set by movers themselves"},
	} {
		entries, err := restic.ReadEnv([]byte(test.entries))
		must(t, err)
		said := ""
		if err := restic.CheckEnv(entries, test.claim); err != nil {
			said = err.Error()
		}
		equal(t, test.entries, test.want, said)
	}
}
