package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// session is one `snapshot` from its command line to its exit code: snapshot,
// then copy.
type session struct {
	env      *Env
	config   *genericclioptions.ConfigFlags
	options  *snapshotOptions
	cluster  Cluster
	progress progress
	printer  printers.ResourcePrinter

	request      snapshot.Request
	repositories []string
	scope        catalog.Scope
	note         string // about the time zone

	inventory catalog.Inventory
	cuts      snapshot.Plan
	copies    offsite.Plan
	started   time.Time
}

// plan looks at the cluster once and decides; it shows the plan where a
// person is to see it.
func (s *session) plan(ctx context.Context) (err error) {
	s.started = s.env.Now()
	if s.inventory, err = s.cluster.Inventory(ctx, s.scope); err != nil {
		return err
	}
	if s.cuts, err = snapshot.MakePlan(s.request, s.inventory); err != nil {
		return err
	}
	s.copies, err = s.planCopies(s.planned())
	if catalog.Has(err, catalog.CodeNoSecret) || catalog.Has(err, catalog.CodeUsage) {
		return err // a repository that was named is not there; what else is wrong with a copy is no reason not to cut
	}
	if s.showsText() {
		s.printPlan(s.env.Err)
	}
	return nil
}

// showsText reports whether sentences go to standard error beside the result.
func (s *session) showsText() bool {
	_, isJSON := s.progress.(*ndjson)
	_, isSilent := s.progress.(silent)
	return !isJSON && !isSilent && s.options.dryRun == "none"
}

// planned are the snapshots that the plan will make, as far as they are known.
func (s *session) planned() []catalog.Snapshot {
	var planned []catalog.Snapshot
	for _, app := range s.cuts.Apps {
		for _, v := range app.Volumes {
			if app.Err == nil {
				planned = append(planned, catalog.Snapshot{Namespace: app.Namespace, Name: v.Name, Claim: v.Claim.Name, Run: s.request.Run})
			}
		}
	}
	return planned
}

func (s *session) planCopies(snapshots []catalog.Snapshot) (offsite.Plan, error) {
	choice, err := s.choice()
	if err != nil {
		return offsite.Plan{}, err
	}
	return offsite.New(offsite.Request{
		Run: s.request.Run, BackupNamespace: s.options.backupNamespace, Repositories: s.repositories, Choice: choice,
		Image: s.options.image, Parallel: offsite.DefaultParallel, Deadline: offsite.DefaultDeadline,
	}, s.inventory.Repositories, snapshots)
}

// choice is what the annotations of claims and namespaces say about repositories.
func (s *session) choice() (map[string][]string, error) {
	choice := map[string][]string{}
	for _, c := range s.inventory.Claims {
		text, ok := c.Annotations[catalog.AnnotationRepository]
		if !ok {
			text, ok = s.inventory.Namespaces[c.Namespace][catalog.AnnotationRepository]
		}
		if !ok {
			continue
		}
		names, err := offsite.ParseRepositories(text)
		if err != nil {
			return nil, &catalog.Failure{
				Code: catalog.CodeUsage, Message: fmt.Sprintf("read annotation %s of %s/%s", catalog.AnnotationRepository, c.Namespace, c.Name),
				Cause: err, State: "nothing changed", Next: fmt.Sprintf("kubectl describe pvc %s -n %s", c.Name, c.Namespace),
			}
		}
		choice[c.Namespace+"/"+c.Name] = names
	}
	return choice, nil
}

// checkRights asks for all rights before anything is touched.
func (s *session) checkRights(ctx context.Context) error {
	rights := s.cuts.Rights()
	if len(s.copies.Copies) > 0 {
		rights = append(rights, s.copies.Rights()...)
	}
	for _, namespace := range s.cuts.Namespaces() {
		for _, verb := range []string{"create", "get", "update", "delete"} {
			rights = append(rights, catalog.Right{Verb: verb, Group: "coordination.k8s.io", Resource: "leases", Namespace: namespace})
		}
	}
	missing, err := s.cluster.Missing(ctx, rights)
	if err != nil || len(missing) == 0 {
		return err
	}
	var names []string
	for _, right := range missing {
		names = append(names, "cannot "+right.String())
	}
	return &catalog.Failure{
		Code: catalog.CodeForbidden, Message: "rights are missing", Cause: errors.New(strings.Join(names, "; ")),
		State: "nothing changed", Next: "ask for a Role with these rights, or leave the copy out with --repository=none",
	}
}

// run does what was planned and says what became of it.
func (s *session) run(ctx context.Context) (report, error) {
	if len(s.cuts.Apps) == 0 {
		return s.report(snapshot.Run(ctx, s.cluster, s.env.Now, s.cuts, s.progress), nil, nil), nil
	}
	held, release, err := s.env.Lock(ctx, s.cluster, Lock{
		Run: s.request.Run, Namespaces: s.cuts.Namespaces(),
		Slots: s.options.lockSlots, Dir: s.options.lockDir, Timeout: s.options.lockTimeout,
	})
	if err != nil {
		return report{}, err
	}
	defer s.progress.Close()
	if len(s.copies.Copies) > 0 {
		s.collect(held)
	}
	result := snapshot.Run(held, s.cluster, s.env.Now, s.cuts, s.progress)
	outcomes, copyErr := s.copy(held, result)
	return s.report(result, outcomes, errors.Join(copyErr, release())), nil
}

