package catalog

import (
	"fmt"
	"strings"
	"time"
)

// RoleMarks is the ConfigMap that holds the marks of one repository's copies.
const RoleMarks Role = "marks"

// Mark says that prune has condemned a copy. restic can store nothing beside a
// snapshot that others may not also change, and its tags are never changed: so
// the cluster keeps it. A mark that is lost only delays.
type Mark struct {
	Marked time.Time
	After  time.Time // when it may be forgotten
	// Namespace is that of the snapshot: who lists the copies of one namespace
	// knows by it which marks have outlived theirs.
	Namespace string
}

// String is what ReadMark reads: both moments in UTC, to the second, and the
// namespace.
func (m Mark) String() string {
	return m.Marked.UTC().Format(deleteMoment) + " " + m.After.UTC().Format(deleteMoment) + " " + m.Namespace
}

// ReadMark reads a mark.
func ReadMark(text string) (Mark, error) {
	marked, rest, _ := strings.Cut(text, " ")
	after, namespace, _ := strings.Cut(rest, " ")
	m := Mark{Namespace: namespace}
	var err error
	if m.Marked, err = time.Parse(deleteMoment, marked); err == nil {
		m.After, err = time.Parse(deleteMoment, after)
	}
	if err != nil {
		return Mark{}, fmt.Errorf("mark %q: want two moments such as 20261123T092000Z and a namespace", text)
	}
	return m, nil
}

// Marks are those of the copies in one repository.
type Marks struct {
	// Of are the marks, by restic's snapshot id. One that cannot be read is
	// left out: its copy is marked again.
	Of map[string]Mark
	// Unpruned are the namespaces of a repository for each namespace, else "",
	// in which copies were forgotten whose room restic has not freed yet.
	Unpruned map[string]bool
}

// MarkChange is what is to become of marks. Nothing else of them is touched:
// two prunes of two namespaces may change the marks of one repository at once.
type MarkChange struct {
	Set  map[string]Mark // by id
	Drop []string        // ids
	// Unpruned, Pruned are namespaces as in Marks.
	Unpruned, Pruned []string
}

// Empty reports whether c changes nothing.
func (c MarkChange) Empty() bool {
	return len(c.Set)+len(c.Drop)+len(c.Unpruned)+len(c.Pruned) == 0
}

const unpruned = "unpruned"

// unprunedKey is the entry that says that of a namespace.
func unprunedKey(namespace string) string {
	if namespace == "" {
		return unpruned
	}
	return unpruned + "." + namespace
}

// Entries are c as changes of the entries of the ConfigMap: nil removes one.
func (c MarkChange) Entries() map[string]*string {
	entries := map[string]*string{}
	for id, m := range c.Set {
		entries[id] = new(m.String())
	}
	for _, id := range c.Drop {
		entries[id] = nil
	}
	for _, namespace := range c.Unpruned {
		entries[unprunedKey(namespace)] = new("true")
	}
	for _, namespace := range c.Pruned {
		entries[unprunedKey(namespace)] = nil
	}
	return entries
}

// ReadMarks reads the entries of the ConfigMap.
func ReadMarks(entries map[string]string) Marks {
	m := Marks{Of: map[string]Mark{}, Unpruned: map[string]bool{}}
	for key, text := range entries {
		if key == unpruned {
			m.Unpruned[""] = true
			continue
		}
		if namespace, found := strings.CutPrefix(key, unpruned+"."); found {
			m.Unpruned[namespace] = true
			continue
		}
		if mark, err := ReadMark(text); err == nil {
			m.Of[key] = mark
		}
	}
	return m
}

// MarksName is the name of the ConfigMap for the repository of that name.
func MarksName(repository string) string { return Shorten("backsnap-marks-"+repository, maxName) }

// RepositoryLease is the name of the Lease, beside its Secret, that a run holds
// while it removes copies from the repository of that name.
func RepositoryLease(repository string) string {
	return Shorten("backsnap-repository-"+repository, maxName)
}
