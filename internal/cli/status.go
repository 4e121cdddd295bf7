package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/schedule"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
	"github.com/backsnap/kubectl-backsnap/internal/status"
)

type statusOptions struct {
	scopeFlags
	maxAge, require   string
	failOn            []string
	calendar, details bool
	color, timezone   string
	noHeaders         bool
	output            *output
}

const statusLong = `
	Tell of every app whether it is protected: how old its last good restore point is, its last copy and its last proof,
	when the next is due and what is asked for; the worst first. An app is as well off as the worst of its volumes. It only
	reads the cluster, and exits with 7 where an app is in a state that --fail-on names.

	NONE: there is no restore point. LATE: what --require asks for is not there, or is older than the goal. WARN: it has no
	off-site copy within the goal, or the last run failed. ok: none of these. out: somebody left it out. The goal is
	annotation backsnap.sh/max-age of the claim, else of its namespace, else --max-age.

	On a terminal the table is at most one screen; in a pipe, with -o wide and with --details it is whole. What lies in a
	repository alone is not seen: list --from-repository shows it.`

const statusExample = `
	# Is everything safe?
	kubectl backsnap status -A

	# The last weeks of one app, a glyph a day
	kubectl backsnap status statefulset/mysql -n shop --calendar

	# For an alarm: exit 7 unless each has been copied off-site within a day
	kubectl backsnap status -A --max-age=24h --require=offsite

	# One page to send to somebody
	kubectl backsnap status -A -o html > protection.html

	# Metrics for the textfile collector of a node exporter
	kubectl backsnap status -A -o prom --fail-on=`

func newStatus(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &statusOptions{}
	cmd := &cobra.Command{
		Use:     "status [TYPE/NAME | CLAIM | -l SELECTOR | -A]",
		Short:   "Tell which apps are protected, the worst first",
		Long:    templates.LongDesc(statusLong),
		Example: templates.Examples(statusExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runStatus(cmd, env, config, o, args) },
	}
	o.addClaims(cmd)
	f := cmd.Flags()
	f.StringVar(&o.maxAge, "max-age", "24h", "How old the last good restore point may get, such as 24h, 7d or none; annotation "+catalog.AnnotationMaxAge+" goes before it")
	f.StringVar(&o.require, "require", string(status.Taken), "What has to be there within that time: snapshot; offsite: and a copy; proven: and a restore that was tried, at any time")
	f.StringSliceVar(&o.failOn, "fail-on", []string{"late", "none"}, "`States` for which to exit with 7: late, none, warn; empty: for nothing")
	f.BoolVar(&o.calendar, "calendar", false, "Show the last weeks of each app, a glyph a day")
	f.BoolVar(&o.details, "details", false, "Show the volumes of each app and their sizes too")
	f.StringVar(&o.timezone, "timezone", "", "Where the days of the calendar begin; default: local")
	f.StringVar(&o.color, "color", "auto", "Colour on a terminal: auto, always or never")
	f.BoolVar(&o.noHeaders, "no-headers", false, "Write the rows alone: no heading and no summary")
	o.output = addOutput(cmd, "html", "junit", "prom")
	return withEnvironment(env, cmd)
}

// coverage is one `status` from its command line to its exit code.
type coverage struct {
	env     *Env
	options *statusOptions
	context string
	printer printers.ResourcePrinter
	colour  bool
	request status.Request
	failOn  []status.State
	note    string // about the time zone
	chosen  selection
	found   []bool // which targets mean a claim that there is
	report  status.Report
}

func runStatus(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *statusOptions, args []string) error {
	namespace, err := currentNamespace(config)
	if err != nil {
		return err
	}
	c := &coverage{env: env, options: o, context: contextName(config)}
	if err := c.read(args, namespace); err != nil {
		return usageError(cmd, err)
	}
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	if err := c.look(cmd.Context(), cluster); err != nil {
		return err
	}
	if err := c.print(); err != nil {
		return err
	}
	if code := c.exit(); code != exitOK {
		return &finished{code: code}
	}
	return nil
}

