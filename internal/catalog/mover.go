package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Why an object is not the one that is meant.
var (
	// ErrGone: it is not there any more, or another has its name now.
	ErrGone = errors.New("it is gone")
	// ErrTaken: it cannot be made, for another has its name.
	ErrTaken = errors.New("another object has that name")
	// ErrRaised: an app that is to stand still is not.
	ErrRaised = errors.New("somebody has raised its replicas")
)

// Held is the error of an object that was deleted and stays until somebody
// else lets go of it: there is nothing more that we can do.
type Held struct {
	Finalizers []string // whose names say who holds it; nil where a pod does
	// Pod is one that uses it, and that Node was told to end and has not said
	// that it has.
	Pod, Node string
}

// Error names who holds it.
func (h *Held) Error() string {
	if h.Pod != "" {
		return fmt.Sprintf("it is deleted, and goes when node %s answers again or is removed from the cluster: pod %s may run there still", h.Node, h.Pod)
	}
	return "it is deleted, and held by another's finalizer: " + strings.Join(h.Finalizers, ", ")
}

// AnnotationSource stands on a mover's Job and says what it copies: who finds
// the Job later, when the run that made it is over, can write down its result.
const AnnotationSource = "backsnap.sh/source"

// Source is what a mover copies, and into which repository.
type Source struct {
	Namespace  string `json:"namespace"`
	Claim      string `json:"claim"`
	Snapshot   string `json:"snapshot"` // name of the VolumeSnapshot
	UID        string `json:"uid"`      // of the VolumeSnapshot
	Repository string `json:"repository"`
	// Restores is the claim that a mover of a restore fills; "" for a copy.
	// Namespace is then where that claim is to be: whoever holds it may remove
	// what a dead run has left.
	Restores string `json:"restores,omitempty"`
}

// ReadSource reads a source; the zero value without an error for "", as on
// the Jobs that copy nothing.
func ReadSource(text string) (Source, error) {
	if text == "" {
		return Source{}, nil
	}
	var s Source
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("read source: %w", err)
	}
	return s, nil
}

// AnnotationReclaim stands on a PersistentVolume that a restore hands to its
// claim, and is the reclaim policy that it had before and will have again.
const AnnotationReclaim = "backsnap.sh/reclaim"

// StorageClass is what matters of a StorageClass to those who make volumes.
type StorageClass struct {
	Name   string
	Driver string // that makes its volumes
	// WaitsForConsumer: a volume is made where the first pod that mounts it
	// is scheduled.
	WaitsForConsumer bool
	// Retains: a volume outlives its claim.
	Retains bool
}

// Volume is what matters of a PersistentVolume to those who hand it from one
// claim to another.
type Volume struct {
	Name    string
	Run     Run    // that hands it over
	Reclaim string // Delete or Retain: what becomes of it when its claim goes
	Claim   Claim  // whose it is; Namespace, Name and UID alone
}
