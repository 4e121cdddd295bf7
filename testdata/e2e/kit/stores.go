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
	command := append([]string{"/rest-server", "--path", "/repositories", "--no-auth", "--listen", ":8000"}, flags...)
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
      volumeMounts: [{name: program, mountPath: /rest-server}, {name: data, mountPath: /repositories}]
  volumes: [{name: program, hostPath: {path: %[3]s, type: File}}, {name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: rest, namespace: %[1]s}
spec: {selector: {app: rest}, ports: [{port: 8000}]}
`, namespace, `"`+strings.Join(command, `", "`)+`"`, YAML(program(t, "rest-server"))), "apply", "-f", "-")
	Kubectl(t, "wait", "-n", namespace, "pod/rest", "--for=condition=Ready", "--timeout", Patience.String())
	return "rest:http://rest." + namespace + ".svc:8000/"
}

// program is the file of one of the cluster's own programs.
func program(t testing.TB, name string) string {
	t.Helper()
	file, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(Env(t, "BACKSNAP_CLUSTER_RESTIC")), name))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// S3Server is one in a pod of its own namespace, which can go and come back
// with its data. Its user is that of the cluster's S3 server.
type S3Server struct{ namespace string }

// NewS3Server starts one.
func NewS3Server(t testing.TB) S3Server {
	t.Helper()
	s := S3Server{namespace: Namespace(t)}
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: s3, namespace: %[1]s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Service
metadata: {name: s3, namespace: %[1]s}
spec: {selector: {app: s3}, ports: [{port: 9000}]}
`, s.namespace), "apply", "-f", "-")
	s.Up(t)
	return s
}

// Address is the server's.
func (s S3Server) Address() string { return "http://s3." + s.namespace + ".svc:9000" }

// Files is how many it keeps.
func (s S3Server) Files(t testing.TB) int {
	t.Helper()
	return strings.Count(Exec(t, s.namespace, "s3", "find /data -type f"), "\n")
}

// Damage writes over a part of each large file of a bucket's repository.
func (s S3Server) Damage(t testing.TB, bucket string) {
	t.Helper()
	out := Exec(t, s.namespace, "s3", fmt.Sprintf(`for pack in $(find /data/%s/data -type f -size +1000k); do
	dd if=/dev/zero of="$pack" bs=1 seek=500000 count=64 conv=notrunc 2>/dev/null && echo "$pack"
done; sync`, bucket))
	if out == "" {
		t.Fatal("there is no pack to be damaged")
	}
}

// Down ends the server and every connection to it.
func (s S3Server) Down(t testing.TB) {
	t.Helper()
	Kubectl(t, "delete", "pod", "s3", "-n", s.namespace)
}

// Up starts it, and waits until it answers.
func (s S3Server) Up(t testing.TB) {
	t.Helper()
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: s3, namespace: %s, labels: {app: s3}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: s3
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [/versitygw, --port, ":9000", --quiet, posix, /data]
      env: [{name: ROOT_ACCESS_KEY, value: %s}, {name: ROOT_SECRET_KEY, value: %s}]
      readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
      volumeMounts: [{name: program, mountPath: /versitygw}, {name: data, mountPath: /data}]
  volumes:
    - {name: program, hostPath: {path: %s, type: File}}
    - {name: data, persistentVolumeClaim: {claimName: s3}}
`, s.namespace, YAML(Env(t, "BACKSNAP_CLUSTER_S3_ACCESS_KEY")), YAML(Env(t, "BACKSNAP_CLUSTER_S3_SECRET_KEY")), YAML(program(t, "versitygw"))), "apply", "-f", "-")
	Kubectl(t, "wait", "-n", s.namespace, "pod/s3", "--for=condition=Ready", "--timeout", Patience.String())
}
