package catalog

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Consistency is what state of the application a set holds.
type Consistency string

// The classes, best first.
const (
	// Application: a proven dump lies in the set, or the app was held still over the cut.
	Application Consistency = "application"
	// Crash: one atomic cut, as after a power failure.
	Crash Consistency = "crash"
	// Fuzzy: several volumes cut apart with nothing to hold them together.
	Fuzzy Consistency = "fuzzy"
)

// ErrUnmirrored says that a snapshot carries its labels and its content does
// not: the caller may not write contents.
var ErrUnmirrored = errors.New("its labels are not mirrored to its content, which you may not write")

// Snapshot is a VolumeSnapshot that carries our labels.
type Snapshot struct {
	Namespace, Name      string
	UID, ResourceVersion string

	// Claim is the source's whole name: from the record where there is one,
	// else from the label.
	Claim       string
	Role        Role // "" for a restore point
	Run         Run
	Consistency Consistency // "" while it is being taken
	Retain      string      // value of LabelRetain
	DeleteAfter string      // value of LabelDeleteAfter: YYYY-MM-DD, or prune's mark
	// Marked is when prune has set DeleteAfter; zero where it has not.
	Marked   time.Time
	Pinned   bool
	PinnedAs string // value of LabelPin; "" for true
	// Periods are the keys of the periods it stands for; nil or empty for none.
	Periods map[Period]string

	Created time.Time // metadata.creationTimestamp
	Cut     time.Time // status.creationTime; zero until the storage has taken it
	Ready   bool      // status.readyToUse
	Err     string    // status.error.message: the last error, which may pass
	Class   string    // VolumeSnapshotClass
	Content string    // bound VolumeSnapshotContent; "" until bound
	// Driver and Handle are the content's, and Node the one whose sidecar
	// looks after it, where each node has its own; "" where it was not read.
	Driver, Handle, Node string
	// RestoreSize in bytes; 0 where the driver gives none.
	RestoreSize int64

	Record *Record // nil where there is none that we can read
	Copies []Copy
	Proof  *Proof // nil where no restore from it was tried
	// CopyOnly: the cluster has no such snapshot any more, its copies alone
	// tell of it.
	CopyOnly bool

	// BackupNS: its labels are those that backup-ns wrote. It has no run and no
	// record.
	BackupNS bool

	Terminating bool
	// Held are the finalizers that keep it, where it is Terminating and all of
	// them are others' than Kubernetes' own.
	Held []string
}

// Unfinished reports whether s was asked for and never became a restore point.
// One that has lost its label and is, or may be, one by what else it carries
// is not unfinished.
func (s Snapshot) Unfinished() bool {
	return s.Role == "" && s.Run != "" && s.Consistency == "" && s.Record == nil && len(s.Periods) == 0 && len(s.Copies) == 0
}

// Proof is a restore from a snapshot that was tried, and went well.
type Proof struct {
	Level string    `json:"level"` // how far it went: metadata, read or drill
	At    time.Time `json:"at"`
}

// Copy is one off-site copy of a snapshot.
type Copy struct {
	Repository string `json:"repository"`
	Snapshot   string `json:"snapshot"` // restic's snapshot id, 64 hexadecimal digits
	Bytes      int64  `json:"bytes"`    // of data read
	// Files are the regular files in it; 0 where nobody counted.
	Files    int64     `json:"files,omitempty"`
	Added    int64     `json:"added"` // stored in the repository, compressed
	Finished time.Time `json:"finished"`
	// Partial: some files could not be read and are not in it. Such a copy is
	// never on record; lists of repositories have it.
	Partial bool `json:"partial,omitempty"`
	// Note is the id of restic's snapshot that says so, and goes with it; ""
	// where nobody has looked for one.
	Note string `json:"-"`
}

// Labels are s as the labels of its VolumeSnapshot and its content. The map is
// the caller's.
func (s Snapshot) Labels() map[string]string {
	labels := Ours(s.Role, s.Run)
	labels[LabelNamespace] = s.Namespace
	labels[LabelClaim] = ClaimLabel(s.Claim)
	set := func(key, value string) {
		if value != "" {
			labels[key] = value
		}
	}
	set(LabelConsistency, string(s.Consistency))
	set(LabelRetain, s.Retain)
	set(LabelDeleteAfter, s.DeleteAfter)
	if s.Pinned {
		labels[LabelPin] = cmp.Or(s.PinnedAs, "true")
	}
	for p, key := range s.Periods {
		set(p.Label(), key)
	}
	return labels
}

