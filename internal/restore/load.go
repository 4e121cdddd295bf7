package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// DefaultLoadTimeout is how long loading one database may take, if nothing
// else is said.
const DefaultLoadTimeout = 6 * time.Hour

// LoadRequest is a load that was asked for: that of the dump in the set that
// Request means. The server is in Request.ToNamespace.
type LoadRequest struct {
	Request
	// Into is the workload whose server takes the dump; the zero value is that
	// of the set.
	Into catalog.Workload
	// Database is the one that is loaded, and into which, as ParseDatabase
	// reads it; "" for all that are in the dump.
	Database string
	// LoadTimeout is how long one part may take.
	LoadTimeout time.Duration
}

// LoadPlan is what Load will do.
type LoadPlan struct {
	LoadRequest
	Chosen Chosen
	Passed []Passed
	Point  Point // the volume with the dump
	Plugin plugins.Plugin
	Server catalog.ContainerRef
	Found  plugins.Server
	// Live says that the dump lies beside the server still, so that nothing has
	// to be fetched.
	Live  bool
	Steps []LoadStep // in order
	// Roles are to be made first, those of them that are missing.
	Roles *LoadStep
	// Notes are what a person should know beforehand.
	Notes []string
}

// LoadStep is one part of a dump.
type LoadStep struct {
	Dump catalog.Dump
	Path string // in the server's container, where the plan is Live
	// From and Into are databases; "" for all that are in the dump, and for users.
	From, Into string
	// Fresh: Into must not be there, or be empty.
	Fresh bool
	// Stand is what stands in Into.
	Stand plugins.Stand
}

// String is what is loaded, and into what.
func (s LoadStep) String() string {
	switch {
	case s.Into == "" && s.Dump.What == plugins.WhatDatabases:
		return "all databases of the dump"
	case s.Into == "":
		return s.Dump.What
	case s.From != s.Into:
		return fmt.Sprintf("database %s from %s", strconv.Quote(s.Into), strconv.Quote(s.From))
	}
	return "database " + strconv.Quote(s.Into)
}

// Replaces reports whether what stands in the target is replaced.
func (p LoadPlan) Replaces() bool {
	return slices.ContainsFunc(p.Steps, func(s LoadStep) bool { return !s.Fresh && s.Dump.What != plugins.WhatUsers })
}

// Transactional reports whether the server undoes a load that fails.
func (p LoadPlan) Transactional() bool { return p.Found.Engine == "postgres" }

// MakeLoadPlan looks at the cluster, and into the server, and decides. It
// changes nothing. Its error is a catalog.Failure.
func MakeLoadPlan(ctx context.Context, c Cluster, r LoadRequest) (LoadPlan, error) {
	r.ToNamespace = cmp.Or(r.ToNamespace, r.Target.Namespace)
	f, err := find(ctx, c, r.Request)
	if err != nil {
		return LoadPlan{}, err
	}
	l := &loadPlanner{cluster: c, inventory: f.inventory, plan: LoadPlan{LoadRequest: r, Passed: f.Passed}}
	for _, step := range []func(context.Context) error{
		func(context.Context) error { return l.choose(f.Chosen) },
		l.server, l.suits, l.steps, l.locate,
	} {
		if err := step(ctx); err != nil {
			return LoadPlan{}, err
		}
	}
	return l.plan, nil
}

// PlanFiles plans how the dump comes to this machine: exactly the one that was
// chosen.
func (p LoadPlan) PlanFiles(ctx context.Context, c Cluster) (Plan, error) {
	r := p.Request
	r.Target = Target{Namespace: r.Target.Namespace, Kind: "vs", Name: p.Point.Snapshot.Name}
	r.At, r.ToNamespace, r.Local = time.Time{}, "", &Local{File: "./"}
	return MakePlan(ctx, c, r)
}

// forbidden is err, with which the server could not be looked into. If that was
// for a right, all that a load lacks are told at once, those among them that
// bringing the dump here takes: whether it lies beside the server still, nobody
// could see.
func (l *loadPlanner) forbidden(ctx context.Context, err error) error {
	if catalog.CodeOf(err) != catalog.CodeForbidden {
		return serverFailure(err, l.into(), l.plan.ToNamespace)
	}
	files, planned := l.plan.PlanFiles(ctx, l.cluster)
	if planned != nil {
		files = Plan{} // which is told once it may be looked for
	}
	if lacking := CheckLoad(ctx, l.cluster, l.plan, files); catalog.CodeOf(lacking) == catalog.CodeForbidden {
		return lacking
	}
	return err
}

