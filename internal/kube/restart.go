package kube

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// settling is how long after an outage a refusal is not believed: an API
// server that has just started forbids everything until it has read all roles
// (seen with Kubernetes 1.36: for about two seconds).
const settling = 15 * time.Second

const justStarted = "the API server has just started and may not have read all roles"

// restarts remembers when the API server was last away, and whether writes wait
// for something, for all transports of a Cluster.
type restarts struct {
	mu   sync.Mutex
	away time.Time
	// gate is closed when writes may be sent again; nil while they may.
	gate chan struct{}
}

// suspend keeps writes back, or lets them go.
func (r *restarts) suspend(in bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case in && r.gate == nil:
		r.gate = make(chan struct{})
	case !in && r.gate != nil:
		close(r.gate)
		r.gate = nil
	}
}

// pass returns when request may be sent. Whoever reads may always, and so may
// those who look after a Lease.
func (r *restarts) pass(request *http.Request) error {
	reads := request.Method == http.MethodGet && !strings.HasSuffix(request.URL.Path, "/exec")
	for !reads && !strings.Contains(request.URL.Path, "/leases") {
		r.mu.Lock()
		gate := r.gate
		r.mu.Unlock()
		if gate == nil {
			return request.Context().Err() // it may have been lost meanwhile, with what is written for
		}
		select {
		case <-gate:
		case <-request.Context().Done():
			return request.Context().Err()
		}
	}
	return nil
}

func (r *restarts) wrap(next http.RoundTripper) http.RoundTripper { return settled{r, next} }

// settled is a transport that turns Forbidden into Service Unavailable, which
// is tried again, for a while after an outage.
type settled struct {
	restarts *restarts
	next     http.RoundTripper
}

// RoundTrip sends request.
func (s settled) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := s.restarts.pass(request); err != nil {
		if request.Body != nil {
			request.Body.Close()
		}
		return nil, err
	}
	response, err := s.next.RoundTrip(request)
	switch {
	case err != nil:
		if request.Context().Err() == nil && passing(err) {
			s.restarts.note(time.Now())
		}
	case response.StatusCode == http.StatusBadGateway, response.StatusCode == http.StatusServiceUnavailable,
		response.StatusCode == http.StatusGatewayTimeout:
		s.restarts.note(time.Now())
	case response.StatusCode == http.StatusForbidden && s.restarts.since(time.Now()) < settling:
		response.Body.Close()
		return unavailable(response), nil
	}
	return response, err
}

func (r *restarts) note(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = now
}

func (r *restarts) since(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.away)
}

// unavailable is response as a server answers that is not ready.
func unavailable(response *http.Response) *http.Response {
	// A plain API type always marshals.
	body, _ := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     http.StatusServiceUnavailable,
		Reason:   metav1.StatusReasonServiceUnavailable,
		Message:  justStarted,
	})
	response.StatusCode, response.Status = http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable)
	response.Header = http.Header{"Content-Type": {runtime.ContentTypeJSON}}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return response
}
