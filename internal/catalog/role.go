package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Forbidden is the failure of a caller who lacks these rights, which is known
// before anything was changed. next is what may be done beside asking for them,
// "" for nothing.
func Forbidden(lacking []Right, next string) *Failure {
	var names []string
	for _, right := range lacking {
		names = append(names, "cannot "+right.String())
	}
	f := &Failure{
		Code: CodeForbidden, Message: "rights are missing", Cause: errors.New(strings.Join(names, "; ")),
		State: "nothing changed", Next: "have these roles made, and bound to you", Manifest: Roles(lacking),
	}
	if next != "" {
		f.Next += "; or " + next
	}
	return f
}

// Roles is the manifest of a Role for each namespace, and of a ClusterRole for
// what is in none, that grant these rights and are bound to nobody. Their name
// tells one list of rights from another: to apply one takes nothing from what
// was applied before.
func Roles(rights []Right) string {
	var namespaces []string
	for _, right := range rights {
		if !slices.Contains(namespaces, right.Namespace) {
			namespaces = append(namespaces, right.Namespace)
		}
	}
	var documents []string
	for _, namespace := range namespaces {
		rules := rulesOf(rights, namespace)
		sum := sha256.Sum256([]byte(rules))
		kind, where := "ClusterRole", ""
		if namespace != "" {
			kind, where = "Role", ", namespace: "+namespace
		}
		documents = append(documents, fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata: {name: backsnap-%s%s}\nrules:\n%s",
			kind, hex.EncodeToString(sum[:4]), where, rules))
	}
	return strings.Join(documents, "---\n")
}

// rulesOf are the rules for what is in that namespace: one for each resource
// or object, in the order of the rights.
func rulesOf(rights []Right, namespace string) string {
	type resource struct{ group, name, object string }
	var resources []resource
	verbs := map[resource][]string{}
	for _, right := range rights {
		of := resource{right.Group, right.Resource, right.Name}
		switch {
		case right.Namespace != namespace:
			continue
		case verbs[of] == nil:
			resources = append(resources, of)
		}
		if !slices.Contains(verbs[of], right.Verb) {
			verbs[of] = append(verbs[of], right.Verb)
		}
	}
	var rules strings.Builder
	for _, of := range resources {
		named := ""
		if of.object != "" {
			named = fmt.Sprintf("resourceNames: [%q], ", of.object)
		}
		fmt.Fprintf(&rules, "  - {apiGroups: [%q], resources: [%s], %sverbs: [%s]}\n", of.group, of.name, named, strings.Join(verbs[of], ", "))
	}
	return rules.String()
}
