package restore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// errDead is what every call fails with after the client was killed.
var errDead = errors.New("killed")

// swapWorld is a restore.SwapCluster in memory: claims, volumes and what the
// volume controller does with them, and a workload. It counts writes, and ends
// its client after one of them.
type swapWorld struct {
	*cluster
	t *testing.T

	held    map[string]catalog.Claim    // by name
	volumes map[string]*worldPV         // by name
	app     catalog.App                 // its Replicas are those that it is to have
	safety  map[string]catalog.Snapshot // by name
	checks  map[string]restic.Job       // that look at a volume
	uids    int

	writes  []string
	killAt  int    // 0: never
	failAt  int    // this write fails, once
	hear    func() // what comes at write hearAt
	hearAt  int
	stuck   bool // pods do not end
	unready bool
	going   map[string]int // claims that go once they were listed so often
	steal   bool           // somebody makes the claim in between
	raise   string         // claim: while its volumes are exchanged somebody scales the app up
}

// worldPV is a volume; data is what it holds.
type worldPV struct {
	catalog.SwapVolume
	data string
	kept string // annotation of the reclaim policy
}

func newSwapWorld(t *testing.T) *swapWorld {
	w := &swapWorld{
		cluster: newCluster(shot("01:00", "data"), shot("01:00", "logs")), t: t,
		held: map[string]catalog.Claim{}, volumes: map[string]*worldPV{}, safety: map[string]catalog.Snapshot{}, checks: map[string]restic.Job{}, going: map[string]int{},
		app: catalog.App{Workload: catalog.Workload{Kind: "statefulset", Name: "mysql"}, Namespace: "shop", UID: "uid-of-mysql", Replicas: 2, Templates: []string{"x-"}, Claims: []string{"data", "logs"}},
	}
	for _, s := range []int{0, 1} {
		w.snapshots[s].Record.App = "statefulset/mysql"
		w.snapshots[s].Record.Members = []string{"data", "logs"}
	}
	for _, name := range []string{"data", "logs"} {
		w.volumes["pv-"+name] = &worldPV{data: "live " + name, SwapVolume: catalog.SwapVolume{Policy: "Delete"}}
		w.volumes["pv-"+name].Name = "pv-" + name
		w.bind(catalog.Claim{Namespace: "shop", Name: name, StorageClass: "fast", AccessModes: []string{"ReadWriteOnce"}, Volume: "pv-" + name})
	}
	return w
}

// bind makes the claim, of a volume that is offered to it or is new.
func (w *swapWorld) bind(c catalog.Claim) string {
	w.uids++
	c.UID = fmt.Sprintf("uid-%d", w.uids)
	v := w.volumes[c.Volume]
	c.Phase = "Pending"
	if v.Claim.Name == "" || v.Claim.Name == c.Name && v.Claim.UID == "" {
		v.Claim = catalog.Claim{Namespace: c.Namespace, Name: c.Name, UID: c.UID}
		v.Phase, c.Phase = "Bound", "Bound"
	}
	w.held[c.Name] = c
	return c.UID
}

// write is before each call that changes something.
func (w *swapWorld) write(format string, args ...any) error {
	if w.killAt > 0 && len(w.writes) >= w.killAt {
		return errDead
	}
	w.writes = append(w.writes, fmt.Sprintf(format, args...))
	if len(w.writes) == w.hearAt {
		w.hear()
	}
	if len(w.writes) == w.failAt {
		return errors.New("broken")
	}
	return nil
}

// read is before each other call.
func (w *swapWorld) read() error {
	if w.killAt > 0 && len(w.writes) >= w.killAt {
		return errDead
	}
	return nil
}

func (w *swapWorld) Inventory(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	v, err := w.cluster.Inventory(ctx, scope)
	for name := range w.going {
		if w.going[name]--; w.going[name] < 0 {
			w.drop(name)
		}
	}
	v.Claims = slices.Collect(maps.Values(w.held))
	v.Sort()
	v.Classes = []catalog.SnapshotClass{{Name: "snap", Driver: ""}}
	return v, errors.Join(err, w.read())
}

func (w *swapWorld) Snapshots(ctx context.Context, scope catalog.Scope) ([]catalog.Snapshot, error) {
	all, err := w.cluster.Snapshots(ctx, scope)
	return append(all, slices.Collect(maps.Values(w.safety))...), errors.Join(err, w.read())
}

