package snapshot

import (
	"fmt"
	"slices"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// volume plans one claim: it is cut, or skipped for a reason.
func (p *planner) volume(c catalog.Claim) (Volume, *Skip) {
	if skip := p.skip(c); skip != nil {
		return Volume{}, skip
	}
	class, skip := p.class(c)
	if skip != nil {
		return Volume{}, skip
	}
	retain, err := catalog.ParseRetain(p.setting([]catalog.Claim{c}, catalog.AnnotationRetain, p.Retain.String()))
	if err != nil {
		return Volume{}, &Skip{Claim: c, Code: catalog.CodeUsage, Reason: "annotation " + catalog.AnnotationRetain + ": " + err.Error(), Next: look(c)}
	}
	return Volume{Claim: c, Class: class, Name: catalog.SnapshotName(c.Name, p.Run), Retain: retain, Node: p.node(c)}, nil
}

// node is where a pod mounts c, "" for none, or where c's volume itself says
// where it is.
func (p *planner) node(c catalog.Claim) string {
	if !slices.Contains(p.inv.Unread, catalog.KindVolumes) {
		return ""
	}
	for _, pod := range p.mounters(c) {
		if pod.Node != "" {
			return pod.Node
		}
	}
	return ""
}

// look is the command that shows c and its annotations.
func look(c catalog.Claim) string {
	return fmt.Sprintf("kubectl describe pvc %s -n %s", c.Name, c.Namespace)
}

// skip is why c cannot or must not be cut, nil if it can.
func (p *planner) skip(c catalog.Claim) *Skip {
	no := func(reason, next string) *Skip {
		return &Skip{Claim: c, Reason: reason, Code: catalog.CodeUnsupported, Next: next}
	}
	switch {
	case c.Role != "":
		return &Skip{Claim: c, Reason: "made by backsnap (" + string(c.Role) + ")"}
	case p.Excludes != nil && p.Excludes(c.Namespace) != "":
		return &Skip{Claim: c, Reason: p.Excludes(c.Namespace)}
	case p.Cache != "" && c.Name == p.Cache && (p.CacheIn == "" || c.Namespace == p.CacheIn):
		return &Skip{Claim: c, Reason: "it keeps restic's cache"}
	case p.excluded(c) != "":
		return &Skip{Claim: c, Reason: "excluded by annotation " + p.excluded(c)}
	case c.Terminating:
		return no("it is being deleted", look(c))
	case c.Phase != "Bound":
		return no("it is "+c.Phase+", not bound to a volume", look(c))
	case c.HalfRestored() != "":
		return no("run "+c.HalfRestored()+" was restoring into it and has not ended: it may hold parts of two states",
			fmt.Sprintf("end that run, or go back: kubectl backsnap restore --rollback %s -n %s", c.HalfRestored(), c.Namespace))
	case c.Driver == "":
		return no("its volume "+c.Volume+" is no CSI volume: it cannot be snapshotted", "move it to a StorageClass with a CSI driver, or exclude it: "+exclude(c))
	}
	return nil
}

// excluded is the annotation that keeps c out, "" for none.
func (p *planner) excluded(c catalog.Claim) string { return c.LeftOut(p.inv.Namespaces[c.Namespace]) }

func exclude(c catalog.Claim) string {
	return fmt.Sprintf("kubectl annotate pvc %s -n %s %s=", c.Name, c.Namespace, catalog.AnnotationSchedule)
}

// class is the snapshot class for c: the one named by annotation or flag, the
// driver's default, the driver's only one. Where the classes may not be read
// it is the one that is named, else "".
func (p *planner) class(c catalog.Claim) (string, *Skip) {
	no := func(next, format string, args ...any) (string, *Skip) {
		return "", &Skip{
			Claim: c, Code: catalog.CodeNoClass, Reason: fmt.Sprintf(format, args...),
			Next: next + "; or exclude the claim: " + exclude(c),
		}
	}
	const name = "name one with --snapshot-class"
	var ofDriver, defaults []string
	for _, class := range p.inv.Classes {
		if class.Driver != c.Driver {
			continue
		}
		ofDriver = append(ofDriver, class.Name)
		if class.Default {
			defaults = append(defaults, class.Name)
		}
	}
	named := p.setting([]catalog.Claim{c}, catalog.AnnotationSnapshotClass, p.Class)
	switch {
	case slices.Contains(p.inv.Unread, catalog.KindClasses):
		return named, nil // "" leaves the choice to the cluster
	case named != "" && slices.Contains(ofDriver, named):
		return named, nil
	case named != "":
		return no(name+" that is", "VolumeSnapshotClass %s is not one of its driver %s (%s)", named, c.Driver, list(ofDriver))
	case len(defaults) == 1:
		return defaults[0], nil
	case len(defaults) > 1:
		return no(name+", or take the default off others: kubectl annotate volumesnapshotclass "+defaults[1]+" snapshot.storage.kubernetes.io/is-default-class-",
			"driver %s has %d default VolumeSnapshotClasses: %s", c.Driver, len(defaults), list(defaults))
	case len(ofDriver) == 1:
		return ofDriver[0], nil
	case len(ofDriver) > 1:
		return no(name+", or make one the default: kubectl annotate volumesnapshotclass "+ofDriver[0]+" snapshot.storage.kubernetes.io/is-default-class=true",
			"driver %s has %d VolumeSnapshotClasses and no default: %s", c.Driver, len(ofDriver), list(ofDriver))
	}
	return no(newClass(c.Driver), "no VolumeSnapshotClass for driver %s", c.Driver)
}

// newClass is the command that makes a snapshot class for driver.
func newClass(driver string) string {
	return fmt.Sprintf(`echo '{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: %[1]s}, driver: %[1]s, deletionPolicy: Delete}' | kubectl apply -f -`, driver)
}

func list(names []string) string {
	if len(names) == 0 {
		return "it has none"
	}
	return strings.Join(names, ", ")
}

// hook is what runs in the pods of group, nil with the reason if nothing does.
// It fails if the plugin that an annotation names is unknown.
func (p *planner) hook(group []catalog.Claim) (*Hook, string, error) {
	named := p.setting(group, catalog.AnnotationPlugin, p.Plugin)
	if named == NoPlugin {
		return nil, "no plugin was asked for", nil
	}
	nominate := func(c plugins.Container) (plugins.Plugin, string, bool) { return plugins.Nominate(p.known, c) }
	if named != "" {
		plugin, err := plugins.Lookup(named)
		if err != nil {
			return nil, "", err
		}
		nominate = func(plugins.Container) (plugins.Plugin, string, bool) { return plugin, "the name that was given", true }
	}
	hook, reason := p.candidates(group, nominate)
	return hook, reason, nil
}

// candidates are the containers of group's pods that nominate takes, all of
// the plugin that the first of them belongs to.
func (p *planner) candidates(group []catalog.Claim, nominate func(plugins.Container) (plugins.Plugin, string, bool)) (*Hook, string) {
	var hook *Hook
	var reason string
	var images []string
	for _, pod := range p.podsOf(group) {
		for _, c := range pod.Containers {
			mounts := mountsOf(c, group)
			if len(mounts) == 0 {
				continue
			}
			images = append(images, c.Image)
			plugin, because, ok := nominate(container(c))
			if !ok || hook != nil && hook.Plugin.Name != plugin.Name {
				continue
			}
			if hook == nil {
				hook, reason = &Hook{Plugin: plugin}, because
			}
			hook.Candidates = append(hook.Candidates, candidate(pod, c, mounts))
		}
	}
	switch {
	case hook != nil:
		return hook, reason
	case len(images) == 0 && p.mounted(group):
		return nil, "no pod that mounts it runs"
	case len(images) == 0:
		return nil, "not mounted"
	}
	slices.Sort(images)
	return nil, "no database known in image " + strings.Join(slices.Compact(images), ", ")
}

// mounted reports whether a pod mounts any of group, even one that is going.
func (p *planner) mounted(group []catalog.Claim) bool {
	return slices.ContainsFunc(group, func(c catalog.Claim) bool { return len(p.mounters(c)) > 0 })
}

// podsOf are the pods that mount any of group and stay, each once, in order.
func (p *planner) podsOf(group []catalog.Claim) []catalog.Pod {
	var pods []catalog.Pod
	seen := map[string]bool{}
	for _, c := range group {
		for _, pod := range p.mounters(c) {
			if !seen[pod.Name] && !pod.Terminating {
				seen[pod.Name] = true
				pods = append(pods, pod)
			}
		}
	}
	return pods
}

func mountsOf(c catalog.Container, group []catalog.Claim) []catalog.Mount {
	var mounts []catalog.Mount
	for _, m := range c.Mounts {
		if slices.ContainsFunc(group, func(claim catalog.Claim) bool { return claim.Name == m.Claim }) {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

func candidate(pod catalog.Pod, c catalog.Container, mounts []catalog.Mount) Candidate {
	state := ""
	if pod.Phase != "Running" {
		state = pod.Phase
	}
	ref := catalog.ContainerRef{Namespace: pod.Namespace, Pod: pod.Name, Container: c.Name}
	return Candidate{ContainerRef: ref, Image: c.Image, Mounts: mounts, NotRunning: state}
}

// container is c as plugins see it.
func container(c catalog.Container) plugins.Container {
	seen := plugins.Container{Name: c.Name, Image: c.Image, Env: c.Env}
	for _, p := range c.Ports {
		seen.Ports = append(seen.Ports, plugins.Port{Name: p.Name, Number: int32(p.Number)})
	}
	for _, m := range c.Mounts {
		seen.Mounts = append(seen.Mounts, m.Path)
	}
	return seen
}
