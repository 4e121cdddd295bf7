package prune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// AdoptRequest is which contents are to have snapshots again.
type AdoptRequest struct {
	Run      catalog.Run
	Contents []string      // names
	Timeout  time.Duration // for a snapshot to be ready, and for a content to go
}

// AdoptPlan is what RunAdopt will do.
type AdoptPlan struct {
	AdoptRequest
	Adoptions []Adoption // one for each content, in their order
}

// Adoption is one content that lost its snapshot, and the snapshot that it is
// to have again. A content is never bound to a second one: another takes its
// place, with the same snapshot of the storage, and then it goes. All that time
// at least one of them stands, and each is retained, so that nothing that ends a
// run on its way costs data: the same run again goes on where it was.
type Adoption struct {
	// From is the content that was named; without a UID where it has gone
	// already.
	From catalog.Content
	// Snapshot is what it becomes; its Content is the one that takes the place.
	Snapshot catalog.Snapshot
	// Made: that content has gone, and snapshot and content stand in its place.
	Made bool
	// Err is why it is not adopted.
	Err error
}

// MakeAdoptPlan reads and decides.
func MakeAdoptPlan(ctx context.Context, c Cluster, r AdoptRequest) (AdoptPlan, error) {
	plan := AdoptPlan{AdoptRequest: r}
	all, err := readContents(ctx, c)
	if err != nil {
		return plan, err
	}
	if all.byName == nil {
		return plan, catalog.Forbidden([]catalog.Right{{Verb: "list", Group: "snapshot.storage.k8s.io", Resource: KindContents}}, "")
	}
	for _, name := range r.Contents {
		a, err := adoption(ctx, c, all, name)
		if err != nil {
			var refused *catalog.Failure
			if !errors.As(err, &refused) || refused.Code != catalog.CodeNoOrphan && refused.Code != catalog.CodeNotFound {
				return plan, err
			}
			a.Err = err
		}
		plan.Adoptions = append(plan.Adoptions, a)
	}
	return plan, nil
}

// adoption plans that of one content.
func adoption(ctx context.Context, c Cluster, all contents, name string) (Adoption, error) {
	from, found := all.byName[name]
	if !found {
		return adopted(ctx, c, all, name)
	}
	a := Adoption{From: from}
	if why, next := all.unfit(from); why != "" {
		return a, noOrphan(name, why, next)
	}
	scope := catalog.Scope{Namespaces: []string{from.Namespace}, Lost: true}
	places, err := c.Policies(ctx, scope)
	if err != nil {
		return a, err
	}
	if slices.Contains(places.Lost, from.Namespace) {
		return a, noOrphan(name, fmt.Sprintf("namespace %s of its snapshot does not exist", from.Namespace), "kubectl create namespace "+from.Namespace)
	}
	standing, err := c.Standing(ctx, scope)
	if err != nil {
		return a, err
	}
	shot := from.Namespace + "/" + from.Snapshot
	switch has, there := standing[shot]; {
	case there && (from.SnapshotUID == "" || has.UID == from.SnapshotUID):
		return a, noOrphan(name, fmt.Sprintf("its snapshot %s is there", shot), fmt.Sprintf("kubectl backsnap describe vs/%s -n %s", from.Snapshot, from.Namespace))
	case there && has.From != from.AdoptedName():
		return a, noOrphan(name, fmt.Sprintf("another snapshot is called %s now", shot), fmt.Sprintf("see what it is: kubectl backsnap describe vs/%s -n %s", from.Snapshot, from.Namespace))
	}
	a.Snapshot, err = c.Remembered(ctx, from)
	if errors.Is(err, catalog.ErrGone) {
		return a, noOrphan(name, "it is gone", "kubectl backsnap prune --orphans")
	}
	a.Snapshot = kept(a.Snapshot, from.AdoptedName())
	return a, err
}

// kept is a snapshot that is adopted with that content: prune's mark is off,
// and it is pinned, or the next prune would take it again.
func kept(s catalog.Snapshot, content string) catalog.Snapshot {
	s.Content = content
	if catalog.IsMoment(s.DeleteAfter) {
		s.DeleteAfter = ""
	}
	if !s.Pinned {
		s.Pinned, s.PinnedAs = true, catalog.Adopted
	}
	return s
}

// adopted is the adoption of a content that has gone: it was adopted before.
func adopted(ctx context.Context, c Cluster, all contents, name string) (Adoption, error) {
	a := Adoption{From: catalog.Content{Name: name}, Made: true}
	for _, content := range all.byName {
		if content.Adopted != name || !content.Ours {
			continue
		}
		standing, err := c.Standing(ctx, catalog.Scope{Namespaces: []string{content.Namespace}})
		if err != nil {
			return a, err
		}
		if _, there := standing[content.Namespace+"/"+content.Snapshot]; !there {
			return a, noOrphan(name, fmt.Sprintf("content %s has its place, and has lost its snapshot too", content.Name), "kubectl backsnap adopt "+content.Name)
		}
		a.Snapshot, err = c.Remembered(ctx, content)
		a.Snapshot.Content = content.Name
		return a, err
	}
	return a, &catalog.Failure{
		Code: catalog.CodeNotFound, Message: "no content " + name, State: "nothing changed", Next: "see those without a snapshot: kubectl backsnap prune --orphans",
	}
}

// unfit is why a content cannot be adopted, and what to do; "" where it can.
func (c contents) unfit(from catalog.Content) (why, next string) {
	look := "kubectl describe volumesnapshotcontent " + from.Name
	switch {
	case !from.Ours:
		return "it carries no label of ours: nobody knows what it is of", look
	case from.Role != "":
		return fmt.Sprintf("it has role %s: it is no restore point", from.Role), look
	case from.Terminating:
		return "it is being deleted", look
	case from.Handle == "":
		return "the storage has given it no snapshot", look
	}
	for _, name := range c.byHandle[[2]string{from.Driver, from.Handle}] {
		if name != from.Name && name != from.AdoptedName() {
			return fmt.Sprintf("content %s names the same snapshot of the storage", name), "kubectl describe volumesnapshotcontent " + name
		}
	}
	return "", ""
}

