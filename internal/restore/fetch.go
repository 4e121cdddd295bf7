package restore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// moverContainer is the container of a mover's pod.
const moverContainer = "restic"

// told is how often progress is told.
const told = time.Second

// errStream says that what has come is not what was sent.
var errStream = errors.New("the stream did not come through whole")

// Brought is what has come to this machine of a volume.
type Brought struct {
	Volume Volume
	Err    error // a catalog.Failure; nil if all has come
	Left   error // why something that was made on the way is not removed
	// Files and Bytes are regular files by all their names, and what they hold.
	Files, Bytes int64
	// Notes are what of the files could not be kept here, in words.
	Notes []string
	// Dumps are the files of dumps, in the order of Volume.Dumps.
	Dumps []string
	Took  time.Duration
}

// Reach waits until a mover that was started runs, and returns its pod; else
// it is as Follow.
type Reach func(ctx context.Context, namespace, name, claim string, tell func(catalog.Event)) (pod string, err error)

// Fetching is what Fetch works with.
type Fetching struct {
	Cluster Cluster
	Follow  Follow
	Reach   Reach
	Now     func() time.Time
	Out     io.Writer // that the file "-" stands for
}

// Fetch brings the files or dumps of p to this machine, of one volume after the
// other. What has come is seen under its name only once all of a volume has,
// and is what was sent. All that was made on the way is removed, also when ctx
// ends. A volume that fails stops no other; the error joins theirs.
func (f Fetching) Fetch(ctx context.Context, p Plan, w catalog.Watcher) ([]Brought, error) {
	var all []Brought
	var errs []error
	for _, v := range p.Volumes {
		t := &fetch{Fetching: f, making: making{cluster: f.Cluster, follow: f.Follow, now: f.Now, plan: p, volume: v, watcher: renamed{w, v.Snapshot.Claim}}}
		b := t.take(ctx)
		all, errs = append(all, b), append(errs, b.Err)
	}
	return all, errors.Join(errs...)
}

// renamed tells of a claim that is made on the way by the name of its source.
type renamed struct {
	catalog.Watcher
	claim string
}

// Event is the watcher's.
func (r renamed) Event(e catalog.Event) {
	e.Claim = r.claim
	r.Watcher.Event(e)
}

// fetch is one volume on its way here.
type fetch struct {
	Fetching
	making
	brought Brought
	serving bool // the pod that files are taken from may be there
	pod     catalog.ContainerRef
	// Bytes that are to come and that have come; the times at which the first
	// came, and at which it was told last.
	total, came int64
	first, said time.Time
}

