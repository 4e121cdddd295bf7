package cli

import (
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
	"github.com/backsnap/kubectl-backsnap/internal/status"
)

// metrics writes the text exposition format of Prometheus, version 0.0.4.
type metrics struct{ text strings.Builder }

// family begins a metric, whose samples follow.
func (m *metrics) family(name, help string) {
	fmt.Fprintf(&m.text, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
}

var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample writes one value with its labels, names and values in turn.
func (m *metrics) sample(name string, value float64, labels ...string) {
	m.text.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		open := ","
		if i == 0 {
			open = "{"
		}
		fmt.Fprintf(&m.text, `%s%s="%s"`, open, labels[i], labelEscapes.Replace(labels[i+1]))
	}
	if len(labels) > 1 {
		m.text.WriteString("}")
	}
	fmt.Fprintf(&m.text, " %s\n", strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", value), "0"), "."))
}

// moment writes a time, and nothing where it never was: an alarm asks for the
// age of the last success, and 1970 is none.
func (m *metrics) moment(name string, t time.Time, labels ...string) {
	if !t.IsZero() {
		m.sample(name, float64(t.UnixMilli())/1000, labels...)
	}
}

// writeProm writes the report as metrics. What somebody left out has none.
func writeProm(w io.Writer, r status.Report, version string) error {
	apps := slices.DeleteFunc(slices.Clone(r.Apps), func(a status.App) bool { return a.State == status.Out })
	slices.SortFunc(apps, func(a, b status.App) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	m := &metrics{}
	each := func(name, help string, write func(a status.App, labels ...string)) {
		m.family(name, help)
		for _, a := range apps {
			write(a, "namespace", a.Namespace, "app", a.Name)
		}
	}
	moment := func(name, help string, of func(status.App) time.Time) {
		each(name, help, func(a status.App, labels ...string) { m.moment(name, of(a), labels...) })
	}
	m.family("backsnap_build_info", "The program that wrote this.")
	m.sample("backsnap_build_info", 1, "version", version)
	moment("backsnap_last_success_timestamp_seconds", "When the last good restore point was cut.", func(a status.App) time.Time { return a.LastGood })
	moment("backsnap_last_attempt_timestamp_seconds", "When one was tried last.", func(a status.App) time.Time { return a.Attempt })
	moment("backsnap_last_offsite_timestamp_seconds", "When the last one was cut that has its off-site copies.", func(a status.App) time.Time { return a.LastCopy })
	moment("backsnap_last_proof_timestamp_seconds", "When a restore was tried last.", func(a status.App) time.Time { return a.LastProof })
	each("backsnap_goal_seconds", "How old the last good restore point may get; 0 for any age.", func(a status.App, labels ...string) {
		m.sample("backsnap_goal_seconds", a.Goal.Seconds(), labels...)
	})
	each("backsnap_state", "1 for the state that the app is in.", func(a status.App, labels ...string) {
		m.sample("backsnap_state", 1, append(labels, "state", strings.ToLower(string(a.State)))...)
	})
	m.volumes(each)
	m.last(each)
	_, err := io.WriteString(w, m.text.String())
	return err
}

type eachApp func(name, help string, write func(a status.App, labels ...string))

// volumes are the counts of volumes and of snapshots.
func (m *metrics) volumes(each eachApp) {
	each("backsnap_unprotected_volumes", "Volumes without a restore point within the goal.", func(a status.App, labels ...string) {
		n := 0
		for _, v := range a.Volumes {
			if v.State == status.None || v.State == status.Late {
				n++
			}
		}
		m.sample("backsnap_unprotected_volumes", float64(n), labels...)
	})
	each("backsnap_snapshots", "Snapshots, by the period that they are kept for and what they are good for.", func(a status.App, labels ...string) {
		type kind struct{ tier, state string }
		counts := map[kind]int{}
		var kinds []kind
		for _, p := range a.Points {
			k := kind{p.Tier, string(p.State)}
			if counts[k] == 0 {
				kinds = append(kinds, k)
			}
			counts[k] += len(p.Members)
		}
		slices.SortFunc(kinds, func(a, b kind) int { return strings.Compare(a.tier+" "+a.state, b.tier+" "+b.state) })
		for _, k := range kinds {
			m.sample("backsnap_snapshots", float64(counts[k]), slices.Concat(labels, []string{"tier", k.tier, "state", k.state})...)
		}
	})
}

// last are the measures of each app's last good restore point.
func (m *metrics) last(each eachApp) {
	each("backsnap_duration_seconds", "How long the phases of the last good restore point took.", func(a status.App, labels ...string) {
		for _, phase := range phases {
			var longest time.Duration
			for _, v := range a.Volumes {
				if v.Last != nil && v.Last.Record != nil {
					longest = max(longest, phase.of(*v.Last.Record))
				}
			}
			if longest > 0 {
				m.sample("backsnap_duration_seconds", longest.Seconds(), slices.Concat(labels, []string{"phase", phase.name})...)
			}
		}
	})
	bytes := func(name, help string, of func(catalog.Copy) int64) {
		each(name, help, func(a status.App, labels ...string) {
			sums := map[string]int64{}
			for _, v := range a.Volumes {
				if v.Last == nil {
					continue
				}
				for _, c := range v.Last.Copies {
					sums[c.Repository] += of(c)
				}
			}
			for _, repository := range slices.Sorted(maps.Keys(sums)) {
				m.sample(name, float64(sums[repository]), slices.Concat(labels, []string{"repository", repository})...)
			}
		})
	}
	bytes("backsnap_bytes_processed", "Bytes read for the copies of the last good restore point.", func(c catalog.Copy) int64 { return c.Bytes })
	bytes("backsnap_bytes_added", "Bytes that they added to the repository.", func(c catalog.Copy) int64 { return c.Added })
}

// phases are those that a record tells the length of.
var phases = []struct {
	name string
	of   func(catalog.Record) time.Duration
}{
	{"dump", func(r catalog.Record) time.Duration { return between(r.DumpBegan, r.Dumped) }},
	{"cut", func(r catalog.Record) time.Duration { return between(r.Requested, r.Cut) }},
	{"ready", func(r catalog.Record) time.Duration { return between(r.Requested, r.Ready) }},
}

// between is 0 where one of both is not known.
func between(from, to time.Time) time.Duration {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return max(to.Sub(from), 0)
}

// junitSuite is a test suite as CI systems read it: a case an app.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"timestamp,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// writeJUnit writes a testcase an app, failed where its state is one of failOn.
func writeJUnit(w io.Writer, r status.Report, failOn []status.State) error {
	suite := junitSuite{Name: "backsnap status", Tests: len(r.Apps), Time: r.Now.UTC().Format("2006-01-02T15:04:05")}
	for _, a := range r.Apps {
		one := junitCase{Class: a.Namespace, Name: a.Name, Out: fmt.Sprintf("%s: last good %s, off-site %s, proven %s, goal %s", a.State, ago(a.LastGood, r.Now), ago(a.LastCopy, r.Now), ago(a.LastProof, r.Now), goalText(a.Goal))}
		switch {
		case a.State == status.Out:
			suite.Skipped++
			one.Skipped, one.Out = &junitMessage{Message: a.Reason}, ""
		case slices.Contains(failOn, a.State):
			suite.Failures++
			one.Failure = &junitMessage{Message: a.Reason, Type: string(a.State), Text: a.Do}
		case a.Reason != "":
			one.Out += "; " + a.Reason
		}
		suite.Cases = append(suite.Cases, one)
	}
	text, err := xml.MarshalIndent(suite, "", "  ")
	if err != nil {
		return fmt.Errorf("write junit: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, text)
	return err
}

// goodPoints is how many restore points a has.
func goodPoints(a status.App) int {
	n := 0
	for _, p := range a.Points {
		if p.State == retention.Good {
			n++
		}
	}
	return n
}
