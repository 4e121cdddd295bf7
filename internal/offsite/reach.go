package offsite

import (
	"context"
	"errors"
	"fmt"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// errRuns ends the watch of a mover that is only waited for.
var errRuns = errors.New("it runs")

// Reach waits until the mover that another verb has started runs, and returns
// its pod. Like Attend it gives up on one that cannot work, which is a
// catalog.Failure; and so is one that has ended before.
func Reach(ctx context.Context, c Cluster, namespace, name, claim string, tell func(catalog.Event)) (pod string, err error) {
	f := &follower{cluster: c, namespace: namespace, name: name, clone: claim, tell: tell, mute: true, reach: true}
	end, err := f.follow(ctx)
	if errors.Is(err, errRuns) {
		return f.pod, nil
	}
	if err == nil {
		err = end.Err(restic.ReadReport(end.Text, end.Exit), "")
		err = &catalog.Failure{Code: catalog.CodeMover, Message: fmt.Sprintf("mover %s/%s has ended", namespace, name), Cause: err, Next: "kubectl get events -n " + namespace}
	}
	return "", couldNot(err, namespace, name)
}

// couldNot is err, as a Failure where it is a trouble of the mover's.
func couldNot(err error, namespace, name string) error {
	t, ok := err.(*troubled)
	if !ok {
		return err
	}
	next := remedy{namespace: namespace, again: "the same command,", secure: baseline(namespace)}.of(t.trouble)
	return &catalog.Failure{Code: t.code(), Message: fmt.Sprintf("mover %s/%s cannot work", namespace, name), Cause: t, Next: next}
}
