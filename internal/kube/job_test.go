package kube

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

const (
	copyName = "data-mysql-0-0a1b2c3d-20261122-011500-x7k2"
	copyRun  = catalog.Run("20261122-011500-x7k2")
)

// golden compares object, as YAML, with the file of that name. UPDATE=1 writes it.
func golden(t *testing.T, name string, object any) {
	t.Helper()
	got, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".yaml")
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, name, string(want), string(got))
}

// copied is the snapshot that the copies of these tests are of.
func copied() catalog.Snapshot {
	return catalog.Snapshot{
		Namespace: "shop", Name: "data-mysql-0-20261122-011500-x7k2", UID: "5a1c", Claim: "data-mysql-0", Run: copyRun,
		Consistency: catalog.Application, Retain: "days", Content: "snapcontent-5a1c",
		Cut: time.Date(2026, 11, 22, 1, 15, 42, 0, time.UTC), Ready: true,
	}
}

func backupJob(t *testing.T, affinity json.RawMessage) restic.Job {
	t.Helper()
	return backupJobIn(t, affinity, restic.Pod{})
}

func backupJobIn(t *testing.T, affinity json.RawMessage, pod restic.Pod) restic.Job {
	t.Helper()
	job, _, err := restic.Backup{
		Namespace: "backsnap", Name: copyName, Run: copyRun, Image: restic.DefaultImage,
		Repository: catalog.Repository{Name: "main", Namespace: "backsnap", Secret: "main-secret", Cluster: "prod-eu"},
		Snapshot:   copied(), Claim: copyName, NodeAffinity: affinity, Deadline: 24 * time.Hour, Pod: pod,
		Locks: restic.Locks{Retry: restic.DefaultRetryLock, Mark: "-0a1b2c"},
	}.Job()
	if err != nil {
		t.Fatal(err)
	}
	job.Command = slices.Replace(job.Command, 2, 3, "the wrapper")
	return job
}

func TestJobObjects(t *testing.T) {
	local := json.RawMessage(`{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"topology.example/zone","operator":"In","values":["a"]}]}]}}`)
	initialise, err := restic.Work{
		Step: restic.StepInit, Namespace: "backsnap", Name: "init-main-20261122-011500-x7k2", Image: restic.DefaultImage, Run: copyRun, Deadline: time.Minute,
		Repository: catalog.Repository{Name: "main", Secret: "main-secret"},
	}.Job()
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := restic.Work{
		Step: restic.StepUnlock, Namespace: "backsnap", Name: "unlock-main-20261122-011500-x7k2", Image: restic.DefaultImage, Run: copyRun, Deadline: time.Minute,
		Nonce: "5c0ffee5", Dead: &restic.Lock{Host: "data-mysql-0-abcde", PID: 42},
		Repository: catalog.Repository{Name: "main", Secret: "main-secret", Claim: "store", ServiceAccount: "mover", Keys: []string{"AWS_WEB_IDENTITY_TOKEN_FILE"}},
	}.Job()
	if err != nil {
		t.Fatal(err)
	}
	unlock.Command = slices.Replace(unlock.Command, 2, 3, "the wrapper")
	initialise.Command = slices.Replace(initialise.Command, 2, 3, "the wrapper")
	near := backupJob(t, nil)
	near.Node = "node-2"
	device := backupJob(t, local)
	device.Block, device.Labels[catalog.LabelSlot] = true, "1"
	restore := restic.Restore{
		Namespace: "backsnap", Name: copyName, Image: restic.DefaultImage, Run: copyRun, Deadline: time.Hour,
		Repository: catalog.Repository{Name: "main", Secret: "main-secret"},
		Source:     catalog.Source{Namespace: "scratch", Claim: "data", Snapshot: "data-0", UID: "5a1c", Repository: "main", Restores: "back"},
		From:       "shop", Snapshot: "8174d253", Claim: copyName, NodeAffinity: local, Locks: restic.Locks{Retry: restic.DefaultRetryLock},
	}
	back, err := restore.Job()
	if err != nil {
		t.Fatal(err)
	}
	back.Command = slices.Replace(back.Command, 2, 3, "the wrapper")
	restore.Block, restore.Size = true, 2<<30
	backToADevice, err := restore.Job()
	if err != nil {
		t.Fatal(err)
	}
	backToADevice.Command = slices.Replace(backToADevice.Command, 2, 3, "the wrapper")
	for name, job := range map[string]restic.Job{
		"job-backup-near-the-app":        near,
		"job-backup-of-a-device":         device,
		"job-backup":                     backupJob(t, nil),
		"job-backup-where-the-volume-is": backupJob(t, local),
		"job-init":                       initialise,
		"job-restore":                    back,
		"job-restore-of-a-device":        backToADevice,
		"job-as-user":                    backupJobIn(t, nil, restic.Pod{User: 999, Keep: time.Hour}),
		"job-cache-on-a-claim":           backupJobIn(t, nil, restic.Pod{CacheClaim: "cache", MemoryLimit: "512Mi", Keep: time.Hour}),
		"job-all-settings": backupJobIn(t, nil, restic.Pod{
			CPU: "1", Memory: "1Gi", CPULimit: "2", MemoryLimit: "2Gi", CacheSize: "5Gi", Keep: 48 * time.Hour,
			PriorityClass: "backups", PullSecrets: []string{"registry", "mirror"}, ServiceAccount: "uploader",
			Tolerations: []restic.Toleration{{Key: "dedicated", Value: "backup", Effect: "NoSchedule"}, {Key: "spot"}},
		}),
		"job-unlock-with-an-identity": unlock,
	} {
		t.Run(name, func(t *testing.T) {
			object, err := jobObject(job)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, object)
		})
	}
}

