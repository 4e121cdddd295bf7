package catalog

import "slices"

// Meta is what every object is made with.
type Meta struct {
	Namespace, Name     string
	Labels, Annotations map[string]string
}

// Secret is the Secret of a repository, as it is to be made. Its values go
// into the cluster and nowhere else: they are never printed.
type Secret struct {
	Meta
	Data map[string][]byte
}

// Repository is what the Secret says of the repository.
func (s Secret) Repository() Repository {
	r := Repository{
		Name: s.Labels[LabelRepository], Namespace: s.Namespace, Secret: s.Name, Address: Redact(string(s.Data["RESTIC_REPOSITORY"])),
		Cluster: s.Annotations[AnnotationCluster], ServiceAccount: s.Annotations[AnnotationServiceAccount], Claim: s.Annotations[AnnotationRepositoryClaim],
	}
	for key := range s.Data {
		r.Keys = append(r.Keys, key)
	}
	slices.Sort(r.Keys)
	return r
}
