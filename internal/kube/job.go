package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// moverContainer is the name of a mover's only container.
const moverContainer = "restic"

// retries is how many attempts follow the first that failed.
const retries = 2

func jobRight(verb, namespace string) catalog.Right {
	return catalog.Right{Verb: verb, Group: "batch", Resource: "jobs", Namespace: namespace}
}

// jobObject is job as the API has it. As root it passes Pod Security's level
// baseline: it may read any file, and do nothing else that root may. As another
// user it passes restricted.
func jobObject(job restic.Job) (*batchv1.Job, error) {
	pod, err := podSpec(job)
	if err != nil {
		return nil, err
	}
	giveSecret(&pod, job.Secret)
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace, Name: job.Name, Labels: job.Labels, Annotations: job.Annotations,
		},
		Spec: batchv1.JobSpec{
			BackoffLimit:            new(int32(retries)),
			ActiveDeadlineSeconds:   new(int64(job.Deadline.Seconds())),
			TTLSecondsAfterFinished: new(int32(job.Keep.Seconds())),
			// One restic at a time: a new pod waits until the old one is gone.
			PodReplacementPolicy: new(batchv1.Failed),
			PodFailurePolicy:     failurePolicy(),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: job.Labels, Annotations: job.Annotations},
				Spec:       pod,
			},
		},
	}, nil
}

// giveSecret makes a repository's Secret the environment of the pod's
// container, and mounts it; "" for a pod that needs none.
func giveSecret(pod *corev1.PodSpec, secret string) {
	if secret == "" {
		return
	}
	pod.Volumes = slices.Insert(pod.Volumes, 0, corev1.Volume{Name: "repository", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: secret},
	}})
	c := &pod.Containers[0]
	c.VolumeMounts = slices.Insert(c.VolumeMounts, 0, corev1.VolumeMount{Name: "repository", MountPath: restic.RepositoryPath, ReadOnly: true})
	c.EnvFrom = append(c.EnvFrom, corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret},
	}})
}

// failurePolicy ends the Job where another attempt would end alike, and does
// not count the attempts that a drained node has ended.
func failurePolicy() *batchv1.PodFailurePolicy {
	final := make([]int32, len(restic.Final))
	for i, exit := range restic.Final {
		final[i] = int32(exit)
	}
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
		Action: batchv1.PodFailurePolicyActionFailJob,
		OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			ContainerName: new(moverContainer),
			Operator:      batchv1.PodFailurePolicyOnExitCodesOpIn,
			Values:        final,
		},
	}, {
		Action: batchv1.PodFailurePolicyActionIgnore,
		OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
		}},
	}}}
}

func podSpec(job restic.Job) (corev1.PodSpec, error) {
	container, err := moverSpec(job)
	if err != nil {
		return corev1.PodSpec{}, err
	}
	spec := corev1.PodSpec{
		RestartPolicy:                corev1.RestartPolicyNever,
		AutomountServiceAccountToken: new(false),
		Hostname:                     job.Host,
		EnableServiceLinks:           new(false),
		// restic removes its lock on TERM; one that it leaves behind stops
		// others for half an hour.
		TerminationGracePeriodSeconds: new(int64(60)),
		NodeSelector:                  map[string]string{corev1.LabelOSStable: "linux"},
		PriorityClassName:             job.PriorityClass,
		ServiceAccountName:            job.ServiceAccount,
		SecurityContext:               podSecurity(job.User),
		Containers:                    []corev1.Container{container},
		Volumes: []corev1.Volume{
			{Name: "cache", VolumeSource: cacheVolume(job)},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		},
		// Movers read whole volumes: rather not two on one node.
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
				catalog.LabelManagedBy: catalog.ManagedBy, catalog.LabelRole: string(catalog.RoleMover),
			}},
		}},
	}
	for _, name := range job.PullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	for _, t := range job.Tolerations {
		spec.Tolerations = append(spec.Tolerations, toleration(t))
	}
	if job.Claim != "" {
		// A file system is read-only in the container alone: one that was cut
		// while it was mounted replays its journal when it is mounted.
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: job.Claim, ReadOnly: job.Block && !job.Writes},
		}})
	}
	if job.RepositoryClaim != "" {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "repository-claim", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: job.RepositoryClaim},
		}})
	}
	if job.Token {
		spec.Volumes = append(spec.Volumes, identity())
	}
	spec.Affinity, err = affinity(job)
	return spec, err
}

