package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

type describeOptions struct {
	scopeFlags
	backupNamespace string
	output          *output
}

const describeLong = `
	Show all that is known of restore points: what they were taken of, when each step came to its end, the evidence for
	their consistency, their copies, how long they are kept and why, and what the cluster has said of them.

	Of a run that has restored: its new claims; or which volumes it has exchanged, which are kept, and with which commands
	they are given back or removed.`

const describeExample = `
	# One snapshot, as list names it
	kubectl backsnap describe vs/data-mysql-0-20261121-011500-p9aa -n shop

	# All snapshots of a run, in every namespace
	kubectl backsnap describe run/20261121-011500-p9aa -A

	# A restore in place: what is kept of before it, and how to go back
	kubectl backsnap describe run/20261121-091600-b2c1 -n shop

	# The evidence of the dumps for a script
	kubectl backsnap describe sts/mysql -n shop -o jsonpath='{.items[*].record.dumps}'`

func newDescribe(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &describeOptions{}
	cmd := &cobra.Command{
		Use:     "describe (vs/NAME | run/ID | TYPE/NAME | CLAIM | -l SELECTOR)",
		Short:   "Show a restore point or a run with its evidence and events",
		Long:    templates.LongDesc(describeLong),
		Example: templates.Examples(describeExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runDescribe(cmd, env, config, o, args) },
	}
	o.addSnapshots(cmd)
	addBackupNamespace(cmd, &o.backupNamespace)
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

func runDescribe(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *describeOptions, args []string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	namespace, err := currentNamespace(config)
	if err != nil {
		return err
	}
	chosen, err := o.chooseSome(args, namespace)
	if err != nil {
		return usageError(cmd, err)
	}
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	found, err := restorePoints(cmd.Context(), cluster, chosen)
	if err != nil {
		return err
	}
	if run, ok := chosen.onlyRun(); ok && len(found) == 0 {
		restored, err := describeRestore(cmd.Context(), cluster, chosen.scope, run)
		switch {
		case err != nil:
			return err
		case len(restored) > 0:
			return printRestores(env.Out, o.output, printer, restored)
		}
	}
	if err := chosen.unmet(found); err != nil {
		return err
	}
	described, err := describeAll(cmd.Context(), cluster, found, o.backupNamespace, env.Now())
	switch {
	case err != nil:
		return err
	case printer != nil:
		return printDocument(env.Out, printer, descriptionList{APIVersion: apiVersion, Kind: "RestorePointList", Items: described})
	case o.output.format == "name":
		return printSnapshotNames(env.Out, found)
	}
	for i, d := range described {
		if i > 0 {
			fmt.Fprint(env.Out, "\n\n")
		}
		if err := d.print(env.Out, found[i]); err != nil {
			return err
		}
	}
	return nil
}

// unmet is the failure of a target that means none of found; nil if each
// means one.
func (s selection) unmet(found []catalog.Snapshot) error {
	for _, t := range s.targets {
		if !slices.ContainsFunc(found, func(v catalog.Snapshot) bool { return means(t, v) }) {
			return s.notFound(t)
		}
	}
	if len(found) == 0 {
		return &catalog.Failure{
			Code: catalog.CodeNotFound, Message: "no restore point is selected", State: "nothing changed", Next: "kubectl backsnap list" + s.where(),
		}
	}
	return nil
}

func (s selection) where() string {
	if s.scope.All {
		return " -A"
	}
	return " -n " + s.scope.Namespaces[0]
}

func (s selection) notFound(t snapshot.Target) error {
	f := &catalog.Failure{Code: catalog.CodeNotFound, State: "nothing changed", Next: "kubectl backsnap list" + s.where()}
	where := " in namespace " + t.Namespace
	if t.Namespace == "" {
		where = " in the cluster"
	}
	switch t.Kind {
	case kindSnapshot:
		f.Message = "no restore point " + t.Name + where
	case kindRun:
		f.Message = "no restore point of run " + t.Name + where
		if t.Namespace != "" {
			f.Next = "kubectl backsnap describe run/" + t.Name + " -A"
		}
	default:
		f.Message = "no restore point of " + t.String() + where
	}
	return f
}

// descriptionList is what `describe -o json` prints.
type descriptionList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Items      []description `json:"items"`
}

