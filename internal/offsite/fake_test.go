package offsite_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

const run = catalog.Run("20261122-011500-x7k2")

// id is a restic snapshot's.
const id = "8174d253d51fa83ca7cd3e3b4654146042e92b2355ef11e8915e5e68a4d0a5b5"

var (
	began    = time.Date(2026, 11, 22, 1, 15, 0, 0, time.UTC)
	finished = began.Add(5 * time.Minute)
)

// cluster is an offsite.Cluster in memory. What is made is kept by name of
// the copy; what was asked of it by the copy's claim, in order.
type cluster struct {
	t *testing.T
	// follow is what a mover does, by claim; it succeeds where there is none.
	follow map[string]func(ctx context.Context, seen func(restic.Sight)) (restic.End, error)
	// fail is the error of a call, by the call's line in the diary.
	fail    map[string]error
	log     string
	blind   bool   // a watch of movers shows none
	exposed func() // called when a static copy was made
	classes map[string]catalog.StorageClass
	movers  []restic.Mover
	pods    []string // of movers that have not ended

	repositories []catalog.Repository
	namespaced   bool // the backup namespace is there
	made         bool // the Secret is there and says the same
	secret       catalog.Secret
	logs         []string // of movers, one after the other, before log
	uid          string
	run          catalog.Run // that copies
	cluster      string      // what stands on the Secret

	mu      sync.Mutex
	diary   map[string][]string // by claim
	claims  map[string]string   // of the copy of that name
	there   map[string]bool     // `kind name`
	jobs    map[string]restic.Job
	clones  map[string]catalog.Claim
	copies  map[string][]catalog.Copy // by snapshot
	running int
	most    int // movers at once
}

func newCluster(t *testing.T) *cluster {
	return &cluster{
		t: t, classes: map[string]catalog.StorageClass{"fast": {Name: "fast"}}, uid: "41d493cf-7a", run: run,
		follow: map[string]func(context.Context, func(restic.Sight)) (restic.End, error){}, fail: map[string]error{},
		diary: map[string][]string{}, claims: map[string]string{}, there: map[string]bool{},
		jobs: map[string]restic.Job{}, clones: map[string]catalog.Claim{}, copies: map[string][]catalog.Copy{},
	}
}

// note writes a call down, and is the error that it is to fail with.
func (c *cluster) note(ctx context.Context, name, call string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	claim := c.claims[name]
	c.diary[claim] = append(c.diary[claim], call)
	return c.fail[claim+": "+call]
}

// put makes the object; need are those that must be there before.
func (c *cluster) put(kind, name string, need ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range need {
		if !c.there[kind+" "+name] {
			c.t.Errorf("%s %s was made without its %s", kind, name, kind)
		}
	}
	c.there[kind+" "+name] = true
}

// drop removes the object; none of before may be there any more.
func (c *cluster) drop(kind, name string, before ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range before {
		if c.there[kind+" "+name] {
			c.t.Errorf("%s %s was removed while its %s was there", kind, name, kind)
		}
	}
	delete(c.there, kind+" "+name)
}

func (c *cluster) StorageClass(ctx context.Context, name string) (catalog.StorageClass, error) {
	if err := c.note(ctx, "", "class "+name); err != nil {
		return catalog.StorageClass{}, err
	}
	class, ok := c.classes[name]
	if !ok {
		return class, fmt.Errorf("read storage class %s: not found", name)
	}
	return class, nil
}

func (c *cluster) Expose(ctx context.Context, s, static catalog.Snapshot) error {
	c.mu.Lock()
	c.claims[static.Name] = s.Claim
	c.mu.Unlock()
	want := catalog.Snapshot{Namespace: "backsnap", Name: static.Name, Claim: s.Claim, Role: catalog.RoleStatic, Run: c.run}
	equal(c.t, "static copy", want, static)
	err := c.note(ctx, static.Name, "expose")
	if !errors.Is(err, catalog.ErrTaken) {
		c.put("static", static.Name)
	}
	if c.exposed != nil {
		c.exposed()
	}
	return err
}

