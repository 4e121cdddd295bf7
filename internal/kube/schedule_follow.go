package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lookAgain is the time between two looks at a Job that is followed.
const lookAgain = time.Second

// FollowJob copies the log of a Job's pods, in the order in which they were
// made, until the Job has ended, and is the exit code of the last of them.
func (c *Cluster) FollowJob(ctx context.Context, namespace, job string, log io.Writer) (int, error) {
	read := map[string]bool{}
	code := 1
	for {
		ended, why, err := c.jobEnded(ctx, namespace, job)
		if err != nil {
			return code, err
		}
		pods, err := c.podsOfJob(ctx, namespace, job)
		if err != nil {
			return code, err
		}
		slices.SortFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		for _, pod := range pods {
			if !read[pod.Name] && pod.Status.Phase != corev1.PodPending {
				read[pod.Name] = true
				if err := c.copyLog(ctx, namespace, pod.Name, log); err != nil {
					return code, err
				}
			}
			if found, ok := exitOfPod(pod); ok {
				code = found
			}
		}
		switch {
		case ended && why == "":
			return 0, nil
		case ended && len(read) == 0:
			return code, errors.New("job " + namespace + "/" + job + " failed: " + why)
		case ended:
			return max(code, 1), nil
		}
		if err := sleep(ctx, lookAgain); err != nil {
			return code, err
		}
	}
}

// jobEnded is whether a Job has ended, and why it failed, "" where it did not.
func (c *Cluster) jobEnded(ctx context.Context, namespace, name string) (ended bool, why string, err error) {
	var job *batchv1.Job
	err = again(ctx, func(ctx context.Context) (err error) {
		job, err = c.core.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return false, "", explain(err, "read job "+namespace+"/"+name, jobRight("get", namespace))
	}
	how, condition := finished(job)
	if how == batchv1.JobFailed {
		why = condition.Reason + ": " + condition.Message
	}
	return how != "", why, nil
}

func (c *Cluster) copyLog(ctx context.Context, namespace, pod string, to io.Writer) error {
	log, err := c.followLog(ctx, namespace, pod, "")
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := io.Copy(to, log); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("read log of %s/%s: %w", namespace, pod, err)
	}
	return nil
}

// exitOfPod is the exit code of a pod whose one container has ended.
func exitOfPod(pod corev1.Pod) (int, bool) {
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Terminated != nil {
			return int(status.State.Terminated.ExitCode), true
		}
	}
	return 0, false
}
