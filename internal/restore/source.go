package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// List has movers list what lies in the repositories of these names, copied by
// this cluster or by the one that the Request names, and is recorded together
// with that: a snapshot that is gone from the cluster is there with its copies
// alone. Of copies in those repositories it is the truth: all of them, or an
// error. cli puts it in: how repositories are listed is the business of package
// offsite.
type List func(ctx context.Context, recorded []catalog.Snapshot, repositories []string) (Listed, error)

// Listed is what List has found.
type Listed struct {
	Snapshots []catalog.Snapshot
	// Clusters are the names of other clusters that have copies there.
	Clusters []string
}

// Asked is which repositories were listed, and why; none where what the
// cluster has on record was enough.
type Asked struct {
	Repositories []string
	Why          string
}

// found is what a Request comes to.
type found struct {
	Choice
	Asked
	inventory catalog.Inventory
}

// find chooses what to restore. The cluster's own records are looked at first:
// that costs nothing. Repositories are listed, by a Job each, where no set on
// record will do; of a whole namespace also where copies are wanted, for its
// records do not tell what else there was; and for another cluster's copies.
func find(ctx context.Context, c Cluster, r Request) (found, error) {
	var f found
	inventory, recorded, hidden, err := look(ctx, c, r)
	if err != nil {
		return f, err
	}
	f.inventory = inventory
	if err := checkRepository(r, inventory.Repositories); err != nil {
		return f, unseen(ctx, c, r, inventory.Repositories, err)
	}
	f.Choice, err = Choose(r, inventory.Repositories, recorded)
	f.Asked = r.ask(inventory.Repositories, f.Choice, err, hidden)
	if len(f.Repositories) == 0 {
		return f, unseen(ctx, c, r, inventory.Repositories, f.explain(r, err, nil))
	}
	listed, err := r.List(ctx, recorded, f.Repositories)
	if err != nil {
		var failed *catalog.Failure
		if errors.As(err, &failed) { // or nobody would know why a repository was asked
			failed.State = strings.TrimSuffix(f.Why+"; "+failed.State, "; ")
		}
		return f, err
	}
	elsewhere := func(s catalog.Snapshot) bool { return s.Namespace != r.Target.Namespace }
	f.Choice, err = Choose(r, inventory.Repositories, slices.DeleteFunc(listed.Snapshots, elsewhere))
	for i, l := range f.Lacking {
		f.Lacking[i].Err = f.explain(r, l.Err, nil)
	}
	return f, f.explain(r, err, listed.Clusters)
}

// look reads what the cluster has: nothing of the source where that is in
// another cluster. Who wants a copy for another namespace need not be allowed
// to see the source's: it is then unseen.
func look(ctx context.Context, c Cluster, r Request) (v catalog.Inventory, recorded []catalog.Snapshot, unseen bool, err error) {
	scope := catalog.Scope{Namespaces: namespaces(r), BackupNamespace: r.BackupNamespace, Lost: r.From.Kind != Snapshot}
	v, err = c.Inventory(ctx, scope)
	if err == nil && r.Cluster == "" {
		recorded, err = c.Snapshots(ctx, catalog.Scope{Namespaces: []string{r.Target.Namespace}})
	}
	if catalog.CodeOf(err) == catalog.CodeForbidden && r.From.Kind == Copy && len(scope.Namespaces) > 1 {
		scope.Namespaces = []string{r.ToNamespace}
		v, err = c.Inventory(ctx, scope)
		return v, nil, true, err
	}
	return v, recorded, false, err
}

// ask is which repositories are to be listed, given what the records led to.
func (r Request) ask(repositories []catalog.Repository, choice Choice, err error, unseen bool) Asked {
	var a Asked
	switch {
	case r.From.Kind == Snapshot || r.List == nil:
		return a
	case r.Cluster != "":
		a.Why = "what cluster " + r.Cluster + " has copied is wanted"
	case r.Sure:
		a.Why = "the copy is to be there for sure before anything is stopped"
	case unseen:
		a.Why = "what is on record in namespace " + r.Target.Namespace + " may not be read"
	case r.Target.Kind == kindNamespace && r.From.Kind == Copy:
		a.Why = "what is on record does not tell all that there was in the namespace"
	case catalog.CodeOf(err) == catalog.CodeNoSet:
		a.Why = "no set on record in this cluster will do"
	case len(choice.Lacking) > 0:
		a.Why = "not every app has a set on record that will do"
	default:
		return a
	}
	for _, there := range repositories {
		if r.From.Repository == "" || r.From.Repository == there.Name {
			a.Repositories = append(a.Repositories, there.Name)
		}
	}
	return a
}

// explain adds to the error that there is nothing to restore from where was
// looked, and what else lies there.
func (f found) explain(r Request, err error, clusters []string) error {
	var none *catalog.Failure
	if !errors.As(err, &none) || none.Code != catalog.CodeNoSet {
		return err
	}
	said := []string{none.Cause.Error()}
	if slices.Contains(f.inventory.Lost, r.Target.Namespace) {
		said = append(said, "namespace "+r.Target.Namespace+" does not exist")
	}
	if len(f.Repositories) > 0 {
		said = append(said, "listed too: "+naming(f.Repositories))
		if strings.HasPrefix(none.Next, seeList) {
			none.Next += r.listFlags(f.Repositories)
		}
	} else if f.Why != "" {
		said = append(said, "no repository is known in namespace "+r.BackupNamespace+" that could be asked")
	}
	none.Cause = errors.New(strings.Join(said, "; "))
	if len(clusters) > 0 {
		none.State += "; there are copies of other clusters: " + strings.Join(clusters, ", ")
		if r.Cluster == "" && strings.HasPrefix(none.Next, seeList) {
			none.Next = "take those of such a cluster: --from-cluster " + clusters[0]
		}
	}
	return none
}

// naming is `repository main`, or `repositories cold, main`.
func naming(repositories []string) string {
	if len(repositories) == 1 {
		return "repository " + repositories[0]
	}
	return "repositories " + strings.Join(repositories, ", ")
}

// String is which were asked, and why.
func (a Asked) String() string { return fmt.Sprintf("%s: %s", naming(a.Repositories), a.Why) }

// listFlags are those with which `list` shows what lies in repositories.
func (r Request) listFlags(repositories []string) string {
	text := " --from-repository=" + strings.Join(repositories, ",")
	if r.Cluster != "" {
		text += " --from-cluster=" + r.Cluster
	}
	return text
}
