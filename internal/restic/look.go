package restic

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

//go:embed look.sh
var lookScript string

// Look is a volume of which is to be seen whether it can be read.
type Look struct {
	Namespace, Name string // of the Job
	Image           string // any with a shell in it: restic's own is at hand
	Run             catalog.Run
	Source          catalog.Source // what the Job says of itself
	Claim           string         // whose volume it is; mounted read-only
	Block           bool           // it is a device
	// Dumps are files in it whose SHA-256 is known. They are read where Pod.User
	// is 0; any other user sees only that the volume is there.
	Dumps []catalog.Dump
	// NodeAffinity is where the pod must be, as in the API; nil for anywhere.
	NodeAffinity json.RawMessage
	Pod          Pod // without ServiceAccount and cache
	Deadline     time.Duration
}

// Job is the pod that looks. It has no Secret.
func (l Look) Job() (Job, error) {
	job, err := errand(l.Namespace, l.Name, l.Image, l.Run, l.Source, l.Pod)
	if err != nil {
		return Job{}, err
	}
	mode := "read"
	if job.User != 0 {
		mode = "mount"
	}
	var sums strings.Builder
	for _, d := range l.Dumps {
		fmt.Fprintf(&sums, "%s %s\n", d.SHA256, octal(d.Path))
	}
	job.Command, job.Args = []string{"/bin/sh", "-c", lookScript, "backsnap"}, []string{mode}
	job.Env = append(job.Env, Env{"BACKSNAP_SUMS", sums.String()})
	job.Claim, job.Block, job.NodeAffinity, job.Deadline = l.Claim, l.Block, l.NodeAffinity, l.Deadline+setup
	return job, nil
}

// LookUnfit is the exit code of a Look whose volume will not do.
const LookUnfit = 3

// Looked is what a Look has found: regular files, and those of them that are
// what they were.
type Looked struct{ Files, Sums int }

// ReadLooked reads how a Look has ended.
func ReadLooked(e End) (l Looked, err error) {
	text := strings.TrimSpace(e.Text)
	if e.Pod != "" && e.Exit == 0 {
		if _, err := fmt.Sscanf(text, "looked files=%d sums=%d", &l.Files, &l.Sums); err != nil {
			return l, fmt.Errorf("%w: %q", ErrCut, text)
		}
		return l, nil
	}
	return l, errors.New(cmp.Or(text, e.Killed, strings.TrimSpace(e.Reason+" "+e.Message), fmt.Sprintf("exit %d", e.Exit)))
}
