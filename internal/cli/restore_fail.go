package cli

import (
	"errors"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// unbegun is err, for which a restore was not begun, with the state that this
// leaves, and for ^C what to do.
func unbegun(err error) error {
	if f, ok := err.(*catalog.Failure); ok && f.State != "" {
		return err
	}
	var f *catalog.Failure
	switch errors.As(err, &f); {
	case f == nil:
		return err
	case f.Code == catalog.CodeInterrupted:
		return &catalog.Failure{Code: f.Code, Message: "nothing restored", Cause: err, State: "nothing changed", Next: "give the same command again"}
	case f.State == "":
		f.State = "nothing changed"
	}
	return err
}
