package restore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// DefaultAppTimeout is how long an app may take to stop, or to be ready again.
const DefaultAppTimeout = 10 * time.Minute

// safetyDays is how long the snapshot of what was replaced is kept.
const safetyDays = 7

// SwapRequest is what is asked for of a restore in place.
type SwapRequest struct {
	Request
	// IgnoreController: go on although others manage the app.
	IgnoreController bool
	Terms
	Now time.Time
}

// SwapPlan is what a restore in place will do.
type SwapPlan struct {
	Plan // into claims that stand beside those of the app until they are exchanged
	// Live are the claims whose data is replaced, in the order of Volumes.
	Live []catalog.Claim
	Apps []catalog.App // that are scaled to 0, by kind and name
	// Safety are the snapshots that are taken before, without those volumes of
	// which none can be.
	Safety []catalog.Snapshot
	Notes  []string
	Terms
}

// MakeSwapPlan looks at the cluster and decides. It changes nothing. Its error
// is a catalog.Failure: what MakePlan refuses, a claim that is not there, and
// who would undo what is done.
func MakeSwapPlan(ctx context.Context, c SwapCluster, r SwapRequest) (SwapPlan, error) {
	if err := checkTarget(r.Target, "--in-place"); err != nil {
		return SwapPlan{}, err
	}
	plan, err := makePlan(ctx, c, r.Request, passingName)
	if err != nil {
		return SwapPlan{}, err
	}
	inventory, err := c.Inventory(ctx, catalog.Scope{Namespaces: []string{r.Target.Namespace}})
	if err != nil {
		return SwapPlan{}, err
	}
	apps, err := c.Apps(ctx, r.Target.Namespace)
	if err != nil {
		return SwapPlan{}, err
	}
	p := &swapPlanner{SwapRequest: r, cluster: c, inventory: inventory, apps: apps, plan: SwapPlan{Plan: plan, Terms: r.Terms}}
	for i := range p.plan.Volumes {
		if err := p.replace(ctx, &p.plan.Volumes[i]); err != nil {
			return SwapPlan{}, err
		}
	}
	if err := p.users(); err != nil {
		return SwapPlan{}, err
	}
	if r.Target.Kind != kindSafety { // the volumes are kept, and what they hold is of no use
		p.safety()
		p.paused()
	}
	p.note()
	return p.plan, p.unfinished(ctx)
}

// checkTarget wants one claim, or a workload that can be scaled.
func checkTarget(t Target, flag string) error {
	switch t.Kind {
	case "pvc", "statefulset", "deployment", kindSafety:
		return nil
	case "vs", "run":
		return &catalog.Failure{
			Code: catalog.CodeUsage, Message: fmt.Sprintf("%s of %s: want the claim or the workload whose data is to be replaced", flag, t),
			State: "nothing changed", Next: fmt.Sprintf("kubectl backsnap restore CLAIM -n %s %s --at TIME", t.Namespace, flag),
		}
	}
	return unscalable(t.Namespace, t.String())
}

// unscalable is a user of the claims that cannot be scaled to 0 and back.
func unscalable(namespace, user string) error {
	return &catalog.Failure{
		Code: catalog.CodeFought, Message: fmt.Sprintf("%s in %s cannot be scaled to 0 and back, and holds what is to be replaced", user, namespace),
		State: "nothing changed", Next: "remove it for the time, or restore into a new claim instead",
	}
}

type swapPlanner struct {
	SwapRequest
	cluster   SwapCluster
	inventory catalog.Inventory
	apps      []catalog.App
	plan      SwapPlan
}

// refuse is a claim that cannot be replaced.
func (p *swapPlanner) refuse(claim, reason, next string) error {
	return &catalog.Failure{
		Code: catalog.CodeNotNow, Message: fmt.Sprintf("%s/%s cannot be replaced: %s", p.Target.Namespace, claim, reason), State: "nothing changed", Next: next,
	}
}

