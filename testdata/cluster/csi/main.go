// Command csi-btrfs is the storage of the test cluster: a CSI driver whose
// volumes behave as real disks do and can be made to fail on demand.
//
// A volume is an image file in a btrfs subvolume of its own, used through a
// loop device, so that size, inodes, journal and fsync are those of a disk
// with ext4 on it. A cut is a snapshot of the subvolume: atomic and instant.
// One process runs on each node; all share the pool, and all that they know
// is in it.
//
// It keeps no secrets and protects nothing: it is no storage for real data.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

type options struct {
	endpoint        string
	driver          string
	node            string
	pool            string
	registrationDir string
	faults          string
	snapshots       bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "csi-btrfs:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "pool" {
		return runPool(args[1:])
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	return serve(ctx, o)
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("csi-btrfs", flag.ExitOnError)
	flags.StringVar(&o.endpoint, "endpoint", "", "socket to serve CSI on, a `path`")
	flags.StringVar(&o.driver, "driver-name", "", "`name` of the CSI driver")
	flags.StringVar(&o.node, "node-id", "", "`name` of the node")
	flags.StringVar(&o.pool, "pool", "", "where the pool is mounted, a `path`; several processes may share it")
	flags.StringVar(&o.registrationDir, "registration-dir", "", "plugins_registry of the kubelet, a `path`; empty: do not register")
	flags.StringVar(&o.faults, "faults", "", "control file of the fault knobs, a `path`, read at each call; it may be absent")
	flags.BoolVar(&o.snapshots, "snapshots", true, "offer snapshots")
	klog.InitFlags(flags)
	flags.Parse(args)
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	for name, value := range map[string]string{
		"endpoint": o.endpoint, "driver-name": o.driver, "node-id": o.node, "pool": o.pool,
	} {
		if value == "" {
			return options{}, fmt.Errorf("give --%s", name)
		}
	}
	if len(o.node) > maxOwner {
		return options{}, fmt.Errorf("--node-id must not be longer than %d bytes", maxOwner)
	}
	return o, nil
}

// serve answers calls until ctx ends.
func serve(ctx context.Context, o options) error {
	s, err := openStore(o.pool, o.driver)
	if err != nil {
		return err
	}
	d := &driver{name: o.driver, node: o.node, faults: o.faults, snapshots: o.snapshots, store: s, done: ctx.Done()}
	driverServer := grpc.NewServer(grpc.UnaryInterceptor(finish))
	csi.RegisterIdentityServer(driverServer, d)
	csi.RegisterControllerServer(driverServer, d)
	csi.RegisterNodeServer(driverServer, d)
	ended := make(chan error, 2)
	if err := start(driverServer, o.endpoint, ended); err != nil {
		return err
	}
	defer driverServer.Stop()
	if o.registrationDir != "" {
		endpoint, err := filepath.Abs(o.endpoint)
		if err != nil {
			return err
		}
		server := grpc.NewServer()
		registerapi.RegisterRegistrationServer(server, registration{driver: o.driver, endpoint: endpoint})
		// After the driver's own socket: the kubelet calls at once.
		if err := start(server, filepath.Join(o.registrationDir, o.driver+"-reg.sock"), ended); err != nil {
			return err
		}
		defer server.Stop()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// start serves on the socket at path, in place of one that a killed process
// left.
func start(server *grpc.Server, path string, ended chan<- error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	go func() { ended <- server.Serve(listener) }()
	return nil
}