func TestJobWithANodeAffinityThatCannotBeRead(t *testing.T) {
	if _, err := jobObject(backupJob(t, json.RawMessage(`{"required":7}`))); err == nil {
		t.Error("no error: the mover would run where the volume cannot be")
	}
}

func TestJobWithAQuantityThatCannotBeRead(t *testing.T) {
	for _, pod := range []restic.Pod{{Memory: "much", Keep: 1}, {CPULimit: "1 core", Keep: 1}, {CacheSize: "big", Keep: 1}} {
		if _, err := jobObject(backupJobIn(t, nil, pod)); err == nil {
			t.Errorf("no error for %+v", pod)
		}
	}
}

func TestStartMover(t *testing.T) {
	job := backupJob(t, nil)
	object, err := jobObject(job)
	if err != nil {
		t.Fatal(err)
	}
	other := object.DeepCopy()
	other.Labels[catalog.LabelRun] = "20261122-020000-aaaa"
	dying := object.DeepCopy()
	dying.DeletionTimestamp, dying.Finalizers = new(metav1.Now()), []string{"foregroundDeletion"}
	tests := []struct {
		name  string
		there *batchv1.Job
		err   error
	}{
		{name: "it is made"},
		{name: "an earlier attempt has made it", there: object},
		{name: "another run's has its name", there: other, err: catalog.ErrTaken},
		{name: "it is being deleted", there: dying, err: catalog.ErrTaken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var there []runtime.Object
			if test.there != nil {
				there = append(there, test.there)
			}
			f := newFakes(there, nil)
			if err := f.StartMover(t.Context(), job); !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
		})
	}
}

// stage is the watches of one test.
type stage struct {
	jobs, pods, events player
}

func newStage(f fakes) stage {
	s := stage{jobs: player{watch.NewFake()}, pods: player{watch.NewFake()}, events: player{watch.NewFake()}}
	f.core.PrependWatchReactor("jobs", clienttesting.DefaultWatchReactor(s.jobs, nil))
	f.core.PrependWatchReactor("pods", clienttesting.DefaultWatchReactor(s.pods, nil))
	f.core.PrependWatchReactor("events", clienttesting.DefaultWatchReactor(s.events, nil))
	return s
}

