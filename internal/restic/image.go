package restic

import "strconv"

// image makes job write the image of a device onto one. What restic sends goes
// through the wrapper, which counts it, and reads the device back. Root needs no
// more powers for that than to make a copy.
func (r Restore) image(job *Job) {
	job.Args = arguments(StepImage, r.Deadline, r.Locks, []string{"dump", "--json", r.Snapshot, DataPath})
	job.Env = append(job.Env, Env{"BACKSNAP_SIZE", strconv.FormatInt(r.Size, 10)})
	job.Block, job.Powers = true, nil
}
