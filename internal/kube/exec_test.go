package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// process is what a command in a container has.
type process struct {
	argv                   []string
	stdin                  io.Reader
	stdout, stderr, status io.Writer
}

// exit ends the command as a kubelet reports it.
func (p process) exit(code int) {
	status := metav1.Status{Status: metav1.StatusSuccess}
	if code != 0 {
		status = metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code)}}},
		}
	}
	text, _ := json.Marshal(status) // a plain API type
	_, _ = p.status.Write(text)     // the client may have gone
}

// execServer runs command for every exec, over WebSocket and SPDY, or over
// SPDY alone.
func execServer(t *testing.T, webSocket bool, command func(process)) (*Cluster, *Recorder) {
	t.Helper()
	server := httptest.NewServer(execHandler(t, webSocket, command))
	t.Cleanup(server.Close)
	config := &rest.Config{Host: server.URL}
	recorder := Record(config, nil)
	c, err := Connect(config, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return c, recorder
}

func execHandler(t *testing.T, webSocket bool, command func(process)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/shop/pods/mysql-0/exec" || r.URL.Query().Get("container") != "mysql" {
			t.Errorf("exec at %s", r.URL)
		}
		argv := r.URL.Query()["command"]
		switch {
		case !wsstream.IsWebSocketRequest(r):
			serveSPDY(t, w, r, argv, command)
		case webSocket:
			serveWebSocket(t, w, r, argv, command)
		default:
			http.Error(w, "no WebSockets here", http.StatusBadRequest)
		}
	}
}

func serveWebSocket(t *testing.T, w http.ResponseWriter, r *http.Request, argv []string, command func(process)) {
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {
		Binary: true,
		Channels: []wsstream.ChannelType{
			wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel,
		},
	}})
	_, channels, err := conn.Open(w, r)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	command(process{argv, channels[0], channels[1], channels[2], channels[3]})
}

func serveSPDY(t *testing.T, w http.ResponseWriter, r *http.Request, argv []string, command func(process)) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		t.Error(err)
		return
	}
	streams, count := make(chan httpstream.Stream), 3
	if r.URL.Query().Get("stdin") == "true" {
		count++
	}
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	p := process{argv: argv}
	var all []httpstream.Stream
	for range count {
		s := <-streams
		switch s.Headers().Get(corev1.StreamType) {
		case corev1.StreamTypeStdin:
			p.stdin = s
		case corev1.StreamTypeStdout:
			p.stdout = s
		case corev1.StreamTypeStderr:
			p.stderr = s
		case corev1.StreamTypeError:
			p.status = s
		}
		all = append(all, s)
	}
	command(p)
	for _, s := range all {
		_ = s.Close() // the client may have gone
	}
	<-conn.CloseChan()
}

var mysql = catalog.ContainerRef{Namespace: "shop", Pod: "mysql-0", Container: "mysql"}

// outcome is what a caller of Exec sees.
type outcome struct {
	stdout, stderr, err string
	code                int
}

func execute(ctx context.Context, c *Cluster, stdin io.Reader, argv ...string) outcome {
	var out, errs bytes.Buffer
	err := c.Exec(ctx, mysql, argv, stdin, &out, &errs)
	o := outcome{stdout: out.String(), stderr: errs.String()}
	var exit *catalog.ExitError
	if errors.As(err, &exit) {
		o.code = exit.Code
	}
	if err != nil {
		o.err = err.Error()
	}
	return o
}