// player is a watch each of whose events is seen before the next one of any.
type player struct{ *watch.FakeWatcher }

func (p player) Add(object runtime.Object)    { p.FakeWatcher.Add(object); synctest.Wait() }
func (p player) Modify(object runtime.Object) { p.FakeWatcher.Modify(object); synctest.Wait() }
func (p player) Delete(object runtime.Object) { p.FakeWatcher.Delete(object); synctest.Wait() }

func moverJob(conditions ...batchv1.JobCondition) *batchv1.Job {
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: "backsnap", Name: copyName},
		Status:     batchv1.JobStatus{Conditions: conditions},
	}
}

func ended(how batchv1.JobConditionType, reason string) batchv1.JobCondition {
	return batchv1.JobCondition{Type: how, Status: corev1.ConditionTrue, Reason: reason, Message: "as the Job says"}
}

func moverPod(name string, phase corev1.PodPhase, state corev1.ContainerState) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "backsnap", Name: name, Labels: map[string]string{batchv1.JobNameLabel: copyName}},
		Status: corev1.PodStatus{
			Phase:             phase,
			ContainerStatuses: []corev1.ContainerStatus{{Name: "sidecar"}, {Name: "restic", State: state}},
		},
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func running() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

var finishedAt = time.Date(2026, 11, 22, 1, 20, 0, 0, time.UTC)

func terminated(exit int32, reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: exit, Reason: reason, Message: message, FinishedAt: metav1.NewTime(finishedAt),
	}}
}

func complaint(kind, name, reason, message string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: "backsnap", Name: name + ".1"},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name}, Reason: reason, Message: message,
	}
}

