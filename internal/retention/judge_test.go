package retention_test

import (
	"errors"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the zones of the cases must not depend on the machine

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// now is a Sunday, as in the examples of the documentation.
var now = time.Date(2026, 11, 22, 9, 20, 0, 0, time.UTC)

// point is a good calendar point of claim data, cut on that day at 01:15 UTC and
// named after it.
func point(day string, changes ...func(*retention.Point)) retention.Point {
	cut, err := time.Parse("2006-01-02 15:04", day+" 01:15")
	if err != nil {
		panic(err)
	}
	p := retention.Point{
		Namespace: "shop", Name: day, App: "statefulset/mysql", Cut: cut, State: retention.Good, Consistency: catalog.Application,
		Members: []retention.Member{{Name: "data-" + day, Claim: "data", UID: "1", Retain: "calendar"}},
	}
	for _, change := range changes {
		change(&p)
	}
	return p
}

// each changes all members of a point.
func each(change func(*retention.Member)) func(*retention.Point) {
	return func(p *retention.Point) {
		for i := range p.Members {
			change(&p.Members[i])
		}
	}
}

// stands has a point carry labels, `daily=2026-11-22`; without a value that of
// its cut.
func stands(labels ...string) func(*retention.Point) {
	return func(p *retention.Point) {
		for i := range p.Members {
			p.Members[i].Periods = map[catalog.Period]string{}
			for _, label := range labels {
				name, key, given := strings.Cut(label, "=")
				if !given {
					key = catalog.Period(name).Key(p.Cut)
				}
				p.Members[i].Periods[catalog.Period(name)] = key
			}
		}
	}
}

func retain(r string) func(*retention.Point) {
	return each(func(m *retention.Member) { m.Retain = r })
}

// until sets a person's date, or that of --retain.
func until(date string) func(*retention.Point) {
	return each(func(m *retention.Member) { m.DeleteAfter = date })
}

// marked has prune have marked a point so long ago, with a grace of a day.
func marked(ago time.Duration) func(*retention.Point) {
	return each(func(m *retention.Member) {
		m.Marked = now.Add(-ago)
		m.DeleteAfter = catalog.MarkUntil(now.Add(24*time.Hour - ago))
	})
}

func unmarked(m *retention.Member) { m.Marked = now.Add(-time.Hour) }

func pin(m *retention.Member) { m.Pinned = true }

func is(state retention.State, because string) func(*retention.Point) {
	return func(p *retention.Point) { p.State, p.Because = state, because }
}

func zone(name string) func(*retention.Point) {
	loc, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return func(p *retention.Point) { p.Zone = loc }
}

func consistency(c catalog.Consistency) func(*retention.Point) {
	return func(p *retention.Point) { p.Consistency = c }
}

func uid(id string) func(*retention.Point) {
	return each(func(m *retention.Member) { m.UID = id })
}

// with adds a member, a claim wal whose labels are those of data as changed.
func with(change func(*retention.Member)) func(*retention.Point) {
	return func(p *retention.Point) {
		wal := p.Members[0]
		wal.Name, wal.Claim, wal.UID = "wal-"+p.Name, "wal", "2"
		change(&wal)
		p.Members = append(p.Members, wal)
	}
}

func same(*retention.Member) {}

func policy(t *testing.T, text string) retention.Policy {
	t.Helper()
	p, err := retention.ParsePolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// said is a verdict as one line: `keep daily: daily 1/7`.
func said(v retention.Verdict) string {
	return strings.TrimSpace(string(v.Decision)+" "+v.KeptAs) + ": " + v.Reason
}

// newest is a point that the other points of a case are older than.
var newest = point("2026-11-22", stands("daily"))

const newestKept = "keep daily: daily 1/2"

func TestJudge(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name    string
		policy  string // daily=2,weekly=2 where it is none
		minKeep int
		noGrace bool
		points  []retention.Point
		want    map[string]string
	}{
		{
			name:   "the newest keys of a period keep theirs, and what is no longer among them is marked",
			points: []retention.Point{newest, point("2026-11-21", stands("daily")), point("2026-11-20", stands("daily"))},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "keep daily: daily 2/2",
				"2026-11-20": "mark: daily 3/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name:   "the week keeps what the day lets go",
			policy: "daily=1,weekly=2",
			points: []retention.Point{newest, point("2026-11-16", stands("daily", "weekly")), point("2026-11-09", stands("daily", "weekly")), point("2026-11-02", stands("weekly"))},
			want: map[string]string{
				"2026-11-22": "keep daily: daily 1/1",
				"2026-11-16": "keep weekly: weekly 1/2",
				"2026-11-09": "keep weekly: weekly 2/2",
				"2026-11-02": "mark: weekly 3/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name:   "what several periods keep is kept as the longest",
			policy: "daily=7,weekly=4,monthly=12",
			points: []retention.Point{point("2026-11-01", stands("hourly", "daily", "weekly", "monthly", "yearly"))},
			want:   map[string]string{"2026-11-01": "keep monthly: monthly 1/12, weekly 1/4, daily 1/7"},
		},
		{
			name:   "days without a snapshot take no place",
			points: []retention.Point{newest, point("2026-10-02", stands("daily")), point("2026-09-01", stands("daily"))},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-10-02": "keep daily: daily 2/2",
				"2026-09-01": "mark: daily 3/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name:   "a calendar snapshot with no period left is marked",
			points: []retention.Point{newest, point("2026-11-21")},
			want:   map[string]string{"2026-11-22": newestKept, "2026-11-21": "mark: no period; swept after 2026-11-23 09:20"},
		},
		{
			name:   "and swept once its grace has passed",
			points: []retention.Point{newest, point("2026-11-20", marked(2*day)), point("2026-11-19", marked(23*time.Hour)), point("2026-11-18", stands("daily", "weekly=2026-w40"), marked(day))},
			policy: "daily=1",
			want: map[string]string{
				"2026-11-22": "keep daily: daily 1/1",
				"2026-11-20": "sweep: no period since 2026-11-20, marked 2d ago",
				"2026-11-19": "marked: no period since 2026-11-21, marked 23h ago; swept after 2026-11-22 10:20",
				"2026-11-18": "sweep: daily 2/1, marked 24h ago",
			},
		},
		{
			name:    "without a grace at once",
			noGrace: true,
			points:  []retention.Point{newest, point("2026-11-21"), point("2026-11-20", marked(time.Hour))},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "sweep: no period",
				"2026-11-20": "sweep: no period since 2026-11-22, marked 60m ago",
			},
		},
		{
			name:   "prune's own mark is withdrawn when a period holds again, be it overdue",
			points: []retention.Point{newest, point("2026-11-21", stands("daily"), marked(9*day))},
			want:   map[string]string{"2026-11-22": newestKept, "2026-11-21": "unmark daily: daily 2/2"},
		},
		{
			name:   "a mark that a person has taken off stays off",
			points: []retention.Point{newest, point("2026-11-20", each(unmarked))},
			want:   map[string]string{"2026-11-22": newestKept, "2026-11-20": "keep unmarked: its mark was taken off by hand"},
		},
		{
			name: "a date is obeyed when its day has passed, without a second grace",
			points: []retention.Point{
				newest, point("2026-10-22", retain("days"), until("2026-11-21")), point("2026-10-23", retain("days"), until("2026-11-22")),
				point("2026-10-24", retain("days"), until("2026-11-23")),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-10-22": "sweep: delete-after 2026-11-21 has passed",
				"2026-10-23": "keep 30d: delete-after 2026-11-22",
				"2026-10-24": "keep 30d: delete-after 2026-11-23",
			},
		},
		{
			name:   "also beside a live period, which takes no place of another's",
			points: []retention.Point{newest, point("2026-11-21", stands("daily"), until("2026-11-21")), point("2026-11-20", stands("daily"))},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "sweep: delete-after 2026-11-21 has passed, though it stands for daily 2/2",
				"2026-11-20": "keep daily: daily 2/2",
			},
		},
		{
			name:   "a date that a person has set after the mark is a person's",
			points: []retention.Point{newest, point("2026-11-20", marked(2*day), until("2027-01-01")), point("2026-11-19", stands("daily"), marked(2*day), until("2026-11-21"))},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-20": "keep 42d: delete-after 2027-01-01",
				"2026-11-19": "sweep: delete-after 2026-11-21 has passed, though it stands for daily 2/2",
			},
		},
		{
			name:   "hours run from the cut",
			points: []retention.Point{newest, point("2026-11-21", retain("days"), until("20261121T131500Z")), point("2026-11-20", retain("days"), until("20261122T131500Z"))},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "sweep: delete-after 2026-11-21 13:15 has passed",
				"2026-11-20": "keep 60h: delete-after 2026-11-22 13:15",
			},
		},
		{
			name:   "days whose date was taken off stay",
			points: []retention.Point{newest, point("2025-11-20", retain("days"))},
			want:   map[string]string{"2026-11-22": newestKept, "2025-11-20": "keep days: its delete-after was taken off"},
		},
		{
			name: "the pin beats everything, prune's own mark among it",
			points: []retention.Point{
				newest, point("2025-11-20", each(pin)), point("2025-11-19", retain("days"), until("2025-12-01"), each(pin)),
				point("2025-11-18", marked(9*day), each(pin)), point("2025-11-17", is(retention.Failed, "it never became a restore point"), each(pin)),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2025-11-20": "keep pinned: pinned",
				"2025-11-19": "keep pinned: pinned",
				"2025-11-18": "unmark pinned: pinned",
				"2025-11-17": "keep pinned: pinned",
			},
		},
		{
			name: "copied ones go once each copy that was asked for is on record",
			points: []retention.Point{
				newest,
				point("2026-11-21", retain("copied"), each(func(m *retention.Member) { m.Copied = true })),
				point("2026-11-20", retain("copied"), each(func(m *retention.Member) { m.Missing = []string{"main", "second"} })),
				point("2026-11-19", retain("copied")),
				point("2026-11-18", retain("copied"), stands("daily"), each(func(m *retention.Member) { m.Copied = true })),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "mark: every copy is on record; swept after 2026-11-23 09:20",
				"2026-11-20": "keep copied: no copy yet in main, second",
				"2026-11-19": "keep copied: no copy was asked for",
				"2026-11-18": "keep daily: daily 2/2",
			},
		},
		{
			name: "what is not ready, and what is not understood, is reported and left",
			points: []retention.Point{
				newest, point("2026-11-21", is(retention.Unready, "data is not ready"), until("2026-01-01")),
				point("2026-11-20", is(retention.Foreign, "its record cannot be read"), marked(9*day)),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "leave: data is not ready",
				"2026-11-20": "leave: its record cannot be read",
			},
		},
		{
			name: "failed ones expire apart and never count",
			points: []retention.Point{
				point("2026-11-22", stands("daily"), is(retention.Failed, "no space")),
				point("2026-11-21", stands("daily"), is(retention.Failed, "no space"), marked(2*day)),
				point("2026-11-20", stands("daily")), point("2026-11-19", stands("daily")),
			},
			want: map[string]string{
				"2026-11-22": "mark: no space; swept after 2026-11-23 09:20",
				"2026-11-21": "sweep: no space, marked 2d ago",
				"2026-11-20": "keep daily: daily 1/2",
				"2026-11-19": "keep daily: daily 2/2",
			},
		},
		{
			name: "a broken set is judged by its labels, takes no place, and is not the newest good one",
			points: []retention.Point{
				point("2026-11-22", stands("daily"), is(retention.Partial, "wal gone")),
				point("2026-11-21", is(retention.Partial, "wal gone")),
				point("2026-11-20", stands("daily")), point("2026-11-19", stands("daily")),
			},
			want: map[string]string{
				"2026-11-22": "keep daily: daily 1/2",
				"2026-11-21": "mark: no period; swept after 2026-11-23 09:20",
				"2026-11-20": "keep daily: daily 1/2",
				"2026-11-19": "keep daily: daily 2/2",
			},
		},
		{
			name:   "where all sets are broken the newest of them stays",
			points: []retention.Point{point("2026-11-22", is(retention.Partial, "wal gone")), point("2026-11-21", is(retention.Partial, "wal gone"))},
			want: map[string]string{
				"2026-11-22": "keep newest: nothing whole is there; no period",
				"2026-11-21": "mark: no period; swept after 2026-11-23 09:20",
			},
		},
		{
			name:   "safety snapshots go by their date, do not count, and are not the last good one",
			points: []retention.Point{point("2026-11-22", is(retention.Safety, ""), until("2026-11-21")), point("2026-11-21", is(retention.Safety, ""), until("2026-11-28")), point("2026-11-20", retain("days"), until("2026-11-21"))},
			want: map[string]string{
				"2026-11-22": "sweep: delete-after 2026-11-21 has passed",
				"2026-11-21": "keep 7d: delete-after 2026-11-28",
				"2026-11-20": "keep newest: newest good set stays; delete-after 2026-11-21 has passed",
			},
		},
		{
			name:    "the newest good ones stay whatever the labels say, and their marks are taken off",
			minKeep: 3,
			points: []retention.Point{
				point("2026-11-22", is(retention.Failed, "no space")), point("2026-11-20"), point("2026-11-19", marked(9*day)),
				point("2026-11-18", until("2026-11-19")), point("2026-11-17"),
			},
			want: map[string]string{
				"2026-11-22": "mark: no space; swept after 2026-11-23 09:20",
				"2026-11-20": "keep newest: newest good set stays; no period",
				"2026-11-19": "unmark newest: newest good set stays; no period",
				"2026-11-18": "keep newest: newest good set stays; delete-after 2026-11-19 has passed",
				"2026-11-17": "mark: no period; swept after 2026-11-23 09:20",
			},
		},
		{
			name: "newer ones that hold less never cost the last that is consistent for the application",
			points: []retention.Point{
				point("2026-11-22", stands("daily"), consistency(catalog.Crash)), point("2026-11-21", stands("daily"), consistency(catalog.Crash)),
				point("2026-11-20", stands("daily")), point("2026-11-19", stands("daily")),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "keep daily: daily 2/2",
				"2026-11-20": "keep newest: newest good set stays; daily 3/2",
				"2026-11-19": "mark: daily 4/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name: "a claim that was made anew goes on in its history, and never costs its predecessor the last good one",
			points: []retention.Point{
				point("2026-11-22", stands("daily"), uid("9")), point("2026-11-21", stands("daily"), uid("9")),
				point("2026-11-20", stands("daily")), point("2026-11-19", stands("daily")),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "keep daily: daily 2/2",
				"2026-11-20": "keep newest: newest good set stays; daily 3/2",
				"2026-11-19": "mark: daily 4/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name: "a set is kept whole where one of its members is",
			points: []retention.Point{
				point("2026-11-22", stands("daily"), with(same)), point("2026-11-21", stands("daily"), with(same)),
				point("2026-11-20", with(func(m *retention.Member) { m.Pinned = true })),
				point("2026-11-19", marked(9*day), with(func(m *retention.Member) { m.Periods = map[catalog.Period]string{"weekly": "2026-w45"} })),
				point("2026-11-18", until("2026-11-19"), with(func(m *retention.Member) { m.DeleteAfter = "" })),
				point("2026-11-17", marked(9*day), with(func(m *retention.Member) { m.Marked, m.DeleteAfter = time.Time{}, "" })),
				point("2026-11-16", marked(9*day), with(func(m *retention.Member) { m.Marked, m.DeleteAfter = now.Add(-time.Hour), "20261123T082000Z" })),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "keep daily: daily 2/2",
				"2026-11-20": "keep pinned: wal: pinned",
				"2026-11-19": "unmark weekly: wal: weekly 1/2",
				"2026-11-18": "mark: wal: no period; swept after 2026-11-23 09:20",
				"2026-11-17": "mark: wal: no period; swept after 2026-11-23 09:20",
				"2026-11-16": "marked: wal: no period since 2026-11-22, marked 60m ago; swept after 2026-11-23 08:20",
			},
		},
		{
			name: "each claim has its own newest keys: an app that got another volume loses nothing",
			points: []retention.Point{
				point("2026-11-22", stands("daily")), point("2026-11-21", stands("daily")),
				point("2026-11-20", stands("daily"), with(same)), point("2026-11-19", stands("daily"), with(same)), point("2026-11-18", stands("daily"), with(same)),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "keep daily: daily 2/2",
				"2026-11-20": "keep daily: wal: daily 1/2",
				"2026-11-19": "keep daily: wal: daily 2/2",
				"2026-11-18": "mark: data: daily 5/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name: "namespaces are judged apart",
			points: []retention.Point{
				newest, point("2026-11-21", stands("daily")),
				point("2026-11-20", stands("daily"), func(p *retention.Point) { p.Namespace = "blog" }),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": "keep daily: daily 2/2",
				"2026-11-20": "keep daily: daily 1/2",
			},
		},
		{
			name: "a label by hand counts, on two points with one key keeps both",
			points: []retention.Point{
				newest, point("2026-11-21", stands("daily=2026-11-22")), point("2026-11-20", stands("daily")), point("2025-06-01", stands("weekly=2025-w22")),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-21": newestKept,
				"2026-11-20": "keep daily: daily 2/2",
				"2025-06-01": "keep weekly: weekly 1/2",
			},
		},
		{
			name:   "ISO weeks carry the ISO year: the last days of 2024 are of 2025-w01",
			policy: "weekly=2",
			points: []retention.Point{point("2025-01-06", stands("weekly")), point("2024-12-30", stands("weekly")), point("2024-12-23", stands("weekly"))},
			want: map[string]string{
				"2025-01-06": "keep weekly: weekly 1/2",
				"2024-12-30": "keep weekly: weekly 2/2",
				"2024-12-23": "mark: weekly 3/2; swept after 2026-11-23 09:20",
			},
		},
		{
			name: "a day ends where the run was: it is over in Kiritimati, and not in Honolulu",
			points: []retention.Point{
				newest, point("2026-11-20", until("2026-11-22"), zone("Pacific/Kiritimati")), point("2026-11-19", until("2026-11-21"), zone("Pacific/Honolulu")),
			},
			want: map[string]string{
				"2026-11-22": newestKept,
				"2026-11-20": "keep 2d: delete-after 2026-11-22", // there it is 23:20
				"2026-11-19": "keep 3d: delete-after 2026-11-21", // there it is 23:20 of the day before
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := retention.Rules{Policy: policy(t, orElse(c.policy, "daily=2,weekly=2")), Grace: 24 * time.Hour, MinKeep: c.minKeep}
			if c.noGrace {
				rules.Grace = 0
			}
			got := map[string]string{}
			for _, v := range retention.Judge(c.points, rules, now) {
				got[v.Point.Name] = said(v)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// A key or date that cannot be is an error for that point: it is left alone,
// and takes no place.
func TestJudgeReportsWhatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name  string
		point retention.Point
		want  string
	}{
		{"a day to come", point("2026-11-21", stands("daily=2026-11-23")), `data: label backsnap.sh/daily "2026-11-23" is still to come`},
		{"an hour to come", point("2026-11-21", stands("hourly=2026-11-22T10Z")), `data: label backsnap.sh/hourly "2026-11-22T10Z" is still to come`},
		{"a week to come", point("2026-11-21", stands("weekly=2026-w48")), `data: label backsnap.sh/weekly "2026-w48" is still to come`},
		{"a year to come", point("2026-11-21", stands("yearly=2027")), `data: label backsnap.sh/yearly "2027" is still to come`},
		{"no day", point("2026-11-21", stands("daily=2026-02-30")), `data: label backsnap.sh/daily "2026-02-30": want the form 2026-11-22`},
		{"a week that its year does not have", point("2026-11-21", stands("weekly=2025-w53")), `data: label backsnap.sh/weekly "2025-w53": that year has no such week`},
		{"a week without a year", point("2026-11-21", stands("weekly=w47")), `data: label backsnap.sh/weekly "w47": want the form 2026-w47`},
		{"no date", point("2026-11-21", until("yesterday")), `data: label backsnap.sh/delete-after "yesterday": want 2026-11-29 or 20261123T092000Z`},
		{"a date that sorts before all others", point("2026-11-21", until("0")), `data: label backsnap.sh/delete-after "0": want 2026-11-29 or 20261123T092000Z`},
		{"an unknown way to retain", point("2026-11-21", retain("forever")), `data: label backsnap.sh/retain "forever": want calendar, days or copied`},
		{"a cut to come", point("2026-11-24", stands("daily=2026-11-22")), `it was cut at 2026-11-24 01:15, which is still to come`},
		{"two things", point("2026-11-21", stands("daily=x"), until("y")), `data: label backsnap.sh/daily "x": want the form 2026-11-22; label backsnap.sh/delete-after "y": want 2026-11-29 or 20261123T092000Z`},
		{"one member's", point("2026-11-21", until("2026-11-20"), with(func(m *retention.Member) { m.DeleteAfter = "x" })), `wal: label backsnap.sh/delete-after "x": want 2026-11-29 or 20261123T092000Z`},
		{"its claim's own policy", point("2026-11-21", func(p *retention.Point) { p.Namespace = "unclear" }), `data: keep "7": want daily=7`},
	} {
		t.Run(c.name, func(t *testing.T) {
			others := []retention.Point{point("2026-11-20", stands("daily")), point("2026-11-19", stands("daily"))}
			rules := retention.Rules{
				Policy: policy(t, "daily=2"), Grace: time.Hour,
				Own: func(namespace, _ string) (retention.Policy, bool, error) {
					if namespace == "unclear" {
						return nil, false, errors.New(`keep "7": want daily=7`)
					}
					return nil, false, nil
				},
			}
			verdicts := retention.Judge(append(others, c.point), rules, now)
			var got []string
			for _, v := range verdicts {
				got = append(got, said(v))
				if (v.Err != nil) != (v.Point.Name == c.point.Name) {
					t.Errorf("%s: error %v", v.Point.Name, v.Err)
				}
			}
			want := []string{"leave: " + c.want, "keep daily: daily 1/2", "keep daily: daily 2/2"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJudgeByTheClaimsOwnPolicy(t *testing.T) {
	rules := retention.Rules{Policy: policy(t, "daily=1"), Own: func(_, claim string) (retention.Policy, bool, error) {
		return policy(t, "daily=2"), claim == "wal", nil
	}}
	var got []string
	for _, v := range retention.Judge([]retention.Point{
		point("2026-11-22", stands("daily"), with(same)), point("2026-11-21", stands("daily"), with(same)), point("2026-11-20", stands("daily"), with(same)),
	}, rules, now) {
		got = append(got, said(v))
	}
	want := []string{"keep daily: data: daily 1/1", "keep daily: wal: daily 2/2", "sweep: data: daily 3/1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

// When is what a mark is set to, and what is told of a date.
func TestJudgeSaysWhen(t *testing.T) {
	points := []retention.Point{newest, point("2026-11-21"), point("2026-11-20", marked(time.Hour)), point("2026-11-19", until("2026-11-25")), point("2026-11-18", until("2026-11-19"))}
	got := map[string]time.Time{}
	for _, v := range retention.Judge(points, retention.Rules{Policy: policy(t, "daily=2"), Grace: 36 * time.Hour}, now) {
		got[v.Point.Name] = v.When
	}
	want := map[string]time.Time{
		"2026-11-22": {},
		"2026-11-21": now.Add(36 * time.Hour),
		"2026-11-20": now.Add(23 * time.Hour),
		"2026-11-19": time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC),
		"2026-11-18": time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("when (-want +got):\n%s", diff)
	}
}

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]string{
		"daily=7,weekly=4,monthly=12": "daily=7,weekly=4,monthly=12",
		"monthly=12, daily=7":         "daily=7,monthly=12",
		"yearly=1":                    "yearly=1",
		"hourly=24,daily=7,weekly=4,monthly=12,yearly=100": "hourly=24,daily=7,weekly=4,monthly=12,yearly=100",
		"daily=36525": "daily=36525",
	} {
		got, err := retention.ParsePolicy(text)
		if err != nil || got.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
	const form = "want one or more of hourly=N, daily=N, weekly=N, monthly=N, yearly=N, with commas between them"
	for text, want := range map[string]string{
		"":                form,
		"7":               form,
		"none":            form,
		"daily":           form,
		"days=7":          form,
		"Daily=7":         form,
		"daily=7,":        form,
		"daily=7;weekly=": "daily: want a number from 1 to 36525; leave out what is not to be kept",
		"daily=0":         "daily: want a number from 1 to 36525; leave out what is not to be kept",
		"daily=-1":        "daily: want a number from 1 to 36525; leave out what is not to be kept",
		"daily=36526":     "daily: want a number from 1 to 36525; leave out what is not to be kept",
		"weekly=7.5":      "weekly: want a number from 1 to 36525; leave out what is not to be kept",
		"daily=7,daily=7": "daily twice",
	} {
		if got, err := retention.ParsePolicy(text); err == nil || err.Error() != `keep "`+text+`": `+want {
			t.Errorf("%q is %q, %v; want the error %s", text, got, err, want)
		}
	}
}
