package prune

import (
	"context"
	"fmt"
	"sync"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// contents are those of the cluster. byName is nil where they may not be read.
type contents struct {
	byName map[string]catalog.Content
	// byHandle are the names of those that name one snapshot of the storage.
	byHandle map[[2]string][]string
}

func readContents(ctx context.Context, c Cluster) (contents, error) {
	all, err := c.Contents(ctx)
	if catalog.CodeOf(err) == catalog.CodeForbidden {
		return contents{}, nil
	}
	if err != nil {
		return contents{}, err
	}
	found := contents{byName: make(map[string]catalog.Content, len(all)), byHandle: map[[2]string][]string{}}
	for _, content := range all {
		found.byName[content.Name] = content
		if content.Handle != "" {
			key := [2]string{content.Driver, content.Handle}
			found.byHandle[key] = append(found.byHandle[key], content.Name)
		}
	}
	return found, nil
}

// of is the content of s, if the two name each other.
func (c contents) of(s catalog.Snapshot) (catalog.Content, bool) {
	content, found := c.byName[s.Content]
	return content, found && content.Of(s)
}

// inUse says who works with snapshots.
type inUse struct {
	contents contents
	// filling are the claims whose volumes are being made, by the snapshot,
	// namespace/name, that they are made from.
	filling map[string]catalog.Claim
}

func users(s sight) inUse {
	u := inUse{contents: s.contents, filling: map[string]catalog.Claim{}}
	for _, claim := range s.claims.Claims {
		if claim.FilledFrom != "" && claim.Phase == "Pending" {
			u.filling[claim.FilledFrom] = claim
		}
	}
	return u
}

// by is who works with s, or why else it must not go, in words; "" for nobody.
func (u inUse) by(s catalog.Snapshot) string {
	if claim, found := u.filling[s.Namespace+"/"+s.Name]; found {
		return fmt.Sprintf("in use: claim %s is being filled from %s", claim.Name, s.Name)
	}
	content, found := u.contents.byName[s.Content]
	switch {
	case !found: // bound to none, or it may not be read
		return ""
	case !content.Of(s):
		return fmt.Sprintf("content %s is bound to %s/%s, not to %s", content.Name, content.Namespace, content.Snapshot, s.Name)
	case content.Role != "" && content.Role != s.Role:
		return fmt.Sprintf("content %s has role %s", content.Name, content.Role)
	}
	for _, name := range u.contents.byHandle[[2]string{content.Driver, content.Handle}] {
		other := u.contents.byName[name]
		switch {
		case name == content.Name:
		case other.Role == catalog.RoleStatic:
			return fmt.Sprintf("in use: run %s copies it (content %s)", other.Labels[catalog.LabelRun], name)
		default:
			return fmt.Sprintf("content %s names the same snapshot of the storage", name)
		}
	}
	return ""
}

// openly are the contents of snapshots that the storage would keep.
func (u inUse) openly(snapshots []catalog.Snapshot) []string {
	var names []string
	for _, s := range snapshots {
		if content, ok := u.contents.of(s); ok && content.Policy == policyRetain {
			names = append(names, content.Name)
		}
	}
	return names
}

// together runs functions side by side; the first error ends the others.
type together struct {
	running sync.WaitGroup
	cancel  context.CancelCauseFunc
	once    sync.Once
	err     error
}

func (g *together) run(do func() error) {
	g.running.Go(func() {
		if err := do(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel(err)
			})
		}
	})
}

func (g *together) wait() error {
	g.running.Wait()
	return g.err
}
