package restic

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Exit is an exit code of a mover: restic's own (restic manual, "Exit codes"),
// and those of the wrapper.
type Exit int

// The exit codes that have a name. Any other is a failure.
const (
	ExitOK           Exit = 0
	ExitFailed       Exit = 1
	ExitBug          Exit = 2 // Go runtime error, out of memory among them
	ExitPartial      Exit = 3 // the copy was made, some files are not in it
	ExitNoRepository Exit = 10
	ExitLocked       Exit = 11
	ExitPassword     Exit = 12
	ExitTimeout      Exit = 124 // ours: it did not end in time
	ExitMissing      Exit = 127 // the shell's: the image has no restic
	ExitCancelled    Exit = 130 // TERM
	ExitKilled       Exit = 137 // KILL: mostly for want of memory
)

// Final are the codes after which another attempt would end alike, in
// ascending order.
var Final = []Exit{ExitPartial, ExitNoRepository, ExitLocked, ExitPassword, ExitTimeout, ExitMissing}

// String is what a person reads.
func (e Exit) String() string {
	switch e {
	case ExitOK:
		return "done"
	case ExitBug:
		return "restic crashed"
	case ExitPartial:
		return "some files could not be read"
	case ExitNoRepository:
		return "the repository does not exist"
	case ExitLocked:
		return "the repository is locked"
	case ExitPassword:
		return "the password is wrong"
	case ExitTimeout:
		return "restic did not end in time"
	case ExitMissing:
		return "the image has no restic"
	case ExitCancelled:
		return "restic was told to stop"
	case ExitKilled:
		return "restic was killed, most likely because it ran out of memory"
	}
	return "exit " + strconv.Itoa(int(e))
}

// Code is the kind of failure that e is, "" for ExitOK.
func (e Exit) Code() catalog.Code {
	switch e {
	case ExitOK:
		return ""
	case ExitPartial:
		return catalog.CodeRepoPartial
	case ExitNoRepository:
		return catalog.CodeNoRepository
	case ExitLocked:
		return catalog.CodeRepoLocked
	case ExitPassword:
		return catalog.CodeRepoPassword
	}
	return catalog.CodeMover
}

// Status is restic's progress, from a line of its log.
type Status struct {
	Bytes, Total int64 // Total grows until restic has seen all files
	Rate         int64 // bytes a second, since it began
	Left         time.Duration
}

// Of is s where all in all size bytes are read, which restic does not know of
// what it reads from a program; 0 leaves it to restic.
func (s Status) Of(size int64) Status {
	if size == 0 {
		return s
	}
	s.Total = max(size, s.Bytes)
	if s.Rate > 0 {
		s.Left = time.Duration((s.Total-s.Bytes)/s.Rate) * time.Second
	}
	return s
}

