package cli_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// worldSchedule is a CronJob of a schedule.
type worldSchedule struct {
	Name      string    `json:"name"` // namespace/name
	Of        string    `json:"of"`
	Cron      string    `json:"cron"`
	Zone      string    `json:"zone,omitempty"`
	Target    string    `json:"target,omitempty"`
	Suspended bool      `json:"suspended,omitempty"`
	LastOK    time.Time `json:"lastOK,omitzero"`
	// Exit is that of its Jobs, Says what they log.
	Exit int    `json:"exit,omitempty"`
	Says string `json:"says,omitempty"`
}

func (c *cluster) Schedules(_ context.Context, scope catalog.Scope) ([]catalog.Schedule, error) {
	var found []catalog.Schedule
	for _, s := range c.w.Schedules {
		namespace, name := split(s.Name)
		if scope.All || slices.Contains(scope.Namespaces, namespace) {
			found = append(found, catalog.Schedule{Namespace: namespace, Name: name, Of: s.Of, Cron: s.Cron, Zone: s.Zone, Target: s.Target, Suspended: s.Suspended, LastOK: s.LastOK})
		}
	}
	return found, nil
}

func (c *cluster) schedule(namespace, name string) *worldSchedule {
	return &c.w.Schedules[slices.IndexFunc(c.w.Schedules, func(s worldSchedule) bool { return s.Name == namespace+"/"+name })]
}

func (c *cluster) ManifestsOf(_ context.Context, namespace, name string, namespaces []string) ([]*unstructured.Unstructured, error) {
	var found []*unstructured.Unstructured
	for _, s := range c.w.Schedules {
		if in, cronJob := split(s.Name); in == namespace && s.Of == name && slices.Contains(namespaces, in) {
			o := &unstructured.Unstructured{}
			o.SetAPIVersion("batch/v1")
			o.SetKind("CronJob")
			o.SetNamespace(in)
			o.SetName(cronJob)
			found = append(found, o)
		}
	}
	return found, nil
}

func (c *cluster) MakeManifest(_ context.Context, o *unstructured.Unstructured, dry bool) error {
	name := o.GetNamespace() + "/" + o.GetName()
	if o.GetKind() == "CronJob" && slices.ContainsFunc(c.w.Schedules, func(s worldSchedule) bool { return s.Name == name }) {
		return fmt.Errorf("create CronJob %s: %w", name, catalog.ErrTaken)
	}
	if dry {
		return nil
	}
	c.w.did("made %s %s", o.GetKind(), name)
	if o.GetKind() == "CronJob" {
		table, _, _ := unstructured.NestedString(o.Object, "spec", "schedule")
		c.w.Schedules = append(c.w.Schedules, worldSchedule{Name: name, Of: o.GetLabels()[catalog.LabelSchedule], Cron: table})
	}
	return nil
}

func (c *cluster) RemoveManifest(_ context.Context, o *unstructured.Unstructured) error {
	c.w.Schedules = slices.DeleteFunc(c.w.Schedules, func(s worldSchedule) bool { return s.Name == o.GetNamespace()+"/"+o.GetName() })
	return nil
}

func (c *cluster) SuspendSchedule(_ context.Context, namespace, cronJob string, suspended bool) error {
	c.schedule(namespace, cronJob).Suspended = suspended
	return nil
}

func (c *cluster) StartSchedule(_ context.Context, namespace, cronJob, job string) error {
	c.w.did("job %s/%s of %s", namespace, job, cronJob)
	return nil
}

func (c *cluster) FollowJob(_ context.Context, namespace, job string, log io.Writer) (int, error) {
	s := c.schedule(namespace, job[:len(job)-9])
	fmt.Fprintln(log, s.Says)
	return s.Exit, nil
}
