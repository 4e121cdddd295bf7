package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// probeTimeout bounds a probe: it only reads.
const probeTimeout = time.Minute

// proof is a dump that lies in one of the app's volumes, proven.
type proof struct {
	candidate Candidate
	claim     string // the volume it lies in
	subPath   string // of that volume, as the container mounts it
	plugin    string
	dump      plugins.Dump
	began     time.Time
	done      time.Time
}

// prepare makes the app's data consistent and says what class the cut will
// have. With an error it is crash or fuzzy.
func (a *taking) prepare(ctx context.Context) error {
	a.consistency, a.reason = a.unaided(a.app.Reason)
	if a.app.Hook == nil {
		return nil
	}
	err := a.dumpAll(ctx)
	if err != nil {
		a.consistency, a.reason = a.unaided(rootCause(err))
		return err
	}
	a.consistency = catalog.Application
	a.reason = fmt.Sprintf("proven dump of %s in %s", a.app.Hook.Plugin.Name, a.proofs[0].claim)
	return nil
}

// unaided is the class of a cut without any help from the application.
func (a *taking) unaided(why string) (catalog.Consistency, string) {
	if len(a.app.Volumes) > 1 {
		return catalog.Fuzzy, why
	}
	return catalog.Crash, why
}

// rootCause is the shortest true thing to say in a record.
func rootCause(err error) string {
	var f *catalog.Failure
	if errors.As(err, &f) && f.Cause != nil {
		return f.Cause.Error()
	}
	return err.Error()
}

// dumpAll dumps every primary among the candidates.
func (a *taking) dumpAll(ctx context.Context) error {
	chosen, err := a.probeAll(ctx)
	if err != nil {
		return err
	}
	for _, c := range chosen {
		p, err := a.dump(ctx, c)
		if err != nil {
			a.event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.Failed, Pod: c.Pod, Message: err.Error()})
			return a.hookFailure(ctx, c.ContainerRef, "dump", err)
		}
		a.proofs = append(a.proofs, p)
	}
	return nil
}

// probed is a candidate with what its probe said.
type probed struct {
	Candidate
	probe plugins.Probe
	err   error
}

// probeAll probes the candidates side by side and chooses whom to dump: every
// primary, else the first replica. One that could not be probed may be the
// primary: then a replica is not good enough.
func (a *taking) probeAll(ctx context.Context) ([]probed, error) {
	results := make([]probed, len(a.app.Hook.Candidates))
	var probing sync.WaitGroup
	for i, c := range a.app.Hook.Candidates {
		probing.Go(func() { results[i] = a.probe(ctx, c) })
	}
	probing.Wait()
	var primaries, replicas []probed
	var failed []error
	for _, r := range results {
		switch {
		case r.err != nil:
			failed = append(failed, a.hookFailure(ctx, r.ContainerRef, "probe", r.err))
		case r.probe.Role == plugins.Replica:
			replicas = append(replicas, r)
		default:
			primaries = append(primaries, r)
		}
	}
	switch {
	case len(primaries) > 0:
		for _, err := range failed {
			a.event(catalog.Event{Phase: catalog.PhaseProbe, State: catalog.Warning, Message: err.Error()})
		}
		return primaries, nil
	case len(failed) > 0 || len(replicas) == 0:
		for _, err := range failed {
			a.event(catalog.Event{Phase: catalog.PhaseProbe, State: catalog.Failed, Message: rootCause(err)})
		}
		return nil, errors.Join(failed...)
	}
	return replicas[:1], nil
}

func (a *taking) probe(ctx context.Context, c Candidate) probed {
	if c.NotRunning != "" {
		return probed{Candidate: c, err: &plugins.Error{Kind: plugins.Unavailable, Message: "the pod is " + c.NotRunning,
			Hint: fmt.Sprintf("kubectl describe pod %s -n %s", c.Pod, c.Namespace)}}
	}
	p, err := exec(ctx, a.cluster, c.ContainerRef, probeTimeout, a.app.Hook.Plugin.Probe, plugins.ReadProbe)
	for _, warning := range p.Warnings {
		a.event(catalog.Event{Phase: catalog.PhaseProbe, State: catalog.Warning, Pod: c.Pod, Message: warning})
	}
	return probed{Candidate: c, probe: p, err: err}
}

