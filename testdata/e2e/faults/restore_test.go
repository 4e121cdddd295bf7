package faults_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// vault is a claim with some bytes in it, snapshotted and copied.
type vault struct {
	namespace  string
	repository kit.Repository
	point      kit.Item
	sum        string // of the bytes
}

func newVault(t *testing.T) vault {
	t.Helper()
	return newVaultIn(t, kit.NewRepository(t, "repository password"))
}

func newVaultIn(t *testing.T, repository kit.Repository) vault {
	t.Helper()
	v := vault{namespace: kit.Namespace(t), repository: repository}
	kit.Claim(t, v.namespace, "data", "")
	kit.Pod(t, v.namespace, "app", "data")
	v.sum = kit.Exec(t, v.namespace, "app", "head -c 8000000 /dev/urandom >/data/noise && sync && md5sum </data/noise")
	v.point = kit.Snapshot(t, 0, v.where()...).Of(t, "data")
	return v
}

// where are the flags that name the two namespaces.
func (v vault) where() []string {
	return []string{"-n", v.namespace, "--backup-namespace", v.repository.Namespace}
}

// restore are the arguments of a restore.
func (v vault) restore(args ...string) []string {
	return append(append([]string{"restore", "-o", "json"}, v.where()...), args...)
}

// holds wants a claim to have the bytes of the vault.
func (v vault) holds(t *testing.T, claim string) {
	t.Helper()
	kit.Pod(t, v.namespace, "look-"+claim, claim)
	if got := kit.Exec(t, v.namespace, "look-"+claim, "md5sum </"+claim+"/noise"); got != v.sum {
		t.Errorf("claim %s has sum %s, want %s", claim, got, v.sum)
	}
}

// unchanged wants the claim, its snapshot and its copy to be what they were.
func (v vault) unchanged(t *testing.T) {
	t.Helper()
	if got := kit.Exec(t, v.namespace, "app", "md5sum </data/noise"); got != v.sum {
		t.Errorf("the app's own volume has sum %s, want %s", got, v.sum)
	}
	if left := kit.Names(t, v.namespace, "lease") + kit.Names(t, v.repository.Namespace, "job,pod,pvc,volumesnapshot,lease"); left != "" {
		t.Errorf("left: %s", left)
	}
	const ready = `jsonpath={.status.readyToUse} {.metadata.annotations.backsnap\.sh/copies}`
	if text := kit.Kubectl(t, "get", "volumesnapshot", v.point.Snapshot, "-n", v.namespace, "-o", ready); !strings.HasPrefix(text, "true [") {
		t.Errorf("the snapshot is %q", text)
	}
}

// restoreDay is a day of a restore of claim data.
type restoreDay struct {
	kit.Day
	args []string // instead of `data`
	with func(t *testing.T)
}

