// Package restic is the mover as a value: the Job that runs restic, with
// everything it needs and no secret in it, and what restic says, read: its
// JSON lines, its exit codes, and the report that a mover leaves behind.
//
// It is pure. It knows nothing of Kubernetes beyond the words, and it never
// runs restic.
package restic

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// DefaultImage is restic's own image. Its version is the oldest that we work
// with: older ones call a backup complete that left a source out.
const DefaultImage = "docker.io/restic/restic:0.19.1"

// Where a mover finds what it works with. DataPath is part of a repository's
// contract: restic finds the copy before this one, and so what has not
// changed, by host and path.
const (
	DataPath       = "/data"
	RepositoryPath = "/repository" // the Secret, one file an entry
	// ClaimPath is where the claim is mounted that a repository lies on.
	ClaimPath = "/repository-claim"
	// TokenPath is a token of the mover's ServiceAccount, where its
	// repository's Secret says that a program reads one.
	TokenPath = "/identity/token"
	CachePath = "/cache"
	TempPath  = "/tmp"
)

// DefaultRetryLock is how long restic waits for another's lock, if nothing
// else is said.
const DefaultRetryLock = 10 * time.Minute

const (
	// patience is how long a repository may take to answer at all.
	patience = time.Minute
	// setup is what a mover may take beyond its deadline: for scheduling,
	// the image, the volume.
	setup = 30 * time.Minute
	// keep is how long a finished mover stands if nobody removes it: its
	// report is all that tells the next run that the copy was made.
	keep = 7 * 24 * time.Hour
	// keepErrand is that of a mover that copies nothing: whoever started it
	// has long read its report.
	keepErrand = 10 * time.Minute
	// maxTag is how long a tag is known to be stored whole.
	maxTag = 4096
	// timeForm is what restic's --time takes; in the mover local time is UTC.
	timeForm = "2006-01-02 15:04:05"
)

//go:embed mover.sh
var script string

// Job is one mover: all that its Kubernetes Job is made from.
type Job struct {
	Namespace, Name     string
	Labels, Annotations map[string]string

	Image   string
	Command []string // without a value in it: the same for every mover
	Args    []string // nothing secret: anyone may read them
	Env     []Env
	Secret  string // whose entries are the environment and lie in RepositoryPath
	// Claim is mounted at DataPath, read-only unless the mover Writes; "" for
	// no volume. Block: it is the raw device that is there.
	Claim  string
	Writes bool
	Block  bool
	// Powers are root's capabilities; nil for the one that reads every file.
	Powers []string
	// RepositoryClaim is mounted at ClaimPath; "" for none.
	RepositoryClaim string
	// Token says that one of the ServiceAccount's tokens lies at TokenPath.
	Token bool
	// Host is what the pod calls itself; "" is its name.
	Host string
	// NodeAffinity is a PersistentVolume's spec.nodeAffinity as JSON, which
	// the pod keeps to, or only prefers if AnyNode will do; nil for none.
	NodeAffinity json.RawMessage
	AnyNode      bool
	// Node is where the pod had best be; "" for anywhere.
	Node string

	Pod

	// Deadline ends the Job, retries included, counted from its start.
	Deadline time.Duration
}

// Pod is how a mover's pod is made, whatever restic does in it. Quantities are
// as Kubernetes writes them, "" for none. The zero Pod stands for DefaultPod.
type Pod struct {
	CPU, Memory           string // asked for
	CPULimit, MemoryLimit string // all that it may have
	PriorityClass         string
	PullSecrets           []string // that the image is pulled with
	Tolerations           []Toleration
	ServiceAccount        string // "" for the namespace's own default
	// User is the uid that restic runs as. 0 is root, who may read the files
	// of every owner and nothing else; any other reads what it may, and
	// passes Pod Security's level restricted.
	User int64
	// CacheClaim is a claim that restic's cache lies on; "" for a folder of
	// the node that goes with the pod and holds CacheSize at most.
	CacheClaim, CacheSize string
	// Keep is how long the Job stands once it has finished.
	Keep time.Duration
}

// Toleration is a taint that a mover puts up with; "" is any value, any effect.
type Toleration struct{ Key, Value, Effect string }

