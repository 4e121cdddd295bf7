package cli_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// cluster is a world that lives: a storage that cuts after a second and is
// ready after five, databases that answer, movers that copy.
type cluster struct {
	mu        sync.Mutex
	w         *world
	now       func() time.Time
	interrupt func() // ^C
	snapshots map[string]catalog.Snapshot
	changed   chan struct{}
	storing   sync.WaitGroup
	jobs      map[string]restic.Job
	said      map[string]string        // answers of movers, by pod
	temps     map[string]catalog.Claim // of new volumes, by namespace/name
	contents  map[string]catalog.Content
	// remembered are the snapshots that contents without one are of.
	remembered map[string]catalog.Snapshot
	meet       meeting
}

func newCluster(w *world, now func() time.Time, interrupt func()) *cluster {
	c := &cluster{w: w, now: now, interrupt: interrupt, snapshots: map[string]catalog.Snapshot{}, changed: make(chan struct{}), jobs: map[string]restic.Job{}, said: map[string]string{}, temps: map[string]catalog.Claim{}}
	for _, s := range w.Snapshots {
		c.snapshots[s.Name] = s.snapshot(w)
	}
	c.addContents()
	return c
}

// settle waits until nothing moves any more, and writes the snapshots back.
func (c *cluster) settle() {
	c.storing.Wait()
	began := c.w.Snapshots
	c.w.Snapshots = nil
	for name, s := range c.snapshots {
		left := worldSnapshotOf(s)
		if i := slices.IndexFunc(began, func(b worldSnapshot) bool { return b.Name == name && b.Record != nil }); i >= 0 {
			left.Record, left.App, left.Reason, left.Wanted = began[i].Record, "", "", nil
		}
		if i := slices.IndexFunc(began, func(b worldSnapshot) bool { return b.Name == name }); i >= 0 {
			left.Events = began[i].Events
		}
		c.w.Snapshots = append(c.w.Snapshots, left)
	}
	c.settleContents()
}

// change does something to the world and wakes those who watch.
func (c *cluster) change(do func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) did(format string, args ...any) { c.change(func() { c.w.did(format, args...) }) }

func (c *cluster) broken() error {
	if c.w.Broken != "" {
		return errors.New(c.w.Broken)
	}
	return nil
}