// dump makes and proves the dump of one database server.
func (a *taking) dump(ctx context.Context, c probed) (proof, error) {
	claim, subPath, err := c.volume(c.probe.Mount)
	if err != nil {
		return proof{}, err
	}
	started := a.now()
	a.event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.Started, Pod: c.Pod, Tool: c.probe.Tool})
	command := func(nonce string) (plugins.Command, error) {
		return a.app.Hook.Plugin.Dump(nonce, plugins.DumpRequest{Run: string(a.plan.Run), Timeout: a.plan.DumpTimeout, Barrier: true})
	}
	// The script ends itself after DumpTimeout; the margin is for its clean-up.
	d, err := exec(ctx, a.cluster, c.ContainerRef, a.plan.DumpTimeout+cleanupTimeout, command, plugins.ReadDump)
	if err != nil {
		return proof{}, err
	}
	p := proof{candidate: c.Candidate, claim: claim, subPath: subPath, plugin: a.app.Hook.Plugin.Name, dump: d, began: started, done: a.now()}
	a.event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.OK, Pod: c.Pod, Tool: d.Tool, Bytes: p.bytes(), Took: p.done.Sub(started)})
	a.tell(c.Pod, d)
	return p, nil
}

// removeDumps removes the dumps from the volumes, now that they lie in restore
// points; ^C does not keep it from that. That one stays is no reason to call
// the restore point anything else: the next dump replaces it.
func (a *taking) removeDumps(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for _, p := range a.proofs {
		command := func(nonce string) (plugins.Command, error) {
			return a.app.Hook.Plugin.Remove(nonce, string(a.plan.Run), p.dump.Dir)
		}
		n, err := exec(ctx, a.cluster, p.candidate.ContainerRef, cleanupTimeout, command, plugins.ReadRemoval)
		if err == nil && n != len(p.dump.Parts) {
			err = fmt.Errorf("%d of %d files were there", n, len(p.dump.Parts))
		}
		if err != nil {
			a.event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.Warning, Pod: p.candidate.Pod, Message: "remove dump from " + p.claim + ": " + err.Error()})
		}
	}
}

// tell reports barrier and warnings of a dump.
func (a *taking) tell(pod string, d plugins.Dump) {
	warnings := d.Warnings
	if b := d.Barrier; b != nil {
		warnings = append(warnings, b.Warnings...)
		state := catalog.OK
		if !b.Forced {
			state = catalog.Warning
		} else {
			a.barrier = b.How
		}
		a.event(catalog.Event{Phase: catalog.PhaseBarrier, State: state, Pod: pod, Message: b.How})
	}
	for _, warning := range warnings {
		a.event(catalog.Event{Phase: catalog.PhaseDump, State: catalog.Warning, Pod: pod, Message: warning})
	}
}

// volume is the claim that the container mounts at that path, and the part of
// it that it sees there.
func (c Candidate) volume(mount string) (claim, subPath string, err error) {
	for _, m := range c.Mounts {
		if path.Clean(m.Path) == path.Clean(mount) {
			return m.Claim, m.SubPath, nil
		}
	}
	return "", "", &plugins.Error{Kind: plugins.NoVolume, Message: "its data directory lies on " + mount + ", which is no volume of this snapshot",
		Hint: "snapshot the whole workload, so that the volume with the data is cut too"}
}

func (p proof) bytes() (n int64) {
	for _, part := range p.dump.Parts {
		n += part.Bytes
	}
	return n
}

// enter writes the proof into the record of a member of its set: the dumps
// themselves only where they lie.
func (p proof) enter(r *catalog.Record) {
	r.Plugin, r.Mode = p.plugin, "dump"
	r.Pod, r.Container = p.candidate.Pod, p.candidate.Container
	r.Tool = strings.TrimSpace(p.dump.Tool + " " + p.dump.ToolVersion)
	r.Server = strings.TrimSpace(p.dump.Engine + " " + p.dump.ServerVersion)
	r.Position = p.dump.Position
	if r.Claim.Name != p.claim {
		return
	}
	for _, part := range p.dump.Parts {
		r.Dumps = append(r.Dumps, catalog.Dump{What: part.What, Path: path.Join(p.subPath, part.Path), Bytes: part.Bytes, SHA256: part.SHA256})
	}
}

// exec runs one script of a plugin in a container and reads what it said.
func exec[T any](ctx context.Context, c Cluster, ref catalog.ContainerRef, timeout time.Duration,
	command func(nonce string) (plugins.Command, error), read func(nonce string, stdout []byte) (T, error),
) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	in := func(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
		return c.Exec(ctx, ref, argv, stdin, stdout, stderr)
	}
	return plugins.Run(ctx, in, nil, command, read)
}