// replace makes v fit the claim that it is to be the data of: the same class
// and modes, and no smaller.
func (p *swapPlanner) replace(ctx context.Context, v *Volume) error {
	name := v.Snapshot.Claim
	i := slices.IndexFunc(p.inventory.Claims, func(c catalog.Claim) bool { return c.Name == name })
	if i < 0 {
		return p.refuse(name, "it is not there", fmt.Sprintf("make it anew: kubectl backsnap restore %s -n %s --to-pvc %s", name, p.Target.Namespace, name))
	}
	live := p.inventory.Claims[i]
	switch {
	case live.Terminating:
		return p.refuse(name, "it is being deleted", "wait until it is gone")
	case live.Phase != "Bound":
		return p.refuse(name, "it is "+live.Phase+", not bound to a volume", "remove it and make it anew: kubectl backsnap restore "+name+" --to-pvc "+name)
	case live.StorageClass == "":
		return p.refuse(name, "it has no storage class, which a new volume needs", "restore into a new claim: without --in-place")
	case cmp.Or(live.VolumeMode, "Filesystem") != v.Claim.VolumeMode:
		return p.refuse(name, fmt.Sprintf("its mode is %s, the set's %s", live.VolumeMode, v.Claim.VolumeMode), "restore into a new claim: without --in-place")
	}
	if live.StorageClass != v.Class.Name {
		r := p.Request
		r.StorageClass = live.StorageClass
		other := planner{Request: r, cluster: p.cluster, classes: map[string]catalog.StorageClass{}}
		class, err := other.class(ctx, v.Snapshot, v.Way)
		if err != nil {
			return err
		}
		v.Class, v.Claim.StorageClass = class, class.Name
	}
	if v.Claim.Request = max(v.Claim.Request, live.Request); v.Exact < live.Request { // the claim fits on no smaller one
		v.Exact = 0
	}
	v.Claim.AccessModes = live.AccessModes
	v.Claim.Role = catalog.RoleNew
	v.Claim.Labels[catalog.LabelRole] = string(catalog.RoleNew)
	v.Notes = slices.DeleteFunc(v.Notes, func(note string) bool { return strings.HasPrefix(note, "class ") }) // a pod checks it: it does not wait
	p.plan.Live = append(p.plan.Live, live)
	return nil
}

// users finds who mounts the claims, now or when it is scaled up, and refuses
// those that cannot be scaled, and those that others would scale.
func (p *swapPlanner) users() error {
	var findings []finding
	for _, a := range p.apps {
		if !slices.ContainsFunc(p.plan.Live, func(c catalog.Claim) bool { return a.Mounts(c.Name) }) {
			continue
		}
		if !a.Scalable() {
			return unscalable(a.Namespace, a.String())
		}
		p.plan.Apps = append(p.plan.Apps, a)
		findings = append(findings, fights(a)...)
	}
	for _, c := range p.plan.Live {
		findings = append(findings, marks("claim "+c.Name, c.Labels, c.Annotations)...)
	}
	for _, pod := range p.inventory.Pods {
		if err := p.podOf(pod); err != nil {
			return err
		}
	}
	return p.judge(findings)
}

// podOf refuses a pod that mounts the claims and goes with none of the apps.
func (p *swapPlanner) podOf(pod catalog.Pod) error {
	uses := slices.ContainsFunc(pod.Claims(), func(name string) bool {
		return slices.ContainsFunc(p.plan.Live, func(c catalog.Claim) bool { return c.Name == name })
	})
	known := slices.ContainsFunc(p.plan.Apps, func(a catalog.App) bool { return a.Workload == pod.Owner })
	switch {
	case !uses || known || pod.Labels[catalog.LabelManagedBy] == catalog.ManagedBy: // a mover that is left ends with its Job
		return nil
	case slices.Contains([]string{"pod", "job", "replicaset", "daemonset", "replicationcontroller"}, pod.Owner.Kind):
		return unscalable(pod.Namespace, pod.Owner.String())
	}
	return &catalog.Failure{
		Code: catalog.CodeFought, Message: fmt.Sprintf("pod %s/%s, which holds what is to be replaced, is kept by %s", pod.Namespace, pod.Name, pod.Owner),
		State: "nothing changed", Next: "let the operator stop it (CloudNativePG: annotate the cluster with cnpg.io/hibernation=on), or restore into a new claim instead",
	}
}

// finding is one that would undo a restore in place, and how to pause it.
// Some cannot be ignored.
type finding struct {
	what, pause string
	final       bool
}