// ReadStatus reads one line of a mover's log; false if it holds no progress.
func ReadStatus(line []byte) (Status, bool) {
	if !bytes.HasPrefix(line, []byte(`{"message_type":"status"`)) {
		return Status{}, false
	}
	var said struct {
		Done    int64 `json:"bytes_done"`
		Total   int64 `json:"total_bytes"`
		Elapsed int64 `json:"seconds_elapsed"`
		Left    int64 `json:"seconds_remaining"`
		// A restore has no time left of its own.
		Restored int64 `json:"bytes_restored"`
		Skipped  int64 `json:"bytes_skipped"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return Status{}, false
	}
	said.Done += said.Restored + said.Skipped
	said.Total += said.Skipped
	s := Status{Bytes: said.Done, Total: said.Total, Left: time.Duration(said.Left) * time.Second}
	if said.Elapsed > 0 {
		s.Rate = said.Done / said.Elapsed
	}
	if said.Restored > 0 && s.Rate > 0 {
		s.Left = time.Duration((s.Total-s.Bytes)/s.Rate) * time.Second
	}
	return s, true
}

// Line is one line of a mover's log, read. At most one of its fields is set:
// none where the line says nothing to a person.
type Line struct {
	Status  *Status
	Summary *Summary
	Text    string // restic's own words, without passwords
}

// ReadLine reads one line of a mover's log.
func ReadLine(line []byte) Line {
	line = bytes.TrimSpace(line)
	if status, ok := ReadStatus(line); ok {
		return Line{Status: &status}
	}
	var r Report
	r.read(string(line))
	return Line{Summary: r.Summary, Text: strings.Join(r.Lines, "; ")}
}

// Summary is what restic says of a backup that it made.
type Summary struct {
	Snapshot string // its id, 64 hexadecimal digits
	Bytes    int64  // read
	Added    int64  // stored in the repository, compressed
	Files    int64
	Took     time.Duration
}

// Steps of a mover.
const (
	StepCheck   = "check" // can the repository be opened
	StepFind    = "find"  // is the copy there already
	StepBackup  = "backup"
	StepInit    = "init"
	StepExamine = "examine" // restic's check
	StepList    = "list"    // restic's snapshots
	StepStats   = "stats"
	StepLocks   = "locks" // which there are
	StepUnlock  = "unlock"
	StepRestore = "restore"
	StepImage   = "image" // restore of a device
)

// Report is what a mover left behind.
type Report struct {
	Step    string // the last one; "" if the mover was ended before it could say
	Exit    Exit
	Errors  int      // files, or snapshots, that could not be read
	Summary *Summary // nil if no copy was made
	// Findings is what an examination found; nil if there was none.
	Findings *Findings
	// Lock is what stood in the way; nil for nothing, or nothing known.
	Lock *Lock
	// Restored and Counted are those of a restore, nil of anything else.
	Restored *Restored
	Counted  *Counted
	// Missing are the indexes of those paths of a restore that the copy does
	// not have.
	Missing []int
	// Lines are what else restic said: the first and the last of it, without
	// passwords. May be empty.
	Lines []string
}

var header = regexp.MustCompile(`^backsnap step=([a-z]+) exit=([0-9]{1,3})$`)

// ReadReport reads the termination message of a mover's container that ended
// with exit. Without a report, as when the container was killed, it is the
// tail of the log, and that is quoted. A report that names another code than
// the container's is not believed.
func ReadReport(message string, exit int) Report {
	r := Report{Exit: Exit(exit)}
	first, rest, _ := strings.Cut(message, "\n")
	said := header.FindStringSubmatch(first)
	if said == nil {
		rest = message
	} else if r.Step = said[1]; said[2] != strconv.Itoa(exit) {
		r.Exit = ExitFailed
		r.Lines = append(r.Lines, fmt.Sprintf("the mover reports exit %s, its container exit %d", said[2], exit))
	}
	for line := range strings.Lines(rest) {
		r.read(strings.TrimSpace(line))
	}
	if r.Lock == nil { // what has no JSON says it in several lines
		r.Lock = blockedBy(rest)
	}
	if r.Step == "" || r.Exit != ExitOK && r.Exit != ExitPartial {
		r.Summary = nil
	}
	return r
}

// read adds one line to the report.
func (r *Report) read(line string) {
	if count, ok := strings.CutPrefix(line, "errors="); ok {
		if n, err := strconv.Atoi(count); err == nil {
			r.Errors = n
			return
		}
	}
	if counted := readCounted(line); counted != nil {
		r.Counted = counted
		return
	}
	if number, ok := strings.CutPrefix(line, "missing path="); ok {
		if missing, err := index(r.Missing, number); err == nil {
			r.Missing = missing
			return
		}
	}
	said := message{}
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		said = message{Type: "text", Message: line}
	}
	switch said.Type {
	case "status", "verbose_status", "initialized":
		return
	case "summary":
		r.Summary, r.Findings, r.Restored = said.summary(), said.findings(), said.restored()
		return
	case "error":
		said.Message = cmp.Or(said.Error.Message, said.Message)
		if said.Item != "" && !strings.Contains(said.Message, said.Item) {
			said.Message = said.Item + ": " + said.Message
		}
	}
	if lock := blockedBy(said.Message); lock != nil {
		r.Lock = lock
	}
	for text := range strings.Lines(said.Message) {
		r.quote(strings.TrimSpace(text))
	}
}

// noise is what restic says around the cause: that it tries again, and after
// how long; that it was told to stop, which was us.
var noise = regexp.MustCompile(`^(\w+\(<[^>]*>.*\) returned error, retrying after [^:]*: |signal terminated received, cleaning up$|` +
	`Is there a repository at the following location\?$|Fatal: unable to open config file: context canceled$)`)

// quote adds one line, once.
func (r *Report) quote(text string) {
	text = scrub(noise.ReplaceAllString(text, ""))
	if text != "" && !slices.Contains(r.Lines, text) {
		r.Lines = append(r.Lines, text)
	}
}

// message is any of restic's JSON lines that we read.
type message struct {
	Type    string `json:"message_type"`
	Message string `json:"message"` // of exit_error
	Error   struct {
		Message string `json:"message"`
	} `json:"error"`
	Item string `json:"item"`

	Snapshot string  `json:"snapshot_id"`
	Bytes    int64   `json:"total_bytes_processed"`
	Added    int64   `json:"data_added_packed"`
	Files    int64   `json:"total_files_processed"`
	Took     float64 `json:"total_duration"` // seconds

	Items         int64 `json:"total_files"`
	ItemsRestored int64 `json:"files_restored"`
	ItemsSkipped  int64 `json:"files_skipped"` // they were there already
	TotalBytes    int64 `json:"total_bytes"`
	BytesRestored int64 `json:"bytes_restored"`
	BytesSkipped  int64 `json:"bytes_skipped"`

	Problems *int     `json:"num_errors"` // of check
	Broken   []string `json:"broken_packs"`
	Repair   bool     `json:"suggest_repair_index"`
	Prune    bool     `json:"suggest_prune"`
}

// Findings is what restic found when it examined a repository.
type Findings struct {
	Errors      int      `json:"errors"`
	BrokenPacks []string `json:"brokenPacks,omitempty"`
	RepairIndex bool     `json:"repairIndex,omitempty"` // restic repair index would help
	Prune       bool     `json:"prune,omitempty"`       // restic prune would free room
}

// findings is nil if it is no summary of an examination.
func (m message) findings() *Findings {
	if m.Problems == nil {
		return nil
	}
	return &Findings{Errors: *m.Problems, BrokenPacks: m.Broken, RepairIndex: m.Repair, Prune: m.Prune}
}

var snapshotID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// summary is nil if it names no snapshot.
func (m message) summary() *Summary {
	if !snapshotID.MatchString(m.Snapshot) {
		return nil
	}
	return &Summary{
		Snapshot: m.Snapshot, Bytes: m.Bytes, Added: m.Added, Files: m.Files,
		Took: time.Duration(m.Took * float64(time.Second)).Round(time.Millisecond),
	}
}

// restored is nil if m is a backup's. What an earlier attempt has written and
// this one has found whole is in no total.
func (m message) restored() *Restored {
	if m.Snapshot != "" || m.Items+m.ItemsSkipped == 0 {
		return nil
	}
	return &Restored{
		Items: m.ItemsRestored + m.ItemsSkipped, Total: m.Items + m.ItemsSkipped,
		Bytes: m.BytesRestored + m.BytesSkipped, TotalBytes: m.TotalBytes + m.BytesSkipped,
	}
}

var userinfo = regexp.MustCompile(`://\S*@`)

// scrub takes user name and password out of the addresses in text. restic
// does that itself where it prints its repository; an error of a library may not.
func scrub(text string) string { return userinfo.ReplaceAllString(text, "://") }

// Err is why the mover did not do what it was for, nil if it did: a backup is
// done when its exit code is 0 and it names its snapshot, a list when restic
// left nothing out, an examination when it found nothing, a restore when both
// restic and the wrapper have counted, that of a device when the wrapper has
// read it back.
func (r Report) Err(want string) error {
	done := r.Exit == ExitOK && r.Step == want
	switch want {
	case StepBackup:
		done = done && r.Summary != nil
	case StepExamine:
		done = done && r.Findings != nil && r.Findings.Errors == 0
	case StepList:
		done = done && r.Errors == 0
	case StepRestore:
		done = done && r.Restored != nil && r.Counted != nil
	case StepImage:
		done = done && r.Counted != nil
	}
	if done || want == StepInit && r.Existed() || want == StepBackup && r.Found() {
		return nil
	}
	return &Error{Report: r}
}

// Existed reports whether a mover that was to make a repository found one.
func (r Report) Existed() bool { return r.Step == StepCheck && r.Exit == ExitOK }

// Found reports whether a mover that was to make a copy found it made. The
// summary is then that of the copy, without Files and Took.
func (r Report) Found() bool { return r.Step == StepFind && r.Exit == ExitOK && r.Summary != nil }

// Damaged reports whether an examination found faults. restic counts one fault
// too where it could not look at all; then it does not name it.
func (r Report) Damaged() bool {
	return r.Step == StepExamine && r.Exit == ExitFailed && r.Findings != nil && r.Errors > 0
}

// Error is a mover that failed, in restic's own words.
type Error struct{ Report Report }

// Error is the exit code in words, and what restic said.
func (e *Error) Error() string {
	text := e.Report.Exit.String()
	switch {
	case e.Report.Exit == ExitTimeout && e.Report.Step == StepCheck:
		text = fmt.Sprintf("the repository did not answer within %s; does its bucket exist?", patience)
	case e.Report.Step == StepList && e.Report.Errors > 0:
		text = fmt.Sprintf("restic left %d snapshots out that it could not read", e.Report.Errors)
	case e.Report.Damaged():
		text = fmt.Sprintf("restic found %d errors in it", e.Report.Findings.Errors)
	case e.Report.Exit == ExitOK:
		text = "restic ended without a summary"
	case e.Report.Exit == ExitPartial && e.Report.Errors > 0:
		text = fmt.Sprintf("%d files could not be read", e.Report.Errors)
	}
	if len(e.Report.Lines) == 0 {
		return text
	}
	return text + ": " + strings.Join(e.Report.Lines, "; ")
}
