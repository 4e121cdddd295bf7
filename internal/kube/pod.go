package kube

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func podsWithClaims(items []corev1.Pod) []catalog.Pod {
	var pods []catalog.Pod
	for i := range items {
		if volumes := claimVolumes(&items[i]); len(volumes) > 0 {
			pods = append(pods, pod(&items[i], volumes))
		}
	}
	return pods
}

// claimVolumes are the pod's volumes that are claims, by the volume's name.
// The claim of an ephemeral volume is called after pod and volume.
func claimVolumes(p *corev1.Pod) map[string]catalog.Mount {
	volumes := map[string]catalog.Mount{}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			volumes[v.Name] = catalog.Mount{Claim: v.PersistentVolumeClaim.ClaimName, ReadOnly: v.PersistentVolumeClaim.ReadOnly}
		case v.Ephemeral != nil:
			volumes[v.Name] = catalog.Mount{Claim: p.Name + "-" + v.Name}
		}
	}
	return volumes
}

func pod(p *corev1.Pod, volumes map[string]catalog.Mount) catalog.Pod {
	out := catalog.Pod{
		Namespace:   p.Namespace,
		Name:        p.Name,
		UID:         string(p.UID),
		Labels:      p.Labels,
		Annotations: p.Annotations,
		Owner:       owner(p),
		Phase:       string(p.Status.Phase),
		Ready:       podReady(p),
		Terminating: p.DeletionTimestamp != nil,
		Node:        p.Spec.NodeName,
	}
	if p.Status.StartTime != nil {
		out.Started = p.Status.StartTime.UTC()
	}
	for i := range p.Spec.InitContainers {
		// A sidecar: an init container that keeps running.
		if restart := p.Spec.InitContainers[i].RestartPolicy; restart != nil && *restart == corev1.ContainerRestartPolicyAlways {
			out.Containers = append(out.Containers, container(p, &p.Spec.InitContainers[i], p.Status.InitContainerStatuses, volumes))
		}
	}
	for i := range p.Spec.Containers {
		out.Containers = append(out.Containers, container(p, &p.Spec.Containers[i], p.Status.ContainerStatuses, volumes))
	}
	return out
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.ContainersReady && c.Status == corev1.ConditionTrue
	})
}

// owner is the top workload without a further call: the pods of a Deployment
// carry a hash that ends the name of their ReplicaSet.
func owner(p *corev1.Pod) catalog.Workload {
	ref := metav1.GetControllerOfNoCopy(p)
	if ref == nil || ref.Kind == "Node" { // the node owns the copy of a static pod
		return catalog.Workload{Kind: "pod", Name: p.Name}
	}
	hash := p.Labels["pod-template-hash"]
	if name, found := strings.CutSuffix(ref.Name, "-"+hash); ref.Kind == "ReplicaSet" && hash != "" && found {
		return catalog.Workload{Kind: "deployment", Name: name}
	}
	return catalog.Workload{Kind: strings.ToLower(ref.Kind), Name: ref.Name}
}

func container(p *corev1.Pod, c *corev1.Container, statuses []corev1.ContainerStatus, volumes map[string]catalog.Mount) catalog.Container {
	out := catalog.Container{
		Name:  c.Name,
		Image: c.Image,
		User:  runsAs(p, c),
		Ready: slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == c.Name && s.Ready }),
	}
	for _, port := range c.Ports {
		out.Ports = append(out.Ports, catalog.Port{Name: port.Name, Number: int(port.ContainerPort)})
	}
	for _, env := range c.Env {
		out.Env = append(out.Env, env.Name)
	}
	for _, m := range c.VolumeMounts {
		if mount, found := volumes[m.Name]; found {
			mount.Path, mount.SubPath = m.MountPath, subPath(p, c, m)
			mount.ReadOnly = mount.ReadOnly || m.ReadOnly
			out.Mounts = append(out.Mounts, mount)
		}
	}
	for _, d := range c.VolumeDevices {
		if mount, found := volumes[d.Name]; found {
			mount.Path = d.DevicePath
			out.Mounts = append(out.Mounts, mount)
		}
	}
	return out
}

// runsAs is the uid that the spec gives the container, nil for none.
func runsAs(p *corev1.Pod, c *corev1.Container) *int64 {
	if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
		return c.SecurityContext.RunAsUser
	}
	if p.Spec.SecurityContext != nil {
		return p.Spec.SecurityContext.RunAsUser
	}
	return nil
}

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)`)

// subPath is the directory in the volume that is mounted. Of the variables
// that subPathExpr may use, those are known whose value stands in the
// container's spec or is the pod's name, namespace or UID; any other stays as
// it is written.
func subPath(p *corev1.Pod, c *corev1.Container, m corev1.VolumeMount) string {
	if m.SubPathExpr == "" {
		return m.SubPath
	}
	return reference.ReplaceAllStringFunc(m.SubPathExpr, func(whole string) string {
		name := reference.FindStringSubmatch(whole)[1]
		for _, env := range c.Env {
			if env.Name == name {
				return envValue(p, env, whole)
			}
		}
		return whole
	})
}

func envValue(p *corev1.Pod, env corev1.EnvVar, unknown string) string {
	if env.ValueFrom == nil {
		return env.Value
	}
	if env.ValueFrom.FieldRef == nil {
		return unknown
	}
	switch env.ValueFrom.FieldRef.FieldPath {
	case "metadata.name":
		return p.Name
	case "metadata.namespace":
		return p.Namespace
	case "metadata.uid":
		return string(p.UID)
	}
	return unknown
}
