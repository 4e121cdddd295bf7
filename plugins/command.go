package plugins

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// bootstrap reads the loader (load.sh) from standard input and runs it, leaving
// what follows for it to read. dd takes single bytes, for sh and head may read
// ahead.
const bootstrap = `IFS= read -r n; eval "$(dd bs=1 count="$n" 2>/dev/null)"`

// Command is a script to be run in a container.
//
// Send Stdin and then keep standard input open: its end tells the script that
// the client is gone, upon which it ends its tools and removes what it has
// written. Close it once [Done] says so. Collect standard output whole for the
// Read function of the step; standard error is what the tools say, and lines
// for which [Tick] holds, at least one every 15 seconds.
type Command struct {
	Argv  []string // one constant, since it is in the API server's audit log
	Stdin []byte
}

// DumpRequest says how to dump.
type DumpRequest struct {
	Run     string        // run id, of which the files are named: [a-z0-9-]
	Timeout time.Duration // for the whole script, held inside the container too; at least a second
	Barrier bool          // afterwards force everything acknowledged onto the disk
}

// NewNonce returns 32 hex digits that no other run has.
func NewNonce() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Probe looks, changing nothing: which server runs here, in which role, can it
// be logged in to, are the tools there, will the dump fit. Read it with
// [ReadProbe].
func (p Plugin) Probe(nonce string) (Command, error) {
	return p.command(stepProbe, nonce)
}

// Dump dumps every database of the server into files on its own volume and
// proves them. Read it with [ReadDump].
func (p Plugin) Dump(nonce string, r DumpRequest) (Command, error) {
	if !runID.MatchString(r.Run) {
		return Command{}, fmt.Errorf("dump by %s: run id %q is not of [a-z0-9-]", p.Name, r.Run)
	}
	if r.Timeout < time.Second {
		return Command{}, fmt.Errorf("dump by %s: timeout %s is under a second", p.Name, r.Timeout)
	}
	seconds := strconv.FormatInt(int64(r.Timeout/time.Second), 10)
	barrier := "no"
	if r.Barrier {
		barrier = "yes"
	}
	return p.command(stepDump, nonce, r.Run, seconds, barrier)
}

// Remove removes the dump of a run from dir, which is the Dir of its [Dump].
// Read it with [ReadRemoval].
func (p Plugin) Remove(nonce, run, dir string) (Command, error) {
	if !runID.MatchString(run) {
		return Command{}, fmt.Errorf("remove dump by %s: run id %q is not of [a-z0-9-]", p.Name, run)
	}
	return p.command(stepRemove, nonce, run, dir)
}

// Barrier forces everything the server has acknowledged onto the disk. Read it
// with [ReadBarrier].
func (p Plugin) Barrier(nonce string) (Command, error) {
	return p.command(stepBarrier, nonce)
}

var runID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// command makes the command of one step. The values follow the script, one a
// line.
func (p Plugin) command(step, nonce string, values ...string) (Command, error) {
	script, ok := p.scripts[step]
	if !ok {
		return Command{}, fmt.Errorf("plugin %s: does not know how to %s", p.Name, step)
	}
	if !nonceForm.MatchString(nonce) {
		return Command{}, fmt.Errorf("%s by %s: nonce %q is not of [a-z0-9]", step, p.Name, nonce)
	}
	var b bytes.Buffer
	b.WriteString(script)
	for _, v := range append([]string{nonce}, values...) {
		if strings.ContainsAny(v, "\n\x00") {
			return Command{}, fmt.Errorf("%s by %s: value %q does not fit on one line", step, p.Name, v)
		}
		b.WriteString(v + "\n")
	}
	return Command{Argv: []string{"sh", "-c", bootstrap}, Stdin: b.Bytes()}, nil
}

var nonceForm = regexp.MustCompile(`^[a-z0-9]+$`)
