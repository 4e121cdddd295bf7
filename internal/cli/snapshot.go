package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// snapshotOptions are the flags of `snapshot`.
type snapshotOptions struct {
	scopeFlags
	progressFlags
	moverFlags
	consistency, plugin, class string
	retain, repository         string
	timezone, dryRun           string
	backupNamespace            string
	pin, wait, removeDump      bool
	dumpTimeout, timeout       time.Duration
	parallel                   int
	lockSlots                  int
	lockDir                    string
	lockTimeout                time.Duration
	output                     *output
}

const snapshotExample = `
	# Snapshot a MySQL StatefulSet, dump included, keep 7 days
	kubectl backsnap snapshot statefulset/mysql -n shop --retain 7d

	# Everything labelled tier=data in all namespaces, with off-site copy, from CI
	kubectl backsnap snapshot -A -l tier=data

	# Show exactly what would run, and touch nothing
	kubectl backsnap snapshot sts/mysql -n shop --dry-run=client`

func newSnapshot(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &snapshotOptions{
		consistency: string(snapshot.Auto), retain: "30d", dryRun: "none",
		dumpTimeout: 30 * time.Minute, timeout: time.Hour, parallel: 4, wait: true,
	}
	cmd := &cobra.Command{
		Use:     "snapshot [TYPE/NAME | CLAIM | -l SELECTOR | -A]",
		Short:   "Dump databases, cut their volumes as VolumeSnapshots, copy them off-site",
		Long:    templates.LongDesc(snapshotLong),
		Example: templates.Examples(snapshotExample),
		RunE:    func(cmd *cobra.Command, args []string) error { return runSnapshot(cmd, env, config, o, args) },
	}
	o.addFlags(cmd)
	return withEnvironment(env, cmd)
}

const snapshotLong = `
	Make restore points: dump the databases that are recognised inside their own pods, take CSI VolumeSnapshots of the
	volumes, and copy them to every restic repository that is configured.

	A workload means all claims its pods mount; no target means every claim of the namespace. Every claim in scope ends
	as protected or as skipped with a reason.`

func (o *snapshotOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.addClaims(cmd)
	addBackupNamespace(cmd, &o.backupNamespace)
	o.progressFlags.add(f)
	o.moverFlags.add(f)
	f.StringVar(&o.consistency, "consistency", o.consistency, "auto: dump what is recognised, a failed dump still gives a snapshot; application: a proven dump or nothing; crash: no exec")
	f.StringVar(&o.plugin, "plugin", "", "Application `plugin` instead of detection; none for no exec")
	f.StringVar(&o.class, "snapshot-class", "", "VolumeSnapshotClass; default: the one whose driver matches the volume")
	f.StringVar(&o.retain, "retain", o.retain, "How long to keep: days such as 30d, hours such as 12h, calendar for daily, weekly, monthly, or copied: until every copy asked for is on record")
	f.BoolVar(&o.pin, "pin", false, "Keep until the pin is taken off")
	f.BoolVar(&o.removeDump, "remove-dump", false, "Remove a dump's files from its volume once they are in a snapshot")
	f.StringVar(&o.repository, "repository", "", "Repositories to copy to, `NAME,...`, or none; default: all that are configured")
	f.StringVar(&o.timezone, "timezone", "", "Time zone of days and periods, an IANA `name`; default: the local one")
	f.DurationVar(&o.dumpTimeout, "dump-timeout", o.dumpTimeout, "The longest a dump may take")
	f.DurationVar(&o.timeout, "timeout", o.timeout, "The longest to wait until a snapshot is ready")
	f.BoolVar(&o.wait, "wait", o.wait, "Wait until the copies are made; else return once their movers are started, all of them at once")
	f.IntVar(&o.parallel, "parallel", o.parallel, "Apps at once; the volumes of one app are always cut together")
	f.IntVar(&o.lockSlots, "lock-slots", 0, "At most so many runs at once on this machine; 0: any number")
	f.StringVar(&o.lockDir, "lock-dir", "", "Where the slots are; default: backsnap in the user's cache directory")
	f.DurationVar(&o.lockTimeout, "lock-timeout", 0, "How long to wait for a namespace or slot that is busy")
	f.StringVar(&o.dryRun, "dry-run", o.dryRun, "none, or client: print the plan and touch nothing")
	o.output = addOutput(cmd)
}

// request turns the flags into what the verbs want.
func (o *snapshotOptions) request(env *Env, run catalog.Run) (r snapshot.Request, note string, err error) {
	r = snapshot.Request{Run: run, Plugin: o.plugin, Class: o.class, Pin: o.pin, RemoveDump: o.removeDump, DumpTimeout: o.dumpTimeout, Timeout: o.timeout, Parallel: o.parallel}
	if r.Effort, err = snapshot.ParseEffort(o.consistency); err != nil {
		return r, "", err
	}
	if r.Retain, err = catalog.ParseRetain(o.retain); err != nil {
		return r, "", err
	}
	if r.Zone, note, err = zone(o.timezone, env.Getenv, localtime); err != nil {
		return r, "", err
	}
	return r, note, o.check()
}

// check refuses values that make no sense.
func (o *snapshotOptions) check() error {
	switch {
	case o.dryRun != "none" && o.dryRun != "client":
		return fmt.Errorf("dry-run %q: want none or client", o.dryRun)
	case o.parallel < 1:
		return fmt.Errorf("parallel %d: want at least 1", o.parallel)
	case o.dumpTimeout < time.Second || o.timeout < time.Second:
		return fmt.Errorf("--dump-timeout and --timeout: want at least 1s")
	case o.lockSlots < 0 || o.lockTimeout < 0:
		return fmt.Errorf("--lock-slots and --lock-timeout must not be negative")
	}
	return o.moverFlags.check(o.backupNamespace)
}

func runSnapshot(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *snapshotOptions, args []string) error {
	run, err := catalog.NewRun(env.Now(), env.Random)
	if err != nil {
		return err
	}
	namespace, err := currentNamespace(config)
	if err != nil {
		return err
	}
	s := &session{env: env, config: config, options: o}
	if err := s.read(run, namespace, args); err != nil {
		return usageError(cmd, err)
	}
	r, err := s.do(cmd.Context())
	if err != nil {
		return s.fail(err)
	}
	return s.print(r)
}

// read reads the command line; nothing is asked of the cluster.
func (s *session) read(run catalog.Run, namespace string, args []string) (err error) {
	o := s.options
	if s.request, s.note, err = o.request(s.env, run); err != nil {
		return err
	}
	if s.printer, err = o.output.printer(); err != nil {
		return err
	}
	if s.progress, err = o.progressFlags.show(s.env); err != nil {
		return err
	}
	if s.repositories, err = offsite.ParseRepositories(o.repository); err != nil {
		return err
	}
	chosen, err := o.choose(args, namespace)
	if err != nil {
		return err
	}
	s.request.Targets, s.request.Selects, s.request.Excludes = chosen.targets, chosen.claim, chosen.excluded
	s.scope = chosen.scope
	s.scope.BackupNamespace, s.scope.InNamespace = o.backupNamespace, o.inNamespace
	return nil
}
