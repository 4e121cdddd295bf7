package schedule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Part is one CronJob of a schedule.
type Part struct {
	Name string // of the CronJob
	Cron Cron
	Args []string // of the program, the command's name first; never a secret
}

// Request is what a schedule is to be.
type Request struct {
	Namespace, Name string
	Zone            string // an IANA name
	Target          string // for people
	Parts           []Part
	Rights          []catalog.Right // those with Namespace "" hold in the whole cluster
	Image           string
	PullSecrets     []string
	// Requests and Limits are those of the pod; nil for none.
	Requests, Limits corev1.ResourceList
	PriorityClass    string
	// StartWithin is how late a run may begin, Deadline how long it may take.
	StartWithin, Deadline time.Duration
	// History is how many finished Jobs stand, good ones and failed ones each.
	History int32
	Retries int32
	// FailAtOnce are the exit codes after which another try is of no use.
	FailAtOnce []int32
	Suspended  bool
	// NetworkPolicy: nothing may connect to the pod, and it connects to the API
	// server, on APIPorts, and to DNS alone.
	NetworkPolicy bool
	APIPorts      []int
	// Alert is how much older than its time table lets it be a CronJob's last
	// success is when a PrometheusRule alerts; 0 for no such rule.
	Alert time.Duration
}

// The container of the CronJobs' pods, and a folder that it may write to.
const (
	container  = "backsnap"
	tempFolder = "/tmp"
)

// longestName of a CronJob: its Jobs get eleven characters more, and a Job's
// name is a label.
const longestName = 52

// Manifests are the objects of the schedule, in the order in which they are
// made: who may do what first. They depend on r alone, so that a file of them
// under version control changes only with what was asked for.
func Manifests(r Request) ([]*unstructured.Unstructured, error) {
	for _, p := range r.Parts {
		if len(p.Name) > longestName {
			return nil, fmt.Errorf("name %q: %d characters, a CronJob takes %d", p.Name, len(p.Name), longestName)
		}
	}
	objects := []runtime.Object{r.account()}
	objects = append(objects, r.roles()...)
	for _, p := range r.Parts {
		objects = append(objects, r.cronJob(p))
	}
	if r.NetworkPolicy {
		objects = append(objects, r.networkPolicy())
	}
	var all []*unstructured.Unstructured
	for _, o := range objects {
		plain, err := plain(o)
		if err != nil {
			return nil, err
		}
		all = append(all, plain)
	}
	if r.Alert > 0 {
		all = append(all, r.rule())
	}
	for _, u := range all {
		if u.GetKind() == "ServiceAccount" { // it goes last: who deletes the rest finds it by that
			u.SetAnnotations(map[string]string{catalog.AnnotationPlaces: strings.Join(r.places(), ",")})
		}
	}
	return all, nil
}

// plain is o without what only a server fills in.
func plain(o runtime.Object) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	u := &unstructured.Unstructured{Object: content}
	unstructured.RemoveNestedField(content, "status")
	unstructured.RemoveNestedField(content, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(content, "spec", "jobTemplate", "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(content, "spec", "jobTemplate", "spec", "template", "metadata", "creationTimestamp")
	return u, nil
}

func (r Request) labels() map[string]string { return catalog.OfSchedule(r.Namespace, r.Name) }

func (r Request) meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: r.labels()}
}

// Account is the name of the schedule's ServiceAccount.
func (r Request) Account() string { return "backsnap-" + r.Name }

func (r Request) account() runtime.Object {
	return &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: r.meta(r.Namespace, r.Account())}
}

// roles are a Role and its binding in every namespace of the rights, and a
// ClusterRole and its binding for what is in none.
func (r Request) roles() []runtime.Object {
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: r.Namespace, Name: r.Account()}}
	// A colon is in no namespace's name and in no schedule's: no two schedules
	// share a name.
	name := "backsnap:" + r.Namespace + ":" + r.Name
	ref := func(kind string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	}
	of := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
	}
	var objects []runtime.Object
	for _, namespace := range namespacesOf(r.Rights) {
		rules := rulesOf(r.Rights, namespace)
		if namespace == "" {
			objects = append(objects,
				&rbacv1.ClusterRole{TypeMeta: of("ClusterRole"), ObjectMeta: r.meta("", name), Rules: rules},
				&rbacv1.ClusterRoleBinding{TypeMeta: of("ClusterRoleBinding"), ObjectMeta: r.meta("", name), RoleRef: ref("ClusterRole"), Subjects: subjects})
			continue
		}
		objects = append(objects,
			&rbacv1.Role{TypeMeta: of("Role"), ObjectMeta: r.meta(namespace, name), Rules: rules},
			&rbacv1.RoleBinding{TypeMeta: of("RoleBinding"), ObjectMeta: r.meta(namespace, name), RoleRef: ref("Role"), Subjects: subjects})
	}
	return objects
}

// places are the namespaces of the objects, and catalog.PlaceCluster where some
// are in none.
func (r Request) places() []string {
	places := append(namespacesOf(r.Rights), r.Namespace)
	for i := range places {
		places[i] = cmp.Or(places[i], catalog.PlaceCluster)
	}
	slices.Sort(places)
	return slices.Compact(places)
}