// description is a restore point with all that is known of it. Fields are
// only ever added.
type description struct {
	restorePointDoc
	Driver    string           `json:"driver,omitempty"`
	Handle    string           `json:"handle,omitempty"`
	Retention retentionDoc     `json:"retention"`
	Missing   []string         `json:"missingCopies,omitempty"`
	Movers    []moverDoc       `json:"movers,omitempty"`
	Events    []catalog.Notice `json:"events"`
	// Unseen is what could not be looked at, and why.
	Unseen []string `json:"unseen,omitempty"`
}

// retentionDoc is why a restore point is kept, and until when.
type retentionDoc struct {
	Because string    `json:"because"`
	Until   time.Time `json:"until,omitzero"` // zero: nobody knows yet
}

// moverDoc is a Job that copies the restore point, or has.
type moverDoc struct {
	Repository string `json:"repository"`
	Job        string `json:"job"`
	Finished   bool   `json:"finished"`
}

// describeAll looks at all that belongs to snapshots, in their order. What
// may not be read is said, and the rest shown.
func describeAll(ctx context.Context, c Cluster, snapshots []catalog.Snapshot, backupNamespace string, now time.Time) ([]description, error) {
	var unseen []string
	tolerate := func(err error) error {
		if catalog.Has(err, catalog.CodeForbidden) {
			unseen = append(unseen, firstLine(err))
			return nil
		}
		return err
	}
	notices, err := c.Notices(ctx, snapshots)
	if err := tolerate(err); err != nil {
		return nil, err
	}
	places := []string{backupNamespace} // where movers of the snapshots may stand
	for _, s := range snapshots {
		places = append(places, s.Namespace)
	}
	slices.Sort(places)
	var movers []restic.Mover
	for _, place := range slices.Compact(places) {
		standing, err := c.Movers(ctx, place)
		if err := tolerate(err); err != nil {
			return nil, err
		}
		movers = append(movers, standing...)
	}
	all := []description{}
	for _, s := range snapshots {
		full := s
		if s.Content != "" {
			if full, err = c.Complete(ctx, s); err != nil {
				unseen, full = append(unseen, firstLine(err)), s
			}
		}
		d := descriptionOf(full, notices[s.UID], now)
		d.Movers, d.Unseen = moversOf(s, movers), unseen
		all = append(all, d)
	}
	return all, nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func descriptionOf(s catalog.Snapshot, notices []catalog.Notice, now time.Time) description {
	d := description{
		restorePointDoc: restorePointDocument(s), Driver: s.Driver, Handle: s.Handle,
		Retention: retained(s, now), Missing: s.MissingCopies(), Events: notices,
	}
	if d.Events == nil {
		d.Events = []catalog.Notice{}
	}
	return d
}

func moversOf(s catalog.Snapshot, movers []restic.Mover) []moverDoc {
	var found []moverDoc
	for _, m := range movers {
		if m.Job && m.Source.UID == s.UID {
			found = append(found, moverDoc{Repository: m.Source.Repository, Job: m.Namespace + "/" + m.Name, Finished: m.Finished})
		}
	}
	return found
}

// zoneOf is the time zone that s was taken in, UTC where nobody knows.
func zoneOf(s catalog.Snapshot) *time.Location {
	if s.Record != nil {
		if zone, err := named(s.Record.TimeZone); err == nil {
			return zone
		}
	}
	return time.UTC
}

// retention is why s is kept, in words, and until when. What prune's policy
// will make of a calendar nobody knows before.
func retained(s catalog.Snapshot, now time.Time) retentionDoc {
	if s.Pinned {
		return retentionDoc{Because: "pinned: kept until label " + catalog.LabelPin + " is taken off"}
	}
	if s.DeleteAfter != "" {
		until, err := catalog.ReadDeleteAfter(s.DeleteAfter, zoneOf(s))
		switch {
		case err != nil:
			return retentionDoc{Because: "kept: " + err.Error()}
		case until.After(now):
			return retentionDoc{Because: "delete-after " + s.DeleteAfter + " has not passed; the first prune after it removes it", Until: until}
		}
		return retentionDoc{Because: "delete-after " + s.DeleteAfter + " has passed: the next prune removes it", Until: until}
	}
	switch s.Retain {
	case catalog.Retain{Calendar: true}.Label():
		return retentionDoc{Because: calendarReason(s)}
	case catalog.Retain{Copied: true}.Label():
		return retentionDoc{Because: copiedReason(s)}
	}
	return retentionDoc{Because: "no label says when it is to go: kept until somebody sets " + catalog.LabelDeleteAfter}
}

func calendarReason(s catalog.Snapshot) string {
	var keys []string
	for _, p := range catalog.Periods {
		if key := s.Periods[p]; key != "" {
			keys = append(keys, string(p)+" "+key)
		}
	}
	if len(keys) == 0 {
		return "by the calendar, but it stands for no period: the next prune marks it"
	}
	return "by the calendar: it stands for " + strings.Join(keys, ", ") + "; the policy of prune says how many of each are kept"
}

func copiedReason(s catalog.Snapshot) string {
	switch missing := s.MissingCopies(); {
	case s.FullyCopied():
		return "every copy asked for is on record: the next prune marks it"
	case len(missing) > 0:
		return "kept until it is copied; no copy yet in " + strings.Join(missing, ", ")
	}
	return "kept until it is copied, and nothing says where to: nobody will remove it"
}

// print writes d for a person.
func (d description) print(w io.Writer, s catalog.Snapshot) error {
	p := &sections{}
	p.row("Name", d.Metadata.Name)
	p.row("Namespace", d.Metadata.Namespace)
	p.row("Run", string(d.Run))
	p.row("State", d.state(s))
	d.printSource(p)
	d.printConsistency(p)
	d.printSnapshot(p)
	d.printOffsite(p)
	p.section("Retention")
	p.row("Why", d.Retention.Because)
	if !d.Retention.Until.IsZero() {
		p.row("Kept until", moment(d.Retention.Until, zoneOf(s)))
	}
	p.section("Proof")
	p.row("Dump", d.proof())
	p.row("Restore", restoreProof(s))
	d.printEvents(p, zoneOf(s))
	_, err := io.WriteString(w, p.text.String())
	return err
}

// state is whether it is a restore point, in words.
func (d description) state(s catalog.Snapshot) string {
	switch {
	case s.Terminating:
		return "being deleted"
	case d.Consistency != "" && d.Ready:
		return "ready, a restore point"
	case d.Ready:
		return "ready, but its run did not label it: no restore point"
	case d.Error != "":
		return "not ready: " + d.Error
	}
	return "not ready"
}

func (d description) printSource(p *sections) {
	p.section("Source")
	p.row("Claim", d.Claim)
	r := d.Record
	if r == nil {
		p.row("Record", "none that this program can read: only what the labels say is known")
		return
	}
	p.row("Claim UID", r.Claim.UID)
	p.row("App", r.App)
	p.row("Set", strings.Join(r.Members, ", "))
	p.row("Size", size(r.Claim.Capacity)+", "+size(r.Claim.Request)+" asked for")
	p.row("Storage class", r.Claim.StorageClass)
	p.row("Modes", words(" ", append(slices.Clone(r.Claim.AccessModes), r.Claim.VolumeMode, r.Claim.FileSystem)...))
	p.row("Node affinity", string(r.Claim.NodeAffinity))
}

func (d description) printConsistency(p *sections) {
	p.section("Consistency")
	r := d.Record
	if r == nil {
		p.row("Class", string(d.Consistency))
		return
	}
	p.row("Class", words(", ", string(d.Consistency), r.Reason))
	zone := zoneOf(catalog.Snapshot{Record: r})
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"Dump began", r.DumpBegan}, {"Dump proven", r.Dumped}, {"Cut asked for", r.Requested}, {"Cut", r.Cut}, {"Ready", r.Ready}} {
		if !t.at.IsZero() {
			p.row(t.name, moment(t.at, zone))
		}
	}
	if r.Plugin != "" {
		p.row("Plugin", r.Plugin+", mode "+r.Mode)
		p.row("Pod", r.Pod+", container "+r.Container)
	}
	p.row("Tool", r.Tool)
	p.row("Server", r.Server)
	p.row("Position", r.Position)
	p.row("Barrier", r.Barrier)
	for _, dump := range r.Dumps {
		p.row("Dump", dump.What+" in "+dump.Path)
		p.row("", fmt.Sprintf("%d bytes, sha256 %s", dump.Bytes, dump.SHA256))
	}
}

