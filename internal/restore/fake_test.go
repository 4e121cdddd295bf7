package restore_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

const run = catalog.Run("20261122-091500-x7k2")

// name is what is made on the way to claim data in namespace shop, and in
// namespace scratch.
const (
	name      = "data-73fdf519-20261122-091500-x7k2"
	elsewhere = "data-f1a3d668-20261122-091500-x7k2"
)

// cluster is a restore.Cluster in memory. Every call that changes something is
// a line of its diary.
type cluster struct {
	inventory catalog.Inventory
	snapshots []catalog.Snapshot
	classes   map[string]catalog.StorageClass
	missing   []catalog.Right
	secret    string // namespace that may not be looked at
	kept      []catalog.Volume
	// fail is the error of a call, by the call's line in the diary. It fails
	// once.
	fail map[string]error
	// end is how the mover ends.
	end restic.End
	// on is called before a call, with its line.
	on func(line string)
	// exec is what a pod does.
	exec func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error
	// current is the snapshot as it is when it is read again.
	current func(catalog.Snapshot) catalog.Snapshot

	mu     sync.Mutex
	diary  []string
	there  map[string]bool // what was made and not removed, `claim shop/data`
	claims map[string]catalog.Claim
	jobs   []restic.Job
}

func newCluster(snapshots ...catalog.Snapshot) *cluster {
	return &cluster{
		snapshots: snapshots, claims: map[string]catalog.Claim{}, there: map[string]bool{}, fail: map[string]error{},
		classes: map[string]catalog.StorageClass{"fast": {Name: "fast", Driver: "csi.example.com"}},
		inventory: catalog.Inventory{
			Claims:       []catalog.Claim{{Namespace: "shop", Name: "data", UID: "uid-of-data", Phase: "Bound"}},
			Repositories: []catalog.Repository{{Name: "main", Namespace: "backsnap", Secret: "main-secret"}},
		},
		end:     restic.End{Pod: "pod", Text: report(3, 4096)},
		current: func(s catalog.Snapshot) catalog.Snapshot { return s },
	}
}

// report is a mover's that has restored all, and counted that.
func report(files, bytes int) string {
	return fmt.Sprintf("backsnap step=restore exit=0\nerrors=0\n"+
		`{"message_type":"summary","total_files":5,"files_restored":5,"total_bytes":%[2]d,"bytes_restored":%[2]d}`+"\n"+
		"counted files=%[1]d bytes=%[2]d\n", files, bytes)
}

// did writes a line and is what the call fails with.
func (c *cluster) did(ctx context.Context, format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if c.on != nil {
		c.on(line)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.diary = append(c.diary, line)
	if err := c.fail[line]; err != nil {
		delete(c.fail, line)
		return err
	}
	return context.Cause(ctx)
}

// stands notes that something is there, or gone.
func (c *cluster) stands(there bool, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if what := fmt.Sprintf(format, args...); there {
		c.there[what] = true
	} else {
		delete(c.there, what)
	}
}

// left is what is there.
func (c *cluster) left() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.there))
}

func (c *cluster) Snapshots(_ context.Context, scope catalog.Scope) ([]catalog.Snapshot, error) {
	return slices.DeleteFunc(slices.Clone(c.snapshots), func(s catalog.Snapshot) bool { return !slices.Contains(scope.Namespaces, s.Namespace) }), c.fail["snapshots"]
}

func (c *cluster) Inventory(_ context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	v := c.inventory
	if !scope.Lost {
		v.Lost = nil
	}
	if slices.Contains(scope.Namespaces, c.secret) {
		return v, &catalog.Failure{Code: catalog.CodeForbidden, Message: "you may not list persistentvolumeclaims in " + c.secret}
	}
	v.Claims = slices.DeleteFunc(slices.Clone(v.Claims), func(claim catalog.Claim) bool { return !slices.Contains(scope.Namespaces, claim.Namespace) })
	return v, c.fail["inventory"]
}

func (c *cluster) StorageClass(_ context.Context, name string) (catalog.StorageClass, error) {
	class, ok := c.classes[name]
	if !ok {
		return class, catalog.ErrGone
	}
	return class, nil
}

func (c *cluster) CreateNamespace(ctx context.Context, n catalog.Meta, dry bool) (bool, error) {
	err := c.did(ctx, "create namespace %s, dry %t, labels %v", n.Name, dry, n.Labels)
	return err == nil && slices.Contains(c.inventory.Lost, n.Name), err
}

func (c *cluster) Missing(context.Context, []catalog.Right) ([]catalog.Right, error) {
	return c.missing, nil
}

func (c *cluster) TryClaim(ctx context.Context, claim catalog.Claim) error {
	return c.did(ctx, "try claim %s/%s", claim.Namespace, claim.Name)
}

