package kit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Claim makes a claim that no pod mounts. class "" is the default one. It
// does not wait until the claim is bound.
func Claim(t testing.TB, namespace, name, class string) {
	t.Helper()
	if class != "" {
		class = ", storageClassName: " + class
	}
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, namespace: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}%s}
`, name, namespace, class), "apply", "-f", "-")
}

// Bound waits until claims are bound.
func Bound(t testing.TB, namespace string, claims ...string) {
	t.Helper()
	for _, claim := range claims {
		Kubectl(t, "wait", "-n", namespace, "pvc/"+claim, "--for=jsonpath={.status.phase}=Bound", "--timeout", Patience.String())
	}
}

// Pod starts a busybox that mounts claims at /CLAIM and sleeps, and waits
// until it is ready.
func Pod(t testing.TB, namespace, name string, claims ...string) {
	t.Helper()
	var mounts, volumes strings.Builder
	for _, claim := range claims {
		fmt.Fprintf(&mounts, "{name: %[1]s, mountPath: /%[1]s},", claim)
		fmt.Fprintf(&volumes, "{name: %[1]s, persistentVolumeClaim: {claimName: %[1]s}},", claim)
	}
	Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: app
      image: docker.io/library/busybox:1.36
      imagePullPolicy: IfNotPresent
      command: [sleep, "100000"]
      volumeMounts: [%s]
  volumes: [%s]
`, name, namespace, &mounts, &volumes), "apply", "-f", "-")
	Kubectl(t, "wait", "-n", namespace, "pod/"+name, "--for=condition=Ready", "--timeout", Patience.String())
}

// App makes a Deployment "app" of one pod that mounts the claim "data" at /data
// and sleeps. It does not wait until that is ready.
func App(t testing.TB, namespace string) {
	t.Helper()
	Apply(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: %s}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - {name: app, image: "docker.io/library/busybox:1.36", imagePullPolicy: IfNotPresent, command: [sleep, "100000"], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
`, namespace), "apply", "-f", "-")
}

// AppReady waits until App's Deployment has rolled out.
func AppReady(t testing.TB, namespace string) {
	t.Helper()
	Kubectl(t, "rollout", "status", "-n", namespace, "deployment/app", "--timeout", Patience.String())
}

// Run is what `snapshot -o json` prints.
type Run struct {
	Run      string `json:"run"`
	Result   string `json:"result"`
	ExitCode int    `json:"exitCode"`
	Items    []Item `json:"items"`
}

// Item is one claim of a Run.
type Item struct {
	Namespace   string `json:"namespace"`
	App         string `json:"app"`
	Claim       string `json:"pvc"`
	State       string `json:"state"`
	Snapshot    string `json:"volumeSnapshot"`
	Consistency string `json:"consistency"`
	Code        string `json:"code"`
	Reason      string `json:"reason"`
	DeleteAfter string `json:"deleteAfter"`
	Error       string `json:"error"`
	Dump        *struct {
		Bytes    int64 `json:"bytes"`
		Verified bool  `json:"verified"`
		Parts    []Dump
	} `json:"dump"`
	Copies []struct {
		Repository string `json:"repository"`
		State      string `json:"state"`
		Snapshot   string `json:"resticSnapshot"`
		Added      int64  `json:"bytesAdded"`
		Code       string `json:"code"`
		Error      string `json:"error"`
	} `json:"copies"`
}

// Dump is one dump file in a volume.
type Dump struct {
	What, Path, SHA256 string
	Bytes              int64
}

// Snapshot runs `snapshot -o json` and wants that exit code.
func Snapshot(t testing.TB, code int, args ...string) Run {
	t.Helper()
	return ReadRun(t, code, Backsnap(t, append([]string{"snapshot", "-o", "json"}, args...)...))
}

// ReadRun reads what `snapshot -o json` printed.
func ReadRun(t testing.TB, code int, r Result) Run {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit %d, want %d", r.Code, code)
	}
	var run Run
	if err := json.Unmarshal([]byte(r.Stdout), &run); err != nil {
		t.Fatalf("read result: %v", err)
	}
	if run.ExitCode != code {
		t.Errorf("exitCode %d in the document, want %d", run.ExitCode, code)
	}
	return run
}

// Of is the item of claim.
func (r Run) Of(t testing.TB, claim string) Item {
	t.Helper()
	for _, item := range r.Items {
		if item.Claim == claim {
			return item
		}
	}
	t.Fatalf("no item of %s in run %s", claim, r.Run)
	return Item{}
}

// Labels are those of a VolumeSnapshot.
func Labels(t testing.TB, namespace, snapshot string) map[string]string {
	t.Helper()
	var labels map[string]string
	text := Kubectl(t, "get", "volumesnapshot", snapshot, "-n", namespace, "-o", "jsonpath={.metadata.labels}")
	if err := json.Unmarshal([]byte(text), &labels); err != nil {
		t.Fatal(err)
	}
	return labels
}

// Names are the objects of these kinds in namespace, `kind/name`, one a line,
// "" for none.
func Names(t testing.TB, namespace, kinds string) string {
	t.Helper()
	return strings.TrimSpace(Kubectl(t, "get", kinds, "-n", namespace, "-o", "name"))
}
