package prune_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// fake is a cluster in memory whose storage lets go at once.
type fake struct {
	mu        sync.Mutex
	snapshots map[string]catalog.Snapshot // by name
	contents  map[string]catalog.Content
	claims    []catalog.Claim
	keeps     map[string]bool // contents that the storage does not let go of
	late      bool            // the controller deletes no content with its snapshot
	forbidden string          // method that the user may not call
	before    func(f *fake, verb, name string)
	changed   chan struct{}
	did       []string                    // writes, in their order
	lost      map[string]catalog.Snapshot // by the content that it has left
	from      map[string]string           // content that a snapshot was made from
	gone      []string                    // namespaces
	stays     string                      // content that does not go
}

func newFake(snapshots ...catalog.Snapshot) *fake {
	f := &fake{snapshots: map[string]catalog.Snapshot{}, contents: map[string]catalog.Content{}, keeps: map[string]bool{}, changed: make(chan struct{}), lost: map[string]catalog.Snapshot{}, from: map[string]string{}}
	for _, s := range snapshots {
		f.snapshots[s.Name] = s
		if s.Content != "" {
			f.contents[s.Content] = catalog.Content{
				Name: s.Content, Ours: true, Role: s.Role, Driver: "csi.example.com", Handle: "handle-" + s.Name, Policy: "Delete",
				Namespace: s.Namespace, Snapshot: s.Name, SnapshotUID: s.UID, Labels: s.Labels(), Recorded: s.Record != nil, ResourceVersion: "1",
			}
		}
	}
	return f
}

var errForbidden = &catalog.Failure{Code: catalog.CodeForbidden, Message: "you may not"}

func (f *fake) refused(method string) error {
	if f.forbidden == method {
		return errForbidden
	}
	return nil
}

func (f *fake) Snapshots(context.Context, catalog.Scope) ([]catalog.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sorted(f.snapshots, false), f.refused("Snapshots")
}

func (f *fake) BackupNS(context.Context, catalog.Scope, *time.Location) ([]catalog.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sorted(f.snapshots, true), nil
}

func sorted(all map[string]catalog.Snapshot, backupNS bool) []catalog.Snapshot {
	var found []catalog.Snapshot
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].BackupNS == backupNS {
			found = append(found, all[name])
		}
	}
	return found
}

func (f *fake) Policies(context.Context, catalog.Scope) (catalog.Inventory, error) {
	return catalog.Inventory{Claims: f.claims, Namespaces: map[string]map[string]string{}, Lost: f.gone}, f.refused("Policies")
}

func (f *fake) Contents(context.Context) ([]catalog.Content, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.contents)), f.refused("Contents")
}

func (f *fake) Content(_ context.Context, name string) (catalog.Content, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	content, found := f.contents[name]
	if !found {
		return content, catalog.ErrGone
	}
	return content, nil
}

func (f *fake) Holdings(context.Context, catalog.Scope) ([]catalog.Holding, error) {
	return nil, f.refused("Holdings")
}

func (f *fake) Missing(context.Context, []catalog.Right) ([]catalog.Right, error) { return nil, nil }

