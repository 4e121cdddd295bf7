package cli_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// worldContent is a VolumeSnapshotContent that is of no snapshot in the world.
type worldContent struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"` // namespace/name that it is, or was, bound to
	Claim    string `json:"pvc,omitempty"`
	Run      string `json:"run,omitempty"`
	Handle   string `json:"handle,omitempty"` // handle-<name>
	Role     string `json:"role,omitempty"`
	Policy   string `json:"policy,omitempty"` // Delete
	Lent     bool   `json:"lent,omitempty"`
	Error    string `json:"error,omitempty"`
	Foreign  bool   `json:"foreign,omitempty"` // somebody else's
	// Of a restore point: what its labels and, with an app, its record tell.
	App         string    `json:"app,omitempty"`
	Consistency string    `json:"consistency,omitempty"`
	DeleteAfter string    `json:"deleteAfter,omitempty"`
	PinnedAs    string    `json:"pinnedAs,omitempty"`
	Cut         time.Time `json:"cut,omitzero"`
	Adopted     string    `json:"adopted,omitempty"` // content in whose place it stands
	Again       bool      `json:"again,omitempty"`   // it is bound to the one that was adopted
}

// remembered is the snapshot that it is, or was, of.
func (w worldContent) remembered(in *world) catalog.Snapshot {
	return worldSnapshot{
		Name: w.Snapshot, Claim: w.Claim, App: w.App, Run: cmp.Or(w.Run, "20261101-000000-none"), Consistency: w.Consistency, DeleteAfter: w.DeleteAfter, PinnedAs: w.PinnedAs, Cut: w.Cut,
	}.snapshot(in)
}

func (w worldContent) content(in *world) catalog.Content {
	namespace, name := split(w.Snapshot)
	_, claim := split(w.Claim)
	c := catalog.Content{
		Name: w.Name, UID: "uid-" + w.Name, ResourceVersion: "1", Role: catalog.Role(w.Role), Ours: !w.Foreign, Driver: "csi.example.com",
		Handle: cmp.Or(w.Handle, "handle-"+w.Name), Policy: cmp.Or(w.Policy, "Delete"), Lent: w.Lent, Err: w.Error,
		Namespace: namespace, Snapshot: name, SnapshotUID: "uid-" + name, Labels: map[string]string{},
	}
	if !w.Foreign {
		c.Labels = catalog.Ours(c.Role, catalog.Run(w.Run))
		c.Labels[catalog.LabelNamespace], c.Labels[catalog.LabelClaim] = namespace, claim
	}
	if w.Consistency != "" {
		of := w.remembered(in)
		c.Labels, c.Recorded, c.Cut, c.Adopted = of.Labels(), of.Record != nil, of.Cut, w.Adopted
	}
	if w.Again {
		c.SnapshotUID = adoptedUID + name
	}
	return c
}

// addContents puts those of the world in their place.
func (c *cluster) addContents() {
	c.contents, c.remembered = map[string]catalog.Content{}, map[string]catalog.Snapshot{}
	for _, s := range c.w.Snapshots {
		v := c.snapshots[s.Name]
		if slices.ContainsFunc(c.w.Contents, func(w worldContent) bool { return w.Again && w.Snapshot == s.Name }) {
			continue
		}
		c.contents[v.Content] = catalog.Content{
			Name: v.Content, UID: "uid-" + v.Content, ResourceVersion: "1", Ours: true, Role: v.Role, Driver: "csi.example.com", Handle: "handle-" + v.Name,
			Policy: cmp.Or(s.Policy, "Delete"), Lent: s.Lent, Namespace: v.Namespace, Snapshot: v.Name, SnapshotUID: v.UID, Labels: v.Labels(), Recorded: v.Record != nil,
		}
	}
	for _, w := range c.w.Contents {
		c.contents[w.Name] = w.content(c.w)
		c.remembered[w.Name] = w.remembered(c.w)
		if shot := w.Snapshot; w.Again {
			s := c.snapshots[shot]
			s.UID, s.Content = adoptedUID+s.Name, w.Name
			c.snapshots[shot] = s
		}
	}
}

// adoptedUID begins the UIDs of snapshots that were adopted.
const adoptedUID = "again-"

