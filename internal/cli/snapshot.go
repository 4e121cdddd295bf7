package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// snapshotOptions are the flags of `snapshot`.
type snapshotOptions struct {
	copyingFlags
	consistency, plugin, class string
	retain, timezone           string
	pin, removeDump            bool
	due                        dueFlags
	dumpTimeout, timeout       time.Duration
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
		consistency: string(snapshot.Auto), retain: "30d",
		dumpTimeout: 30 * time.Minute, timeout: time.Hour,
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
	o.add(cmd, "Apps at once, the volumes of one app always together; and then copies at once")
	f.StringVar(&o.consistency, "consistency", o.consistency, "auto: dump what is recognised, a failed dump still gives a snapshot; application: a proven dump or nothing; crash: no exec")
	f.StringVar(&o.plugin, "plugin", "", "Application `plugin` instead of detection; none for no exec")
	f.StringVar(&o.class, "snapshot-class", "", "VolumeSnapshotClass; default: the one whose driver matches the volume")
	f.StringVar(&o.retain, "retain", o.retain, "How long to keep: days such as 30d, hours such as 12h, calendar for daily, weekly, monthly, or copied: until every copy asked for is on record")
	f.BoolVar(&o.pin, "pin", false, "Keep until the pin is taken off")
	f.BoolVar(&o.removeDump, "remove-dump", false, "Remove a dump's files from its volume once they are in a snapshot")
	f.StringVar(&o.timezone, "timezone", "", "Time zone of days and periods, an IANA `name`; default: the local one")
	f.BoolVar(&o.due.only, "if-due", false, "Take only the apps that are due, by annotation "+catalog.AnnotationSchedule+" of a claim, else of its namespace, else by --schedule, and by the restore points that there are")
	f.StringVar(&o.due.table, "schedule", "", "With --if-due: the `table` of what has no annotation, five fields or @hourly, @daily, @weekly, @monthly; none: only what has one is taken")
	f.DurationVar(&o.dumpTimeout, "dump-timeout", o.dumpTimeout, "The longest a dump may take")
	f.DurationVar(&o.timeout, "timeout", o.timeout, "The longest to wait until a snapshot is ready")
}

// request turns the flags into what the verbs want.
func (o *snapshotOptions) request(env *Env, run catalog.Run) (r snapshot.Request, note string, err error) {
	r = snapshot.Request{Run: run, Plugin: o.plugin, Class: o.class, Pin: o.pin, RemoveDump: o.removeDump, DumpTimeout: o.dumpTimeout, Timeout: o.timeout, Parallel: o.parallel}
	if r.Cache = o.cacheClaim; !o.inNamespace {
		r.CacheIn = o.backupNamespace
	}
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
	if o.dumpTimeout < time.Second || o.timeout < time.Second {
		return fmt.Errorf("--dump-timeout and --timeout: want at least 1s")
	}
	return o.due.check()
}

func runSnapshot(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *snapshotOptions, args []string) error {
	run, namespace, err := begin(env, config)
	if err != nil {
		return err
	}
	s := &session{copying: copying{env: env, config: config, flags: &o.copyingFlags, kind: kindOfSnapshots, id: run}, options: o}
	if err := s.read(namespace, args); err != nil {
		return usageError(cmd, err)
	}
	r, err := s.do(cmd.Context())
	if err != nil {
		return s.fail(err)
	}
	return s.conclude(r, s.printPlan)
}

// read reads the command line; nothing is asked of the cluster.
func (s *session) read(namespace string, args []string) (err error) {
	if s.request, s.note, err = s.options.request(s.env, s.id); err != nil {
		return err
	}
	if err := s.copying.read(); err != nil {
		return err
	}
	chosen, err := s.flags.choose(args, namespace)
	if err != nil {
		return err
	}
	s.request.Targets, s.request.Selects, s.request.Excludes = chosen.targets, chosen.claim, chosen.excluded
	s.scope = chosen.scope
	s.scope.BackupNamespace, s.scope.InNamespace = s.flags.backupNamespace, s.flags.inNamespace
	return nil
}