func (w *swapWorld) MakeClaim(_ context.Context, claim catalog.Claim, snapshot string) (string, error) {
	if err := w.write("make claim %s", claim.Name); err != nil {
		return "", err
	}
	claim.Volume = "pv-of-" + claim.Name
	w.volumes[claim.Volume] = &worldPV{data: "set " + claim.Labels[catalog.LabelClaim], SwapVolume: catalog.SwapVolume{Policy: "Delete"}}
	w.volumes[claim.Volume].Name = claim.Volume
	return w.bind(claim), nil
}

func (w *swapWorld) TryClaim(context.Context, catalog.Claim) error { return w.read() }

func (w *swapWorld) AwaitBound(ctx context.Context, _, name string, _ func(restic.Trouble)) error {
	if claim, ok := w.held[name]; w.read() == nil && (!ok || claim.Phase != "Bound") {
		return fmt.Errorf("claim %s is %q: it would wait for ever", name, claim.Phase)
	}
	return errors.Join(w.read(), context.Cause(ctx))
}

func (w *swapWorld) RemoveClaim(ctx context.Context, _, name, uid string) error {
	if err := errors.Join(context.Cause(ctx), w.write("remove claim %s", name)); err != nil {
		return err
	}
	claim, ok := w.held[name]
	if !ok || claim.UID != uid {
		return nil
	}
	if context.Cause(ctx) != nil { // it was told to go, and nobody waits until it has
		w.going[name] = 1
		return context.Cause(ctx)
	}
	w.drop(name)
	if w.steal && name == "data" {
		w.volumes["pv-stolen"] = &worldPV{SwapVolume: catalog.SwapVolume{Policy: "Delete"}}
		w.volumes["pv-stolen"].Name = "pv-stolen"
		w.bind(catalog.Claim{Namespace: "shop", Name: "data", Volume: "pv-stolen"})
	}
	return nil
}

// drop is the end of a claim.
func (w *swapWorld) drop(name string) {
	claim := w.held[name]
	delete(w.held, name)
	delete(w.going, name)
	if v := w.volumes[claim.Volume]; v != nil && v.Claim.UID == claim.UID {
		v.Phase = "Released"
		w.reclaim(v)
	}
}

// reclaim is what the volume controller does with a volume whose claim is gone.
func (w *swapWorld) reclaim(v *worldPV) {
	for _, c := range w.held {
		if c.UID == v.Claim.UID {
			return
		}
	}
	if v.Policy == "Delete" && (v.Claim.UID != "" || v.Claim.Name == "") {
		delete(w.volumes, v.Name)
	}
}

func (w *swapWorld) LetVolume(_ context.Context, name, policy string) error {
	if err := w.write("let volume %s: %s", name, policy); err != nil {
		return err
	}
	if v := w.volumes[name]; v != nil {
		v.Policy, v.Role, v.Turn, v.Manifest, v.kept, v.Run = policy, "", "", "", "", ""
		if policy == "Delete" && v.Claim.UID == "" {
			v.Claim.UID = "nobody's"
		}
		w.reclaim(v)
	}
	return nil
}

func (w *swapWorld) Apps(context.Context, string) ([]catalog.App, error) {
	a := w.app
	a.Annotations = maps.Clone(a.Annotations)
	return []catalog.App{a}, w.read()
}

func (w *swapWorld) Remember(_ context.Context, _ catalog.App, run catalog.Run, replicas int) error {
	err := w.write("remember %d", replicas)
	if err == nil {
		notes := maps.Clone(w.app.Annotations)
		if notes == nil {
			notes = map[string]string{}
		}
		notes[catalog.AnnotationInPlace], notes[catalog.AnnotationReplicas] = string(run), fmt.Sprint(replicas)
		w.app.Annotations = notes
	}
	return err
}

func (w *swapWorld) Forget(context.Context, catalog.App) error {
	err := w.write("forget")
	if err == nil {
		w.app.Annotations = maps.Clone(w.app.Annotations)
		delete(w.app.Annotations, catalog.AnnotationInPlace)
		delete(w.app.Annotations, catalog.AnnotationReplicas)
	}
	return err
}

func (w *swapWorld) Replicas(context.Context, catalog.App) (int, error) {
	return w.app.Replicas, w.read()
}

