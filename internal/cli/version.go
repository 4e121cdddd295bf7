package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// versionDoc is what `version -o json` prints.
type versionDoc struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Client     string `json:"client"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	Server     string `json:"server,omitempty"`
}

func newVersion(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	var o *output
	var server bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runVersion(cmd, env, config, o, server) },
	}
	cmd.Flags().BoolVar(&server, "server", false, "Ask the API server for its version too")
	o = addOutput(cmd)
	return withEnvironment(env, cmd)
}

func runVersion(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *output, server bool) error {
	printer, err := o.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	doc := versionDoc{APIVersion: apiVersion, Kind: "Version", Client: env.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if server {
		cluster, err := env.Connect(config)
		if err != nil {
			return err
		}
		if doc.Server, err = cluster.Version(cmd.Context()); err != nil {
			return err
		}
	}
	if printer != nil {
		return printDocument(env.Out, printer, doc)
	}
	fmt.Fprintf(env.Out, "kubectl backsnap %s (%s, %s)\n", doc.Client, doc.Go, doc.Platform)
	if server {
		fmt.Fprintf(env.Out, "server %s\n", doc.Server)
	}
	return nil
}
