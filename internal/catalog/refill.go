package catalog

import (
	"cmp"
	"encoding/json"
)

// AnnotationRefill stands on a claim while a copy is restored into its own file
// system, and says how far that is; and on a workload that was scaled to 0 for
// that, and says how many replicas it had and will have again.
const AnnotationRefill = "backsnap.sh/refill"

// Stage is how far a claim is that a copy is restored into.
type Stage string

// The stages.
const (
	StageBegun   Stage = "begun"   // it holds what it held before
	StagePartial Stage = "partial" // it may hold parts of that and parts of the copy
	StageFilled  Stage = "filled"  // it holds the copy, all of it
)

// Refill is what AnnotationRefill says of a claim.
type Refill struct {
	Run Run `json:"run"`
	// Volume is the one that it is about: of any other that the claim has got
	// since, it says nothing.
	Volume string `json:"volume"`
	Stage  Stage  `json:"stage"`
	// Repository and Copy are whose data it gets; "" while it is StageBegun.
	Repository string `json:"repository,omitempty"`
	Copy       string `json:"copy,omitempty"`
}

// Refill is what stands on c of the volume that it has; ok is false for
// nothing. What cannot be read is of no run, and the claim partial.
func (c Claim) Refill() (r Refill, ok bool) {
	text := c.Annotations[AnnotationRefill]
	if text == "" {
		return Refill{}, false
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Run == "" {
		return Refill{Volume: c.Volume, Stage: StagePartial}, true
	}
	return r, r.Volume == c.Volume
}

// HalfRestored is the run that was restoring into c and has not ended, so that c
// may hold parts of two states; "" for none.
func (c Claim) HalfRestored() string {
	if r, noted := c.Refill(); noted && r.Stage == StagePartial {
		return cmp.Or(string(r.Run), "(not known)")
	}
	return ""
}

// Pause is what AnnotationRefill says of a workload.
type Pause struct {
	Run      Run `json:"run"`
	Replicas int `json:"replicas"`
}

// Pause is what stands on a; ok is false for nothing that can be read.
func (a App) Pause() (p Pause, ok bool) {
	err := json.Unmarshal([]byte(a.Annotations[AnnotationRefill]), &p)
	return p, err == nil && p.Run != ""
}
