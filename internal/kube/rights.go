package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Missing asks once a namespace for all that the caller may do there, and once
// a right only where that answer does not do: for what is not in a namespace,
// and where the server's authorizers cannot list their rules.
func (c *Cluster) Missing(ctx context.Context, rights []catalog.Right) ([]catalog.Right, error) {
	missing := make([]bool, len(rights))
	g := group{}
	ctx, g.cancel = context.WithCancelCause(ctx)
	defer g.cancel(nil)
	for namespace, indexes := range byNamespace(rights) {
		if namespace == "" {
			for _, i := range indexes {
				g.run(func() (err error) { missing[i], err = c.lacks(ctx, rights[i]); return err })
			}
			continue
		}
		g.run(func() error { return c.missingIn(ctx, namespace, rights, indexes, missing) })
	}
	if err := g.wait(); err != nil {
		return nil, err
	}
	var out []catalog.Right
	for i, right := range rights {
		if missing[i] {
			out = append(out, right)
		}
	}
	return out, nil
}

func byNamespace(rights []catalog.Right) map[string][]int {
	indexes := map[string][]int{}
	for i, right := range rights {
		indexes[right.Namespace] = append(indexes[right.Namespace], i)
	}
	return indexes
}

// missingIn sets missing for the rights at indexes, all of one namespace.
func (c *Cluster) missingIn(ctx context.Context, namespace string, rights []catalog.Right, indexes []int, missing []bool) error {
	rules, err := c.rules(ctx, namespace)
	if err != nil {
		return err
	}
	for _, i := range indexes {
		missing[i] = !slices.ContainsFunc(rules.ResourceRules, func(r authorizationv1.ResourceRule) bool { return allows(r, rights[i]) })
		if missing[i] && rules.Incomplete {
			if missing[i], err = c.lacks(ctx, rights[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Cluster) rules(ctx context.Context, namespace string) (authorizationv1.SubjectRulesReviewStatus, error) {
	var answer *authorizationv1.SelfSubjectRulesReview
	err := again(ctx, func(ctx context.Context) (err error) {
		answer, err = c.core.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return authorizationv1.SubjectRulesReviewStatus{}, fmt.Errorf("ask for rights in %s: %w", namespace, err)
	}
	return answer.Status, nil
}

// allows reports whether rule grants right on every object. `*/exec` is a form
// that a rule may have for a subresource.
func allows(rule authorizationv1.ResourceRule, right catalog.Right) bool {
	has := func(list []string, want ...string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return slices.Contains(want, s) })
	}
	resources := []string{"*", right.Resource}
	if _, sub, found := strings.Cut(right.Resource, "/"); found {
		resources = append(resources, "*/"+sub)
	}
	return len(rule.ResourceNames) == 0 &&
		has(rule.Verbs, "*", right.Verb) && has(rule.APIGroups, "*", right.Group) && has(rule.Resources, resources...)
}

// lacks asks for one right.
func (c *Cluster) lacks(ctx context.Context, right catalog.Right) (bool, error) {
	resource, sub, _ := strings.Cut(right.Resource, "/")
	var answer *authorizationv1.SelfSubjectAccessReview
	err := again(ctx, func(ctx context.Context) (err error) {
		answer, err = c.core.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: right.Namespace, Verb: right.Verb, Group: right.Group, Resource: resource, Subresource: sub,
			}},
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ask for right to %s: %w", right, err)
	}
	return !answer.Status.Allowed, nil
}
