package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	uncopied  error // why the plan has no copies that were asked for
	started   time.Time
}

// do plans, and unless that is all that was asked for, runs. An error says
// that nothing was done.
func (s *session) do(ctx context.Context) (r report, err error) {
	if s.cluster, err = s.env.Connect(s.config); err != nil {
		return r, err
	}
	if err := s.plan(ctx); err != nil {
		return r, err
	}
	if s.dry() {
		return s.dryReport(), nil
	}
	if s.progress.text() {
		s.printPlan(s.env.Err)
	}
	if err := s.checkRights(ctx); err != nil {
		return r, err
	}
	return s.run(ctx)
}

// dry reports whether the plan is all that was asked for.
func (s *session) dry() bool { return s.options.dryRun == "client" }

// fail writes err as the result too, where the result is for a script.
func (s *session) fail(err error) error {
	if s.printer == nil {
		return err
	}
	r := report{APIVersion: apiVersion, Kind: "SnapshotRun", Run: s.request.Run, Result: "Failed", ExitCode: exitCode(err), Items: []itemDoc{}}
	r.blame(err)
	return errors.Join(err, printDocument(s.env.Out, s.printer, r))
}

// plan looks at the cluster once and decides.
func (s *session) plan(ctx context.Context) (err error) {
	s.started = s.env.Now()
	if s.inventory, err = s.cluster.Inventory(ctx, s.scope); err != nil {
		return err
	}
	if s.cuts, err = snapshot.MakePlan(s.request, s.inventory); err != nil {
		return err
	}
	for _, name := range s.repositories {
		if _, err := offsite.Find(s.inventory.Repositories, name); err != nil {
			return err // what else is wrong with a copy is no reason not to cut
		}
	}
	planned := s.planned()
	s.copies, s.uncopied = s.planCopies(planned)
	s.want(planned)
	return nil
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

// planCopies plans the copies of snapshots. The error joins why some are not
// in the plan.
func (s *session) planCopies(snapshots []catalog.Snapshot) (offsite.Plan, error) {
	choice, err := s.choice(snapshots)
	request := offsite.Request{
		Run: s.request.Run, BackupNamespace: s.options.backupNamespace, Repositories: s.repositories, Choice: choice,
		Parallel: offsite.DefaultParallel, Detach: !s.options.wait,
	}
	s.options.moverFlags.apply(&request)
	plan, planErr := offsite.New(request, s.inventory.Repositories, snapshots)
	return plan, errors.Join(err, planErr)
}

// want notes with each volume which copies of it are asked for. One that is to
// be kept until it is copied, and is copied nowhere, would never be let go: its
// app is not taken.
func (s *session) want(planned []catalog.Snapshot) {
	wanted := map[string][]string{}
	for _, shot := range planned {
		wanted[shot.Namespace+"/"+shot.Claim] = s.copies.Request.Wanted(s.inventory.Repositories, shot)
	}
	for i, app := range s.cuts.Apps {
		for j, v := range app.Volumes {
			names := wanted[app.Namespace+"/"+v.Claim.Name]
			app.Volumes[j].Wanted = names
			if app.Err == nil && v.Retain.Copied && len(names) == 0 {
				s.cuts.Apps[i].Err = &catalog.Failure{
					Code:    catalog.CodeNoSecret,
					Message: fmt.Sprintf("snapshot of %s/%s not taken: %s is to be kept until it is copied, and no copy is asked for", app.Namespace, app.Name, v.Claim.Name),
					State:   "app untouched, nothing created",
					Next:    "name a repository with --repository, or keep it by time with --retain=30d; kubectl backsnap repo list shows those there are",
				}
			}
		}
	}
}

// choice is what annotations say about repositories, by namespace/claim. One
// that cannot be read chooses none and is an error.
func (s *session) choice(snapshots []catalog.Snapshot) (map[string][]string, error) {
	choice := map[string][]string{}
	var errs []error
	for _, shot := range snapshots {
		text, ok := s.repositoryNote(shot)
		if !ok {
			continue
		}
		names, err := offsite.ParseRepositories(text)
		if err != nil {
			names = []string{}
			errs = append(errs, &catalog.Failure{
				Code: catalog.CodeUsage, Message: fmt.Sprintf("%s/%s not copied: annotation %s", shot.Namespace, shot.Claim, catalog.AnnotationRepository),
				Cause: err, State: "its snapshot is not touched by that", Next: fmt.Sprintf("kubectl describe pvc %s -n %s", shot.Claim, shot.Namespace),
			})
		}
		choice[shot.Namespace+"/"+shot.Claim] = names
	}
	return choice, errors.Join(errs...)
}

// repositoryNote is what the annotation of the claim, else of its namespace, says.
func (s *session) repositoryNote(shot catalog.Snapshot) (string, bool) {
	i := slices.IndexFunc(s.inventory.Claims, func(c catalog.Claim) bool { return c.Namespace == shot.Namespace && c.Name == shot.Claim })
	if i >= 0 {
		if text, ok := s.inventory.Claims[i].Annotations[catalog.AnnotationRepository]; ok {
			return text, true
		}
	}
	text, ok := s.inventory.Namespaces[shot.Namespace][catalog.AnnotationRepository]
	return text, ok
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
	namespaces := s.cuts.Namespaces()
	if len(namespaces) == 0 { // nothing will be written
		return s.report(snapshot.Run(ctx, s.cluster, s.env.Now, s.cuts, s.progress), nil, nil), nil
	}
	held, release, err := s.env.Lock(ctx, s.cluster, Lock{
		Run: s.request.Run, Namespaces: namespaces,
		Slots: s.options.lockSlots, Dir: s.options.lockDir, Timeout: s.options.lockTimeout,
	})
	if err != nil {
		return report{}, err
	}
	defer s.progress.Close()
	swept := s.sweep(held, namespaces)
	result := snapshot.Run(held, s.cluster, s.env.Now, s.cuts, s.progress)
	swept()
	outcomes, copyErr := s.copy(held, result)
	return s.report(result, outcomes, errors.Join(copyErr, release())), nil
}

// sweep begins to remove what earlier runs have left.
func (s *session) sweep(ctx context.Context, namespaces []string) (wait func()) {
	w := &sweeper{
		cluster: s.cluster, now: s.env.Now, watcher: s.progress,
		run: s.request.Run, namespaces: namespaces, places: []string{s.options.backupNamespace},
	}
	if s.options.inNamespace {
		w.places = namespaces
	}
	if len(s.copies.Copies) == 0 {
		return w.start(ctx, w.snapshots)
	}
	return w.start(ctx, w.snapshots, w.copies)
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
	if !s.dry() {
		s.progress.Result(s.env.Now(), r)
	}
	for _, err := range r.failures {
		printError(s.env.Err, err)
	}
	if r.detached() && !s.options.wait && s.progress.text() {
		fmt.Fprintf(s.env.Err, "The copies are being made. Follow them: kubectl backsnap logs -f run/%s%s\n", r.Run, whereFlags(s.scope))
	}
	if r.ExitCode != exitOK {
		return &finished{code: r.ExitCode}
	}
	return nil
}

func (s *session) printResult(r report) error {
	switch {
	case s.printer != nil:
		return printDocument(s.env.Out, s.printer, r)
	case s.options.output.format == "name":
		return r.printNames(s.env.Out)
	case s.dry():
		s.printPlan(s.env.Out)
		return nil
	}
	return r.printSentences(s.env.Out)
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
	if len(s.cuts.Apps)+len(s.cuts.Skips) == 0 {
		fmt.Fprintln(w, "  no PersistentVolumeClaim is selected")
	}
	s.printOffsite(w)
	fmt.Fprintf(w, "  keep      %s\n", s.keeping())
	for _, note := range s.notes() {
		fmt.Fprintf(w, "  note      %s\n", note)
	}
	fmt.Fprintln(w)
}

// notes are what a person should know of how the plan was made.
func (s *session) notes() []string {
	var notes []string
	if s.note != "" {
		notes = append(notes, s.note)
	}
	costs := map[string]string{
		catalog.KindVolumes:    "drivers are those that the claims name",
		catalog.KindClasses:    "a snapshot class that is not named is the cluster's choice",
		catalog.KindNamespaces: "their annotations do not count",
	}
	for _, kind := range s.inventory.Unread {
		notes = append(notes, kind+" not read: "+costs[kind])
	}
	return notes
}

func (s *session) printOffsite(w io.Writer) {
	for _, r := range s.copies.Repositories() {
		fmt.Fprintf(w, "  off-site  %s  %s\n", r.Name, r.Address)
	}
	for _, err := range split(s.uncopied) {
		fmt.Fprintf(w, "  off-site  %s\n", printable(err.Error()))
	}
	if len(s.inventory.Repositories) == 0 && s.repositories == nil {
		where := "namespace " + s.options.backupNamespace + ", or you may not read its Secrets"
		if s.scope.InNamespace {
			where = s.where()
		}
		fmt.Fprintf(w, "  off-site  none: no repository in %s; see kubectl backsnap repo --help\n", where)
	}
}

func (s *session) keeping() string {
	switch r := s.request.Retain; {
	case s.request.Pin:
		return "until the pin is taken off"
	case r.Calendar:
		return "by the calendar, days of " + s.request.Zone.String()
	case r.Copied:
		return "until every copy is on record"
	case r.Hours > 0:
		return "until " + s.started.Add(time.Duration(r.Hours)*time.Hour).In(s.request.Zone).Format("2006-01-02 15:04 MST")
	default:
		return "through " + r.DeleteAfter(s.started.In(s.request.Zone)) + " " + s.request.Zone.String()
	}
}

func printApp(w io.Writer, app snapshot.App) {
	fmt.Fprintf(w, "  %s/%s   %s\n", app.Namespace, app.Name, hookText(app))
	for _, v := range app.Volumes {
		fmt.Fprintf(w, "    %-24s %8s  %s  class %s\n", v.Claim.Name, size(v.Claim.Capacity), v.Claim.Driver, cmp.Or(v.Class, "of the cluster's choice"))
	}
}

// hookText says what runs in which pod, and why.
func hookText(app snapshot.App) string {
	switch {
	case app.Err != nil:
		return printable(app.Err.Error())
	case app.Hook == nil:
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
