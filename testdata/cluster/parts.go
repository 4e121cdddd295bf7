package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// part is one process of the cluster.
type part struct {
	name  string
	node  int
	args  []string // the first is the path of the program
	env   []string
	files map[string]string // what it reads, by path; written before it starts
	with  string            // a part, started before, whose end it would not outlive
	ready func(context.Context) error
}

// spec names everything that p is started from; a part that runs with another
// one is started anew.
func (c *cluster) spec(p part) string {
	sum := sha256.New()
	if p.with != "" {
		other, _, _ := c.running(p.with)
		fmt.Fprintf(sum, "%d %d\n", other.Pid, other.Start)
	}
	program, _ := filepath.EvalSymlinks(p.args[0])
	fmt.Fprintf(sum, "%q %q %q\n", program, p.args, p.env)
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		fmt.Fprintf(sum, "%q %q\n", path, p.files[path])
	}
	return hex.EncodeToString(sum.Sum(nil)[:12])
}

// The S3 server's user. It guards nothing: only this machine can reach it.
const (
	s3AccessKey = "backsnap-test"
	s3SecretKey = "backsnap-test-secret"
	s3Port      = 9000
	restPort    = 8000
)

var (
	//go:embed config/audit.yaml
	auditPolicy string
	//go:embed config/containerd.toml
	containerdConfig string
	//go:embed config/bridge.conflist
	bridgeConfig string
	//go:embed config/kubelet.yaml
	kubeletConfig string
	//go:embed config/proxy.yaml
	proxyConfig string
	//go:embed config/Corefile
	corefile string
)

// driver is one name of the CSI driver, run on every node.
type driver struct {
	name      string // short, for parts and sockets
	full      string
	snapshots bool
}

var drivers = []driver{
	{name: "btrfs", full: "btrfs.csi.backsnap.test", snapshots: true},
	{name: "plain", full: "plain.csi.backsnap.test"},
}

func (d driver) socket() string { return "/var/lib/kubelet/plugins/" + d.name + "/csi.sock" }

// runtimes are the parts that hold images and containers.
func (c *cluster) runtimes() []part {
	var parts []part
	for node := 1; node <= c.nodes; node++ {
		parts = append(parts, c.containerd(node))
	}
	return parts
}

// foundation are the parts that all others need, in the order of starting.
func (c *cluster) foundation() []part {
	return []part{c.etcd(), c.apiserver()}
}

// others are the parts that start together once the API server answers.
func (c *cluster) others() []part {
	parts := []part{c.s3(), c.restServer()}
	for node := 1; node <= c.nodes; node++ {
		parts = append(parts, c.kubelet(node), c.proxy(node))
		for _, d := range drivers {
			parts = append(parts, c.csi(d, node))
		}
	}
	parts = append(parts, c.controllerManager(), c.scheduler(), c.coredns(), c.snapshotController())
	for _, d := range drivers {
		parts = append(parts, c.provisioner(d))
		if d.snapshots {
			parts = append(parts, c.snapshotter(d))
		}
	}
	return parts
}

// allParts are the parts in the order of starting.
func (c *cluster) allParts() []part {
	return slices.Concat(c.runtimes(), c.foundation(), c.others())
}

func (c *cluster) program(name string, args ...string) []string {
	return append([]string{c.path("parts", name)}, args...)
}

func (c *cluster) pki(file string) string { return c.path("pki", file) }

func (c *cluster) etcd() part {
	return part{name: "etcd", node: 1, args: c.program("etcd",
		"--name=node-1", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=node-1=http://127.0.0.1:2380",
		"--quota-backend-bytes=4294967296", "--auto-compaction-retention=5m", "--log-level=warn",
	)}
}

