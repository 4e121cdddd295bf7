package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// The exit codes. They are API; exitTable says what each means.
const (
	exitOK           = 0
	exitFailed       = 1
	exitUsage        = 2
	exitPartial      = 3
	exitPrecondition = 4
	exitRefused      = 5
	exitTimeout      = 6
	exitFindings     = 7
	exitNoRepository = 10
	exitLocked       = 11
	exitPassword     = 12
	exitInterrupted  = 130
)

// exitTable is what `help exit-codes` and the README say: the meaning of each
// code, and what a CronJob is to do.
var exitTable = []struct {
	code             int
	meaning, cronJob string
}{
	{exitOK, "everything asked for was done; claims that somebody left out are no failure", ""},
	{exitFailed, "failed, nothing usable from this run", "retry"},
	{exitUsage, "wrong usage: command line, environment or annotation", "fail at once"},
	{exitPartial, "partial: some targets failed or were skipped, others are protected", "fail at once: the next run takes what is missing"},
	{exitPrecondition, "a precondition is missing (API, class, rights, policy), nothing changed", "fail at once"},
	{exitRefused, "refused: declined, no --yes, or a safety brake", "fail at once"},
	{exitTimeout, "timed out or busy; work may go on in the cluster", "fail at once"},
	{exitFindings, "findings: `status` has found an app in a state that --fail-on names, `prune --dry-run --exit-code` something to remove", ""},
	{exitNoRepository, "the repository does not exist", "fail at once"},
	{exitLocked, "the repository is locked", "retry"},
	{exitPassword, "the repository's password is wrong", "fail at once"},
	{exitInterrupted, "interrupted", ""},
}

// exits is the exit code of each kind of failure.
var exits = map[catalog.Code]int{
	catalog.CodeNoSource:     exitUsage,
	catalog.CodeUsage:        exitUsage,
	catalog.CodeNoAPI:        exitPrecondition,
	catalog.CodeNotFound:     exitFailed,
	catalog.CodeNoPlugin:     exitPrecondition,
	catalog.CodeDump:         exitFailed,
	catalog.CodeTruncated:    exitFailed,
	catalog.CodeHook:         exitFailed,
	catalog.CodeSpace:        exitFailed,
	catalog.CodeNoClass:      exitPrecondition,
	catalog.CodeNotReady:     exitTimeout,
	catalog.CodeStorage:      exitFailed,
	catalog.CodeUnsupported:  exitPrecondition,
	catalog.CodeForbidden:    exitPrecondition,
	catalog.CodePodSecurity:  exitPrecondition,
	catalog.CodeFought:       exitRefused,
	catalog.CodeBusy:         exitTimeout,
	catalog.CodeTooMany:      exitRefused,
	catalog.CodeLastGood:     exitRefused,
	catalog.CodeClock:        exitRefused,
	catalog.CodeStuck:        exitTimeout,
	catalog.CodeCopiesGone:   exitRefused,
	catalog.CodeUnforgotten:  exitFailed,
	catalog.CodeNoOrphan:     exitPrecondition,
	catalog.CodeNoRepository: exitNoRepository,
	catalog.CodeRepoLocked:   exitLocked,
	catalog.CodeRepoPassword: exitPassword,
	catalog.CodeRepoPartial:  exitPartial,
	catalog.CodeMover:        exitFailed,
	catalog.CodeNoSecret:     exitPrecondition,
	catalog.CodeListing:      exitFailed,
	catalog.CodeSecretTaken:  exitPrecondition,
	catalog.CodeDamaged:      exitFailed,
	catalog.CodeUnconfirmed:  exitRefused,
	catalog.CodeNoSet:        exitFailed,
	catalog.CodeExists:       exitPrecondition,
	catalog.CodeDiffers:      exitFailed,
	catalog.CodeStream:       exitFailed,
	catalog.CodeNoDump:       exitFailed,
	catalog.CodeLoad:         exitFailed,
	catalog.CodeTarget:       exitPrecondition,
	catalog.CodeInUse:        exitTimeout,
	catalog.CodeHalfway:      exitFailed,
	catalog.CodeNotNow:       exitPrecondition,
	catalog.CodeUnready:      exitTimeout,
	catalog.CodePartial:      exitFailed,
	catalog.CodeGrace:        exitRefused,
	catalog.CodeInterrupted:  exitInterrupted,
	catalog.CodeInternal:     exitFailed,
}

// finished is the error of a command that has said everything already: only
// its exit code is left to tell.
type finished struct{ code int }

func (f *finished) Error() string { return fmt.Sprintf("exit %d", f.code) }

// end writes what went wrong, and is the error of a command that ends with code.
func (e *Env) end(failures []error, code int) error {
	for _, err := range failures {
		printError(e.Err, err)
	}
	if code != exitOK {
		return &finished{code: code}
	}
	return nil
}

// permitted asks for all rights before anything is touched. instead is what a
// person may do without them.
func permitted(ctx context.Context, cluster Cluster, rights []catalog.Right, instead string) error {
	missing, err := cluster.Missing(ctx, rights)
	if err != nil || len(missing) == 0 {
		return err
	}
	return catalog.Forbidden(missing, instead)
}

// exitCode is the code of one error.
func exitCode(err error) int {
	switch code, known := exits[catalog.CodeOf(err)]; {
	case err == nil:
		return exitOK
	case known:
		return code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// exitOf is the code of a run whose failures are failed and which did, or did
// not, make anything usable: their common code if it did not and all failed
// alike, else partial. An interrupt is an interrupt, whatever had been done.
func exitOf(usable bool, failed []error) int {
	if len(failed) == 0 {
		return exitOK
	}
	codes := make([]int, 0, len(failed))
	for _, err := range failed {
		codes = append(codes, exitCode(err))
	}
	if slices.Contains(codes, exitInterrupted) {
		return exitInterrupted
	}
	slices.Sort(codes)
	if codes = slices.Compact(codes); usable || len(codes) > 1 {
		return exitPartial
	}
	return codes[0]
}

// split are the errors that were joined into err, one after the other; none
// for nil.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}

// printError writes err as a person needs it: what, cause, state, next step,
// and where to read on. Joined errors are written one after the other.
func printError(w io.Writer, err error) {
	for _, e := range split(err) {
		printOne(w, e)
	}
}

func printOne(w io.Writer, err error) {
	var f *catalog.Failure
	if !errors.As(err, &f) {
		fmt.Fprintf(w, "error: %s\n", printable(err.Error()))
		return
	}
	fmt.Fprintf(w, "error: %s [%s]\n", printable(f.Message), f.Code)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-6s %s\n", name+":", printable(text))
		}
	}
	if f.Cause != nil {
		line("cause", f.Cause.Error())
	}
	line("state", f.State)
	line("next", f.Next)
	line("docs", "docs/troubleshooting.md#"+string(f.Code))
	for text := range strings.Lines(f.Mend()) {
		fmt.Fprintln(w, printable(strings.TrimSuffix(text, "\n")))
	}
}
