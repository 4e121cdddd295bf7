package kube

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
)

// Request is one call to the API server.
type Request struct {
	Verb     string // as in RBAC: get, list, watch, create, update, patch, delete; "exec" for a command in a pod
	Method   string // of HTTP: an exec over a WebSocket is a GET
	Path     string // without its query
	Resource string // `pods`, `pods/exec`, `volumesnapshots`; "" for what is none, as /version
	Status   int    // of HTTP; 101 for a stream; 0 where no answer came
	Watch    bool
}

// Write reports whether r may have changed something. Reviews of one's own
// rights change nothing.
func (r Request) Write() bool {
	switch r.Verb {
	case "create", "update", "patch", "delete", "exec":
		return !strings.HasPrefix(r.Resource, "selfsubject")
	}
	return false
}

// Recorder keeps every call that the clients of one config make. It is safe
// for use by several goroutines.
type Recorder struct {
	after func(Request)

	mu       sync.Mutex
	requests []Request
}

// Record makes a recorder of all calls of the clients that are made from
// config from now on, exec streams among them. after, which may be nil, is
// called after the answer to each write has come and before anyone sees it;
// a test can end the process there.
func Record(config *rest.Config, after func(Request)) *Recorder {
	r := &Recorder{after: after}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return recorded{r, next} })
	return r
}

// Requests are the calls answered so far, in the order of their answers.
func (r *Recorder) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

func (r *Recorder) add(request Request) {
	r.mu.Lock()
	r.requests = append(r.requests, request)
	r.mu.Unlock()
	if r.after != nil && request.Write() {
		r.after(request)
	}
}

type recorded struct {
	recorder *Recorder
	next     http.RoundTripper
}

// RoundTrip sends request, which transports below may change.
func (t recorded) RoundTrip(request *http.Request) (*http.Response, error) {
	made := describe(request.Method, request.URL.Path, request.URL.Query().Get("watch"))
	response, err := t.next.RoundTrip(request)
	if response != nil {
		made.Status = response.StatusCode
	}
	t.recorder.add(made)
	return response, err
}

// describe reads a path of the form of the Kubernetes API:
// /api/v1/... or /apis/GROUP/VERSION/..., then [namespaces/NAME/]RESOURCE[/NAME[/SUBRESOURCE]].
func describe(method, path, watch string) Request {
	r := Request{Method: method, Path: path, Watch: watch == "true" || watch == "1"}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) > 2 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		parts = parts[3:]
	default:
		parts = nil
	}
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	if len(parts) > 0 {
		r.Resource = parts[0]
	}
	if len(parts) > 2 {
		r.Resource += "/" + parts[2]
	}
	r.Verb = verb(r, len(parts) > 1)
	return r
}

func verb(r Request, named bool) string {
	switch {
	case strings.HasSuffix(r.Resource, "/exec"):
		return "exec"
	case r.Method == http.MethodPost:
		return "create"
	case r.Method == http.MethodPut:
		return "update"
	case r.Method == http.MethodPatch:
		return "patch"
	case r.Method == http.MethodDelete:
		return "delete"
	case r.Watch:
		return "watch"
	case r.Resource != "" && !named:
		return "list"
	}
	return "get"
}
