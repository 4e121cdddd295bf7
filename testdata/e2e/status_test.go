package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// protection is an app as `status -o json` prints it.
type protection struct{ App, State, Reason, Next string }

// status runs `status -o json` and wants that exit code.
func status(t *testing.T, code int, args ...string) []protection {
	t.Helper()
	r := kit.Backsnap(t, append([]string{"status", "-o", "json"}, args...)...)
	var doc struct {
		ExitCode int
		Items    []protection
	}
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
		t.Fatalf("status: %v", err)
	}
	if r.Code != code || doc.ExitCode != code {
		t.Errorf("status %v: exit %d, %d in the document, want %d", args, r.Code, doc.ExitCode, code)
	}
	return doc.Items
}

// TestStatusTellsWhatIsProtected: of a claim that was never taken, one whose last
// good snapshot is too old since the last run failed, and an app with a fresh one,
// each is told for what it is, the worst first, with the command that does
// something about it; these, run as they stand, mend it. It takes no more than
// the right to list claims, pods and snapshots in the one namespace.
func TestStatusTellsWhatIsProtected(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	for _, claim := range []string{"data", "never", "old"} {
		kit.Claim(t, namespace, claim, "")
	}
	kit.App(t, namespace)
	kit.Bound(t, namespace, "data", "never", "old")
	kit.Nights(t, namespace, "old", time.Now().UTC().AddDate(0, 0, -3), 1)
	kit.AppReady(t, namespace)
	fresh := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "data")
	broken := failedSnapshot(t, namespace, "old") // another run would remove what it has left

	got := status(t, 7, "-n", namespace)
	want := []protection{
		{App: "pvc/never", State: "NONE", Reason: "no restore point", Next: "kubectl backsnap snapshot never -n " + namespace},
		{App: "pvc/old", State: "LATE", Reason: broken.message, Next: "kubectl backsnap logs run/" + broken.run + " -n " + namespace},
		{App: "deployment/app", State: "WARN", Reason: "no off-site copy", Next: "kubectl backsnap copy run/" + fresh.Run + " -n " + namespace},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	for _, c := range []struct {
		code int
		args string
	}{
		{7, ""}, {0, "--fail-on="}, {0, "deployment/app"}, {7, "deployment/app --require=offsite"}, {7, "deployment/app --fail-on=warn"},
		{7, "old"}, {0, "old --max-age=7d"}, {7, "never --max-age=none"}, {2, "--max-age=soon"}, {1, "nothing"},
	} {
		if r := kit.Backsnap(t, append([]string{"status", "-n", namespace}, strings.Fields(c.args)...)...); r.Code != c.code {
			t.Errorf("status %s: exit %d, want %d", c.args, r.Code, c.code)
		}
	}
	want[1].Reason = "nothing taken since: " + broken.message // whether its run has died the Leases would tell
	statusByTenant(t, namespace, want)
	statusOfAll(t, namespace)

	for _, p := range []protection{want[1], want[0], {Next: "kubectl backsnap snapshot old -n " + namespace}} {
		if r := kit.Command(t, []string{"BACKSNAP_REPOSITORY=none"}, "", "sh", "-euc", p.Next); r.Code != 0 {
			t.Errorf("%s: exit %d\n%s%s", p.Next, r.Code, r.Stdout, r.Stderr)
		}
	}
	kit.Kubectl(t, "annotate", "namespace", namespace, catalog.AnnotationRepository+"=none")
	for _, p := range status(t, 0, "-n", namespace, "--fail-on", "none,late,warn") {
		if p.State != "ok" {
			t.Errorf("after its command: %+v", p)
		}
	}
}

// broken is a run that has failed.
type broken struct{ run, message string }

// failedSnapshot leaves what a run leaves whose snapshot the cluster refused.
func failedSnapshot(t *testing.T, namespace, claim string) broken {
	t.Helper()
	b := broken{run: time.Now().UTC().Format("20060102-150405") + "-dead"}
	s := catalog.Snapshot{Namespace: namespace, Name: claim + "-" + b.run, Claim: claim, Run: catalog.Run(b.run)}
	labels, err := json.Marshal(s.Labels())
	if err != nil {
		t.Fatal(err)
	}
	kit.Apply(t, fmt.Sprintf(`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: %s, namespace: %s, labels: %s}, spec: {volumeSnapshotClassName: no-such-class, source: {persistentVolumeClaimName: %s}}}`,
		s.Name, namespace, labels, claim), "create", "-f", "-")
	kit.Until(t, "the snapshot to fail", func() string {
		b.message = kit.Kubectl(t, "get", "volumesnapshot", s.Name, "-n", namespace, "-o", "jsonpath={.status.error.message}")
		if b.message == "" {
			return "no error yet"
		}
		return ""
	})
	return b
}

// statusByTenant is what somebody sees who may list three kinds in the namespace,
// and nothing else.
func statusByTenant(t *testing.T, namespace string, want []protection) {
	t.Helper()
	rights := []catalog.Right{
		{Verb: "list", Resource: "persistentvolumeclaims", Namespace: namespace},
		{Verb: "list", Resource: "pods", Namespace: namespace},
		{Verb: "list", Group: "snapshot.storage.k8s.io", Resource: "volumesnapshots", Namespace: namespace},
	}
	users := usersWithoutOne(t, rights)
	for i, right := range rights {
		if r := kit.Backsnap(t, "status", "-n", namespace, "--as", users[i]); r.Code != 4 || !strings.Contains(r.Stderr, "[BS031]") || !strings.Contains(r.Stderr, " "+right.String()) {
			t.Errorf("without %s: exit %d, want 4 and BS031 that names it", right, r.Code)
		}
	}
	if diff := cmp.Diff(want, status(t, 7, "-n", namespace, "--as", users[len(rights)])); diff != "" {
		t.Errorf("with those three: -want +got:\n%s", diff)
	}
}

// statusOfAll asks for the whole cluster, page by page and never for one
// namespace, and changes nothing.
func statusOfAll(t *testing.T, namespace string) {
	t.Helper()
	proxy := kit.NewProxy(t, nil)
	r := kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, "status", "-A", "--fail-on=", "-o", "prom")
	if sample := fmt.Sprintf(`backsnap_state{namespace=%q,app="pvc/never",state="none"} 1`, namespace); r.Code != 0 || !strings.Contains(r.Stdout, sample) {
		t.Errorf("status -A -o prom: exit %d, want a line %s", r.Code, sample)
	}
	for _, request := range proxy.Requests() {
		if request.Verb != "list" || strings.Contains(request.Path, "/namespaces/") {
			t.Errorf("status -A asks %+v", request)
		}
	}
}
