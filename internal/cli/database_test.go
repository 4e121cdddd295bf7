package cli_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// database is one in a pod: it answers as the plugins' scripts print.
type database struct {
	Role       string `json:"role,omitempty"`       // primary
	ProbeFails string `json:"probeFails,omitempty"` // `starting the server is starting up`
	DumpFails  string `json:"dumpFails,omitempty"`
	Stderr     string `json:"stderr,omitempty"`
	Takes      string `json:"takes,omitempty"` // 41s
	Cut        bool   `json:"cut,omitempty"`   // its stream ends in its middle
	Waits      int    `json:"waits,omitempty"` // until so many dump at once, a minute at most
	// Databases are those that there are, with as many tables as letters.
	Databases []string `json:"databases,omitempty"`
	LoadFails string   `json:"loadFails,omitempty"` // `partial ERROR 1146 at line 3`
	Lost      bool     `json:"lost,omitempty"`      // the dump that lay here
	Version   string   `json:"version,omitempty"`   // 8.4.3
}

// script is one run of a plugin's script: what it was given, and its answer.
type script struct {
	step, plugin, nonce string
	values              []string
	gone                chan struct{} // closed when standard input ends
	out                 io.Writer
	lines               int
}

// readScript takes the script and its values from standard input.
func readScript(stdin io.Reader, out io.Writer) (*script, error) {
	in := bufio.NewReader(stdin)
	known := scripts()
	var text strings.Builder
	for {
		c, err := in.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("%d bytes that are no plugin's script: %w", text.Len(), err)
		}
		text.WriteByte(c)
		which, ok := known[text.Len()]
		if !ok || which.text != text.String() {
			continue
		}
		s := &script{step: which.step, plugin: which.plugin, out: out, gone: make(chan struct{})}
		for range which.values {
			value, _ := in.ReadString('\n')
			s.values = append(s.values, strings.TrimSpace(value))
		}
		s.nonce = s.values[0]
		if s.step == "load" && s.values[1] == "load" {
			for range 8 {
				value, _ := in.ReadString('\n')
				s.values = append(s.values, strings.TrimSpace(value))
			}
		}
		go func() { io.Copy(io.Discard, in); close(s.gone) }()
		return s, nil
	}
}

// knownScript is what a plugin sends before the values.
type knownScript struct {
	step, plugin, text string
	values             int
}

// scripts are those of all plugins, by their length.
func scripts() map[int]knownScript {
	all, err := plugins.All()
	if err != nil {
		panic(err)
	}
	known := map[int]knownScript{}
	add := func(step, plugin, values string, c plugins.Command) {
		text := strings.TrimSuffix(string(c.Stdin), values)
		known[len(text)] = knownScript{step, plugin, text, strings.Count(values, "\n")}
	}
	for _, p := range all {
		probe, _ := p.Probe("0")
		add("probe", p.Name, "0\n", probe)
		dump, _ := p.Dump("0", plugins.DumpRequest{Run: "r", Timeout: time.Second})
		add("dump", p.Name, "0\nr\n1\nno\n", dump)
		look, _ := p.Look("0", nil)
		add("load", p.Name, "0\nlook\n60\n\n", look)
		find, _ := p.Find("0", "/", false)
		add("find", "", "0\nno\n/\n", find)
		remove, _ := p.Remove("0", "r", "/")
		add("remove", "", "0\nr\n/\n", remove) // one script for all plugins
	}
	if len(known) != 3*len(all)+2 {
		panic("two scripts of one length")
	}
	return known
}

func (s *script) begin() { fmt.Fprintf(s.out, "@bs:%s:BEGIN\n", s.nonce) }

func (s *script) line(text string) {
	s.lines++
	fmt.Fprintf(s.out, "@bs:%s:%s\n", s.nonce, text)
}

func (s *script) end(rc int) { fmt.Fprintf(s.out, "@bs:%s:END rc=%d lines=%d\n", s.nonce, rc, s.lines) }

