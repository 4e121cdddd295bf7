package catalog

import (
	"errors"
	"fmt"
	"slices"
)

// Code is a stable name of a kind of failure, `BS012`: what a person looks up
// in docs/troubleshooting.md and what decides the exit code.
type Code string

// The codes. What each means, and what to do, stands in docs/troubleshooting.md.
const (
	CodeNoSource     Code = "BS001" // restore without a source
	CodeUsage        Code = "BS002" // the command line is wrong
	CodeNoAPI        Code = "BS003" // server has no VolumeSnapshot API
	CodeNotFound     Code = "BS004" // a target does not exist
	CodeNoPlugin     Code = "BS011" // nothing recognises the application
	CodeDump         Code = "BS012" // dump command failed
	CodeTruncated    Code = "BS013" // dump incomplete, stream cut
	CodeHook         Code = "BS015" // the application is not in a state to be dumped
	CodeSpace        Code = "BS016" // no room for the dump
	CodeNoClass      Code = "BS021" // no VolumeSnapshotClass for the driver
	CodeNotReady     Code = "BS022" // snapshot not ready in time
	CodeStorage      Code = "BS023" // the storage refused
	CodeUnsupported  Code = "BS024" // the volume cannot be snapshotted
	CodeForbidden    Code = "BS031" // a right is missing
	CodePodSecurity  Code = "BS032" // Pod Security forbids the mover
	CodeFought       Code = "BS034" // something would undo a restore in place
	CodeBusy         Code = "BS035" // another run holds the namespace or slot
	CodeTooMany      Code = "BS041" // prune would remove too much
	CodeLastGood     Code = "BS042" // the last good restore point would go
	CodeClock        Code = "BS043" // the clock is behind what was cut
	CodeStuck        Code = "BS044" // deleted, and the storage does not let go
	CodeCopiesGone   Code = "BS045" // no copy on record lies in the repository
	CodeUnforgotten  Code = "BS046" // restic has forgotten copies, and they are there
	CodeNoOrphan     Code = "BS047" // a content cannot be adopted
	CodeNoRepository Code = "BS051" // repository does not exist
	CodeRepoLocked   Code = "BS052" // repository locked
	CodeRepoPassword Code = "BS053" // wrong repository password
	CodeRepoPartial  Code = "BS054" // restic could not read some files
	CodeMover        Code = "BS055" // the mover failed otherwise
	CodeNoSecret     Code = "BS056" // no Secret of that repository
	CodeListing      Code = "BS057" // what lies in a repository could not be listed whole
	CodeSecretTaken  Code = "BS058" // another Secret stands where a repository's is to be made
	CodeDamaged      Code = "BS059" // restic found faults in a repository
	CodeUnconfirmed  Code = "BS071" // nobody has said yes
	CodeNoSet        Code = "BS061" // no complete set at or before the time asked
	CodeExists       Code = "BS062" // the claim or file to restore into is there already
	CodeDiffers      Code = "BS063" // what was restored is not what the copy holds
	CodeStream       Code = "BS064" // a stream of files was cut or is not what was sent
	CodeNoDump       Code = "BS065" // the set has no such dump
	CodeLoad         Code = "BS066" // a dump could not be loaded
	CodeTarget       Code = "BS067" // the server is none that takes that dump
	CodeInUse        Code = "BS081" // the app does not let go of its volumes
	CodeHalfway      Code = "BS082" // volumes are exchanged in part
	CodeNotNow       Code = "BS083" // a restore in place is not in a state for that
	CodeUnready      Code = "BS084" // the app is not ready after a restore in place
	CodePartial      Code = "BS085" // a claim holds parts of what it held and of a copy
	CodeGrace        Code = "BS086" // replaced volumes are kept for a while
	CodeInterrupted  Code = "BS090" // ^C or SIGTERM
	CodeInternal     Code = "BS099" // a bug
)

// Failure is an error that names its cause, the state things are in and what
// to do next. It is what a person sees.
type Failure struct {
	Code    Code
	Message string // `snapshot of shop/data-mysql-0 not taken: dump in pod mysql-0 failed`
	Cause   error  // may be nil
	State   string // `app running, not frozen; nothing created`
	Next    string // one command, or what to do in words
	// Manifest is what may be applied to mend it, "" for nothing.
	Manifest string
}

// Error is the message with its cause.
func (f *Failure) Error() string {
	if f.Cause == nil {
		return f.Message
	}
	return fmt.Sprintf("%s: %v", f.Message, f.Cause)
}

// Unwrap is the cause.
func (f *Failure) Unwrap() error { return f.Cause }

// Mend is the manifest of the first Failure in f's tree that has one.
func (f *Failure) Mend() string {
	var inner *Failure
	if f.Manifest == "" && errors.As(f.Cause, &inner) {
		return inner.Mend()
	}
	return f.Manifest
}

// CodeOf is the code of the first Failure in err's tree, "" if there is none.
func CodeOf(err error) Code {
	var f *Failure
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

// Has reports whether a Failure of that code is anywhere in err's tree.
func Has(err error, code Code) bool {
	if f, ok := err.(*Failure); ok && f.Code == code {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Has(e.Unwrap(), code)
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), func(err error) bool { return Has(err, code) })
	}
	return false
}
