package snapshot_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// errBroken is what everything fails with that is told to fail.
var errBroken = errors.New("broken")

// fake is a cluster of which only the snapshots are kept. The storage cuts and
// makes ready after its delays.
type fake struct {
	mu        sync.Mutex
	snapshots map[string]catalog.Snapshot // by namespace/name
	changed   chan struct{}               // closed at each change
	calls     []string                    // what was written, in order
	servers   map[string]*server          // by pod
	storing   sync.WaitGroup

	cutAfter, readyAfter time.Duration
	slow                 string // claim whose snapshot takes a second more
	never                string // claim whose snapshot never gets ready
	driverSays           string // error of the storage on that claim
	wrongCut             time.Time
	lost                 string // claim whose snapshot somebody deletes before it is ready

	// claims of which the call fails
	failCreate, failComplete, failLabel, failDelete string
	failAwait                                       bool
	unmirrored                                      bool     // contents may not be written
	holds                                           []string // finalizers that hold what is deleted
	atLabel                                         func()   // called before anything is labelled
}

// server is a database in a pod, as its plugin's scripts would find it.
type server struct {
	mount       string
	role        plugins.Role
	probeFails  string // `starting the server is starting up`
	dumpFails   string
	stderr      string // of a dump
	cut         string // step whose stream ends in its middle, without an error
	garbled     bool   // and its middle holds something that no script says
	exit        error  // of the exec of a dump that has said its end
	hangs       string // step that never ends
	talks       bool   // a dump says more than any script
	takes       time.Duration
	noBarrier   bool
	dumped      int // how often
	removeFails string
	removed     []string // values of each removal
	asked       string   // values that the last dump was given
	clientGone  bool     // standard input ended before the dump did
	inputClosed bool     // and after it, as it must
}

func newFake(servers map[string]*server) *fake {
	return &fake{
		snapshots: map[string]catalog.Snapshot{}, changed: make(chan struct{}), servers: servers,
		cutAfter: time.Second, readyAfter: 5 * time.Second,
	}
}

// change does something to the snapshots and wakes those who watch.
func (f *fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fake) call(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) Inventory(context.Context, catalog.Scope) (catalog.Inventory, error) {
	return catalog.Inventory{}, errBroken // Run never looks again
}

func (f *fake) Missing(context.Context, []catalog.Right) ([]catalog.Right, error) {
	return nil, errBroken
}

func (f *fake) Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	if ctx.Err() != nil {
		return catalog.Snapshot{}, context.Cause(ctx)
	}
	if s.Claim == f.failCreate {
		return catalog.Snapshot{}, errBroken
	}
	s.UID = "uid-" + s.Claim
	s.Created = time.Now().UTC()
	f.change(func() {
		f.call("create %s/%s of %s, class %s", s.Namespace, s.Name, s.Claim, s.Class)
		f.snapshots[s.Namespace+"/"+s.Name] = s
	})
	f.storing.Go(func() { f.storage(s) })
	return s, nil
}

// storage is what happens to a snapshot once it is asked for.
func (f *fake) storage(s catalog.Snapshot) {
	key := s.Namespace + "/" + s.Name
	update := func(do func(s *catalog.Snapshot)) {
		f.change(func() {
			if now, ok := f.snapshots[key]; ok && now.UID == s.UID {
				do(&now)
				f.snapshots[key] = now
			}
		})
	}
	time.Sleep(f.cutAfter)
	cut := time.Now().UTC().Truncate(time.Second)
	update(func(s *catalog.Snapshot) { s.Cut = cut })
	time.Sleep(f.readyAfter - f.cutAfter)
	if s.Claim == f.slow {
		time.Sleep(time.Second)
	}
	switch s.Claim {
	case f.never:
		update(func(s *catalog.Snapshot) { s.Err = f.driverSays })
	case f.lost:
		f.change(func() { delete(f.snapshots, key) })
	default:
		update(func(s *catalog.Snapshot) { s.Ready, s.Content = true, "content-"+s.Claim })
	}
}

