package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// worldApp is a workload. The annotations are those of its own.
type worldApp struct {
	Name        string            `json:"name"` // namespace/name
	Kind        string            `json:"kind"`
	Replicas    int               `json:"replicas"`
	Claims      []string          `json:"claims"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Autoscaler  string            `json:"autoscaler,omitempty"`
	Stuck       bool              `json:"stuck,omitempty"`  // its pods do not end
	Broken      bool              `json:"broken,omitempty"` // its pods do not get ready
}

// worldVolume is a volume of a restore in place.
type worldVolume struct {
	Name    string `json:"name"`
	Run     string `json:"run"`
	Role    string `json:"role"`
	Of      string `json:"of"`                // namespace/claim
	Turn    string `json:"turn,omitempty"`    // under way
	Claim   string `json:"claim,omitempty"`   // UID of whose it is
	Reclaim string `json:"reclaim,omitempty"` // before

	DeleteAfter string `json:"deleteAfter,omitempty"`
}

// temporary are the claims of new volumes.
func (c *cluster) temporary(scope catalog.Scope) []catalog.Claim {
	var claims []catalog.Claim
	for _, name := range slices.Sorted(maps.Keys(c.temps)) {
		if in(scope, name) {
			claims = append(claims, c.temps[name])
		}
	}
	return claims
}

func (a worldApp) app() catalog.App {
	namespace, name := split(a.Name)
	app := catalog.App{
		Workload: catalog.Workload{Kind: a.Kind, Name: name}, Namespace: namespace, UID: "uid-of-" + name, Annotations: maps.Clone(a.Annotations), Replicas: a.Replicas, Claims: a.Claims,
	}
	if a.Autoscaler != "" {
		app.Autoscalers = []string{a.Autoscaler}
	}
	return app
}

func (c *cluster) Apps(_ context.Context, namespace string) ([]catalog.App, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var apps []catalog.App
	for _, a := range c.w.Apps {
		if in(catalog.Scope{Namespaces: []string{namespace}}, a.Name) {
			apps = append(apps, a.app())
		}
	}
	return apps, c.broken()
}

// changeApp does something to the workload.
func (c *cluster) changeApp(a catalog.App, do func(*worldApp)) {
	c.change(func() {
		for i := range c.w.Apps {
			if c.w.Apps[i].Name == a.Namespace+"/"+a.Name {
				do(&c.w.Apps[i])
			}
		}
	})
}

func (c *cluster) Remember(_ context.Context, a catalog.App, run catalog.Run, replicas int) error {
	c.changeApp(a, func(a *worldApp) {
		a.Annotations = maps.Clone(a.Annotations)
		if a.Annotations == nil {
			a.Annotations = map[string]string{}
		}
		a.Annotations[catalog.AnnotationInPlace], a.Annotations[catalog.AnnotationReplicas] = string(run), strconv.Itoa(replicas)
	})
	return nil
}

func (c *cluster) Forget(_ context.Context, a catalog.App) error {
	c.changeApp(a, func(a *worldApp) {
		delete(a.Annotations, catalog.AnnotationInPlace)
		delete(a.Annotations, catalog.AnnotationReplicas)
	})
	return nil
}

func (c *cluster) Replicas(_ context.Context, a catalog.App) (replicas int, err error) {
	c.changeApp(a, func(a *worldApp) { replicas = a.Replicas })
	return replicas, nil
}

func (c *cluster) Scale(_ context.Context, a catalog.App, replicas int) error {
	c.did("scale %s to %d", a, replicas)
	c.changeApp(a, func(a *worldApp) { a.Replicas = replicas })
	return nil
}

// wait is for what takes that long, or never ends.
func wait(ctx context.Context, d time.Duration, never bool) error {
	if never {
		d = 1000 * time.Hour
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *cluster) AwaitIdle(ctx context.Context, _ string, _, _ []string, apps []catalog.App) error {
	stuck := false
	for _, a := range apps {
		c.changeApp(a, func(a *worldApp) { stuck = stuck || a.Stuck })
	}
	c.reached("stop")
	return wait(ctx, 2*time.Second, stuck)
}

func (c *cluster) AwaitReady(ctx context.Context, a catalog.App, _ int) error {
	broken := false
	c.changeApp(a, func(a *worldApp) { broken = a.Broken })
	return wait(ctx, 3*time.Second, broken)
}

func (c *cluster) ReadClaim(_ context.Context, namespace, name string) (catalog.Claim, string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if claim, ok := c.temps[namespace+"/"+name]; ok {
		return claim, "", nil
	}
	for _, claim := range c.w.Claims {
		if claim.Name == namespace+"/"+name {
			return claim.claim(), namespace + "/" + name, nil
		}
	}
	return catalog.Claim{}, "", fmt.Errorf("claim %s/%s: %w", namespace, name, catalog.ErrGone)
}

func (c *cluster) RemakeClaim(_ context.Context, manifest, volume string) error {
	c.did("claim %s of volume %s", manifest, volume)
	c.change(func() {
		c.w.Claims = append(c.w.Claims, worldClaim{Name: manifest, Driver: "csi.example.com", Volume: volume})
	})
	return nil
}

func (c *cluster) SwapVolumes(_ context.Context, namespace string) ([]catalog.SwapVolume, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []catalog.SwapVolume
	for _, v := range c.w.Volumes {
		if of, claim := split(v.Of); of == namespace || namespace == "" {
			found = append(found, catalog.SwapVolume{
				Volume: catalog.Volume{Name: v.Name, Run: catalog.Run(v.Run), Reclaim: v.Reclaim, Claim: catalog.Claim{Namespace: of, Name: claim, UID: v.Claim}},
				Role:   catalog.Role(v.Role), Turn: catalog.Turn(v.Turn), Namespace: of, Of: claim, Manifest: v.Of, DeleteAfter: v.DeleteAfter,
			})
		}
	}
	return found, c.broken()
}

func (c *cluster) MarkVolume(_ context.Context, v catalog.SwapVolume) error {
	c.change(func() {
		c.w.Volumes = slices.DeleteFunc(c.w.Volumes, func(there worldVolume) bool { return there.Name == v.Name })
		c.w.Volumes = append(c.w.Volumes, worldVolume{
			Name: v.Name, Run: string(v.Run), Role: string(v.Role), Of: v.Namespace + "/" + v.Of, Turn: string(v.Turn), Claim: v.Claim.UID, Reclaim: "Delete",
		})
	})
	return nil
}

func (c *cluster) OfferVolume(_ context.Context, v catalog.SwapVolume, claim catalog.Claim) error {
	c.did("volume %s to %s/%s", v.Name, claim.Namespace, claim.Name)
	return nil
}

func (c *cluster) SettleVolume(_ context.Context, name string, _ bool, until string) error {
	c.change(func() {
		for i := range c.w.Volumes {
			if c.w.Volumes[i].Name == name {
				c.w.Volumes[i].Turn, c.w.Volumes[i].DeleteAfter = "", until
			}
		}
	})
	return nil
}

func (c *cluster) AwaitVolumeGone(ctx context.Context, _ string) error {
	return wait(ctx, time.Second, false)
}

func (c *cluster) NoteRefill(_ context.Context, claim catalog.Claim, r *catalog.Refill) error {
	c.change(func() {
		for i := range c.w.Claims {
			if c.w.Claims[i].Name == claim.Namespace+"/"+claim.Name {
				c.w.Claims[i].Annotations = noted(c.w.Claims[i].Annotations, r)
			}
		}
	})
	return nil
}

func (c *cluster) NotePause(_ context.Context, a catalog.App, p *catalog.Pause) error {
	c.changeApp(a, func(a *worldApp) { a.Annotations = noted(a.Annotations, p) })
	return nil
}

// noted are annotations with that of a refill; without it for nil.
func noted[T any](notes map[string]string, v *T) map[string]string {
	notes = maps.Clone(notes)
	if delete(notes, catalog.AnnotationRefill); v == nil {
		return notes
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if notes == nil {
		notes = map[string]string{}
	}
	notes[catalog.AnnotationRefill] = string(text)
	return notes
}

func (c *cluster) AwaitRaised(ctx context.Context, _ []catalog.App) error {
	<-ctx.Done()
	return context.Cause(ctx)
}
