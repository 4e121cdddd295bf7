package cli

import (
	"slices"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// rights are those of the CronJobs' ServiceAccount: what plans of their commands
// may ask for, whatever is in the cluster by then, and what making and running
// such plans reads.
func (o *scheduleCreateOptions) rights(chosen selection) []catalog.Right {
	scope := chosen.scope
	scope.BackupNamespace, scope.InNamespace = o.snapshot.backupNamespace, o.snapshot.inNamespace
	scope.Repositories, _ = offsite.ParseRepositories(o.snapshot.repository) // checkValues has read it
	namespaces := scope.Namespaces
	if scope.All {
		namespaces = []string{""} // in every one
	}
	rights := scope.Rights()
	rights.Join(leases(namespaces...))
	rights.Join(o.takes(namespaces).Grants())
	if scope.Repositories == nil || len(scope.Repositories) > 0 {
		rights.Join(o.copies(namespaces).Grants())
	}
	if o.keep != "" {
		rights.Join(o.prunes(namespaces, scope.Repositories))
	}
	if o.check != "" {
		checked := catalog.Scope{BackupNamespace: o.snapshot.backupNamespace, Repositories: []string{o.check}, Namespaces: []string{}}
		rights.Join(checked.Rights())
		rights.Join(offsite.WorkGrants(o.snapshot.backupNamespace))
	}
	if scope.InNamespace && !scope.All { // it does without what is in no namespace
		rights = slices.DeleteFunc(rights, func(r catalog.Right) bool { return r.Namespace == "" })
	}
	return rights
}

// takes is a plan that takes a restore point in each of namespaces.
func (o *scheduleCreateOptions) takes(namespaces []string) (p snapshot.Plan) {
	for _, namespace := range namespaces {
		app := snapshot.App{Namespace: namespace}
		if o.snapshot.consistency != string(snapshot.Crash) && o.snapshot.plugin != snapshot.NoPlugin {
			app.Hook = &snapshot.Hook{}
		}
		p.Apps = append(p.Apps, app)
	}
	return p
}

// copies is a plan that copies a restore point of each of namespaces.
func (o *scheduleCreateOptions) copies(namespaces []string) (p offsite.Plan) {
	for _, namespace := range namespaces {
		p.Copies = append(p.Copies, offsite.Copy{
			Snapshot: catalog.Snapshot{Namespace: namespace}, Repository: catalog.Repository{Namespace: o.place(namespace)},
		})
	}
	return p
}

// place is where movers for namespace run.
func (o *scheduleCreateOptions) place(namespace string) string {
	if o.snapshot.inNamespace {
		return namespace
	}
	return o.snapshot.backupNamespace
}

// prunes are what pruning restore points in namespaces takes, and their copies.
func (o *scheduleCreateOptions) prunes(namespaces, repositories []string) []catalog.Right {
	rights := catalog.Rights(prune.AnyPlan(namespaces).Grants())
	if repositories != nil && len(repositories) == 0 {
		return rights
	}
	for _, namespace := range namespaces {
		place := o.place(namespace)
		rights.Join(copyRights(place, true))
		rights.Join(offsite.WorkGrants(place))
		rights.Add("coordination.k8s.io", "leases", place, "list") // those that dead runs have left
	}
	return rights
}
