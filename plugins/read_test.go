package plugins_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// said is what a script with these lines prints, if it ends with rc.
func said(rc string, lines ...string) []byte {
	var b strings.Builder
	b.WriteString("@bs:" + nonce + ":BEGIN\n")
	for _, line := range lines {
		b.WriteString("@bs:" + nonce + ":" + line + "\n")
	}
	b.WriteString("@bs:" + nonce + ":END rc=" + rc + " lines=" + itoa(len(lines)) + "\n")
	return []byte(b.String())
}

var sum = strings.Repeat("0f", 32)

var (
	probeLines = []string{"engine=postgres", "version=15.20", "role=replica", "datadir.hex=2f640a", "mount=/d", "dir=/d", "uid=999", "gid=998",
		"tool=pg_dump", "toolversion=15.20", "databases=2", "estimate=10", "size=40", "free=30", "reserve=20", "inodes=-1", "warning=a = b", "warning=c"}
	dumpLines = []string{"part=.backsnap-r-1.dump sql 7 " + sum + " 676c6f62616c73", "part=.backsnap-r-2.dump custom 8 " + sum + " 64617461626173652061200a", "engine=postgres", "version=15.20",
		"tool=pg_dump", "toolversion=15.20", "mount=/var/lib/x", "dir=/var/lib/x/pg data", "position=0/1", "barrier=yes", "barrier-how=CHECKPOINT", "barrier-position=0/2", "barrier-warning=w"}
	barrierLines = []string{"barrier=no", "barrier-how=replica", "barrier-position="}
)

func TestReadProbe(t *testing.T) {
	got, err := plugins.ReadProbe(nonce, said("0", probeLines...))
	must(t, err)
	same(t, "probe", got, plugins.Probe{
		Engine: "postgres", Version: "15.20", Role: plugins.Replica, DataDir: "/d\n", Mount: "/d", Dir: "/d", UID: 999, GID: 998,
		Tool: "pg_dump", ToolVersion: "15.20", Databases: 2, EstimateBytes: 10, SizeBytes: 40, FreeBytes: 30, ReserveBytes: 20, FreeInodes: -1,
		Warnings: []string{"a = b", "c"},
	})
}

func TestReadDump(t *testing.T) {
	got, err := plugins.ReadDump(nonce, said("0", dumpLines...))
	must(t, err)
	same(t, "dump", got, plugins.Dump{
		Engine: "postgres", ServerVersion: "15.20", Tool: "pg_dump", ToolVersion: "15.20", Mount: "/var/lib/x", Dir: "/var/lib/x/pg data", Position: "0/1",
		Parts: []plugins.Part{
			{What: "globals", Path: "pg data/.backsnap-r-1.dump", Format: "sql", Bytes: 7, SHA256: sum},
			{What: "database a \n", Path: "pg data/.backsnap-r-2.dump", Format: "custom", Bytes: 8, SHA256: sum},
		},
		Barrier: &plugins.Barrier{Forced: true, How: "CHECKPOINT", Position: "0/2", Warnings: []string{"w"}},
	})
}

func TestReadDumpWithoutBarrier(t *testing.T) {
	got, err := plugins.ReadDump(nonce, said("0", dumpLines[:9]...))
	must(t, err)
	same(t, "barrier", got.Barrier, nil)
}

func TestReadBarrier(t *testing.T) {
	got, err := plugins.ReadBarrier(nonce, said("0", barrierLines...))
	must(t, err)
	same(t, "barrier", got, plugins.Barrier{How: "replica"})
}

func TestReadRemoval(t *testing.T) {
	got, err := plugins.ReadRemoval(nonce, said("0", "removed=3"))
	must(t, err)
	same(t, "files", got, 3)
}

// everyRead gives stdout to each of the Read functions.
func everyRead(stdout []byte) map[string]error {
	_, probe := plugins.ReadProbe(nonce, stdout)
	_, dump := plugins.ReadDump(nonce, stdout)
	_, barrier := plugins.ReadBarrier(nonce, stdout)
	_, removal := plugins.ReadRemoval(nonce, stdout)
	return map[string]error{"probe": probe, "dump": dump, "barrier": barrier, "removal": removal}
}

// Nothing that a cut connection can leave is taken for the whole.
func TestReadRefusesWhatIsNotWhole(t *testing.T) {
	outputs := map[string][]byte{
		"probe": said("0", probeLines...), "dump": said("0", dumpLines...), "barrier": said("0", barrierLines...),
		"failure": said("1", "error=dump pg_dump: it broke"),
	}
	for name, whole := range outputs {
		check := func(what string, stdout []byte) {
			t.Helper()
			for reader, err := range everyRead(stdout) {
				if !errors.Is(err, plugins.ErrTruncated) {
					t.Errorf("%s %s, read as %s: %v", name, what, reader, err)
				}
			}
			if what != "with text after its end" && plugins.Done(nonce, stdout) && strings.HasPrefix(what, "cut") {
				t.Errorf("%s %s is done", name, what)
			}
		}
		for i := range whole {
			check("cut after byte "+itoa(i), whole[:i])
		}
		check("with text after its end", append(whole[:len(whole):len(whole)], "x\n"...))
		check("with text before it", append([]byte("motd\n"), whole...))
		check("twice", append(whole[:len(whole):len(whole)], whole...))
		check("of another nonce", []byte(strings.ReplaceAll(string(whole), nonce, strings.Repeat("0", 32))))
		lines := strings.SplitAfter(strings.TrimSuffix(string(whole), "\n"), "\n")
		for i := range lines {
			if i > 0 && i < len(lines)-1 {
				check("without line "+itoa(i), []byte(strings.Join(lines[:i], "")+strings.Join(lines[i+1:], "")+"\n"))
			}
		}
		if !plugins.Done(nonce, whole) {
			t.Errorf("%s is not done", name)
		}
	}
}

