package kit

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// sheet is a file of docs/faults.
type sheet struct {
	head    string
	columns string
	groups  []string // its sections in their order
}

var badDays = sheet{
	groups:  []string{"Database", "Exec stream", "Storage", "Cluster", "Repository", "Mover"},
	columns: "| what happened | exit | message | left behind | no write for |\n|---|---|---|---|---|\n",
	head: `# Bad days

What kubectl backsnap makes of bad input and bad days, as its tests have seen it on the cluster of ` + "`testdata/cluster`" + `, with real
databases, restic and S3. Written by these tests, not by hand:

    make faults

Exit 3 is a snapshot that stands without what else was asked for. "Left behind" is what is there of the run when it has ended, besides good
restore points. "No write for" is the longest time in which a client that commits row after row got no answer from the database, restarts of
its pod included; "-" where the day needs no database.

Tested without a cluster, because it cannot show them: a client whose clock is a day off (` + "`internal/snapshot`" + `); no terminal, NO_COLOR, a
terminal without width (` + "`internal/cli`" + `).
`,
}

// row writes the day's row into the file that BACKSNAP_FAULTS_TABLE names, in
// place of the one that is there.
func (d Day) row(t testing.TB, w Pulse, said []failure) {
	t.Helper()
	pause := "-"
	if w != nil {
		pause = roughly(w.Longest())
	}
	message, left := d.cells(said)
	d.write(t, badDays, os.Getenv("BACKSNAP_FAULTS_TABLE"), fmt.Sprintf("| %s | %d | %s | %s | %s |", d.What, d.Exit, message, left, pause))
}

// write puts the day's row into file; nowhere if that is "" or the test has
// failed.
func (d Day) write(t testing.TB, to sheet, file, row string) {
	t.Helper()
	if file == "" || t.Failed() {
		return
	}
	if err := putRow(to, file, d.Group, d.What, row); err != nil {
		t.Error(err)
	}
}

// cells are what was said, and what is left.
func (d Day) cells(said []failure) (message, left string) {
	left = "nothing"
	if len(said) > 0 {
		message = strings.TrimSuffix(said[0].message+". "+said[0].cause, ". ")
	}
	switch {
	case d.Left != "":
		left = d.Left
	case d.Stays != "":
		left = "the " + d.Stays + ", as the message says"
	}
	return steady(message), left
}

// roughly is d so that another run says the same.
func roughly(d time.Duration) string {
	for _, limit := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 3 * time.Minute} {
		if d < limit {
			return fmt.Sprintf("under %v", strings.TrimSuffix(limit.String(), "0s"))
		}
	}
	return "over 3m"
}

// changing is what differs from run to run, in the order in which it is taken out.
var changing = []struct {
	form *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`\d{8}-\d{6}-[0-9a-z]{4}`), "RUN"},
	{regexp.MustCompile(`RUN-[0-9a-z]{5}_e2e-[0-9a-f]{8}`), "RUN-POD_e2e"}, // as the kubelet names a pod
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\b(e2e|bucket|user|class|policy)-[0-9a-f]{8}\b`), "$1"},
	{regexp.MustCompile(`\bRUN-[0-9a-z]{5}\b`), "RUN-POD"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SHA256"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ][0-9:.]+(Z|[+-]\d\d:\d\d)?`), "TIME"},
	{regexp.MustCompile(`\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b`), "ADDRESS"},
	{regexp.MustCompile(`\b[0-9a-f]*\d[0-9a-f]{6,}\b`), "HASH"},
	{regexp.MustCompile(`PID \d+ on \S+ by \S+`), "PROCESS"},
	{regexp.MustCompile(`\([0-9hms.]+ ago\)`), "(a while ago)"},
	{regexp.MustCompile(`\(pid \d+ on [^)]*\)`), "(PROCESS)"},
	{regexp.MustCompile(`\b\d+ (MiB|inodes|files)\b`), "N $1"},
	{regexp.MustCompile(`\ba{20,}\b`), "a..."},
}

// steady is text without what differs from run to run, as a cell of a table.
func steady(text string) string {
	for _, c := range changing {
		text = c.form.ReplaceAllString(text, c.name)
	}
	if runes := []rune(text); len(runes) > 400 {
		text = string(runes[:400]) + "..."
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}

// putRow writes one row of a section. Tests run side by side, in several
// programs.
func putRow(to sheet, file, group, what, row string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(os.TempDir(), "backsnap-faults-table.lock"))
	if err := lock.Lock(); err != nil {
		return err
	}
	defer lock.Unlock()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	sections := readRows(string(text))
	if sections[group] == nil {
		sections[group] = map[string]string{}
	}
	sections[group][what] = row
	return os.WriteFile(file, []byte(to.print(sections)), 0o644)
}

// readRows are the rows of a table that was written before, by section and
// first cell.
func readRows(text string) map[string]map[string]string {
	sections := map[string]map[string]string{}
	var rows map[string]string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if group, ok := strings.CutPrefix(line, "## "); ok {
			rows = map[string]string{}
			sections[group] = rows
			continue
		}
		cells := strings.SplitN(line, " | ", 2)
		if what, ok := strings.CutPrefix(cells[0], "| "); ok && rows != nil && what != "what happened" {
			rows[what] = line
		}
	}
	return sections
}

func (to sheet) print(sections map[string]map[string]string) string {
	var b strings.Builder
	b.WriteString(to.head)
	order := func(group string) int { return slices.Index(to.groups, group) }
	names := slices.SortedFunc(maps.Keys(sections), func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	for _, group := range names {
		fmt.Fprintf(&b, "\n## %s\n\n%s", group, to.columns)
		for _, what := range slices.Sorted(maps.Keys(sections[group])) {
			b.WriteString(sections[group][what] + "\n")
		}
	}
	return b.String()
}
