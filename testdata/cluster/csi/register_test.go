package main

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func TestRegistersWithTheKubelet(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "", "--registration-dir", r.path("registry"))
	n.kill() // leaves its sockets
	n = r.start("a", "", "--registration-dir", r.path("registry"))
	socket := r.path("registry/" + r.driver + "-reg.sock")
	conn := must(grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())))
	defer conn.Close()
	kubelet := registerapi.NewRegistrationClient(conn)
	got, err := kubelet.GetInfo(r.ctx(), &registerapi.InfoRequest{}, grpc.WaitForReady(true))
	check(t, err)
	want := &registerapi.PluginInfo{Type: "CSIPlugin", Name: r.driver, Endpoint: n.socket, SupportedVersions: []string{"1.0.0"}}
	if !proto.Equal(got, want) {
		t.Errorf("registers as %v, want %v", got, want)
	}
	_, err = kubelet.NotifyRegistrationStatus(r.ctx(), &registerapi.RegistrationStatus{PluginRegistered: true})
	check(t, err)
}

func TestEndsOnSIGTERMAndTakesItsSocketsAway(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "", "--registration-dir", r.path("registry"))
	check(t, unix.Kill(n.pid, unix.SIGTERM))
	if err := <-n.exited; err != nil {
		t.Errorf("ended with %v", err)
	}
	for _, dir := range []string{r.dir, r.path("registry")} {
		for _, name := range names(t, dir) {
			if info := must(os.Stat(dir + "/" + name)); info.Mode()&os.ModeSocket != 0 {
				t.Errorf("left %s", fmt.Sprint(info.Name()))
			}
		}
	}
}