// TestBadDaysOfARestore: what was asked for cannot be, or the cluster does not
// let it be. Each of these is known before anything is made, or found while the
// storage makes the volume.
func TestBadDaysOfARestore(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	copy := []string{"data", "--from", "copy"}
	address := "s3:http://s3.backup-storage.svc:9000/" + v.repository.Bucket
	for _, day := range []restoreDay{
		{
			Day:  kit.Day{Group: "Choosing", What: "a name that is none", Exit: 1, Code: "BS061", Says: []string{"there is none"}},
			args: []string{"nothing-of-that-name", "--from", "snapshot"},
		},
		{
			Day:  kit.Day{Group: "Choosing", What: "a time before the first set", Exit: 1, Code: "BS061", Says: []string{"the nearest is", "kubectl backsnap restore data -n " + v.namespace + " --at "}},
			args: []string{"data", "--at", "2001-01-01T00:00Z", "--from", "snapshot"},
		},
		{
			Day:  kit.Day{Group: "Choosing", What: "a repository that is none", Exit: 4, Code: "BS056", Says: []string{"no repository cold"}},
			args: []string{"data", "--from", "copy:cold"},
		},
		{
			Day:  kit.Day{Group: "Choosing", What: "a claim of that name is there", Exit: 4, Code: "BS062", Says: []string{"--to-pvc"}},
			args: []string{"data", "--to-pvc", "data"},
		},
		{
			Day:  kit.Day{Group: "Choosing", What: "a size that is too small", Exit: 2, Code: "BS002", Says: []string{"it needs ", "--size is 1048576"}},
			args: []string{"data", "--from", "copy", "--size", "1Mi"},
		},
		{
			Day:  kit.Day{Group: "Snapshot", What: "the StorageClass is gone", Exit: 4, Code: "BS021", Says: []string{"there is no storage class class-", "--storage-class"}},
			args: []string{"classed"},
			with: func(t *testing.T) { losesItsClass(t, v) },
		},
		{
			Day:  kit.Day{Group: "Snapshot", What: "the storage makes no volume in time", Exit: 6, Code: "BS022", Says: []string{"no room for clones"}},
			with: func(t *testing.T) { kit.Faults(t, v.namespace, noClones()) },
			args: []string{"data", "--timeout", "10s"},
		},
		{
			Day:  kit.Day{Group: "Repository", What: "wrong repository password", Exit: 12, Code: "BS053", Says: []string{"wrong password", "RESTIC_PASSWORD"}},
			args: copy,
			with: func(t *testing.T) { setSecret(t, v.repository, map[string]string{"RESTIC_PASSWORD": "another"}) },
		},
		{
			Day:  kit.Day{Group: "Repository", What: "the repository is not at its address any more", Exit: 10, Code: "BS051", Says: []string{"has the address that the copy was made with"}},
			args: copy,
			with: func(t *testing.T) {
				setSecret(t, v.repository, map[string]string{"RESTIC_REPOSITORY": address + "/elsewhere"})
			},
		},
		{
			Day:  kit.Day{Group: "Cluster", What: "quota of claims used up in the backup namespace", Exit: 1, Code: "BS023", Says: []string{"exceeded quota: none"}},
			args: copy,
			with: func(t *testing.T) {
				quota(t, v.repository.Namespace, "persistentvolumeclaims")
				denied(t, "exceeded quota: none", claimIn(v.repository.Namespace))
			},
		},
		// Last: a rule that has gone is obeyed for a moment still.
		{
			Day: kit.Day{Group: "Cluster", What: "quota of claims used up", Exit: 1, Code: "BS023", Says: []string{"exceeded quota: none"}},
			with: func(t *testing.T) {
				quota(t, v.namespace, "persistentvolumeclaims")
				denied(t, "exceeded quota: none", claimIn(v.namespace))
			},
		},
		{
			Day:  kit.Day{Group: "Cluster", What: "the server says beforehand that a quota is used up", Exit: 1, Code: "BS023", Says: []string{"the server would refuse it"}},
			args: []string{"data", "--from", "copy", "--dry-run", "server"},
			with: func(t *testing.T) {
				quota(t, v.namespace, "persistentvolumeclaims")
				denied(t, "exceeded quota: none", claimIn(v.namespace))
			},
		},
	} {
		t.Run(day.What, func(t *testing.T) {
			if day.args == nil {
				day.args = []string{"data"}
			}
			if day.with != nil {
				day.with(t)
			}
			day.Restore(t, append(day.args, v.where()...)...)
			if day.Group == "Repository" {
				setSecret(t, v.repository, map[string]string{"RESTIC_REPOSITORY": address, "RESTIC_PASSWORD": v.repository.Password})
			}
		})
	}
	v.unchanged(t)
}

func noClones() kit.Fault {
	return kit.Fault{"failProvision": map[string]any{"code": "ResourceExhausted", "message": "no room for clones", "onlyFromSnapshots": true}}
}

// losesItsClass makes a claim of a class of its own, takes a snapshot of it, and
// deletes the class.
func losesItsClass(t *testing.T, v vault) {
	t.Helper()
	var class map[string]any
	if err := json.Unmarshal([]byte(kit.Kubectl(t, "get", "storageclass", "btrfs", "-o", "json")), &class); err != nil {
		t.Fatal(err)
	}
	name := kit.Random("class")
	class["metadata"] = map[string]any{"name": name}
	text, err := json.Marshal(class)
	if err != nil {
		t.Fatal(err)
	}
	made(t, string(text))
	kit.Claim(t, v.namespace, "classed", name)
	kit.Bound(t, v.namespace, "classed")
	kit.Snapshot(t, 0, append(v.where(), "classed", "--repository", "none")...)
	kit.Kubectl(t, "delete", "storageclass", name)
}

// TestSnapshotDeletedUnderARestore: it goes after the plan has named it, while
// the run takes its Lease.
func TestSnapshotDeletedUnderARestore(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	var once sync.Once
	proxy := kit.NewProxy(t, func(r kube.Request) {
		if r.Resource == "leases" {
			once.Do(func() { kit.Kubectl(t, "delete", "volumesnapshot", v.point.Snapshot, "-n", v.namespace) })
		}
	})
	day := kit.Day{Group: "Snapshot", What: "the snapshot is deleted after it was planned with", Exit: 1, Code: "BS061", Says: []string{"it is gone"}}
	day.CheckRestore(t, kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, v.restore("data", "--from", "snapshot")...))
}