func (d description) printSnapshot(p *sections) {
	p.section("Snapshot")
	p.row("Class", d.Class)
	p.row("Content", d.Content)
	p.row("Driver", d.Driver)
	p.row("Handle", d.Handle)
	if d.RestoreSize > 0 {
		p.row("Restore size", size(d.RestoreSize))
	}
	p.row("Last error", d.Error)
}

func (d description) printOffsite(p *sections) {
	p.section("Off-site")
	for _, c := range d.Copies {
		p.row(c.Repository, fmt.Sprintf("restic %s, %s, %s of it new, finished %s", c.Snapshot, size(c.Bytes), size(c.Added), moment(c.Finished, time.UTC)))
	}
	for _, m := range d.Movers {
		what := "being copied by Job "
		if m.Finished {
			what = "the next run that copies takes in what Job did: "
		}
		p.row(m.Repository, what+m.Job)
	}
	if len(d.Missing) > 0 {
		p.row("Missing", strings.Join(d.Missing, ", "))
	}
	if len(d.Copies)+len(d.Movers)+len(d.Missing) == 0 {
		p.row("Copies", "none, and none was asked for")
	}
}

// proof is the evidence for the dump, in words.
func (d description) proof() string {
	switch r := d.Record; {
	case r == nil || r.Dumped.IsZero():
		return "none"
	case len(r.Dumps) == 0:
		return "proven when it was made, in another volume of the set"
	default:
		return "proven when it was made: exit status, trailer, read back, SHA-256"
	}
}

