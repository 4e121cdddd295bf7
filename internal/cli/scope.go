package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
)

// scopeFlags say which claims or snapshots a command is about.
type scopeFlags struct {
	all      bool
	selector string
}

// add adds the flags; what is what the selector is asked of.
func (f *scopeFlags) add(cmd *cobra.Command, what string) {
	cmd.Flags().BoolVarP(&f.all, "all-namespaces", "A", false, "Every namespace of the cluster")
	cmd.Flags().StringVarP(&f.selector, "selector", "l", "", "Label `selector`: only "+what+" with such labels")
}

func addBackupNamespace(cmd *cobra.Command, namespace *string) {
	cmd.Flags().StringVar(namespace, "backup-namespace", offsite.DefaultBackupNamespace, "Namespace of the repositories' Secrets, in which the movers run")
}

// targets reads the arguments of a command; scope is what they and the flags
// cover. namespace is the one that the kubeconfig or -n names.
func (f *scopeFlags) targets(args []string, namespace string) ([]snapshot.Target, catalog.Scope, error) {
	scope := catalog.Scope{All: f.all}
	if f.all && len(args) > 0 {
		return nil, scope, errors.New("--all-namespaces together with targets: want one or the other")
	}
	found, err := readTargets(args, namespace)
	if err != nil || f.all {
		return found, scope, err
	}
	for _, t := range found {
		scope.Namespaces = append(scope.Namespaces, t.Namespace)
	}
	if len(found) == 0 {
		scope.Namespaces = []string{namespace}
	}
	slices.Sort(scope.Namespaces)
	scope.Namespaces = slices.Compact(scope.Namespaces)
	return found, scope, nil
}

func currentNamespace(config *genericclioptions.ConfigFlags) (string, error) {
	namespace, _, err := config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", KubeconfigError(err)
	}
	return namespace, nil
}

// KubeconfigError is err, with which the kubeconfig could not be read, as a
// person needs to see it.
func KubeconfigError(err error) error {
	if clientcmd.IsEmptyConfig(err) {
		return errors.New("no cluster is configured: name a kubeconfig with --kubeconfig or $KUBECONFIG")
	}
	return fmt.Errorf("read kubeconfig: %w", err)
}

// selects is the selector as a test of labels, nil for none.
func (f *scopeFlags) selects() (func(map[string]string) bool, error) {
	if f.selector == "" {
		return nil, nil
	}
	selector, err := labels.Parse(f.selector)
	if err != nil {
		return nil, fmt.Errorf("selector %q: %w", f.selector, err)
	}
	return func(set map[string]string) bool { return selector.Matches(labels.Set(set)) }, nil
}

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
}

// readTargets reads TYPE/NAME and CLAIM arguments; a bare name is a claim.
func readTargets(args []string, namespace string) ([]snapshot.Target, error) {
	var found []snapshot.Target
	for _, arg := range args {
		kind, name, typed := strings.Cut(arg, "/")
		if !typed {
			kind, name = "pvc", arg
		}
		// sts.apps is kubectl's spelling of a type with its group.
		known, ok := kinds[strings.ToLower(strings.TrimSuffix(kind, ".apps"))]
		if !ok || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("target %q: want TYPE/NAME or the name of a claim, TYPE one of statefulset (sts), deployment (deploy), daemonset (ds), pod, pvc, namespace (ns)", arg)
		}
		t := snapshot.Target{Namespace: namespace, Kind: known, Name: name}
		if known == "namespace" {
			t.Namespace = name
		}
		found = append(found, t)
	}
	return found, nil
}