func noOrphan(name, why, next string) error {
	return &catalog.Failure{Code: catalog.CodeNoOrphan, Message: fmt.Sprintf("content %s not adopted: %s", name, why), State: "nothing changed", Next: next}
}

// Namespaces are those that RunAdopt writes to, sorted.
func (p AdoptPlan) Namespaces() []string {
	var names []string
	for _, a := range p.Adoptions {
		if a.Err == nil {
			names = append(names, a.Snapshot.Namespace)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Rights are what RunAdopt needs to be allowed to do.
func (p AdoptPlan) Rights() []catalog.Right {
	const group = "snapshot.storage.k8s.io"
	var need catalog.Rights
	for _, namespace := range p.Namespaces() {
		need.Add(group, "volumesnapshots", namespace, "create")
		need.Add(group, KindContents, "", "create", "delete", "patch")
	}
	slices.SortFunc(need, func(a, b catalog.Right) int { return cmp.Compare(a.String(), b.String()) })
	return need
}

// RunAdopt does what was planned, one after the other. The errors are those of
// the adoptions, in their order; nil where the snapshot is ready.
func RunAdopt(ctx context.Context, c Cluster, now func() time.Time, plan AdoptPlan, w catalog.Watcher) []error {
	r := &running{Plan: Plan{Request: Request{Run: plan.Run, Timeout: plan.Timeout}}, cluster: c, now: now, watcher: w}
	errs := make([]error, len(plan.Adoptions))
	for i, a := range plan.Adoptions {
		if errs[i] = a.Err; a.Err == nil {
			errs[i] = r.adopt(ctx, a)
		}
	}
	return errs
}

// adopt makes the snapshot, waits until it is ready, and only then lets the
// content go whose place it has.
func (r *running) adopt(ctx context.Context, a Adoption) error {
	s := a.Snapshot
	tell := func(state catalog.State, message string) {
		r.tell(catalog.Event{State: state, Namespace: s.Namespace, Claim: s.Claim, Name: s.Name, Message: message})
	}
	err := r.bind(ctx, a)
	if err == nil && a.From.UID != "" {
		err = r.replace(ctx, a.From)
	}
	if err != nil {
		tell(catalog.Failed, err.Error())
		return r.unadopted(ctx, a, err)
	}
	tell(catalog.OK, fmt.Sprintf("adopted with content %s", s.Content))
	return nil
}

// bind makes the snapshot and waits until it is ready.
func (r *running) bind(ctx context.Context, a Adoption) error {
	if a.From.UID != "" && a.From.Policy != policyRetain {
		r.warn(a.From.Namespace, a.From.Snapshot, fmt.Sprintf("content %s: deletionPolicy %s -> Retain, so that the storage keeps it", a.From.Name, a.From.Policy))
		if _, err := r.cluster.SetPolicy(ctx, a.From, policyRetain); err != nil {
			return err
		}
	}
	if !a.Made {
		if err := r.cluster.Adopt(ctx, a.Snapshot, a.From.Name); err != nil {
			return err
		}
	}
	waiting, cancel := context.WithTimeoutCause(ctx, r.Timeout, errTimeout)
	defer cancel()
	said := ""
	err := r.cluster.Await(waiting, a.Snapshot.Namespace, func(there []catalog.Snapshot) (bool, error) {
		i := slices.IndexFunc(there, func(s catalog.Snapshot) bool { return s.Name == a.Snapshot.Name })
		if i < 0 {
			return false, nil
		}
		said = there[i].Err
		return there[i].Ready && there[i].Content == a.Snapshot.Content, nil
	})
	if errors.Is(err, errTimeout) && said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// replace lets go of the content whose place another has: it is retained, so
// that the storage's snapshot, which is the other's now, stays.
func (r *running) replace(ctx context.Context, from catalog.Content) error {
	now, err := r.cluster.Content(ctx, from.Name)
	if err != nil || now.UID != from.UID {
		return unlessGone(err)
	}
	s := &sweeping{running: r, waiting: map[string]*leaving{}, stuck: map[string]int{}}
	s.seen.contents.byName = map[string]catalog.Content{from.Name: now}
	stop := s.follow(ctx)
	defer stop()
	if now, err = r.cluster.LetGo(ctx, now, policyRetain); err != nil {
		return unlessGone(err)
	}
	l := s.expect(now.Name)
	if err := r.drop(ctx, now); err != nil {
		return err
	}
	return s.leaves(ctx, now, l)
}

// unadopted is err as a person needs to see it.
func (r *running) unadopted(ctx context.Context, a Adoption, err error) error {
	code := cmp.Or(catalog.CodeOf(err), catalog.CodeStorage)
	switch {
	case ctx.Err() != nil:
		code = cmp.Or(catalog.CodeOf(err), catalog.CodeInterrupted)
	case errors.Is(err, errTimeout):
		code = catalog.CodeNotReady
	case errors.Is(err, catalog.ErrTaken):
		code = catalog.CodeNoOrphan
	}
	return &catalog.Failure{
		Code: code, Message: fmt.Sprintf("content %s not adopted as %s/%s", a.From.Name, a.Snapshot.Namespace, a.Snapshot.Name), Cause: err,
		State: "the storage keeps its snapshot; what was made stands, and the same command goes on with it", Next: "kubectl backsnap adopt " + a.From.Name,
	}
}