// restoreProof is the last restore from s that was tried, in words.
func restoreProof(s catalog.Snapshot) string {
	if s.Proof == nil {
		return "not tried"
	}
	return fmt.Sprintf("%s, %s", s.Proof.Level, moment(s.Proof.At, zoneOf(s)))
}

func (d description) printEvents(p *sections, zone *time.Location) {
	p.section("Events")
	for _, e := range d.Events {
		p.row(e.Type+" "+e.Reason, fmt.Sprintf("%s: %s", words(", ", moment(e.Time, zone), times(e.Count), e.Object, e.Source), e.Message))
	}
	for _, why := range d.Unseen {
		p.row("Not seen", why)
	}
	if len(d.Events)+len(d.Unseen) == 0 {
		p.text.WriteString("  none\n")
	}
}

// words are those that are not empty, with sep between them.
func words(sep string, all ...string) string {
	return strings.Join(slices.DeleteFunc(all, func(w string) bool { return w == "" }), sep)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// moment is t for a person, as exact as it is known.
func moment(t time.Time, zone *time.Location) string {
	return t.In(zone).Format("2006-01-02 15:04:05.999999999 MST")
}

// sections is text in rows under headings.
type sections struct {
	text   strings.Builder
	indent string
}

func (p *sections) section(name string) {
	fmt.Fprintf(&p.text, "%s:\n", name)
	p.indent = "  "
}

// row is one name with its value; none where there is no value.
func (p *sections) row(name, value string) {
	if value == "" {
		return
	}
	if name != "" {
		name += ":"
	}
	fmt.Fprintf(&p.text, "%s%-*s %s\n", p.indent, 18-len(p.indent), printable(name), printable(value))
}