func TestFollowMover(t *testing.T) {
	unschedulable := moverPod("p1", corev1.PodPending, corev1.ContainerState{})
	unschedulable.Status.Conditions = []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available",
	}}
	evicted := moverPod("p1", corev1.PodFailed, corev1.ContainerState{})
	evicted.Status.Reason, evicted.Status.Message, evicted.Status.ContainerStatuses = "Evicted", "the node was low on memory", nil
	second := moverPod("p2", corev1.PodSucceeded, terminated(0, "Completed", "report 2"))
	second.CreationTimestamp = metav1.NewTime(finishedAt)
	tests := []struct {
		name  string
		show  func(s stage)
		seen  []restic.Sight
		end   restic.End
		err   error
		there []runtime.Object // for lists
	}{
		{
			name: "its container succeeds",
			show: func(s stage) {
				s.jobs.Add(moverJob())
				s.pods.Add(moverPod("p1", corev1.PodPending, waiting("ContainerCreating", "")))
				s.pods.Modify(moverPod("p1", corev1.PodRunning, running()))
				s.pods.Modify(moverPod("p1", corev1.PodRunning, terminated(0, "Completed", "report")))
			},
			seen: []restic.Sight{{}, {Pod: "p1"}, {Pod: "p1", Running: true}},
			end:  restic.End{Pod: "p1", Text: "report", Finished: finishedAt},
		},
		{
			name: "a failed attempt, then one that succeeds",
			show: func(s stage) {
				s.pods.Add(moverPod("p1", corev1.PodFailed, terminated(1, "Error", "report 1")))
				s.pods.Add(second)
			},
			seen: []restic.Sight{{Pod: "p1", Trouble: &restic.Trouble{Reason: "Error", Message: "exit 1; the Job tries again"}}},
			end:  restic.End{Pod: "p2", Text: "report 2", Finished: finishedAt},
		},
		{
			name: "a final exit code",
			show: func(s stage) {
				s.pods.Add(moverPod("p1", corev1.PodFailed, terminated(12, "Error", "report")))
				s.jobs.Add(moverJob(ended(batchv1.JobFailed, "PodFailurePolicy")))
			},
			seen: []restic.Sight{{Pod: "p1"}},
			end: restic.End{
				Pod: "p1", Exit: 12, Text: "report", Finished: finishedAt, Reason: "PodFailurePolicy", Message: "as the Job says",
			},
		},
		{
			name:  "the Job has ended before its pod was seen",
			show:  func(s stage) { s.jobs.Add(moverJob(ended(batchv1.JobFailed, "BackoffLimitExceeded"))) },
			there: []runtime.Object{moverPod("p1", corev1.PodFailed, terminated(137, "OOMKilled", ""))},
			end: restic.End{
				Pod: "p1", Exit: 137, Killed: "OOMKilled", Finished: finishedAt, Reason: "BackoffLimitExceeded", Message: "as the Job says",
			},
		},
		{
			name: "the Job's time is up before there was a pod",
			show: func(s stage) { s.jobs.Add(moverJob(ended(batchv1.JobFailed, "DeadlineExceeded"))) },
			end:  restic.End{Reason: "DeadlineExceeded", Message: "as the Job says"},
		},
		{
			name: "a pod that is gone keeps its report",
			show: func(s stage) {
				pod := moverPod("p1", corev1.PodFailed, terminated(130, "Error", "report"))
				s.pods.Add(pod)
				s.pods.Delete(pod)
				s.jobs.Add(moverJob(ended(batchv1.JobFailed, "DeadlineExceeded")))
			},
			seen: []restic.Sight{
				{Pod: "p1", Trouble: &restic.Trouble{Reason: "Error", Message: "exit 130; the Job tries again"}},
				{Pod: "p1", Trouble: &restic.Trouble{Reason: "Error", Message: "exit 130; the Job tries again"}},
			},
			end: restic.End{
				Pod: "p1", Exit: 130, Text: "report", Finished: finishedAt, Reason: "DeadlineExceeded", Message: "as the Job says",
			},
		},
		{
			name: "an evicted pod",
			show: func(s stage) {
				s.pods.Add(evicted)
				s.jobs.Add(moverJob(ended(batchv1.JobFailed, "BackoffLimitExceeded")))
			},
			seen: []restic.Sight{{Pod: "p1", Trouble: &restic.Trouble{Reason: "Evicted", Message: "the node was low on memory; the Job tries again"}}},
			end: restic.End{
				Pod: "p1", Exit: 1, Killed: "Evicted", Text: "the node was low on memory",
				Reason: "BackoffLimitExceeded", Message: "as the Job says",
			},
		},
		{
			name: "the Job is deleted",
			show: func(s stage) {
				s.jobs.Add(moverJob())
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{{}},
			err:  catalog.ErrGone,
		},
		{
			name: "an image that is not there, then is",
			show: func(s stage) {
				s.pods.Add(moverPod("p1", corev1.PodPending, waiting("ImagePullBackOff", "no such image")))
				s.pods.Modify(moverPod("p1", corev1.PodRunning, running()))
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{
				{Pod: "p1", Trouble: &restic.Trouble{Reason: "ImagePullBackOff", Message: "no such image"}},
				{Pod: "p1", Running: true},
			},
			err: catalog.ErrGone,
		},
		{
			name: "it wants more memory than it may have",
			show: func(s stage) {
				pod := moverPod("p1", corev1.PodFailed, terminated(137, "OOMKilled", ""))
				pod.Spec.Containers = []corev1.Container{{Name: "restic", Resources: corev1.ResourceRequirements{
					Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("24Mi")},
				}}}
				s.pods.Add(pod)
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{{Pod: "p1", Trouble: &restic.Trouble{Reason: "OOMKilled", Message: "restic needs more memory than its limit of 24Mi", Lasting: true}}},
			err:  catalog.ErrGone,
		},
		{
			name: "its Secret is gone",
			show: func(s stage) {
				s.pods.Add(moverPod("p1", corev1.PodPending, waiting("CreateContainerConfigError", `secret "main" not found`)))
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{{Pod: "p1", Trouble: &restic.Trouble{Reason: "CreateContainerConfigError", Message: `secret "main" not found`}}},
			err:  catalog.ErrGone,
		},
		{
			name: "its node does not answer any more, then it does",
			show: func(s stage) {
				pod := func(ready corev1.ConditionStatus, state corev1.ContainerState) *corev1.Pod {
					p := moverPod("p1", corev1.PodRunning, state)
					p.Spec.NodeName = "node-2"
					p.Status.Conditions = []corev1.PodCondition{
						{Type: corev1.PodReady, Status: ready}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
					}
					return p
				}
				s.pods.Add(pod(corev1.ConditionTrue, running()))
				s.pods.Modify(pod(corev1.ConditionFalse, running()))
				s.pods.Modify(pod(corev1.ConditionTrue, running()))
				s.pods.Modify(pod(corev1.ConditionFalse, terminated(0, "Completed", "report"))) // as its kubelet says it first
			},
			seen: []restic.Sight{{Pod: "p1", Running: true}, {Pod: "p1", Trouble: &restic.Trouble{
				Reason: "NodeNotReady", Object: "node-2", Message: "node node-2 does not answer; whether restic runs there still is not known",
			}}, {Pod: "p1", Running: true}},
			end: restic.End{Pod: "p1", Text: "report", Finished: finishedAt},
		},
		{
			name: "its node is lost before the container was made",
			show: func(s stage) {
				pod := moverPod("p1", corev1.PodPending, waiting("ContainerCreating", ""))
				pod.DeletionTimestamp = new(metav1.Now())
				pod.Status.Conditions = []corev1.PodCondition{{
					Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager", Message: "deleting due to NoExecute taint",
				}}
				s.pods.Add(pod)
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{{Pod: "p1", Trouble: &restic.Trouble{Reason: "DeletionByTaintManager", Message: "deleting due to NoExecute taint"}}},
			err:  catalog.ErrGone,
		},
		{
			name: "no node has room",
			show: func(s stage) {
				s.pods.Add(unschedulable)
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{{Pod: "p1", Trouble: &restic.Trouble{Reason: "Unschedulable", Message: "0/1 nodes are available"}}},
			err:  catalog.ErrGone,
		},
		{
			name: "what the cluster complains of, of this mover only",
			show: func(s stage) {
				s.events.Add(complaint("Pod", "another", "FailedMount", "not ours"))
				s.events.Add(complaint("PersistentVolumeClaim", copyName, "ProvisioningFailed", "pool is full"))
				s.pods.Add(moverPod("p1", corev1.PodPending, waiting("ContainerCreating", "")))
				s.events.Add(complaint("Pod", "p1", "InvalidVariableNames", "ca.crt"))
				s.events.Add(complaint("Pod", "p1", "FailedMount", "no such device"))
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{
				{},
				{Trouble: &restic.Trouble{Reason: "ProvisioningFailed", Message: "pool is full"}},
				{Pod: "p1", Trouble: &restic.Trouble{Reason: "ProvisioningFailed", Message: "pool is full"}},
				{Pod: "p1", Trouble: &restic.Trouble{Reason: "ProvisioningFailed", Message: "pool is full"}},
				{Pod: "p1", Trouble: &restic.Trouble{Reason: "FailedMount", Message: "no such device"}},
			},
			err: catalog.ErrGone,
		},
		{
			name: "Pod Security forbids it",
			show: func(s stage) {
				s.events.Add(complaint("Job", copyName, "FailedCreate", `pods "x" is forbidden: violates PodSecurity "restricted:latest"`))
				s.jobs.Delete(moverJob())
			},
			seen: []restic.Sight{{Trouble: &restic.Trouble{Reason: "PodSecurity", Message: `pods "x" is forbidden: violates PodSecurity "restricted:latest"`, Lasting: true}}},
			err:  catalog.ErrGone,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes(test.there, nil)
				go test.show(newStage(f))
				var seen []restic.Sight
				end, err := f.FollowMover(t.Context(), "backsnap", copyName, copyName, func(s restic.Sight) { seen = append(seen, s) })
				equal(t, "seen", test.seen, seen)
				equal(t, "end", test.end, end)
				if !errors.Is(err, test.err) {
					t.Errorf("error %v, want %v", err, test.err)
				}
			})
		})
	}
}

func TestFollowMoverEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(nil, nil)
		newStage(f)
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, enough)
		defer cancel()
		if _, err := f.FollowMover(ctx, "backsnap", copyName, "", func(restic.Sight) {}); !errors.Is(err, enough) {
			t.Errorf("error %v, want %v", err, enough)
		}
	})
}