// fights are those that scale or own the app, or remove its claims.
func fights(a catalog.App) []finding {
	found := marks(a.String(), a.Labels, a.Annotations)
	if a.DeletesClaims {
		found = append(found, finding{
			what:  a.String() + " removes its claims when it is scaled down (persistentVolumeClaimRetentionPolicy.whenScaled: Delete)",
			pause: fmt.Sprintf(`kubectl patch %s -n %s --type merge -p '{"spec":{"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Retain"}}}'`, a, a.Namespace),
			final: true,
		})
	}
	if a.Owner != "" {
		found = append(found, finding{
			what:  a.String() + " is kept by " + a.Owner,
			pause: "pause that operator as its documentation says (CloudNativePG: cnpg.io/reconciliationLoop=disabled on the cluster)",
		})
	}
	for _, name := range a.Autoscalers {
		found = append(found, finding{
			what:  fmt.Sprintf("HorizontalPodAutoscaler %s scales %s", name, a),
			pause: "an autoscaler rests while there are 0 replicas: --ignore-controller is enough; KEDA: annotate the ScaledObject with autoscaling.keda.sh/paused=true",
		})
	}
	return found
}

// marks are those of Argo CD and Flux.
func marks(what string, labels, annotations map[string]string) []finding {
	var found []finding
	argo := cmp.Or(annotations["argocd.argoproj.io/tracking-id"], labels["argocd.argoproj.io/instance"], annotations["argocd.argoproj.io/instance"])
	if app, _, _ := strings.Cut(argo, ":"); app != "" {
		found = append(found, finding{
			what:  fmt.Sprintf("%s is managed by Argo CD app %q", what, app),
			pause: fmt.Sprintf("kubectl annotate application %s -n argocd argocd.argoproj.io/skip-reconcile=true", app),
		})
	}
	for _, flux := range []struct{ domain, kind string }{{"kustomize.toolkit.fluxcd.io", "kustomization"}, {"helm.toolkit.fluxcd.io", "helmrelease"}} {
		if name := labels[flux.domain+"/name"]; name != "" {
			found = append(found, finding{
				what:  fmt.Sprintf("%s is managed by Flux %s %q", what, flux.kind, name),
				pause: fmt.Sprintf(`kubectl patch %s %s -n %s --type merge -p '{"spec":{"suspend":true}}'`, flux.kind, name, cmp.Or(labels[flux.domain+"/namespace"], "flux-system")),
			})
		}
	}
	return found
}

// judge refuses where something was found that may not be ignored, or was not.
func (p *swapPlanner) judge(findings []finding) error {
	var what, pause []string
	for _, f := range findings {
		if p.IgnoreController && !f.final {
			p.plan.Notes = append(p.plan.Notes, f.what+": ignored")
			continue
		}
		what = append(what, f.what)
		if !slices.Contains(pause, f.pause) {
			pause = append(pause, f.pause)
		}
	}
	if len(what) == 0 {
		return nil
	}
	next := strings.Join(pause, "; ")
	if !slices.ContainsFunc(findings, func(f finding) bool { return f.final }) {
		next += "; then give the same command with --ignore-controller"
	}
	return &catalog.Failure{
		Code: catalog.CodeFought, Message: fmt.Sprintf("%s in %s not restored: others would undo it", p.Target, p.Target.Namespace),
		Cause: fmt.Errorf("%s", strings.Join(what, "; ")), State: "nothing changed", Next: next,
	}
}

// safety plans the snapshots of what is replaced: in the class that the set's
// was taken in, else the driver's default or only one.
func (p *swapPlanner) safety() {
	until := p.Now.UTC().AddDate(0, 0, safetyDays).Format(time.DateOnly)
	for i, v := range p.plan.Volumes {
		live := p.plan.Live[i]
		class, ok := p.snapshotClass(live.Driver, v.Snapshot)
		if !ok {
			p.plan.Notes = append(p.plan.Notes, fmt.Sprintf("no safety snapshot of %s: its driver has no class for one; the volume itself is kept", live.Name))
			continue
		}
		p.plan.Safety = append(p.plan.Safety, catalog.Snapshot{
			Namespace: live.Namespace, Name: catalog.SnapshotName(live.Name+"-pre-restore", p.Run), Claim: live.Name,
			Role: catalog.RoleSafety, Run: p.Run, DeleteAfter: until, Class: class,
		})
	}
}

