package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// watchEverything keeps every version of the objects in both namespaces and
// all that the movers say, until the function it returns is called.
func watchEverything(t *testing.T, namespace, backupNamespace string) func() map[string]string {
	t.Helper()
	streams := map[string]*stream{
		"pods of " + backupNamespace:   follow(t, "get", "pods", "-n", backupNamespace, "-w", "-o", "yaml"),
		"jobs of " + backupNamespace:   follow(t, "get", "jobs", "-n", backupNamespace, "-w", "-o", "yaml"),
		"events of " + backupNamespace: follow(t, "get", "events", "-n", backupNamespace, "-w", "-o", "yaml"),
		"events of " + namespace:       follow(t, "get", "events", "-n", namespace, "-w", "-o", "yaml"),
		"pods of " + namespace:         follow(t, "get", "pods", "-n", namespace, "-w", "-o", "yaml"),
	}
	logs := moverLogs(t, backupNamespace)
	return func() map[string]string {
		texts := map[string]string{"log of movers": logs()}
		for name, s := range streams {
			texts[name] = s.String()
		}
		return texts
	}
}

// stream is the output of a command that runs on. It is safe for use by
// several goroutines.
type stream struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// follow runs kubectl until the test ends.
func follow(t *testing.T, args ...string) *stream {
	t.Helper()
	s := &stream{}
	cmd := exec.CommandContext(t.Context(), "kubectl", args...)
	cmd.Stdout, cmd.Stderr = s, s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	return s
}

// moverLogs follows the log of each mover pod that comes up.
func moverLogs(t *testing.T, namespace string) func() string {
	t.Helper()
	var mu sync.Mutex
	pods := map[string]*stream{}
	tick := time.NewTicker(200 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for {
			select {
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
			out, err := exec.CommandContext(t.Context(), "kubectl", "get", "pods", "-n", namespace, "-o",
				`jsonpath={range .items[?(@.status.phase!="Pending")]}{.metadata.name}{"\n"}{end}`).Output()
			if err != nil {
				continue
			}
			mu.Lock()
			for _, pod := range strings.Fields(string(out)) {
				if pods[pod] == nil {
					pods[pod] = follow(t, "logs", "-f", "-n", namespace, pod)
				}
			}
			mu.Unlock()
		}
	}()
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		var all strings.Builder
		for pod, s := range pods {
			all.WriteString("restic mover " + pod + ":\n" + s.String())
		}
		return all.String()
	}
}

// shows is the first spelling of secret that is in text, "" for none.
func shows(text, secret string) string {
	quoted, _ := json.Marshal(secret)
	inJSON := strings.Trim(string(quoted), `"`)
	twice, _ := json.Marshal(inJSON)
	for _, spelling := range []string{
		secret, inJSON, strings.Trim(string(twice), `"`), base64.StdEncoding.EncodeToString([]byte(secret)),
		strings.ReplaceAll(secret, "'", "''"), strings.ReplaceAll(secret, "'", `'\''`),
	} {
		if strings.Contains(text, spelling) {
			return spelling
		}
	}
	return ""
}