func (c *cluster) CreateClone(ctx context.Context, clone catalog.Claim, snapshot string) error {
	if clone.Namespace == "backsnap" {
		equal(c.t, "source of the clone", clone.Name, snapshot)
	} else {
		c.mu.Lock()
		c.claims[clone.Name] = clone.Labels[catalog.LabelClaim]
		c.there["static "+clone.Name] = true // the snapshot itself
		c.mu.Unlock()
		equal(c.t, "source of the clone", clone.Labels[catalog.LabelClaim]+"-"+string(run), snapshot)
	}
	if err := c.note(ctx, clone.Name, "clone"); err != nil {
		return err
	}
	c.put("clone", clone.Name, "static")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clones[clone.Name] = clone
	return nil
}

func (c *cluster) StartMover(ctx context.Context, job restic.Job) error {
	if err := c.note(ctx, job.Name, "start"); err != nil {
		return err
	}
	if job.Claim != "" {
		c.put("mover", job.Name, "static", "clone")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[job.Name] = job
	c.there["mover "+job.Name] = true
	return nil
}

func (c *cluster) FollowMover(ctx context.Context, _, name, _ string, seen func(restic.Sight)) (restic.End, error) {
	if err := c.note(ctx, name, "follow"); err != nil {
		return restic.End{}, err
	}
	c.mu.Lock()
	c.running++
	c.most = max(c.most, c.running)
	claim := c.claims[name]
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.running--
	}()
	if follow, ok := c.follow[claim]; ok {
		return follow(ctx, seen)
	}
	return ends(0, "backup", 0), nil
}

func (c *cluster) MoverLog(ctx context.Context, _, pod string) (io.ReadCloser, error) {
	if err := c.note(ctx, "", "log "+pod); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.logs) > 0 {
		log := c.logs[0]
		c.logs = c.logs[1:]
		return io.NopCloser(strings.NewReader(log)), nil
	}
	return io.NopCloser(strings.NewReader(c.log)), nil
}

func (c *cluster) Movers(context.Context, string) ([]restic.Mover, error) {
	return c.movers, c.fail[": movers"]
}

func (c *cluster) EachMover(ctx context.Context, _ string, run catalog.Run, seen func(restic.Mover)) error {
	for _, m := range c.movers {
		if m.Job && m.Run == run && !c.blind {
			seen(m)
		}
	}
	<-ctx.Done()
	return nil
}

func (c *cluster) MoverPods(ctx context.Context, _ string) ([]string, error) {
	return c.pods, c.note(ctx, "", "pods")
}

func (c *cluster) AddCopy(ctx context.Context, s catalog.Snapshot, copy catalog.Copy) error {
	c.mu.Lock()
	for name, claim := range c.claims {
		if claim == s.Claim && !c.there["mover "+name] {
			c.t.Errorf("%s was recorded when its mover was gone", name)
		}
	}
	c.mu.Unlock()
	if err := c.note(ctx, c.nameOf(s.Claim), "record"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.copies[s.Name] = append(c.copies[s.Name], copy)
	return nil
}

// nameOf is the name of a copy of that claim.
func (c *cluster) nameOf(claim string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, of := range c.claims {
		if of == claim {
			return name
		}
	}
	return ""
}

func (c *cluster) RemoveMover(ctx context.Context, _, name string) error {
	err := c.note(ctx, name, "remove mover")
	var held *catalog.Held
	if err == nil || errors.As(err, &held) { // as good as gone
		c.drop("mover", name)
	}
	return err
}

func (c *cluster) RemoveClone(ctx context.Context, _, name string, reclaim bool) error {
	call := "remove clone"
	if reclaim {
		call += " and volume"
	}
	err := c.note(ctx, name, call)
	var held *catalog.Held
	if err == nil || errors.As(err, &held) { // as good as gone
		c.drop("clone", name, "mover")
	}
	return err
}

func (c *cluster) RemoveStatic(ctx context.Context, _, name string) error {
	if err := c.note(ctx, name, "remove static"); err != nil {
		return err
	}
	c.drop("static", name, "mover", "clone")
	return nil
}

func (c *cluster) ClusterUID(ctx context.Context) (string, error) {
	return c.uid, c.note(ctx, "", "uid")
}

func (c *cluster) Repositories(context.Context, string, ...string) ([]catalog.Repository, error) {
	return c.repositories, nil
}

func (c *cluster) CreateNamespace(ctx context.Context, n catalog.Meta, dry bool) (bool, error) {
	return !c.namespaced, c.note(ctx, "", fmt.Sprintf("namespace %s, dry %v", n.Name, dry))
}

func (c *cluster) CreateSecret(ctx context.Context, s catalog.Secret, dry bool) (bool, error) {
	c.secret = s
	return !c.made, c.note(ctx, "", fmt.Sprintf("secret %s/%s, dry %v", s.Namespace, s.Name, dry))
}

func (c *cluster) NameCluster(ctx context.Context, _ catalog.Repository, name string) (string, error) {
	if err := c.note(ctx, "", "name "+name); err != nil {
		return "", err
	}
	if c.cluster == "" {
		c.cluster = name
	}
	return c.cluster, nil
}

// left is what is there, in order.
func (c *cluster) left() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.there))
}

