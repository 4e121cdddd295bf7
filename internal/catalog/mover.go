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
)

// Held is the error of an object that was deleted and stays until somebody
// else lets go of it: there is nothing more that we can do.
type Held struct {
	Finalizers []string // whose names say who holds it
}

// Error names the finalizers.
func (h *Held) Error() string {
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

// StorageClass is what matters of a StorageClass to those who make volumes.
type StorageClass struct {
	Name string
	// WaitsForConsumer: a volume is made where the first pod that mounts it
	// is scheduled.
	WaitsForConsumer bool
	// Retains: a volume outlives its claim.
	Retains bool
}
