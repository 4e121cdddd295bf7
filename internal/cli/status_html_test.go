package cli_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// pageWorld has an app in each state, one with names and reasons as long as they
// get, and months of restore points.
func pageWorld() *world {
	long := "shop/" + strings.Repeat("elasticsearch-data-", 8) + "0"
	w := &world{
		Claims: []worldClaim{
			{Name: "shop/data", Driver: "csi.example.com", Annotations: map[string]string{"backsnap.sh/schedule": "@daily"}},
			{Name: long, Driver: "csi.example.com"},
			{Name: "shop/redis", Driver: "csi.example.com"},
			{Name: "shop/none", Driver: "csi.example.com"},
			{Name: "shop/out", Driver: "csi.example.com", Annotations: map[string]string{"backsnap.sh/schedule": ""}},
		},
		Pods: []worldPod{{Name: "shop/mysql-0", Owner: "statefulset/mysql", Claims: []string{"data"}}},
	}
	now := time.Date(2026, 11, 22, 1, 15, 0, 0, time.UTC)
	add := func(claim, app string, days int, change func(*worldSnapshot)) {
		cut := now.AddDate(0, 0, -days).Add(-time.Hour)
		run := cut.Format("20060102-150405") + "-aaaa"
		s := worldSnapshot{Name: claim + "-" + run, Claim: claim, App: app, Run: run, Consistency: "application", Retain: "calendar", Cut: cut, Ready: true}
		change(&s)
		w.Snapshots = append(w.Snapshots, s)
	}
	for days := range 80 {
		switch {
		case days == 5:
			add("shop/data", "", days, func(s *worldSnapshot) {
				s.Consistency, s.Ready, s.Cut, s.Error = "", false, time.Time{}, "dump exited 2"
			})
		case days < 14 || days%7 == 0:
			add("shop/data", "statefulset/mysql", days, func(s *worldSnapshot) {
				s.Copies = []string{"main/7f3a91c2"}
				s.Periods = map[string]string{"weekly": "2026-w40"}
				if days == 28 || days == 56 {
					s.Periods = map[string]string{"monthly": "2026-10"}
				}
				s.Proof = &catalog.Proof{Level: "drill", At: now.AddDate(0, 0, -3)}
			})
		}
	}
	add(long, "statefulset/elasticsearch", 3, func(*worldSnapshot) {})
	add(long, "", 1, func(s *worldSnapshot) {
		s.Consistency, s.Ready, s.Cut = "", false, time.Time{}
		s.Error = "rpc error: code = Internal desc = /var/lib/kubelet/plugins/kubernetes.io/csi/" + strings.Repeat("0123456789abcdef", 10) + ": the <array> is full & slow"
	})
	add("shop/redis", "statefulset/redis", 0, func(s *worldSnapshot) { s.Consistency = "crash" })
	return w
}

// browser is a headless Chromium, and runs it.
type browser struct{ program string }

func newBrowser(t *testing.T) browser {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium"} {
		if program, err := exec.LookPath(name); err == nil {
			return browser{program}
		}
	}
	t.Skip("no Chromium: apt-get install chromium-headless-shell")
	return browser{}
}

// run returns what it prints. It may write into its profile when it has ended:
// that is no folder of the test's own.
func (b browser) run(t *testing.T, dark bool, args ...string) string {
	t.Helper()
	profile, err := os.MkdirTemp("", "backsnap-page")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile)
	scheme := "1"
	if dark {
		scheme = "0"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.program, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + profile, "--blink-settings=preferredColorScheme=" + scheme,
	}, args...)...)
	cmd.WaitDelay = 10 * time.Second
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", b.program, err, said.String())
	}
	return string(out)
}

// The page can be read on a phone and on a desk, by day and by night: nothing
// goes over its edges, and all text has the contrast that WCAG 2 AA asks for. It
// loads nothing. With -artifacts there are pictures of it to be looked at.
func TestPageInChromium(t *testing.T) {
	chromium := newBrowser(t)
	code, page, stderr := invoke(t, pageWorld(), nil, "status", "-n", "shop", "-o", "html")
	if code != 7 {
		t.Fatalf("exit %d\n%s", code, stderr)
	}
	var mu sync.Mutex
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Path)
		switch r.URL.Path {
		case "/page":
			fmt.Fprint(w, page)
		case "/check":
			http.ServeFile(w, r, "testdata/page-check.html")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	for _, dark := range []bool{false, true} {
		_, rest, _ := strings.Cut(chromium.run(t, dark, "--dump-dom", server.URL+"/check"), "<pre>")
		text, _, _ := strings.Cut(rest, "</pre>")
		var found struct {
			Dark         bool
			Width, Texts int
			Wrong        []string
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(text)), &found); err != nil {
			t.Fatalf("the page is not checked: %v\n%s", err, text)
		}
		if found.Dark != dark || found.Width != 375 || found.Texts < 300 || len(found.Wrong) > 0 {
			t.Errorf("dark %t: %d texts, %d px wide, %d faults\n%s", found.Dark, found.Texts, found.Width, len(found.Wrong), strings.Join(found.Wrong, "\n"))
		}
		if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
			for _, width := range []int{375, 1440} {
				chromium.run(t, dark, fmt.Sprintf("--screenshot=%s", filepath.Join(t.ArtifactDir(), fmt.Sprintf("page-%d-dark-%t.png", width, dark))), fmt.Sprintf("--window-size=%d,2200", width), server.URL+"/page")
			}
		}
	}
	slices.Sort(asked)
	if got := slices.Compact(asked); slices.ContainsFunc(got, func(path string) bool { return path != "/check" && path != "/page" && path != "/favicon.ico" }) {
		t.Errorf("the page loads %q", got)
	}
}
