package main

import (
	"errors"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

// stub is a cluster that has nothing but a client.
type stub struct {
	cli.Cluster
	core kubernetes.Interface
}

func (s stub) Core() kubernetes.Interface { return s.core }

func (stub) Suspend(bool) {}

// A run takes its slot and its namespaces, or nothing.
func TestLockRun(t *testing.T) {
	cluster := stub{core: fake.NewClientset()}
	dir := filepath.Join(t.TempDir(), "slots")
	take := func(run catalog.Run, namespace string, slots int) (func() error, error) {
		t.Helper()
		held, release, err := lockRun(t.Context(), cluster, cli.Lock{Run: run, Namespaces: []string{namespace}, Slots: slots, Dir: dir})
		if err == nil && held.Err() != nil {
			t.Errorf("%s is lost as soon as it is held: %v", namespace, held.Err())
		}
		return release, err
	}
	give := func(release func() error) {
		t.Helper()
		if err := release(); err != nil {
			t.Error(err)
		}
	}
	busy := func(err error, what string) {
		t.Helper()
		if catalog.CodeOf(err) != catalog.CodeBusy {
			t.Errorf("%s: %v", what, err)
		}
	}

	first, err := take("20261122-011500-aaaa", "shop", 1)
	if err != nil {
		t.Fatal(err)
	}
	_, err = take("20261122-011500-bbbb", "crm", 1)
	busy(err, "the only slot is taken")
	_, err = take("20261122-011500-cccc", "shop", 2)
	busy(err, "the namespace is taken")
	second, err := take("20261122-011500-dddd", "crm", 2)
	if err != nil {
		t.Fatalf("a slot that was taken in vain was not given back: %v", err)
	}
	give(second)
	give(first)
	third, err := take("20261122-011500-eeee", "shop", 1)
	if err != nil {
		t.Fatal(err)
	}
	give(third)
}

func TestLockRunNeedsAClient(t *testing.T) {
	if _, _, err := lockRun(t.Context(), struct{ cli.Cluster }{}, cli.Lock{}); err == nil || errors.Unwrap(err) != nil {
		t.Errorf("got %v", err)
	}
}