// affinity is where the pod must be, and where it had best be; nil for anywhere.
func affinity(job restic.Job) (*corev1.Affinity, error) {
	node := &corev1.NodeAffinity{}
	if job.NodeAffinity != nil {
		var where corev1.VolumeNodeAffinity
		if err := json.Unmarshal(job.NodeAffinity, &where); err != nil {
			return nil, fmt.Errorf("read node affinity of the volume: %w", err)
		}
		preferOrKeep(node, where.Required, job.AnyNode)
	}
	if job.Node != "" {
		term := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{
			Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{job.Node},
		}}}
		node.PreferredDuringSchedulingIgnoredDuringExecution = []corev1.PreferredSchedulingTerm{{Weight: 100, Preference: term}}
	}
	var where corev1.Affinity
	if node.RequiredDuringSchedulingIgnoredDuringExecution != nil || node.PreferredDuringSchedulingIgnoredDuringExecution != nil {
		where.NodeAffinity = node
	}
	if slot := job.Labels[catalog.LabelSlot]; slot != "" {
		where.PodAntiAffinity = apart(slot)
	}
	if where == (corev1.Affinity{}) {
		return nil, nil
	}
	return &where, nil
}

// preferOrKeep keeps a pod to those nodes, or makes it prefer them if any will do.
func preferOrKeep(node *corev1.NodeAffinity, nodes *corev1.NodeSelector, anyNode bool) {
	if nodes == nil || !anyNode {
		node.RequiredDuringSchedulingIgnoredDuringExecution = nodes
		return
	}
	for _, term := range nodes.NodeSelectorTerms {
		node.PreferredDuringSchedulingIgnoredDuringExecution = append(node.PreferredDuringSchedulingIgnoredDuringExecution,
			corev1.PreferredSchedulingTerm{Weight: 100, Preference: term})
	}
}

// apart keeps movers of one slot off each other's nodes, wherever they run and
// whoever started them. With so many slots as movers may run on a node the
// scheduler itself counts, and two runs need not know of each other.
func apart(slot string) *corev1.PodAntiAffinity {
	return &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
		TopologyKey:       corev1.LabelHostname,
		NamespaceSelector: &metav1.LabelSelector{},
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{
			catalog.LabelManagedBy: catalog.ManagedBy, catalog.LabelRole: string(catalog.RoleMover), catalog.LabelSlot: slot,
		}},
	}}}
}

// identity is a token of the pod's ServiceAccount for those who hand out keys
// to it. The API server does not take it.
func identity() corev1.Volume {
	return corev1.Volume{Name: "identity", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: "sts.amazonaws.com", ExpirationSeconds: new(int64(24 * 60 * 60)), Path: path.Base(restic.TokenPath),
		}}},
	}}}
}

// podSecurity is that of a pod that runs as user. It has no fsGroup, not even
// with the policy OnRootMismatch: the root of a clone rarely has that group, and
// the kubelet would then write to every file before restic compares them.
func podSecurity(user int64) *corev1.PodSecurityContext {
	security := &corev1.PodSecurityContext{
		RunAsUser:      &user,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if user != 0 {
		security.RunAsNonRoot = new(true)
	}
	return security
}

// capabilities are none, but for root those that it works with: to read every
// file of a volume that is read-only, or to write one as it was.
func capabilities(job restic.Job) *corev1.Capabilities {
	c := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	switch {
	case job.User != 0:
	case job.Powers == nil:
		c.Add = []corev1.Capability{"DAC_OVERRIDE"}
	default:
		for _, power := range job.Powers {
			c.Add = append(c.Add, corev1.Capability(power))
		}
	}
	return c
}

// cacheVolume is where restic keeps its cache.
func cacheVolume(job restic.Job) corev1.VolumeSource {
	if job.CacheClaim != "" {
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: job.CacheClaim}}
	}
	folder := &corev1.EmptyDirVolumeSource{}
	if size, err := resource.ParseQuantity(job.CacheSize); err == nil { // moverSpec has read it before
		folder.SizeLimit = &size
	}
	return corev1.VolumeSource{EmptyDir: folder}
}

func toleration(t restic.Toleration) corev1.Toleration {
	operator := corev1.TolerationOpEqual
	if t.Value == "" {
		operator = corev1.TolerationOpExists
	}
	return corev1.Toleration{Key: t.Key, Operator: operator, Value: t.Value, Effect: corev1.TaintEffect(t.Effect)}
}

