package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

const completionLong = `
	Have the shell complete our commands, flags and arguments, together with kubectl's own completion: that looks in PATH
	for a program called kubectl_complete-backsnap, and that is this one, by another name.`

const completionExample = `
	# Once after installation; krew keeps it when it upgrades
	kubectl backsnap completion install

	# Where the folder of the program cannot be written to
	kubectl backsnap completion install --dir ~/bin`

func newCompletion(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "completion",
		Short:   "Have the shell complete commands, flags and what is in the cluster",
		Long:    templates.LongDesc(completionLong),
		Example: templates.Examples(completionExample),
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCompletionInstall(env))
	return cmd
}

func newCompletionInstall(env *Env) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:     "install",
		Short:   "Give kubectl the name by which it finds what completes us",
		Long:    templates.LongDesc(completionLong),
		Example: templates.Examples(completionExample),
		Args:    noArguments,
		RunE:    func(*cobra.Command, []string) error { return installCompletion(env, dir) },
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`Folder` in PATH; default: the one that this program was called in")
	return withEnvironment(env, cmd)
}

// installCompletion leaves the other name beside the program, which is a link
// where krew has put it: a link to that follows its upgrades.
func installCompletion(env *Env, dir string) error {
	program, err := filepath.Abs(env.Program)
	if err != nil {
		return fmt.Errorf("find the program: %w", err)
	}
	target := program
	switch {
	case dir == "":
		dir, target = filepath.Dir(program), filepath.Base(program)
	case !filepath.IsAbs(dir):
		dir = filepath.Join(env.Dir, dir)
	}
	path, made, err := giveName(dir, target)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.Out, path+" "+made)
	if !inPath(env.Getenv("PATH"), dir) {
		fmt.Fprintf(env.Err, "note: %s is not in PATH: kubectl does not look there\n", dir)
	}
	return nil
}

// giveName makes the file in dir by which kubectl finds target, unless it is
// there. Windows has no links for everybody: there it is a script.
func giveName(dir, target string) (path, made string, err error) {
	path = filepath.Join(dir, completer)
	read, write := os.Readlink, os.Symlink
	if runtime.GOOS == "windows" {
		path += ".cmd"
		target = fmt.Sprintf("@\"%s\" %s %%*\r\n", besideScript(target), cobra.ShellCompRequestCmd)
		read = func(path string) (string, error) { text, err := os.ReadFile(path); return string(text), err }
		write = func(text, path string) error { return os.WriteFile(path, []byte(text), 0o755) }
	}
	there, err := read(path)
	switch {
	case err == nil && there == target:
		return path, "unchanged", nil
	case !errors.Is(err, fs.ErrNotExist):
		return path, "", &catalog.Failure{
			Code: catalog.CodeExists, Message: path + " is there already, and is another one", State: "nothing changed", Next: "look at it, remove it, and install again",
		}
	}
	if err := errors.Join(os.MkdirAll(dir, 0o755), write(target, path)); err != nil {
		return path, "", fmt.Errorf("install completion: %w; --dir names another folder in PATH, one that you may write to", err)
	}
	return path, "created", nil
}

// besideScript is target as a script of Windows finds it: beside itself, unless it
// says where.
func besideScript(target string) string {
	if filepath.IsAbs(target) {
		return target
	}
	return "%~dp0" + target
}

func inPath(path, dir string) bool {
	for _, there := range strings.Split(path, string(filepath.ListSeparator)) {
		if filepath.Clean(there) == filepath.Clean(dir) {
			return true
		}
	}
	return false
}
