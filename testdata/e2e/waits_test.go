package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestALockIsWaitedForAsLongAsAsked: somebody who is not known has locked the
// repository. With --retry-lock=0s nobody waits for them; else the mover does,
// and with --timeout it does so alone. Meanwhile a mover of a restore can be
// looked at: it is made as its flags say.
func TestALockIsWaitedForAsLongAsAsked(t *testing.T) {
	t.Parallel()
	repository, namespace := plain(t)
	slow(t, namespace)
	in := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
	copied := kit.Snapshot(t, 0, in...).Of(t, "data")
	point := kit.Snapshot(t, 0, append(in, "--repository", "none")...).Of(t, "data")

	repository.Lock(t)
	for _, args := range [][]string{{"copy", "vs/" + point.Snapshot}, {"restore", "vs/" + copied.Snapshot, "--from", "copy"}} {
		r := kit.Backsnap(t, append(append(args, "--retry-lock", "0s"), in...)...)
		if r.Code != 11 || !strings.Contains(r.Stderr, "[BS052]") {
			t.Errorf("%s without waiting: exit %d", args[0], r.Code)
		}
	}
	begun := copyAgain(t, 0, append(in, "--wait=false")...)
	late := copyAgain(t, 6, append(in, "--timeout", "5s")...).Of(t, "data")
	if got, want := states(late), "main Detached  BS022"; got != want || late.State != "Failed" {
		t.Errorf("a copy that is not in time is %s: %s, want %s", late.State, got, want)
	}
	repository.Unlock(t)
	kit.Must(t, append([]string{"logs", "-f", "run/" + begun.Run}, in...)...)
	if all := repository.Snapshots(t); len(all) != 2 || !strings.Contains(record(t, namespace, point.Snapshot), all[1].ID) {
		t.Errorf("the repository has %+v, on record is %s", all, record(t, namespace, point.Snapshot))
	}

	repository.Lock(t)
	flags, want := podOf(t, repository.Namespace)
	run := begin(t, append(append([]string{"restore", "vs/" + copied.Snapshot, "--from", "copy", "--to-pvc", "back"}, flags...), in...)...)
	started(t, repository)
	if got := kit.Kubectl(t, "get", "jobs", "-n", repository.Namespace, "-o", podPath); got != want {
		t.Errorf("the mover of the restore is\n%s\nwant\n%s", got, want)
	}
	mover(t, repository.Namespace, "")
	repository.Unlock(t)
	run.ends(t, 0)
	kit.Bound(t, namespace, "back")
	if left := kit.Names(t, repository.Namespace, backupOnly) + kit.Names(t, namespace, "lease"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// podPath is all of a mover's Job that flags say.
const podPath = `jsonpath={range .items[*]}{.spec.activeDeadlineSeconds}
{.spec.template.spec.containers[0].args[2]} {.spec.template.spec.containers[0].args[3]}
{.spec.template.spec.containers[0].image}
{.spec.template.spec.containers[0].resources}
{.spec.template.spec.containers[0].env[?(@.name=="GOMEMLIMIT")].value}
{.spec.template.spec.priorityClassName}
{.spec.template.spec.serviceAccountName}
{.spec.template.spec.imagePullSecrets}
{.spec.template.spec.tolerations}
{end}`

// podOf are all flags of a mover's pod, none of them as it is by default, what
// podPath is to say of it then, and what they name in namespace.
func podOf(t *testing.T, namespace string) (flags []string, want string) {
	t.Helper()
	class := kit.Random("class")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: %s}
value: -1
preemptionPolicy: Never
`, class), "apply", "-f", "-")
	kit.Afterwards(t, "delete", "priorityclass", class)
	kit.Kubectl(t, "create", "serviceaccount", "mover", "-n", namespace)
	kit.Kubectl(t, "create", "secret", "docker-registry", "pull", "-n", namespace, "--docker-server", "registry.invalid", "--docker-username", "user", "--docker-password", "none")
	return []string{
			"--mover-requests", "cpu=50m,memory=128Mi", "--mover-limits", "cpu=1,memory=512Mi", "--mover-deadline", "90m", "--retry-lock", "21m",
			"--mover-priority-class", class, "--mover-service-account", "mover", "--mover-pull-secret", "pull", "--mover-toleration", "dedicated=backup:NoSchedule,spot",
		}, fmt.Sprintf(`7200
5400 21m0s
docker.io/restic/restic:0.19.1
{"limits":{"cpu":"1","memory":"512Mi"},"requests":{"cpu":"50m","memory":"128Mi"}}
435MiB
%s
mover
[{"name":"pull"}]
[{"effect":"NoSchedule","key":"dedicated","operator":"Equal","value":"backup"},{"key":"spot","operator":"Exists"}]
`, class)
}
