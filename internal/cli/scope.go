package cli

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// scopeFlags say which claims or snapshots a command is about.
type scopeFlags struct {
	all             bool
	labels, fields  string
	exclude, files  []string
	recursive       bool
	ofSnapshots     bool // the command is about snapshots, else about claims
	standardInput   func() io.Reader
	fieldsThatExist []string
}

// Fields that --field-selector knows.
var (
	claimFields    = []string{"metadata.name", "metadata.namespace", "spec.storageClassName", "spec.volumeName", "status.phase"}
	snapshotFields = []string{"metadata.name", "metadata.namespace", "spec.source.persistentVolumeClaimName", "spec.volumeSnapshotClassName", "status.readyToUse"}
)

// addClaims adds the flags to a command about claims.
func (f *scopeFlags) addClaims(cmd *cobra.Command) {
	f.fieldsThatExist = claimFields
	f.add(cmd, "claims")
	cmd.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "`Files`, folders or URLs with manifests, - for standard input: the claims, workloads and VolumeSnapshots in them name the claims")
}

// addSnapshots adds the flags to a command about snapshots, which takes
// vs/NAME and run/ID too.
func (f *scopeFlags) addSnapshots(cmd *cobra.Command) {
	f.ofSnapshots, f.fieldsThatExist = true, snapshotFields
	f.add(cmd, "snapshots")
	cmd.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "`Files`, folders or URLs with manifests, - for standard input: the claims, workloads and VolumeSnapshots in them name the snapshots")
}

func (f *scopeFlags) add(cmd *cobra.Command, what string) {
	f.standardInput = cmd.InOrStdin
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all-namespaces", "A", false, "Every namespace of the cluster")
	flags.StringVarP(&f.labels, "selector", "l", "", "Label `selector`: only "+what+" with such labels")
	flags.StringVar(&f.fields, "field-selector", "", "Field `selector`: only "+what+" with such "+strings.Join(f.fieldsThatExist, ", "))
	flags.StringSliceVar(&f.exclude, "exclude-namespace", nil, "Namespaces to leave out, `globs` such as kube-*")
	flags.BoolVarP(&f.recursive, "recursive", "R", false, "Look for manifests in the folders below those of --filename too")
}

func addBackupNamespace(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVar(namespace, "backup-namespace", offsite.DefaultBackupNamespace, "Namespace of the repositories' Secrets, in which the movers run")
}

// selection is what the arguments and flags of a command choose.
type selection struct {
	targets []snapshot.Target // none: all that scope covers
	scope   catalog.Scope
	labels  labels.Selector
	fields  fields.Selector
	exclude []string // globs of namespaces
}

// choose reads the arguments and flags. namespace is the one that the
// kubeconfig or -n names. Nothing is asked of the cluster.
func (f *scopeFlags) choose(args []string, namespace string) (s selection, err error) {
	s = selection{scope: catalog.Scope{All: f.all}, exclude: f.exclude}
	if s.labels, err = labels.Parse(f.labels); err != nil {
		return s, fmt.Errorf("selector %q: %w", f.labels, err)
	}
	if s.fields, err = f.parseFields(); err != nil {
		return s, err
	}
	for _, glob := range f.exclude {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return s, fmt.Errorf("exclude-namespace %q: want a name, with * and ? for what varies", glob)
		}
	}
	if s.targets, err = f.readTargets(args, namespace); err != nil {
		return s, err
	}
	named, err := f.readFiles(namespace)
	if err != nil {
		return s, err
	}
	s.targets = append(s.targets, named...)
	if !f.all {
		s.scope.Namespaces = namespacesOf(s.targets, namespace)
		return s, nil
	}
	for i := range s.targets {
		if s.targets[i].Kind != kindRun { // one run may work in many namespaces
			return s, errors.New("--all-namespaces together with targets: want one or the other")
		}
		s.targets[i].Namespace = ""
	}
	return s, nil
}

// chooseSome is choose for a command that wants to be told what it is about.
func (f *scopeFlags) chooseSome(args []string, namespace string) (selection, error) {
	if len(args)+len(f.files) == 0 && f.labels == "" && f.fields == "" {
		return selection{}, errors.New("nothing is named: want vs/NAME, run/ID, another target or a selector")
	}
	return f.choose(args, namespace)
}

func (f *scopeFlags) parseFields() (fields.Selector, error) {
	selector, err := fields.ParseSelector(f.fields)
	if err != nil {
		return nil, fmt.Errorf("field selector %q: %w", f.fields, err)
	}
	for _, r := range selector.Requirements() {
		if !slices.Contains(f.fieldsThatExist, r.Field) {
			return nil, fmt.Errorf("field selector %q: no field %q, there are %s", f.fields, r.Field, strings.Join(f.fieldsThatExist, ", "))
		}
	}
	return selector, nil
}