// ends is the end of a mover that reports that exit code.
func ends(exit int, step string, errors int, said ...string) restic.End {
	lines := []string{fmt.Sprintf("backsnap step=%s exit=%d", step, exit), fmt.Sprintf("errors=%d", errors)}
	if step == "backup" && (exit == 0 || exit == 3) {
		lines = append(lines, `{"message_type":"summary","total_bytes_processed":100,"data_added_packed":40,"snapshot_id":"`+id+`"}`)
	}
	return restic.End{Pod: "mover-pod", Exit: exit, Text: strings.Join(append(lines, said...), "\n"), Finished: finished}
}

// events are a watcher's.
type events struct {
	mu  sync.Mutex
	all []catalog.Event
}

func (e *events) Event(event catalog.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

// of are the states of the copies of that claim, with their messages.
func (e *events) of(claim string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var states []string
	for _, event := range e.all {
		if event.Claim == claim {
			states = append(states, strings.TrimSpace(string(event.State)+" "+event.Message))
		}
	}
	return states
}

func repository(name string) catalog.Repository {
	return catalog.Repository{Name: name, Namespace: "backsnap", Secret: name + "-secret", Address: "s3:" + name, Cluster: "prod-eu"}
}

func snapshot(claim string) catalog.Snapshot {
	cut := began.Add(42 * time.Second)
	return catalog.Snapshot{
		Namespace: "shop", Name: claim + "-" + string(run), UID: "uid-" + claim, Claim: claim, Run: run,
		Consistency: catalog.Application, Retain: "days", Cut: cut, Ready: true, RestoreSize: 2048,
		Record: &catalog.Record{
			Version: 1, Run: run, App: "statefulset/mysql", Members: []string{claim}, Cut: cut, TimeZone: "UTC",
			Claim: catalog.ClaimRecord{Name: claim, UID: "c-" + claim, Request: 1024, Capacity: 4096, StorageClass: "fast", VolumeMode: "Filesystem"},
		},
	}
}

func request() offsite.Request {
	return offsite.Request{
		Run: run, BackupNamespace: "backsnap", Image: offsite.DefaultImage,
		Parallel: offsite.DefaultParallel, Deadline: offsite.DefaultDeadline, RetryLock: restic.DefaultRetryLock,
	}
}

// plan is the copies of claims to main.
func plan(t *testing.T, claims ...string) offsite.Plan {
	t.Helper()
	var snapshots []catalog.Snapshot
	for _, claim := range claims {
		snapshots = append(snapshots, snapshot(claim))
	}
	p, err := offsite.New(request(), []catalog.Repository{repository("main")}, snapshots)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func at() time.Time { return began }

func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s:\n-want %+v\n+got  %+v", what, want, got)
	}
}
