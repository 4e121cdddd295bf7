package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

type repoCreateOptions struct {
	workFlags
	clusterName                    string
	envFile, caCert, claim, dryRun string
	init                           bool
	output                         *output
}

const repoCreateLong = `
	Make the Secret of a repository from a file with restic's environment, and the backup namespace if there is none. A
	Secret that is there and says the same is unchanged; one that says something else is left alone, and refused.

	The file has KEY=VALUE lines, empty lines, and comments that begin with #. A value stands as it is: nothing is escaped
	or expanded. Single or double quotes that enclose it are taken off; white space at an end wants them. It needs
	RESTIC_REPOSITORY, RESTIC_PASSWORD and what else restic takes, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.

	Keys may be left out where an identity supplies them: --mover-service-account names the ServiceAccount of the movers
	that a cloud knows (EKS, GKE, AKS). If a variable ends in _TOKEN_FILE, such as AWS_WEB_IDENTITY_TOKEN_FILE, a token of
	it for sts.amazonaws.com lies at ` + restic.TokenPath + `.

	A repository may lie on a PersistentVolumeClaim of the backup namespace: --claim names it, movers mount it at
	` + restic.ClaimPath + `, and RESTIC_REPOSITORY is that path, or one below it.

	With --init the repository itself is made too, as repo init does, by a mover that its flags shape.`

const repoCreateExample = `
	# The Secret of a repository called main, and the repository itself
	kubectl backsnap repo create main --env-file=main.env --init

	# What would be made; the server is asked whether it would take it
	kubectl backsnap repo create main --env-file=main.env --dry-run=server`

func newRepoCreate(env *Env, config *genericclioptions.ConfigFlags) *cobra.Command {
	o := &repoCreateOptions{}
	cmd := &cobra.Command{
		Use:     "create NAME --env-file=FILE",
		Short:   "Make the Secret of a repository",
		Long:    templates.LongDesc(repoCreateLong),
		Example: templates.Examples(repoCreateExample),
		Args:    oneName,
		RunE:    func(cmd *cobra.Command, args []string) error { return runRepoCreate(cmd, env, config, o, args[0]) },
	}
	o.addWork(cmd)
	f := cmd.Flags()
	f.StringVar(&o.envFile, "env-file", "", "`File` with restic's environment; - is standard input")
	f.StringVar(&o.caCert, "ca-cert", "", "`File` with the certificates (PEM) that restic trusts instead of the image's")
	f.StringVar(&o.claim, "claim", "", "PersistentVolumeClaim in the backup namespace that the repository lies on")
	f.BoolVar(&o.init, "init", false, "Initialise the repository too, as repo init does")
	addClusterName(cmd, &o.clusterName)
	f.StringVar(&o.dryRun, "dry-run", "none", "none, client: only say what would be made, or server: ask the server too")
	o.output = addOutput(cmd)
	return withEnvironment(env, cmd)
}

// addWork adds the flags of the work that comes with --init, and says so, but
// of those that count without it too.
func (o *repoCreateOptions) addWork(cmd *cobra.Command) {
	o.workFlags.add(cmd, 10*time.Minute, false)
	always := []string{"backup-namespace", "color", "progress", "quiet"}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(always, f.Name) {
			f.Usage = "With --init: " + f.Usage
		}
	})
	cmd.Flags().Lookup("mover-service-account").Usage = "ServiceAccount of all movers of this repository, in the backup namespace"
}

// request reads the files and the flags.
func (o *repoCreateOptions) request(env *Env, name string) (offsite.CreateRequest, error) {
	r := offsite.CreateRequest{
		Name: name, Namespace: o.backupNamespace, ClusterName: o.clusterName, ServiceAccount: o.serviceAccount, Claim: o.claim,
		Dry: o.dryRun == "server", Plan: o.dryRun == "client",
	}
	switch {
	case o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server":
		return r, fmt.Errorf("dry-run %q: want none, client or server", o.dryRun)
	case o.envFile == "":
		return r, errors.New("--env-file is missing")
	}
	if err := o.workFlags.check(); err != nil {
		return r, err
	}
	text, err := o.readFile(env)
	if err != nil {
		return r, fmt.Errorf("--env-file: %w", err)
	}
	if r.Entries, err = restic.ReadEnv(text); err != nil {
		return r, fmt.Errorf("--env-file %s: %w", o.envFile, err)
	}
	if o.claim != "" && r.Entries["RESTIC_REPOSITORY"] == nil {
		r.Entries["RESTIC_REPOSITORY"] = []byte(restic.ClaimPath)
	}
	return r, o.addCertificates(env, r.Entries)
}

func (o *repoCreateOptions) readFile(env *Env) ([]byte, error) {
	if o.envFile == "-" {
		return io.ReadAll(env.In)
	}
	return env.ReadFile(o.envFile)
}

// caFile is the entry that holds certificates.
const caFile = "ca.crt"

func (o *repoCreateOptions) addCertificates(env *Env, entries map[string][]byte) error {
	if o.caCert == "" {
		return nil
	}
	if entries["RESTIC_CACERT"] != nil {
		return errors.New("--ca-cert together with RESTIC_CACERT: want one of them")
	}
	text, err := env.ReadFile(o.caCert)
	if err != nil {
		return fmt.Errorf("--ca-cert: %w", err)
	}
	entries[caFile], entries["RESTIC_CACERT"] = text, []byte(restic.RepositoryPath+"/"+caFile)
	return nil
}

func runRepoCreate(cmd *cobra.Command, env *Env, config *genericclioptions.ConfigFlags, o *repoCreateOptions, name string) error {
	printer, err := o.output.printer()
	if err != nil {
		return usageError(cmd, err)
	}
	show, err := o.progressFlags.show(env)
	if err != nil {
		return usageError(cmd, err)
	}
	defer show.Close()
	request, err := o.request(env, name)
	if err != nil {
		return usageError(cmd, err)
	}
	cluster, err := env.Connect(config)
	if err != nil {
		return err
	}
	done, err := offsite.Create(cmd.Context(), cluster, request)
	if err != nil {
		return err
	}
	if err := o.print(env, printer, done); err != nil || !o.init || o.dryRun != "none" {
		return err
	}
	show.Close()
	return runRepoInit(cmd, env, config, &repoInitOptions{workFlags: o.workFlags, clusterName: o.clusterName, output: o.output}, name)
}

func (o *repoCreateOptions) print(env *Env, printer printers.ResourcePrinter, done offsite.Created) error {
	state := "created"
	if !done.Secret && o.dryRun != "client" {
		state = "unchanged"
	}
	note := map[string]string{"none": "", "client": " (dry run)", "server": " (server dry run)"}[o.dryRun]
	switch {
	case o.init && o.dryRun == "none" && !o.output.human():
		return nil // there is one result, and it is the repository's
	case printer != nil:
		doc := repositoryDocument(done.Repository)
		doc.State = state
		return printDocument(env.Out, printer, doc)
	case o.output.format == "name":
		fmt.Fprintf(env.Out, "secret/%s\n", done.Repository.Secret)
		return nil
	}
	if done.Namespace {
		fmt.Fprintf(env.Out, "namespace/%s created%s\n", done.Repository.Namespace, note)
	}
	fmt.Fprintf(env.Out, "secret/%s %s%s\n", done.Repository.Secret, state, note)
	if done.Repository.Cluster == "" && !o.init && o.dryRun == "none" {
		fmt.Fprintf(env.Err, "Next: %s\n", offsite.Command("repo init", done.Repository))
	}
	return nil
}