func (f *fetch) take(ctx context.Context) Brought {
	f.making.began = f.Now()
	f.brought.Volume = f.volume
	f.tell(catalog.Event{State: catalog.Started})
	err := context.Cause(ctx)
	if err == nil {
		err = f.bring(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = f.interrupted(context.Cause(ctx))
	} else {
		err = f.failed(err)
	}
	f.brought.Err, f.brought.Took = f.unbrought(err), f.Now().Sub(f.making.began)
	done := catalog.Event{State: catalog.OK, Took: f.brought.Took, Bytes: f.brought.Bytes, Message: f.words()}
	if err != nil {
		done.State, done.Message = catalog.Failed, err.Error()
	}
	f.tell(done)
	f.brought.Left = f.clear(ctx)
	return f.brought
}

// words are what has come.
func (f *fetch) words() string {
	if f.plan.Local.Dumps() {
		return fmt.Sprintf("%d dumps, SHA-256 verified", len(f.brought.Dumps))
	}
	return fmt.Sprintf("%d files, SHA-256 verified", f.brought.Files)
}

// unbrought is err as one of files that have not come.
func (f *fetch) unbrought(err error) error {
	var failure *catalog.Failure
	if !errors.As(err, &failure) {
		return err
	}
	what := "files"
	if f.plan.Local.Dumps() {
		what = "dumps"
	}
	said := *failure
	said.Message = fmt.Sprintf("%s of %s/%s not brought to %s", what, f.volume.Snapshot.Namespace, f.volume.Snapshot.Claim, f.volume.To)
	said.State = "nothing of them is there; what was made on the way is removed"
	if errors.Is(err, errStream) {
		said.Code, said.Next = catalog.CodeStream, "give the same command again"
	}
	return &said
}

// bring makes the volume, has its files handed out, and takes them.
func (f *fetch) bring(ctx context.Context) error {
	if err := f.data(ctx); err != nil {
		return err
	}
	if err := f.serve(ctx); err != nil {
		return err
	}
	survey, err := f.survey(ctx)
	if err != nil {
		return err
	}
	if f.plan.Local.Dumps() {
		return f.dumps(ctx)
	}
	return f.files(ctx, survey)
}

// data makes a claim with what is wanted in it.
func (f *fetch) data(ctx context.Context) error {
	if f.volume.Way == Fill {
		return f.fill(ctx)
	}
	if err := f.cluster.TryClaim(ctx, f.volume.Claim); err != nil {
		return err
	}
	return f.clone(ctx)
}

// serving is the pod that the files of v are taken from.
func (v Volume) serving(p Plan) (restic.Job, error) {
	serve := restic.Serve{
		Namespace: p.Place(v), Name: v.Name, Image: p.Image, Run: p.Run, Claim: v.Name, Pod: p.Pod, Deadline: p.Deadline,
		Source: catalog.Source{Namespace: v.Claim.Namespace, Claim: v.Snapshot.Claim, Snapshot: v.Snapshot.Name, UID: v.Snapshot.UID, Restores: v.Name},
	}
	if v.Waits() { // a clone is made where the pod is, and has to be where its snapshot is
		serve.NodeAffinity = v.Snapshot.Record.Claim.NodeAffinity
	}
	return serve.Job()
}

// serve starts the pod that files are taken from.
func (f *fetch) serve(ctx context.Context) error {
	job, err := f.volume.serving(f.plan)
	if err != nil {
		return err
	}
	f.serving = true
	if err := f.cluster.StartMover(ctx, job); err != nil {
		f.serving = !errors.Is(err, catalog.ErrTaken)
		return fmt.Errorf("start mover %s/%s: %w", job.Namespace, job.Name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.plan.Timeout, errTimeout)
	defer cancel()
	pod, err := f.Reach(ctx, job.Namespace, job.Name, job.Claim, f.tell)
	f.pod = catalog.ContainerRef{Namespace: job.Namespace, Pod: pod, Container: moverContainer}
	return err
}

// clear removes all that was made on the way.
func (f *fetch) clear(ctx context.Context) error {
	if !f.serving {
		return f.cleanUp(ctx, false)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := f.cluster.RemoveMover(bounded, f.plan.Place(f.volume), f.volume.Name); err != nil {
		f.tell(catalog.Event{State: catalog.Warning, Message: "clean up: " + err.Error()})
		return err
	}
	return f.cleanUp(ctx, false)
}

// paths are what is wanted of v, relative to its root; none for all of it.
func (v Volume) paths(r Request) []string {
	if r.Local == nil || !r.Local.Dumps() {
		return r.Paths
	}
	var paths []string
	for _, d := range v.Dumps {
		paths = append(paths, d.Path)
	}
	return paths
}

// survey looks at what there is.
func (f *fetch) survey(ctx context.Context) (restic.Survey, error) {
	paths := f.volume.paths(f.plan.Request)
	served, err := f.ask(ctx, restic.Ask{Mode: restic.AskSurvey, Paths: paths, Limit: restic.MaxArchived}, io.Discard)
	s := served.Survey
	if len(s.Missing) > 0 {
		return s, absent(pick(paths, s.Missing))
	}
	if len(s.Led) > 0 {
		return s, &catalog.Failure{
			Code: catalog.CodeNotFound, Message: fmt.Sprintf("the way to %s leads through a symbolic link", quoteAll(pick(paths, s.Led))),
			Next: "name the path that it leads to",
		}
	}
	f.total = s.Bytes
	return s, err
}

// absent says that paths are not in what is restored.
func absent(paths []string) error {
	return &catalog.Failure{
		Code: catalog.CodeNotFound, Message: fmt.Sprintf("there is no %s in it", quoteAll(paths)),
		Next: "name paths as they are from the volume's root, without that of a mount",
	}
}

// pick are those of paths at the indexes.
func pick(paths []string, indexes []int) []string {
	var picked []string
	for _, i := range indexes {
		if i >= 0 && i < len(paths) {
			picked = append(picked, paths[i])
		}
	}
	return picked
}

// quoteAll are paths as a person reads them, on one line whatever is in them.
func quoteAll(paths []string) string {
	text := ""
	for i, path := range paths {
		switch {
		case i == quoted:
			return text + fmt.Sprintf(" and %d more", len(paths)-i)
		case i > 0:
			text += ", "
		}
		text += fmt.Sprintf("%q", path)
	}
	return text
}

// ask has the pod do what a says, and what it sends written to out. An error of
// out ends it. That what has come is not what was sent is an error that wraps
// errStream.
func (f *fetch) ask(ctx context.Context, a restic.Ask, out io.Writer) (restic.Served, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.Nonce = plugins.NewNonce()
	stdin, hold := io.Pipe()
	defer hold.Close()
	m := &meter{out: out, sum: sha256.New(), fail: cancel, tell: f.progress}
	reply := restic.NewReply(a.Nonce)
	err := f.Cluster.Exec(ctx, f.pod, restic.ServeArgv, io.MultiReader(bytes.NewReader(a.Stdin()), stdin), m, reply)
	if m.failed != nil {
		return restic.Served{}, m.failed
	}
	if ctx.Err() != nil {
		return restic.Served{}, context.Cause(ctx)
	}
	served, readErr := reply.Served()
	switch {
	case readErr != nil && catalog.CodeOf(err) != "":
		return served, err
	case readErr != nil:
		return served, errors.Join(fmt.Errorf("%w: %w", errStream, readErr), err)
	case len(served.Survey.Missing)+len(served.Survey.Led) > 0:
		return served, nil
	case served.Exit != 0:
		return served, fmt.Errorf("read files in %s: exit %d: %s", f.pod, served.Exit, cmp.Or(reply.Said(), "it does not say why"))
	case a.Mode == restic.AskSurvey:
		return served, nil
	case served.Bytes != m.bytes:
		return served, fmt.Errorf("%w: %d bytes have come, %d were sent", errStream, m.bytes, served.Bytes)
	case served.SHA256 != m.digest():
		return served, fmt.Errorf("%w: its SHA-256 is %s here, and was %s there", errStream, m.digest(), served.SHA256)
	}
	return served, nil
}

// progress tells how much has come.
func (f *fetch) progress(more int64) {
	f.came += more
	now := f.Now()
	if f.first.IsZero() {
		f.first, f.said = now, now
	}
	if now.Sub(f.said) < told {
		return
	}
	f.said = now
	e := catalog.Event{State: catalog.Progress, Pod: f.pod.Pod, Bytes: f.came, Total: max(f.total, f.came)}
	if took := now.Sub(f.first).Seconds(); took > 0 {
		e.Rate = int64(float64(f.came) / took)
	}
	if e.Rate > 0 {
		e.Left = time.Duration((e.Total-e.Bytes)/e.Rate) * time.Second
	}
	f.tell(e)
}

// meter counts and sums what goes through it.
type meter struct {
	out    io.Writer
	sum    hash.Hash
	fail   context.CancelCauseFunc
	tell   func(int64)
	bytes  int64
	failed error
}

// Write writes to out.
func (m *meter) Write(p []byte) (int, error) {
	m.sum.Write(p)
	m.bytes += int64(len(p))
	m.tell(int64(len(p)))
	n, err := m.out.Write(p)
	if err != nil {
		m.failed = err
		m.fail(err)
	}
	return n, err
}

func (m *meter) digest() string { return hex.EncodeToString(m.sum.Sum(nil)) }

// files takes the archive of what is wanted, and those files by themselves that
// are too large for it.
func (f *fetch) files(ctx context.Context, survey restic.Survey) error {
	to, err := newFolder(f.volume.To, f.plan.Run)
	if err != nil {
		return err
	}
	defer to.close()
	paths := f.plan.Paths
	r, err := to.receive(paths)
	if err != nil {
		return err
	}
	ask := restic.Ask{Mode: restic.AskTar, Paths: paths}
	if len(survey.Large) > 0 {
		ask.Limit = restic.MaxArchived
	}
	if err := f.archive(ctx, r, ask); err != nil {
		return err
	}
	for _, name := range survey.Large {
		if err := r.large(name, func(w io.Writer) error {
			_, err := f.ask(ctx, restic.Ask{Mode: restic.AskRaw, Paths: []string{name}}, w)
			return err
		}); err != nil {
			return err
		}
	}
	if err := r.compare(survey); err != nil {
		return err
	}
	if err := to.commit(r); err != nil {
		return err
	}
	f.brought.Files, f.brought.Bytes, f.brought.Notes = r.files, r.bytes, r.notes(survey)
	return nil
}

// archive unpacks what comes, while it comes.
func (f *fetch) archive(ctx context.Context, r *receiver, a restic.Ask) error {
	from, to := io.Pipe()
	var unpacked error
	var unpacking sync.WaitGroup
	unpacking.Go(func() {
		unpacked = r.unpack(from)
		from.CloseWithError(cmp.Or(unpacked, io.ErrClosedPipe))
	})
	_, err := f.ask(ctx, a, to)
	to.Close()
	unpacking.Wait()
	return cmp.Or(err, unpacked)
}

// dumps takes each dump by itself.
func (f *fetch) dumps(ctx context.Context) error {
	for _, d := range f.volume.Dumps {
		name, err := f.dump(ctx, d)
		if err != nil {
			return err
		}
		f.brought.Dumps = append(f.brought.Dumps, name)
		f.brought.Files, f.brought.Bytes = f.brought.Files+1, f.brought.Bytes+d.Bytes
	}
	return nil
}

// dump takes one dump and compares it with the record.
func (f *fetch) dump(ctx context.Context, d catalog.Dump) (string, error) {
	if f.plan.Local.File == "-" {
		return "-", f.raw(ctx, d, f.Out)
	}
	to, err := newFolder(f.volume.To, f.plan.Run)
	if err != nil {
		return "", err
	}
	defer to.close()
	return to.put(f.volume.dumpName(f.plan.Request, d), func(w io.Writer) error { return f.raw(ctx, d, w) })
}

// raw writes the dump to w.
func (f *fetch) raw(ctx context.Context, d catalog.Dump, w io.Writer) error {
	served, err := f.ask(ctx, restic.Ask{Mode: restic.AskRaw, Paths: []string{d.Path}}, w)
	switch {
	case err != nil:
		return err
	case served.Bytes != d.Bytes:
		return fmt.Errorf("%w: the dump of %s has %d bytes, its record says %d", errDiffers, d.What, served.Bytes, d.Bytes)
	case served.SHA256 != d.SHA256:
		return fmt.Errorf("%w: the SHA-256 of the dump of %s is %s, its record says %s", errDiffers, d.What, served.SHA256, d.SHA256)
	}
	return nil
}