func (w *swapWorld) Scale(_ context.Context, _ catalog.App, replicas int) error {
	if err := w.read(); err != nil || w.app.Replicas == replicas {
		return err
	}
	err := w.write("scale to %d", replicas)
	if err == nil {
		w.app.Replicas = replicas
	}
	return err
}

func (w *swapWorld) AwaitIdle(ctx context.Context, _ string, _, _ []string, apps []catalog.App) error {
	if w.stuck && len(apps) > 0 {
		<-ctx.Done()
	}
	if w.app.Replicas > 0 && len(apps) > 0 {
		return catalog.ErrRaised
	}
	return errors.Join(w.read(), context.Cause(ctx))
}

func (w *swapWorld) AwaitReady(ctx context.Context, _ catalog.App, replicas int) error {
	if w.app.Replicas != replicas {
		w.t.Errorf("waits for %d replicas, it has %d", replicas, w.app.Replicas)
	}
	if w.unready {
		<-ctx.Done()
	}
	return errors.Join(w.read(), context.Cause(ctx))
}

func (w *swapWorld) ReadClaim(_ context.Context, _, name string) (catalog.Claim, string, error) {
	claim, ok := w.held[name]
	if w.raise == name && w.app.Replicas == 0 {
		w.app.Replicas, w.raise = 3, ""
	}
	if err := w.read(); err != nil || !ok {
		return claim, "", errors.Join(err, catalog.ErrGone)
	}
	return claim, "manifest of " + name, nil
}

func (w *swapWorld) RemakeClaim(_ context.Context, manifest, volume string) error {
	name := strings.TrimPrefix(manifest, "manifest of ")
	if err := w.write("make claim %s again", name); err != nil {
		return err
	}
	if there, ok := w.held[name]; ok {
		if there.Volume != volume {
			return catalog.ErrTaken
		}
		return nil
	}
	if w.app.Replicas > 0 {
		w.t.Errorf("claim %s is made again while the app runs", name)
	}
	w.bind(catalog.Claim{Namespace: "shop", Name: name, StorageClass: "fast", Volume: volume})
	return nil
}

func (w *swapWorld) SwapVolumes(context.Context, string) ([]catalog.SwapVolume, error) {
	var found []catalog.SwapVolume
	for _, name := range slices.Sorted(maps.Keys(w.volumes)) {
		if v := w.volumes[name]; v.Role != "" {
			s := v.SwapVolume
			s.Reclaim = v.kept
			if s.Reclaim == "" {
				s.Reclaim = v.Policy
			}
			found = append(found, s)
		}
	}
	return found, w.read()
}

func (w *swapWorld) MarkVolume(ctx context.Context, v catalog.SwapVolume) error {
	if err := errors.Join(context.Cause(ctx), w.write("mark volume %s", v.Name)); err != nil {
		return err
	}
	there := w.volumes[v.Name]
	if there == nil || there.Claim.UID != v.Claim.UID {
		return fmt.Errorf("mark volume %s: it is another claim's", v.Name)
	}
	if there.kept == "" {
		there.kept = there.Policy
	}
	there.Run, there.Role, there.Turn, there.Manifest, there.Of, there.Namespace, there.Policy = v.Run, v.Role, v.Turn, v.Manifest, v.Of, v.Namespace, "Retain"
	return nil
}

func (w *swapWorld) OfferVolume(ctx context.Context, v catalog.SwapVolume, claim catalog.Claim) error {
	if err := errors.Join(context.Cause(ctx), w.write("offer volume %s to %s", v.Name, claim.Name)); err != nil {
		return err
	}
	there := w.volumes[v.Name]
	switch {
	case there == nil || there.Policy != "Retain":
		return fmt.Errorf("offer volume %s: %+v", v.Name, there)
	case there.Claim.Name == claim.Name && there.Claim.UID == "":
		return nil
	case there.Claim.UID != v.Claim.UID:
		return fmt.Errorf("offer volume %s: it is another claim's", v.Name)
	}
	there.Claim, there.Phase = catalog.Claim{Namespace: claim.Namespace, Name: claim.Name}, "Available"
	return nil
}

func (w *swapWorld) SettleVolume(_ context.Context, name string, inUse bool, until string) error {
	if err := w.write("settle volume %s", name); err != nil {
		return err
	}
	if v := w.volumes[name]; v != nil {
		v.Turn, v.DeleteAfter = "", until
		if inUse && v.kept != "" {
			v.Policy, v.kept = v.kept, ""
		}
	}
	return nil
}

