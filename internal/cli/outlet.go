package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// outlet is standard output that may be closed by its reader, as `head` does:
// what is written then is lost, and the command goes on and ends as it would
// have. A run is not to be given up for that.
type outlet struct {
	io.Writer
	once sync.Once
	gone chan struct{} // closed when nobody reads it any more
}

func newOutlet(w io.Writer) *outlet { return &outlet{Writer: w, gone: make(chan struct{})} }

func (o *outlet) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		o.abandon()
		return len(p), nil
	}
	return n, err
}

func (o *outlet) abandon() { o.once.Do(func() { close(o.gone) }) }

// closed reports whether nobody reads w any more, as far as writing to it has shown.
func closed(w io.Writer) bool {
	o, ok := w.(*outlet)
	if !ok {
		return false
	}
	select {
	case <-o.gone:
		return true
	default:
		return false
	}
}

// errUnread is the cause of a context that ended because nobody reads.
var errUnread = fmt.Errorf("nobody reads the output any more: %w", context.Canceled)

// whileRead is ctx for a command that only shows what happens: it ends as soon
// as nobody reads w any more, also while there is nothing to write.
func whileRead(ctx context.Context, w io.Writer) (context.Context, func()) {
	o, ok := w.(*outlet)
	if !ok {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	if file, ok := o.Writer.(*os.File); ok {
		go func() { // ends with the process
			if awaitUnread(file) {
				o.abandon()
			}
		}()
	}
	go func() {
		select {
		case <-o.gone:
			cancel(errUnread)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