func (c *cluster) apiserver() part {
	policy := c.path("config", "audit.yaml")
	return part{name: "kube-apiserver", node: 1, files: map[string]string{policy: auditPolicy}, ready: c.apiReady,
		args: c.program("kube-apiserver",
			"--etcd-servers=http://127.0.0.1:2379",
			"--advertise-address="+c.net.node[1].String(), "--service-cluster-ip-range="+serviceRange,
			"--client-ca-file="+c.pki("ca.crt"), "--tls-cert-file="+c.pki("apiserver.crt"), "--tls-private-key-file="+c.pki("apiserver.key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file="+c.pki("service-account.key"), "--service-account-signing-key-file="+c.pki("service-account.key"),
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
			"--kubelet-certificate-authority="+c.pki("ca.crt"), "--kubelet-client-certificate="+c.pki("apiserver.crt"),
			"--kubelet-client-key="+c.pki("apiserver.key"), "--kubelet-preferred-address-types=InternalIP",
			// One file: it is not rotated before it is far larger than any use of it.
			"--audit-policy-file="+policy, "--audit-log-path="+c.auditLog(), "--audit-log-maxsize=10000",
		)}
}

func (c *cluster) auditLog() string { return c.path("log", "audit.log") }

func (c *cluster) controllerManager() part {
	return part{name: "kube-controller-manager", node: 1, args: c.program("kube-controller-manager",
		"--kubeconfig="+c.pki("controller-manager.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1",
		"--use-service-account-credentials", "--service-account-private-key-file="+c.pki("service-account.key"),
		"--root-ca-file="+c.pki("ca.crt"), "--cluster-signing-cert-file="+c.pki("ca.crt"), "--cluster-signing-key-file="+c.pki("ca.key"),
	)}
}

func (c *cluster) scheduler() part {
	return part{name: "kube-scheduler", node: 1, args: c.program("kube-scheduler",
		"--kubeconfig="+c.pki("scheduler.kubeconfig"), "--leader-elect=false", "--bind-address=127.0.0.1",
	)}
}

func (c *cluster) containerd(node int) part {
	config := c.path("config", nodeName(node), "containerd.toml")
	cni := c.path("config", nodeName(node), "cni")
	return part{name: fmt.Sprintf("containerd-%d", node), node: node,
		args: c.program("containerd", "--config="+config),
		files: map[string]string{
			config:                                fill(containerdConfig, "root", c.path(nodeName(node), "containerd"), "programs", c.path("parts"), "cni", cni, "runc", runcPath()),
			filepath.Join(cni, "bridge.conflist"): fill(bridgeConfig, "subnet", podSubnet(node)),
		},
		ready: func(ctx context.Context) error { return c.ctr(ctx, node, "version") },
	}
}

func (c *cluster) kubelet(node int) part {
	config := c.path("config", nodeName(node), "kubelet.yaml")
	resolv := c.path("config", nodeName(node), "resolv.conf")
	name := nodeName(node)
	return part{name: fmt.Sprintf("kubelet-%d", node), node: node,
		args: c.program("kubelet", "--config="+config, "--kubeconfig="+c.pki(name+".kubeconfig"),
			"--hostname-override="+name, "--node-ip="+c.net.node[node].String(), "--cert-dir="+c.path(name, "kubelet-certs")),
		files: map[string]string{
			config: fill(kubeletConfig, "ca", c.pki("ca.crt"), "cert", c.pki(name+".crt"), "key", c.pki(name+".key"),
				"cgroup", "/backsnap-"+c.id+"/"+name, "dns", dnsService, "resolv", resolv),
			resolv: "# no name server is in reach of a node\n",
		},
	}
}

func (c *cluster) proxy(node int) part {
	config := c.path("config", nodeName(node), "proxy.yaml")
	return part{name: fmt.Sprintf("kube-proxy-%d", node), node: node,
		args: c.program("kube-proxy", "--config="+config),
		files: map[string]string{config: fill(proxyConfig,
			"kubeconfig", c.pki("proxy.kubeconfig"), "pods", podRange, "node", nodeName(node))},
	}
}

func (c *cluster) coredns() part {
	config := c.path("config", "Corefile")
	return part{name: "coredns", node: 1, args: c.program("coredns", "-conf", config),
		files: map[string]string{config: fill(corefile, "kubeconfig", c.pki("coredns.kubeconfig"))}}
}

func (c *cluster) csi(d driver, node int) part {
	return part{name: fmt.Sprintf("csi-%s-%d", d.name, node), node: node, args: c.program("csi-btrfs",
		"--endpoint="+d.socket(), "--driver-name="+d.full, "--node-id="+nodeName(node), "--pool="+c.path("pool"),
		"--registration-dir=/var/lib/kubelet/plugins_registry", "--faults="+c.faults(), fmt.Sprintf("--snapshots=%t", d.snapshots),
	)}
}

// faults is the control file by which tests make the CSI driver fail.
func (c *cluster) faults() string { return c.path("faults") }

// unthrottled is what the controllers of storage are given beyond their defaults of
// 5 requests a second: at those a snapshot waits longer for its turn than for
// the storage, and how long depends on what was snapshotted before it.
var unthrottled = []string{"--kube-api-qps=100", "--kube-api-burst=200"}

func (c *cluster) provisioner(d driver) part {
	return part{name: "csi-provisioner-" + d.name, node: 1, with: "csi-" + d.name + "-1", args: append(c.program("csi-provisioner",
		"--kubeconfig="+c.pki("csi-provisioner.kubeconfig"), "--csi-address="+d.socket(),
		"--leader-election=false", "--default-fstype=ext4", "--extra-create-metadata", "--retry-interval-max=10s",
		// A volume that waits for its consumer comes with one node, one that
		// does not with none.
		"--feature-gates=Topology=true", "--strict-topology", "--immediate-topology=false",
		// Else its finalizer holds the snapshot of a failed clone for minutes.
		"--snapshot-orphan-sweep-interval=10s",
	), unthrottled...)}
}

func (c *cluster) snapshotter(d driver) part {
	return part{name: "csi-snapshotter-" + d.name, node: 1, with: "csi-" + d.name + "-1", args: append(c.program("csi-snapshotter",
		"--kubeconfig="+c.pki("csi-snapshotter.kubeconfig"), "--csi-address="+d.socket(),
		"--leader-election=false", "--extra-create-metadata", "--retry-interval-max=10s",
	), unthrottled...)}
}

func (c *cluster) snapshotController() part {
	return part{name: "snapshot-controller", node: 1, args: append(c.program("snapshot-controller",
		"--kubeconfig="+c.pki("snapshot-controller.kubeconfig"), "--leader-election=false", "--retry-interval-max=10s",
	), unthrottled...)}
}

func (c *cluster) s3() part {
	return part{name: "s3", node: 1, ready: answers(c.s3URL()),
		args: c.program("versitygw", "--port", fmt.Sprintf(":%d", s3Port), "--quiet", "posix", c.path("s3")),
		env:  []string{"ROOT_ACCESS_KEY=" + s3AccessKey, "ROOT_SECRET_KEY=" + s3SecretKey}}
}

func (c *cluster) s3URL() string { return fmt.Sprintf("http://%s:%d", c.net.node[1], s3Port) }

func (c *cluster) restServer() part {
	return part{name: "rest-server", node: 1, ready: answers(c.restURL()),
		args: c.program("rest-server", "--path", c.path("rest"), "--no-auth", "--listen", fmt.Sprintf(":%d", restPort))}
}

func (c *cluster) restURL() string { return fmt.Sprintf("http://%s:%d/", c.net.node[1], restPort) }

// answers succeeds when a server says anything at all.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		return response.Body.Close()
	}
}

