package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/schedule"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// dueFlags let a run take only what is due.
type dueFlags struct {
	only  bool
	table string
}

// check refuses what makes no sense.
func (d dueFlags) check() error {
	if d.table == "" {
		return nil
	}
	if !d.only {
		return errors.New("--schedule is for --if-due")
	}
	_, err := schedule.ParseCron(d.table)
	return err
}

// keepDue leaves in the plan the apps that are due, by their schedules and by
// the restore points that there are. An app is taken whole, once one of its
// volumes is due; one with a schedule that cannot be read fails.
func (s *session) keepDue(ctx context.Context) error {
	if !s.options.due.only {
		return nil
	}
	points, err := s.cluster.Snapshots(ctx, s.scope)
	if err != nil {
		return err
	}
	last, newest := lastGood(points)
	var kept []snapshot.App
	var apps []snapshot.App
	var candidates []schedule.Candidate
	for _, app := range s.cuts.Apps {
		c, scheduled, err := s.candidate(app, last)
		switch {
		case err != nil:
			app.Err = err
			kept = append(kept, app)
		case scheduled:
			apps, candidates = append(apps, app), append(candidates, c)
		}
	}
	due := schedule.Due(candidates, newest, s.started, s.request.Zone)
	for _, i := range due {
		kept = append(kept, apps[i])
	}
	s.waiting = len(s.cuts.Apps) - len(kept)
	s.cuts.Apps = kept
	return nil
}

// lastGood is when each claim was last cut for a restore point that can be used,
// by namespace/claim, and the newest of these times.
func lastGood(points []catalog.Snapshot) (last map[string]time.Time, newest time.Time) {
	last = map[string]time.Time{}
	for _, p := range points {
		if p.Role != "" || !p.Ready || p.Terminating {
			continue
		}
		key, cut := p.Namespace+"/"+p.Claim, p.CutAt()
		if cut.After(last[key]) {
			last[key] = cut
		}
		if cut.After(newest) {
			newest = cut
		}
	}
	return last, newest
}

// candidate is app with the schedule of its volume that is due first, and
// whether one of them has a schedule.
func (s *session) candidate(app snapshot.App, last map[string]time.Time) (c schedule.Candidate, scheduled bool, err error) {
	var soonest time.Time
	for _, v := range app.Volumes {
		text, annotation, said := catalog.ScheduleOf(v.Claim, s.inventory.Namespaces[v.Claim.Namespace])
		if !said {
			text = s.options.due.table
		}
		if text == "" {
			continue
		}
		table, err := schedule.ParseCron(text)
		if err != nil {
			return c, false, &catalog.Failure{
				Code: catalog.CodeUsage, Message: fmt.Sprintf("snapshot of %s/%s not taken: annotation %s: %v", app.Namespace, app.Name, annotation, err),
				State: "app untouched, nothing created", Next: "kubectl describe pvc " + v.Claim.Name + " -n " + app.Namespace,
			}
		}
		at := last[app.Namespace+"/"+v.Claim.Name]
		next := at // what was never taken goes first
		if !at.IsZero() {
			next = table.Next(at.In(s.request.Zone))
		}
		if !scheduled || next.Before(soonest) {
			c, soonest = schedule.Candidate{Name: app.Namespace + "/" + app.Name, Cron: table, Last: at}, next
		}
		scheduled = true
	}
	return c, scheduled, nil
}
