package cli_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

// Only y on a terminal, or --yes, is a yes.
func TestConfirm(t *testing.T) {
	for answer, want := range map[string]catalog.Code{"y\n": "", "Yes\n": "", "n\n": "BS071", "\n": "BS071", "why not\n": "BS071", "\x04": "BS071"} {
		screen, tty, err := pty.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := screen.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		var asked bytes.Buffer
		err = cli.Confirm(t.Context(), &cli.Env{In: tty, Err: &asked}, false, "Stop it?", "kubectl backsnap abort run/x")
		if got := catalog.CodeOf(err); got != want || want == "" && err != nil {
			t.Errorf("%q: %v, want %q", answer, err, want)
		}
		if asked.String() != "Stop it? (y/N): " {
			t.Errorf("it was asked %q", &asked)
		}
		tty.Close()
		screen.Close()
	}
	env := &cli.Env{In: strings.NewReader("y\n"), Err: &bytes.Buffer{}}
	if err := cli.Confirm(t.Context(), env, false, "Stop it?", "x"); catalog.CodeOf(err) != "BS071" {
		t.Errorf("a pipe has said yes: %v", err)
	}
	if err := cli.Confirm(t.Context(), env, true, "Stop it?", "x"); err != nil {
		t.Errorf("--yes: %v", err)
	}
}

// ^C ends the question.
func TestConfirmIsInterrupted(t *testing.T) {
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	boom := errors.New("boom")
	cancel(boom)
	if err := cli.Confirm(ctx, &cli.Env{In: tty, Err: &bytes.Buffer{}}, false, "Stop it?", "x"); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
	screen.Close() // ends the reading
	tty.Close()
}