// ctr runs containerd's own client on a node.
func (c *cluster) ctr(ctx context.Context, node int, args ...string) error {
	args = append([]string{"--address=/run/containerd/containerd.sock", "--namespace=k8s.io"}, args...)
	return c.inside(ctx, node, "ctr", args...)
}

func runcPath() string {
	path, err := exec.LookPath("runc")
	if err != nil {
		return "/usr/sbin/runc"
	}
	return path
}

// fill puts values in the place of {name}s.
func fill(text string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		pairs[i] = "{" + pairs[i] + "}"
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// start launches p unless it runs as it should. started tells which.
func (c *cluster) start(ctx context.Context, p part) (started bool, err error) {
	old, alive, err := c.running(p.name)
	if err != nil || alive && old.Spec == c.spec(p) {
		return false, err
	}
	if alive {
		if err := old.end(ctx, 10*time.Second); err != nil {
			return false, fmt.Errorf("end %s: %w", p.name, err)
		}
	}
	for path, text := range p.files {
		if err := writeFile(path, []byte(text), 0o600); err != nil {
			return false, fmt.Errorf("configure %s: %w", p.name, err)
		}
	}
	if err := os.MkdirAll(c.path("log"), 0o755); err != nil {
		return false, err
	}
	if err := c.launch(p); err != nil {
		return false, fmt.Errorf("start %s: %w", p.name, err)
	}
	return true, nil
}

// await returns when p answers; that it ends is an error with its last words.
func (c *cluster) await(ctx context.Context, p part, timeout time.Duration) error {
	err := poll(ctx, timeout, func(ctx context.Context) error {
		if _, alive, err := c.running(p.name); err != nil || !alive {
			return &fatalError{fmt.Errorf("it ended")}
		}
		if p.ready == nil {
			return nil
		}
		return p.ready(ctx)
	})
	if err != nil {
		return fmt.Errorf("start %s: %w; %s ends with\n%s", p.name, err, c.logFile(p.name), tail(c.logFile(p.name)))
	}
	return nil
}
