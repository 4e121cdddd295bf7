package catalog

import (
	"fmt"
	"io"
	"regexp"
	"time"
)

// Run is the id of one run: the moment it began in UTC and four random
// characters, `20261122-011500-x7k2`. Runs sort in time order.
type Run string

const (
	runTime  = "20060102-150405"
	alphabet = "abcdefghijkmnopqrstuvwxyz0123456789" // no l: it reads as 1
)

var runForm = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[a-z0-9]{4}$`)

// NewRun makes the id of a run that begins at now, with four characters drawn
// from random; its error is random's.
func NewRun(now time.Time, random io.Reader) (Run, error) {
	var tail [4]byte
	if _, err := io.ReadFull(random, tail[:]); err != nil {
		return "", fmt.Errorf("draw run id: %w", err)
	}
	for i, b := range tail {
		tail[i] = alphabet[int(b)%len(alphabet)]
	}
	return Run(now.UTC().Format(runTime) + "-" + string(tail[:])), nil
}

// ParseRun reads a run id; anything else is an error.
func ParseRun(s string) (Run, error) {
	if !runForm.MatchString(s) {
		return "", fmt.Errorf("run %q: want the form 20261122-011500-x7k2", s)
	}
	if _, err := time.Parse(runTime, s[:len(runTime)]); err != nil {
		return "", fmt.Errorf("run %q: %w", s, err)
	}
	return Run(s), nil
}
