package plugins

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Exec runs argv in a container and returns when the command has ended, its
// streams are drained, or ctx is done. A non-zero exit is a *catalog.ExitError.
// A nil error proves nothing: cut streams end with one.
type Exec func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error

// Run runs one script of a plugin by exec and reads what it said. payload, which
// may be nil, follows the script. Standard input stays open until the script has
// said its last line: that it ends early tells the script that nobody waits for
// it any more. The error is an [*Error] where the script itself has failed, with
// the last lines of its tools; it wraps [ErrTruncated] where the script's end is
// not known; it is the cause of ctx where that has ended.
func Run[T any](ctx context.Context, exec Exec, payload io.Reader,
	command func(nonce string) (Command, error), read func(nonce string, stdout []byte) (T, error),
) (said T, err error) {
	nonce := NewNonce()
	cmd, err := command(nonce)
	if err != nil {
		return said, err
	}
	stdin, hold := io.Pipe()
	defer hold.Close()
	if payload == nil {
		payload = bytes.NewReader(nil)
	}
	out := &transcript{done: func(stdout []byte) bool { return Done(nonce, stdout) }, ended: func() { hold.Close() }}
	tail := &lastLines{}
	err = exec(ctx, cmd.Argv, io.MultiReader(bytes.NewReader(cmd.Stdin), payload, stdin), out, tail)
	said, readErr := read(nonce, out.bytes())
	return said, tail.explain(nonce, better(ctx, err, readErr))
}

// better is the error that says more: what the script itself said, else why
// the transport failed, else that the stream was not whole. Once the script's
// last word is there, which says that all went well, only an exit status that
// says otherwise counts: what becomes of the stream after it is no matter.
func better(ctx context.Context, execErr, readErr error) error {
	var said *Error
	var exit *catalog.ExitError
	switch {
	case errors.As(readErr, &said):
		return readErr
	case readErr == nil && errors.As(execErr, &exit):
		return execErr
	case readErr == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case execErr == nil:
		return readErr
	}
	return fmt.Errorf("%w: %w", readErr, execErr)
}

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
		if line != "" && !Tick(nonce, line) && !strings.Contains(err.Error(), line) {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s", err, strings.Join(lines[max(0, len(lines)-3):], " | "))
}
