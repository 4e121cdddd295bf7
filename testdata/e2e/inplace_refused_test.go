package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// workload is a manifest of one that mounts its claim and starts no pod.
func workload(kind, metadata, spec string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: %s
metadata: {%s}
spec:
  %s
  selector: {matchLabels: {app: idle}}
`, kind, metadata, spec)
}

// template is that of pods which mount the claim and can run nowhere.
func template(claim string) string {
	return fmt.Sprintf(`template: {metadata: {labels: {app: idle}}, spec: %s}`, idlePod(claim))
}

func idlePod(claim string) string {
	return fmt.Sprintf(`{nodeSelector: {"example.com/room": none}, restartPolicy: Always, `+
		`containers: [{name: app, image: "docker.io/library/busybox:1.36", volumeMounts: [{name: data, mountPath: /data}]}], `+
		`volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]}`, claim)
}

// TestRestoreInPlaceRefused: whoever would undo a restore in place, or would
// suffer from it, is found before anything is touched; told is who it is, and
// what to do about it.
func TestRestoreInPlaceRefused(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Kubectl(t, "create", "configmap", "operator", "-n", namespace)
	uid := kit.Kubectl(t, "get", "configmap", "operator", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
	deployment := func(claim, metadata string) string {
		return workload("Deployment", "name: "+claim+metadata, "replicas: 0\n  "+template(claim))
	}
	set := func(name, metadata, policy string) string {
		pod := template("data-" + name + "-0")
		return workload("StatefulSet", "name: "+name+metadata, "replicas: 0\n  serviceName: none\n  "+pod+"\n  "+
			`volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}}]`+"\n  "+policy)
	}
	cases := []struct {
		claim, manifest string
		says, next      []string
	}{
		{"scaled", deployment("scaled", "") + `---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: scaled}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: scaled}}
`, []string{"HorizontalPodAutoscaler scaled scales deployment/scaled"}, []string{"--ignore-controller"}},
		{"argo", deployment("argo", `, annotations: {argocd.argoproj.io/tracking-id: "shop:apps/Deployment:shop/argo"}`),
			[]string{`deployment/argo is managed by Argo CD app "shop"`}, []string{"kubectl annotate application shop -n argocd argocd.argoproj.io/skip-reconcile=true", "--ignore-controller"}},
		{"flux", deployment("flux", `, labels: {kustomize.toolkit.fluxcd.io/name: apps, kustomize.toolkit.fluxcd.io/namespace: gitops}`),
			[]string{`deployment/flux is managed by Flux kustomization "apps"`}, []string{`kubectl patch kustomization apps -n gitops --type merge -p '{"spec":{"suspend":true}}'`, "--ignore-controller"}},
		{"data-owned-0", set("owned", `, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: operator, uid: `+uid+`, controller: true}]`, ""),
			[]string{"statefulset/owned is kept by ConfigMap/operator"}, []string{"pause that operator", "--ignore-controller"}},
		{"data-deletes-0", set("deletes", "", "persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}"),
			[]string{"statefulset/deletes removes its claims when it is scaled down"}, []string{`{"persistentVolumeClaimRetentionPolicy":{"whenScaled":"Retain"}}`}},
		{"everywhere", workload("DaemonSet", "name: everywhere", template("everywhere")),
			[]string{"daemonset/everywhere in " + namespace + " cannot be scaled to 0 and back"}, []string{"restore into a new claim instead"}},
		{"bare", "apiVersion: v1\nkind: Pod\nmetadata: {name: bare}\nspec: " + idlePod("bare") + "\n",
			[]string{"pod/bare in " + namespace + " cannot be scaled to 0 and back"}, []string{"restore into a new claim instead"}},
	}
	var claims []string
	for _, c := range cases {
		kit.Claim(t, namespace, c.claim, "")
		claims = append(claims, c.claim)
	}
	kit.Bound(t, namespace, claims...)
	kit.Snapshot(t, 0, "-n", namespace, "--repository", "none")
	for _, c := range cases {
		kit.Apply(t, c.manifest, "apply", "-n", namespace, "-f", "-")
	}
	state := func() string {
		return kit.Kubectl(t, "get", "deployment,statefulset,daemonset,pod,pvc,lease,volumesnapshot", "-n", namespace, "-o",
			`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.generation} {.metadata.annotations.backsnap\.sh/in-place} {.spec.volumeName}{"\n"}{end}`)
	}
	for _, c := range cases {
		before := state()
		r := kit.Backsnap(t, "restore", c.claim, "-n", namespace, "--in-place", "--yes")
		if r.Code != 5 || !strings.Contains(r.Stderr, "[BS034]") {
			t.Errorf("%s: exit %d, want 5 and BS034", c.claim, r.Code)
		}
		_, next, _ := strings.Cut(r.Stderr, "\n  next: ")
		for _, part := range c.says {
			if !strings.Contains(r.Stderr, part) {
				t.Errorf("%s: %q is not said", c.claim, part)
			}
		}
		for _, part := range c.next {
			if !strings.Contains(next, part) {
				t.Errorf("%s: next step %q, want %q in it", c.claim, next, part)
			}
		}
		if now := state(); now != before {
			t.Errorf("%s: now there is\n%s\nwant\n%s", c.claim, now, before)
		}
	}
}