func (w *swapWorld) AwaitVolumeGone(_ context.Context, name string) error {
	if w.volumes[name] != nil && w.read() == nil {
		w.t.Errorf("volume %s never goes: %+v", name, w.volumes[name])
	}
	return w.read()
}

func (w *swapWorld) StartMover(_ context.Context, job restic.Job) error {
	if err := w.write("start mover %s", job.Name); err != nil {
		return err
	}
	w.checks[job.Name] = job
	return nil
}

func (w *swapWorld) RemoveMover(_ context.Context, _, name string) error {
	err := w.write("remove mover %s", name)
	if err == nil {
		delete(w.checks, name)
	}
	return err
}

// follow is that of a mover that looks at a volume.
func (w *swapWorld) follow(ctx context.Context, _, _, _ string, _ func(catalog.Event)) (restic.End, error) {
	return restic.End{Pod: "pod", Text: "looked files=3 sums=1\n"}, errors.Join(context.Cause(ctx), w.read())
}

func (w *swapWorld) Movers(_ context.Context, namespace string) ([]restic.Mover, error) {
	var movers []restic.Mover
	for _, job := range w.checks {
		movers = append(movers, restic.Mover{Namespace: namespace, Name: job.Name, Run: catalog.Run(job.Labels[catalog.LabelRun]), Job: true})
	}
	return movers, w.read()
}

func (w *swapWorld) Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	err := errors.Join(context.Cause(ctx), w.write("snapshot %s", s.Claim))
	if err == nil {
		s.UID, s.Ready = "uid-"+s.Name, true
		w.safety[s.Name] = s
	}
	return s, err
}

func (w *swapWorld) Await(ctx context.Context, _ string, done func([]catalog.Snapshot) (bool, error)) error {
	ok, err := done(slices.Collect(maps.Values(w.safety)))
	if !ok {
		err = errors.Join(err, errors.New("it would wait for ever"))
	}
	return errors.Join(err, w.read(), context.Cause(ctx))
}

func (w *swapWorld) Delete(_ context.Context, s catalog.Snapshot) error {
	err := w.write("delete snapshot of %s", s.Claim)
	if err == nil {
		delete(w.safety, s.Name)
	}
	return err
}

// wrote is what the client has written.
func (w *swapWorld) wrote() []string { return w.writes }

// revive lets a new client at the world.
func (w *swapWorld) revive() {
	w.killAt, w.failAt, w.hearAt, w.writes = 0, 0, 0, nil
	w.stuck, w.unready, w.steal = false, false, false
}

// serves is what the app has behind its claims, and how many replicas.
func (w *swapWorld) serves() string {
	var data []string
	for _, name := range []string{"data", "logs"} {
		claim := w.held[name]
		text := "nothing"
		if v := w.volumes[claim.Volume]; v != nil && claim.Phase == "Bound" && v.Claim.UID == claim.UID {
			text = v.data + " (" + v.Policy + ")"
		}
		data = append(data, text)
	}
	return fmt.Sprintf("%s, %d replicas", strings.Join(data, ", "), w.app.Replicas)
}

// aside is what there is besides: other claims, other volumes, pods, notes.
func (w *swapWorld) aside() []string {
	var found []string
	for name := range w.held {
		if name != "data" && name != "logs" {
			found = append(found, "claim "+name)
		}
	}
	for name, v := range w.volumes {
		if v.Phase != "Bound" {
			found = append(found, fmt.Sprintf("%s (%s)", v.data, v.Policy))
		}
		if v.Turn != "" {
			found = append(found, "turn of "+name)
		}
	}
	for name := range w.checks {
		found = append(found, "pod "+name)
	}
	if len(w.app.Annotations) > 0 {
		found = append(found, fmt.Sprintf("annotations %v", w.app.Annotations))
	}
	slices.Sort(found)
	return found
}

// lives fails unless the data of before the restore is there.
func (w *swapWorld) lives(when string) {
	w.t.Helper()
	for _, data := range []string{"live data", "live logs"} {
		if !slices.ContainsFunc(slices.Collect(maps.Values(w.volumes)), func(v *worldPV) bool { return v.data == data }) {
			w.t.Errorf("%s: %s is lost", when, data)
		}
	}
}

var _ restore.SwapCluster = &swapWorld{}
