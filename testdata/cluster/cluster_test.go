package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want request
		err  error
	}{
		{"flags may be left out", []string{"up"}, request{command: "up"}, nil},
		{"flags after the command", []string{"up", "--nodes", "2", "--state=/x"}, request{command: "up", nodes: 2, state: "/x"}, nil},
		{"an image before the flags", []string{"load", "a.tar", "--state", "/x"}, request{command: "load", image: "a.tar", state: "/x"}, nil},
		{"an image after the flags", []string{"load", "--state", "/x", "a.tar"}, request{command: "load", image: "a.tar", state: "/x"}, nil},
		{"load wants an image", []string{"load"}, request{}, errUsage},
		{"only load takes a word", []string{"down", "a"}, request{}, errUsage},
		{"only up takes nodes", []string{"down", "--nodes=2"}, request{}, errUsage},
		{"no command", nil, request{}, errUsage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parse(tc.args)
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if got != tc.want {
				t.Errorf("-want %+v\n+got  %+v", tc.want, got)
			}
		})
	}
}

func TestKeyNamesTheContent(t *testing.T) {
	write := func(t *testing.T, dir, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func(t *testing.T, m module, dir, version string) string {
		t.Helper()
		k, err := m.key(dir, version)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	m := module{dir: "x", pkg: ".", programs: []string{"x"}}
	base := t.TempDir()
	write(t, base, "main.go", "package main")
	want := key(t, m, base, "go1")
	for _, tc := range []struct {
		name   string
		same   bool
		change func(t *testing.T, dir string, m *module) (version string)
	}{
		{"the same elsewhere", true, func(*testing.T, string, *module) string { return "go1" }},
		{"a test more", true, func(t *testing.T, dir string, _ *module) string { write(t, dir, "x_test.go", "y"); return "go1" }},
		{"a document more", true, func(t *testing.T, dir string, _ *module) string { write(t, dir, "README.md", "y"); return "go1" }},
		{"another source", false, func(t *testing.T, dir string, _ *module) string {
			write(t, dir, "main.go", "package  main")
			return "go1"
		}},
		{"a file more", false, func(t *testing.T, dir string, _ *module) string { write(t, dir, "go.sum", ""); return "go1" }},
		{"another Go", false, func(*testing.T, string, *module) string { return "go2" }},
		{"other flags", false, func(_ *testing.T, _ string, m *module) string { m.tags = "y"; return "go1" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, m := t.TempDir(), m
			write(t, dir, "main.go", "package main")
			version := tc.change(t, dir, &m)
			if got := key(t, m, dir, version); (got == want) != tc.same {
				t.Errorf("key %s against %s: the same is %t, want %t", got, want, got == want, tc.same)
			}
		})
	}
}

func TestParseStatOfANameWithParentheses(t *testing.T) {
	stat := "42 (a b) (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10 18446744073709551615"
	state, start, err := parseStat([]byte(stat))
	if err != nil || state != 'S' || start != 987654 {
		t.Errorf("got state %c, start %d, error %v; want S, 987654, none", state, start, err)
	}
	if _, _, err := parseStat([]byte("42 (a")); err == nil {
		t.Error("half a line gives no error")
	}
}

func TestAProcessIsMoreThanItsPid(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan error, 1)
	go func() { reaped <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill() // it has most likely ended
		<-reaped
	})
	p, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	successor, rebooted := p, p
	successor.Start++
	rebooted.Boot = "another"
	got := []bool{p.alive(), successor.alive(), rebooted.alive()}
	if want := []bool{true, false, false}; !reflect.DeepEqual(got, want) {
		t.Fatalf("alive: -want %v +got %v", want, got)
	}
	for _, other := range []process{successor, rebooted} {
		if err := other.end(context.Background(), time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if !p.alive() {
		t.Fatal("ending another process ended this one")
	}
	if err := p.end(context.Background(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if p.alive() {
		t.Error("alive after its end")
	}
}

func TestDeriveAddresses(t *testing.T) {
	got := deriveAddresses("0102abcd")
	addr := netip.MustParseAddr
	want := addresses{
		host: addr("198.18.8.17"), peer: addr("198.18.8.21"),
		node: [3]netip.Addr{1: addr("198.18.8.18"), 2: addr("198.18.8.22")},
	}
	if got != want {
		t.Errorf("-want %v\n+got  %v", want, got)
	}
	benchmarks := netip.MustParsePrefix("198.18.0.0/15")
	for _, id := range []string{"00000000", "3fffffff", "40000000", "ffffffff"} {
		p := deriveAddresses(id).prefix()
		if !benchmarks.Contains(p.Addr()) || p.Bits() != 29 {
			t.Errorf("id %s has %s", id, p)
		}
	}
}

func TestResolveGivesADirectoryOneName(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got, err := resolve(filepath.Join(dir, "link", "not", "there"))
	if want := filepath.Join(dir, "not", "there"); err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestSpecFollowsWhatAPartIsStartedFrom(t *testing.T) {
	dir := t.TempDir()
	c := &cluster{state: dir}
	program := filepath.Join(dir, "program")
	for _, name := range []string{"old", "new"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := symlink(filepath.Join(dir, "old"), program); err != nil {
		t.Fatal(err)
	}
	p := part{args: []string{program, "-a"}, files: map[string]string{"f": "text"}}
	specs := map[string]bool{c.spec(p): true}
	p.files = map[string]string{"f": "other"}
	specs[c.spec(p)] = true
	p.args = []string{program, "-b"}
	specs[c.spec(p)] = true
	p.env = []string{"A=b"}
	specs[c.spec(p)] = true
	if err := symlink(filepath.Join(dir, "new"), program); err != nil {
		t.Fatal(err)
	}
	specs[c.spec(p)] = true
	p.with = "other"
	specs[c.spec(p)] = true
	if err := writeJSON(c.pidFile("other"), process{Pid: 1, Start: 2}); err != nil {
		t.Fatal(err)
	}
	specs[c.spec(p)] = true
	if len(specs) != 7 {
		t.Errorf("%d specs of 7 different parts", len(specs))
	}
}

func TestQuoteMakesOneWordForAShell(t *testing.T) {
	text := `a 'b' "c" $d \ e`
	got, err := exec.Command("sh", "-c", "printf %s "+quote(text)).Output()
	if err != nil || string(got) != text {
		t.Errorf("got %q, %v; want %q", got, err, text)
	}
}