// TestInterruptedRestore is ^C while it plans, while the storage makes the
// volume, and while a mover fills one: it ends with 130, and nothing is left.
// Meanwhile a second restore of the app is told who is at work.
func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	interrupt := func(t *testing.T, process *os.Process) {
		t.Helper()
		if err := process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
	}
	day := func(when string) kit.Day {
		return kit.Day{Group: "Client", What: "^C while " + when, Exit: 130, Code: "BS090"}
	}
	t.Run("planning", func(t *testing.T) {
		kubeconfig, wait := kit.Stall(t, "/volumesnapshots")
		process, end := kit.BackgroundWith(t, []string{"KUBECONFIG=" + kubeconfig}, v.restore("data")...)
		wait()
		interrupt(t, process)
		day("it plans").CheckRestore(t, end())
	})
	t.Run("cloning", func(t *testing.T) {
		kit.Faults(t, v.namespace, noClones())
		process, end := kit.Background(t, v.restore("data", "--to-pvc", "cloned")...)
		kit.Until(t, "the claim", func() string {
			if claims := kit.Names(t, v.namespace, "pvc"); !strings.Contains(claims, "/cloned") {
				return "claims: " + claims
			}
			return ""
		})
		interrupt(t, process)
		day("the storage makes the volume").CheckRestore(t, end())
	})
	t.Run("filling", func(t *testing.T) {
		v.repository.Lock(t)
		process, end := kit.Background(t, v.restore("data", "--from", "copy")...)
		moverRuns(t, v.repository.Namespace)
		busy := kit.Day{Group: "Client", What: "a second restore of the same app", Exit: 6, Code: "BS035", Says: []string{"is taken by run"}}
		busy.Restore(t, append(v.where(), "data")...)
		interrupt(t, process)
		day("a mover fills the volume").CheckRestore(t, end())
	})
	v.unchanged(t)
}

// TestMoverOfARestoreIsDeleted: its pod goes while it waits for the repository.
// Another takes its place.
func TestMoverOfARestoreIsDeleted(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.repository.Lock(t)
	_, end := kit.Background(t, v.restore("data", "--from", "copy", "--to-pvc", "back")...)
	moverRuns(t, v.repository.Namespace)
	kit.Kubectl(t, "delete", "pods", "-n", v.repository.Namespace, "-l", "backsnap.sh/role=mover", "--wait=true")
	moverRuns(t, v.repository.Namespace)
	v.repository.Unlock(t)
	kit.Day{Group: "Mover", What: "the mover's pod is deleted in the middle"}.CheckRestore(t, end())
	v.holds(t, "back")
	v.unchanged(t)
}

// TestMoverOfARestoreOutOfMemory: its container has no memory left. Files in
// /dev/shm count, and nothing but restic is large enough to be killed for them.
func TestMoverOfARestoreOutOfMemory(t *testing.T) {
	kit.All(t)
	t.Parallel()
	v := newVault(t)
	v.repository.Lock(t)
	_, end := kit.Background(t, v.restore("data", "--from", "copy", "--mover-requests", "memory=32Mi", "--mover-limits", "memory=64Mi")...)
	moverRuns(t, v.repository.Namespace)
	ended := make(chan kit.Result, 1)
	go func() { ended <- end() }()
	kit.Until(t, "the restore to be given up", func() string {
		select {
		case r := <-ended:
			ended <- r
			return ""
		default:
		}
		r := kit.Command(t, nil, "", "kubectl", "exec", "-n", v.repository.Namespace, "-c", "restic",
			"job/"+strings.TrimPrefix(kit.Names(t, v.repository.Namespace, "job"), "job.batch/"), "--", "sh", "-c", "dd if=/dev/zero of=/dev/shm/full bs=1M")
		return fmt.Sprintf("exec ends with %d: %s", r.Code, r.Stderr)
	})
	day := kit.Day{Group: "Mover", What: "mover out of memory (OOMKilled)", Exit: 1, Code: "BS055", Says: []string{"OOMKilled", "--mover-limits"}}
	day.CheckRestore(t, <-ended)
	v.repository.Unlock(t)
	v.unchanged(t)
}

// TestRestoreOfADamagedCopy: one pack of the copy is not what it was. restic
// finds out, and what it had written by then is called nothing.
func TestRestoreOfADamagedCopy(t *testing.T) {
	t.Parallel()
	server := kit.NewS3Server(t)
	repository := kit.Repository{Name: "main", Namespace: kit.Namespace(t), Bucket: kit.Random("bucket"), Password: "repository password"}
	repository.Secret(t)
	setSecret(t, repository, map[string]string{"RESTIC_REPOSITORY": "s3:" + server.Address() + "/" + repository.Bucket})
	kit.Must(t, "repo", "init", "main", "--backup-namespace", repository.Namespace, "--cluster-name", "e2e")
	v := newVaultIn(t, repository)
	server.Damage(t, repository.Bucket)
	day := kit.Day{Group: "Repository", What: "a pack of the copy is damaged", Exit: 1, Code: "BS055", Says: []string{"/data/noise", "see whether repository main is sound"}}
	day.Restore(t, append(v.where(), "data", "--from", "copy")...)
	v.unchanged(t)
}

// TestTheAPIServerGoesAwayDuringARestore: each answer to a write is lost once,
// with all watches, and so are the next requests.
func TestTheAPIServerGoesAwayDuringARestore(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	for _, from := range []string{"snapshot", "copy"} {
		proxy, writes := kit.NewAwayProxy(t)
		day := kit.Day{Group: "Client", What: fmt.Sprintf("the API server goes away after each write, from a %s", from)}
		day.CheckRestore(t, kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, v.restore("data", "--from", from, "--to-pvc", "from-"+from)...))
		v.holds(t, "from-"+from)
		if least := map[string]int{"snapshot": 1, "copy": 6}[from]; len(writes()) < least {
			t.Errorf("it was away after %d writes only: %q", len(writes()), writes())
		}
	}
	v.unchanged(t)
}
