package cli

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// newHelp is cobra's help command, but for words that it does not know.
func newHelp(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC]",
		Short: "Help on a command, or on exit-codes, environment, json, hooks",
		RunE: func(_ *cobra.Command, args []string) error {
			found, rest, err := root.Find(args)
			if err != nil {
				return usageError(root, err)
			}
			if len(rest) > 0 {
				return noSuchCommand(found, rest)
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}

// topics are pages of help that belong to no single command: commands that
// cannot be run. Each is made from what it is about, so that it is right.
func topics(root *cobra.Command) []*cobra.Command {
	topic := func(name, short, text string) *cobra.Command {
		return &cobra.Command{Use: name, Short: short, Long: text}
	}
	return []*cobra.Command{
		topic("exit-codes", "What each exit code means", exitCodesText()),
		topic("environment", "The variables that commands read", environmentText(root)),
		topic("json", "The documents that -o json prints", jsonText()),
		topic("hooks", "What is run inside the pods of an application", hooksText()),
	}
}

func exitCodesText() string {
	var b strings.Builder
	b.WriteString("What each exit code means, and what a CronJob is to do about it.\n\n")
	for _, row := range exitTable {
		fmt.Fprintf(&b, "  %3d  %s\n", row.code, row.meaning)
		if row.cronJob != "" {
			fmt.Fprintf(&b, "       CronJob: %s\n", row.cronJob)
		}
	}
	b.WriteString("\nIf all targets failed in one way, it is that way's code; if they differ, or some succeeded, 3. A code that is not\n" +
		"in this table is a failure. The code stands in the document of -o json too: on Windows kubectl turns every code\n" +
		"but 0 into 1. Codes BS001 and so on name the kind of failure; docs/troubleshooting.md has a section for each.")
	return b.String()
}

func environmentText(root *cobra.Command) string {
	commands := map[string][]string{}
	usage := map[string]string{}
	visit(root, func(cmd *cobra.Command) {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if cmd.HasParent() && f.Name != "help" {
				name := variable(f.Name)
				commands[name] = append(commands[name], strings.TrimPrefix(cmd.CommandPath(), root.DisplayName()+" "))
				usage[name] = f.Name
			}
		})
	})
	names := make([]string, 0, len(commands))
	for name := range commands {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("Every flag of ours has a variable, which is read where the flag is not given. An empty one is none; a value that the\n" +
		"flag would not take is an error (exit code 2). kubectl's own flags have kubectl's own ways.\n\n")
	for _, name := range names {
		fmt.Fprintf(&b, "  %-38s --%s of %s\n", name, usage[name], strings.Join(commands[name], ", "))
	}
	b.WriteString(`
Others that are read:

  KUBECONFIG       files that name the cluster
  TZ               time zone of days and periods where --timezone is not given
  NO_COLOR         no colour; goes before CLICOLOR_FORCE
  CLICOLOR_FORCE   colour, also where there is no terminal
  TERM             dumb: lines one after the other, nothing redrawn`)
	return b.String()
}

// visit calls do with cmd and all commands under it.
func visit(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		visit(sub, do)
	}
}

// documents are what commands print with -o json.
var documents = []struct {
	command string
	value   any
}{
	{"snapshot", report{}},
	{"copy", report{}},
	{"restore", restoreDoc{}},
	{"restore --to-dir, --dump-to", filesDoc{}},
	{"adopt", adoptDoc{}},
	{"prune", pruneDoc{}}, {"prune --orphans", orphanDoc{}},
	{"status", statusDoc{}},
	{"list", restorePointList{}},
	{"describe", descriptionList{}},
	{"repo list", repositoryList{}},
	{"repo create", repositoryDoc{}},
	{"repo init", repositoryDoc{}},
	{"repo check", checkDoc{}},
	{"repo unlock", unlockDoc{}},
	{"repo stats", statsDoc{}},
	{"abort", abortDoc{}},
	{"schedule create, whose -o yaml has one document an object", manifestList{}},
	{"schedule list", scheduleList{}},
	{"version", versionDoc{}},
	{"--progress=json, one a line on standard error", line{}},
}

func jsonText() string {
	var b strings.Builder
	b.WriteString("The documents that -o json and -o yaml print, with all their fields. Fields are only ever added. Those that do not\n" +
		"apply are left out. Those of snapshot and restore come also when they fail, with the exit code and the error in it.\n")
	for _, d := range documents {
		fmt.Fprintf(&b, "\n%s\n\n", d.command)
		for _, f := range fieldsOf(reflect.TypeOf(d.value), "") {
			b.WriteString("  " + f + "\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// fieldsOf are the fields of t as JSON has them, `.items[].pvc string`.
func fieldsOf(t reflect.Type, path string) []string {
	switch {
	case t.Kind() == reflect.Pointer:
		return fieldsOf(t.Elem(), path)
	case t == reflect.TypeFor[time.Time]():
		return []string{path + " time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return []string{path + " object"}
	case t.Kind() == reflect.Slice:
		return fieldsOf(t.Elem(), path+"[]")
	case t.Kind() == reflect.Map:
		return fieldsOf(t.Elem(), path+".KEY")
	case t.Kind() != reflect.Struct:
		return []string{path + " " + jsonType(t.Kind())}
	}
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			all = append(all, fieldsOf(f.Type, path)...)
		case name != "":
			all = append(all, fieldsOf(f.Type, path+"."+name)...)
		}
	}
	return all
}

func jsonType(kind reflect.Kind) string {
	switch kind {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	}
	return "integer"
}

func hooksText() string {
	var b strings.Builder
	b.WriteString("A database that is recognised is dumped inside its own pod, by its own tools and with the credentials that its\n" +
		"container has, before its volumes are cut. A container is recognised by image, ports, environment and mounts, which\n" +
		"a plan (--dry-run=client) shows; a read-only probe then makes sure before anything is created.\n\n")
	all, err := plugins.All()
	for _, p := range all {
		fmt.Fprintf(&b, "  %-10s %s\n", p.Name, p.Title)
	}
	if err != nil { // a fault of the build
		b.WriteString(err.Error() + "\n")
	}
	fmt.Fprintf(&b, `
The dump lies in dot-files at the top of the data's volume, with its list in .backsnap-dump.json: it is in the snapshot
and in every copy. The next dump replaces it; --remove-dump removes it once it is in a snapshot. It counts only with its
proof: exit status, trailer, read back, SHA-256. Every primary of an app is dumped, or one replica where there is none.

Annotations of a claim, else of its namespace, go before the flags:

  %-28s name of a plugin, or none for no exec
  %-28s auto, application or crash`, catalog.AnnotationPlugin, catalog.AnnotationConsistency)
	return b.String()
}
