package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// confirm asks a person on the terminal. Without one, and without yes, the
// answer is no; so is anything but y. command is what was asked for.
func confirm(ctx context.Context, env *Env, yes bool, question, command string) error {
	return ask(ctx, env, yes, question+" (y/N): ", command, func(said string) bool {
		said = strings.ToLower(said)
		return said == "y" || said == "yes"
	})
}

// confirmName wants a person to type that name.
func confirmName(ctx context.Context, env *Env, yes bool, what, name, command string) error {
	return ask(ctx, env, yes, fmt.Sprintf("Type the name of the %s to continue: ", what), command, func(said string) bool { return said == name })
}

func ask(ctx context.Context, env *Env, yes bool, question, command string, agrees func(string) bool) error {
	if yes {
		return nil
	}
	if !isTerminal(env.In) {
		return &catalog.Failure{
			Code: catalog.CodeUnconfirmed, Message: "not confirmed: there is no terminal to ask on", State: "nothing changed", Next: command + " --yes",
		}
	}
	fmt.Fprint(env.Err, question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(env.In).ReadString('\n') // no line is no answer
		answer <- strings.TrimSpace(line)
	}()
	select {
	case said := <-answer:
		if agrees(said) {
			return nil
		}
		return &catalog.Failure{Code: catalog.CodeUnconfirmed, Message: "not confirmed", State: "nothing changed", Next: command}
	case <-ctx.Done():
		fmt.Fprintln(env.Err)
		return context.Cause(ctx)
	}
}

func isTerminal(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
