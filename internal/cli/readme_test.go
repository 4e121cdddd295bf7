package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestReadmeHasTheFlags holds the README's tables against the real flags.
// UPDATE=1 writes them.
func TestReadmeHasTheFlags(t *testing.T) {
	const file, from, to = "../../README.md", "<!-- flags: written by `make golden` -->\n", "<!-- end of flags -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), from)
	tables, after, closed := strings.Cut(rest, to)
	if !found || !closed {
		t.Fatalf("README.md lacks %q or %q", from, to)
	}
	want := flagTables(New(&Env{Getenv: func(string) string { return "" }}))
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(before+from+want+to+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, tables); diff != "" {
		t.Errorf("run make golden; -want +got:\n%s", diff)
	}
}

// flagTables is one table a command, of the flags that are its own.
func flagTables(root *cobra.Command) string {
	var b strings.Builder
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		rows := flagRows(cmd)
		if rows != "" && cmd.HasParent() && cmd.Runnable() && !cmd.Hidden {
			fmt.Fprintf(&b, "\n`%s`\n\n| flag | default | meaning |\n|---|---|---|\n%s", cmd.UseLine(), rows)
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
	return b.String() + "\n"
}

func flagRows(cmd *cobra.Command) string {
	var b strings.Builder
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		_, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, f.DefValue, strings.ReplaceAll(usage, "|", `\|`))
	})
	return b.String()
}
