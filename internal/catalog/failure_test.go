package catalog_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestFailure(t *testing.T) {
	cause := errors.New("exit 2")
	dump := &catalog.Failure{Code: catalog.CodeDump, Message: "dump in pod mysql-0 failed", Cause: cause}
	class := &catalog.Failure{Code: catalog.CodeNoClass, Message: "no class"}
	interrupt := &catalog.Failure{Code: catalog.CodeInterrupted, Message: "interrupted", Cause: dump}
	for _, c := range []struct {
		name string
		err  error
		code catalog.Code   // the first
		has  []catalog.Code // all
	}{
		{"nil", nil, "", nil},
		{"an error without a code", cause, "", nil},
		{"a failure", dump, catalog.CodeDump, []catalog.Code{catalog.CodeDump}},
		{"a wrapped one", fmt.Errorf("snapshot: %w", dump), catalog.CodeDump, []catalog.Code{catalog.CodeDump}},
		{"one behind another", interrupt, catalog.CodeInterrupted, []catalog.Code{catalog.CodeInterrupted, catalog.CodeDump}},
		{"joined ones", errors.Join(cause, class, dump), catalog.CodeNoClass, []catalog.Code{catalog.CodeNoClass, catalog.CodeDump}},
		{"joins in joins", errors.Join(cause, fmt.Errorf("%w; %w", cause, errors.Join(class, interrupt))), catalog.CodeNoClass,
			[]catalog.Code{catalog.CodeNoClass, catalog.CodeInterrupted, catalog.CodeDump}},
		{"two in one sentence", fmt.Errorf("%w: %w", dump, class), catalog.CodeDump, []catalog.Code{catalog.CodeDump, catalog.CodeNoClass}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := catalog.CodeOf(c.err); got != c.code {
				t.Errorf("CodeOf: got %q, want %q", got, c.code)
			}
			has := map[catalog.Code]bool{}
			for _, code := range c.has {
				has[code] = true
			}
			for _, code := range []catalog.Code{catalog.CodeDump, catalog.CodeNoClass, catalog.CodeInterrupted, catalog.CodeUsage} {
				if got := catalog.Has(c.err, code); got != has[code] {
					t.Errorf("Has %s: got %v", code, got)
				}
			}
		})
	}
}

func TestFailureText(t *testing.T) {
	cause := errors.New("exit 2")
	f := &catalog.Failure{Code: catalog.CodeDump, Message: "dump failed", Cause: cause, State: "app running", Next: "try again"}
	if got, want := f.Error(), "dump failed: exit 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(f, cause) {
		t.Error("the cause is lost")
	}
	if got, want := (&catalog.Failure{Message: "no class"}).Error(), "no class"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
