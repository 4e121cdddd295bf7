package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress writes one line for each step that did something.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, start: time.Now()}
}

// step runs f and says how long it took; f tells in a few words what it did,
// and nothing if there was nothing to do. A step that fails is left to the
// error.
func (p *progress) step(f func() (string, error)) error {
	begin := time.Now()
	done, err := f()
	if err == nil && done != "" {
		p.say("%s in %.1fs", done, time.Since(begin).Seconds())
	}
	return err
}

// steps runs one after the other until one fails; changed is false if none had
// anything to do.
func (p *progress) steps(all ...func() (string, error)) (changed bool, err error) {
	for _, f := range all {
		err := p.step(func() (string, error) {
			done, err := f()
			changed = changed || done != ""
			return done, err
		})
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%6.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}
