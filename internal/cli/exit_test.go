package cli_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

// Codes and exit codes are API: what a script was written for stays.
func TestExitsOfCodes(t *testing.T) {
	want := map[catalog.Code]int{
		"BS001": 2, "BS002": 2, "BS003": 4, "BS004": 1, "BS011": 4, "BS012": 1, "BS013": 1, "BS015": 1, "BS016": 1, "BS021": 4, "BS022": 6, "BS023": 1, "BS024": 4,
		"BS031": 4, "BS032": 4, "BS034": 5, "BS035": 6, "BS041": 5, "BS042": 5, "BS043": 5, "BS044": 6, "BS045": 5, "BS046": 1, "BS047": 4, "BS051": 10, "BS052": 11, "BS053": 12, "BS054": 3, "BS055": 1, "BS056": 4, "BS057": 1, "BS058": 4, "BS059": 1, "BS061": 1, "BS062": 4, "BS063": 1, "BS064": 1, "BS065": 1, "BS066": 1, "BS067": 4, "BS071": 5, "BS081": 6, "BS082": 1, "BS083": 4, "BS084": 6, "BS085": 1, "BS086": 5, "BS090": 130, "BS099": 1,
	}
	if diff := cmp.Diff(want, cli.Exits); diff != "" {
		t.Errorf("exits (-want +got):\n%s", diff)
	}
}

// Every exit code that a failure can have is in the table that people read.
func TestEveryExitCodeIsExplained(t *testing.T) {
	explained := map[int]bool{}
	for _, code := range cli.ExplainedExits() {
		if explained[code] {
			t.Errorf("exit code %d is explained twice", code)
		}
		explained[code] = true
	}
	for kind, code := range cli.Exits {
		if !explained[code] {
			t.Errorf("exit code %d of %s is not explained", code, kind)
		}
	}
}

// Every code that the program knows has an exit code and a section in the
// documentation, and every section belongs to a code.
func TestEveryCodeIsDocumented(t *testing.T) {
	codes := codesInSource(t)
	exits := map[catalog.Code]bool{}
	for code := range cli.Exits {
		exits[code] = true
	}
	if diff := cmp.Diff(codes, exits); diff != "" {
		t.Errorf("codes with an exit code (-want +got):\n%s", diff)
	}
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[catalog.Code]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^## (BS[0-9]{3}) \S.*$`).FindAllStringSubmatch(string(text), -1) {
		code := catalog.Code(heading[1])
		if sections[code] {
			t.Errorf("two sections for %s", code)
		}
		sections[code] = true
		if anchor := fmt.Sprintf(`<a id="%s"></a>`, code); !strings.Contains(string(text), anchor) {
			t.Errorf("no anchor %s, which errors point to", anchor)
		}
	}
	if diff := cmp.Diff(codes, sections); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
}

// Every code is a failure of something: one that nothing fails with is none.
func TestEveryCodeIsUsed(t *testing.T) {
	used := map[catalog.Code]bool{}
	names := codeNames(t)
	err := filepath.WalkDir("..", func(file string, _ fs.DirEntry, err error) error {
		tabled := strings.HasSuffix(file, "catalog/failure.go") || strings.HasSuffix(file, "cli/exit.go")
		if err != nil || tabled || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, name := range regexp.MustCompile(`catalog\.(Code[A-Z]\w+)`).FindAllStringSubmatch(string(text), -1) {
			used[names[name[1]]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, code := range names {
		if !used[code] {
			t.Errorf("nothing fails with %s, %s", name, code)
		}
	}
}

// A panic is told as the bug that it is, with where it was.
func TestABug(t *testing.T) {
	var errs strings.Builder
	env := &cli.Env{
		Out: io.Discard, Err: &errs, Getenv: func(string) string { return "" }, Now: time.Now, Version: "v0.1.0",
		Connect: func(genericclioptions.RESTClientGetter) (cli.Cluster, error) { panic("no such thing") },
	}
	code := cli.Main(t.Context(), env, []string{"list", "-n", "shop"})
	if code != 1 || !strings.HasPrefix(errs.String(), "error: a bug: no such thing [BS099]\n") || !strings.Contains(errs.String(), "version v0.1.0") || !strings.Contains(errs.String(), "TestABug") {
		t.Errorf("exit %d\n%s", code, errs.String())
	}
}

// codesInSource are the values of catalog's constants of type Code.
func codesInSource(t *testing.T) map[catalog.Code]bool {
	t.Helper()
	codes := map[catalog.Code]bool{}
	for _, code := range codeNames(t) {
		codes[code] = true
	}
	return codes
}

// codeNames are the codes by the names of their constants.
func codeNames(t *testing.T) map[string]catalog.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../catalog/failure.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]catalog.Code{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Code" {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes[spec.Names[0].Name] = catalog.Code(value)
		return true
	})
	if len(codes) == 0 {
		t.Fatal("no codes found")
	}
	return codes
}

func fail(code catalog.Code) error { return &catalog.Failure{Code: code, Message: string(code)} }

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"no error", nil, 0},
		{"an error without a code", errors.New("connection refused"), 1},
		{"a failure", fail(catalog.CodeForbidden), 4},
		{"a wrapped one", fmt.Errorf("plan: %w", fail(catalog.CodeRepoLocked)), 11},
		{"an interrupt that nobody named", fmt.Errorf("list pods: %w", context.Canceled), 130},
	} {
		if got := cli.ExitCode(c.err); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestExitOfRuns(t *testing.T) {
	for _, c := range []struct {
		name   string
		usable bool
		failed []error
		want   int
	}{
		{"all well", true, nil, 0},
		{"nothing to do", false, nil, 0},
		{"some failed", true, []error{fail(catalog.CodeDump)}, 3},
		{"all failed alike", false, []error{fail(catalog.CodeNoClass), fail(catalog.CodeNoClass)}, 4},
		{"all failed with one exit code", false, []error{fail(catalog.CodeNoClass), fail(catalog.CodeForbidden)}, 4},
		{"all failed, each its own way", false, []error{fail(catalog.CodeNoClass), fail(catalog.CodeDump)}, 3},
		{"an interrupt is one, whatever had been done", true, []error{fail(catalog.CodeDump), fail(catalog.CodeInterrupted)}, 130},
	} {
		if got := cli.ExitOf(c.usable, c.failed); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestPrintError(t *testing.T) {
	full := &catalog.Failure{
		Code: catalog.CodeDump, Message: "snapshot of shop/data not taken: dump in pod mysql-0 failed", Cause: errors.New("line one\nline \x1b[2Jtwo\u009b"),
		State: "app running", Next: "try again",
	}
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"without a code", errors.New("connection refused"), "error: connection refused\n"},
		{"with all that a person needs, on lines of their own", full, `error: snapshot of shop/data not taken: dump in pod mysql-0 failed [BS012]
  cause: line one; line  [2Jtwo 
  state: app running
  next:  try again
  docs:  docs/troubleshooting.md#BS012
`},
		{"joined ones, one after the other", errors.Join(errors.New("a"), errors.Join(fail(catalog.CodeBusy), errors.New("c"))),
			"error: a\nerror: BS035 [BS035]\n  docs:  docs/troubleshooting.md#BS035\nerror: c\n"},
	} {
		var got strings.Builder
		cli.PrintError(&got, c.err)
		if diff := cmp.Diff(c.want, got.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
