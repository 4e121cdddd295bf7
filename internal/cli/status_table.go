package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/status"
)

// stateColours repeat what the states say.
var stateColours = map[status.State]string{status.None: "31", status.Late: "31", status.Warn: "33", status.OK: "32", status.Out: "2"}

// printTable writes the apps for a person, the worst first, and what to do below
// each that is not well.
func (c *coverage) printTable() error {
	var out strings.Builder
	heading, blocks, err := c.blocks()
	if err != nil {
		return err
	}
	top := fmt.Sprintf("Protection at %s, context %s\n%s", c.report.Now.UTC().Format("2006-01-02 15:04 UTC"), printable(c.context), heading)
	bottom := summaryText(c.report) + "\n"
	if c.options.noHeaders {
		top, bottom = "", ""
	}
	out.WriteString(top)
	shown := c.onScreen(top+bottom, blocks)
	for _, b := range blocks[:shown] {
		for i, line := range b.lines {
			out.WriteString(c.coloured(line, b.states[i]))
		}
	}
	if hidden := len(blocks) - shown; hidden > 0 {
		fmt.Fprintf(&out, "... and %d more that are no worse: -o wide shows all\n", hidden)
	}
	out.WriteString(bottom)
	_, err = io.WriteString(c.env.Out, out.String())
	return err
}

// block is what the table has of one app: lines, and the state that each tells
// of, "" for none.
type block struct {
	lines  []string
	states []status.State
}

func (b *block) add(line string, state status.State) {
	b.lines, b.states = append(b.lines, line), append(b.states, state)
}

// blocks are the heading and the apps.
func (c *coverage) blocks() (heading string, blocks []block, err error) {
	if len(c.report.Apps) == 0 {
		return "", nil, nil
	}
	var text bytes.Buffer
	printer := printers.NewTablePrinter(printers.PrintOptions{NoHeaders: c.options.noHeaders, Wide: c.options.output.format == "wide"})
	if err := printer.PrintObj(c.table(), &text); err != nil {
		return "", nil, err
	}
	lines := strings.SplitAfter(text.String(), "\n") // one a row: the printer cuts cells at the end of their first line
	if !c.options.noHeaders {
		heading, lines = lines[0], lines[1:]
	}
	below := strings.Repeat(" ", max(strings.Index(heading, "APP"), 0)) + "next: "
	for _, a := range c.report.Apps {
		b := block{}
		b.add(lines[0], a.State)
		if lines = lines[1:]; a.Do != "" && !c.options.noHeaders {
			b.add(below+a.Do+"\n", "")
		}
		for _, v := range c.detailed(a) {
			b.add(lines[0], v.State)
			lines = lines[1:]
		}
		blocks = append(blocks, b)
	}
	return heading, blocks, nil
}

// detailed are the volumes of a that have rows of their own.
func (c *coverage) detailed(a status.App) []status.Volume {
	if !c.options.details {
		return nil
	}
	return a.Volumes
}

// onScreen is how many blocks one screen has room for, beside the text around
// them. What is no terminal has room for all, and so has who asks for all.
func (c *coverage) onScreen(around string, blocks []block) int {
	out := inner(c.env.Out)
	height, width := terminalHeight(out), terminalWidth(out)
	if height == 0 || width == 0 || c.options.details || c.options.output.format == "wide" {
		return len(blocks)
	}
	rows := func(text string) (n int) {
		for line := range strings.Lines(text) {
			n += max((utf8.RuneCountInString(line)-2)/width+1, 1) // without its end
		}
		return n
	}
	all := 0
	room := height - rows(around) - 1 // the prompt
	fits := 0                         // beside the line that says how many are hidden
	for i, b := range blocks {
		if all += rows(strings.Join(b.lines, "")); all <= room-1 {
			fits = i + 1
		}
	}
	if all <= room {
		return len(blocks)
	}
	return min(max(fits, 3), len(blocks))
}