// settleContents writes back those that no snapshot has any more, and what
// became of the others.
func (c *cluster) settleContents() {
	c.w.Contents = nil
	for _, name := range slices.Sorted(maps.Keys(c.contents)) {
		content := c.contents[name]
		i := slices.IndexFunc(c.w.Snapshots, func(s worldSnapshot) bool {
			return s.Name == content.Namespace+"/"+content.Snapshot && "content-"+content.Snapshot == name
		})
		policy := content.Policy
		if policy == "Delete" {
			policy = ""
		}
		if i >= 0 {
			c.w.Snapshots[i].Policy, c.w.Snapshots[i].Lent = policy, content.Lent
			continue
		}
		w := worldContent{
			Name: name, Snapshot: content.Namespace + "/" + content.Snapshot, Run: content.Labels[catalog.LabelRun], Role: string(content.Role),
			Policy: policy, Lent: content.Lent, Error: content.Err, Foreign: !content.Ours,
		}
		if claim := content.Labels[catalog.LabelClaim]; claim != "" {
			w.Claim = content.Namespace + "/" + claim
		}
		if content.Handle != "handle-"+name {
			w.Handle = content.Handle
		}
		if of, known := c.remembered[name]; known && of.Consistency != "" {
			w.App, w.Consistency, w.DeleteAfter, w.Cut = of.App(), string(of.Consistency), content.Labels[catalog.LabelDeleteAfter], of.Cut
			w.PinnedAs, w.Adopted, w.Again = content.Labels[catalog.LabelPin], content.Adopted, strings.HasPrefix(content.SnapshotUID, adoptedUID)
		}
		c.w.Contents = append(c.w.Contents, w)
	}
}

func (c *cluster) Policies(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	all, err := c.Inventory(ctx, scope)
	return catalog.Inventory{Claims: all.Claims, Namespaces: all.Namespaces}, err
}

func (c *cluster) BackupNS(_ context.Context, scope catalog.Scope, _ *time.Location) ([]catalog.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []catalog.Snapshot
	for _, name := range slices.Sorted(maps.Keys(c.snapshots)) {
		if s := c.snapshots[name]; in(scope, name) && s.BackupNS {
			found = append(found, s)
		}
	}
	return found, c.broken()
}

func (c *cluster) Contents(context.Context) ([]catalog.Content, error) {
	if slices.Contains(c.w.Missing, "list volumesnapshotcontents") {
		return nil, &catalog.Failure{Code: catalog.CodeForbidden, Message: "you may not list volumesnapshotcontents"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.contents)), c.broken()
}

func (c *cluster) Content(_ context.Context, name string) (catalog.Content, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	content, found := c.contents[name]
	if !found {
		return content, catalog.ErrGone
	}
	return content, nil
}

// meanwhile is what a person labels between the listing and the writing.
func (c *cluster) meanwhile() {
	c.change(func() {
		for name, labels := range c.w.Meanwhile {
			s := c.snapshots[name]
			c.snapshots[name] = relabelled(s, labels, nil)
		}
		c.w.Meanwhile = nil
	})
}

// relabelled is s with those labels set, or taken off, as another version.
func relabelled(s catalog.Snapshot, labels, notes map[string]*string) catalog.Snapshot {
	has := s.Labels()
	for key, value := range labels {
		if name, theirs := strings.CutPrefix(key, catalog.BackupNS+"/"); theirs {
			key = catalog.LabelPrefix + "/" + name
		}
		if delete(has, key); value != nil {
			has[key] = *value
		}
	}
	said := map[string]string{}
	if !s.Marked.IsZero() {
		said[catalog.AnnotationMarked] = s.Marked.Format(time.RFC3339)
	}
	for key, value := range notes {
		if delete(said, key); value != nil {
			said[key] = *value
		}
	}
	next := catalog.Snapshot{}
	if err := next.ReadLabels(has, said); err != nil {
		panic(err)
	}
	s.DeleteAfter, s.Marked, s.Pinned, s.PinnedAs, s.Periods, s.Retain = next.DeleteAfter, next.Marked, next.Pinned, next.PinnedAs, next.Periods, next.Retain
	s.ResourceVersion += "+"
	return s
}

// same is whether s is there as it was read.
func (c *cluster) same(s catalog.Snapshot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, found := c.snapshots[s.Namespace+"/"+s.Name]
	switch {
	case !found:
		return catalog.ErrGone
	case now.ResourceVersion != s.ResourceVersion:
		return catalog.ErrChanged
	}
	return nil
}

func (c *cluster) Relabel(ctx context.Context, s catalog.Snapshot, labels, notes map[string]*string) (catalog.Snapshot, error) {
	if err := cmp.Or(context.Cause(ctx), c.same(s)); err != nil {
		return s, err
	}
	next := relabelled(s, labels, notes)
	c.change(func() { c.snapshots[s.Namespace+"/"+s.Name] = next })
	return next, nil
}

func (c *cluster) Discard(ctx context.Context, s catalog.Snapshot) error {
	if err := cmp.Or(context.Cause(ctx), c.same(s)); err != nil {
		return err
	}
	c.did("delete snapshot %s/%s", s.Namespace, s.Name)
	c.change(func() {
		delete(c.snapshots, s.Namespace+"/"+s.Name)
		content, found := c.contents[s.Content]
		if !found || content.Policy == "Retain" {
			return
		}
		if slices.Contains(c.w.Storage.Keeps, s.Namespace+"/"+s.Name) {
			content.Terminating, content.Err = true, "the array keeps it"
			c.contents[s.Content] = content
			return
		}
		c.storing.Go(func() {
			time.Sleep(time.Second)
			c.change(func() { delete(c.contents, s.Content) })
		})
	})
	c.reached("sweep")
	return nil
}

