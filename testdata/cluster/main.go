// Command cluster builds, starts and ends a real Kubernetes on this machine
// for the project's tests: every part is a process of its own, built from Go
// modules, on nodes that are network namespaces. Nothing in it is simulated
// but the hardware, and no packet of it can leave the machine.
//
// Everything that belongs to a cluster lies in one state directory, from which
// its names and addresses are derived too, so that several can run at once.
// The program keeps no daemon: each run looks at what is there and does what
// is missing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: cluster COMMAND [--state DIR]

  up [--nodes N]  build and start what does not run yet, return when it is usable
  down            end everything that up started, keep the state
  wipe            down, and lose all state but the data of the S3 and REST servers
  status          one line for each part
  load IMAGE.tar  give an image to every node
  env             print lines for a shell to evaluate
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// request is what the command line asks for.
type request struct {
	command string
	image   string // of load
	state   string // empty: the default
	nodes   int    // 0: as many as there are, at least one
}

// parse accepts the flags before and after the command's argument.
func parse(args []string) (request, error) {
	if len(args) == 0 {
		return request{}, errUsage
	}
	r := request{command: args[0]}
	flags := flag.NewFlagSet(r.command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&r.state, "state", "", "")
	if r.command == "up" {
		flags.IntVar(&r.nodes, "nodes", 0, "")
	}
	var words []string
	for rest := args[1:]; ; {
		if err := flags.Parse(rest); err != nil {
			return request{}, errUsage
		}
		if flags.NArg() == 0 {
			break
		}
		words, rest = append(words, flags.Arg(0)), flags.Args()[1:]
	}
	if r.command == "load" && len(words) == 1 {
		r.image, words = words[0], nil
	}
	if len(words) > 0 || r.nodes < 0 || r.command == "load" && r.image == "" {
		return request{}, errUsage
	}
	return r, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	r, err := parse(args)
	if err != nil {
		return err
	}
	c, err := open(r.state)
	if err != nil {
		return err
	}
	c.progress = newProgress(stderr)
	switch r.command {
	case "up":
		return c.up(ctx, r.nodes)
	case "down":
		return c.down(ctx)
	case "wipe":
		return c.wipe(ctx)
	case "status":
		return c.status(ctx, stdout)
	case "load":
		return c.load(ctx, r.image)
	case "env":
		return c.env(stdout)
	}
	return errUsage
}