// namespacesOf are those of the targets, each once, or namespace if there are none.
func namespacesOf(targets []snapshot.Target, namespace string) []string {
	if len(targets) == 0 {
		return []string{namespace}
	}
	var names []string
	for _, t := range targets {
		names = append(names, t.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// excluded is why namespace is left out, "" where it is not.
func (s selection) excluded(namespace string) string {
	for _, glob := range s.exclude {
		if ok, err := path.Match(glob, namespace); ok && err == nil {
			return "its namespace is left out by --exclude-namespace=" + glob
		}
	}
	return ""
}

// claim reports whether the selectors choose c. Targets and excluded
// namespaces are the plan's to judge: it tells why a claim is left out.
func (s selection) claim(c catalog.Claim) bool {
	return s.labels.Matches(labels.Set(c.Labels)) && s.fields.Matches(fields.Set{
		"metadata.name": c.Name, "metadata.namespace": c.Namespace,
		"spec.storageClassName": c.StorageClass, "spec.volumeName": c.Volume, "status.phase": c.Phase,
	})
}

// snapshot reports whether a restore point of scope is chosen: by selectors,
// targets, and not in an excluded namespace.
func (s selection) snapshot(v catalog.Snapshot) bool {
	return s.excluded(v.Namespace) == "" && s.labels.Matches(labels.Set(v.Labels())) && s.targeted(v) && s.fields.Matches(fields.Set{
		"metadata.name": v.Name, "metadata.namespace": v.Namespace,
		"spec.source.persistentVolumeClaimName": v.Claim, "spec.volumeSnapshotClassName": v.Class, "status.readyToUse": strconv.FormatBool(v.Ready),
	})
}

func (s selection) targeted(v catalog.Snapshot) bool {
	return len(s.targets) == 0 || slices.ContainsFunc(s.targets, func(t snapshot.Target) bool { return means(t, v) })
}

// means reports whether v is among what t means. A run without a namespace is
// one of any.
func means(t snapshot.Target, v catalog.Snapshot) bool {
	if t.Namespace != "" && t.Namespace != v.Namespace {
		return false
	}
	switch t.Kind {
	case "namespace":
		return true
	case "pvc":
		return v.Claim == t.Name
	case kindSnapshot:
		return v.Name == t.Name
	case kindRun:
		return string(v.Run) == t.Name
	}
	return slices.Contains(strings.Split(v.App(), "+"), t.String())
}

// begin is what each run that changes something has: its id, and the namespace
// that is meant where none is said.
func begin(env *Env, config *genericclioptions.ConfigFlags) (catalog.Run, string, error) {
	run, err := catalog.NewRun(env.Now(), env.Random)
	if err != nil {
		return "", "", err
	}
	namespace, err := currentNamespace(config)
	return run, namespace, err
}

func currentNamespace(config *genericclioptions.ConfigFlags) (string, error) {
	namespace, _, err := config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", KubeconfigError(err)
	}
	return namespace, nil
}

// contextName is the context that is used, for people.
func contextName(config *genericclioptions.ConfigFlags) string {
	if name := *config.Context; name != "" {
		return name
	}
	raw, err := config.ToRawKubeConfigLoader().RawConfig()
	if err != nil || raw.CurrentContext == "" {
		return "in-cluster"
	}
	return raw.CurrentContext
}

// KubeconfigError is err, with which the kubeconfig could not be read, as a
// person needs to see it.
func KubeconfigError(err error) error {
	if clientcmd.IsEmptyConfig(err) {
		return errors.New("no cluster is configured: name a kubeconfig with --kubeconfig or $KUBECONFIG")
	}
	return fmt.Errorf("read kubeconfig: %w", err)
}

// Kinds of targets that are no claims and no workloads.
const (
	kindSnapshot = "vs"
	kindRun      = "run"
)

// whereFlags are the flags with which another command finds what lies in
// scope.
func whereFlags(scope catalog.Scope) string {
	text := " -A"
	if !scope.All && len(scope.Namespaces) == 1 {
		text = " -n " + scope.Namespaces[0]
	}
	if scope.BackupNamespace != offsite.DefaultBackupNamespace {
		text += " --backup-namespace=" + scope.BackupNamespace
	}
	return text
}

// kinds are the TYPEs of the command line and what they mean.
var kinds = map[string]string{
	"statefulset": "statefulset", "statefulsets": "statefulset", "sts": "statefulset",
	"deployment": "deployment", "deployments": "deployment", "deploy": "deployment",
	"daemonset": "daemonset", "daemonsets": "daemonset", "ds": "daemonset",
	"pod": "pod", "pods": "pod", "po": "pod",
	"persistentvolumeclaim": "pvc", "persistentvolumeclaims": "pvc", "pvc": "pvc",
	"namespace": "namespace", "namespaces": "namespace", "ns": "namespace",
	"volumesnapshot": kindSnapshot, "volumesnapshots": kindSnapshot, "vs": kindSnapshot,
	"run": kindRun, "runs": kindRun,
}

// kindOf is the kind that a TYPE of the command line means, with or without
// its group as in kubectl's sts.apps; "" for none.
func kindOf(text string) string {
	text = strings.ToLower(text)
	for _, group := range []string{".apps", ".snapshot.storage.k8s.io"} {
		text = strings.TrimSuffix(text, group)
	}
	return kinds[text]
}

// readTargets reads TYPE/NAME and CLAIM arguments; a bare name is a claim.
func (f *scopeFlags) readTargets(args []string, namespace string) ([]snapshot.Target, error) {
	var found []snapshot.Target
	for _, arg := range args {
		kind, name, typed := strings.Cut(arg, "/")
		if !typed {
			kind, name = "pvc", arg
		}
		known := kindOf(kind)
		if known == "" || name == "" || strings.Contains(name, "/") || !f.takes(known) {
			return nil, fmt.Errorf("target %q: want TYPE/NAME or the name of a claim, TYPE one of %s", arg, f.types())
		}
		if known == kindRun {
			if _, err := catalog.ParseRun(name); err != nil {
				return nil, err
			}
		}
		t := snapshot.Target{Namespace: namespace, Kind: known, Name: name}
		if known == "namespace" {
			t.Namespace = name
		}
		found = append(found, t)
	}
	return found, nil
}

// takes reports whether the command takes targets of that kind.
func (f *scopeFlags) takes(kind string) bool {
	return f.ofSnapshots || kind != kindSnapshot && kind != kindRun
}

func (f *scopeFlags) types() string {
	types := "statefulset (sts), deployment (deploy), daemonset (ds), pod, pvc, namespace (ns)"
	if f.ofSnapshots {
		types += ", volumesnapshot (vs), run"
	}
	return types
}

// readFiles are the targets that manifests name. What is neither a claim, a
// workload, a namespace nor a VolumeSnapshot is passed over, but not all of it
// may be.
func (f *scopeFlags) readFiles(namespace string) ([]snapshot.Target, error) {
	if len(f.files) == 0 {
		return nil, nil
	}
	builder := resource.NewLocalBuilder().Unstructured().ContinueOnError().Flatten()
	for _, file := range f.files {
		if file == "-" {
			builder = builder.Stream(f.standardInput(), "standard input")
			continue
		}
		builder = builder.FilenameParam(false, &resource.FilenameOptions{Filenames: []string{file}, Recursive: f.recursive})
	}
	infos, err := builder.Do().Infos()
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var found []snapshot.Target
	var passed []string
	for _, info := range infos {
		object, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			continue // a local builder of unstructured objects makes no others
		}
		if t, ok := f.manifest(object, namespace); ok {
			found = append(found, t)
		} else {
			passed = append(passed, strings.ToLower(object.GetKind())+"/"+object.GetName())
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("manifests in %s name no claim, workload, namespace or VolumeSnapshot, but %s", strings.Join(f.files, ", "), noneOr(passed))
	}
	return found, nil
}

func noneOr(names []string) string {
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// manifest is the target that one object means. To a command about claims a
// VolumeSnapshot means the claim it was taken of.
func (f *scopeFlags) manifest(object *unstructured.Unstructured, namespace string) (snapshot.Target, bool) {
	t := snapshot.Target{Namespace: object.GetNamespace(), Kind: kindOf(object.GetKind()), Name: object.GetName()}
	if t.Namespace == "" {
		t.Namespace = namespace
	}
	switch {
	case t.Kind == "" || t.Kind == kindRun || t.Name == "":
		return t, false
	case t.Kind == "namespace":
		t.Namespace = t.Name
	case t.Kind == kindSnapshot && !f.ofSnapshots:
		claim, _, err := unstructured.NestedString(object.Object, "spec", "source", "persistentVolumeClaimName")
		if err != nil || claim == "" {
			return t, false
		}
		t.Kind, t.Name = "pvc", claim
	}
	return t, true
}