func TestReadFailure(t *testing.T) {
	bug := "report it with the lines above"
	for _, c := range []struct {
		name   string
		stdout []byte
		want   plugins.Error
	}{
		{"a kind with a hint", said("1", "error=timeout it took more than 9 s"),
			plugins.Error{Kind: plugins.TimedOut, Message: "it took more than 9 s", Hint: "allow more time with --dump-timeout"}},
		{"after other lines", said("1", "warning=w", "error=timeout x"),
			plugins.Error{Kind: plugins.TimedOut, Message: "x", Hint: "allow more time with --dump-timeout"}},
		{"with bytes that stand on no line", said("1", "error.hex=74696d656f757420610a62"),
			plugins.Error{Kind: plugins.TimedOut, Message: "a\nb", Hint: "allow more time with --dump-timeout"}},
		{"an error that ends well", said("0", "error=timeout x"),
			plugins.Error{Kind: plugins.TimedOut, Message: "x", Hint: "allow more time with --dump-timeout"}},
		{"no error that ends badly", said("2"), plugins.Error{Kind: plugins.Internal, Message: "the script ended with status 2: ", Hint: bug}},
		{"a kind that is none", said("1", "error=hunger x"), plugins.Error{Kind: plugins.Internal, Message: "the script ended with status 1: hunger x", Hint: bug}},
		{"a line without a value", said("0", "nothing"), plugins.Error{Kind: plugins.Internal, Message: `the script said something unexpected: line "nothing"`, Hint: bug}},
		{"hex that is none", said("0", "a.hex=0g"), plugins.Error{Kind: plugins.Internal, Message: "the script said something unexpected: a.hex: encoding/hex: invalid byte: U+0067 'g'", Hint: bug}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for reader, err := range everyRead(c.stdout) {
				var got *plugins.Error
				if !errors.As(err, &got) {
					t.Fatalf("%s: error %v is no *Error", reader, err)
				}
				same(t, reader, *got, c.want)
			}
		})
	}
}

func TestReadDumpRefusesNonsense(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"no part", "", "", "no part"},
		{"an empty part", " 8 ", " 0 ", `part ".backsnap-r-2.dump custom 0 ` + sum + ` 64617461626173652061200a"`},
		{"too large a part", " 8 ", " 99999999999999999999 ", `part ".backsnap-r-2.dump custom 99999999999999999999 ` + sum + ` 64617461626173652061200a"`},
		{"half a sum", sum + " 64", sum[2:] + " 64", `part ".backsnap-r-2.dump custom 8 ` + sum[2:] + ` 64617461626173652061200a"`},
		{"no version", "version=15.20", "versoin=15.20", `0 lines "version"`},
		{"two tools", "toolversion=15.20", "tool=x", `2 lines "tool"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := dumpLines
			if c.name == "no part" {
				lines = dumpLines[2:]
			}
			text := strings.Join(lines, "\n")
			if c.old != "" {
				text = strings.Replace(text, c.old, c.new, 1)
			}
			_, err := plugins.ReadDump(nonce, said("0", strings.Split(text, "\n")...))
			var got *plugins.Error
			if !errors.As(err, &got) {
				t.Fatalf("error %v is no *Error", err)
			}
			same(t, "error", got.Message, "the script said something unexpected: "+c.want)
		})
	}
}

func TestTick(t *testing.T) {
	same(t, "a tick", plugins.Tick(nonce, "@bs:"+nonce+":TICK\n"), true)
	same(t, "what a tool says", plugins.Tick(nonce, "pg_dump: error"), false)
	same(t, "a tick of another", plugins.Tick(nonce, "@bs:0:TICK"), false)
}

func FuzzRead(f *testing.F) {
	f.Add(said("0", probeLines...))
	f.Add(said("0", dumpLines...))
	f.Add(said("1", "error=dump x"))
	f.Fuzz(func(t *testing.T, stdout []byte) {
		for reader, err := range everyRead(stdout) {
			var failed *plugins.Error
			if err != nil && !errors.Is(err, plugins.ErrTruncated) && !errors.As(err, &failed) {
				t.Errorf("%s: %v is neither *Error nor ErrTruncated", reader, err)
			}
			if err == nil && !plugins.Done(nonce, stdout) {
				t.Errorf("%s: it is read but not done", reader)
			}
		}
	})
}
