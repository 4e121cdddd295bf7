package snapshot

import (
	"fmt"
	"slices"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// planner is a plan in the making.
type planner struct {
	Request
	inv   catalog.Inventory
	known []plugins.Plugin
	// chosen are the claims in scope, by key.
	chosen map[key]bool
}

// key names a claim or an app.
type key struct{ namespace, name string }

func keyOf(c catalog.Claim) key { return key{c.Namespace, c.Name} }

// chooseClaims fills chosen from targets and selector.
func (p *planner) chooseClaims() error {
	p.chosen = map[key]bool{}
	for _, t := range p.Targets {
		claims := p.targetClaims(t)
		if len(claims) == 0 {
			return p.notFound(t)
		}
		for _, c := range claims {
			p.choose(c)
		}
	}
	if len(p.Targets) > 0 {
		return nil
	}
	for _, c := range p.inv.Claims {
		p.choose(c)
	}
	return nil
}

func (p *planner) choose(c catalog.Claim) {
	if p.Selects == nil || p.Selects(c) {
		p.chosen[keyOf(c)] = true
	}
}

// targetClaims are the claims that t means.
func (p *planner) targetClaims(t Target) []catalog.Claim {
	var claims []catalog.Claim
	for _, c := range p.inv.Claims {
		if t.Kind == "namespace" && c.Namespace == t.Name ||
			c.Namespace == t.Namespace && (t.Kind == "pvc" && c.Name == t.Name || p.mountedBy(c, t)) {
			claims = append(claims, c)
		}
	}
	return claims
}

func (p *planner) mountedBy(c catalog.Claim, t Target) bool {
	return slices.ContainsFunc(p.mounters(c), func(pod catalog.Pod) bool {
		return pod.Owner == catalog.Workload{Kind: t.Kind, Name: t.Name} || t.Kind == "pod" && pod.Name == t.Name
	})
}

// mounters are the pods that mount c and have not come to their end.
func (p *planner) mounters(c catalog.Claim) []catalog.Pod {
	var pods []catalog.Pod
	for _, pod := range p.inv.Pods {
		if pod.Namespace == c.Namespace && pod.Phase != "Succeeded" && pod.Phase != "Failed" && slices.Contains(pod.Claims(), c.Name) {
			pods = append(pods, pod)
		}
	}
	return pods
}

func (p *planner) notFound(t Target) error {
	f := &catalog.Failure{Code: catalog.CodeNotFound, State: "nothing changed"}
	switch t.Kind {
	case "pvc":
		f.Message = fmt.Sprintf("no PersistentVolumeClaim %s in namespace %s", t.Name, t.Namespace)
		f.Next = "kubectl get pvc -n " + t.Namespace
	case "namespace":
		f.Message = fmt.Sprintf("no PersistentVolumeClaim in namespace %s", t.Name)
		f.Next = "kubectl get pvc -n " + t.Name
	default:
		f.Message = fmt.Sprintf("no running pod of %s in namespace %s mounts a PersistentVolumeClaim", t, t.Namespace)
		f.Next = fmt.Sprintf("kubectl get %s,pvc -n %s; name the claims where the workload is scaled to zero", t, t.Namespace)
	}
	return f
}

// groups are the chosen claims, those that share an app together, in order of
// the inventory. A claim that shares its app with a chosen one is cut with it
// only if it is chosen too.
func (p *planner) groups() [][]catalog.Claim {
	var groups [][]catalog.Claim
	at := map[key]int{} // app -> index of its group
	for _, c := range p.inv.Claims {
		if !p.chosen[keyOf(c)] {
			continue
		}
		into := -1
		for _, app := range p.appsOf(c) {
			i, seen := at[key{c.Namespace, app}]
			switch {
			case !seen:
			case into < 0:
				into = i
			case i != into: // c ties two groups together
				groups[into] = append(groups[into], groups[i]...)
				groups[i] = nil
				for k, v := range at {
					if v == i {
						at[k] = into
					}
				}
			}
		}
		if into < 0 {
			groups = append(groups, nil)
			into = len(groups) - 1
		}
		groups[into] = append(groups[into], c)
		for _, app := range p.appsOf(c) {
			at[key{c.Namespace, app}] = into
		}
	}
	return slices.DeleteFunc(groups, func(g []catalog.Claim) bool { return g == nil })
}

// appsOf are the names of the workloads whose pods mount c, sorted.
func (p *planner) appsOf(c catalog.Claim) []string {
	var names []string
	for _, pod := range p.mounters(c) {
		names = append(names, pod.Owner.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// app plans one group; without volumes if all of them are skipped.
func (p *planner) app(group []catalog.Claim) (App, []Skip) {
	slices.SortFunc(group, func(a, b catalog.Claim) int { return strings.Compare(a.Name, b.Name) })
	var skips []Skip
	var names []string
	var cut []catalog.Claim
	app := App{Namespace: group[0].Namespace}
	for _, c := range group {
		names = append(names, p.appsOf(c)...)
		volume, skip := p.volume(c)
		if skip != nil {
			skips = append(skips, *skip)
			continue
		}
		app.Volumes = append(app.Volumes, volume)
		cut = append(cut, c)
	}
	slices.Sort(names)
	app.Name = strings.Join(slices.Compact(names), "+")
	app.Mounted = app.Name != ""
	if !app.Mounted {
		app.Name = "pvc/" + group[0].Name
	}
	if len(cut) > 0 {
		app.User = p.user(cut)
		p.prepare(&app, cut)
	}
	return app, skips
}

// user is the uid that all containers run as which mount one of claims; nil if
// there is no such one.
func (p *planner) user(claims []catalog.Claim) (user *int64) {
	for _, pod := range p.podsOf(claims) {
		for _, c := range pod.Containers {
			switch {
			case len(mountsOf(c, claims)) == 0:
			case c.User == nil || user != nil && *user != *c.User:
				return nil
			default:
				user = c.User
			}
		}
	}
	return user
}

// prepare says what runs in app's pods before the volumes of the claims are
// cut, or why nothing does. Claims that are skipped have no part in it: a dump
// in their volumes would be in no snapshot.
func (p *planner) prepare(app *App, claims []catalog.Claim) {
	var err error
	if app.Effort, err = ParseEffort(p.setting(claims, catalog.AnnotationConsistency, string(p.Effort))); err != nil {
		app.Err = misread(*app, catalog.AnnotationConsistency, err)
		return
	}
	if app.Effort == Crash {
		app.Reason = "crash consistency was asked for"
		return
	}
	if app.Hook, app.Reason, err = p.hook(claims); err != nil {
		app.Err = misread(*app, catalog.AnnotationPlugin, err)
		return
	}
	if app.Hook == nil && app.Effort == Application {
		app.Err = &catalog.Failure{
			Code:    catalog.CodeNoPlugin,
			Message: fmt.Sprintf("snapshot of %s/%s not taken: no plugin recognises it (%s)", app.Namespace, app.Name, app.Reason),
			State:   "app untouched, nothing created",
			Next:    "name one with --plugin, or take what the disk holds with --consistency=crash",
		}
	}
}

// setting is the annotation of the first claim that has it, else its
// namespace's, else the flag's value.
func (p *planner) setting(group []catalog.Claim, annotation, flag string) string {
	for _, c := range group {
		if v, ok := c.Annotations[annotation]; ok {
			return v
		}
	}
	if v, ok := p.inv.Namespaces[group[0].Namespace][annotation]; ok {
		return v
	}
	return flag
}

// misread is the failure of an app whose annotation makes no sense: it alone
// is not taken.
func misread(app App, annotation string, err error) error {
	return &catalog.Failure{
		Code: catalog.CodeUsage, Message: fmt.Sprintf("snapshot of %s/%s not taken: annotation %s", app.Namespace, app.Name, annotation), Cause: err,
		State: "app untouched, nothing created", Next: look(app.Volumes[0].Claim),
	}
}
