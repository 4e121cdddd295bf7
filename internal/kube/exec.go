package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Exec runs argv in a container, over a WebSocket, or over SPDY where the
// server or a proxy before it refuses that. It returns when the command has
// ended and all it wrote has been handed on, or when ctx is done, whose cause
// is then the error. A non-zero exit is a *catalog.ExitError, a missing right
// a catalog.Failure of CodeForbidden. A nil error proves nothing: a stream
// that was cut may end with none.
//
// stdin, which may be nil, is sent as it comes, and the command's input stays
// open until it ends. Exec does not wait for it: a reader that blocks still
// when Exec returns gets one more Read, whose result is thrown away. What a
// writer fails with is part of the error, and its stream is read on so that
// the command is not held up; a writer that blocks holds up the command only
// after some megabytes. None is written to after Exec has returned.
//
// ctx's end does not end the command: the end of its input has to.
func (c *Cluster) Exec(ctx context.Context, ref catalog.ContainerRef, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	out, log := newOutlet(stdout), newOutlet(stderr)
	streams := remotecommand.StreamOptions{Stdout: out, Stderr: log}
	var in *inlet
	if stdin != nil {
		in = &inlet{reader: stdin}
		streams.Stdin = in
	}
	refused, err := c.stream(ctx, ref, argv, streams)
	if ctx.Err() != nil {
		out.cut()
		log.cut()
		return fmt.Errorf("run command in %s: %w", ref, context.Cause(ctx))
	}
	err = errors.Join(execError(err, refused, ref), out.finish(ctx), log.finish(ctx), in.failure())
	if err != nil {
		return fmt.Errorf("run command in %s: %w", ref, err)
	}
	return nil
}

// stream runs the command with those streams. It tries again while nothing was
// begun because nobody listens at the server's address, or it has only just
// started. refused is why a WebSocket was not to be had before SPDY was tried.
func (c *Cluster) stream(ctx context.Context, ref catalog.ContainerRef, argv []string, streams remotecommand.StreamOptions) (refused, err error) {
	away := again(ctx, func(ctx context.Context) error {
		var executor remotecommand.Executor
		executor, err = c.executor(ref, argv, streams.Stdin != nil, func(err error) { refused = err })
		if err == nil {
			err = executor.StreamWithContext(ctx, streams)
		}
		switch {
		case utilnet.IsConnectionRefused(err):
			return err
		case err != nil && strings.Contains(err.Error(), justStarted):
			return apierrors.NewServiceUnavailable(justStarted)
		}
		return nil
	})
	if err == nil {
		err = away
	}
	return refused, err
}

// executor is good for one attempt.
func (c *Cluster) executor(ref catalog.ContainerRef, argv []string, stdin bool, refused func(error)) (remotecommand.Executor, error) {
	address := c.core.CoreV1().RESTClient().Post().
		Namespace(ref.Namespace).Resource("pods").Name(ref.Pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{
			Container: ref.Container, Command: argv, Stdin: stdin, Stdout: true, Stderr: true,
		}, scheme.ParameterCodec).URL()
	web, err := remotecommand.NewWebSocketExecutor(c.config, "GET", address.String())
	if err != nil {
		return nil, err
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", address)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewFallbackExecutor(web, spdy, func(err error) bool {
		refused(err)
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
}

// execError is err in our own types. SPDY keeps only the text of a refusal;
// what it was stands in refused, that of the WebSocket before it.
func execError(err, refused error, ref catalog.ContainerRef) error {
	var exit exec.CodeExitError
	if errors.As(err, &exit) {
		return &catalog.ExitError{Code: exit.Code}
	}
	var upgrade *httpstream.UpgradeFailureError
	if err == nil || !strings.HasPrefix(err.Error(), "unable to upgrade connection") || !errors.As(refused, &upgrade) || !apierrors.IsForbidden(upgrade.Cause) {
		return err
	}
	right := catalog.Right{Verb: "create", Resource: "pods/exec", Namespace: ref.Namespace}
	if strings.Contains(err.Error(), " cannot ") { // of a WebSocket that lacks this alone the server does not say why
		return forbidden(err, "exec", right)
	}
	return explain(upgrade.Cause, "exec", right)
}