func (s *script) fail(what string) error {
	s.line("error=" + what)
	s.end(1)
	return &catalog.ExitError{Code: 1}
}

func (d *database) probe(s *script, mount string) error {
	s.begin()
	if d.ProbeFails != "" {
		return s.fail(d.ProbeFails)
	}
	for _, line := range []string{
		"engine=" + s.plugin, "version=8.4.3", "role=" + cmp.Or(d.Role, "primary"), "datadir=" + mount, "mount=" + mount, "dir=" + mount, "uid=999", "gid=999",
		"tool=" + s.plugin + "dump", "toolversion=8.4.3", "databases=1", "estimate=1", "size=3", "free=2", "reserve=1", "inodes=-1",
	} {
		s.line(line)
	}
	s.end(0)
	return nil
}

func (d *database) find(s *script) error {
	s.begin()
	if d.Lost {
		s.line("bytes=-1")
	} else {
		s.line("bytes=14")
	}
	s.end(0)
	return nil
}

// load answers a look, too.
func (d *database) load(s *script) error {
	s.begin()
	if d.ProbeFails != "" {
		return s.fail(d.ProbeFails)
	}
	for _, line := range []string{"engine=" + s.plugin, "version=" + cmp.Or(d.Version, "8.4.3"), "role=" + cmp.Or(d.Role, "primary")} {
		s.line(line)
	}
	if s.values[1] == "load" && d.LoadFails != "" {
		return s.fail(d.LoadFails)
	}
	if s.values[1] == "look" {
		d.stand(s)
	}
	s.end(0)
	return nil
}

// stand says what there is.
func (d *database) stand(s *script) {
	for _, name := range d.Databases {
		s.line("database=" + hex.EncodeToString([]byte(name)))
	}
	for _, name := range strings.Fields(s.values[3]) {
		text, _ := hex.DecodeString(name)
		if slices.Contains(d.Databases, string(text)) {
			s.line(fmt.Sprintf("target=%s 2048 %d", name, len(text)))
		} else {
			s.line("target=" + name + " -1 0")
		}
	}
}

func (d *database) remove(s *script) error {
	s.begin()
	s.line("removed=1")
	s.end(0)
	return nil
}

func (d *database) dump(ctx context.Context, s *script, mount string, stderr io.Writer) error {
	io.WriteString(stderr, d.Stderr)
	s.begin()
	select {
	case <-time.After(span(d.Takes)):
	case <-s.gone:
		return s.fail("lost-client nobody waits")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if d.DumpFails != "" {
		return s.fail(d.DumpFails)
	}
	for _, line := range []string{
		"engine=" + s.plugin, "version=8.4.3", "tool=" + s.plugin + "dump", "toolversion=8.4.3", "mount=" + mount, "dir=" + mount, "position=binlog.000042:157",
		"part=.backsnap-1.dump sql.gz 2254857830 " + strings.Repeat("0f", 32) + " 646174616261736573", "barrier=yes", "barrier-how=FLUSH BINARY LOGS", "barrier-position=",
	} {
		s.line(line)
	}
	if d.Cut {
		return nil
	}
	s.end(0)
	<-s.gone
	return nil
}

func span(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

// meeting lets dumps wait for each other.
type meeting struct {
	mu      sync.Mutex
	here    int
	changed chan struct{}
}

// wait returns once n have come, or after a minute.
func (m *meeting) wait(n int) {
	m.mu.Lock()
	m.here++
	if m.changed != nil {
		close(m.changed)
	}
	m.changed = make(chan struct{})
	m.mu.Unlock()
	late := time.After(time.Minute)
	for {
		m.mu.Lock()
		here, changed := m.here, m.changed
		m.mu.Unlock()
		if here >= n {
			return
		}
		select {
		case <-changed:
		case <-late:
			return
		}
	}
}