// Rights are what Load needs to be allowed to do where the dump comes here as
// files says; the zero Plan: it lies beside the server.
func (p LoadPlan) Rights(files Plan) []catalog.Right {
	var rights catalog.Rights
	rights.Add("", "pods/exec", p.ToNamespace, "get", "create")
	rights.Add("coordination.k8s.io", "leases", p.ToNamespace, "create", "get", "update", "delete")
	if len(files.Volumes) == 0 {
		return rights
	}
	for _, r := range files.Rights() {
		rights.Add(r.Group, r.Resource, r.Namespace, r.Verb)
	}
	return rights
}

// CheckLoad asks for all rights that p needs: a catalog.Failure of
// CodeForbidden names those that are missing. files is as for LoadPlan.Rights.
func CheckLoad(ctx context.Context, c Cluster, p LoadPlan, files Plan) error {
	return lackNone(ctx, c, p.Rights(files))
}

type loadPlanner struct {
	cluster   Cluster
	inventory catalog.Inventory
	plan      LoadPlan
	claims    []catalog.Mount // of the server's container
}

// refuse is a load that cannot be done as it was asked for.
func (l *loadPlanner) refuse(code catalog.Code, next, format string, args ...any) error {
	return &catalog.Failure{Code: code, Message: fmt.Sprintf(format, args...), State: "nothing changed", Next: next}
}

func (l *loadPlanner) list() string {
	return "see what there is: kubectl backsnap list -n " + l.plan.Target.Namespace
}

// choose takes the one volume of the chosen set that holds a dump.
func (l *loadPlanner) choose(chosen []Chosen) error {
	if len(chosen) > 1 {
		var apps []string
		for _, c := range chosen {
			apps = append(apps, c.Set.App)
		}
		return l.refuse(catalog.CodeUsage, "name one of them", "%s has sets of several apps: %s", l.plan.Target, strings.Join(apps, ", "))
	}
	l.plan.Chosen = chosen[0]
	var with []Point
	var claims []string
	for _, point := range chosen[0].Points {
		if len(point.Snapshot.Record.Dumps) > 0 {
			with, claims = append(with, point), append(claims, point.Snapshot.Claim)
		}
	}
	switch {
	case len(with) == 0:
		return l.refuse(catalog.CodeNoDump, "restore the volumes themselves, without --load; or take another set with --at: kubectl backsnap list -n "+l.plan.Target.Namespace,
			"set %s of %s holds no dump: %s", chosen[0].Set.Run, l.plan.Target, chosen[0].Points[0].Snapshot.Record.Reason)
	case len(with) > 1:
		return l.refuse(catalog.CodeUsage, "name the claim whose dump is meant", "set %s has dumps in several claims: %s", chosen[0].Set.Run, strings.Join(claims, ", "))
	}
	l.plan.Point = with[0]
	plugin, err := plugins.Lookup(with[0].Snapshot.Record.Plugin)
	if err != nil {
		return l.refuse(catalog.CodeNoDump, "take a newer version of this program", "the dump in %s: %v", with[0].Snapshot.Name, err)
	}
	l.plan.Plugin = plugin
	return nil
}

// server finds the one that takes writes among the pods that may be meant.
func (l *loadPlanner) server(ctx context.Context) error {
	var failed error
	var primaries, replicas []candidate
	candidates := l.candidates()
	for _, c := range candidates {
		found, err := lookInto(ctx, l.cluster, c.ref, l.plan.Plugin, nil)
		switch {
		case err != nil:
			failed = err
		case found.Role == plugins.Primary:
			l.plan.Server, l.plan.Found, l.claims = c.ref, found, c.mounts
			primaries = append(primaries, c)
		default:
			replicas = append(replicas, c)
		}
	}
	into := l.into()
	where := fmt.Sprintf("kubectl get pods -n %s", l.plan.ToNamespace)
	switch {
	case len(primaries) == 1:
		return nil
	case len(primaries) > 1:
		return l.refuse(catalog.CodeTarget, "name one pod: --into pod/NAME", "%s in %s has %d servers that take writes", into, l.plan.ToNamespace, len(primaries))
	case failed != nil:
		return l.forbidden(ctx, failed)
	case len(replicas) > 0:
		return l.refuse(catalog.CodeTarget, "name its primary with --into TYPE/NAME", "%s in %s is a replica, and takes no dump", into, l.plan.ToNamespace)
	}
	return l.refuse(catalog.CodeTarget, where+"; or name another with --into TYPE/NAME", "no running pod of %s in %s has a %s server", into, l.plan.ToNamespace, l.plan.Plugin.Title)
}

