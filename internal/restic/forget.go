package restic

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// Steps of a mover that removes copies. StepForget takes their ids away from
// the repository, StepPrune frees the room of what nothing needs any more.
const (
	StepForget = "forget"
	StepPrune  = "prune"
)

const (
	// forgetAtOnce is how many ids one mover is given: they stand in its Job,
	// and an object may not grow without bound.
	forgetAtOnce = 1000
	// maxUnused is how much of a repository may be unused data after StepPrune:
	// twice restic's default, so that less is packed again.
	maxUnused = "10%"
	// DefaultRepack bounds how much data one StepPrune packs again, and so its
	// time and room; what is left over is the next one's.
	DefaultRepack = "20G"
)

// ForgetArgs are the arguments of the movers that forget those snapshots, one
// after the other. Each id must be whole: restic takes the beginning of one for
// any that begins like that, and some words for others.
func ForgetArgs(ids []string) ([][]string, error) {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	for _, id := range ids {
		if !snapshotID.MatchString(id) {
			return nil, fmt.Errorf("forget %q: want the 64 hexadecimal digits of a snapshot", id)
		}
	}
	return slices.Collect(slices.Chunk(slices.Compact(ids), forgetAtOnce)), nil
}

var repack = regexp.MustCompile(`^[0-9]+[KMGT]?$`)

// CheckRepack is whether restic's prune takes text for how much it packs again.
func CheckRepack(text string) error {
	if !repack.MatchString(text) {
		return fmt.Errorf("max-repack-size %q: want a size such as 20G", text)
	}
	return nil
}

// PruneArgs are those of StepPrune. uploadLimit is in KiB/s, 0 for none.
func PruneArgs(repackSize string, uploadLimit int) []string {
	args := []string{"--max-unused", maxUnused, "--max-repack-size", repackSize}
	if uploadLimit > 0 {
		args = append(args, "--limit-upload", strconv.Itoa(uploadLimit))
	}
	return args
}

// Kept reports whether the mover was to forget and restic could not remove all
// of it, as in a repository that lets nothing be removed.
func (r Report) Kept() bool { return r.Step == StepForget && r.Exit == ExitPartial }

var freed = regexp.MustCompile(`^total prune: +[0-9]+ blobs / (.+)$`)

// Freed is how much room a mover has freed, in restic's words, "4.096 KiB"; ""
// where it does not say.
func (r Report) Freed() string {
	for _, line := range r.Lines {
		if said := freed.FindStringSubmatch(line); said != nil {
			return said[1]
		}
	}
	return ""
}
