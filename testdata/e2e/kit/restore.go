package kit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// RestoreRun is what `restore -o json` prints.
type RestoreRun struct {
	Run      string `json:"run"`
	Result   string `json:"result"`
	ExitCode int    `json:"exitCode"`
	Code     string `json:"code"`
	Made     string `json:"namespaceCreated"`
	Items    []struct {
		Namespace string `json:"namespace"`
		Claim     string `json:"pvc"`
		State     string `json:"state"`
		Bound     bool   `json:"bound"`
		Files     int64  `json:"files"`
		Left      string `json:"left"`
		Code      string `json:"code"`
		Error     string `json:"error"`
		From      struct {
			Run, App, Repository string
			Snapshot             string `json:"volumeSnapshot"`
			Copy                 string `json:"resticSnapshot"`
		} `json:"from"`
	} `json:"items"`
}

// restoreDays is docs/faults/restore.md.
var restoreDays = sheet{
	groups:  []string{"Choosing", "Cluster", "Snapshot", "Repository", "Mover", "Client", "In place"},
	columns: "| what happened | exit | message | left behind |\n|---|---|---|---|\n",
	head: `# Bad days of a restore

What ` + "`kubectl backsnap restore`" + ` makes of bad input and bad days, as its tests have seen it on the cluster of ` + "`testdata/cluster`" + `. Written
by these tests, not by hand:

    make faults

On each of these days nothing that existed was changed: neither the claim that was restored, nor its snapshots and copies. "Left behind" is
what is there of the run when it has ended; a claim that was not restored to its end is never there, under whatever name.
`,
}

// Restore runs `restore -o json` on that day and checks it.
func (d Day) Restore(t testing.TB, args ...string) RestoreRun {
	t.Helper()
	return d.CheckRestore(t, Backsnap(t, append([]string{"restore", "-o", "json"}, args...)...))
}

// CheckRestore compares what `restore -o json` has made of the day: exit code,
// code of the failures, and that each of them names the state and the next step.
// Where it has failed, no claim is called restored, and it waits until nothing
// of the run is left, volumes among it. Then it writes the day's row.
func (d Day) CheckRestore(t testing.TB, r Result) RestoreRun {
	t.Helper()
	if r.Code != d.Exit {
		t.Errorf("%s: exit %d, want %d", d.What, r.Code, d.Exit)
	}
	said := d.told(t, r.Stderr)
	var run RestoreRun
	if err := json.Unmarshal([]byte(r.Stdout), &run); err != nil {
		t.Fatalf("%s: read result: %v", d.What, err)
	}
	for _, item := range run.Items {
		if (item.State == "Restored") != (d.Exit == 0) || item.Left != "" {
			t.Errorf("%s: item %+v", d.What, item)
		}
	}
	if d.Exit == 0 {
		NothingLeft(t, run.Run, "persistentvolumeclaim")
		none(t, "pvc,pv", "backsnap.sh/role,backsnap.sh/run="+run.Run)
	} else {
		NothingLeft(t, run.Run, "")
		none(t, "pv", "backsnap.sh/run="+run.Run)
	}
	message, left := d.cells(said)
	if d.Exit == 0 {
		left = "nothing but the new claim"
	}
	d.writeRestore(t, message, left)
	return run
}

func (d Day) writeRestore(t testing.TB, message, left string) {
	t.Helper()
	file := os.Getenv("BACKSNAP_FAULTS_TABLE")
	if file != "" {
		file = filepath.Join(filepath.Dir(file), "restore.md")
	}
	d.write(t, restoreDays, file, fmt.Sprintf("| %s | %d | %s | %s |", d.What, d.Exit, message, left))
}

// none waits until there is nothing of these kinds with those labels.
func none(t testing.TB, kinds, labels string) {
	t.Helper()
	Until(t, "nothing with "+labels, func() string {
		return strings.TrimSpace(Kubectl(t, "get", kinds, "-A", "-l", labels, "-o", "name"))
	})
}
