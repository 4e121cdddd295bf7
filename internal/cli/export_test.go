package cli

import "io"

// Progress is what --progress=mode shows on w.
func Progress(mode string, w io.Writer) (progress, error) {
	f := progressFlags{mode: mode, color: "never"}
	return f.show(&Env{Err: w})
}

// What the tests of this package look at from outside.
var (
	Exits      = exits
	ExitCode   = exitCode
	ExitOf     = exitOf
	PrintError = printError
	Zone       = zone
	Size       = size
	Span       = span
	Confirm    = confirm
)

// ExplainedExits are the exit codes that exitTable has.
func ExplainedExits() (codes []int) {
	for _, row := range exitTable {
		codes = append(codes, row.code)
	}
	return codes
}

// Offers reports whether a form of a usage line is completed.
func Offers(text string) bool { return form.FindString(text) == text }
