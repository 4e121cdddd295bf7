package plugins

import "errors"

// ErrTruncated is what the Read functions wrap when what a script printed is
// not whole: no end line, another number of lines than the end line says, or
// text that is none of the script's. An exec stream can be cut without an
// error, so that only the end line shows that a script has come to its end.
var ErrTruncated = errors.New("the output of the script is not whole")

// Kind says in one word why a script failed. Kinds are for ever.
type Kind string

// The kinds. Those up to NoInodes can be known by a probe, before anything is
// created.
const (
	NoServer    Kind = "no-server"   // no such server runs in the container
	Starting    Kind = "starting"    // it is starting up, or its image is still setting it up
	Recovery    Kind = "recovery"    // it replays its log and takes no connection yet
	Unavailable Kind = "unavailable" // it runs, but refuses connections
	Login       Kind = "login"       // it refuses every login the container knows
	NoTool      Kind = "no-tool"     // the image lacks a program that the dump needs
	NoVolume    Kind = "no-volume"   // the data directory lies on no volume
	Permission  Kind = "permission"  // something may not be read, written or owned
	Unsupported Kind = "unsupported" // the server is too old
	NoSpace     Kind = "nospace"     // the dump would fill the volume, or has tried to
	NoInodes    Kind = "noinodes"    // the volume has no room for more files

	DumpFailed   Kind = "dump"        // the dump tool failed; its last lines are on standard error
	VerifyFailed Kind = "verify"      // there is a dump, but it could not be proven
	Empty        Kind = "empty"       // there is nothing to dump
	NoDump       Kind = "no-dump"     // the dump, or that database of it, is not there
	NotEmpty     Kind = "exists"      // the database that a dump was to be loaded into has something in it
	LoadFailed   Kind = "load"        // a statement of the dump failed; nothing of it was kept
	PartlyLoaded Kind = "partial"     // the same, and what came before it was kept
	LostClient   Kind = "lost-client" // standard input came to its end
	TimedOut     Kind = "timeout"     // the time allowed was up
	Stopped      Kind = "stopped"     // the script was sent a signal
	Internal     Kind = "internal"    // the script ended where it never should: a bug
)

// Error is what a script says when it fails. It is found with [errors.As].
type Error struct {
	Kind    Kind
	Message string // one sentence without the step: "no login as postgres: ..."
	Hint    string // what to do next, one sentence; may be empty
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

var hints = map[Kind]string{
	NoServer:    "name the right plugin with --plugin, or take the snapshot with --consistency=crash",
	Starting:    "wait until the pod is ready, then try again",
	Recovery:    "wait until the server has replayed its log, then try again",
	Unavailable: "look at the server's own log, then try again",
	Login:       "compare the password in the container's environment with the server's: a changed one is often only in one of them",
	NoTool:      "use an image that has the server's own client programs, or take the snapshot with --consistency=crash",
	NoVolume:    "mount a volume at the data directory",
	Permission:  "run the container as the owner of the data directory, and dump as a superuser",
	Unsupported: "take the snapshot with --consistency=crash",
	NoSpace:     "enlarge the volume, or take the snapshot with --consistency=crash",
	NoInodes:    "remove files from the volume, or take the snapshot with --consistency=crash",

	DumpFailed:   "read the tool's own lines above; the last good dump is still there",
	VerifyFailed: "try again; if it stays so, check the volume's disk and the server's log",
	Empty:        "take the snapshot with --consistency=crash",
	NoDump:       "see what there is: kubectl backsnap list",
	NotEmpty:     "choose another name, or drop that database first",
	LoadFailed:   "read the server's own lines above",
	PartlyLoaded: "read the server's own lines above; what was loaded stands in that database",
	LostClient:   "try again; the last good dump is still there",
	TimedOut:     "allow more time with --dump-timeout",
	Stopped:      "try again; the last good dump is still there",
	Internal:     "report it with the lines above",
}
