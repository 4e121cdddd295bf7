package kit

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

// Door is a Service in a namespace of its own before the cluster's S3 server.
// It can be shut: connections are then refused.
type Door struct{ namespace string }

// NewDoor opens one.
func NewDoor(t testing.TB) Door {
	t.Helper()
	d := Door{namespace: Namespace(t)}
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: door, namespace: %s}
spec: {ports: [{name: http, port: 9000}]}
`, d.namespace), "apply", "-f", "-")
	d.Open(t)
	return d
}

// Address is where the S3 server is behind the door.
func (d Door) Address() string { return "http://door." + d.namespace + ".svc:9000" }

// Open lets connections through.
func (d Door) Open(t testing.TB) {
	t.Helper()
	server, err := url.Parse(Env(t, "BACKSNAP_CLUSTER_S3_URL"))
	if err != nil {
		t.Fatal(err)
	}
	d.slice(t, server.Port(), fmt.Sprintf(`{addresses: [%q], conditions: {ready: true}}`, server.Hostname()))
}

// Shut refuses connections from now on; those that stand are not touched.
func (d Door) Shut(t testing.TB) {
	t.Helper()
	d.slice(t, "9000", "")
}

func (d Door) slice(t testing.TB, port, endpoints string) {
	t.Helper()
	Apply(t, fmt.Sprintf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: door, namespace: %s, labels: {kubernetes.io/service-name: door}}
addressType: IPv4
ports: [{name: http, port: %s}]
endpoints: [%s]
`, d.namespace, port, endpoints), "apply", "-f", "-")
}

// RestServer starts a rest-server in a pod of its own namespace, with these
// flags, and returns the address that restic takes. Its program is the
// cluster's own.
func RestServer(t testing.TB, flags ...string) string {
	t.Helper()
	namespace := Namespace(t)
	server, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(Env(t, "BACKSNAP_CLUSTER_RESTIC")), "rest-server"))
	if err != nil {
		t.Fatal(err)
	}
	command := append([]string{"/rest-server", "--path", "/tmp/repositories", "--no-auth", "--listen", ":8000"}, flags...)
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: rest, namespace: %[1]s, labels: {app: rest}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: rest
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [%[2]s]
      readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1}
      volumeMounts: [{name: program, mountPath: /rest-server}]
  volumes: [{name: program, hostPath: {path: %[3]q, type: File}}]
---
apiVersion: v1
kind: Service
metadata: {name: rest, namespace: %[1]s}
spec: {selector: {app: rest}, ports: [{port: 8000}]}
`, namespace, `"`+strings.Join(command, `", "`)+`"`, server), "apply", "-f", "-")
	Kubectl(t, "wait", "-n", namespace, "pod/rest", "--for=condition=Ready", "--timeout", Patience.String())
	return "rest:http://rest." + namespace + ".svc:8000/"
}
