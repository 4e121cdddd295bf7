package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// prefix of the environment variable of each of our flags.
const prefix = "BACKSNAP_"

// fromEnvironment gives every flag of flags that is not on the command line
// the value of its environment variable, BACKSNAP_DUMP_TIMEOUT for
// --dump-timeout. A value that does not parse is an error. kubectl's own
// flags have kubectl's own ways.
func fromEnvironment(flags *pflag.FlagSet, getenv func(string) string) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		name := variable(f.Name)
		value := getenv(name)
		if f.Changed || value == "" || failed != nil || ruledOut(flags, f.Name) {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("environment variable %s: %w", name, err)
		}
		f.Annotations = map[string][]string{fromVariable: {name}}
	})
	return failed
}

// opposites are flags that do not go together: one that is typed goes before
// what the environment says of the other.
var opposites = map[string]string{"backup-namespace": "in-namespace", "in-namespace": "backup-namespace"}

func ruledOut(flags *pflag.FlagSet, name string) bool {
	other := flags.Lookup(opposites[name])
	return other != nil && other.Changed && len(other.Annotations[fromVariable]) == 0 && other.Value.String() != "false"
}

// fromVariable is the annotation of a flag that has its value from the
// environment.
const fromVariable = "backsnap.sh/environment"

// variables are those that flags have their values from.
func variables(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Annotations[fromVariable]...) })
	return names
}

func variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// withEnvironment makes cmd read BACKSNAP_* for its own flags before it runs.
func withEnvironment(env *Env, cmd *cobra.Command) *cobra.Command {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := fromEnvironment(cmd.LocalNonPersistentFlags(), env.Getenv); err != nil {
			return usageError(cmd, err)
		}
		return nil
	}
	return cmd
}