// read reads the command line; nothing is asked of the cluster.
func (c *coverage) read(args []string, namespace string) (err error) {
	o := c.options
	if c.chosen, err = o.choose(args, namespace); err != nil {
		return err
	}
	c.found = make([]bool, len(c.chosen.targets))
	c.request = status.Request{
		Scope: c.chosen.scope, Selects: c.selects, Excludes: func(namespace string) bool { return c.chosen.excluded(namespace) != "" },
		Next: nextOf, Now: c.env.Now(), Require: status.Level(o.require),
	}
	if !slices.Contains([]status.Level{status.Taken, status.Offsite, status.Proven}, c.request.Require) {
		return fmt.Errorf("require %q: want snapshot, offsite or proven", o.require)
	}
	if o.calendar && slices.Contains([]string{"name", "prom", "junit"}, o.output.format) {
		return fmt.Errorf("--calendar together with --output=%s: it has no calendar", o.output.format)
	}
	if c.request.MaxAge, err = catalog.ParseAge(o.maxAge); err != nil {
		return fmt.Errorf("max-age: %w", err)
	}
	if c.failOn, err = statesOf(o.failOn); err != nil {
		return err
	}
	if c.request.Zone, c.note, err = zone(o.timezone, c.env.Getenv, localtime); err != nil {
		return err
	}
	if c.colour, err = colourOf(o.color, c.env, inner(c.env.Out)); err != nil {
		return err
	}
	c.printer, err = o.output.printer()
	return err
}

// statesOf are the states that --fail-on names.
func statesOf(names []string) ([]status.State, error) {
	known := map[string]status.State{"none": status.None, "late": status.Late, "warn": status.Warn}
	var states []status.State
	for _, name := range names {
		state, ok := known[name]
		if !ok && name != "" {
			return nil, fmt.Errorf("fail-on %q: want late, none or warn", name)
		}
		if ok {
			states = append(states, state)
		}
	}
	return states, nil
}

// selects reports whether a claim is chosen, and notes which target meant it.
func (c *coverage) selects(claim catalog.Claim, mounters []string) bool {
	meant := len(c.chosen.targets) == 0
	for i, t := range c.chosen.targets {
		if meansClaim(t, claim, mounters) {
			c.found[i], meant = true, true
		}
	}
	return meant && c.chosen.claim(claim)
}

func meansClaim(t snapshot.Target, claim catalog.Claim, mounters []string) bool {
	switch {
	case t.Kind == "namespace":
		return claim.Namespace == t.Name
	case claim.Namespace != t.Namespace:
		return false
	case t.Kind == "pvc":
		return claim.Name == t.Name
	}
	return slices.Contains(mounters, t.String())
}

func (c *coverage) look(ctx context.Context, cluster Cluster) (err error) {
	if c.report, err = status.Make(ctx, cluster, c.request); err != nil {
		return err
	}
	for i, t := range c.chosen.targets {
		if !c.found[i] {
			return &catalog.Failure{
				Code: catalog.CodeNotFound, Message: fmt.Sprintf("no PersistentVolumeClaim of %s in namespace %s", t, cmp.Or(t.Namespace, t.Name)),
				State: "nothing changed", Next: "kubectl get pvc -n " + cmp.Or(t.Namespace, t.Name),
			}
		}
	}
	return nil
}

// exit is the code that the report gives.
func (c *coverage) exit() int {
	if slices.ContainsFunc(c.report.Apps, func(a status.App) bool { return slices.Contains(c.failOn, a.State) }) {
		return exitFindings
	}
	return exitOK
}

func (c *coverage) print() error {
	for _, note := range c.notes() {
		fmt.Fprintf(c.env.Err, "note: %s\n", printable(note))
	}
	switch o := c.options.output; {
	case c.printer != nil:
		return printDocument(c.env.Out, c.printer, c.document())
	case o.format == "name":
		return c.printNames()
	case o.format == "prom":
		return writeProm(c.env.Out, c.report, c.env.Version)
	case o.format == "junit":
		return writeJUnit(c.env.Out, c.report, c.failOn)
	case o.format == "html":
		return writeHTML(c.env.Out, c.report, c.context)
	case c.options.calendar:
		return c.printCalendars()
	}
	return c.printTable()
}

// printNames writes the names of the apps, of one that has several each.
func (c *coverage) printNames() error {
	for _, a := range c.report.Apps {
		for part := range strings.SplitSeq(a.Name, "+") {
			if _, err := fmt.Fprintln(c.env.Out, part); err != nil {
				return err
			}
		}
	}
	return nil
}

// notes are what a person should know beside the answer.
func (c *coverage) notes() []string {
	var notes []string
	if c.note != "" && (c.options.calendar || c.options.output.format == "html") {
		notes = append(notes, c.note)
	}
	if slices.Contains(c.report.Unread, catalog.KindNamespaces) {
		notes = append(notes, "namespaces not read: their annotations do not count")
	}
	for _, namespace := range c.report.Omitted {
		notes = append(notes, namespace+": "+c.chosen.excluded(namespace))
	}
	return notes
}

// terminalHeight is the number of lines of w, 0 where it is no terminal.
func terminalHeight(w io.Writer) int {
	file, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return height
}

// nextOf is when a time table comes next after now.
func nextOf(text string, now time.Time) (time.Time, bool) {
	table, err := schedule.ParseCron(text)
	if err != nil {
		return time.Time{}, false
	}
	return table.Next(now), true
}