func (p *swapPlanner) snapshotClass(driver string, s catalog.Snapshot) (string, bool) {
	recorded := cmp.Or(s.Class, s.Record.SnapshotClass)
	if slices.Contains(p.inventory.Unread, catalog.KindClasses) {
		return recorded, driver != ""
	}
	ofDriver := slices.DeleteFunc(slices.Clone(p.inventory.Classes), func(c catalog.SnapshotClass) bool { return c.Driver != driver })
	for _, fits := range []func(catalog.SnapshotClass) bool{
		func(c catalog.SnapshotClass) bool { return c.Name == recorded },
		func(c catalog.SnapshotClass) bool { return c.Default },
		func(catalog.SnapshotClass) bool { return true },
	} {
		if i := slices.IndexFunc(ofDriver, fits); i >= 0 {
			return ofDriver[i].Name, true
		}
	}
	return "", false
}

// note tells what a person should know beforehand.
func (p *swapPlanner) note() {
	add := func(format string, args ...any) { p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...)) }
	if len(p.plan.Apps) == 0 {
		add("no workload mounts it: nothing is scaled")
	}
	for _, a := range p.plan.Apps {
		for _, budget := range a.Budgets {
			add("PodDisruptionBudget %s does not hold back that %s is scaled", budget, a)
		}
		for _, c := range p.inventory.Claims {
			if a.Mounts(c.Name) && c.Role == "" && !slices.ContainsFunc(p.plan.Live, func(l catalog.Claim) bool { return l.Name == c.Name }) {
				add("claim %s of %s is not replaced: the set does not hold it, or it was not asked for", c.Name, a)
			}
		}
	}
}

// unfinished refuses claims that an earlier run is in the middle of exchanging.
func (p *swapPlanner) unfinished(ctx context.Context) error {
	volumes, err := p.cluster.SwapVolumes(ctx, p.Target.Namespace)
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if v.Turn != "" && slices.ContainsFunc(p.plan.Live, func(c catalog.Claim) bool { return c.Name == v.Of }) {
			return halfDone(v, p.Target.Namespace)
		}
	}
	return nil
}

// halfDone is that run of v has to end first.
func halfDone(v catalog.SwapVolume, namespace string) error {
	return &catalog.Failure{
		Code: catalog.CodeNotNow, Message: fmt.Sprintf("run %s is in the middle of exchanging the volumes of %s/%s", v.Run, namespace, v.Of), State: "nothing changed",
		Next: fmt.Sprintf("kubectl backsnap restore --rollback %s -n %s, or finish it: kubectl backsnap restore %s -n %s --in-place", v.Run, namespace, v.Of, namespace),
	}
}

// Rights are what RunSwap needs to be allowed to do.
func (p SwapPlan) Rights() []catalog.Right {
	namespace := p.Target.Namespace
	rights := catalog.Rights(p.Plan.Rights())
	turnRights(namespace, p.Apps, &rights)
	if slices.ContainsFunc(p.Volumes, func(v Volume) bool { return v.Way != Fill }) {
		rights.Add("batch", "jobs", namespace, "create", "list", "watch", "delete")
	}
	if len(p.Safety) > 0 {
		rights.Add("snapshot.storage.k8s.io", "volumesnapshots", namespace, "create", "list", "watch", "delete")
	}
	return rights
}

// turnRights adds what exchanging volumes needs.
func turnRights(namespace string, apps []catalog.App, rights *catalog.Rights) {
	rights.Add("", "persistentvolumeclaims", namespace, "get", "create", "delete", "watch")
	rights.Add("", "persistentvolumes", "", "get", "list", "patch")
	rights.Add("storage.k8s.io", "volumeattachments", "", "list", "watch")
	rights.Add("", "pods", namespace, "list", "watch")
	for _, a := range apps {
		rights.Add("apps", a.Kind+"s", namespace, "get", "patch", "watch")
		rights.Add("apps", a.Kind+"s/scale", namespace, "get", "update")
	}
	rights.Add("coordination.k8s.io", "leases", namespace, "create", "get", "update", "delete")
}
