package kube

import (
	"context"
	"io"
	"sync"
)

// outletRoom is how much a command may write that its reader has not taken.
const outletRoom = 8 << 20

// outlet hands what is written to it on to a writer of ours, from a goroutine
// of its own: one connection carries all streams and its signs of life, and is
// cut after a minute in which nobody reads it. It never fails, so that its
// stream is always drained.
type outlet struct {
	writer io.Writer
	done   chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	changed sync.Cond
	waiting []byte // not yet taken by writer
	ended   bool   // nothing more is to come
	deaf    bool   // nobody takes anything any more
	err     error  // of writer
}

// newOutlet drops what it gets if writer is nil.
func newOutlet(writer io.Writer) *outlet {
	if writer == nil {
		writer = io.Discard
	}
	o := &outlet{writer: writer, done: make(chan struct{})}
	o.changed.L = &o.mu
	go o.hand()
	return o
}

// Write takes p; it waits only while there is no room.
func (o *outlet) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) > outletRoom {
		o.changed.Wait()
	}
	if !o.deaf {
		o.waiting = append(o.waiting, p...)
		o.changed.Broadcast()
	}
	return len(p), nil
}

// hand passes on what comes, until all is passed on or nobody wants it.
func (o *outlet) hand() {
	defer close(o.done)
	for {
		chunk := o.take()
		if chunk == nil {
			return
		}
		if _, err := o.writer.Write(chunk); err != nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.err = err
			o.drop()
			return
		}
	}
}

// take waits for something to pass on; nil is the end.
func (o *outlet) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) == 0 && !o.ended && !o.deaf {
		o.changed.Wait()
	}
	chunk := o.waiting
	o.waiting = nil
	o.changed.Broadcast()
	return chunk
}

// drop makes the outlet swallow all from now on. The caller holds the lock.
func (o *outlet) drop() {
	o.deaf, o.waiting = true, nil
	o.changed.Broadcast()
}

// finish waits until all has been handed on, and is the writer's error; or
// ctx's cause, if that ends first.
func (o *outlet) finish(ctx context.Context) error {
	o.mu.Lock()
	o.ended = true
	o.changed.Broadcast()
	o.mu.Unlock()
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		o.cut()
		return context.Cause(ctx)
	}
}

// cut drops what has not been handed on. It waits for a Write to the writer
// that has begun.
func (o *outlet) cut() {
	o.mu.Lock()
	o.drop()
	o.mu.Unlock()
	<-o.done
}

// inlet is a reader that ends where its own fails, and keeps the error.
type inlet struct {
	reader io.Reader

	mu  sync.Mutex
	err error
}

// Read is the reader's; its error becomes the stream's end.
func (i *inlet) Read(p []byte) (int, error) {
	n, err := i.reader.Read(p)
	if err != nil && err != io.EOF {
		i.mu.Lock()
		i.err = err
		i.mu.Unlock()
		err = io.EOF
	}
	return n, err
}

// failure is the reader's error; nil for no reader.
func (i *inlet) failure() error {
	if i == nil {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}
