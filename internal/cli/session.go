package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// session is one `snapshot` from its command line to its exit code: snapshot,
// then copy.
type session struct {
	copying
	options *snapshotOptions
	request snapshot.Request
	note    string // about the time zone
	waiting int    // apps that are not due, or have no schedule
	cuts    snapshot.Plan
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
	if s.trial() {
		if err := s.try(ctx); err != nil {
			return r, err
		}
	}
	if s.dry() {
		return s.dryReport(), nil
	}
	if s.progress.text() {
		s.printPlan(s.env.Err)
	}
	if err := s.checkRights(ctx, s.cuts.Rights(), s.cuts.Namespaces()); err != nil {
		return r, err
	}
	return s.run(ctx)
}

// plan looks at the cluster once and decides.
func (s *session) plan(ctx context.Context) (err error) {
	if err = s.look(ctx); err != nil {
		return err
	}
	if s.cuts, err = snapshot.MakePlan(s.request, s.inventory); err != nil {
		return err
	}
	if err := s.keepDue(ctx); err != nil {
		return err
	}
	if err := s.checkRepositories(); err != nil {
		return err
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
				shot := catalog.Snapshot{Namespace: app.Namespace, Name: v.Name, Claim: v.Claim.Name, Run: s.id}
				if s.trial() { // movers are tried: what they say of it, they will say of the real one
					shot.Cut, shot.Retain = s.started, v.Retain.Label()
					shot.Record = &catalog.Record{Version: catalog.RecordVersion, Run: s.id, App: app.Name, Claim: v.Claim.Record(), TimeZone: s.request.Zone.String()}
				}
				planned = append(planned, shot)
			}
		}
	}
	return planned
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

// run does what was planned and says what became of it.
func (s *session) run(ctx context.Context) (report, error) {
	namespaces := s.cuts.Namespaces()
	if len(namespaces) == 0 { // nothing will be written
		return s.report(snapshot.Run(ctx, s.cluster, s.env.Now, s.cuts, s.progress), nil, nil), nil
	}
	held, release, err := s.lock(ctx, namespaces)
	if err != nil {
		return report{}, err
	}
	defer s.progress.Close()
	swept := s.sweep(held, namespaces)
	result := snapshot.Run(held, s.cluster, s.env.Now, s.cuts, s.progress)
	swept()
	outcomes, copyErr := s.copy(held, ready(result))
	return s.report(result, outcomes, errors.Join(copyErr, release())), nil
}

// sweep begins to remove what earlier runs have left.
func (s *session) sweep(ctx context.Context, namespaces []string) (wait func()) {
	w := s.sweeper(namespaces)
	if len(s.copies.Copies) == 0 {
		return w.start(ctx, w.snapshots)
	}
	return w.start(ctx, w.snapshots, w.copies)
}

// ready are the snapshots that were taken.
func ready(result snapshot.Result) []catalog.Snapshot {
	var ready []catalog.Snapshot
	for _, item := range result.Items {
		if item.Outcome == snapshot.Protected {
			ready = append(ready, *item.Snapshot)
		}
	}
	return ready
}

// printPlan writes the plan for a person.
func (s *session) printPlan(w io.Writer) {
	s.printHead(w)
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
	if s.waiting > 0 {
		notes = append(notes, fmt.Sprintf("%d apps are not due yet, or have no schedule", s.waiting))
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
	if app.Err == nil && app.Hook != nil {
		fmt.Fprintf(w, "    recognised by %s\n", app.Reason)
	}
	for _, v := range app.Volumes {
		fmt.Fprintf(w, "    %-24s %8s  %s  class %s\n", v.Claim.Name, size(v.Claim.Capacity), v.Claim.Driver, cmp.Or(v.Class, "of the cluster's choice"))
	}
}

// hookText says what runs in which pod.
func hookText(app snapshot.App) string {
	switch {
	case app.Err != nil:
		return printable(app.Err.Error())
	case app.Hook == nil:
		return "no exec: " + app.Reason
	}
	candidates := app.Hook.Candidates
	if len(candidates) == 1 {
		return fmt.Sprintf("dump by plugin %s in pod %s, container %s", app.Hook.Plugin.Name, candidates[0].Pod, candidates[0].Container)
	}
	var pods []string
	for _, c := range candidates {
		pods = append(pods, c.Pod)
	}
	return fmt.Sprintf("dump by plugin %s in the primary of %s: a replica may lag behind; the probe tells which it is", app.Hook.Plugin.Name, strings.Join(pods, ", "))
}
