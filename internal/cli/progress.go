package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// progress shows the events of a run. It is safe for use by several
// goroutines and is closed when the run is over, before anything else is
// written to its stream.
type progress interface {
	catalog.Watcher
	// text reports whether sentences may stand beside the events.
	text() bool
	// Note is a sentence for a person who looks on, and nobody else.
	Note(sentence string)
	// Close returns when nothing of an event will be written any more: later
	// ones are dropped.
	Close()
	// Result is the end of it, after Close.
	Result(now time.Time, e ending)
}

// ending is a run in one line.
type ending struct {
	run                   catalog.Run
	result                string
	exitCode              int
	took                  time.Duration
	verb                  string // what was done: protected, restored
	done, failed, skipped int
	added                 int64  // bytes stored in repositories
	summary               string // the whole of it in words
}

// The verbs of endings.
const (
	verbProtected = "protected"
	verbCopied    = "copied"
	verbRestored  = "restored"
	verbPruned    = "pruned"
	verbAdopted   = "adopted"
)

// progressFlags are --progress, --color and --quiet.
type progressFlags struct {
	mode, color string
	quiet       bool
}

func (f *progressFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.mode, "progress", "auto", "How progress is shown on standard error: auto, tty, plain, json or none")
	flags.StringVar(&f.color, "color", "auto", "Colour on a terminal: auto, always or never")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Show errors only")
}

// show is the progress that the flags and the terminal ask for.
func (f *progressFlags) show(env *Env) (progress, error) {
	colour, err := f.colour(env)
	if err != nil {
		return nil, err
	}
	width := terminalWidth(env.Err)
	mode := f.mode
	if mode == "auto" {
		mode = "plain"
		if width >= 40 && env.Getenv("TERM") != "dumb" {
			mode = "tty"
		}
	}
	switch {
	case f.quiet || mode == "none":
		return silent{}, nil
	case mode == "tty":
		return newTerminal(env.Err, width, colour), nil
	case mode == "plain":
		return &plain{w: env.Err, shown: map[string]shown{}}, nil
	case mode == "json":
		return &ndjson{w: env.Err}, nil
	}
	return nil, fmt.Errorf("progress %q: want auto, tty, plain, json or none", f.mode)
}

// colour reports whether to colour what goes to standard error.
func (f *progressFlags) colour(env *Env) (bool, error) { return colourOf(f.color, env, env.Err) }

// colourOf reports whether to colour what goes to w, by flag, CLICOLOR_FORCE
// and NO_COLOR.
func colourOf(flag string, env *Env, w io.Writer) (bool, error) {
	switch flag {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		force := env.Getenv("CLICOLOR_FORCE")
		return env.Getenv("NO_COLOR") == "" && (force != "" && force != "0" || terminalWidth(w) > 0 && env.Getenv("TERM") != "dumb"), nil
	}
	return false, fmt.Errorf("color %q: want auto, always or never", flag)
}

// terminalWidth is the number of columns of w, 0 where it is no terminal.
func terminalWidth(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

type silent struct{}

func (silent) Event(catalog.Event)      {}
func (silent) text() bool               { return false }
func (silent) Note(string)              {}
func (silent) Close()                   {}
func (silent) Result(time.Time, ending) {}

// plain writes one greppable line a change: no control characters, uploads at
// steps of ten per cent or every thirty seconds.
type plain struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool
	shown  map[string]shown // last line of each upload
}

type shown struct {
	percent int
	at      time.Time
}

func (p *plain) text() bool { return true }

func (p *plain) Note(string) {}

func (p *plain) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

func (p *plain) Result(now time.Time, e ending) {
	fields := pairs(
		"run", string(e.run), "state", strings.ToLower(e.result), e.verb, strconv.Itoa(e.done), "failed", strconv.Itoa(e.failed), "skipped", strconv.Itoa(e.skipped),
		"exit", strconv.Itoa(e.exitCode), "duration", span(e.took), "added", number(e.added))
	fmt.Fprintf(p.w, "%s %-8s %s\n", now.Format(time.TimeOnly), catalog.PhaseResult, strings.Join(fields, " "))
}

func (p *plain) Event(e catalog.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || e.State == catalog.Progress && !p.due(e) {
		return
	}
	fields := pairs(
		"namespace", e.Namespace, "pvc", e.Claim, "pod", e.Pod, "repository", e.Repository, "state", plainState(e), "tool", e.Tool,
		"percent", percentOf(e), "bytes", number(e.Bytes), "total", number(e.Total), "rate", rate(e.Rate), "left", spanOrNone(e.Left), "duration", spanOrNone(e.Took),
		"name", e.Name, "snapshot", short(e.Copy), "added", number(e.Added), "message", e.Message)
	fmt.Fprintf(p.w, "%s %-8s %s\n", e.Time.Format(time.TimeOnly), e.Phase, strings.Join(fields, " "))
}

func (p *plain) due(e catalog.Event) bool {
	key := e.Repository + "/" + e.Namespace + "/" + e.Claim
	last, now := p.shown[key], shown{at: e.Time}
	if e.Total > 0 {
		now.percent = percent(e)
	}
	if now.percent/10 == last.percent/10 && now.at.Sub(last.at) < 30*time.Second {
		return false
	}
	p.shown[key] = now
	return true
}