func TestExec(t *testing.T) {
	for _, test := range []struct {
		name      string
		webSocket bool
		verbs     []string
	}{
		{"WebSocket", true, []string{"GET 101"}},
		{"SPDY where WebSockets are refused", false, []string{"GET 0", "POST 101"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Run("streams and exit code", func(t *testing.T) {
				c, recorder := execServer(t, test.webSocket, func(p process) {
					_, _ = io.Copy(p.stdout, p.stdin)
					_, _ = io.WriteString(p.stderr, strings.Join(p.argv, "|"))
					p.exit(3)
				})
				equal(t, "outcome", outcome{
					stdout: "a\nb\n", stderr: "sh|-c|x", code: 3,
					err: "run command in pod shop/mysql-0, container mysql: exit 3",
				}, execute(t.Context(), c, strings.NewReader("a\nb\n"), "sh", "-c", "x"))
				var verbs []string
				for _, r := range recorder.Requests() {
					verbs = append(verbs, r.Method+" "+strconv.Itoa(r.Status))
					if r.Verb != "exec" || r.Resource != "pods/exec" || !r.Write() {
						t.Errorf("recorded %+v, want a write by exec on pods/exec", r)
					}
				}
				equal(t, "requests", test.verbs, verbs)
			})
			t.Run("5 MB", func(t *testing.T) {
				c, _ := execServer(t, test.webSocket, func(p process) {
					_, _ = p.stdout.Write(bytes.Repeat([]byte("x"), 5_000_000))
					p.exit(0)
				})
				equal(t, "outcome", outcome{stdout: strings.Repeat("x", 5_000_000)}, execute(t.Context(), c, nil, "dump"))
			})
			t.Run("input stays open until the command ends, and nobody waits for its reader", func(t *testing.T) {
				c, _ := execServer(t, test.webSocket, func(p process) {
					line := make([]byte, 3)
					_, _ = io.ReadFull(p.stdin, line)
					_, _ = p.stdout.Write(line)
					p.exit(0)
				})
				open, hold := io.Pipe()
				defer hold.Close()
				equal(t, "outcome", outcome{stdout: "hi\n"}, execute(t.Context(), c, io.MultiReader(strings.NewReader("hi\n"), open), "cat"))
			})
			t.Run("the context's end", func(t *testing.T) {
				begun, ended := make(chan struct{}), make(chan struct{})
				c, _ := execServer(t, test.webSocket, func(p process) {
					close(begun)
					_, _ = io.Copy(io.Discard, p.stdin)
					close(ended)
				})
				tooSlow := errors.New("too slow")
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() { <-begun; cancel(tooSlow) }()
				open, hold := io.Pipe()
				defer hold.Close()
				err := c.Exec(ctx, mysql, []string{"sleep"}, open, io.Discard, io.Discard)
				if !errors.Is(err, tooSlow) {
					t.Errorf("error %v, want %v", err, tooSlow)
				}
				<-ended // the command has seen its input end
				if stacks := new(strings.Builder); pprof.Lookup("goroutine").WriteTo(stacks, 2) != nil || strings.Contains(stacks.String(), "(*outlet).hand") {
					t.Errorf("a stream is still handed on:\n%s", stacks)
				}
			})
			t.Run("a writer that fails: the command is not held up, and the error not lost", func(t *testing.T) {
				c, _ := execServer(t, test.webSocket, func(p process) {
					_, _ = p.stdout.Write(make([]byte, outletRoom+outletRoom/2))
					_, _ = io.WriteString(p.stderr, "done")
					p.exit(0)
				})
				var errs bytes.Buffer
				err := c.Exec(t.Context(), mysql, []string{"dump"}, nil, failingWriter{}, &errs)
				if !errors.Is(err, errDiskFull) {
					t.Errorf("error %v, want %v", err, errDiskFull)
				}
				equal(t, "stderr", "done", errs.String())
			})
			t.Run("a reader that fails ends the input, and the error is not lost", func(t *testing.T) {
				c, _ := execServer(t, test.webSocket, func(p process) {
					_, _ = io.Copy(p.stdout, p.stdin)
					p.exit(0)
				})
				var out bytes.Buffer
				err := c.Exec(t.Context(), mysql, []string{"cat"}, io.MultiReader(strings.NewReader("a"), failingReader{}), &out, nil)
				if !errors.Is(err, errDiskFull) {
					t.Errorf("error %v, want %v", err, errDiskFull)
				}
				equal(t, "stdout", "a", out.String())
			})
		})
	}
}

var errDiskFull = errors.New("disk full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errDiskFull }

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errDiskFull }

func TestExecForbidden(t *testing.T) {
	for _, silent := range []bool{false, true} {
		execForbidden(t, &denial{verb: "create", resource: "pods/exec", silent: silent})
	}
}