// into is the workload whose server is meant.
func (l *loadPlanner) into() string {
	if l.plan.Into != (catalog.Workload{}) {
		return l.plan.Into.String()
	}
	return l.plan.Point.Snapshot.Record.App
}

// candidate is a container that may be the server.
type candidate struct {
	ref    catalog.ContainerRef
	mounts []catalog.Mount
}

// candidates are the containers of the workload's running pods that look like
// the server; those of the set's own workload where no other is named.
func (l *loadPlanner) candidates() []candidate {
	record := l.plan.Point.Snapshot.Record
	named := l.plan.Into != (catalog.Workload{})
	known := []plugins.Plugin{l.plan.Plugin}
	var all []candidate
	for _, pod := range l.inventory.Pods {
		if pod.Namespace != l.plan.ToNamespace || pod.Phase != "Running" || pod.Terminating || !l.owns(pod) {
			continue
		}
		for _, c := range pod.Containers {
			_, _, looks := plugins.Nominate(known, seen(c))
			if looks || !named && c.Name == record.Container {
				all = append(all, candidate{catalog.ContainerRef{Namespace: pod.Namespace, Pod: pod.Name, Container: c.Name}, c.Mounts})
			}
		}
	}
	return all
}

func (l *loadPlanner) owns(pod catalog.Pod) bool {
	return slices.Contains(strings.Split(l.into(), "+"), pod.Owner.String()) || l.into() == "pod/"+pod.Name
}

// seen is c as plugins see it.
func seen(c catalog.Container) plugins.Container {
	s := plugins.Container{Name: c.Name, Image: c.Image, Env: c.Env}
	for _, p := range c.Ports {
		s.Ports = append(s.Ports, plugins.Port{Name: p.Name, Number: int32(p.Number)})
	}
	for _, m := range c.Mounts {
		s.Mounts = append(s.Mounts, m.Path)
	}
	return s
}

// suits refuses a server of another kind than the dump's, and an older one.
func (l *loadPlanner) suits(context.Context) error {
	engine, version, _ := strings.Cut(l.plan.Point.Snapshot.Record.Server, " ")
	found := l.plan.Found
	switch {
	case engine != found.Engine:
		return l.refuse(catalog.CodeTarget, "name a server of that kind with --into TYPE/NAME", "the dump is of %s, %s runs %s %s", engine, l.plan.Server.Pod, found.Engine, found.Version)
	case newer(engine, version, found.Version):
		return l.refuse(catalog.CodeTarget, "load it into a server of that version or a newer one: --into TYPE/NAME",
			"the dump is of %s %s, %s runs the older %s", engine, version, l.plan.Server.Pod, found.Version)
	}
	return nil
}

// newer reports whether a is of a newer line of versions than b: PostgreSQL's
// first number says so, in the others the second counts too.
func newer(engine, a, b string) bool {
	numbers := 2
	if engine == "postgres" {
		numbers = 1
	}
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range numbers {
		x, y := part(as, i), part(bs, i)
		if x != y {
			return x > y
		}
	}
	return false
}

func part(numbers []string, i int) int {
	if i >= len(numbers) {
		return 0
	}
	n, err := strconv.Atoi(numbers[i])
	if err != nil {
		return 0
	}
	return n
}

// steps are what is loaded, in order, and what stands there.
func (l *loadPlanner) steps(ctx context.Context) error {
	record := l.plan.Point.Snapshot.Record
	var databases []string
	whole := false
	for _, d := range record.Dumps {
		if name, ok := plugins.DatabaseOf(d.What); ok {
			databases = append(databases, name)
		}
		whole = whole || d.What == plugins.WhatDatabases
	}
	if whole { // of what is in the dump nothing is on record; what is in the server is the nearest
		databases = l.plan.Found.Databases
	}
	from, into := "", ""
	if l.plan.Database != "" {
		var err error
		if from, into, err = ParseDatabase(l.plan.Database, databases, whole); err != nil {
			return l.refuse(catalog.CodeUsage, "one of: "+strings.Join(databases, ", "), "%v", err)
		}
	}
	for _, d := range record.Dumps {
		l.step(d, from, into)
	}
	if len(l.plan.Steps) == 0 {
		return l.refuse(catalog.CodeNoDump, l.list(), "the set's dump has no %s", cmp.Or(from, "database"))
	}
	return l.stands(ctx)
}

