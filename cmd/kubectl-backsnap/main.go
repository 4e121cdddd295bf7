// Command kubectl-backsnap backs up the databases and volumes of a Kubernetes
// cluster; it is used as `kubectl backsnap`.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
	_ "time/tzdata" // period keys are days of a named zone: they must not depend on the machine

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // the logins that a kubeconfig may name
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/cli"
	"github.com/backsnap/kubectl-backsnap/internal/kube"
)

// version is set by the linker.
var version = "v0.0.0-dev"

func main() {
	// That nobody reads our output any more must not end a run half-way.
	signal.Ignore(syscall.SIGPIPE)
	// Without a kubeconfig there is no cluster: client-go would try localhost:8080.
	clientcmd.ClusterDefaults.Server = os.Getenv("KUBERNETES_MASTER")
	ctx := interruptible(context.Background())
	env := &cli.Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Now: time.Now, Getenv: os.Getenv, Random: rand.Reader, ReadFile: os.ReadFile, Program: calledAs(), Version: version,
		Connect: connect, Lock: lockRun, Hush: func() { klog.SetLogger(logr.Discard()) },
	}
	os.Exit(cli.Main(ctx, env, cli.Arguments(os.Args)))
}

// calledAs is the path by which this program was called: kubectl calls plugins by
// the path that it has found them at, a shell often by their name.
func calledAs() string {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return path
	}
	return os.Args[0]
}

// interruptible is a context that ^C or SIGTERM ends: there is still time to
// clean up. A second one ends the process at once.
func interruptible(parent context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		s := <-signals
		fmt.Fprintf(os.Stderr, "\n%v: cleaning up; once more ends at once\n", s)
		cancel(&catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal " + s.String()})
		<-signals
		os.Exit(130)
	}()
	return ctx
}

func connect(getter genericclioptions.RESTClientGetter) (cli.Cluster, error) {
	config, err := getter.ToRESTConfig()
	if err != nil {
		return nil, cli.KubeconfigError(err)
	}
	return kube.Connect(config, version)
}
