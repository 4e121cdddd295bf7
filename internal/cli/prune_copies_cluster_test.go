package cli_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func (c *cluster) Marks(_ context.Context, r catalog.Repository) (catalog.Marks, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return catalog.ReadMarks(c.w.Marks[r.Name]), c.broken()
}

func (c *cluster) ChangeMarks(_ context.Context, r catalog.Repository, _ catalog.Run, change catalog.MarkChange) error {
	c.change(func() {
		if c.w.Marks == nil {
			c.w.Marks = map[string]map[string]string{}
		}
		if c.w.Marks[r.Name] == nil {
			c.w.Marks[r.Name] = map[string]string{}
		}
		for key, text := range change.Entries() {
			if text == nil {
				delete(c.w.Marks[r.Name], key)
			} else {
				c.w.Marks[r.Name][key] = *text
			}
		}
		maps.DeleteFunc(c.w.Marks, func(_ string, marks map[string]string) bool { return len(marks) == 0 })
	})
	return c.broken()
}

func (c *cluster) DropCopies(_ context.Context, s catalog.Snapshot, repository string, ids []string) error {
	c.change(func() {
		there, found := c.snapshots[s.Namespace+"/"+s.Name]
		if !found {
			return
		}
		there.Copies = slices.DeleteFunc(slices.Clone(there.Copies), func(copy catalog.Copy) bool {
			return copy.Repository == repository && slices.Contains(ids, copy.Snapshot)
		})
		c.snapshots[s.Namespace+"/"+s.Name] = there
		c.w.did("%s", strings.TrimSpace(fmt.Sprintf("off the record of %s: a copy in %s", s.Name, repository)))
	})
	return nil
}