// collect takes in what movers of earlier runs have finished meanwhile. That
// it fails is no reason not to make a new restore point.
func (s *session) collect(ctx context.Context) {
	if _, err := offsite.Collect(ctx, s.cluster, s.env.Now, s.options.backupNamespace, s.progress); err != nil {
		s.progress.Event(catalog.Event{
			Time: s.env.Now(), Run: s.request.Run, Phase: catalog.PhaseUpload, State: catalog.Warning,
			Message: "collect finished movers of earlier runs: " + err.Error(),
		})
	}
}

// copy copies the snapshots that were taken off-site.
func (s *session) copy(ctx context.Context, result snapshot.Result) ([]offsite.Outcome, error) {
	var ready []catalog.Snapshot
	for _, item := range result.Items {
		if item.Outcome == snapshot.Protected {
			ready = append(ready, *item.Snapshot)
		}
	}
	plan, planErr := s.planCopies(ready)
	if len(plan.Copies) == 0 {
		return nil, planErr
	}
	outcomes, err := offsite.Run(ctx, s.cluster, s.env.Now, plan, s.progress)
	return outcomes, errors.Join(planErr, err)
}

// print writes the result and what is left to say, and turns the run into its
// exit code.
func (s *session) print(r report) error {
	if err := s.printResult(r); err != nil {
		return err
	}
	s.progress.Event(catalog.Event{
		Time: s.env.Now(), Run: s.request.Run, Phase: catalog.PhaseResult, State: resultState(r.ExitCode), Message: r.summary(), Took: s.env.Now().Sub(s.started),
	})
	s.progress.Close()
	for _, err := range r.failures {
		printError(s.env.Err, err)
	}
	if r.ExitCode != exitOK {
		return &finished{code: r.ExitCode}
	}
	return nil
}

func resultState(code int) catalog.State {
	if code == exitOK {
		return catalog.OK
	}
	return catalog.Failed
}

func (s *session) printResult(r report) error {
	switch {
	case s.printer != nil:
		return printDocument(s.env.Out, s.printer, r)
	case s.options.output.format == "name":
		return r.printNames(s.env.Out)
	}
	return r.printSentences(s.env.Out)
}

// printDryRun writes the plan as the result.
func (s *session) printDryRun() error {
	r := s.dryReport()
	if !s.options.output.human() {
		if err := s.printResult(r); err != nil {
			return err
		}
	} else {
		s.printPlan(s.env.Out)
	}
	for _, err := range r.failures {
		printError(s.env.Err, err)
	}
	if r.ExitCode != exitOK {
		return &finished{code: r.ExitCode}
	}
	return nil
}

// printPlan writes the plan for a person.
func (s *session) printPlan(w io.Writer) {
	fmt.Fprintf(w, "Plan  context %s, %s, run %s\n", s.contextName(), s.where(), s.request.Run)
	for _, app := range s.cuts.Apps {
		printApp(w, app)
	}
	for _, skip := range s.cuts.Skips {
		fmt.Fprintf(w, "  skipped  %s/%s: %s\n", skip.Claim.Namespace, skip.Claim.Name, skip.Reason)
	}
	for _, r := range s.copies.Repositories() {
		fmt.Fprintf(w, "  off-site  %s  %s\n", r.Name, r.Address)
	}
	if len(s.copies.Copies) == 0 && s.repositories == nil {
		fmt.Fprintf(w, "  off-site  none: no repository is configured in namespace %s; see kubectl backsnap repo --help\n", s.options.backupNamespace)
	}
	fmt.Fprintf(w, "  keep      %s\n", s.keeping())
	if s.note != "" {
		fmt.Fprintf(w, "  note      %s\n", s.note)
	}
	fmt.Fprintln(w)
}

func (s *session) keeping() string {
	text := "by the calendar, days of " + s.request.Zone.String()
	if !s.request.Retain.Calendar {
		text = "through " + s.request.Retain.DeleteAfter(s.started.In(s.request.Zone)) + " " + s.request.Zone.String()
	}
	if s.request.Pin {
		text = "until the pin is taken off"
	}
	return text
}

func printApp(w io.Writer, app snapshot.App) {
	fmt.Fprintf(w, "  %s/%s   %s\n", app.Namespace, app.Name, hookText(app))
	for _, v := range app.Volumes {
		fmt.Fprintf(w, "    %-24s %8s  %s  class %s\n", v.Claim.Name, size(v.Claim.Capacity), v.Claim.Driver, v.Class)
	}
	if app.Err != nil {
		fmt.Fprintf(w, "    not taken: %v\n", app.Err)
	}
}

// hookText says what runs in which pod, and why.
func hookText(app snapshot.App) string {
	if app.Hook == nil {
		return "no exec: " + app.Reason
	}
	first := app.Hook.Candidates[0]
	text := fmt.Sprintf("dump by plugin %s (%s) in pod %s, container %s", app.Hook.Plugin.Name, app.Reason, first.Pod, first.Container)
	if n := len(app.Hook.Candidates); n > 1 {
		var pods []string
		for _, c := range app.Hook.Candidates {
			pods = append(pods, c.Pod)
		}
		text = fmt.Sprintf("dump by plugin %s (%s) in the primary of %s: a replica may lag behind; the probe tells which it is",
			app.Hook.Plugin.Name, app.Reason, strings.Join(pods, ", "))
	}
	return text
}

func (s *session) contextName() string {
	if name := *s.config.Context; name != "" {
		return name
	}
	raw, err := s.config.ToRawKubeConfigLoader().RawConfig()
	if err != nil || raw.CurrentContext == "" {
		return "in-cluster"
	}
	return raw.CurrentContext
}

func (s *session) where() string {
	if s.scope.All {
		return "all namespaces"
	}
	return "namespace " + strings.Join(s.scope.Namespaces, ", ")
}
