package kit

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Stall starts a proxy before an API server that does not answer requests with
// that part in their path, and returns a kubeconfig, and what waits for the
// first of them.
func Stall(t testing.TB, part string) (kubeconfigFile string, wait func()) {
	t.Helper()
	proxy := forward(t)
	reached := make(chan struct{})
	var once sync.Once
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, part) {
			once.Do(func() { close(reached) })
			<-r.Context().Done()
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.CloseClientConnections)
	return kubeconfig(t, front.URL), func() {
		t.Helper()
		select {
		case <-reached:
		case <-t.Context().Done():
			t.Fatal("no request that could be stalled")
		}
	}
}
