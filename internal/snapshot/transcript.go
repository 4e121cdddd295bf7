package snapshot

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// maxTranscript bounds what a script may say; it says a few lines.
const maxTranscript = 1 << 20

// transcript collects the standard output of a script and tells when its last
// line is there. It never blocks.
type transcript struct {
	mu    sync.Mutex
	text  []byte
	done  func(stdout []byte) bool
	ended func()
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.text)+len(p) > maxTranscript {
		return 0, fmt.Errorf("script said more than %d bytes", maxTranscript)
	}
	t.text = append(t.text, p...)
	if t.done(t.text) {
		t.ended()
	}
	return len(p), nil
}

func (t *transcript) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.text)
}

// maxTail bounds what is kept of a tool's own messages.
const maxTail = 64 << 10

// lastLines keeps the end of standard error: the tool's own last words. It
// never blocks.
type lastLines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if over := len(l.text) - maxTail; over > 0 {
		l.text = l.text[over:]
	}
	return len(p), nil
}

// explain adds the tool's last three lines to err, but for those that it has
// already.
func (l *lastLines) explain(nonce string, err error) error {
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(string(l.text)) {
		line = strings.TrimSpace(line)
		if line != "" && !plugins.Tick(nonce, line) && !strings.Contains(err.Error(), line) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(lines[max(0, len(lines)-3):], " | "))
}
