package main

import (
	"context"

	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registration answers the kubelet, which finds its socket in the folder it
// watches.
type registration struct {
	registerapi.UnimplementedRegistrationServer
	driver   string
	endpoint string
}

// GetInfo tells the kubelet where the driver is.
func (r registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              r.driver,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus hears whether the kubelet took the driver.
func (r registration) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	klog.InfoS("registration", "registered", s.PluginRegistered, "err", s.Error)
	return &registerapi.RegistrationStatusResponse{}, nil
}
