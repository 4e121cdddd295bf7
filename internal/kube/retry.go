package kube

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// How long a call waits for an API server that is away, as one is for a
// moment during an upgrade, and how long between two attempts.
const (
	outage     = 30 * time.Second
	firstPause = 250 * time.Millisecond
	maxPause   = 4 * time.Second
)

// again calls do until it succeeds, fails for good, or the API server has been
// away for too long. do must be safe to repeat: its answer may have been lost.
// Once ctx is done the error is its cause.
func again(ctx context.Context, do func(context.Context) error) error {
	deadline := time.Now().Add(outage)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := do(ctx)
		if ctx.Err() != nil && err != nil {
			return context.Cause(ctx)
		}
		if err == nil || !passing(err) || time.Now().Add(pause).After(deadline) {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// passing reports whether err says that the server cannot answer just now.
func passing(err error) bool {
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) ||
		utilnet.IsProbableEOF(err) || utilnet.IsHTTP2ConnectionLost(err) || utilnet.IsTimeout(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsServerTimeout(err) ||
		apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) || badGateway(err)
}

// badGateway reports whether a load balancer has answered that finds no server
// behind it.
func badGateway(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Code == http.StatusBadGateway
}

// sleep waits for d; the error is ctx's cause.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
