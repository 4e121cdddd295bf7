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

// TestReadmeIsGenerated holds what the README says of flags and exit codes
// against the program. UPDATE=1 writes it.
func TestReadmeIsGenerated(t *testing.T) {
	const file = "../../README.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	for part, want := range map[string]string{"flags": flagTables(New(&Env{Getenv: func(string) string { return "" }})), "exit codes": exitCodeTable()} {
		from, to := "<!-- "+part+": written by `make golden` -->\n", "<!-- end of "+part+" -->"
		before, rest, found := strings.Cut(readme, from)
		got, after, closed := strings.Cut(rest, to)
		if !found || !closed {
			t.Fatalf("README.md lacks %q or %q", from, to)
		}
		if os.Getenv("UPDATE") != "" {
			readme = before + from + want + to + after
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: run make golden; -want +got:\n%s", part, diff)
		}
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(readme), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Every command that prints documents has them in `help json`.
func TestEveryDocumentIsExplained(t *testing.T) {
	explained := map[string]bool{}
	for _, d := range documents {
		command, _, _ := strings.Cut(d.command, ",")
		explained[command] = true
	}
	root := New(&Env{Getenv: func(string) string { return "" }})
	visit(root, func(cmd *cobra.Command) {
		name := strings.TrimPrefix(cmd.CommandPath(), root.DisplayName()+" ")
		if cmd.Flags().Lookup("output") != nil && !explained[name] {
			t.Errorf("the documents of %s are not explained", name)
		}
	})
}

func exitCodeTable() string {
	var b strings.Builder
	b.WriteString("\n| code | meaning | a CronJob is to |\n|---|---|---|\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "| %d | %s | %s |\n", row.code, row.meaning, row.cronJob)
	}
	return b.String() + "\n"
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
