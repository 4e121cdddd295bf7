package plugins_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

func TestAllPluginsAreRead(t *testing.T) {
	all, err := plugins.All()
	must(t, err)
	var names []string
	for _, p := range all {
		names = append(names, p.Name+" "+p.Title)
	}
	same(t, "plugins", names, []string{"mysql MySQL", "postgres PostgreSQL"})
}

func TestLookupSaysWhichPluginsThereAre(t *testing.T) {
	_, err := plugins.Lookup("oracle")
	if !errors.Is(err, plugins.ErrUnknown) {
		t.Errorf("error %v is not ErrUnknown", err)
	}
	same(t, "error", err.Error(), `plugin "oracle": no such plugin (there are: mysql, postgres)`)
}

func TestManifest(t *testing.T) {
	const good = `
apiVersion: backsnap.sh/v1
kind: Plugin
name: redis
title: Redis
nominate:
  images: [redis]
scripts:
  probe: [probe.sh]
`
	for _, c := range []struct {
		name, old, new, want string
	}{
		{name: "a good one", want: ""},
		{"another version", "/v1", "/v2", "read plugin redis: is backsnap.sh/v2 Plugin, not backsnap.sh/v1 Plugin"},
		{"another kind", "kind: Plugin", "kind: Pod", "read plugin redis: is backsnap.sh/v1 Pod, not backsnap.sh/v1 Plugin"},
		{"another name", "name: redis", "name: valkey", `read plugin redis: name "valkey" differs from its folder's`},
		{"no title", "title: Redis", "", "read plugin redis: has no title"},
		{"no image", "images: [redis]", "images: []", "read plugin redis: nominates no image"},
		{"a bad pattern", "[redis]", "['[redis']", `read plugin redis: pattern "[redis": syntax error in pattern`},
		{"no probe", "probe: [probe.sh]", "dump: [probe.sh]", "read plugin redis: has no script to probe"},
		{"an unknown step", "scripts:", "scripts:\n  sing: [probe.sh]", `read plugin redis: script "sing" is none of probe, dump, barrier, load`},
		{"a missing file", "[probe.sh]", "[other.sh]", "read plugin redis: script probe: open redis/other.sh: file does not exist"},
		{"a script that is not ASCII", "[probe.sh]", "[greet.sh]", "read plugin redis: script probe: lib.sh redis/greet.sh: byte 14 is not ASCII"},
		{"a misspelt field", "title:", "titel:", `read plugin redis: error unmarshaling JSON: while decoding JSON: json: unknown field "titel"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			fsys := fstest.MapFS{
				"load.sh":           {Data: []byte("load\n")},
				"lib.sh":            {Data: []byte("# library\nset -u\n")},
				"find.sh":           {Data: []byte("wc\n")},
				"remove.sh":         {Data: []byte("rm\n")},
				"redis/probe.sh":    {Data: []byte("# comment\n\n\techo '#'\n")},
				"redis/greet.sh":    {Data: []byte("echo grüß\n")},
				"redis/plugin.yaml": {Data: []byte(strings.Replace(good, c.old, c.new, 1))},
			}
			_, err := plugins.Load(fsys)
			got := ""
			if err != nil {
				got = err.Error()
			}
			same(t, "error", got, c.want)
		})
	}
}

func TestCommandSendsScriptThenValues(t *testing.T) {
	all, err := plugins.Load(fstest.MapFS{
		"load.sh":           {Data: []byte("# loader\nload\n")},
		"lib.sh":            {Data: []byte("# library\nset -u\n")},
		"find.sh":           {Data: []byte("wc -c\n")},
		"remove.sh":         {Data: []byte("rm -f x\n")},
		"redis/dump.sh":     {Data: []byte("# comment\n\n\techo '#'\n")},
		"redis/plugin.yaml": {Data: []byte("apiVersion: backsnap.sh/v1\nkind: Plugin\nname: redis\ntitle: Redis\nnominate: {images: [redis]}\nscripts: {probe: [dump.sh], dump: [dump.sh]}\n")},
	})
	must(t, err)
	c, err := all[0].Dump("0a", plugins.DumpRequest{Run: "r-1", Timeout: 90 * time.Second, Barrier: true})
	must(t, err)
	same(t, "argv", c.Argv, []string{"sh", "-c", `IFS= read -r n; eval "$(dd bs=1 count="$n" 2>/dev/null)"`})
	same(t, "stdin", string(c.Stdin), "5\nload\n16\nset -u\necho '#'\n0a\nr-1\n90\nyes\n")
	c, err = all[0].Remove("0a", "r-1", "/data dir")
	must(t, err)
	same(t, "stdin of remove", string(c.Stdin), "5\nload\n15\nset -u\nrm -f x\n0a\nr-1\n/data dir\n")
}

func TestCommandRefuses(t *testing.T) {
	p := lookup(t, "postgres")
	good := plugins.DumpRequest{Run: run, Timeout: time.Minute}
	for _, c := range []struct {
		name, nonce string
		change      func(*plugins.DumpRequest)
		want        string
	}{
		{"a nonce with a newline", "a\nb", nil, `dump by postgres: nonce "a\nb" is not of [a-z0-9]`},
		{"no nonce", "", nil, `dump by postgres: nonce "" is not of [a-z0-9]`},
		{"a run with a newline", nonce, func(r *plugins.DumpRequest) { r.Run = "a\nb" }, `dump by postgres: run id "a\nb" is not of [a-z0-9-]`},
		{"a run with a NUL", nonce, func(r *plugins.DumpRequest) { r.Run = "a\x00b" }, `dump by postgres: run id "a\x00b" is not of [a-z0-9-]`},
		{"a run that is a path", nonce, func(r *plugins.DumpRequest) { r.Run = "../x" }, `dump by postgres: run id "../x" is not of [a-z0-9-]`},
		{"no time", nonce, func(r *plugins.DumpRequest) { r.Timeout = time.Millisecond }, "dump by postgres: timeout 1ms is under a second"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := good
			if c.change != nil {
				c.change(&r)
			}
			_, err := p.Dump(c.nonce, r)
			if err == nil {
				t.Fatal("no error")
			}
			same(t, "error", err.Error(), c.want)
		})
	}
}

func TestRemoveRefuses(t *testing.T) {
	p := lookup(t, "postgres")
	for _, c := range []struct{ name, run, dir, want string }{
		{"a run that is a path", "../x", "/data", `remove dump by postgres: run id "../x" is not of [a-z0-9-]`},
		{"a folder with a newline", run, "/a\nb", `remove by postgres: value "/a\nb" does not fit on one line`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := p.Remove(nonce, c.run, c.dir)
			if err == nil {
				t.Fatal("no error")
			}
			same(t, "error", err.Error(), c.want)
		})
	}
}

func TestNoncesDiffer(t *testing.T) {
	a, b := plugins.NewNonce(), plugins.NewNonce()
	if a == b || len(a) != 32 {
		t.Errorf("nonces %q and %q", a, b)
	}
}

// Each file by itself, and the files of a plugin together, for there a variable
// that nothing sets, or nothing reads, shows.
func TestShellcheck(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("no shellcheck on this machine: apt-get install shellcheck")
	}
	files, err := filepath.Glob("*/*.sh")
	must(t, err)
	shellcheck(t, nil, append([]string{"load.sh", "lib.sh", "feed.sh", "find.sh", "remove.sh"}, files...)...)
	for _, plugin := range []string{"mysql", "postgres"} {
		var whole bytes.Buffer
		for _, name := range []string{"lib.sh", "feed.sh", plugin + "/server.sh", plugin + "/probe.sh", plugin + "/dump.sh", plugin + "/load.sh", plugin + "/barrier.sh"} {
			text, err := os.ReadFile(name)
			must(t, err)
			whole.Write(text)
		}
		shellcheck(t, whole.Bytes(), "--norc", "-")
	}
	for _, script := range []string{"find.sh", "remove.sh"} {
		var whole bytes.Buffer
		for _, name := range []string{"lib.sh", script} {
			text, err := os.ReadFile(name)
			must(t, err)
			whole.Write(text)
		}
		shellcheck(t, whole.Bytes(), "-")
	}
}

func shellcheck(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	cmd := exec.Command("shellcheck", append([]string{"-s", "sh"}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("shellcheck %v: %v\n%s", args, err, out)
	}
}
