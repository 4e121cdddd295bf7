package kit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// What a bad proxy does to a stream.
const (
	Cut   = "cut"
	Reset = "reset"
	Delay = "delay"
)

// BadProxy stands between a client and the API server and harms one exec: at
// some byte of what the server answers it ends the connection (Cut), resets it
// (Reset), or lets nothing through for a while (Delay).
type BadProxy struct {
	Kubeconfig string
	// Did says what it has done and where; "" while it has done nothing.
	Did func() string
}

// NewBadProxy starts one. seed chooses the exec, the dump if it is even, else
// the probe, and the byte.
func NewBadProxy(t testing.TB, kind string, seed uint64) *BadProxy {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	return badProxy(t, &harm{kind: kind, exec: 2 - int64(seed%2), at: random.Int64N(1600), pause: time.Duration(1+random.Int64N(4)) * time.Second})
}

// NewBadStream starts one that harms the exec of that number, from 1 on, at
// that byte.
func NewBadStream(t testing.TB, kind string, exec, at int64) *BadProxy {
	t.Helper()
	return badProxy(t, &harm{kind: kind, exec: exec, at: at, pause: time.Second})
}

func badProxy(t testing.TB, harm *harm) *BadProxy {
	t.Helper()
	proxy := forward(t)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/exec") && harm.execs.Add(1) == harm.exec {
			r.Context().Value(harm).(*harmedConn).arm(harm)
		}
		proxy.ServeHTTP(w, r)
	}))
	front.Listener = harmedListener{front.Listener}
	front.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, harm, c) }
	front.Start()
	t.Cleanup(front.CloseClientConnections)
	return &BadProxy{Kubeconfig: kubeconfig(t, front.URL), Did: harm.String}
}

// ProxyWithout starts a proxy before an API server that does not know a group
// of the API, and returns a kubeconfig.
func ProxyWithout(t testing.TB, group string) string {
	t.Helper()
	proxy := forward(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/apis/"+group) {
			http.NotFound(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.CloseClientConnections)
	return kubeconfig(t, front.URL)
}

// forward hands requests on to the API server.
func forward(t testing.TB) http.Handler {
	t.Helper()
	config := Config(t)
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }, FlushInterval: -1}
}

// harm is what is done to the exec of that number at that byte.
type harm struct {
	kind  string
	exec  int64
	at    int64
	pause time.Duration

	execs atomic.Int64
	done  atomic.Bool
}

// String is what has been done.
func (h *harm) String() string {
	if !h.done.Load() {
		return ""
	}
	return fmt.Sprintf("%s at byte %d of exec %d", h.kind, h.at, h.exec)
}

type harmedListener struct{ net.Listener }

// Accept is the listener's, of a connection that can be harmed.
func (l harmedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &harmedConn{Conn: c}, nil
}

// harmedConn is a client's connection.
type harmedConn struct {
	net.Conn
	mu   sync.Mutex
	harm *harm // nil before it is armed and after it has struck
	left int64 // bytes until it strikes
}

func (c *harmedConn) arm(h *harm) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.harm, c.left = h, h.at
}

// Write writes to the client, as far as the harm lets it.
func (c *harmedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.harm == nil || int64(len(p)) <= c.left {
		c.left -= int64(len(p))
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:c.left])
	if err != nil {
		return n, err
	}
	h := c.harm
	c.harm = nil
	h.done.Store(true)
	switch h.kind {
	case Delay:
		time.Sleep(h.pause)
		more, err := c.Conn.Write(p[n:])
		return n + more, err
	case Reset:
		c.Conn.(*net.TCPConn).SetLinger(0)
	}
	c.Conn.Close()
	return n, net.ErrClosed
}
