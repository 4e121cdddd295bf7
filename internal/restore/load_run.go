package restore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

const (
	// lookTimeout bounds what only reads.
	lookTimeout = time.Minute
	// loadMargin is what a script may take beyond its own limit, to clean up.
	loadMargin = time.Minute
)

// The states of what was to be loaded.
const (
	Loaded    State = "Loaded"
	Partial   State = "Partial"   // what came before the failure is there
	Untouched State = "Untouched" // it was not begun, or all of it was undone
	Unknown   State = "Unknown"   // nobody has heard how it ended
)

// LoadOutcome is one part of a dump, and what became of it.
type LoadOutcome struct {
	Step  LoadStep
	State State
	Took  time.Duration
	Err   error // a catalog.Failure, nil where State is Loaded or nothing was begun
}

// Loading is what Load works with.
type Loading struct {
	Cluster Cluster
	Now     func() time.Time
	// Files brings the dumps of the plan's volume to this machine, each as its
	// sum says: their names, by Dump.Path. It is not called where the plan is
	// Live. remove, which may be nil, removes them.
	Files func(ctx context.Context) (names map[string]string, remove func() error, err error)
}

// Load loads the parts of p one after the other and stops at the first that
// fails. The outcomes are in p's order. What does not reach the server whole is
// not kept by it, where it can undo that.
func (l Loading) Load(ctx context.Context, p LoadPlan, w catalog.Watcher) (outcomes []LoadOutcome, err error) {
	r := &loading{Loading: l, plan: p, watcher: w}
	for _, s := range p.Steps {
		outcomes = append(outcomes, LoadOutcome{Step: s, State: Untouched})
	}
	remove, err := r.fetch(ctx)
	if remove != nil {
		defer func() { err = errors.Join(err, remove()) }()
	}
	if err == nil {
		err = r.prepare(ctx)
	}
	if err != nil {
		outcomes[0].Err = r.failed(ctx, outcomes[0].Step, Untouched, err)
		return outcomes, outcomes[0].Err
	}
	for i := range outcomes {
		r.take(ctx, &outcomes[i])
		if outcomes[i].Err != nil {
			return outcomes, outcomes[i].Err
		}
	}
	return outcomes, nil
}

type loading struct {
	Loading
	plan    LoadPlan
	watcher catalog.Watcher
	files   map[string]string // on this machine, by Dump.Path
	roles   string
}

// fetch brings the dumps here, unless they lie beside the server.
func (l *loading) fetch(ctx context.Context) (remove func() error, err error) {
	if l.plan.Live {
		return nil, nil
	}
	l.files, remove, err = l.Files(ctx)
	return remove, err
}

// prepare reads the globals.
func (l *loading) prepare(ctx context.Context) error {
	if l.plan.Roles == nil {
		return nil
	}
	d := l.plan.Roles.Dump
	text, err := l.text(ctx)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.What, err)
	}
	sum := sha256.Sum256(text)
	if hex.EncodeToString(sum[:]) != d.SHA256 {
		return &plugins.Error{Kind: plugins.VerifyFailed, Message: d.What + " are not what the record tells of"}
	}
	if l.roles, err = plugins.Roles(text); err != nil {
		return fmt.Errorf("read %s: %w", d.What, err)
	}
	return nil
}

func (l *loading) text(ctx context.Context) ([]byte, error) {
	if !l.plan.Live {
		return os.ReadFile(l.files[l.plan.Roles.Dump.Path])
	}
	file, err := findFile(ctx, l.Cluster, l.plan.Server, l.plan.Plugin, l.plan.Roles.Path, true)
	return file.Text, err
}

// take loads one part.
func (l *loading) take(ctx context.Context, o *LoadOutcome) {
	began := l.Now()
	l.tell(o.Step, catalog.Event{State: catalog.Started})
	err := context.Cause(ctx)
	if err == nil {
		o.State = Unknown
		err = l.load(ctx, o.Step)
	}
	o.Took = l.Now().Sub(began)
	if err == nil {
		o.State = Loaded
		l.tell(o.Step, catalog.Event{State: catalog.OK, Took: o.Took, Bytes: o.Step.Dump.Bytes})
		return
	}
	if o.State != Untouched {
		o.State = l.left(err)
	}
	o.Err = l.failed(ctx, o.Step, o.State, err)
	l.tell(o.Step, catalog.Event{State: catalog.Failed, Message: o.Err.Error()})
}