// resources are what the pod asks for and may have. Quantities that cannot be
// read are an error.
func resources(job restic.Job) (corev1.ResourceRequirements, error) {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, of := range []struct {
		list corev1.ResourceList
		name corev1.ResourceName
		text string
	}{
		{r.Requests, corev1.ResourceCPU, job.CPU}, {r.Requests, corev1.ResourceMemory, job.Memory},
		{r.Limits, corev1.ResourceCPU, job.CPULimit}, {r.Limits, corev1.ResourceMemory, job.MemoryLimit},
		{corev1.ResourceList{}, corev1.ResourceStorage, job.CacheSize},
	} {
		if of.text == "" {
			continue
		}
		quantity, err := resource.ParseQuantity(of.text)
		if err != nil {
			return r, fmt.Errorf("read %s %q of the mover: %w", of.name, of.text, err)
		}
		of.list[of.name] = quantity
	}
	return r, nil
}

// memoryLimit tells Go how much memory there is: above this it collects its
// garbage more often, below restic is as fast as it can be.
func memoryLimit(r corev1.ResourceRequirements) []corev1.EnvVar {
	limit, found := r.Limits[corev1.ResourceMemory]
	if !found {
		return nil
	}
	return []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: fmt.Sprintf("%dMiB", max(1, limit.Value()/100*85>>20))}}
}

func moverSpec(job restic.Job) (corev1.Container, error) {
	needs, err := resources(job)
	if err != nil {
		return corev1.Container{}, err
	}
	c := corev1.Container{
		Name: moverContainer, Image: job.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command: job.Command, Args: job.Args,
		Env:       memoryLimit(needs),
		Resources: needs,
		// The report is written by the wrapper; where it could not, the log
		// tells most.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             capabilities(job),
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "cache", MountPath: restic.CachePath},
			{Name: "tmp", MountPath: restic.TempPath},
		},
	}
	for _, e := range job.Env {
		c.Env = append(c.Env, corev1.EnvVar{Name: e.Name, Value: e.Value})
	}
	switch {
	case job.Claim == "":
	case job.Block:
		c.VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: restic.DataPath}}
	default:
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: restic.DataPath, ReadOnly: !job.Writes})
	}
	if job.RepositoryClaim != "" {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "repository-claim", MountPath: restic.ClaimPath})
	}
	if job.Token {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "identity", MountPath: path.Dir(restic.TokenPath), ReadOnly: true})
	}
	return c, nil
}

// StartMover makes the Job. One that the same run made is taken as the answer
// to an earlier attempt.
func (c *Cluster) StartMover(ctx context.Context, job restic.Job) error {
	object, err := jobObject(job)
	if err != nil {
		return err
	}
	door := c.core.BatchV1().Jobs(job.Namespace)
	err = again(ctx, func(ctx context.Context) error {
		_, err := door.Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		there, found := door.Get(ctx, job.Name, metav1.GetOptions{})
		if found != nil {
			return explain(found, "read job "+job.Namespace+"/"+job.Name, jobRight("get", job.Namespace))
		}
		if !made(there.ObjectMeta, object.ObjectMeta) {
			return fmt.Errorf("create job %s/%s: %w", job.Namespace, job.Name, catalog.ErrTaken)
		}
		return nil
	}
	return admitted(err, fmt.Sprintf("create job %s/%s", job.Namespace, job.Name), jobRight("create", job.Namespace))
}

// made reports whether there is what asked for would have become: of the same
// run, in the same role, for the same claim, and here to stay.
func made(there, asked metav1.ObjectMeta) bool {
	for _, key := range []string{
		catalog.LabelManagedBy, catalog.LabelRun, catalog.LabelRole, catalog.LabelNamespace, catalog.LabelClaim,
	} {
		if there.Labels[key] != asked.Labels[key] {
			return false
		}
	}
	return there.DeletionTimestamp == nil
}

// RemoveMover deletes the Job. The server holds it until its pods are gone:
// a pod that is left keeps the clone from going.
func (c *Cluster) RemoveMover(ctx context.Context, namespace, name string) error {
	c.awaitPodEnd(ctx, namespace, name)
	door := c.core.BatchV1().Jobs(namespace)
	err := remove(ctx, name, removal{
		watch:  door.Watch,
		get:    getter(door.Get),
		keeper: c.silentNode(namespace, podsOf(name), anyPod),
		delete: func(ctx context.Context) error {
			return door.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)})
		},
	})
	return explain(err, fmt.Sprintf("delete job %s/%s", namespace, name), jobRight("delete", namespace))
}