// DefaultPod is what movers have unless they are asked to have something else.
func DefaultPod() Pod { return Pod{CPU: "100m", Memory: "256Mi", MemoryLimit: "1Gi", Keep: keep} }

// orDefault is p, or DefaultPod for the zero value.
func (p Pod) orDefault() Pod {
	if p.Keep == 0 {
		return DefaultPod()
	}
	return p
}

// Env is one variable of a mover's environment.
type Env struct{ Name, Value string }

// Backup is what a copy is made from.
type Backup struct {
	Namespace, Name string      // of the Job, in the backup namespace
	Run             catalog.Run // that copies, which may be a later one than the snapshot's
	Image           string
	Repository      catalog.Repository
	Snapshot        catalog.Snapshot
	Claim           string          // the clone's
	Slot            string          // on its node; "" for any
	NodeAffinity    json.RawMessage // nil for none
	Node            string          // "" for any
	Deadline        time.Duration   // for restic itself
	Pod             Pod
	UploadLimit     int // KiB/s; 0 for none
	Locks           Locks
}

// Job is the mover that makes the copy. What did not fit into the record's tag
// is named in dropped. It fails if the snapshot has no time of its cut, or
// nothing makes the record fit.
func (b Backup) Job() (job Job, dropped []string, err error) {
	if b.Snapshot.Cut.IsZero() {
		return Job{}, nil, errors.New("the time of its cut is not known")
	}
	record, dropped, err := recordTag(b.Snapshot.Record)
	if err != nil {
		return Job{}, nil, err
	}
	s := b.Snapshot
	args := []string{
		"backup", "--json",
		"--host", Host(b.Repository.Cluster, s.Namespace, s.Claim),
		"--time", s.Cut.UTC().Format(timeForm),
	}
	if b.UploadLimit > 0 {
		args = append(args, "--limit-upload", strconv.Itoa(b.UploadLimit))
	}
	for _, tag := range append(Tags(s), record...) {
		args = append(args, "--tag", tag)
	}
	block := s.Record != nil && s.Record.Claim.VolumeMode == catalog.BlockMode
	if b.Pod.User != 0 && !block {
		// Root's alone, on every ext4: it would make each copy a partial one.
		args = append(args, "--exclude", path.Join(DataPath, "lost+found"))
	}
	args = append(args, source(block)...)
	job, err = mover(b.Namespace, b.Name, b.Image, b.Repository, b.Run, b.Pod)
	if err != nil {
		return Job{}, nil, err
	}
	if err := aim(&job, s, b.Repository.Name); err != nil {
		return Job{}, nil, err
	}
	job.Args = arguments(StepBackup, b.Deadline, b.Locks, args)
	job.Env = append(job.Env, Env{"BACKSNAP_NAMESPACE", s.Namespace}, Env{"BACKSNAP_COPY", copyTag(s)})
	job.Env = append(job.Env, b.Locks.env()...)
	job.Claim, job.Block, job.NodeAffinity, job.Node = b.Claim, block, b.NodeAffinity, b.Node
	job.Deadline = b.Deadline + setup
	if b.Slot != "" {
		job.Labels[catalog.LabelSlot] = b.Slot
	}
	return job, dropped, nil
}

// source is what restic reads: the files of a file system, or the image of a
// device, of which it would else store the name alone. Both have the same path.
// A reader that fails makes restic fail, and it stores nothing.
func source(block bool) []string {
	if block {
		return []string{"--stdin-filename", DataPath, "--stdin-from-command", "--", "cat", DataPath}
	}
	return []string{DataPath}
}

