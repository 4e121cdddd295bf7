// Package internal_test holds the drawing of the house against its imports.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/backsnap/kubectl-backsnap/"

// floors of the house, from the ground. A package may import what is below it
// and nothing beside or above it.
var floors = map[string]int{
	"internal/catalog": 0, "internal/english": 0,
	"internal/restic": 1, "internal/retention": 1, "plugins": 1,
	"internal/snapshot": 2, "internal/offsite": 2, "internal/restore": 2, "internal/prune": 2, "internal/verify": 2,
	"internal/status": 2, "internal/check": 2, "internal/schedule": 2, "internal/manifests": 2,
	"internal/kube": 2, "internal/lock": 2,
	"internal/cli":         3,
	"cmd/kubectl-backsnap": 4,
}

// may names the imports that the drawing allows beyond the floors: only main
// puts adapters and commands together.
var adapters = []string{"internal/kube", "internal/lock"}

func TestImportsPointDown(t *testing.T) {
	for _, pkg := range slices.Sorted(maps.Keys(imports(t))) {
		floor, known := floors[pkg]
		if !known {
			t.Errorf("package %s is in no floor of the drawing", pkg)
			continue
		}
		for _, imported := range imports(t)[pkg] {
			if below, known := floors[imported]; !known || below >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports point down only", pkg, floor, imported, below)
			}
			if slices.Contains(adapters, imported) && floor < 4 {
				t.Errorf("%s imports the adapter %s: only main does", pkg, imported)
			}
		}
	}
}

// imports are the packages of the product and those of ours that each imports,
// tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, root := range []string{"../cmd", "../internal", "../plugins"} {
		err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if path.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
				return nil
			}
			return addImports(found, file)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func addImports(found map[string][]string, file string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(file)), "../")
	found[pkg] = append(found[pkg], []string{}...)
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		if ours, ok := strings.CutPrefix(name, module); ok {
			found[pkg] = append(found[pkg], ours)
		}
	}
	return nil
}
