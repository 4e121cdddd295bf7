package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// filesFlags say that some files alone are wanted, or that what is wanted
// comes to this machine.
type filesFlags struct {
	files       []string
	toDir       string
	dumpTo, one string
}

func (f *filesFlags) add(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.files, "file", nil, "Only these files or folders of each volume, `PATH,...` from its root; a comma in a name is \\,. A new claim gets them from a copy")
	flags.StringVar(&f.toDir, "to-dir", "", "Bring the files into this `folder` of this machine, all of them or those of --file; nothing there is overwritten")
	flags.StringVar(&f.dumpTo, "dump-to", "", "Bring the set's dump of a database into this `file` of this machine; DIR/ takes all dumps; - is standard output")
	flags.StringVar(&f.one, "dump", "", "With --dump-to: only the dump of this `database`; or globals, users, as describe calls it")
}

// wantFiles adds what the flags want to r.
func (o *restoreOptions) wantFiles(env *Env, r *restore.Request) (err error) {
	if r.Paths, err = restore.ParsePaths(o.files); err != nil {
		return err
	}
	switch {
	case o.one != "" && o.dumpTo == "":
		return errors.New("--dump without --dump-to: say where it is to go")
	case o.dumpTo != "" && o.toDir != "":
		return errors.New("--dump-to together with --to-dir: want dumps or files")
	case o.dumpTo != "" && len(o.files) > 0:
		return errors.New("--dump-to together with --file: want dumps or files")
	case o.dumpTo == "" && o.toDir == "":
		return nil
	case o.toPVC != "" || o.toNamespace != "":
		return errors.New("--to-pvc and --to-namespace are for new claims: want them, or --to-dir or --dump-to")
	case o.output.format == "name":
		return errors.New("output format \"name\" is for what is made in the cluster")
	case o.dumpTo == "-" && o.output.format != "":
		return errors.New("--dump-to - together with --output: both write to standard output")
	case o.dumpTo == "-" && terminalWidth(inner(env.Out)) > 0:
		return errors.New("--dump-to -: standard output is a terminal, which a dump is not for; name a file, or redirect it")
	}
	r.Local = &restore.Local{Dir: env.file(o.toDir), File: env.file(o.dumpTo), Dump: o.one}
	if info, err := os.Stat(r.Local.File); err == nil && r.Local.Dumps() {
		r.Local.Folder = info.IsDir()
	}
	return nil
}

// inner is the writer below an outlet: that nobody reads it is then an error.
func inner(w io.Writer) io.Writer {
	if o, ok := w.(*outlet); ok {
		return o.Writer
	}
	return w
}

// file is the name of a file of this machine as it is from where the process
// stands; "" and - are themselves.
func (e *Env) file(name string) string {
	if name == "" || name == "-" || e.Dir == "" || filepath.IsAbs(name) {
		return name
	}
	joined := filepath.Join(e.Dir, name)
	if strings.HasSuffix(name, "/") {
		joined += "/"
	}
	return joined
}

// bring is a restore to this machine, to its exit code.
func (r *restoring) bring(ctx context.Context) error {
	doc, err := r.fetch(ctx)
	if err != nil {
		doc = r.newFilesDocument()
		doc.Result, doc.ExitCode = "Failed", exitCode(err)
		doc.blame(err)
		if r.printer == nil {
			return err
		}
		return errors.Join(err, printDocument(r.env.Out, r.printer, doc))
	}
	if err := r.printFiles(doc); err != nil {
		return err
	}
	if !r.dry() {
		r.progress.Result(r.env.Now(), doc.ending())
	}
	return r.env.end(doc.failures, doc.ExitCode)
}

// fetch plans, and unless that is all that was asked for, runs. An error says
// that nothing was done.
func (r *restoring) fetch(ctx context.Context) (doc filesDoc, err error) {
	if r.cluster, err = r.env.Connect(r.config); err != nil {
		return doc, err
	}
	if r.plan, err = restore.MakePlan(ctx, r.cluster, r.request); err != nil {
		return doc, err
	}
	if r.dry() {
		return r.triedFiles(ctx)
	}
	held, release, err := r.hold(ctx, r.plan.ToNamespace, r.printFilesPlan, r.check)
	if err != nil {
		return doc, err
	}
	defer r.progress.Close()
	r.sweepFiles(held)
	f := restore.Fetching{Cluster: r.cluster, Follow: r.follow, Reach: r.reach, Now: r.env.Now, Out: inner(r.env.Out)}
	brought, err := f.Fetch(held, r.plan, r.progress)
	return r.filesDocument(brought, errors.Join(err, release())), nil
}

// sweepFiles removes what earlier runs have left where this one works.
func (r *restoring) sweepFiles(ctx context.Context) {
	s := r.sweeper(func(restore.Volume) bool { return true })
	s.start(ctx, s.copies)()
}

// printFiles writes what has come, or what the plan is.
func (r *restoring) printFiles(doc filesDoc) error {
	switch {
	case r.printer != nil:
		return printDocument(r.env.Out, r.printer, doc)
	case r.dry():
		r.printFilesPlan(r.env.Out)
		return nil
	case r.options.dumpTo == "-":
		return nil
	}
	return doc.printSentences(r.env.Out)
}

// printFilesPlan writes what was found, and where it will come.
func (r *restoring) printFilesPlan(w io.Writer) {
	r.printFound(w)
	for _, v := range r.plan.Volumes {
		what := "all files"
		switch {
		case len(v.Dumps) > 0:
			names := make([]string, len(v.Dumps))
			for i, d := range v.Dumps {
				names[i] = d.What
			}
			what = "dumps of " + strings.Join(names, ", ")
		case len(r.plan.Paths) > 0:
			what = printable(strings.Join(r.plan.Paths, ", "))
		}
		to := v.To
		if r.options.dumpTo == "-" {
			to = "standard output"
		}
		fmt.Fprintf(w, "  %s -> %s  %s  from %s\n", v.Snapshot.Claim, printable(cmp.Or(to, ".")), what, fromText(v))
		for _, note := range v.Notes {
			fmt.Fprintf(w, "    note    %s\n", note)
		}
	}
	fmt.Fprintln(w)
}

// reach is how a mover is waited for.
func (r *restoring) reach(ctx context.Context, namespace, name, claim string, tell func(catalog.Event)) (string, error) {
	return offsite.Reach(ctx, r.cluster, namespace, name, claim, tell)
}