func percent(e catalog.Event) int { return int(e.Bytes * 100 / e.Total) }

func percentOf(e catalog.Event) string {
	if e.Total == 0 {
		return ""
	}
	return strconv.Itoa(percent(e))
}

// plainState says of a snapshot that it is ready where others are ok.
func plainState(e catalog.Event) string {
	if e.Phase == catalog.PhaseSnapshot && e.State == catalog.OK {
		return "ready"
	}
	return string(e.State)
}

// pairs are `key=value` of each key and value, without those that are empty.
// A value with spaces is quoted.
func pairs(kv ...string) []string {
	var out []string
	for i := 0; i < len(kv); i += 2 {
		value := kv[i+1]
		if value == "" {
			continue
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r == ' ' || r == '"' || unicode.IsControl(r) }) {
			value = strconv.Quote(value)
		}
		out = append(out, kv[i]+"="+value)
	}
	return out
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func rate(bytes int64) string {
	switch {
	case bytes == 0:
		return ""
	case bytes < 1<<20:
		return fmt.Sprintf("%dKiB/s", bytes>>10)
	}
	return fmt.Sprintf("%dMiB/s", bytes>>20)
}

func spanOrNone(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return span(d)
}

// short is the beginning of a restic snapshot id, as restic itself shows it.
func short(id string) string { return id[:min(len(id), 8)] }

// ndjson writes one JSON document a line.
type ndjson struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool
}

// line is one event as a script reads it. Fields are only ever added.
type line struct {
	Time       time.Time     `json:"time"`
	Type       string        `json:"type"` // progress, warning, error, result
	Run        catalog.Run   `json:"run,omitempty"`
	Phase      catalog.Phase `json:"phase"`
	State      catalog.State `json:"state"`
	Namespace  string        `json:"namespace,omitempty"`
	App        string        `json:"app,omitempty"`
	Claim      string        `json:"pvc,omitempty"`
	Pod        string        `json:"pod,omitempty"`
	Name       string        `json:"volumeSnapshot,omitempty"`
	Repository string        `json:"repository,omitempty"`
	Tool       string        `json:"tool,omitempty"`
	Message    string        `json:"message,omitempty"`
	BytesDone  int64         `json:"bytesDone,omitempty"`
	BytesTotal int64         `json:"bytesTotal,omitempty"`
	BytesRate  int64         `json:"bytesPerSecond,omitempty"`
	Left       int64         `json:"etaSeconds,omitempty"`
	Took       float64       `json:"seconds,omitempty"`
	Copy       string        `json:"resticSnapshot,omitempty"`
	Added      int64         `json:"bytesAdded,omitempty"`
	*totals
}

// totals are the numbers of the last line.
type totals struct {
	Result    string `json:"result"`
	ExitCode  int    `json:"exitCode"`
	Protected *int   `json:"protected,omitempty"` // of `snapshot`
	Copied    *int   `json:"copied,omitempty"`    // of `copy`
	Restored  *int   `json:"restored,omitempty"`  // of `restore`
	Pruned    *int   `json:"pruned,omitempty"`    // of `prune`
	Adopted   *int   `json:"adopted,omitempty"`   // of `adopt`
	Failed    int    `json:"failed"`
	Skipped   int    `json:"skipped"`
}

func (p *ndjson) text() bool { return false }

func (p *ndjson) Note(string) {}

func (p *ndjson) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

func (p *ndjson) Result(now time.Time, e ending) {
	state := catalog.OK
	if e.exitCode != exitOK {
		state = catalog.Failed
	}
	sums := &totals{Result: e.result, ExitCode: e.exitCode, Failed: e.failed, Skipped: e.skipped}
	switch e.verb {
	case verbProtected:
		sums.Protected = &e.done
	case verbCopied:
		sums.Copied = &e.done
	case verbRestored:
		sums.Restored = &e.done
	case verbPruned:
		sums.Pruned = &e.done
	case verbAdopted:
		sums.Adopted = &e.done
	}
	p.write(line{
		Time: now.UTC(), Type: "result", Run: e.run, Phase: catalog.PhaseResult, State: state, Message: e.summary, Took: e.took.Seconds(), Added: e.added,
		totals: sums,
	})
}

func (p *ndjson) Event(e catalog.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	kind := "progress"
	switch e.State {
	case catalog.Warning:
		kind = "warning"
	case catalog.Failed:
		kind = "error"
	}
	p.write(line{
		Time: e.Time.UTC(), Type: kind, Run: e.Run, Phase: e.Phase, State: e.State, Namespace: e.Namespace, App: e.App, Claim: e.Claim,
		Pod: e.Pod, Name: e.Name, Repository: e.Repository, Tool: e.Tool, Message: printable(e.Message), BytesDone: e.Bytes, BytesTotal: e.Total,
		BytesRate: e.Rate, Left: int64(e.Left.Seconds()), Took: e.Took.Seconds(), Copy: e.Copy, Added: e.Added,
	})
}

func (p *ndjson) write(l line) {
	text, err := json.Marshal(l)
	if err != nil {
		return // numbers and strings always marshal
	}
	p.w.Write(append(text, '\n'))
}
