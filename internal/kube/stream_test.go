package kube

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// gate blocks each Write until it is opened.
type gate struct {
	open chan struct{}
	bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.Buffer.Write(p)
}

// A reader that stands still for long does not hold up the stream, and gets
// all of it in the end.
func TestOutletTakesWhatItsReaderDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		o := newOutlet(g)
		began := time.Now()
		for range outletRoom >> 10 {
			if n, err := o.Write(make([]byte, 1<<10)); n != 1<<10 || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		equal(t, "time held up", time.Duration(0), time.Since(began))
		time.AfterFunc(time.Hour, func() { close(g.open) })
		if err := o.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		equal(t, "bytes", outletRoom, g.Len())
	})
}

// With more than it may hold, the stream waits for its reader and loses nothing.
func TestOutletHoldsUpWhenItIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		o := newOutlet(g)
		time.AfterFunc(time.Hour, func() { close(g.open) })
		began := time.Now()
		for range 8 {
			_, _ = o.Write(make([]byte, outletRoom)) // it never fails
		}
		equal(t, "time held up", time.Hour, time.Since(began))
		if err := o.finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		equal(t, "bytes", 8*outletRoom, g.Len())
	})
}

// The end of the context is not held up by what is still to be handed on, and
// nothing is handed on after it.
func TestOutletEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		o := newOutlet(g)
		_, _ = o.Write([]byte("begun")) // it never fails
		synctest.Wait()
		_, _ = o.Write([]byte("waiting"))
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(stop)
		go func() { time.Sleep(time.Second); close(g.open) }()
		equal(t, "error", stop, o.finish(ctx))
		equal(t, "handed on", "begun", g.String())
		_, _ = o.Write([]byte("late"))
		synctest.Wait()
		equal(t, "handed on", "begun", g.String())
	})
}
