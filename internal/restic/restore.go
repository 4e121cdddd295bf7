package restic

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// restorePowers are the capabilities without which root cannot give files
// their owners, modes, devices and extended attributes back. All pass Pod
// Security's level baseline.
var restorePowers = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"}

// Restore is what a claim is filled with from a copy.
type Restore struct {
	Namespace, Name string // of the Job
	Image           string
	Repository      catalog.Repository
	Run             catalog.Run
	Source          catalog.Source // what the Job says of itself
	// From is the namespace that the copy is of: what {namespace} in the
	// repository's address stands for.
	From     string
	Snapshot string // restic's id of the copy
	Claim    string // that is filled; it must be empty
	// Paths are all that is restored, relative to the volume's root; none for
	// all of the copy.
	Paths []string
	// Block: the copy is the image of a device of that many bytes, and so is
	// what is filled.
	Block bool
	Size  int64
	// NodeAffinity is where the source volume was, as in the API: a good place
	// for this one, if it is still there. nil for none.
	NodeAffinity json.RawMessage
	Deadline     time.Duration // for restic itself
	Pod          Pod           // whose User does not count
	Locks        Locks
}

// Job is the mover that fills the claim, as root: any other user would lose the
// owners of files, and restic would not say so. `ID:/data` as the source would lose
// mode and owner of the volume's root, and labels of SELinux cannot be written
// in a container.
func (r Restore) Job() (Job, error) {
	job, err := mover(r.Namespace, r.Name, r.Image, r.Repository, r.Run, r.Pod)
	if err != nil {
		return Job{}, err
	}
	source, err := json.Marshal(r.Source)
	if err != nil {
		return Job{}, fmt.Errorf("write source: %w", err)
	}
	job.Labels[catalog.LabelNamespace] = r.Source.Namespace
	job.Labels[catalog.LabelClaim] = catalog.ClaimLabel(r.Source.Claim)
	job.Annotations[catalog.AnnotationSource] = string(source)
	args := append([]string{"restore", r.Snapshot, "--json", "--target", "/"}, r.includes()...)
	args = append(args, "--delete", "--sparse", "--verify", "--exclude-xattr", "security.selinux")
	job.Args = arguments(StepRestore, r.Deadline, r.Locks, args)
	job.Env = append(job.Env, Env{"BACKSNAP_NAMESPACE", r.From}, Env{"BACKSNAP_DATA", DataPath})
	if len(r.Paths) > 0 {
		job.Env = append(job.Env, Env{"BACKSNAP_PATHS", octals(r.Paths)})
	}
	job.Claim, job.Writes, job.Powers = r.Claim, true, restorePowers
	job.User = 0
	if r.Block {
		r.image(&job)
	}
	job.NodeAffinity, job.AnyNode = r.NodeAffinity, true
	job.Keep, job.Deadline = keepErrand, r.Deadline+setup
	return job, nil
}

// includes are the arguments that say what of the copy is restored.
func (r Restore) includes() []string {
	if len(r.Paths) == 0 {
		return []string{"--include", DataPath}
	}
	var args []string
	for _, path := range r.Paths {
		args = append(args, "--include", include(path))
	}
	return args
}

// octals are paths as the wrapper reads them, one a line.
func octals(paths []string) string {
	lines := make([]string, len(paths))
	for i, path := range paths {
		lines[i] = octal(path)
	}
	return strings.Join(lines, "\n")
}

// Restored is what restic says of a restore that it has done.
type Restored struct {
	Items, Total      int64 // files, folders and all else: done, and all that there are
	Bytes, TotalBytes int64 // of files, hard links once
}

// Counted is what lies in the volume after a restore: regular files by all
// their names, and their bytes. It is what a backup counts too.
type Counted struct{ Files, Bytes int64 }

// readCounted reads the wrapper's line `counted files=3 bytes=4096`.
func readCounted(line string) *Counted {
	var c Counted
	if n, err := fmt.Sscanf(line, "counted files=%d bytes=%d", &c.Files, &c.Bytes); n != 2 || err != nil {
		return nil
	}
	return &c
}

// Err is why a mover that ended so did not do what it was for, with what the
// cluster knows beyond its report.
func (e End) Err(report Report, want string) error {
	if e.Pod == "" {
		return &Error{Report: Report{Exit: ExitFailed, Lines: []string{e.Reason + ": " + e.Message}}}
	}
	err := report.Err(want)
	if err != nil && e.Killed != "" {
		err = fmt.Errorf("%s: %w", e.Killed, err)
	}
	if err != nil && e.Reason == "DeadlineExceeded" {
		err = fmt.Errorf("%s: %w", e.Reason, err)
	}
	return err
}