func summaryText(r status.Report) string {
	if len(r.Apps) == 0 {
		return "No PersistentVolumeClaim is selected."
	}
	text := fmt.Sprintf("%s, %s: %d ok, %s, %d late, %d unprotected", count(len(r.Apps), "app"), count(r.Volumes(), "volume"),
		r.Count(status.OK), count(r.Count(status.Warn), "warning"), r.Count(status.Late), r.Count(status.None))
	if out := r.Count(status.Out); out > 0 {
		text += fmt.Sprintf(", %d left out", out)
	}
	return text
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// statusColumns are those of the table. The reason stands behind the state.
var statusColumns = []struct {
	name string
	wide bool
}{{"Namespace", false}, {"App", false}, {"Last Good", false}, {"Off-Site", false}, {"Proven", false}, {"Next", false}, {"Goal", false},
	{"Volumes", true}, {"Size", true}, {"Consistency", true}, {"Run", true}, {"State", false}}

// table is the apps as rows, and with --details their volumes below them.
func (c *coverage) table() *metav1.Table {
	table := &metav1.Table{}
	for _, column := range statusColumns {
		definition := metav1.TableColumnDefinition{Name: column.name, Type: "string"}
		if column.wide && !c.options.details {
			definition.Priority = 1
		}
		table.ColumnDefinitions = append(table.ColumnDefinitions, definition)
	}
	add := func(namespace, name, volumes string, bytes int64, j status.Judgement) {
		state := strings.TrimRight(fmt.Sprintf("%-4s   %s", j.State, printable(j.Reason)), " ")
		table.Rows = append(table.Rows, metav1.TableRow{Cells: []any{
			namespace, name, c.ago(j.LastGood), c.ago(j.LastCopy), c.ago(j.LastProof), c.until(j.Next), goalText(j.Goal),
			volumes, size(bytes), cmp.Or(string(j.Consistency), "-"), cmp.Or(string(j.Run), "-"), state,
		}})
	}
	for _, a := range c.report.Apps {
		add(a.Namespace, a.Name, fmt.Sprint(len(a.Volumes)), bytesIn(a), a.Judgement)
		for _, v := range c.detailed(a) {
			add("", "  "+v.Claim, "", v.Size, v.Judgement)
		}
	}
	return table
}

func bytesIn(a status.App) (n int64) {
	for _, v := range a.Volumes {
		n += v.Size
	}
	return n
}

func (c *coverage) ago(t time.Time) string { return ago(t, c.report.Now) }

// ago is how long ago t was, `-` where it never was.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(now.Sub(t), 0))
}

func (c *coverage) until(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(t.Sub(c.report.Now))
}

// goalText is a goal as a person writes it.
func goalText(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return "-"
	case d > day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.String()
}

// coloured is a row with its state in colour. That begins the last column.
func (c *coverage) coloured(row string, state status.State) string {
	word := "   " + string(state)
	at := strings.Index(row, word+"   ")
	if at < 0 {
		at = strings.LastIndex(row, word)
	}
	if !c.colour || state == "" || at < 0 {
		return row
	}
	return row[:at+3] + "\x1b[" + stateColours[state] + "m" + string(state) + "\x1b[0m" + row[at+len(word):]
}

// glyphColours repeat what the glyphs say.
var glyphColours = map[status.Glyph]string{status.Safe: "32", status.ByWeek: "32", status.ByMonth: "32", status.Inside: "36", status.Crashed: "33", status.Broken: "31", status.Nothing: "2"}

var glyphLegend = []string{"# app-consistent and off-site", "+ app-consistent, cluster only", "o crash-consistent only", "x failed, nothing usable", ". nothing kept", "W M  like #, kept as weekly, monthly"}

var weekdays = []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// printCalendars writes the calendar of each app.
func (c *coverage) printCalendars() error {
	if len(c.report.Apps) == 0 {
		_, err := io.WriteString(c.env.Out, summaryText(c.report)+"\n")
		return err
	}
	var text strings.Builder
	for i, a := range c.report.Apps {
		if len(c.report.Apps) > 1 {
			if i > 0 {
				text.WriteString("\n")
			}
			fmt.Fprintf(&text, "%s/%s\n", a.Namespace, a.Name)
		}
		c.calendar(&text, a.Calendar(c.report.Zone, c.report.Now))
	}
	_, err := io.WriteString(c.env.Out, text.String())
	return err
}

