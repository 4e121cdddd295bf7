package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// terminal redraws the lines of what is under way in place, below the lines
// of what is done. Glyphs carry the meaning; colour only repeats it.
type terminal struct {
	mu     sync.Mutex
	w      io.Writer
	width  int
	colour bool
	live   []*liveLine // under way, in order of their start
	drawn  int         // lines on the screen that will be redrawn
	closed bool
}

type liveLine struct{ key, text string }

// newTerminal is a terminal of that many columns; 0 where nobody knows.
func newTerminal(w io.Writer, width int, colour bool) *terminal {
	if width == 0 {
		width = 80
	}
	return &terminal{w: w, width: width, colour: colour}
}

// Close leaves what is still under way as it stands.
func (t *terminal) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live, t.drawn, t.closed = nil, 0, true
}

func (t *terminal) text() bool { return true }

// Result is the run in one line.
func (t *terminal) Result(_ time.Time, e ending) { fmt.Fprintf(t.w, "%s\n", e.summary) }

// Note writes the sentence above what is under way.
func (t *terminal) Note(sentence string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draw(printable(sentence) + "\n")
}

func (t *terminal) Event(e catalog.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	done := ""
	switch e.State {
	case catalog.Started, catalog.Progress, catalog.Cut:
		t.set(e)
	case catalog.Warning:
		done = t.row("warn", "33", e)
	case catalog.Failed:
		t.drop(e)
		done = t.row("FAIL", "31", e)
	default:
		t.drop(e)
		done = t.row("ok", "32", e)
	}
	t.draw(done)
}

// draw writes what is done, and below it anew what is under way.
func (t *terminal) draw(done string) {
	var screen strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&screen, "\x1b[%dA\r\x1b[J", t.drawn)
	}
	screen.WriteString(done)
	for _, l := range t.live {
		screen.WriteString(l.text)
	}
	t.drawn = len(t.live)
	io.WriteString(t.w, screen.String())
}

func lineKey(e catalog.Event) string {
	return fmt.Sprint(e.Phase, "/", e.Namespace, "/", e.Claim, "/", e.Repository, "/", subjectPod(e))
}

// subjectPod is the pod that an event is about: that of an upload is the
// mover's and comes and goes.
func subjectPod(e catalog.Event) string {
	if e.Claim != "" {
		return ""
	}
	return e.Pod
}

func (t *terminal) set(e catalog.Event) {
	text := t.row("..", "36", e)
	for _, l := range t.live {
		if l.key == lineKey(e) {
			l.text = text
			return
		}
	}
	t.live = append(t.live, &liveLine{lineKey(e), text})
}

func (t *terminal) drop(e catalog.Event) {
	for i, l := range t.live {
		if l.key == lineKey(e) {
			t.live = append(t.live[:i], t.live[i+1:]...)
			return
		}
	}
}

// row is one line of the screen, and never wider than it, so that it can be
// redrawn; but for a warning, which is all that is said of its cause.
func (t *terminal) row(mark, colour string, e catalog.Event) string {
	subject := e.Claim
	if subject == "" {
		subject = e.Pod
	}
	if subject == "" && e.Phase == catalog.PhaseUpload {
		subject = e.Message // all copies together
	}
	if subject == "" && e.Phase == catalog.PhaseSweep {
		subject = e.Name // a restore point
	}
	text := []rune(fmt.Sprintf("%-9s %-16s %s", e.Phase, subject, describe(e)))
	if room := max(t.width-9, 31); len(text) > room && e.State != catalog.Warning {
		text = append(text[:room-1], '~')
	}
	mark = fmt.Sprintf("%-4s", mark)
	if t.colour {
		mark = "\x1b[" + colour + "m" + mark + "\x1b[0m"
	}
	return "  " + mark + "  " + strings.TrimRight(printable(string(text)), " ") + "\n"
}

// describe is what a person wants to know of an event.
func describe(e catalog.Event) string {
	switch {
	case e.State == catalog.Warning || e.State == catalog.Failed:
		return e.Message
	case e.State == catalog.Cut:
		return "cut, waiting until it is ready"
	case e.State == catalog.Progress && e.Total > 0:
		return bar(e)
	case e.State == catalog.Progress && e.Bytes == 0:
		return ""
	case e.State == catalog.Progress:
		return size(e.Bytes) + " so far"
	case e.State == catalog.Started && e.Phase == catalog.PhaseSnapshot:
		return "asked for, waiting for the cut"
	case e.State == catalog.Started:
		return strings.TrimSpace(e.Tool + " " + toRepository(e))
	case e.Phase == catalog.PhaseDump:
		return fmt.Sprintf("%s in %s, proven", size(e.Bytes), span(e.Took))
	case e.Phase == catalog.PhaseSnapshot:
		return "ready in " + span(e.Took)
	case e.Phase == catalog.PhaseRestore:
		return restoredWords(e)
	case e.Phase == catalog.PhaseUpload && e.Claim == "":
		return fmt.Sprintf("%s in %s", size(e.Bytes), span(e.Took))
	case e.Phase == catalog.PhaseUpload:
		return fmt.Sprintf("%s in %s, %s new, restic %s %s", size(e.Bytes), span(e.Took), size(e.Added), short(e.Copy), toRepository(e))
	}
	return e.Message
}

// restoredWords are of a claim that is there, or will be when a pod mounts it.
func restoredWords(e catalog.Event) string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Copy != "":
		return fmt.Sprintf("%s in %s from copy %s, verified", size(e.Bytes), span(e.Took), short(e.Copy))
	}
	return "bound in " + span(e.Took)
}

func toRepository(e catalog.Event) string {
	if e.Repository == "" {
		return ""
	}
	return "to " + e.Repository
}

func bar(e catalog.Event) string {
	const cells = 20
	done := int(min(e.Bytes, e.Total) * cells / e.Total)
	arrow := strings.Repeat("=", done)
	if done < cells {
		arrow += ">" + strings.Repeat("-", cells-done-1)
	}
	text := fmt.Sprintf("[%s] %3d%%  %s", arrow, percent(e), share(e.Bytes, e.Total))
	if e.Rate > 0 {
		text += fmt.Sprintf("  %s/s", size(e.Rate))
	}
	if e.Left > 0 {
		text += fmt.Sprintf("  %s left", span(e.Left))
	}
	return text
}

// printable is s on one line and without control characters: what a database
// says is not to steer the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ReplaceAll(s, "\n", "; "))
}