// Annotations are s as the annotations of its VolumeSnapshot: record and
// copies where there are any, and what keeps GitOps tools off. The map is the
// caller's.
func (s Snapshot) Annotations() (map[string]string, error) {
	notes := HandsOff()
	if s.Record != nil {
		text, err := json.Marshal(s.Record)
		if err != nil {
			return nil, fmt.Errorf("write record of %s/%s: %w", s.Namespace, s.Name, err)
		}
		notes[AnnotationRecord] = string(text)
	}
	if len(s.Copies) > 0 {
		text, err := json.Marshal(s.Copies)
		if err != nil {
			return nil, fmt.Errorf("write copies of %s/%s: %w", s.Namespace, s.Name, err)
		}
		notes[AnnotationCopies] = string(text)
	}
	return notes, nil
}

// ReadLabels fills in s what labels and annotations say. Times, status, name
// and namespace are the caller's to fill. A record that cannot be read, or
// of a version newer than ours, leaves Record nil and is an error beside the
// filled value: such a snapshot is shown and kept, never judged. Copies that
// cannot be read are an error too and leave Copies nil; so is a proof.
func (s *Snapshot) ReadLabels(labels, annotations map[string]string) error {
	s.Claim = labels[LabelClaim]
	s.Role = Role(labels[LabelRole])
	s.Run = Run(labels[LabelRun])
	s.Consistency = Consistency(labels[LabelConsistency])
	s.Retain = labels[LabelRetain]
	s.DeleteAfter = labels[LabelDeleteAfter]
	s.PinnedAs, s.Pinned = labels[LabelPin]
	if s.PinnedAs == "true" {
		s.PinnedAs = ""
	}
	s.Periods = map[Period]string{}
	for _, p := range Periods {
		if key := labels[p.Label()]; key != "" {
			s.Periods[p] = key
		}
	}
	return errors.Join(s.readRecord(annotations[AnnotationRecord]), s.readCopies(annotations[AnnotationCopies]), s.readProof(annotations[AnnotationVerified]),
		s.readMark(annotations[AnnotationMarked]))
}

func (s *Snapshot) readProof(text string) error {
	if text == "" {
		return nil
	}
	var p Proof
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return fmt.Errorf("read proof of %s/%s: %w", s.Namespace, s.Name, err)
	}
	s.Proof = &p
	return nil
}

func (s *Snapshot) readRecord(text string) error {
	record, err := ReadRecord(text)
	if err != nil {
		return fmt.Errorf("read record of %s/%s: %w", s.Namespace, s.Name, err)
	}
	if record != nil {
		s.Record, s.Claim = record, record.Claim.Name
	}
	return nil
}

func (s *Snapshot) readCopies(text string) error {
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &s.Copies); err != nil {
		s.Copies = nil
		return fmt.Errorf("read copies of %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// App is the app that the snapshot was taken of, `statefulset/mysql`, or ""
// where no record says.
func (s Snapshot) App() string {
	if s.Record == nil {
		return ""
	}
	return s.Record.App
}

// Tier is the longest period that s stands for, "pinned" for a pinned one,
// else how it is retained, "days" or "calendar"; "" where nothing says.
func (s Snapshot) Tier() string {
	if s.Pinned {
		return "pinned"
	}
	for _, p := range slices.Backward(Periods) {
		if s.Periods[p] != "" {
			return string(p)
		}
	}
	return s.Retain
}

// CopyIn is the copy in the repository of that name, if there is one that is
// whole.
func (s Snapshot) CopyIn(repository string) (Copy, bool) {
	i := slices.IndexFunc(s.Copies, func(c Copy) bool { return c.Repository == repository && !c.Partial })
	if i < 0 {
		return Copy{}, false
	}
	return s.Copies[i], true
}

// MissingCopies are the names of the repositories in which a copy was asked
// for and is not on record, sorted. Without a record nobody knows: nil.
func (s Snapshot) MissingCopies() []string {
	if s.Record == nil {
		return nil
	}
	var missing []string
	for _, name := range s.Record.Wanted {
		if _, there := s.CopyIn(name); !there {
			missing = append(missing, name)
		}
	}
	return missing
}

// FullyCopied reports whether copies were asked for and all of them are on
// record: what is retained as `copied` has then done its work. A snapshot of
// which nobody knows what was asked is never fully copied.
func (s Snapshot) FullyCopied() bool {
	return s.Record != nil && len(s.Record.Wanted) > 0 && len(s.MissingCopies()) == 0
}

// WithPeriods is s standing for those periods. The map is copied.
func (s Snapshot) WithPeriods(periods map[Period]string) Snapshot {
	s.Periods = maps.Clone(periods)
	return s
}