func (f *fake) Await(ctx context.Context, namespace string, done func([]catalog.Snapshot) (bool, error)) error {
	for {
		f.mu.Lock()
		changed, all := f.changed, f.list(namespace)
		f.mu.Unlock()
		if f.failAwait {
			return errBroken
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if ok, err := done(all); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// in are the snapshots of a namespace, by name.
func (f *fake) in(namespace string) []catalog.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list(namespace)
}

// list is in for who holds the lock.
func (f *fake) list(namespace string) []catalog.Snapshot {
	var all []catalog.Snapshot
	for _, s := range f.snapshots {
		if s.Namespace == namespace {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b catalog.Snapshot) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (f *fake) Complete(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	if s.Claim == f.failComplete {
		return catalog.Snapshot{}, errBroken
	}
	s.Driver, s.Handle, s.RestoreSize = "csi.example.com", "handle-"+s.Claim, 10<<30
	s.Cut = s.Cut.Add(123456789)
	if !f.wrongCut.IsZero() {
		s.Cut = f.wrongCut
	}
	return s, context.Cause(ctx)
}

func (f *fake) Label(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	if f.atLabel != nil {
		f.atLabel()
	}
	if ctx.Err() != nil {
		return catalog.Snapshot{}, context.Cause(ctx)
	}
	if s.Claim == f.failLabel {
		return catalog.Snapshot{}, errBroken
	}
	f.change(func() {
		f.call("label %s/%s", s.Namespace, s.Name)
		f.snapshots[s.Namespace+"/"+s.Name] = s
	})
	if f.unmirrored {
		return s, catalog.ErrUnmirrored
	}
	return s, nil
}

func (f *fake) Delete(ctx context.Context, s catalog.Snapshot) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.Claim == f.failDelete {
		return errBroken
	}
	f.change(func() {
		f.call("delete %s/%s", s.Namespace, s.Name)
		if f.holds != nil {
			s.Terminating, s.Held = true, f.holds
			f.snapshots[s.Namespace+"/"+s.Name] = s
			return
		}
		delete(f.snapshots, s.Namespace+"/"+s.Name)
	})
	return nil
}

func (f *fake) Exec(ctx context.Context, c catalog.ContainerRef, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	s := f.servers[c.Pod]
	if s == nil {
		return fmt.Errorf("%s: no such pod", c)
	}
	in := bufio.NewReader(stdin)
	script, values, err := readScript(in)
	if err != nil {
		return err
	}
	step, plugin := script.step, script.plugin
	say := &transcript{nonce: values[0], out: stdout}
	f.mu.Lock()
	f.call("exec %s in %s", step, c)
	f.mu.Unlock()
	if step == "dump" {
		s.asked = strings.Join(values[1:], " ")
	}
	gone := make(chan struct{})
	go func() { io.Copy(io.Discard, in); close(gone) }()
	switch {
	case step == s.hangs:
		<-ctx.Done()
		return context.Cause(ctx)
	case step == "probe":
		return s.probe(say, plugin)
	case step == "remove":
		return s.remove(say, values[1:])
	}
	return s.dump(ctx, say, plugin, gone, stderr)
}

// readScript takes the script and its values, the nonce first, from standard
// input.
func readScript(in *bufio.Reader) (known knownScript, values []string, err error) {
	all := scripts()
	var text strings.Builder
	for {
		c, err := in.ReadByte()
		if err != nil {
			return known, nil, fmt.Errorf("%d bytes that are no plugin's script: %w", text.Len(), err)
		}
		text.WriteByte(c)
		known, ok := all[text.Len()]
		if !ok || known.text != text.String() {
			continue
		}
		for range known.values {
			value, _ := in.ReadString('\n')
			values = append(values, strings.TrimSpace(value))
		}
		return known, values, nil
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
		remove, _ := p.Remove("0", "r", "/")
		add("remove", "", "0\nr\n/\n", remove) // one script for all plugins
	}
	if len(known) != 2*len(all)+1 {
		panic("two scripts of one length")
	}
	return known
}

// transcript prints as the plugins' scripts do.
type transcript struct {
	nonce string
	out   io.Writer
	lines int
}

func (s *transcript) begin() { fmt.Fprintf(s.out, "@bs:%s:BEGIN\n", s.nonce) }

func (s *transcript) line(format string, args ...any) {
	s.lines++
	fmt.Fprintf(s.out, "@bs:%s:%s\n", s.nonce, fmt.Sprintf(format, args...))
}

func (s *transcript) end(rc int) {
	fmt.Fprintf(s.out, "@bs:%s:END rc=%d lines=%d\n", s.nonce, rc, s.lines)
}

func (s *transcript) fail(what string) error {
	s.line("error=%s", what)
	s.end(1)
	return &catalog.ExitError{Code: 1}
}

func (s *server) probe(say *transcript, plugin string) error {
	say.begin()
	if s.probeFails != "" {
		return say.fail(s.probeFails)
	}
	for _, line := range []string{
		"engine=" + plugin, "version=8.4.3", "role=" + string(cmp.Or(s.role, plugins.Primary)), "datadir=" + s.mount + "/data", "mount=" + s.mount, "dir=" + s.mount,
		"uid=999", "gid=999", "tool=" + plugin + "dump", "toolversion=8.4.3", "databases=2", "estimate=1000", "size=100000", "free=90000", "reserve=1000", "inodes=-1", "warning=the clock is slow",
	} {
		say.line("%s", line)
	}
	if s.cut != "probe" {
		say.end(0)
	}
	return nil
}

func (s *server) remove(say *transcript, values []string) error {
	s.removed = append(s.removed, strings.Join(values, " "))
	say.begin()
	if s.removeFails != "" {
		return say.fail(s.removeFails)
	}
	say.line("removed=%d", 2)
	say.end(0)
	return nil
}

func (s *server) dump(ctx context.Context, say *transcript, plugin string, gone chan struct{}, stderr io.Writer) error {
	fmt.Fprintf(stderr, "@bs:%s:TICK\n%s", say.nonce, s.stderr)
	say.begin()
	select {
	case <-time.After(s.takes):
	case <-gone:
		s.clientGone = true
		return say.fail("lost-client nobody waits")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.dumped++
	if s.dumpFails != "" {
		return say.fail(s.dumpFails)
	}
	for _, line := range []string{
		"engine=" + plugin, "version=8.4.3", "tool=" + plugin + "dump", "toolversion=8.4.3", "mount=" + s.mount, "dir=" + s.mount + "/sub", "position=binlog.000042:157",
		"part=.backsnap-1.dump sql 700 " + sha + " 7573657273", "part=.backsnap-2.dump sql.gz 300 " + sha + " 64617461626173652073686f70", "warning=a table is not InnoDB",
	} {
		say.line("%s", line)
	}
	s.barrier(say)
	for i := 0; s.talks && i < 20; i++ {
		if _, err := fmt.Fprintf(say.out, "@bs:%s:warning=%s\n", say.nonce, strings.Repeat("la", 50_000)); err != nil {
			return err
		}
		say.lines++
	}
	if s.garbled {
		fmt.Fprintln(say.out, "Segmentation fault")
	}
	if s.cut == "dump" {
		return nil
	}
	say.end(0)
	select {
	case <-gone:
		s.inputClosed = true
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.exit
}

func (s *server) barrier(say *transcript) {
	forced, how := "yes", "FLUSH BINARY LOGS"
	if s.noBarrier {
		forced, how = "no", "it is a replica"
	}
	for _, line := range []string{"barrier=" + forced, "barrier-how=" + how, "barrier-position=binlog.000043:4", "barrier-warning=slow disk"} {
		say.line("%s", line)
	}
}

var sha = strings.Repeat("0f", 32)

// seen collects the events of a run.
type seen struct {
	mu     sync.Mutex
	events []catalog.Event
}

func (s *seen) Event(e catalog.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// warnings are the messages of all warnings, sorted.
func (s *seen) warnings() []string {
	var messages []string
	for _, e := range s.events {
		if e.State == catalog.Warning {
			messages = append(messages, string(e.Phase)+": "+e.Message)
		}
	}
	slices.Sort(messages)
	return messages
}

func berlin(t *testing.T) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}
