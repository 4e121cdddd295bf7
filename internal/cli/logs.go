package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

type logsOptions struct {
	all, follow     bool
	phase           string
	backupNamespace string
}

const logsLong = `
	What the cluster knows of a run, in the order of time: when its snapshots were asked for, cut and ready, the dumps
	and what proves them, what restic says in the movers, the copies, the claims that were restored and the volumes that
	were exchanged for them, and the events about all of these.

	With -f it goes on until the run has ended, writes its copies down as the run itself would, and removes what was
	made for them. The exit code is then that of the copies. It ends before, and leaves all as it is, at ^C and when nobody
	reads its output any more.`

const logsExample = `
	# What is known of a run
	kubectl backsnap logs run/20261122-011500-x7k2 -n shop

	# Follow the uploads of a run that was detached from, to their end
	kubectl backsnap logs -f run/20261122-011500-x7k2 -n shop --phase=upload`

func newLogs(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &logsOptions{}
	cmd := &cobra.Command{
		Use:     "logs run/ID",
		Short:   "Show what is known of a run, live or later",
		Long:    templates.LongDesc(logsLong),
		Example: templates.Examples(logsExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runLogs(cmd, env, config, o, args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "Go on until the run has ended, and take its copies in")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "Look in every namespace of the cluster")
	f.StringVar(&o.phase, "phase", "", "Only what belongs to one `phase`: dump, snapshot, upload or restore")
	addBackupNamespace(cmd, &o.backupNamespace)
	return withEnvironment(env, cmd)
}

func runLogs(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *logsOptions, args []string) error {
	run, err := readRun(args)
	if err != nil {
		return usageError(cmd, err)
	}
	phases := []catalog.Phase{catalog.PhaseDump, catalog.PhaseSnapshot, catalog.PhaseUpload, catalog.PhaseRestore}
	if o.phase != "" && !slices.Contains(phases, catalog.Phase(o.phase)) {
		return usageError(cmd, fmt.Errorf("phase %q: want dump, snapshot, upload or restore", o.phase))
	}
	l := &logs{env: env, out: &logWriter{w: env.Out, phase: catalog.Phase(o.phase), tenths: map[string]int64{}}}
	if l.scope, err = runScope(config, o.all, o.backupNamespace); err != nil {
		return err
	}
	if l.cluster, err = env.Connect(config); err != nil {
		return err
	}
	t, err := l.find(cmd.Context(), run)
	if err != nil {
		return err
	}
	if err := l.past(cmd.Context(), t); err != nil {
		return err
	}
	if o.follow {
		return l.follow(cmd.Context(), t)
	}
	return nil
}

// logs is one `logs`.
type logs struct {
	env     *Env
	scope   catalog.Scope
	cluster Cluster
	out     *logWriter

	restored []restore.Trace
}

// find looks for the run: for one that takes or copies snapshots, and for one
// that restores, of which there may be claims and volumes alone.
func (l *logs) find(ctx context.Context, run catalog.Run) (*traces, error) {
	t, err := findRun(ctx, l.cluster, l.scope, run)
	if err == nil && len(t.snapshots) > 0 || err != nil && !catalog.Has(err, catalog.CodeNotFound) {
		return t, err
	}
	found, _, unread := restore.Traces(ctx, l.cluster, l.scope, run)
	if unread != nil {
		return nil, unread
	}
	if l.restored = found; err != nil && len(found) > 0 {
		t, err = &traces{run: run}, nil
	}
	return t, err
}

// past writes what there is by now.
func (l *logs) past(ctx context.Context, t *traces) error {
	var all []entry
	names := map[string][]string{} // by namespace
	for _, s := range t.snapshots {
		all = append(all, evidence(s)...)
		names[s.Namespace] = append(names[s.Namespace], s.Name)
	}
	for _, r := range l.restored {
		all = append(all, restoredEntries(r)...)
		names[r.Namespace] = append(names[r.Namespace], r.Names()...)
	}
	for _, m := range t.movers {
		names[m.Namespace] = append(names[m.Namespace], m.Name)
		if !m.Job {
			continue
		}
		lines, err := l.cluster.LogLines(ctx, m.Namespace, m.Name)
		if err != nil {
			return err
		}
		all = append(all, l.out.said(m, lines)...)
	}
	for namespace, of := range names {
		lines, err := l.cluster.EventLines(ctx, namespace, of)
		if err != nil {
			return err
		}
		phase := l.phaseIn(namespace, t)
		for _, line := range lines {
			all = append(all, entry{line.Time, phase, line.About, line.Text})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.about, b.about)) })
	for _, e := range all {
		l.out.write(e)
	}
	return l.out.err
}