func TestFollowMoverWithoutTheRightToWatchPods(t *testing.T) {
	f := newFakes(nil, nil)
	newStage(f)
	f.core.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		return true, nil, denied("watch", "", "pods")
	})
	_, err := f.FollowMover(t.Context(), "backsnap", copyName, "", func(restic.Sight) {})
	equal(t, "code", catalog.CodeForbidden, catalog.CodeOf(err))
}

// A watch that expires while the Job is deleted has not seen it go.
func TestFollowMoverLooksForAJobThatMayBeGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(nil, nil)
		s := newStage(f)
		opened := 0
		f.core.PrependWatchReactor("jobs", func(clienttesting.Action) (bool, watch.Interface, error) {
			if opened++; opened == 1 {
				w := watch.NewFake()
				go func() {
					w.Add(moverJob())
					w.Error(&metav1.Status{Code: 410, Reason: metav1.StatusReasonExpired})
				}()
				return true, w, nil
			}
			return true, s.jobs, nil
		})
		if _, err := f.FollowMover(t.Context(), "backsnap", copyName, "", func(restic.Sight) {}); !errors.Is(err, catalog.ErrGone) {
			t.Errorf("error %v, want %v", err, catalog.ErrGone)
		}
	})
}

func TestRemoveMoverWaitsUntilItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes([]runtime.Object{moverJob()}, nil)
		s := newStage(f)
		var options metav1.DeleteOptions
		f.core.PrependReactor("delete", "jobs", func(a clienttesting.Action) (bool, runtime.Object, error) {
			options = a.(clienttesting.DeleteActionImpl).DeleteOptions
			return true, nil, nil
		})
		gone := false
		go func() {
			s.jobs.Add(moverJob())
			time.Sleep(time.Minute) // its pods end
			gone = true
			s.jobs.Delete(moverJob())
		}()
		if err := f.RemoveMover(t.Context(), "backsnap", copyName); err != nil {
			t.Fatal(err)
		}
		equal(t, "gone", true, gone)
		equal(t, "options", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)}, options)
	})
}

func TestRemoveMoverThatIsGone(t *testing.T) {
	f := newFakes(nil, nil)
	newStage(f)
	if err := f.RemoveMover(t.Context(), "backsnap", copyName); err != nil {
		t.Error(err)
	}
}

// The watch breaks after the deletion: whether the Job is gone is asked.
func TestRemoveMoverAfterItsWatchBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes([]runtime.Object{moverJob()}, nil)
		f.core.PrependWatchReactor("jobs", func(clienttesting.Action) (bool, watch.Interface, error) {
			w := watch.NewFake()
			w.Stop()
			return true, w, nil
		})
		if err := f.RemoveMover(t.Context(), "backsnap", copyName); err != nil {
			t.Fatal(err)
		}
		_, err := f.core.BatchV1().Jobs("backsnap").Get(t.Context(), copyName, metav1.GetOptions{})
		equal(t, "gone", true, apierrors.IsNotFound(err))
	})
}