func namespacesOf(rights []catalog.Right) []string {
	var names []string
	for _, right := range rights {
		names = append(names, right.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// rulesOf are the rules for what is in that namespace: sorted, one a resource, or
// object.
func rulesOf(rights []catalog.Right, namespace string) []rbacv1.PolicyRule {
	type resource struct{ group, name, object string }
	verbs := map[resource][]string{}
	for _, right := range rights {
		if right.Namespace == namespace {
			of := resource{right.Group, right.Resource, right.Name}
			verbs[of] = append(verbs[of], right.Verb)
		}
	}
	var rules []rbacv1.PolicyRule
	for _, of := range slices.SortedFunc(maps.Keys(verbs), func(a, b resource) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.name, b.name), cmp.Compare(a.object, b.object))
	}) {
		slices.Sort(verbs[of])
		rule := rbacv1.PolicyRule{APIGroups: []string{of.group}, Resources: []string{of.name}, Verbs: slices.Compact(verbs[of])}
		if of.object != "" {
			rule.ResourceNames = []string{of.object}
		}
		rules = append(rules, rule)
	}
	return rules
}

func (r Request) cronJob(p Part) runtime.Object {
	meta := r.meta(r.Namespace, p.Name)
	meta.Annotations = map[string]string{catalog.AnnotationTarget: r.Target}
	return &batchv1.CronJob{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "CronJob"},
		ObjectMeta: meta,
		Spec: batchv1.CronJobSpec{
			Schedule: p.Cron.String(), TimeZone: &r.Zone, Suspend: &r.Suspended,
			// A run that is not over holds its namespace: a second would only wait.
			ConcurrencyPolicy: batchv1.ForbidConcurrent,
			// Without it the controller gives up after a hundred missed turns.
			StartingDeadlineSeconds:    seconds(r.StartWithin),
			SuccessfulJobsHistoryLimit: &r.History, FailedJobsHistoryLimit: &r.History,
			JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: r.labels()}, Spec: r.job(p)},
		},
	}
}

func seconds(d time.Duration) *int64 { return new(int64(d / time.Second)) }

func (r Request) job(p Part) batchv1.JobSpec {
	return batchv1.JobSpec{
		BackoffLimit: &r.Retries, ActiveDeadlineSeconds: seconds(r.Deadline),
		PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			{
				// A node that is drained is no failure of ours.
				Action:          batchv1.PodFailurePolicyActionIgnore,
				OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
			},
			{
				Action: batchv1.PodFailurePolicyActionFailJob,
				OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
					ContainerName: new(container), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: r.FailAtOnce,
				},
			},
		}},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: r.labels()}, Spec: r.pod(p)},
	}
}

// pod passes Pod Security `restricted`.
func (r Request) pod(p Part) corev1.PodSpec {
	spec := corev1.PodSpec{
		ServiceAccountName: r.Account(), RestartPolicy: corev1.RestartPolicyNever, PriorityClassName: r.PriorityClass,
		// On SIGTERM it thaws what it has frozen, and removes what is unfinished.
		TerminationGracePeriodSeconds: new(int64(120)),
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), RunAsGroup: new(int64(65532)), FSGroup: new(int64(65532)),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{{
			Name: container, Image: r.Image, Args: p.Args,
			Env:       []corev1.EnvVar{{Name: "HOME", Value: tempFolder}},
			Resources: corev1.ResourceRequirements{Requests: r.Requests, Limits: r.Limits},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
			VolumeMounts: []corev1.VolumeMount{{Name: "tmp", MountPath: tempFolder}},
		}},
		Volumes: []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
	}
	for _, name := range r.PullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return spec
}

// networkPolicy lets the pods reach DNS and the API server, whose address a
// policy cannot name: its ports, anywhere. The movers are other pods.
func (r Request) networkPolicy() runtime.Object {
	port := func(protocol corev1.Protocol, number int) networkingv1.NetworkPolicyPort {
		return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: new(intstr.FromInt32(int32(number)))}
	}
	ports := []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, 53), port(corev1.ProtocolTCP, 53)}
	for _, number := range slices.Sorted(slices.Values(r.APIPorts)) {
		ports = append(ports, port(corev1.ProtocolTCP, number))
	}
	return &networkingv1.NetworkPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"},
		ObjectMeta: r.meta(r.Namespace, r.Account()),
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: r.labels()},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{Ports: ports}},
		},
	}
}

// rule alerts on the age of the last success, by what kube-state-metrics tells
// of CronJobs, and where there has been none yet on the CronJob's own age. Each
// CronJob has the age that its own time table lets its last success reach.
func (r Request) rule() *unstructured.Unstructured {
	var rules []any
	for _, p := range r.Parts {
		of := fmt.Sprintf(`{namespace=%q,cronjob=%q}`, r.Namespace, p.Name)
		age := p.Cron.Longest() + r.Alert
		rules = append(rules, map[string]any{
			"alert":  "BacksnapTooOld",
			"expr":   fmt.Sprintf("time() - (kube_cronjob_status_last_successful_time%s or kube_cronjob_created%s) > %d", of, of, int64(age/time.Second)),
			"for":    "5m",
			"labels": map[string]any{"severity": "critical", "schedule": r.Name},
			"annotations": map[string]any{
				"summary":     fmt.Sprintf("CronJob %s/%s has not succeeded for %s", r.Namespace, p.Name, short(age)),
				"description": fmt.Sprintf("kubectl backsnap schedule list -n %s; kubectl get jobs -n %s -l %s=%s", r.Namespace, r.Namespace, catalog.LabelSchedule, r.Name),
			},
		})
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
		"spec": map[string]any{"groups": []any{map[string]any{"name": "backsnap-" + r.Namespace + "-" + r.Name, "rules": rules}}},
	}}
	u.SetNamespace(r.Namespace)
	u.SetName(r.Account())
	u.SetLabels(r.labels())
	return u
}

// short is d without the parts that are nothing: 26h instead of 26h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
