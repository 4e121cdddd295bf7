package restore_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

// at is a time of 22 November 2026.
func at(clock string) time.Time {
	t, err := time.Parse(time.RFC3339, "2026-11-22T"+clock+":00Z")
	if err != nil {
		panic(err)
	}
	return t
}

// runAt is the run that began then.
func runAt(clock string) catalog.Run {
	return catalog.Run("20261122-" + strings.ReplaceAll(clock, ":", "") + "00-aaaa")
}

// shot is a ready snapshot of claim, one of members of statefulset/mysql.
func shot(clock, claim string, members ...string) catalog.Snapshot {
	if len(members) == 0 {
		members = []string{claim}
	}
	name := catalog.SnapshotName(claim, runAt(clock))
	return catalog.Snapshot{
		Namespace: "shop", Name: name, UID: "uid-" + name, Claim: claim, Run: runAt(clock), Consistency: catalog.Application,
		Cut: at(clock), Ready: true, Content: "content-" + name,
		Record: &catalog.Record{
			Version: 1, Run: runAt(clock), App: "statefulset/mysql", Members: members, Cut: at(clock),
			Claim: catalog.ClaimRecord{
				Name: claim, UID: "uid-of-" + claim, Request: 10 << 30, Capacity: 12 << 30, StorageClass: "fast", Driver: "csi.example.com",
				AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem",
			},
		},
	}
}

func unready(s catalog.Snapshot) catalog.Snapshot {
	s.Ready, s.Err = false, "the storage is full"
	return s
}

func copied(s catalog.Snapshot, repositories ...string) catalog.Snapshot {
	for _, r := range repositories {
		s.Copies = append(s.Copies, catalog.Copy{Repository: r, Snapshot: r + "-" + s.Name, Bytes: 4096, Files: 3})
	}
	return s
}

func with(s catalog.Snapshot, change func(*catalog.Snapshot)) catalog.Snapshot {
	change(&s)
	return s
}

