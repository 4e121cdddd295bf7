package kube

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// roundTrip is a transport of one function.
type roundTrip func(*http.Request) (*http.Response, error)

func (r roundTrip) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// A server that has just started forbids all: that is believed only when it
// has had its time.
func TestForbiddenAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status int // 0: away
		transport := new(restarts).wrap(roundTrip(func(*http.Request) (*http.Response, error) {
			if status == 0 {
				return nil, syscall.ECONNREFUSED
			}
			return &http.Response{StatusCode: status, Body: http.NoBody}, nil
		}))
		var got []int
		ask := func(answer int) {
			status = answer
			response, err := transport.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
			if err != nil {
				got = append(got, 0)
				return
			}
			response.Body.Close()
			got = append(got, response.StatusCode)
		}
		ask(http.StatusForbidden) // no outage: at once
		ask(0)
		ask(http.StatusForbidden)
		ask(http.StatusOK)
		time.Sleep(settling)
		ask(http.StatusForbidden)
		ask(http.StatusServiceUnavailable)
		ask(http.StatusForbidden)
		equal(t, "answers", []int{403, 0, 503, 200, 403, 503, 503}, got)
	})
}

// Writes wait while they are suspended, but for those to Leases, and are not
// sent when nobody waits for them any more.
func TestSuspendedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, r := time.Now(), new(restarts)
		var got []string
		transport := r.wrap(roundTrip(func(request *http.Request) (*http.Response, error) {
			got = append(got, time.Since(began).String()+" "+request.Method+" "+request.URL.Path)
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		}))
		send := func(ctx context.Context, method, path string) error {
			response, err := transport.RoundTrip(httptest.NewRequestWithContext(ctx, method, path, nil))
			if err == nil {
				response.Body.Close()
			}
			return err
		}
		r.suspend(true)
		time.AfterFunc(time.Minute, func() { r.suspend(false) })
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := send(impatient, http.MethodPatch, "/given-up"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		for _, request := range []struct{ method, path string }{
			{http.MethodGet, "/pods"}, {http.MethodPut, "/leases/backsnap"}, {http.MethodPost, "/jobs"}, {http.MethodGet, "/pods/a/exec"},
		} {
			if err := send(t.Context(), request.method, request.path); err != nil {
				t.Error(err)
			}
		}
		equal(t, "sent", []string{"1s GET /pods", "1s PUT /leases/backsnap", "1m0s POST /jobs", "1m0s GET /pods/a/exec"}, got)
	})
}

// The calls of a Cluster get over it, execs among them.
func TestClusterSurvivesAFreshServer(t *testing.T) {
	refusal := &denial{verb: "list", resource: "volumesnapshots"}
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			refusal.ServeHTTP(w, r)
		default:
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"kind":"VolumeSnapshotList","apiVersion":"snapshot.storage.k8s.io/v1"}`)) // the client may have gone
		}
	}))
	defer server.Close()
	c, err := Connect(&rest.Config{Host: server.URL}, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Snapshots(t.Context(), catalog.Scope{All: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "snapshots and calls", "0 3", strconv.Itoa(len(got))+" "+strconv.Itoa(int(calls.Load())))
}

func TestExecSurvivesAFreshServer(t *testing.T) {
	refusal := &denial{verb: "create", resource: "pods/exec"}
	handler := execHandler(t, true, func(p process) { p.exit(0) })
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2, 3: // by WebSocket and by SPDY
			refusal.ServeHTTP(w, r)
		default:
			handler(w, r)
		}
	}))
	defer server.Close()
	c, err := Connect(&rest.Config{Host: server.URL}, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Version(t.Context()); err == nil {
		t.Fatal("the server was away and has answered")
	}
	equal(t, "outcome", outcome{}, execute(t.Context(), c, nil, "true"))
	equal(t, "calls", int32(4), calls.Load())
}

// While nobody listens, nothing was begun: an exec waits for the server.
func TestExecWaitsForTheServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	config := &rest.Config{Host: "http://" + address}
	tried := make(chan struct{})
	once := sync.OnceFunc(func() { close(tried) })
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			once()
			return response, err
		})
	})
	c, err := Connect(config, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan outcome, 1)
	go func() { got <- execute(t.Context(), c, nil, "true") }()
	<-tried
	if listener, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(execHandler(t, true, func(p process) { p.exit(0) }))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	equal(t, "outcome", outcome{}, <-got)
}