// step adds the part, if it is meant.
func (l *loadPlanner) step(d catalog.Dump, from, into string) {
	name, ok := plugins.DatabaseOf(d.What)
	s := LoadStep{Dump: d, From: from, Into: into, Fresh: from != into}
	switch {
	case d.What == plugins.WhatGlobals:
		l.plan.Roles = &s
		return
	case ok && from == "":
		s.From, s.Into = name, name
	case ok && name != from, d.What == plugins.WhatUsers && from != "":
		return
	}
	l.plan.Steps = append(l.plan.Steps, s)
}

// stands looks at what stands where a dump goes.
func (l *loadPlanner) stands(ctx context.Context) error {
	var names []string
	for _, s := range l.plan.Steps {
		if s.Into != "" {
			names = append(names, s.Into)
		}
	}
	found, err := lookInto(ctx, l.cluster, l.plan.Server, l.plan.Plugin, names)
	if err != nil {
		return l.forbidden(ctx, err)
	}
	l.plan.Found = found
	for i := range l.plan.Steps {
		s := &l.plan.Steps[i]
		s.Stand = found.Targets[s.Into]
		if s.Fresh && s.Stand.Objects > 0 {
			return l.refuse(catalog.CodeTarget, "choose another name with --database, or drop that database first",
				"database %s is there and not empty: it has %d tables and the like", strconv.Quote(s.Into), s.Stand.Objects)
		}
	}
	l.notes()
	return nil
}

// notes are what a load does not do.
func (l *loadPlanner) notes() {
	p := &l.plan
	if !p.Transactional() {
		p.Notes = append(p.Notes, "the server has no transaction for this: if a statement fails, what came before it stays")
	}
	if p.Roles != nil {
		p.Notes = append(p.Notes, "roles that are missing are made first; those that are there stay as they are, with their passwords")
	}
	if slices.ContainsFunc(p.Steps, func(s LoadStep) bool { return s.Dump.What == plugins.WhatUsers }) {
		p.Notes = append(p.Notes, "users that are missing are made last; those that are there stay as they are, with their passwords")
	}
	if p.Replaces() {
		p.Notes = append(p.Notes, "tables and the like that are not in the dump stay")
	}
}

// locate finds out whether the dump lies beside the server still.
func (l *loadPlanner) locate(ctx context.Context) error {
	p := &l.plan
	shot := p.Point.Snapshot
	if p.From.Kind != Auto || p.ToNamespace != shot.Namespace {
		return nil
	}
	i := slices.IndexFunc(l.claims, func(m catalog.Mount) bool { return m.Claim == shot.Claim })
	if i < 0 {
		return nil
	}
	all := make([]*LoadStep, 0, len(p.Steps)+1)
	for j := range p.Steps {
		all = append(all, &p.Steps[j])
	}
	if p.Roles != nil {
		all = append(all, p.Roles)
	}
	for _, s := range all {
		below, ok := strings.CutPrefix("/"+s.Dump.Path, path.Join("/", l.claims[i].SubPath))
		if !ok {
			return nil
		}
		s.Path = path.Join(l.claims[i].Path, below)
		file, err := findFile(ctx, l.cluster, p.Server, p.Plugin, s.Path, false)
		if err != nil || file.Bytes != s.Dump.Bytes {
			return context.Cause(ctx) // it is fetched from the set then
		}
	}
	p.Live = true
	return nil
}

// ParseDatabase reads `NAME`, which is a database of the dump that is loaded
// into itself, or, where none of them has that name, a new one for the only one
// there is; or `FROM=NEW`. there are the databases of the dump; with open set
// it may hold others besides.
func ParseDatabase(text string, there []string, open bool) (from, into string, err error) {
	if slices.Contains(there, text) {
		return text, text, nil
	}
	for i := range len(text) {
		if text[i] == '=' && slices.Contains(there, text[:i]) {
			return text[:i], text[i+1:], checkName(text[i+1:])
		}
	}
	if left, right, ok := strings.Cut(text, "="); ok && open {
		return left, right, errors.Join(checkName(left), checkName(right))
	}
	own := slices.DeleteFunc(slices.Clone(there), func(name string) bool { return name == "postgres" && len(there) > 1 })
	switch {
	case len(own) == 1:
		return own[0], text, checkName(text)
	case open && len(own) == 0:
		return text, text, checkName(text)
	}
	return "", "", fmt.Errorf("--database %s: there are %d databases: say which is meant, --database FROM=%s", text, len(own), text)
}

// reserved are databases of the servers themselves.
var reserved = []string{"mysql", "sys", "information_schema", "performance_schema", "template0", "template1"}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("--database: a name is empty")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("--database %s: a name with control characters", strconv.Quote(name))
	case slices.Contains(reserved, strings.ToLower(name)):
		return fmt.Errorf("--database %s: that is one of the server's own", name)
	}
	return nil
}