func (c *cluster) Inventory(_ context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	if c.w.NoAPI {
		return catalog.Inventory{}, &catalog.Failure{Code: catalog.CodeNoAPI, Message: "the server has no VolumeSnapshot API", State: "nothing changed", Next: "install it"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := catalog.Inventory{Namespaces: c.w.Namespaces}
	if scope.Lost {
		v.Lost = slices.DeleteFunc(slices.Clone(scope.Namespaces), func(name string) bool { return !slices.Contains(c.w.Gone, name) })
	}
	for _, claim := range c.w.Claims {
		if in(scope, claim.Name) {
			v.Claims = append(v.Claims, claim.claim())
		}
	}
	v.Claims = append(v.Claims, c.temporary(scope)...)
	for _, pod := range c.w.Pods {
		if in(scope, pod.Name) {
			v.Pods = append(v.Pods, pod.pod())
		}
	}
	for _, class := range c.w.Classes {
		v.Classes = append(v.Classes, catalog.SnapshotClass{Name: class.Name, Driver: class.Driver, Default: class.Default})
	}
	v.Repositories = c.repositories(scope.BackupNamespace)
	if scope.InNamespace {
		v.Repositories, v.Classes, v.Namespaces = nil, nil, map[string]map[string]string{}
		v.Unread = []string{catalog.KindVolumes, catalog.KindClasses, catalog.KindNamespaces}
		for _, namespace := range scope.Namespaces {
			v.Repositories = append(v.Repositories, c.repositories(namespace)...)
		}
	}
	v.Sort()
	return v, c.broken()
}

func in(scope catalog.Scope, name string) bool {
	namespace, _ := split(name)
	return scope.All || slices.Contains(scope.Namespaces, namespace)
}

func (c *cluster) repositories(namespace string) []catalog.Repository {
	var found []catalog.Repository
	for _, r := range c.w.Repositories {
		if namespace == cmp.Or(r.Namespace, "backsnap") {
			found = append(found, r.repository())
		}
	}
	slices.SortFunc(found, func(a, b catalog.Repository) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

func (c *cluster) Repositories(_ context.Context, namespace string, _ ...string) ([]catalog.Repository, error) {
	return c.repositories(namespace), c.broken()
}

func (c *cluster) Missing(_ context.Context, rights []catalog.Right) ([]catalog.Right, error) {
	return slices.DeleteFunc(slices.Clone(rights), func(r catalog.Right) bool { return !slices.Contains(c.w.Missing, r.String()) }), nil
}

func (c *cluster) Snapshots(_ context.Context, scope catalog.Scope) ([]catalog.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []catalog.Snapshot
	for name, s := range c.snapshots {
		if in(scope, name) && !s.BackupNS {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b catalog.Snapshot) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	if scope.All && slices.Contains(c.w.Missing, "list volumesnapshots") {
		return nil, &catalog.Failure{Code: catalog.CodeForbidden, Message: "you may not list volumesnapshots"}
	}
	return found, c.broken()
}

func (c *cluster) Notices(_ context.Context, snapshots []catalog.Snapshot) (map[string][]catalog.Notice, error) {
	found := map[string][]catalog.Notice{}
	for _, s := range c.w.Snapshots {
		for _, text := range s.Events {
			kind, rest, _ := strings.Cut(text, " ")
			reason, message, _ := strings.Cut(rest, ": ")
			_, name := split(s.Name)
			found["uid-"+name] = append(found["uid-"+name], catalog.Notice{
				Time: s.Cut.Add(time.Second), Type: kind, Reason: reason, Object: "volumesnapshot/" + name, Source: "snapshot-controller", Message: message, Count: 2,
			})
		}
	}
	if slices.Contains(c.w.Missing, "list events in shop") {
		return found, &catalog.Failure{Code: catalog.CodeForbidden, Message: "list events in shop: you may not list events in shop"}
	}
	return found, c.broken()
}

func (c *cluster) TrySnapshot(_ context.Context, s catalog.Snapshot) error {
	c.did("try snapshot %s/%s", s.Namespace, s.Name)
	if s.Claim == c.w.Storage.FailCreate {
		return errors.New("admission webhook denied the request")
	}
	return c.broken()
}

func (c *cluster) TryClone(_ context.Context, clone catalog.Claim) error {
	c.did("try clone %s/%s of %d bytes", clone.Namespace, clone.Name, clone.Request)
	if clone.Namespace == c.w.Storage.Quota {
		return errors.New("exceeded quota")
	}
	return nil
}

func (c *cluster) TryMover(_ context.Context, job restic.Job) error {
	c.did("try job %s/%s", job.Namespace, job.Name)
	return nil
}

func (c *cluster) Version(context.Context) (string, error) { return "v1.36.3", c.broken() }

func (c *cluster) Exec(ctx context.Context, ref catalog.ContainerRef, _ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if job, ok := c.server(ref.Pod); ok {
		return c.serve(job, stdin, stdout, stderr)
	}
	i := slices.IndexFunc(c.w.Pods, func(p worldPod) bool { return p.Name == ref.Namespace+"/"+ref.Pod && p.Database != nil })
	if i < 0 {
		return fmt.Errorf("%s: no such container", ref)
	}
	if right := (catalog.Right{Verb: "create", Resource: "pods/exec", Namespace: ref.Namespace}); slices.Contains(c.w.Missing, right.String()) {
		return catalog.Forbidden([]catalog.Right{right}, "")
	}
	s, err := readScript(stdin, stdout)
	if err != nil {
		return err
	}
	pod := c.w.Pods[i]
	mount := "/" + pod.Claims[0]
	if s.step == "probe" {
		return pod.Database.probe(s, mount)
	}
	if s.step == "find" {
		return pod.Database.find(s)
	}
	if s.step == "load" {
		if s.values[1] == "load" {
			into, _ := hex.DecodeString(s.values[3])
			c.did("load %s into %q of %s, %s seconds, from %s", s.values[len(s.values)-1], into, pod.Name, s.values[2], s.values[8])
			c.reached("load")
		}
		return pod.Database.load(s)
	}
	if s.step == "remove" {
		c.did("remove dump of %s from %s of %s", s.values[1], s.values[2], pod.Name)
		return pod.Database.remove(s)
	}
	c.did("dump by %s in %s, %s seconds, barrier %s", s.plugin, pod.Name, s.values[2], s.values[3])
	c.reached("dump")
	if n := pod.Database.Waits; n > 0 {
		c.meet.wait(n)
	}
	return pod.Database.dump(ctx, s, mount, stderr)
}

// reached is where ^C may come.
func (c *cluster) reached(where string) {
	if c.w.Interrupt == where {
		c.interrupt()
	}
}

func (c *cluster) Create(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	if err := context.Cause(ctx); err != nil {
		return s, err
	}
	if s.Claim == c.w.Storage.FailCreate {
		return catalog.Snapshot{}, errors.New("admission webhook denied the request")
	}
	s.UID, s.Created = "uid-"+s.Name, c.now()
	c.change(func() { c.snapshots[s.Namespace+"/"+s.Name] = s })
	c.storing.Go(func() { c.store(s) })
	c.reached("create")
	return s, nil
}

// later brings the snapshots that come while somebody watches.
func (c *cluster) later() {
	for i, s := range c.w.Later {
		time.Sleep(time.Second)
		c.change(func() {
			v := s.snapshot(c.w)
			v.ResourceVersion = fmt.Sprint(i + 1)
			c.snapshots[s.Name] = v
		})
	}
	time.Sleep(time.Second)
	c.interrupt()
}

// store is what the storage does with a snapshot.
func (c *cluster) store(s catalog.Snapshot) {
	key := s.Namespace + "/" + s.Name
	update := func(do func(*catalog.Snapshot)) {
		c.change(func() {
			if now, ok := c.snapshots[key]; ok {
				do(&now)
				c.snapshots[key] = now
			}
		})
	}
	time.Sleep(time.Second)
	cut := c.now()
	update(func(s *catalog.Snapshot) { s.Cut = cut })
	time.Sleep(4 * time.Second)
	if s.Claim == c.w.Storage.Never {
		update(func(s *catalog.Snapshot) { s.Err = c.w.Storage.Says })
		return
	}
	update(func(s *catalog.Snapshot) { s.Ready, s.Content = true, "content-"+s.Name })
}

func (c *cluster) Await(ctx context.Context, namespace string, done func([]catalog.Snapshot) (bool, error)) error {
	if len(c.w.Later) > 0 {
		c.storing.Go(c.later)
	}
	for {
		c.mu.Lock()
		changed, all := c.changed, []catalog.Snapshot(nil)
		for _, s := range c.snapshots {
			if s.Namespace == namespace || namespace == "" {
				all = append(all, s)
			}
		}
		c.mu.Unlock()
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if ok, err := done(all); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (c *cluster) Complete(_ context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	s.Driver, s.Handle, s.RestoreSize = "csi.example.com", "handle-"+s.Name, 10<<30
	return s, nil
}

func (c *cluster) CompleteAll(_ context.Context, snapshots []catalog.Snapshot) ([]catalog.Snapshot, error) {
	full := slices.Clone(snapshots)
	for i := range full {
		if full[i].Ready {
			full[i].Handle = "handle-" + full[i].Name
		}
	}
	return full, c.broken()
}

func (c *cluster) Label(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	if err := context.Cause(ctx); err != nil {
		return s, err
	}
	c.change(func() { c.snapshots[s.Namespace+"/"+s.Name] = s })
	return s, nil
}

func (c *cluster) Delete(_ context.Context, s catalog.Snapshot) error {
	c.did("delete snapshot %s/%s", s.Namespace, s.Name)
	c.change(func() {
		delete(c.snapshots, s.Namespace+"/"+s.Name)
		delete(c.contents, cmp.Or(s.Content, "content-"+s.Name))
	})
	return nil
}

func (c *cluster) StorageClass(_ context.Context, name string) (catalog.StorageClass, error) {
	if name == "gone" {
		return catalog.StorageClass{}, catalog.ErrGone
	}
	return catalog.StorageClass{Name: name, WaitsForConsumer: name == "waits"}, nil
}

// mover is the one of that name, made if need be.
func (c *cluster) mover(name string) *worldMover {
	i := slices.IndexFunc(c.w.Movers, func(m worldMover) bool { return m.Name == name })
	if i < 0 {
		i = len(c.w.Movers)
		c.w.Movers = append(c.w.Movers, worldMover{Name: name})
	}
	return &c.w.Movers[i]
}

func (c *cluster) Expose(ctx context.Context, s, static catalog.Snapshot) error {
	c.change(func() {
		m := c.mover(static.Name)
		m.Parts, m.Run = append(m.Parts, "static"), string(s.Run)
		m.Snapshot, m.Claim = s.Namespace+"/"+s.Name, s.Namespace+"/"+s.Claim
	})
	return context.Cause(ctx)
}

func (c *cluster) CreateClone(ctx context.Context, clone catalog.Claim, snapshot string) error {
	if snapshot != clone.Name {
		c.did("clone in %s straight from snapshot %s", clone.Namespace, snapshot)
	}
	c.change(func() {
		m := c.mover(clone.Name)
		m.Parts, m.Snapshot = append(m.Parts, "clone"), cmp.Or(m.Snapshot, clone.Namespace+"/"+snapshot)
	})
	return context.Cause(ctx)
}

func (c *cluster) StartMover(ctx context.Context, job restic.Job) error {
	c.did("job in %s, image %s, secret %s, deadline %s", job.Namespace, job.Image, job.Secret, job.Deadline)
	usually := restic.DefaultPod()
	if job.Claim == "" { // its own affair
		usually.Keep = job.Keep
	}
	for i, usual := 0, reflect.ValueOf(usually); i < usual.NumField(); i++ {
		if has := reflect.ValueOf(job.Pod).Field(i).Interface(); !reflect.DeepEqual(has, usual.Field(i).Interface()) {
			c.did("pod %s:%+v", usual.Type().Field(i).Name, has)
		}
	}
	if job.Secret == "" { // it has no repository
		job.Args = append(job.Args, "", "", "0s")
	}
	if wait := job.Args[3]; wait != restic.DefaultRetryLock.String() && wait != "0s" && job.Args[0] != restic.StepExamine {
		c.did("wait %s for a lock", wait)
	}
	if i := slices.Index(job.Args, "--limit-upload"); i >= 0 {
		c.did("at most %s KiB/s", job.Args[i+1])
	}
	if slot, ok := job.Labels[catalog.LabelSlot]; ok {
		c.did("job takes slot %s", slot)
	}
	c.change(func() {
		m := c.mover(job.Name)
		m.Parts, m.Repository = append(m.Parts, "job"), job.Secret
		c.jobs[job.Name] = job
		for _, r := range c.w.Repositories {
			if r.Name == job.Secret {
				m.Restic = r.Restic
			}
		}
	})
	return context.Cause(ctx)
}

func (c *cluster) FollowMover(ctx context.Context, _, name, _ string, seen func(restic.Sight)) (restic.End, error) {
	c.mu.Lock()
	m, job := *c.mover(name), c.jobs[name]
	c.mu.Unlock()
	pod := name + "-abcde"
	if job.Secret == "" && len(job.Args) > 0 && job.Args[0] == "read" { // it looks at a volume
		return restic.End{Pod: pod, Text: "looked files=3 sums=0\n"}, nil
	}
	if job.Secret == "" && job.Command != nil { // files are taken from it
		seen(restic.Sight{Pod: pod, Running: true})
		<-ctx.Done()
		return restic.End{}, context.Cause(ctx)
	}
	moved := []string{restic.StepBackup, restic.StepInit, restic.StepRestore}
	if len(job.Args) > 0 && m.Restic.Stuck == "" && !slices.Contains(moved, job.Args[0]) {
		return c.tend(pod, job), nil
	}
	if m.Restic.Stuck != "" {
		reason, message, _ := strings.Cut(m.Restic.Stuck, ": ")
		seen(restic.Sight{Pod: pod, Trouble: &restic.Trouble{Reason: reason, Message: message}})
		<-ctx.Done()
		return restic.End{}, context.Cause(ctx)
	}
	seen(restic.Sight{Pod: pod, Running: true})
	c.reached("copy")
	select {
	case <-time.After(span(cmp.Or(m.Restic.Takes, "10s"))):
	case <-ctx.Done():
		return restic.End{}, context.Cause(ctx)
	}
	end := restic.End{Pod: pod, Exit: m.Restic.Exit, Text: c.report(m, job), Finished: c.now()}
	if end.Exit != 0 {
		end.Reason = "BackoffLimitExceeded"
	}
	return end, nil
}

// report is the termination message of a mover.
func (c *cluster) report(m worldMover, job restic.Job) string {
	step := "backup"
	switch {
	case len(job.Args) > 0 && job.Args[0] == restic.StepRestore:
		return restoreReport(m)
	case m.Snapshot == "":
		if step = "init"; m.Restic.Exists || m.Restic.Exit == 12 || m.Restic.Exit == 11 {
			step = "check"
		}
	}
	text := fmt.Sprintf("backsnap step=%s exit=%d\n", step, m.Restic.Exit)
	if m.Restic.Says != "" {
		text += m.Restic.Says + "\n"
	}
	if step == "backup" && (m.Restic.Exit == 0 || m.Restic.Exit == 3) {
		sum := sha256.Sum256([]byte(m.Snapshot + m.Repository))
		text += fmt.Sprintf(`{"message_type":"summary","snapshot_id":"%s","total_bytes_processed":104857600,"data_added_packed":41943040,"total_files_processed":3,"total_duration":1.5}`, hex.EncodeToString(sum[:])) + "\n"
	}
	return text
}

// restoreReport is that of a mover that restores the gibibyte of a copy.
func restoreReport(m worldMover) string {
	text := fmt.Sprintf("backsnap step=restore exit=%d\n", m.Restic.Exit)
	if m.Restic.Says != "" {
		text += m.Restic.Says + "\n"
	}
	if m.Restic.Exit == 0 {
		text += `{"message_type":"summary","total_files":5,"files_restored":5,"total_bytes":1073741824,"bytes_restored":1073741824}` + "\n"
		text += fmt.Sprintf("counted files=3 bytes=%d\n", 1<<30-m.Restic.Lacks)
	}
	return text
}

func (c *cluster) TryClaim(_ context.Context, claim catalog.Claim) error {
	if claim.Name == c.w.Storage.FailCreate {
		return errors.New("exceeded quota: storage")
	}
	return nil
}

func (c *cluster) MakeClaim(_ context.Context, claim catalog.Claim, snapshot string) (string, error) {
	name := claim.Namespace + "/" + claim.Name
	if claim.Role == catalog.RoleClone {
		c.change(func() { m := c.mover(claim.Name); m.Parts = append(m.Parts, "clone") })
		return "uid-" + claim.Name, nil
	}
	from := cmp.Or(snapshot, claim.Volume)
	c.did("claim %s of %d bytes, class %s, %s, from %s, labels %v", name, claim.Request, claim.StorageClass, strings.Join(claim.AccessModes, ","), from, claim.Labels)
	c.change(func() {
		if claim.Role == catalog.RoleNew {
			claim.UID, claim.Volume, claim.Phase = "uid-"+claim.Name, cmp.Or(claim.Volume, "pv-"+claim.Name), "Bound"
			c.temps[name] = claim
			return
		}
		c.w.Restored = append(c.w.Restored, name)
	})
	return "uid-" + claim.Name, nil
}

func (c *cluster) AwaitBound(ctx context.Context, _, name string, trouble func(restic.Trouble)) error {
	c.reached("bind")
	if name == c.w.Storage.Never {
		trouble(restic.Trouble{Reason: "ProvisioningFailed", Message: c.w.Storage.Says})
		<-ctx.Done()
		return context.Cause(ctx)
	}
	select {
	case <-time.After(5 * time.Second):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *cluster) RemoveClaim(_ context.Context, namespace, name, _ string) error {
	moves := false
	c.change(func() {
		if moves = slices.ContainsFunc(c.w.Movers, func(m worldMover) bool { return m.Name == name }); moves {
			return
		}
		delete(c.temps, namespace+"/"+name)
		c.w.Claims = slices.DeleteFunc(c.w.Claims, func(there worldClaim) bool { return there.Name == namespace+"/"+name })
		c.w.Restored = slices.DeleteFunc(c.w.Restored, func(there string) bool { return there == namespace+"/"+name })
	})
	if moves {
		return c.remove(name, "clone")
	}
	return nil
}

func (c *cluster) Current(_ context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	return s, nil
}

func (c *cluster) KeepVolume(_ context.Context, claim catalog.Claim, _ map[string]string) (catalog.Volume, error) {
	return catalog.Volume{Name: "pv-" + claim.Name, Reclaim: "Delete", Claim: claim}, nil
}

func (c *cluster) KeptVolumes(context.Context, string) ([]catalog.Volume, error) { return nil, nil }

func (c *cluster) HandVolume(_ context.Context, v catalog.Volume, claim catalog.Claim) error {
	c.did("volume %s to %s/%s", v.Name, claim.Namespace, claim.Name)
	return nil
}

func (c *cluster) LetVolume(_ context.Context, name, policy string) error {
	c.did("volume %s: %s", name, policy)
	c.change(func() {
		c.w.Volumes = slices.DeleteFunc(c.w.Volumes, func(there worldVolume) bool { return there.Name == name })
	})
	return nil
}

func (c *cluster) MoverLog(_ context.Context, _, pod string) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if said, ok := c.said[pod]; ok {
		return io.NopCloser(strings.NewReader(said)), nil
	}
	m := c.mover(strings.TrimSuffix(pod, "-abcde"))
	if len(m.Restic.Percent) == 0 {
		return &resticLog{percent: []int{46}}, nil
	}
	return &resticLog{percent: m.Restic.Percent}, nil
}

// resticLog is the log of a backup of 100 MiB, slow at first: a line at once
// and one every three seconds.
type resticLog struct {
	percent []int
	said    int
	rest    string
}

func (l *resticLog) Read(p []byte) (int, error) {
	if l.rest == "" {
		if l.said == len(l.percent) {
			return 0, io.EOF
		}
		if l.said > 0 {
			time.Sleep(3 * time.Second)
		}
		n := l.percent[l.said]
		l.said++
		elapsed := n
		if n < 10 {
			elapsed = 4 * n
		}
		l.rest = fmt.Sprintf(`{"message_type":"status","seconds_elapsed":%d,"seconds_remaining":%d,"total_bytes":104857600,"bytes_done":%d}`+"\n", elapsed, 100-n, n<<20)
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *resticLog) Close() error { return nil }

func (c *cluster) Movers(_ context.Context, namespace string) ([]restic.Mover, error) {
	if namespace != "backsnap" {
		c.did("movers were looked for in %s", namespace)
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []restic.Mover
	for _, m := range c.w.Movers {
		namespace, name := split(m.Snapshot)
		_, claim := split(m.Claim)
		found = append(found, restic.Mover{
			Namespace: "backsnap", Name: m.Name, Run: catalog.Run(m.Run), Finished: m.Finished,
			Job: slices.Contains(m.Parts, "job"), Clone: slices.Contains(m.Parts, "clone"), Static: slices.Contains(m.Parts, "static"),
			Source: catalog.Source{Namespace: namespace, Claim: claim, Snapshot: name, UID: "uid-" + name, Repository: m.Repository},
		})
	}
	return found, nil
}

func (c *cluster) Holdings(_ context.Context, scope catalog.Scope) ([]catalog.Holding, error) {
	held, err := c.Leases(context.Background(), scope)
	return slices.DeleteFunc(held, func(h catalog.Holding) bool { return h.Lease != catalog.LeaseName }), err
}

func (c *cluster) Leases(_ context.Context, scope catalog.Scope) ([]catalog.Holding, error) {
	var held []catalog.Holding
	note := func(h string, until time.Time) {
		namespace, run := split(h)
		run, lease, _ := strings.Cut(run, "/")
		if in(scope, h) {
			held = append(held, catalog.Holding{
				Namespace: namespace, Lease: cmp.Or(lease, catalog.LeaseName), Run: catalog.Run(run), Holder: "pid 4711 on builder, user root", Until: until,
			})
		}
	}
	for _, h := range c.w.Held {
		note(h, time.Time{})
	}
	for _, h := range c.w.Dead {
		note(h, c.now().Add(-time.Minute))
	}
	return held, c.broken()
}

func (c *cluster) AwaitRelease(context.Context, catalog.Holding) error { return nil }

func (c *cluster) EachMover(ctx context.Context, namespace string, run catalog.Run, seen func(restic.Mover)) error {
	movers, err := c.Movers(ctx, namespace)
	for _, m := range movers {
		if m.Job && m.Run == run {
			seen(m)
		}
	}
	<-ctx.Done()
	return err
}

func (c *cluster) LogLines(_ context.Context, _, job string) ([]catalog.Line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.now()
	var lines []catalog.Line
	for i, text := range c.mover(job).Log {
		lines = append(lines, catalog.Line{Time: at.Add(time.Duration(i) * time.Second), About: "pod/" + job + "-abcde", Text: text})
	}
	return lines, nil
}

func (c *cluster) EventLines(_ context.Context, namespace string, names []string) ([]catalog.Line, error) {
	var lines []catalog.Line
	for _, name := range names {
		if text := c.w.Events[namespace+"/"+name]; text != "" {
			lines = append(lines, catalog.Line{Time: c.now(), About: "object/" + name, Text: text})
		}
	}
	return lines, nil
}

func (c *cluster) TryRemove(_ context.Context, o catalog.Object) error {
	c.did("try to delete %s %s/%s", o.Kind, o.Namespace, o.Name)
	return c.broken()
}

func (c *cluster) AddCopy(_ context.Context, s catalog.Snapshot, copy catalog.Copy) error {
	err := catalog.ErrGone
	c.change(func() {
		if now, ok := c.snapshots[s.Namespace+"/"+s.Name]; ok {
			now.Copies = append(now.Copies, copy)
			c.snapshots[s.Namespace+"/"+s.Name] = now
			err = nil
		}
	})
	return err
}

// remove takes a part off a mover, and the mover with the last one.
func (c *cluster) remove(name, part string) error {
	c.change(func() {
		m := c.mover(name)
		if m.Parts = slices.DeleteFunc(m.Parts, func(p string) bool { return p == part }); len(m.Parts) == 0 {
			c.w.Movers = slices.DeleteFunc(c.w.Movers, func(m worldMover) bool { return m.Name == name })
		}
	})
	return nil
}

func (c *cluster) RemoveMover(_ context.Context, _, name string) error { return c.remove(name, "job") }

func (c *cluster) RemoveClone(_ context.Context, _, name string, _ bool) error {
	return c.remove(name, "clone")
}

func (c *cluster) RemoveStatic(_ context.Context, _, name string) error {
	return c.remove(name, "static")
}

func (c *cluster) ClusterUID(context.Context) (string, error) { return "0e1b7a44-9c1d-4a52", nil }

func (c *cluster) NameCluster(_ context.Context, r catalog.Repository, name string) (string, error) {
	c.change(func() {
		for i := range c.w.Repositories {
			if c.w.Repositories[i].Name == r.Name {
				c.w.Repositories[i].Cluster = name
			}
		}
	})
	return name, nil
}
