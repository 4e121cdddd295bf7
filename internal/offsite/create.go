package offsite

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// CreateRequest is a repository's Secret that is to be made.
type CreateRequest struct {
	Name, Namespace string
	// Entries are restic's environment, and files that it names, as
	// restic.CheckEnv wants them.
	Entries map[string][]byte
	// ClusterName is what this cluster is called in the repository; "" leaves
	// that to Init.
	ClusterName string
	// ServiceAccount is whose identity the movers have; "" for nobody's.
	ServiceAccount string
	// Claim is the claim in Namespace that the repository lies on; "" for none.
	Claim string
	// Dry asks the server whether it would take both, and makes neither;
	// Plan asks nothing and makes nothing.
	Dry, Plan bool
}

// Created is what became of a CreateRequest.
type Created struct {
	Repository catalog.Repository
	Namespace  bool // it was made
	Secret     bool // it was made; false: it was there and says the same
}

// repositoryName is what a repository may be called: its Secret's name, and a
// label.
var repositoryName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$`)

// Create makes the backup namespace, unless it is there, and the repository's
// Secret. A Secret that says something else is a catalog.Failure of
// CodeSecretTaken, and nothing is changed.
func Create(ctx context.Context, c Cluster, r CreateRequest) (Created, error) {
	secret, err := r.secret()
	if err != nil {
		return Created{}, err
	}
	done := Created{Repository: secret.Repository()}
	if r.Plan {
		return done, nil
	}
	if done.Namespace, err = c.CreateNamespace(ctx, catalog.Meta{Name: r.Namespace, Labels: managed(), Annotations: catalog.HandsOff()}, r.Dry); err != nil {
		return done, err
	}
	if done.Namespace && r.Dry {
		done.Secret = true // the server takes none into a namespace that is not there
		return done, nil
	}
	if !done.Namespace {
		if err := r.alone(ctx, c, secret); err != nil {
			return done, err
		}
	}
	done.Secret, err = c.CreateSecret(ctx, secret, r.Dry)
	if errors.Is(err, catalog.ErrTaken) {
		return done, r.taken(secret.Name)
	}
	return done, err
}

// managed is how the namespace and the Secret are known as ours. They belong
// to no run.
func managed() map[string]string { return map[string]string{catalog.LabelManagedBy: catalog.ManagedBy} }

// secret is the Secret that is asked for.
func (r CreateRequest) secret() (catalog.Secret, error) {
	if !repositoryName.MatchString(r.Name) || r.Name == "none" {
		return catalog.Secret{}, wrong(fmt.Sprintf("repository name %q: want up to 63 small letters, digits, dashes, dots, and not none", r.Name), "kubectl backsnap repo create main --env-file main.env")
	}
	if err := (InitRequest{ClusterName: r.ClusterName}).check(); err != nil {
		return catalog.Secret{}, err
	}
	if err := restic.CheckEnv(r.Entries, r.Claim != ""); err != nil {
		return catalog.Secret{}, wrong("environment of repository "+r.Name+": "+err.Error(), "kubectl backsnap repo create --help")
	}
	labels, notes := managed(), catalog.HandsOff()
	labels[catalog.LabelRepository] = r.Name
	for key, value := range map[string]string{
		catalog.AnnotationCluster: r.ClusterName, catalog.AnnotationServiceAccount: r.ServiceAccount, catalog.AnnotationRepositoryClaim: r.Claim,
	} {
		if value != "" {
			notes[key] = value
		}
	}
	return catalog.Secret{Meta: catalog.Meta{Namespace: r.Namespace, Name: r.Name, Labels: labels, Annotations: notes}, Data: r.Entries}, nil
}

// alone refuses a second Secret for one repository.
func (r CreateRequest) alone(ctx context.Context, c Cluster, secret catalog.Secret) error {
	there, err := c.Repositories(ctx, r.Namespace)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(there, func(t catalog.Repository) bool { return t.Name == r.Name && t.Secret != secret.Name })
	if i < 0 {
		return nil
	}
	return r.taken(there[i].Secret)
}

func (r CreateRequest) taken(secret string) error {
	return &catalog.Failure{
		Code: catalog.CodeSecretTaken, Message: fmt.Sprintf("repository %s not created: Secret %s/%s says something else", r.Name, r.Namespace, secret),
		State: "nothing changed; the Secret stands as it is",
		Next:  fmt.Sprintf("take another name; or, if nobody needs it: kubectl delete secret %s -n %s", secret, r.Namespace),
	}
}
