package cli_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

func TestArguments(t *testing.T) {
	for _, c := range []struct{ argv, want []string }{
		{[]string{"/opt/bin/kubectl-backsnap", "list", "-A"}, []string{"list", "-A"}},
		{[]string{"kubectl-backsnap"}, []string{}},
		{[]string{"/opt/bin/kubectl_complete-backsnap", "list", ""}, []string{"__complete", "list", ""}},
		{[]string{"kubectl_complete-backsnap.exe", ""}, []string{"__complete", ""}},
	} {
		if got := cli.Arguments(c.argv); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.argv, got, c.want)
		}
	}
}

// What a usage line promises is completed: each of its forms is known.
func TestEveryFormIsOffered(t *testing.T) {
	form := regexp.MustCompile(`(?:^|[ (\[])([A-Za-z]*/?[A-Z]{2,})`)
	for _, cmd := range commandsOf(cli.New(&cli.Env{Getenv: func(string) string { return "" }})) {
		_, usage, _ := strings.Cut(cmd.Use, " ")
		for _, found := range form.FindAllStringSubmatch(usage, -1) {
			switch found[1] {
			case "SELECTOR", "TABLE", "COMMAND", "TOPIC": // of flags; of help, which cobra completes
			default:
				if !cli.Offers(found[1]) {
					t.Errorf("%s: %s is not offered", cmd.CommandPath(), found[1])
				}
			}
		}
	}
}