// MoverLog follows the log of a mover's pod.
func (c *Cluster) MoverLog(ctx context.Context, namespace, pod string) (io.ReadCloser, error) {
	return c.followLog(ctx, namespace, pod, moverContainer)
}

// followLog follows the log of a container of a pod; "" for the only one.
func (c *Cluster) followLog(ctx context.Context, namespace, pod, container string) (io.ReadCloser, error) {
	log, err := c.core.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, Follow: true}).Stream(ctx)
	right := catalog.Right{Verb: "get", Resource: "pods/log", Namespace: namespace}
	return log, explain(err, fmt.Sprintf("read log of %s/%s", namespace, pod), right)
}

// MoverPods are the pods of movers that have not ended.
func (c *Cluster) MoverPods(ctx context.Context, namespace string) ([]string, error) {
	pods, err := list(ctx, inRole(catalog.RoleMover), c.core.CoreV1().Pods(namespace).List,
		func(l *corev1.PodList) []corev1.Pod { return l.Items })
	if err != nil {
		return nil, explain(err, "list pods in "+namespace, catalog.Right{Verb: "list", Resource: "pods", Namespace: namespace})
	}
	var names []string
	for _, pod := range pods {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			names = append(names, pod.Name)
		}
	}
	return names, nil
}

// finished is the type of the condition that ended the Job, and the condition;
// "" while it has not.
func finished(job *batchv1.Job) (batchv1.JobConditionType, batchv1.JobCondition) {
	for _, condition := range job.Status.Conditions {
		ended := condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed
		if ended && condition.Status == corev1.ConditionTrue {
			return condition.Type, condition
		}
	}
	return "", batchv1.JobCondition{}
}

// removal is how one object is removed and seen to be gone.
type removal struct {
	watch  func(context.Context, metav1.ListOptions) (watch.Interface, error)
	get    func(context.Context, string) error
	delete func(context.Context) error
	keeper keeper // nil where only finalizers can hold it
}

// remove deletes the object of that name and returns when it is gone, or held
// by others. The watch is there before the deletion, so that the end cannot be
// missed.
func remove(ctx context.Context, name string, r removal) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hold := &hold{giveUp: cancel}
	defer hold.forget()
	if r.keeper != nil {
		go r.keeper.ask(ctx, cancel)
	}
	gone, deleted := false, false
	return observe(ctx, r.watch, only(name), observer{
		opened: func() error {
			if deleted {
				err := again(ctx, func(ctx context.Context) error { return r.get(ctx, name) })
				gone = apierrors.IsNotFound(err)
				return ignoreGone(err)
			}
			err := again(ctx, r.delete)
			deleted, gone = true, apierrors.IsNotFound(err)
			return ignoreGone(err)
		},
		event: func(e watch.Event) error {
			gone = gone || e.Type == watch.Deleted
			if object, ok := e.Object.(metav1.Object); ok {
				hold.see(heldBy(object))
			}
			return nil
		},
		done: func() bool { return gone },
	})
}

func ignoreGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// only selects one object.
func only(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
}

// observer is who looks at a watch. All are called one after the other.
type observer struct {
	// opened is called each time that a watch was opened, before its first
	// event: again after one has broken, when events may have been missed.
	opened func() error
	// event is called with each object as it stands when the watch is opened,
	// and at each change.
	event func(watch.Event) error
	// done is asked after each of both.
	done func() bool
}

// observe watches until the observer is done or fails, the server refuses, or
// ctx is done. A watch that ends is opened again; one without a
// resourceVersion begins with all that there is.
func observe(ctx context.Context, open func(context.Context, metav1.ListOptions) (watch.Interface, error), options metav1.ListOptions, o observer) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		w, err := open(ctx, options)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				w.Stop()
			}
			return context.Cause(ctx)
		case err != nil && !passing(err):
			return err
		case err == nil:
			began := time.Now()
			done, err := look(ctx, w, o)
			if done || err != nil {
				return err
			}
			if time.Since(began) > time.Minute {
				pause = firstPause
			}
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// look is what observe does with one watch.
func look(ctx context.Context, w watch.Interface, o observer) (done bool, err error) {
	defer w.Stop()
	if err := o.opened(); err != nil || o.done() {
		return true, err
	}
	for {
		select {
		case <-ctx.Done():
			return true, context.Cause(ctx)
		case e, open := <-w.ResultChan():
			if !open || e.Type == watch.Error { // it has expired: begin again
				return false, nil
			}
			if e.Type == watch.Bookmark {
				continue
			}
			if err := o.event(e); err != nil || o.done() {
				return true, err
			}
		}
	}
}