// left is what a load that failed has left.
func (l *loading) left(err error) State {
	var said *plugins.Error
	switch {
	case !errors.As(err, &said):
		return Unknown
	case said.Kind == plugins.PartlyLoaded:
		return Partial
	case l.plan.Transactional():
		return Untouched
	}
	switch said.Kind {
	case plugins.LostClient, plugins.TimedOut, plugins.Stopped, plugins.Internal:
		return Partial
	}
	return Untouched
}

// load sends the part to the server, or has it read it.
func (l *loading) load(ctx context.Context, s LoadStep) error {
	r := plugins.LoadRequest{
		What: s.Dump.What, Bytes: s.Dump.Bytes, SHA256: s.Dump.SHA256, From: s.From, Into: s.Into, Fresh: s.Fresh,
		Timeout: l.plan.LoadTimeout, Roles: l.roles,
	}
	if _, ok := plugins.DatabaseOf(s.Dump.What); !ok {
		r.Roles = ""
	}
	var body io.Reader
	if l.plan.Live {
		r.Path = s.Path
	} else {
		file, err := os.Open(l.files[s.Dump.Path])
		if err != nil {
			return err
		}
		defer file.Close()
		if err := ends(file, &r); err != nil {
			return err
		}
		body = &counted{reader: io.NewSectionReader(file, 0, r.Bytes-int64(len(r.Tail))), tell: l.counter(s)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.plan.LoadTimeout+loadMargin, errTimeout)
	defer cancel()
	_, err := plugins.Run(ctx, in(l.Cluster, l.plan.Server), body, func(nonce string) (plugins.Command, error) { return l.plan.Plugin.Load(nonce, r) }, plugins.ReadServer)
	return err
}

// ends reads the first and the last bytes of the dump.
func ends(file io.ReaderAt, r *plugins.LoadRequest) error {
	r.Head, r.Tail = make([]byte, min(8, r.Bytes)), make([]byte, min(plugins.Withheld, r.Bytes))
	if _, err := file.ReadAt(r.Head, 0); err != nil {
		return err
	}
	_, err := file.ReadAt(r.Tail, r.Bytes-int64(len(r.Tail)))
	if errors.Is(err, io.EOF) && len(r.Tail) > 0 {
		err = nil // ReadAt may say so beside the last bytes
	}
	return err
}

// counted tells how much of a reader was read.
type counted struct {
	reader io.Reader
	bytes  int64
	tell   func(bytes int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	c.bytes += int64(n)
	c.tell(c.bytes)
	return n, err
}

// counter tells of progress, once a second at most.
func (l *loading) counter(s LoadStep) func(int64) {
	began := l.Now()
	last := began
	return func(bytes int64) {
		now := l.Now()
		if now.Sub(last) < time.Second {
			return
		}
		last = now
		rate := int64(float64(bytes) / now.Sub(began).Seconds())
		e := catalog.Event{State: catalog.Progress, Bytes: bytes, Total: s.Dump.Bytes, Rate: rate}
		if rate > 0 {
			e.Left = time.Duration((s.Dump.Bytes-bytes)/rate) * time.Second
		}
		l.tell(s, e)
	}
}

// tell fills in what all events of a load have in common.
func (l *loading) tell(s LoadStep, e catalog.Event) {
	shot := l.plan.Point.Snapshot
	e.Time, e.Run, e.Phase = l.Now(), l.plan.Run, catalog.PhaseLoad
	e.Namespace, e.App, e.Claim, e.Pod, e.Name = l.plan.ToNamespace, shot.App(), shot.Claim, l.plan.Server.Pod, shot.Name
	e.Message = cmp.Or(e.Message, s.String())
	l.watcher.Event(e)
}

// failed is err as a person needs to see it.
func (l *loading) failed(ctx context.Context, s LoadStep, state State, err error) error {
	f := &catalog.Failure{
		Code: catalog.CodeLoad, Message: fmt.Sprintf("%s not loaded into pod %s", s, l.plan.Server.Pod), Cause: err,
		State: l.words(s, state), Next: "read the cause; the same command may be given again",
	}
	var said *plugins.Error
	var inner *catalog.Failure
	switch {
	case ctx.Err() != nil:
		f.Cause, f.Code = context.Cause(ctx), catalog.CodeInterrupted
		if code := catalog.CodeOf(f.Cause); code != "" { // a lost lock says itself what it is
			f.Code = code
		}
	case errors.As(err, &said):
		f.Code, f.Next = loadCode(said.Kind), cmp.Or(said.Hint, f.Next)
		if said.Kind == plugins.VerifyFailed && l.plan.Live {
			f.Next = "take the dump from the set: --from snapshot, or --from copy"
		}
	case errors.Is(err, plugins.ErrTruncated):
		f.Code = catalog.CodeTruncated
	case errors.Is(err, errTimeout):
		f.Code = catalog.CodeNotReady
	case errors.As(err, &inner):
		f.Code, f.Next = inner.Code, cmp.Or(inner.Next, f.Next)
	}
	return f
}

// words say what is left.
func (l *loading) words(s LoadStep, state State) string {
	switch {
	case state == Partial:
		return s.String() + " is partial: what came before the failure is there"
	case state == Unknown && l.plan.Transactional():
		return s.String() + " is as it was, unless the server had just ended the transaction"
	case state == Unknown:
		return s.String() + " may be partial: nobody has heard how it ended"
	case s.Fresh && !s.Stand.There:
		return s.String() + ": nothing of it is there"
	}
	return s.String() + ": what was there is untouched"
}

// loadCode is the code of what a script said.
func loadCode(kind plugins.Kind) catalog.Code {
	switch kind {
	case plugins.NotEmpty, plugins.Unsupported:
		return catalog.CodeTarget
	case plugins.NoDump:
		return catalog.CodeNoDump
	case plugins.VerifyFailed, plugins.LostClient:
		return catalog.CodeTruncated
	case plugins.NoServer, plugins.Starting, plugins.Recovery, plugins.Unavailable, plugins.NoTool, plugins.Permission:
		return catalog.CodeHook
	}
	return catalog.CodeLoad
}

// serverFailure is a server that could not be looked into.
func serverFailure(err error, into, namespace string) error {
	if catalog.CodeOf(err) != "" {
		return err
	}
	f := &catalog.Failure{
		Code: catalog.CodeHook, Message: fmt.Sprintf("the server of %s in %s cannot be loaded into", into, namespace), Cause: err,
		State: "nothing changed", Next: "kubectl get pods -n " + namespace,
	}
	var said *plugins.Error
	if errors.As(err, &said) {
		f.Code, f.Next = loadCode(said.Kind), cmp.Or(said.Hint, f.Next)
	}
	return f
}

// in is how a command is run in a container.
func in(c Cluster, ref catalog.ContainerRef) plugins.Exec {
	return func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
		return c.Exec(ctx, ref, argv, stdin, stdout, stderr)
	}
}

// lookInto looks into a server.
func lookInto(ctx context.Context, c Cluster, ref catalog.ContainerRef, plugin plugins.Plugin, databases []string) (plugins.Server, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errTimeout)
	defer cancel()
	return plugins.Run(ctx, in(c, ref), nil, func(nonce string) (plugins.Command, error) { return plugin.Look(nonce, databases) }, plugins.ReadServer)
}

// findFile looks at a file in a container.
func findFile(ctx context.Context, c Cluster, ref catalog.ContainerRef, plugin plugins.Plugin, name string, text bool) (plugins.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errTimeout)
	defer cancel()
	return plugins.Run(ctx, in(c, ref), nil, func(nonce string) (plugins.Command, error) { return plugin.Find(nonce, name, text) }, plugins.ReadFile)
}