func execForbidden(t *testing.T, refusal *denial) {
	t.Helper()
	server := httptest.NewServer(refusal)
	defer server.Close()
	c, err := Connect(&rest.Config{Host: server.URL}, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	err = c.Exec(t.Context(), mysql, []string{"true"}, nil, nil, nil)
	var failure *catalog.Failure
	if !errors.As(err, &failure) {
		t.Fatalf("error %v, want a failure", err)
	}
	failure.Cause = nil
	equal(t, "failure", &catalog.Failure{
		Code:    catalog.CodeForbidden,
		Message: "exec: you may not create pods/exec in shop",
		Next:    "ask for that right, and see whether you have it: kubectl auth can-i create pods --subresource=exec -n shop",

		Manifest: catalog.Roles([]catalog.Right{{Verb: "create", Resource: "pods/exec", Namespace: "shop"}}),
	}, failure)
	equal(t, "user agents", []string{"kubectl-backsnap/v1.2.3", "kubectl-backsnap/v1.2.3"}, refusal.agents)
}

// denial refuses every request as an API server does.
type denial struct {
	verb, resource string
	// silent: as one that allows to get pods/exec, which a WebSocket asks for,
	// and not to create it, refuses such: without a reason.
	silent bool
	agents []string
}

func (d *denial) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.agents = append(d.agents, r.UserAgent())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden,
		Message: `pods "mysql-0" is forbidden: User "jo" cannot ` + d.verb + ` resource "` + d.resource + `"`,
	}
	if d.silent && r.Method == http.MethodGet {
		status.Message = `pods "mysql-0" is forbidden: `
	}
	_ = json.NewEncoder(w).Encode(status) // the client may have gone
}

func TestRecord(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}") // the client may have gone
	}))
	defer server.Close()
	config := &rest.Config{Host: server.URL}
	var writes []Request
	recorder := Record(config, func(r Request) { writes = append(writes, r) })
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	const snapshots = "/apis/snapshot.storage.k8s.io/v1/namespaces/shop/volumesnapshots"
	want := []Request{
		{Verb: "get", Method: "GET", Path: "/version"},
		{Verb: "list", Method: "GET", Path: "/api/v1/persistentvolumes", Resource: "persistentvolumes"},
		{Verb: "get", Method: "GET", Path: "/api/v1/namespaces/shop", Resource: "namespaces"},
		{Verb: "list", Method: "GET", Path: "/api/v1/namespaces", Resource: "namespaces"},
		{Verb: "watch", Method: "GET", Path: snapshots, Resource: "volumesnapshots", Watch: true},
		{Verb: "create", Method: "POST", Path: snapshots, Resource: "volumesnapshots"},
		{Verb: "patch", Method: "PATCH", Path: snapshots + "/a", Resource: "volumesnapshots"},
		{Verb: "update", Method: "PUT", Path: snapshots + "/a/status", Resource: "volumesnapshots/status"},
		{Verb: "delete", Method: "DELETE", Path: snapshots + "/a", Resource: "volumesnapshots"},
		{Verb: "exec", Method: "POST", Path: "/api/v1/namespaces/shop/pods/a/exec", Resource: "pods/exec"},
		{Verb: "create", Method: "POST", Path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Resource: "selfsubjectaccessreviews"},
	}
	var wantWrites []Request
	for i := range want {
		want[i].Status = http.StatusOK
		address, err := url.Parse(server.URL + want[i].Path)
		if err != nil {
			t.Fatal(err)
		}
		if want[i].Watch {
			address.RawQuery = "watch=true"
		}
		response, err := client.Do(&http.Request{Method: want[i].Method, URL: address})
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		switch want[i].Verb {
		case "create", "patch", "update", "delete", "exec":
			wantWrites = append(wantWrites, want[i])
		}
	}
	equal(t, "requests", want, recorder.Requests())
	equal(t, "writes", wantWrites[:len(wantWrites)-1], writes) // a review of rights is none
	server.Close()
	if response, err := client.Get(server.URL + "/version"); err == nil {
		response.Body.Close()
		t.Fatal("a closed server answered")
	}
	equal(t, "request without an answer", Request{Verb: "get", Method: "GET", Path: "/version"}, recorder.Requests()[len(want)])
}
