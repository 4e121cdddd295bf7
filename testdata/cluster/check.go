package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// client talks to the API server as its admin.
func (c *cluster) client() (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.pki("admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.Timeout = 10 * time.Second
	return kubernetes.NewForConfig(config)
}

func (c *cluster) apiReady(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// check proves that the cluster is usable. If anything in it is new, that takes
// a pod on each node; else only those that it would not do without are asked.
func (c *cluster) check(ctx context.Context, changed bool) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	for node := 1; node <= c.nodes; node++ {
		since, err := c.startedAt(fmt.Sprintf("kubelet-%d", node))
		if err != nil {
			return err
		}
		err = c.pollParts(ctx, 2*time.Minute, func(ctx context.Context) error { return nodeReady(ctx, client, nodeName(node), since) })
		if err != nil {
			return fmt.Errorf("wait for %s: %w; the kubelet's log ends with\n%s", nodeName(node), err, tail(c.logFile(fmt.Sprintf("kubelet-%d", node))))
		}
	}
	if err := c.pollParts(ctx, time.Minute, c.resolveName); err != nil {
		return fmt.Errorf("resolve names: %w; the log of coredns ends with\n%s", err, tail(c.logFile("coredns")))
	}
	if !changed {
		return nil
	}
	for node := 1; node <= c.nodes; node++ {
		err := c.progress.step(func() (string, error) {
			return "ran a pod with a new volume on " + nodeName(node), c.probe(ctx, client, node)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pollParts polls as long as every part lives.
func (c *cluster) pollParts(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	return poll(ctx, timeout, func(ctx context.Context) error {
		for _, p := range c.allParts() {
			if _, alive, err := c.running(p.name); err != nil || !alive {
				return &fatalError{fmt.Errorf("%s ended; %s ends with\n%s", p.name, c.logFile(p.name), tail(c.logFile(p.name)))}
			}
		}
		return f(ctx)
	})
}

func (c *cluster) startedAt(name string) (time.Time, error) {
	info, err := os.Stat(c.pidFile(name))
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime().Truncate(time.Second), nil
}

// nodeReady is nil when the node is ready by the word of its present kubelet
// and knows all drivers: what it said before it was started anew is old.
func nodeReady(ctx context.Context, client kubernetes.Interface, name string, since time.Time) error {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	ready := errors.New("not ready")
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		ready = fmt.Errorf("not ready: %s", condition.Message)
		if condition.Status == corev1.ConditionTrue && !condition.LastHeartbeatTime.Time.Before(since) {
			ready = nil
		}
	}
	if ready != nil {
		return ready
	}
	known, err := client.StorageV1().CSINodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if len(known.Spec.Drivers) != len(drivers) {
		return fmt.Errorf("knows %d CSI drivers of %d", len(known.Spec.Drivers), len(drivers))
	}
	return nil
}

// resolveName asks for a name on the way that pods do: on each node, by the
// address of the Service.
func (c *cluster) resolveName(ctx context.Context) error {
	for node := 1; node <= c.nodes; node++ {
		resolver := net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
			return dialInside(c.netns(node), network, net.JoinHostPort(dnsService, "53"))
		}}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		for _, name := range []string{"s3.backup-storage.svc.cluster.local.", "kubernetes.default.svc.cluster.local."} {
			if _, err := resolver.LookupHost(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// dialInside connects from a network namespace. A socket stays in the one that
// its thread was in; the thread is given up afterwards.
func dialInside(ns, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		fd, err := syscall.Open(ns, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			done <- result{nil, fmt.Errorf("open %s: %w", ns, err)}
			return
		}
		defer syscall.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- result{nil, fmt.Errorf("enter %s: %w", ns, err)}
			return
		}
		conn, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial(network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// probe runs a pod with a new volume on a node and removes both.
func (c *cluster) probe(ctx context.Context, client kubernetes.Interface, node int) error {
	objects := []byte(fill(probeObjects, "node", nodeName(node), "n", strconv.Itoa(node)))
	// Not before the controllers have made the service account.
	if err := c.pollParts(ctx, time.Minute, func(ctx context.Context) error { return c.apply(ctx, objects) }); err != nil {
		return fmt.Errorf("make a pod: %w", err)
	}
	name := fmt.Sprintf("cluster-probe-%d", node)
	err := c.pollParts(ctx, 2*time.Minute, func(ctx context.Context) error {
		pod, err := client.CoreV1().Pods("kube-system").Get(ctx, name, metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("pod %s is %s", name, pod.Status.Phase)
		}
		return err
	})
	if err != nil {
		events, _ := c.kubectl(ctx, nil, "get", "events", "-n", "kube-system", "-o", "custom-columns=OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message")
		return fmt.Errorf("run a pod on %s: %w; the events are\n%s", nodeName(node), err, lastLines(events, 15))
	}
	_, err = c.kubectl(ctx, objects, "delete", "-f", "-", "--timeout=60s")
	return err
}