// phaseIn is what the run does in that namespace, as far as events tell.
func (l *logs) phaseIn(namespace string, t *traces) catalog.Phase {
	switch {
	case len(l.restored) > 0:
		return catalog.PhaseRestore
	case slices.Contains(t.places(), namespace):
		return catalog.PhaseUpload
	}
	return catalog.PhaseSnapshot
}

// follow goes on until the run holds no namespace and its movers have finished.
func (l *logs) follow(ctx context.Context, t *traces) error {
	ctx, stop := whileRead(ctx, l.env.Out)
	defer stop()
	ended := make(chan struct{})
	var waiting sync.WaitGroup
	failed := make([]error, len(t.holdings))
	for i, h := range t.holdings {
		waiting.Go(func() { failed[i] = l.cluster.AwaitRelease(ctx, h) })
	}
	go func() {
		waiting.Wait()
		close(ended)
	}()
	outcomes, err := l.movers(ctx, t, ended)
	<-ended
	switch {
	case errors.Is(context.Cause(ctx), errUnread):
		return &finished{code: exitInterrupted}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	usable := slices.ContainsFunc(outcomes, func(o offsite.Outcome) bool { return o.Err == nil })
	var r report
	r.fail(errors.Join(append(failed, err)...))
	return cmp.Or(l.env.end(r.failures, exitOf(usable, r.failures)), l.out.err)
}

// movers follows those of the run, wherever it has some, and where a client
// that works still may start them.
func (l *logs) movers(ctx context.Context, t *traces, ended <-chan struct{}) ([]offsite.Outcome, error) {
	places := append(t.places(), l.scope.BackupNamespace)
	slices.Sort(places)
	places = slices.Compact(places)
	found := make([][]offsite.Outcome, len(places))
	failed := make([]error, len(places))
	var following sync.WaitGroup
	for i, place := range places {
		following.Go(func() {
			found[i], failed[i] = offsite.Follow(ctx, l.cluster, l.env.Now, place, t.run, ended, l.out)
		})
	}
	following.Wait()
	return slices.Concat(found...), errors.Join(failed...)
}

// entry is one line of the log of a run.
type entry struct {
	at    time.Time
	phase catalog.Phase
	about string
	text  string
}

// evidence is what the record of a snapshot, and its status, tell.
func evidence(s catalog.Snapshot) []entry {
	about := s.Namespace + "/" + s.Claim
	all := []entry{{s.Created, catalog.PhaseSnapshot, about, "asked for as " + s.Name}}
	if r := s.Record; r != nil && !r.Dumped.IsZero() {
		all = append(all, entry{r.Dumped, catalog.PhaseDump, about, fmt.Sprintf("%s of %s in pod %s, container %s", r.Tool, r.Server, r.Pod, r.Container)})
		for _, d := range r.Dumps {
			all = append(all, entry{r.Dumped, catalog.PhaseDump, about, fmt.Sprintf("%s in %s, %d bytes, sha256 %s", d.What, d.Path, d.Bytes, d.SHA256)})
		}
	}
	if !s.Cut.IsZero() {
		all = append(all, entry{s.Cut, catalog.PhaseSnapshot, about, "cut"})
	}
	if r := s.Record; r != nil && !r.Ready.IsZero() {
		all = append(all, entry{r.Ready, catalog.PhaseSnapshot, about, fmt.Sprintf("ready: %s, %s", r.Consistency, r.Reason)})
	}
	if s.Err != "" {
		all = append(all, entry{s.Created, catalog.PhaseSnapshot, about, "the storage says: " + s.Err})
	}
	for _, c := range s.Copies {
		all = append(all, entry{c.Finished, catalog.PhaseUpload, about, copyWords(c)})
	}
	return all
}

// restoredEntries are what there is of a restore. When claims and volumes came
// to be what they are, nothing says: that stands before all else.
func restoredEntries(t restore.Trace) []entry {
	d := restoredDoc{Run: t.Run, Namespace: t.Namespace, Standing: t.Standing()}
	d.InPlace = d.Standing != ""
	d.read(t)
	all := []entry{{phase: catalog.PhaseRestore, about: t.Namespace, text: d.Because}}
	for _, c := range d.Claims {
		all = append(all, entry{phase: catalog.PhaseRestore, about: t.Namespace + "/" + c.Claim, text: c.words(d.InPlace)})
	}
	for _, s := range t.Safety {
		for _, e := range evidence(s) {
			e.phase = catalog.PhaseRestore
			all = append(all, e)
		}
	}
	return all
}

func copyWords(c catalog.Copy) string {
	return fmt.Sprintf("copied to %s as %s, %s read, %s stored", c.Repository, short(c.Snapshot), size(c.Bytes), size(c.Added))
}

// logWriter writes entries, and what happens as one more. It is safe for use
// by several goroutines.
type logWriter struct {
	phase catalog.Phase // of what is written; "" for all

	mu     sync.Mutex
	w      io.Writer
	err    error            // of w
	tenths map[string]int64 // that an upload has come to
}

// due reports whether an upload has come to another tenth of its way.
func (l *logWriter) due(about string, done, total int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, begun := l.tenths[about]
	tenth := done * 10 / total
	if begun && tenth <= last {
		return false
	}
	l.tenths[about] = tenth
	return true
}

// said is the log of a mover in words.
func (l *logWriter) said(m restic.Mover, lines []catalog.Line) []entry {
	var all []entry
	about, phase := m.Source.Namespace+"/"+m.Source.Claim, catalog.PhaseUpload
	switch {
	case m.Source.Restores != "":
		about, phase = m.Source.Namespace+"/"+m.Source.Restores, catalog.PhaseRestore
	case m.Source.Claim == "":
		about = "job/" + m.Name
	}
	for _, line := range lines {
		read := restic.ReadLine([]byte(line.Text))
		text := read.Text
		switch s := read.Status; {
		case s != nil && s.Total > 0 && l.due(about, s.Bytes, s.Total):
			text = progressWords(s.Bytes, s.Total)
		case read.Summary != nil:
			text = fmt.Sprintf("snapshot %s saved: %d files, %s read, %s stored in %s",
				short(read.Summary.Snapshot), read.Summary.Files, size(read.Summary.Bytes), size(read.Summary.Added), span(read.Summary.Took))
		}
		if text != "" {
			all = append(all, entry{line.Time, phase, about, "restic: " + text})
		}
	}
	return all
}

func progressWords(done, total int64) string {
	return fmt.Sprintf("%d%% %s", done*100/total, share(done, total))
}

func (l *logWriter) write(e entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.phase != "" && e.phase != l.phase || l.err != nil {
		return
	}
	at := "-"
	if !e.at.IsZero() {
		at = e.at.UTC().Format(time.RFC3339)
	}
	_, l.err = fmt.Fprintf(l.w, "%-20s %-8s %s  %s\n", at, e.phase, printable(e.about), printable(e.text))
}

// Event writes what happens while the run is followed.
func (l *logWriter) Event(e catalog.Event) {
	about := strings.TrimPrefix(e.Namespace+"/"+e.Claim, "/")
	text := string(e.State)
	switch {
	case e.State == catalog.Progress:
		if e.Total == 0 || !l.due(about, e.Bytes, e.Total) {
			return
		}
		text = progressWords(e.Bytes, e.Total)
	case e.State == catalog.OK && e.Copy != "":
		text = copyWords(catalog.Copy{Repository: e.Repository, Snapshot: e.Copy, Bytes: e.Bytes, Added: e.Added})
	case e.Message != "":
		text += ": " + e.Message
	}
	l.write(entry{e.Time, e.Phase, about, text})
}
