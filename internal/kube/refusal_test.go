package kube

import (
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// What the API server of Kubernetes 1.36 and its admission plugins say.
func TestRefusal(t *testing.T) {
	const pod = `Error creating: pods "m-abcde" is forbidden: `
	tests := []struct {
		name, message string
		want          restic.Trouble
	}{
		{"Pod Security", pod + `violates PodSecurity "restricted:latest": unrestricted capabilities`, restic.Trouble{Reason: "PodSecurity", Lasting: true}},
		{
			"a quota that others use may be free later", pod + `exceeded quota: tight, requested: limits.memory=1Gi,pods=1, used: limits.memory=3Gi,pods=3, limited: limits.memory=3Gi,pods=9`,
			restic.Trouble{Reason: "Quota", Object: "tight"},
		},
		{
			"a quota below what is asked for is never free", pod + `exceeded quota: tight, requested: limits.memory=1Gi,pods=1, used: limits.memory=0,pods=0, limited: limits.memory=512Mi,pods=9`,
			restic.Trouble{Reason: "Quota", Object: "tight", Lasting: true},
		},
		{"a quota of what is not asked for", pod + `failed quota: tight: must specify limits.cpu for: restic`, restic.Trouble{Reason: "Quota", Object: "tight", Lasting: true}},
		{"LimitRange", pod + `maximum memory usage per Container is 128Mi, but limit is 1Gi`, restic.Trouble{Reason: "LimitRange", Lasting: true}},
		{"LimitRange of ratios", pod + `cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000`, restic.Trouble{Reason: "LimitRange", Lasting: true}},
		{"webhook", `Error creating: admission webhook "policy.example" denied the request: no`, restic.Trouble{Reason: "FailedCreate", Lasting: true}},
		{"policy", pod + `ValidatingAdmissionPolicy 'no' with binding 'no' denied request: no`, restic.Trouble{Reason: "FailedCreate", Lasting: true}},
		{"a class that is not there", pod + `no PriorityClass with name low was found`, restic.Trouble{Reason: "FailedCreate", Lasting: true}},
		{"anything else may pass", pod + `error looking up service account shop/default: serviceaccount "default" not found`, restic.Trouble{Reason: "FailedCreate"}},
		{"a webhook that does not answer may answer", `Error creating: Internal error occurred: failed calling webhook "x"`, restic.Trouble{Reason: "FailedCreate"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.want.Message = test.message
			equal(t, "trouble", test.want, refusal(test.message))
		})
	}
}
