package cli

// What the tests of this package look at from outside.
var (
	Exits      = exits
	ExitCode   = exitCode
	ExitOf     = exitOf
	PrintError = printError
	Zone       = zone
	Size       = size
	Span       = span
)
