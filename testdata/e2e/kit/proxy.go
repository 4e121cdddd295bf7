package kit

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/backsnap/kubectl-backsnap/internal/kube"
)

// Proxy stands between a client and the API server, records every request and
// can end the client after any of them: the client is the real program.
type Proxy struct {
	Kubeconfig string
	recorder   *kube.Recorder
	front      *httptest.Server
	dropped    atomic.Int64 // requests that are still to be dropped
}

// NewProxy starts a proxy on loopback. after, which may be nil, is called
// after the answer to each write and before the client sees it.
func NewProxy(t testing.TB, after func(kube.Request)) *Proxy {
	t.Helper()
	config := Config(t)
	p := &Proxy{recorder: kube.Record(config, after)}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	forward := &httputil.ReverseProxy{
		Transport:     transport,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(server) },
		FlushInterval: -1, // watches are streams
	}
	p.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.dropped.Add(-1) >= 0 {
			panic(http.ErrAbortHandler) // closes the connection without an answer
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(p.front.CloseClientConnections)
	p.Kubeconfig = kubeconfig(t, p.front.URL)
	return p
}

// Away makes the API server seem to go away: every connection is cut, those of
// watches and of requests that wait for an answer too, and so are the next
// requests.
func (p *Proxy) Away(requests int) {
	p.dropped.Store(int64(requests))
	p.front.CloseClientConnections()
}

// NewAwayProxy starts a proxy whose API server goes away after the first write
// of each kind to each path, Leases left out: the answer is lost with all
// watches, and so are the next two requests. writes are those after which it
// did so far, sorted.
func NewAwayProxy(t testing.TB) (p *Proxy, writes func() []string) {
	t.Helper()
	var mu sync.Mutex
	lost := map[string]bool{}
	p = NewProxy(t, func(r kube.Request) {
		mu.Lock()
		defer mu.Unlock()
		what := r.Verb + " " + r.Path
		if r.Resource != "leases" && !lost[what] {
			lost[what] = true
			p.Away(2)
		}
	})
	return p, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(maps.Keys(lost))
	}
}

// Requests are those answered so far.
func (p *Proxy) Requests() []kube.Request { return p.recorder.Requests() }

// Counted are the requests that count against a budget: all but watches and
// renewals of a Lease.
func Counted(requests []kube.Request) []kube.Request {
	var counted []kube.Request
	for _, r := range requests {
		if !r.Watch && !(r.Resource == "leases" && r.Verb == "update") {
			counted = append(counted, r)
		}
	}
	return counted
}

// Config is the cluster's kubeconfig.
func Config(t testing.TB) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", Env(t, "KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// kubeconfig writes one for a server that wants no login.
func kubeconfig(t testing.TB, server string) string {
	t.Helper()
	config := clientapi.NewConfig()
	config.Clusters["proxy"] = &clientapi.Cluster{Server: server}
	config.Contexts["proxy"] = &clientapi.Context{Cluster: "proxy"}
	config.CurrentContext = "proxy"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// Start starts the plugin itself, without kubectl before it, so that a signal
// reaches it. It is killed when the test ends.
func Start(t testing.TB, kubeconfig string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("kubectl-backsnap", args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		text, _ := os.ReadFile(log.Name())
		t.Logf("kubectl-backsnap %v:\n%s", args, text)
	})
	return cmd
}