// write does something, and wakes those who watch.
func (f *fake) write(ctx context.Context, verb, name string, do func() error) error {
	if f.before != nil {
		f.before(f, verb, name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := do(); err != nil {
		return err
	}
	f.did = append(f.did, verb+" "+name)
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

// touch is what somebody else does to a snapshot.
func (f *fake) touch(name string, do func(*catalog.Snapshot)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.snapshots[name]
	do(&s)
	s.ResourceVersion += "+"
	f.snapshots[name] = s
}

func (f *fake) same(s catalog.Snapshot) error {
	now, found := f.snapshots[s.Name]
	switch {
	case !found:
		return catalog.ErrGone
	case now.ResourceVersion != s.ResourceVersion:
		return catalog.ErrChanged
	}
	return nil
}

func (f *fake) Relabel(ctx context.Context, s catalog.Snapshot, labels, notes map[string]*string) (catalog.Snapshot, error) {
	next := s
	err := f.write(ctx, "label", s.Name, func() error {
		if err := f.same(s); err != nil {
			return err
		}
		for key, value := range labels {
			text := ""
			if value != nil {
				text = *value
			}
			switch {
			case strings.HasSuffix(key, "/delete-after"):
				next.DeleteAfter = text
			case key == catalog.LabelPin:
				next.Pinned, next.PinnedAs = value != nil, text
			}
		}
		if mark, found := notes[catalog.AnnotationMarked]; found {
			next.Marked = time.Time{}
			if mark != nil {
				var err error
				if next.Marked, err = time.Parse(time.RFC3339, *mark); err != nil {
					return err
				}
			}
		}
		next.ResourceVersion += "+"
		f.snapshots[s.Name] = next
		return nil
	})
	return next, err
}

func (f *fake) Discard(ctx context.Context, s catalog.Snapshot) error {
	return f.write(ctx, "delete", s.Name, func() error {
		if err := f.same(s); err != nil {
			return err
		}
		delete(f.snapshots, s.Name)
		content := f.contents[s.Content]
		if content.Policy == "Delete" && !f.late && !f.keeps[s.Content] {
			delete(f.contents, s.Content)
		}
		return nil
	})
}

func (f *fake) change(ctx context.Context, verb string, content catalog.Content, do func(*catalog.Content)) (catalog.Content, error) {
	err := f.write(ctx, verb, content.Name, func() error {
		now, found := f.contents[content.Name]
		switch {
		case !found:
			return catalog.ErrGone
		case now.ResourceVersion != content.ResourceVersion:
			return catalog.ErrChanged
		}
		do(&now)
		now.ResourceVersion += "+"
		f.contents[content.Name], content = now, now
		return nil
	})
	return content, err
}

func (f *fake) SetPolicy(ctx context.Context, content catalog.Content, policy string) (catalog.Content, error) {
	return f.change(ctx, policy, content, func(c *catalog.Content) { c.Policy, c.Lent = policy, policy == "Delete" })
}

func (f *fake) DiscardContent(ctx context.Context, content catalog.Content) error {
	return f.write(ctx, "delete", content.Name, func() error {
		now := f.contents[content.Name]
		switch s, there := f.snapshots[content.Snapshot]; {
		case there && s.UID == content.SnapshotUID:
		case content.Name == f.stays:
			now.Terminating = true
			f.contents[content.Name] = now
		default:
			delete(f.contents, content.Name)
		}
		return nil
	})
}

func (f *fake) Mirror(ctx context.Context, content catalog.Content, labels, notes map[string]*string) (catalog.Content, error) {
	return f.change(ctx, "mirror", content, func(c *catalog.Content) {
		c.Recorded = c.Recorded || notes[catalog.AnnotationRecord] != nil
		c.Labels = maps.Clone(c.Labels)
		for key, value := range labels {
			if delete(c.Labels, key); value != nil {
				c.Labels[key] = *value
			}
		}
	})
}

func (f *fake) FollowContents(ctx context.Context, standing func() []string, seen func(catalog.Content, bool)) error {
	if err := f.refused("FollowContents"); err != nil {
		return err
	}
	for ctx.Err() == nil {
		f.mu.Lock()
		changed, now := f.changed, maps.Clone(f.contents)
		f.mu.Unlock()
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

func (f *fake) Await(ctx context.Context, _ string, done func([]catalog.Snapshot) (bool, error)) error {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		all, err := f.Snapshots(ctx, catalog.Scope{})
		if err != nil {
			return err
		}
		if ok, err := done(all); ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// quiet watches without a word.
type quiet struct{}

func (quiet) Event(catalog.Event) {}

func (f *fake) Notices(_ context.Context, snapshots []catalog.Snapshot) (map[string][]catalog.Notice, error) {
	return map[string][]catalog.Notice{snapshots[0].UID: {
		{Type: "Warning", Reason: "SnapshotDeleteError", Message: "Failed to delete snapshot"},
		{Type: "Normal", Reason: "SnapshotReady", Message: "it was"},
	}}, nil
}

func (f *fake) Standing(context.Context, catalog.Scope) (map[string]catalog.Standing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := map[string]catalog.Standing{}
	for _, s := range f.snapshots {
		found[s.Namespace+"/"+s.Name] = catalog.Standing{UID: s.UID, From: f.from[s.Name]}
	}
	return found, f.refused("Standing")
}

func (f *fake) LetGo(ctx context.Context, content catalog.Content, policy string) (catalog.Content, error) {
	return f.change(ctx, "let go "+policy, content, func(c *catalog.Content) { c.Lent, c.Policy = policy == "Delete", policy })
}

func (f *fake) Remembered(_ context.Context, content catalog.Content) (catalog.Snapshot, error) {
	s := f.lost[content.Name]
	s.UID, s.Content, s.ResourceVersion, s.Ready, s.Driver, s.Handle = "", "", "", false, content.Driver, content.Handle
	return s, nil
}

func (f *fake) Adopt(ctx context.Context, s catalog.Snapshot, from string) error {
	if there, found := f.snapshots[s.Name]; found && there.Content != s.Content {
		return catalog.ErrTaken
	}
	if _, found := f.contents[s.Content]; !found {
		if err := f.write(ctx, "make", s.Content, func() error {
			f.contents[s.Content] = catalog.Content{
				Name: s.Content, UID: "uid-" + s.Content, Ours: true, Driver: s.Driver, Handle: s.Handle, Policy: "Retain", Namespace: s.Namespace, Snapshot: s.Name,
				Labels: s.Labels(), Recorded: s.Record != nil, Adopted: from, ResourceVersion: "1",
			}
			f.lost[s.Content] = s
			return nil
		}); err != nil {
			return err
		}
	}
	if _, found := f.snapshots[s.Name]; found {
		return nil
	}
	return f.write(ctx, "make", s.Name, func() error {
		s.UID, s.ResourceVersion, s.Ready = "again-"+s.Name, "1", !f.keeps[s.Name]
		f.snapshots[s.Name], f.from[s.Name] = s, s.Content
		content := f.contents[s.Content]
		content.SnapshotUID = s.UID
		f.contents[s.Content] = content
		return nil
	})
}

// lose deletes a snapshot and leaves its content, retained.
func (f *fake) lose(names ...string) {
	for _, name := range names {
		s := f.snapshots[name]
		delete(f.snapshots, name)
		content := f.contents[s.Content]
		content.Policy, content.UID, content.Cut = "Retain", "uid-"+content.Name, s.Cut
		f.contents[s.Content], f.lost[s.Content] = content, s
	}
}
