package kube

import (
	"encoding/json"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// claim is p with what its volume says, if that is among volumes.
func claim(p *corev1.PersistentVolumeClaim, volumes map[string]*corev1.PersistentVolume) catalog.Claim {
	c := catalog.Claim{
		Namespace:    p.Namespace,
		Name:         p.Name,
		UID:          string(p.UID),
		Labels:       p.Labels,
		Annotations:  p.Annotations,
		Phase:        string(p.Status.Phase),
		Terminating:  p.DeletionTimestamp != nil,
		Volume:       p.Spec.VolumeName,
		StorageClass: storageClass(p),
		Request:      p.Spec.Resources.Requests.Storage().Value(),
		Capacity:     p.Status.Capacity.Storage().Value(),
		VolumeMode:   string(corev1.PersistentVolumeFilesystem),
		FilledFrom:   filledFrom(p),
	}
	if p.Labels[catalog.LabelManagedBy] == catalog.ManagedBy {
		c.Role = catalog.Role(p.Labels[catalog.LabelRole])
	}
	for _, mode := range p.Spec.AccessModes {
		c.AccessModes = append(c.AccessModes, string(mode))
	}
	if p.Spec.VolumeMode != nil {
		c.VolumeMode = string(*p.Spec.VolumeMode)
	}
	switch volume := volumes[p.Spec.VolumeName]; {
	case p.Status.Phase != corev1.ClaimBound:
	case volume != nil:
		addVolume(&c, volume)
	default: // not listed, or bound since
		c.Driver = provisioner(p)
	}
	return c
}

func addVolume(c *catalog.Claim, volume *corev1.PersistentVolume) {
	if csi := volume.Spec.CSI; csi != nil {
		c.Driver, c.FileSystem = csi.Driver, csi.FSType
	}
	if affinity := volume.Spec.NodeAffinity; affinity != nil {
		// A plain API type always marshals.
		c.NodeAffinity, _ = json.Marshal(affinity)
	}
}

// storageClass reads the annotation too that came before the field, as
// Kubernetes still does.
func storageClass(p *corev1.PersistentVolumeClaim) string {
	if name, found := p.Annotations[corev1.BetaStorageClassAnnotation]; found {
		return name
	}
	if p.Spec.StorageClassName != nil {
		return *p.Spec.StorageClassName
	}
	return ""
}

// provisioner is the CSI driver that made the claim's volume, as the claim's
// annotation has it; "" for one that Kubernetes itself made or that a person
// wrote down.
func provisioner(p *corev1.PersistentVolumeClaim) string {
	name := p.Annotations["volume.kubernetes.io/storage-provisioner"]
	if name == "" {
		name = p.Annotations["volume.beta.kubernetes.io/storage-provisioner"]
	}
	if strings.HasPrefix(name, "kubernetes.io/") {
		return ""
	}
	return name
}

// filledFrom is the VolumeSnapshot that the claim names as its source.
func filledFrom(p *corev1.PersistentVolumeClaim) string {
	namespace, kind, name := p.Namespace, "", ""
	if source := p.Spec.DataSource; source != nil {
		kind, name = source.Kind, source.Name
	}
	if source := p.Spec.DataSourceRef; source != nil {
		kind, name = source.Kind, source.Name
		if source.Namespace != nil {
			namespace = *source.Namespace
		}
	}
	if kind != "VolumeSnapshot" {
		return ""
	}
	return namespace + "/" + name
}