// TestChoose is the rule of what is restored.
func TestChoose(t *testing.T) {
	day := []catalog.Snapshot{shot("01:00", "data"), shot("02:00", "data"), shot("03:00", "data")}
	pair := func(clock string) []catalog.Snapshot {
		return []catalog.Snapshot{shot(clock, "binlog", "binlog", "data"), shot(clock, "data", "binlog", "data")}
	}
	both := append(pair("01:00"), pair("02:00")...)
	for _, c := range []struct {
		name      string
		target    string // kind/name
		at        string // 22 November; "" for the latest
		from      string // auto
		snapshots []catalog.Snapshot
		// want are the names of what is taken, from a copy after an @; passed
		// the runs that are not, with the reason.
		want, passed []string
		// fails are parts of the error, its next step among them.
		fails []string
	}{
		{name: "the newest", target: "pvc/data", snapshots: day, want: []string{"data-20261122-030000-aaaa"}},
		{
			name: "the newest before the time asked", target: "pvc/data", at: "02:30", snapshots: day,
			want: []string{"data-20261122-020000-aaaa"}, passed: []string{"20261122-030000-aaaa: it is after 02:30"},
		},
		{
			name: "one of that very time", target: "pvc/data", at: "02:00", snapshots: day,
			want: []string{"data-20261122-020000-aaaa"}, passed: []string{"20261122-030000-aaaa: it is after 02:00"},
		},
		{
			name: "none before: the nearest is named, with the command", target: "pvc/data", at: "00:59", snapshots: day,
			fails: []string{
				"no complete set of data in shop at or before 00:59", "20261122-030000-aaaa: it is after 00:59",
				"the nearest is 20261122-010000-aaaa, cut 2026-11-22T01:00:00Z", "kubectl backsnap restore data -n shop --at 2026-11-22T01:00:00Z",
			},
		},
		{
			name: "the command of the nearest says from where too", target: "pvc/data", at: "00:59", from: "copy:main", snapshots: []catalog.Snapshot{copied(shot("01:00", "data"), "main")},
			fails: []string{"kubectl backsnap restore data -n shop --at 2026-11-22T01:00:00Z --from copy:main"},
		},
		{name: "none at all", target: "pvc/data", fails: []string{"no complete set of data in shop at or before any time", "there is none"}},
		{
			name: "one that is not ready is passed over", target: "pvc/data", snapshots: []catalog.Snapshot{day[0], unready(day[1])},
			want: []string{"data-20261122-010000-aaaa"}, passed: []string{"20261122-020000-aaaa: data: its snapshot is not ready (the storage is full) and it has no copy"},
		},
		{
			name: "a set that misses a member is passed over", target: "statefulset/mysql", snapshots: append(pair("01:00"), shot("02:00", "data", "binlog", "data")),
			want:   []string{"binlog-20261122-010000-aaaa", "data-20261122-010000-aaaa"},
			passed: []string{"20261122-020000-aaaa: it has no snapshot of binlog"},
		},
		{
			name: "unless the claim alone is asked for", target: "pvc/data", snapshots: append(pair("01:00"), shot("02:00", "data", "binlog", "data")),
			want: []string{"data-20261122-020000-aaaa"},
		},
		{
			name: "the claim alone is not in the newest", target: "pvc/binlog", snapshots: append(pair("01:00"), shot("02:00", "data", "binlog", "data")),
			want: []string{"binlog-20261122-010000-aaaa"}, passed: []string{"20261122-020000-aaaa: it has no snapshot of binlog"},
		},
		{
			name: "a set is as new as the last of its cuts", target: "statefulset/mysql", at: "02:00",
			snapshots: append(pair("01:00"), shot("02:00", "binlog", "binlog", "data"), with(shot("02:00", "data", "binlog", "data"), func(s *catalog.Snapshot) { s.Record.Cut = at("02:01") })),
			want:      []string{"binlog-20261122-010000-aaaa", "data-20261122-010000-aaaa"}, passed: []string{"20261122-020000-aaaa: it is after 02:00"},
		},
		{
			name: "what is no restore point is never taken", target: "pvc/data", snapshots: []catalog.Snapshot{
				day[0],
				with(day[1], func(s *catalog.Snapshot) { s.Role = catalog.RoleSafety }),
				with(day[1], func(s *catalog.Snapshot) { s.Role = catalog.RoleStatic }),
				with(day[2], func(s *catalog.Snapshot) { s.Record = nil }),
				with(day[2], func(s *catalog.Snapshot) { s.Terminating = true }),
			},
			want: []string{"data-20261122-010000-aaaa"},
		},
		{
			name: "one that was never cut is not usable", target: "pvc/data", snapshots: []catalog.Snapshot{with(day[0], func(s *catalog.Snapshot) { s.Cut, s.Record.Cut = time.Time{}, time.Time{} })},
			fails: []string{"20261122-010000-aaaa: data: it was never cut"},
		},
		{
			name: "another app's set is not meant", target: "statefulset/mysql", snapshots: []catalog.Snapshot{with(shot("01:00", "data"), func(s *catalog.Snapshot) { s.Record.App = "statefulset/mysql-2" })},
			fails: []string{"there is none"},
		},
		{
			name: "an app that shares its volumes with another", target: "deployment/a", snapshots: []catalog.Snapshot{with(shot("01:00", "data"), func(s *catalog.Snapshot) { s.Record.App = "deployment/a+deployment/b" })},
			want: []string{"data-20261122-010000-aaaa"},
		},
		{
			name: "from a copy where the snapshot is not ready", target: "pvc/data", snapshots: []catalog.Snapshot{copied(unready(day[0]), "main")},
			want: []string{"data-20261122-010000-aaaa@main"},
		},
		{name: "the snapshot goes before its copy", target: "pvc/data", snapshots: []catalog.Snapshot{copied(day[0], "main")}, want: []string{"data-20261122-010000-aaaa"}},
		{
			name: "each volume of a set from where it is", target: "statefulset/mysql", snapshots: []catalog.Snapshot{both[0], copied(unready(both[1]), "main")},
			want: []string{"binlog-20261122-010000-aaaa", "data-20261122-010000-aaaa@main"},
		},
		{
			name: "a copy that was asked for", target: "pvc/data", from: "copy", snapshots: []catalog.Snapshot{copied(day[0], "main"), day[1]},
			want: []string{"data-20261122-010000-aaaa@main"}, passed: []string{"20261122-020000-aaaa: data: it has no copy"},
		},
		{
			name: "from the repository that was named", target: "pvc/data", from: "copy:new", snapshots: []catalog.Snapshot{copied(day[0], "main", "new"), copied(day[1], "main")},
			want: []string{"data-20261122-010000-aaaa@new"}, passed: []string{"20261122-020000-aaaa: data: it has no copy in new"},
		},
		{
			name: "a copy in a repository that is not configured", target: "pvc/data", from: "copy", snapshots: []catalog.Snapshot{copied(day[0], "gone")},
			fails: []string{"it has a copy in gone, whose Secret is not in namespace backsnap"},
		},
		{
			name: "one that is configured goes before one that is not", target: "pvc/data", from: "copy", snapshots: []catalog.Snapshot{copied(day[0], "gone", "main")},
			want: []string{"data-20261122-010000-aaaa@main"},
		},
		{
			name: "a snapshot that was asked for is not replaced by its copy", target: "pvc/data", from: "snapshot", snapshots: []catalog.Snapshot{copied(unready(day[0]), "main")},
			fails: []string{"its snapshot is not ready (the storage is full)"},
		},
		{name: "one snapshot by its name", target: "vs/data-20261122-010000-aaaa", snapshots: day, want: []string{"data-20261122-010000-aaaa"}},
		{name: "no snapshot of that name", target: "vs/data-1", snapshots: day, fails: []string{"nothing to restore vs/data-1 in shop from", "there is no snapshot of ours with that name"}},
		{
			name: "a snapshot that is none of a person's", target: "vs/data-20261122-010000-aaaa", snapshots: []catalog.Snapshot{with(day[0], func(s *catalog.Snapshot) { s.Role = catalog.RoleStatic })},
			fails: []string{"it is no restore point, but one that backsnap made for itself (static)"},
		},
		{
			name: "a named snapshot without a record", target: "vs/data-20261122-010000-aaaa", snapshots: []catalog.Snapshot{with(day[0], func(s *catalog.Snapshot) { s.Record = nil })},
			fails: []string{"it has no record that says what volume it was taken of"},
		},
		{
			name: "a named snapshot that goes", target: "vs/data-20261122-010000-aaaa", snapshots: []catalog.Snapshot{with(day[0], func(s *catalog.Snapshot) { s.Terminating = true })},
			fails: []string{"it is being deleted"},
		},
		{name: "a named snapshot that is not ready", target: "vs/data-20261122-010000-aaaa", snapshots: []catalog.Snapshot{unready(day[0])}, fails: []string{"its snapshot is not ready"}},
		{
			name: "all sets of a run", target: "run/20261122-010000-aaaa", snapshots: append(both, with(shot("01:00", "www"), func(s *catalog.Snapshot) { s.Record.App = "deployment/www" })),
			want: []string{"www-20261122-010000-aaaa", "binlog-20261122-010000-aaaa", "data-20261122-010000-aaaa"},
		},
		{
			name: "a run of which one set is not whole", target: "run/20261122-010000-aaaa", snapshots: []catalog.Snapshot{both[0]},
			fails: []string{"statefulset/mysql: it has no snapshot of data"},
		},
		{name: "no such run", target: "run/20261122-050000-aaaa", snapshots: both, fails: []string{"there is no snapshot of that run"}},
		{
			name: "not more than three that were passed over are named", target: "pvc/data", at: "00:10", snapshots: append(day, shot("04:00", "data"), shot("05:00", "data")),
			fails: []string{"20261122-030000-aaaa: it is after 00:10; and 2 more"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind, name, _ := strings.Cut(c.target, "/")
			r := restore.Request{Target: restore.Target{Namespace: "shop", Kind: kind, Name: name}, BackupNamespace: "backsnap", AtText: "any time", From: restore.From{Kind: restore.Auto}}
			if c.at != "" {
				r.At, r.AtText = at(c.at), c.at
			}
			if c.from != "" {
				var err error
				if r.From, err = restore.ParseFrom(c.from); err != nil {
					t.Fatal(err)
				}
			}
			choice, err := restore.Choose(r, []catalog.Repository{{Name: "main"}, {Name: "new"}}, c.snapshots)
			check(t, err, c.fails)
			var got, passed []string
			for _, chosen := range choice.Chosen {
				for _, p := range chosen.Points {
					text := p.Snapshot.Name
					if p.Copy != nil {
						text += "@" + p.Copy.Repository
					}
					got = append(got, text)
				}
			}
			for _, p := range choice.Passed {
				passed = append(passed, string(p.Run)+": "+p.Reason)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("taken (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.passed, passed); diff != "" {
				t.Errorf("passed over (-want +got):\n%s", diff)
			}
		})
	}
}

// check wants err to be a Failure that says all parts; no error without parts.
func check(t *testing.T, err error, parts []string) {
	t.Helper()
	if err == nil || len(parts) == 0 {
		if err != nil || len(parts) > 0 {
			t.Fatalf("got error %v, want one with %q", err, parts)
		}
		return
	}
	var f *catalog.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v is no Failure", err)
	}
	text := f.Error() + "\n" + f.State + "\n" + f.Next
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

func TestParseAt(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := at("12:00")
	for _, c := range []struct{ text, want, fails string }{
		{text: "latest", want: "0001-01-01T00:00:00Z"},
		{text: "2026-11-21T23:00", want: "2026-11-21T22:00:00Z"},
		{text: "2026-11-21 23:00", want: "2026-11-21T22:00:00Z"},
		{text: "2026-11-21T23:00:07", want: "2026-11-21T22:00:07Z"},
		{text: "2026-07-21T23:00", want: "2026-07-21T21:00:00Z"},
		{text: "2026-11-21T23:00Z", want: "2026-11-21T23:00:00Z"},
		{text: "2026-11-21T23:00:00-05:00", want: "2026-11-22T04:00:00Z"},
		{text: "2026-11-22T01:15:42.123456789Z", want: "2026-11-22T01:15:42.123456789Z"},
		{text: "36h", want: "2026-11-21T00:00:00Z"},
		{text: "2d", want: "2026-11-20T12:00:00Z"},
		{text: "1d6h30m", want: "2026-11-21T05:30:00Z"},
		{text: "0s", want: "2026-11-22T12:00:00Z"},
		{text: "2026-11-21", fails: "want a time of that day, such as 2026-11-21T23:00"},
		{text: "2026-03-29T02:30", fails: "the clocks in Europe/Berlin skip that time"},
		{text: "yesterday", fails: "want latest, a time such as 2026-11-21T23:00, or an age"},
		{text: "-1h", fails: "want latest"},
		{text: "-2d", fails: "want latest"},
		{text: "2d-1h", fails: "want latest"},
		{text: "d", fails: "want latest"},
		{text: "99999999d", fails: "want latest"},
		{text: "", fails: "want latest"},
	} {
		got, err := restore.ParseAt(c.text, now, berlin)
		switch {
		case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
			t.Errorf("%q: got %v and error %v, want error %q", c.text, got, err, c.fails)
		case c.fails == "" && (err != nil || got.UTC().Format(time.RFC3339Nano) != c.want):
			t.Errorf("%q: got %s and error %v, want %s", c.text, got.UTC().Format(time.RFC3339Nano), err, c.want)
		}
	}
}

func TestParseFrom(t *testing.T) {
	for text, want := range map[string]restore.From{
		"auto": {Kind: restore.Auto}, "snapshot": {Kind: restore.Snapshot}, "copy": {Kind: restore.Copy}, "copy:main": {Kind: restore.Copy, Repository: "main"},
	} {
		got, err := restore.ParseFrom(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q: got %+v (%s) and error %v", text, got, got, err)
		}
	}
	for _, text := range []string{"", "copy:", "auto:main", "snapshot:", "s3", "Copy"} {
		if got, err := restore.ParseFrom(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}
