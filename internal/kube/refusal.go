package kube

import (
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// What the server's own admission says (plugins resourcequota and limitranger).
var (
	overQuota  = regexp.MustCompile(`exceeded quota: ([^,]+), requested: (.*), used: .*, limited: (.*)`)
	underQuota = regexp.MustCompile(`failed quota: ([^:]+): must specify`)
	limitRange = regexp.MustCompile(`(minimum|maximum) \S+ usage per (Container|Pod|PersistentVolumeClaim) is|limit to request ratio per`)
	unadmitted = regexp.MustCompile(`denied (the )?request|no PriorityClass with name`)
)

// refusal is why the cluster does not admit an object, by what its admission
// says. Any other may pass.
func refusal(message string) restic.Trouble {
	t := restic.Trouble{Reason: "FailedCreate", Message: message}
	over, under := overQuota.FindStringSubmatch(message), underQuota.FindStringSubmatch(message)
	switch {
	case strings.Contains(message, "violates PodSecurity"):
		t.Reason, t.Lasting = restic.PodSecurity, true
	case over != nil:
		t.Reason, t.Object, t.Lasting = restic.Quota, over[1], tooMuch(over[2], over[3])
	case under != nil:
		t.Reason, t.Object, t.Lasting = restic.Quota, under[1], true
	case limitRange.MatchString(message):
		t.Reason, t.Lasting = restic.LimitRange, true
	case unadmitted.MatchString(message):
		t.Lasting = true
	}
	return t
}

// tooMuch reports whether more is requested of a resource than its quota has
// when nobody else uses it. Both are lists such as `limits.memory=1Gi,pods=1`.
func tooMuch(requested, limited string) bool {
	limits := map[string]string{}
	for part := range strings.SplitSeq(limited, ",") {
		name, value, _ := strings.Cut(part, "=")
		limits[name] = value
	}
	for part := range strings.SplitSeq(requested, ",") {
		name, value, _ := strings.Cut(part, "=")
		want, err := resource.ParseQuantity(value)
		has, err2 := resource.ParseQuantity(limits[name])
		if err == nil && err2 == nil && want.Cmp(has) > 0 {
			return true
		}
	}
	return false
}

// admitted is explain for what is created: admission answers Forbidden too.
func admitted(err error, doing string, right catalog.Right) error {
	err = explain(err, doing, right)
	if apierrors.IsForbidden(err) && catalog.CodeOf(err) == "" {
		return &restic.Denied{Trouble: refusal(err.Error()), Err: err}
	}
	return err
}