// mover is what all movers have in common.
func mover(namespace, name, image string, r catalog.Repository, run catalog.Run, pod Pod) (Job, error) {
	if r.Secret == "" {
		return Job{}, fmt.Errorf("repository %s has no Secret", r.Name)
	}
	pod = pod.orDefault()
	pod.ServiceAccount = cmp.Or(pod.ServiceAccount, r.ServiceAccount)
	return Job{
		Namespace: namespace, Name: name, Image: image, Secret: r.Secret, Pod: pod,
		Labels:          catalog.Ours(catalog.RoleMover, run),
		Annotations:     catalog.HandsOff(),
		Command:         []string{"/bin/sh", "-c", script, "backsnap"},
		RepositoryClaim: r.Claim,
		Token:           pod.ServiceAccount != "" && slices.ContainsFunc(r.Keys, func(key string) bool { return strings.HasSuffix(key, "_TOKEN_FILE") }),
		Env: []Env{
			{"RESTIC_CACHE_DIR", CachePath},
			// A line every two seconds: enough to show, little to keep.
			{"RESTIC_PROGRESS_FPS", "0.5"},
			// restic takes --time as local time.
			{"TZ", "UTC"},
			{"TMPDIR", TempPath},
		},
	}, nil
}

// aim says on the Job what it copies.
func aim(job *Job, s catalog.Snapshot, repository string) error {
	source, err := json.Marshal(catalog.Source{
		Namespace: s.Namespace, Claim: s.Claim, Snapshot: s.Name, UID: s.UID, Repository: repository,
	})
	if err != nil {
		return fmt.Errorf("write source: %w", err)
	}
	job.Labels[catalog.LabelNamespace] = s.Namespace
	job.Labels[catalog.LabelClaim] = catalog.ClaimLabel(s.Claim)
	job.Annotations[catalog.AnnotationSource] = string(source)
	return nil
}

// arguments are those of the wrapper, and after them restic's.
func arguments(mode string, limit time.Duration, locks Locks, args []string) []string {
	seconds := func(d time.Duration) string { return strconv.Itoa(max(1, int(d.Seconds()))) }
	return append([]string{mode, seconds(patience), seconds(limit), locks.Retry.String()}, args...)
}

// Host is what restic calls the machine that a claim's copies come from.
func Host(cluster, namespace, claim string) string { return path.Join(cluster, namespace, claim) }

// Tags are those of a copy of s, but for the record. They are set when the
// copy is made and never changed.
func Tags(s catalog.Snapshot) []string {
	tags := []string{"backsnap", "ns=" + s.Namespace, "pvc=" + s.Claim}
	if s.Record != nil {
		tags = append(tags, "uid="+s.Record.Claim.UID)
	}
	tags = append(tags, "snapshot="+s.Name, copyTag(s), "run="+string(s.Run))
	if s.Record != nil {
		// A set may be named after several workloads, and restic splits a
		// tag at its commas.
		app := strings.ReplaceAll(s.Record.App, ",", "+")
		tags = append(tags, "app="+app, "set="+strconv.Itoa(len(s.Record.Members)))
	}
	tags = append(tags, "consistency="+string(s.Consistency), "retain="+s.Retain)
	// The date of anything else is a mark of prune's, or a person's who meant
	// the snapshot.
	if s.Retain == "days" && s.DeleteAfter != "" && !s.MarkedByPrune() {
		tags = append(tags, "delete-after="+s.DeleteAfter)
	}
	if s.Pinned {
		tags = append(tags, "pin=true")
	}
	return tags
}

// copyTag is the tag that all copies of s carry, and no others.
func copyTag(s catalog.Snapshot) string { return "vsuid=" + s.UID }

// recordTag is the tag that holds r, one or none, and what was left out of r
// to keep it short: where the volume lies, which a copy does not depend on,
// then the list of dumps, which lies in the volume too.
func recordTag(r *catalog.Record) (tag, dropped []string, err error) {
	if r == nil {
		return nil, nil, nil
	}
	short := *r
	for {
		value, err := short.Tag()
		if err != nil {
			return nil, nil, err
		}
		value = "record=" + value
		switch {
		case len(value) <= maxTag:
			return []string{value}, dropped, nil
		case short.Claim.NodeAffinity != nil:
			short.Claim.NodeAffinity = nil
			dropped = append(dropped, "the volume's node affinity")
		case short.Dumps != nil:
			short.Dumps = nil
			dropped = append(dropped, "the list of dumps")
		default:
			return nil, nil, fmt.Errorf("its record takes %d bytes as a tag, restic is known to store %d", len(value), maxTag)
		}
	}
}
