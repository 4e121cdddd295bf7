package kube

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

const snapshotGroup = "snapshot.storage.k8s.io"

// everywhere stands for the namespace of a right that is needed in all.
const everywhere = "all namespaces"

// explain is err as what a person sees of doing something that needs right:
// a right that is missing and an API that is missing say what to do next.
// Quotas and admission answer Forbidden too; an authorizer's answer reads
// `User "x" cannot list resource "pods"`.
//
// A kind that the server does not know answers NotFound, as an object that is
// not there does: callers for whom that is no error have looked before.
func explain(err error, doing string, right catalog.Right) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot "):
		return forbidden(err, doing, right)
	case apierrors.IsNotFound(err) && right.Group == snapshotGroup && right.Verb == "list":
		return &catalog.Failure{
			Code:    catalog.CodeNoAPI,
			Message: "the server has no VolumeSnapshot API",
			Cause:   err,
			State:   "nothing changed",
			Next:    "install the snapshot CRDs and the snapshot-controller: https://github.com/kubernetes-csi/external-snapshotter",
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func forbidden(err error, doing string, right catalog.Right) error {
	wanted := right
	if right.Namespace == everywhere {
		wanted.Namespace = ""
	}
	return &catalog.Failure{
		Code:    catalog.CodeForbidden,
		Message: fmt.Sprintf("%s: you may not %s", doing, right),
		Cause:   err,
		Next:    "ask for that right, and see whether you have it: " + canI(right),

		Manifest: catalog.Roles([]catalog.Right{wanted}),
	}
}

// canI is the command that shows whether the user has that right.
func canI(right catalog.Right) string {
	resource, sub, _ := strings.Cut(right.Resource, "/")
	if right.Group != "" {
		resource += "." + right.Group
	}
	command := "kubectl auth can-i " + right.Verb + " " + resource
	if sub != "" {
		command += " --subresource=" + sub
	}
	switch right.Namespace {
	case "":
	case everywhere:
		command += " -A"
	default:
		command += " -n " + right.Namespace
	}
	return command
}