// changeContent writes one that is as it was read.
func (c *cluster) changeContent(content catalog.Content, do func(*catalog.Content)) (catalog.Content, error) {
	now, err := c.Content(context.Background(), content.Name)
	if err == nil && now.ResourceVersion != content.ResourceVersion {
		err = catalog.ErrChanged
	}
	if err != nil {
		return content, err
	}
	do(&now)
	now.ResourceVersion += "+"
	c.change(func() { c.contents[now.Name] = now })
	return now, nil
}

func (c *cluster) SetPolicy(_ context.Context, content catalog.Content, policy string) (catalog.Content, error) {
	c.did("content %s: %s -> %s", content.Name, content.Policy, policy)
	return c.changeContent(content, func(now *catalog.Content) { now.Lent, now.Policy = policy == "Delete", policy })
}

func (c *cluster) DiscardContent(_ context.Context, content catalog.Content) error {
	c.did("delete content %s", content.Name)
	c.change(func() { delete(c.contents, content.Name) })
	return nil
}

func (c *cluster) Mirror(_ context.Context, content catalog.Content, labels, notes map[string]*string) (catalog.Content, error) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value := "-"
		if labels[key] != nil {
			value = "=" + *labels[key]
		}
		c.did("content %s: label %s%s", content.Name, key, value)
	}
	return c.changeContent(content, func(now *catalog.Content) {
		now.Labels, now.Recorded = maps.Clone(now.Labels), now.Recorded || notes[catalog.AnnotationRecord] != nil
		for key, value := range labels {
			if delete(now.Labels, key); value != nil {
				now.Labels[key] = *value
			}
		}
	})
}

func (c *cluster) FollowContents(ctx context.Context, standing func() []string, seen func(catalog.Content, bool)) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		changed, now := c.changed, maps.Clone(c.contents)
		c.mu.Unlock()
		for _, name := range standing() {
			content, found := now[name]
			content.Name = name
			seen(content, !found)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *cluster) Standing(_ context.Context, scope catalog.Scope) (map[string]catalog.Standing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]catalog.Standing{}
	for name, s := range c.snapshots {
		if in(scope, name) {
			found[name] = catalog.Standing{UID: s.UID}
			if strings.HasPrefix(s.Content, "adopted-") {
				found[name] = catalog.Standing{UID: s.UID, From: s.Content}
			}
		}
	}
	return found, c.broken()
}

func (c *cluster) LetGo(_ context.Context, content catalog.Content, policy string) (catalog.Content, error) {
	c.mu.Lock()
	s, there := c.snapshots[content.Namespace+"/"+content.Snapshot]
	c.mu.Unlock()
	if there && s.UID == content.SnapshotUID {
		return content, catalog.ErrChanged
	}
	c.did("content %s: %s -> %s, let go", content.Name, content.Policy, policy)
	return c.changeContent(content, func(now *catalog.Content) {
		now.Lent, now.Policy = now.Lent || policy == "Delete" && now.Policy == "Retain", policy
	})
}

func (c *cluster) Remembered(_ context.Context, content catalog.Content) (catalog.Snapshot, error) {
	s, found := c.remembered[content.Name]
	if !found {
		return s, catalog.ErrGone
	}
	s.UID, s.Content, s.Driver, s.Handle = "", "", content.Driver, content.Handle
	return s, nil
}

func (c *cluster) Adopt(_ context.Context, s catalog.Snapshot, from string) error {
	name := s.Namespace + "/" + s.Name
	if there, found := c.snapshots[name]; found && there.Content != s.Content {
		return catalog.ErrTaken
	}
	c.did("adopt %s of %s as %s", s.Content, from, name)
	c.change(func() {
		s.UID, s.ResourceVersion = adoptedUID+s.Name, "1"
		c.remembered[s.Content] = s
		c.contents[s.Content] = catalog.Content{
			Name: s.Content, UID: "uid-" + s.Content, ResourceVersion: "1", Ours: true, Driver: s.Driver, Handle: s.Handle, Policy: "Retain",
			Namespace: s.Namespace, Snapshot: s.Name, SnapshotUID: s.UID, Labels: s.Labels(), Recorded: s.Record != nil, Adopted: from,
		}
		c.snapshots[name] = s
	})
	if s.Claim == c.w.Storage.Never {
		return nil
	}
	c.storing.Go(func() {
		time.Sleep(time.Second)
		c.change(func() { s.Ready = true; c.snapshots[name] = s })
	})
	c.reached("adopt")
	return nil
}
