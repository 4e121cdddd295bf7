package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/cmd/options"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	_ "github.com/backsnap/kubectl-backsnap/internal/english" // before kubectl's packages
)

// Main runs one command line and returns the exit code. What went wrong has
// been said on standard error.
func Main(ctx context.Context, env *Env, args []string) (code int) {
	defer func() {
		if found := recover(); found != nil {
			printError(env.Err, bug(found, env.Version))
			env.Err.Write(debug.Stack())
			code = exitFailed
		}
	}()
	with := *env
	with.Out = newOutlet(env.Out)
	root := New(&with)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var done *finished
	if errors.As(err, &done) {
		return done.code
	}
	if err != nil {
		printError(env.Err, err)
	}
	return exitCode(err)
}

// bug is a panic as a person needs to see it. The clean-up of deferred calls
// has been done by now.
func bug(found any, version string) error {
	return &catalog.Failure{
		Code: catalog.CodeInternal, Message: fmt.Sprintf("a bug: %v", found),
		State: "what is left carries the label of its run: the next run in its namespace removes it",
		Next:  "report it, with what follows, and version " + version,
	}
}

// New is the root command with all others under it.
func New(env *Env) *cobra.Command {
	config := genericclioptions.NewConfigFlags(true)
	cmd := &cobra.Command{
		Use:           "kubectl-backsnap",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl backsnap"},
		Short:         "Back up the databases and volumes of a cluster with nothing installed in it",
		Long:          templates.LongDesc(rootLong),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		// What the libraries say of troubles that we handle is for -v only.
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if env.Hush != nil && !cmd.Flags().Changed("v") {
				env.Hush()
			}
			if strings.HasPrefix(cmd.Name(), cobra.ShellCompRequestCmd) { // nobody else needs it
				offer(cmd.Root(), env, config)
			}
		},
	}
	cmd.SetIn(env.In)
	cmd.SetOut(env.Out)
	cmd.SetErr(env.Err)
	cmd.CompletionOptions.DisableDefaultCmd = true // kubectl completes plugins by another way
	config.AddFlags(cmd.PersistentFlags())
	addVerbosity(cmd.PersistentFlags())

	groups := templates.CommandGroups{
		{Message: "Backup Commands:", Commands: []*cobra.Command{newSnapshot(env, config), newCopy(env, config), newRestore(env, config), newAdopt(env, config), newPrune(env, config)}},
		{Message: "Inspect Commands:", Commands: []*cobra.Command{newStatus(env, config), newList(env, config), newDescribe(env, config), newLogs(env, config)}},
		{Message: "Operate Commands:", Commands: []*cobra.Command{newSchedule(env, config), newRepo(env, config), newAbort(env, config)}},
	}
	groups.Add(cmd)
	cmd.AddCommand(newCompletion(env), newVersion(env, config), newOptions(env))
	cmd.SetHelpCommand(newHelp(cmd))
	cmd.AddCommand(topics(cmd)...)
	templates.ActsAsRootCommand(cmd, []string{"options"}, groups...)
	cmd.SetHelpFunc(displayed(cmd, cmd.HelpFunc()))
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError(c, err) })
	return cmd
}

const rootLong = `
	Back up the databases and volumes of a cluster with nothing installed in it.

	Databases are dumped inside their own pods, the volumes are cut as labelled CSI VolumeSnapshots, and restic Jobs
	copy them off-site. The labels are the catalog: there is no operator, no custom resource and no state file.

	Topics: kubectl backsnap help exit-codes, environment, json, hooks.`

// newOptions is kubectl's command of that name.
func newOptions(env *Env) *cobra.Command {
	cmd := options.NewCmdOptions(env.Out)
	cmd.Example = templates.Examples("# The flags that every command takes\nkubectl backsnap options")
	cmd.Args = noArguments
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { cmd.Usage() }) // kubectl's own prints nothing
	return cmd
}

// addVerbosity adds klog's -v: from 6 on client-go tells of every request.
func addVerbosity(flags *pflag.FlagSet) {
	var logs flag.FlagSet
	klog.InitFlags(&logs)
	flags.AddGoFlag(logs.Lookup("v"))
}

// noSuchCommand refuses words that are no command, and names near ones.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	next := cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2 // cobra's own default; it is 0 until cobra itself has asked
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		next = cmd.CommandPath() + " " + strings.Join(near, ", or ")
	}
	return &catalog.Failure{Code: catalog.CodeUsage, Message: fmt.Sprintf("unknown command %q", args[0]), State: "nothing changed", Next: next}
}

// noArguments refuses arguments where there are none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, fmt.Errorf("unknown argument %q", args[0]))
	}
	return nil
}

// usageError is a wrong command line, or environment.
func usageError(cmd *cobra.Command, err error) error {
	state := "nothing changed"
	if names := variables(cmd.Flags()); len(names) > 0 {
		state += "; the environment sets " + strings.Join(names, ", ")
	}
	return &catalog.Failure{Code: catalog.CodeUsage, Message: err.Error(), State: state, Next: cmd.CommandPath() + " --help"}
}

// displayed is help that calls the root command as a user calls it. kubectl's
// templates know the display name in some places and not in others.
func displayed(root *cobra.Command, help func(*cobra.Command, []string)) func(*cobra.Command, []string) {
	return func(cmd *cobra.Command, args []string) {
		out := cmd.OutOrStdout()
		var text strings.Builder
		cmd.SetOut(&text)
		defer cmd.SetOut(out)
		help(cmd, args)
		said := strings.TrimRight(text.String(), "\n") + "\n" // a topic ends without one
		io.WriteString(out, strings.ReplaceAll(said, root.Name(), root.DisplayName()))
	}
}
