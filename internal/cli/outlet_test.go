package cli

import (
	"context"
	"errors"
	"os"
	"testing"
)

// A command that shows what happens ends when nobody reads any more, also while
// there is nothing to write.
func TestWhileRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out := newOutlet(w)
	ctx, stop := whileRead(t.Context(), out)
	defer stop()
	if _, err := out.Write([]byte("read\n")); err != nil || ctx.Err() != nil || closed(out) {
		t.Fatalf("while it is read: %v, %v", err, ctx.Err())
	}
	r.Close()
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, errUnread) || !errors.Is(cause, context.Canceled) || !closed(out) {
		t.Errorf("it ends with %v", cause)
	}
	if n, err := out.Write([]byte("lost\n")); n != 5 || err != nil {
		t.Errorf("what is written then: %d, %v", n, err)
	}

	ctx, stop = whileRead(t.Context(), newOutlet(w)) // what is gone already
	defer stop()
	<-ctx.Done()
}