func (c *cluster) MakeClaim(ctx context.Context, claim catalog.Claim, snapshot string) (string, error) {
	from := "empty"
	if snapshot != "" {
		from = "from " + snapshot
	}
	if claim.Volume != "" {
		from = "of volume " + claim.Volume
	}
	// It is made whatever becomes of ctx meanwhile.
	if err := c.did(context.WithoutCancel(ctx), "make claim %s/%s %s", claim.Namespace, claim.Name, from); err != nil {
		return "", err
	}
	c.stands(true, "claim %s/%s", claim.Namespace, claim.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims[claim.Namespace+"/"+claim.Name] = claim
	return "uid of " + claim.Name, nil
}

func (c *cluster) AwaitBound(ctx context.Context, namespace, name string, trouble func(restic.Trouble)) error {
	err := c.did(ctx, "await %s/%s", namespace, name)
	if err != nil {
		trouble(restic.Trouble{Reason: "ProvisioningFailed", Message: "no room"})
		trouble(restic.Trouble{Reason: "ProvisioningFailed", Message: "no room"})
	}
	return err
}

func (c *cluster) RemoveClaim(ctx context.Context, namespace, name, uid string) error {
	err := c.did(ctx, "remove claim %s/%s, %s", namespace, name, uid)
	if err == nil {
		c.stands(false, "claim %s/%s", namespace, name)
	}
	return err
}

func (c *cluster) Current(_ context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	return c.current(s), c.fail["current"]
}

func (c *cluster) Expose(ctx context.Context, s, static catalog.Snapshot) error {
	c.stands(true, "static %s/%s", static.Namespace, static.Name) // the answer may be lost
	return c.did(ctx, "expose %s as %s/%s", s.Name, static.Namespace, static.Name)
}

func (c *cluster) RemoveStatic(ctx context.Context, namespace, name string) error {
	err := c.did(ctx, "remove static %s/%s", namespace, name)
	if err == nil {
		c.stands(false, "static %s/%s", namespace, name)
	}
	return err
}

func (c *cluster) StartMover(ctx context.Context, job restic.Job) error {
	c.mu.Lock()
	c.jobs = append(c.jobs, job)
	c.mu.Unlock()
	c.stands(true, "mover %s/%s", job.Namespace, job.Name) // the answer may be lost
	return c.did(ctx, "start mover %s/%s", job.Namespace, job.Name)
}

func (c *cluster) RemoveMover(ctx context.Context, namespace, name string) error {
	err := c.did(ctx, "remove mover %s/%s", namespace, name)
	if err == nil {
		c.stands(false, "mover %s/%s", namespace, name)
	}
	return err
}

func (c *cluster) KeepVolume(ctx context.Context, claim catalog.Claim, labels map[string]string) (catalog.Volume, error) {
	err := c.did(ctx, "keep volume of %s/%s, %s, for %s", claim.Namespace, claim.Name, claim.UID, labels[catalog.LabelNamespace])
	if err == nil {
		c.stands(true, "kept volume")
	}
	return catalog.Volume{Name: "pv", Run: run, Reclaim: "Delete", Claim: claim}, err
}

func (c *cluster) KeptVolumes(context.Context, string) ([]catalog.Volume, error) {
	return c.kept, c.fail["kept"]
}

func (c *cluster) HandVolume(ctx context.Context, v catalog.Volume, claim catalog.Claim) error {
	return c.did(ctx, "hand volume %s from %s to %s/%s", v.Name, v.Claim.UID, claim.Namespace, claim.Name)
}

func (c *cluster) LetVolume(ctx context.Context, name, policy string) error {
	err := c.did(ctx, "let volume %s: %s", name, policy)
	if err == nil {
		c.stands(false, "kept volume")
	}
	return err
}

func (c *cluster) follow(ctx context.Context, namespace, name, claim string, tell func(catalog.Event)) (restic.End, error) {
	tell(catalog.Event{State: catalog.Progress, Bytes: 1, Total: 2})
	return c.end, c.did(ctx, "follow %s/%s with %s", namespace, name, claim)
}

func (c *cluster) reach(ctx context.Context, namespace, name, _ string, _ func(catalog.Event)) (string, error) {
	return "pod", c.did(ctx, "reach %s/%s", namespace, name)
}

func (c *cluster) Exec(ctx context.Context, _ catalog.ContainerRef, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := c.did(ctx, "exec"); err != nil {
		return err
	}
	return c.exec(ctx, argv, stdin, stdout, stderr)
}

// watcher keeps what it was told, as `state message`.
type watcher struct {
	mu   sync.Mutex
	said []string
}

func (w *watcher) Event(e catalog.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, strings.TrimSpace(string(e.State)+" "+e.Message))
}

// request restores claim data of shop.
func request() restore.Request {
	return restore.Request{
		Run: run, Target: restore.Target{Namespace: "shop", Kind: "pvc", Name: "data"}, AtText: "any time", From: restore.From{Kind: restore.Auto},
		BackupNamespace: "backsnap", Image: "img", Parallel: 2, Deadline: time.Hour, Timeout: time.Minute,
	}
}

// plan makes the plan of r.
func plan(t *testing.T, c *cluster, r restore.Request) restore.Plan {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
