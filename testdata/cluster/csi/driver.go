package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/klog/v2"
)

// version is what GetPluginInfo tells; the driver is released with the
// cluster it belongs to, so it never changes.
const version = "1.0.0"

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer

	name      string
	node      string
	faults    string // path of the control file
	snapshots bool
	store     *store
	done      <-chan struct{} // closed when the process is to end
}

// topologyKey is the label that the kubelet gives a node of this driver.
func (d *driver) topologyKey() string { return "topology." + d.name + "/node" }

// step is called between the steps of calls that change the pool; tests kill
// the process there.
var step = func(string) {}

// finish gives the error of a call its code, and logs the call.
func finish(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err == nil {
		klog.V(2).InfoS("done", "call", info.FullMethod, "request", req)
		return resp, nil
	}
	err = status.Error(codeOf(err), err.Error())
	klog.InfoS("failed", "call", info.FullMethod, "request", req, "err", err)
	return nil, err
}

// coded is an error with a gRPC code, which each floor may still add its words
// to.
type coded struct {
	code codes.Code
	text string
}

func (c coded) Error() string { return c.text }

func failf(code codes.Code, format string, args ...any) error {
	return coded{code: code, text: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return failf(codes.InvalidArgument, format, args...)
}

func codeOf(err error) codes.Code {
	var c coded
	switch {
	case errors.As(err, &c):
		return c.code
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, errAbsent):
		return codes.NotFound
	}
	return codes.Internal
}

// GetPluginInfo tells the driver's name.
func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: version}, nil
}

// GetPluginCapabilities tells that volumes can be bound to nodes.
func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	var all []*csi.PluginCapability
	for _, t := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE,
		csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		all = append(all, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{
			Service: &csi.PluginCapability_Service{Type: t},
		}})
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: all}, nil
}

// Probe answers that the driver is ready: it does not listen before it is.
func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
