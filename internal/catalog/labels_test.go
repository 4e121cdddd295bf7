package catalog_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

const run catalog.Run = "20261122-011500-x7k2"

func TestOurs(t *testing.T) {
	for _, c := range []struct {
		role catalog.Role
		want map[string]string
	}{
		{"", map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": "20261122-011500-x7k2"}},
		{catalog.RoleStatic, map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": "20261122-011500-x7k2", "backsnap.sh/role": "static"}},
		{catalog.RoleClone, map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": "20261122-011500-x7k2", "backsnap.sh/role": "clone"}},
		{catalog.RoleMover, map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": "20261122-011500-x7k2", "backsnap.sh/role": "mover"}},
		{catalog.RoleSafety, map[string]string{"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": "20261122-011500-x7k2", "backsnap.sh/role": "safety"}},
	} {
		if diff := cmp.Diff(c.want, catalog.Ours(c.role, run)); diff != "" {
			t.Errorf("role %q (-want +got):\n%s", c.role, diff)
		}
	}
}

func TestMapsAreTheCallers(t *testing.T) {
	catalog.HandsOff()["x"] = "y"
	catalog.Ours("", run)["x"] = "y"
	if len(catalog.HandsOff()) != 3 || len(catalog.Ours("", run)) != 2 {
		t.Error("a caller's change is seen by the next caller")
	}
}

func TestHandsOff(t *testing.T) {
	want := map[string]string{
		"argocd.argoproj.io/sync-options":    "Prune=false",
		"argocd.argoproj.io/compare-options": "IgnoreExtraneous",
		"kustomize.toolkit.fluxcd.io/prune":  "disabled",
	}
	if diff := cmp.Diff(want, catalog.HandsOff()); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

var (
	claim63  = strings.Repeat("a", 60) + "-bc"
	claim64  = strings.Repeat("a", 61) + "-bc"
	claim253 = strings.Repeat(strings.Repeat("b", 62)+".", 3) + strings.Repeat("b", 64)
)

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name, got, want string
	}{
		{"a snapshot", catalog.SnapshotName("data-mysql-0", run), "data-mysql-0-20261122-011500-x7k2"},
		{"a claim of 63 as a label is itself", catalog.ClaimLabel(claim63), claim63},
		{"of 64 it ends in a hash", catalog.ClaimLabel(claim64), strings.Repeat("a", 52) + "-2c7b409951"},
		{"no dash before the hash's dash", catalog.ClaimLabel(strings.Repeat("a", 51) + "." + strings.Repeat("c", 20)), strings.Repeat("a", 51) + "-fb99af8ce1"},
		{"a short claim in a Job's name", catalog.ObjectName("data", run, 63), "data-20261122-011500-x7k2"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
}

// Every name and label value must be one that Kubernetes takes, whatever the
// claim is called.
func TestNamesAreValid(t *testing.T) {
	for _, claim := range []string{"d", "data-mysql-0", "data.v2", claim63, claim64, claim253, strings.Repeat("a.", 126) + "a", strings.Repeat("a-", 126) + "a", strings.Repeat("a", 231) + "---b"} {
		if problems := validation.IsDNS1123Subdomain(claim); problems != nil {
			t.Fatalf("the case %q is no claim's name: %v", claim, problems)
		}
		if label := catalog.ClaimLabel(claim); validation.IsValidLabelValue(label) != nil {
			t.Errorf("label of %q: %q: %v", claim, label, validation.IsValidLabelValue(label))
		}
		if name := catalog.SnapshotName(claim, run); validation.IsDNS1123Subdomain(name) != nil {
			t.Errorf("snapshot of %q: %q: %v", claim, name, validation.IsDNS1123Subdomain(name))
		}
		if name := catalog.ObjectName(claim, run, 63); validation.IsValidLabelValue(name) != nil {
			t.Errorf("Job of %q: %q: %v", claim, name, validation.IsValidLabelValue(name))
		}
		for key := range catalog.HandsOff() {
			if problems := validation.IsQualifiedName(key); problems != nil {
				t.Errorf("annotation %s: %v", key, problems)
			}
		}
	}
}

func TestNamesThatBeginAlikeStayTwo(t *testing.T) {
	long := strings.Repeat("data-", 50)
	for _, c := range []struct {
		name string
		make func(claim string) string
	}{
		{"label", catalog.ClaimLabel},
		{"snapshot", func(claim string) string { return catalog.SnapshotName(claim, run) }},
		{"Job", func(claim string) string { return catalog.ObjectName(claim, run, 63) }},
	} {
		a, b := c.make(long+"a"), c.make(long+"b")
		if a == b {
			t.Errorf("%s: two claims are both called %q", c.name, a)
		}
		if again := c.make(long + "a"); a != again {
			t.Errorf("%s: one claim is called %q and %q", c.name, a, again)
		}
	}
}

func TestSnapshotNameEndsInItsRun(t *testing.T) {
	for _, claim := range []string{"data", claim253} {
		if name := catalog.SnapshotName(claim, run); !regexp.MustCompile(`-20261122-011500-x7k2$`).MatchString(name) {
			t.Errorf("%q does not end in its run", name)
		}
	}
}