func (c *coverage) calendar(w *strings.Builder, days status.Calendar) {
	months, weeks := days.Header()
	var above, below strings.Builder
	for i := range weeks {
		fmt.Fprintf(&above, " %-3s", months[i])
		fmt.Fprintf(&below, " %s", weeks[i])
	}
	fmt.Fprintf(w, "%s\n%s\n", strings.TrimRight("    "+above.String(), " "), "    "+below.String())
	for day, name := range weekdays {
		line := name
		for week := range status.Weeks {
			line += "   " + c.glyph(days.Days[week*7+day])
		}
		if day < len(glyphLegend) {
			line += "     " + glyphLegend[day]
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(w, calendarText(days))
}

func (c *coverage) glyph(g status.Glyph) string {
	if colour := glyphColours[g]; c.colour && colour != "" {
		return "\x1b[" + colour + "m" + string(rune(g)) + "\x1b[0m"
	}
	return string(rune(g))
}

// calendarText is a calendar in one line.
func calendarText(c status.Calendar) string {
	if c.Points == 0 {
		return "No restore point."
	}
	text := fmt.Sprintf("%s, oldest %s, %d off-site.", count(c.Points, "restore point"), c.Oldest.Format(time.DateOnly), c.Copied)
	if n := int(c.Gap[1].Sub(c.Gap[0]).Round(24*time.Hour) / (24 * time.Hour)); n > 0 {
		text += fmt.Sprintf(" Longest gap %dd (%s to %s); last 30 days: %dd.", n, c.Gap[0].Format("Jan 2"), c.Gap[1].Format("Jan 2"), c.Recent/(24*time.Hour))
	}
	return text
}

// statusDoc is what `status -o json` prints. Fields are only ever added.
type statusDoc struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Time       time.Time      `json:"time"`
	Context    string         `json:"context"`
	Require    status.Level   `json:"require"`
	ExitCode   int            `json:"exitCode"`
	Summary    statusSummary  `json:"summary"`
	Items      []statusAppDoc `json:"items"`
}

type statusSummary struct {
	Apps        int `json:"apps"`
	Volumes     int `json:"volumes"`
	OK          int `json:"ok"`
	Warn        int `json:"warn"`
	Late        int `json:"late"`
	None        int `json:"none"`
	Out         int `json:"out"`
	Unprotected int `json:"unprotectedVolumes"`
}

type statusAppDoc struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	App        string `json:"app"`
	judgementDoc
	Points int `json:"restorePoints"`
	// Calendar is there with --calendar.
	Calendar *calendarDoc      `json:"calendar,omitempty"`
	Volumes  []statusVolumeDoc `json:"volumes"`
}

// calendarDoc is a glyph a day, from the first day on.
type calendarDoc struct {
	From string `json:"from"`
	Days string `json:"days"`
}

type statusVolumeDoc struct {
	Claim string `json:"pvc"`
	Size  int64  `json:"bytes"`
	judgementDoc
	Snapshot string `json:"volumeSnapshot,omitempty"`
}

type judgementDoc struct {
	State       status.State        `json:"state"`
	Reason      string              `json:"reason,omitempty"`
	Do          string              `json:"next,omitempty"`
	LastGood    time.Time           `json:"lastGood,omitzero"`
	LastCopy    time.Time           `json:"lastCopy,omitzero"`
	LastProof   time.Time           `json:"lastProof,omitzero"`
	Next        time.Time           `json:"nextRun,omitzero"`
	GoalSeconds int64               `json:"goalSeconds,omitempty"`
	Consistency catalog.Consistency `json:"consistency,omitempty"`
	Run         catalog.Run         `json:"run,omitempty"`
}

func judgementDocument(j status.Judgement) judgementDoc {
	return judgementDoc{
		State: j.State, Reason: j.Reason, Do: j.Do, LastGood: j.LastGood, LastCopy: j.LastCopy, LastProof: j.LastProof, Next: j.Next,
		GoalSeconds: int64(j.Goal / time.Second), Consistency: j.Consistency, Run: j.Run,
	}
}

func (c *coverage) document() statusDoc {
	r := c.report
	doc := statusDoc{
		APIVersion: apiVersion, Kind: "ProtectionList", Time: r.Now.UTC(), Context: c.context, Require: r.Require, ExitCode: c.exit(), Items: []statusAppDoc{},
		Summary: statusSummary{
			Apps: len(r.Apps), Volumes: r.Volumes(), OK: r.Count(status.OK), Warn: r.Count(status.Warn), Late: r.Count(status.Late),
			None: r.Count(status.None), Out: r.Count(status.Out), Unprotected: r.Unprotected(),
		},
	}
	for _, a := range r.Apps {
		item := statusAppDoc{APIVersion: apiVersion, Kind: "Protection", Namespace: a.Namespace, App: a.Name, judgementDoc: judgementDocument(a.Judgement), Points: goodPoints(a)}
		if c.options.calendar {
			item.Calendar = calendarDocument(a.Calendar(r.Zone, r.Now))
		}
		for _, v := range a.Volumes {
			volume := statusVolumeDoc{Claim: v.Claim, Size: v.Size, judgementDoc: judgementDocument(v.Judgement)}
			if v.Last != nil {
				volume.Snapshot = v.Last.Name
			}
			item.Volumes = append(item.Volumes, volume)
		}
		doc.Items = append(doc.Items, item)
	}
	return doc
}

func calendarDocument(c status.Calendar) *calendarDoc {
	days := make([]byte, len(c.Days))
	for i, glyph := range c.Days {
		days[i] = byte(glyph)
	}
	return &calendarDoc{From: c.Monday.Format(time.DateOnly), Days: strings.TrimRight(string(days), string(status.Tomorrow))}
}
