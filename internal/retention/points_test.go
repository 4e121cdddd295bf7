package retention_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

const run = catalog.Run("20261122-011500-x7k2")

// snapshot is a ready one of claim, whose set is data and wal.
func snapshot(claim string, changes ...func(*catalog.Snapshot)) catalog.Snapshot {
	s := catalog.Snapshot{
		Namespace: "shop", Name: claim + "-" + string(run), Claim: claim, Run: run, Consistency: catalog.Application, Retain: "calendar",
		Periods: map[catalog.Period]string{catalog.Daily: "2026-11-22"}, Cut: now.Add(-8 * time.Hour), Ready: true,
		Record: &catalog.Record{
			Version: 1, Run: run, App: "statefulset/mysql", Members: []string{"data", "wal"}, Claim: catalog.ClaimRecord{Name: claim, UID: "uid-" + claim},
			TimeZone: "Europe/Berlin", Consistency: catalog.Application, Cut: now.Add(-8 * time.Hour),
		},
	}
	for _, change := range changes {
		change(&s)
	}
	return s
}

func unfinished(s *catalog.Snapshot) {
	s.Record, s.Consistency, s.Periods, s.Retain, s.Ready = nil, "", nil, "", false
}

func TestPoints(t *testing.T) {
	berlin, vienna := mustZone("Europe/Berlin"), mustZone("Europe/Vienna")
	later := func(s *catalog.Snapshot) {
		s.Record.Cut = s.Record.Cut.Add(time.Second)
	}
	member := func(claim string) retention.Member {
		return retention.Member{Name: claim + "-" + string(run), Claim: claim, UID: "uid-" + claim, Retain: "calendar", Periods: map[catalog.Period]string{catalog.Daily: "2026-11-22"}}
	}
	set := retention.Point{
		Namespace: "shop", Name: string(run), App: "statefulset/mysql", Zone: berlin, State: retention.Good, Consistency: catalog.Application,
		Cut: now.Add(-8 * time.Hour), Members: []retention.Member{member("data"), member("wal")},
	}
	as := func(p retention.Point, change func(*retention.Point)) []retention.Point {
		p.Members = append([]retention.Member(nil), p.Members...)
		change(&p)
		return []retention.Point{p}
	}
	broken := retention.Point{Namespace: "shop", Name: string(run), Zone: vienna, Members: []retention.Member{{Name: "data-" + string(run), Claim: "data"}, {Name: "wal-" + string(run), Claim: "wal"}}, Cut: now.Add(-8 * time.Hour)}
	for _, c := range []struct {
		name      string
		snapshots []catalog.Snapshot
		options   retention.Options
		want      []retention.Point
	}{
		{
			name: "a set is one point, cut when the last of it was", snapshots: []catalog.Snapshot{snapshot("wal", later), snapshot("data")},
			want: as(set, func(p *retention.Point) { p.Cut = p.Cut.Add(time.Second) }),
		},
		{
			name: "in the zone that was asked for", snapshots: []catalog.Snapshot{snapshot("wal"), snapshot("data")}, options: retention.Options{Zone: time.UTC, Local: vienna},
			want: as(set, func(p *retention.Point) { p.Zone = time.UTC }),
		},
		{
			name:      "in the run's own where the record's is not known",
			snapshots: []catalog.Snapshot{snapshot("wal", func(s *catalog.Snapshot) { s.Record.TimeZone = "Moon/Tycho" }), snapshot("data", func(s *catalog.Snapshot) { s.Record.TimeZone = "Moon/Tycho" })},
			options:   retention.Options{Local: vienna},
			want:      as(set, func(p *retention.Point) { p.Zone = vienna }),
		},
		{
			name: "labels are each member's",
			snapshots: []catalog.Snapshot{
				snapshot("wal", func(s *catalog.Snapshot) { s.Pinned, s.DeleteAfter, s.Marked = true, "20261123T092000Z", now }),
				snapshot("data", func(s *catalog.Snapshot) {
					s.Retain = "copied"
					s.Record.Wanted = []string{"main", "second"}
					s.Copies = []catalog.Copy{{Repository: "main", Snapshot: "1"}}
				}),
			},
			want: as(set, func(p *retention.Point) {
				p.Members[0].Retain, p.Members[0].Missing = "copied", []string{"second"}
				p.Members[1].Pinned, p.Members[1].DeleteAfter, p.Members[1].Marked = true, "20261123T092000Z", now
			}),
		},
		{
			name: "one that is gone, or going, breaks the set", snapshots: []catalog.Snapshot{snapshot("data"), snapshot("wal", func(s *catalog.Snapshot) { s.Terminating = true })},
			want: as(set, func(p *retention.Point) {
				p.State, p.Because, p.Members = retention.Partial, "wal gone", p.Members[:1]
			}),
		},
		{
			name:      "a set that goes as a whole",
			snapshots: []catalog.Snapshot{snapshot("data", func(s *catalog.Snapshot) { s.Terminating = true }), snapshot("wal", func(s *catalog.Snapshot) { s.Terminating = true })},
			want:      as(set, func(p *retention.Point) { p.State, p.Because = retention.Unready, "it is being deleted" }),
		},
		{
			name: "one that is not ready any more", snapshots: []catalog.Snapshot{snapshot("data"), snapshot("wal", func(s *catalog.Snapshot) { s.Ready = false })},
			want: as(set, func(p *retention.Point) { p.State, p.Because = retention.Unready, "wal is not ready" }),
		},
		{
			name: "of a run that is at work", snapshots: []catalog.Snapshot{snapshot("data", unfinished), snapshot("wal", unfinished)},
			options: retention.Options{Local: vienna, Alive: func(r catalog.Run) bool { return r == run }},
			want:    as(broken, func(p *retention.Point) { p.State, p.Because = retention.Unready, "run "+string(run)+" is at work" }),
		},
		{
			name: "of a run that is dead", snapshots: []catalog.Snapshot{snapshot("data", unfinished), snapshot("wal", unfinished, func(s *catalog.Snapshot) { s.Err = "no space" })},
			options: retention.Options{Local: vienna},
			want:    as(broken, func(p *retention.Point) { p.State, p.Because = retention.Failed, "it never became a restore point" }),
		},
		{
			name: "with a record of a newer version", snapshots: []catalog.Snapshot{snapshot("data", func(s *catalog.Snapshot) { s.Record = nil })}, options: retention.Options{Local: vienna},
			want: as(set, func(p *retention.Point) {
				p.State, p.Because = retention.Foreign, "its record cannot be read, or it has none"
				p.Name, p.App, p.Zone, p.Members = "data-"+string(run), "", vienna, p.Members[:1]
				p.Members[0].UID = ""
			}),
		},
		{
			name: "a safety snapshot is a point, what else has a role is none",
			snapshots: []catalog.Snapshot{
				snapshot("data", func(s *catalog.Snapshot) { s.Role = catalog.RoleStatic }),
				snapshot("data", func(s *catalog.Snapshot) { s.Role = catalog.RoleClone }),
				snapshot("data", func(s *catalog.Snapshot) { s.Role = catalog.RoleSafety }),
			},
			want: as(set, func(p *retention.Point) {
				p.State, p.Because, p.Members = retention.Safety, "taken before a restore in place", p.Members[:1]
			}),
		},
		{
			name: "copies", snapshots: []catalog.Snapshot{snapshot("data", func(s *catalog.Snapshot) { s.CopyOnly, s.Ready = true, false }), snapshot("wal", func(s *catalog.Snapshot) {
				s.CopyOnly, s.Ready = true, false
				s.Copies = []catalog.Copy{{Partial: true}}
			})},
			want: as(set, func(p *retention.Point) { p.State, p.Because = retention.Partial, "wal: files are not in the copy" }),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := retention.Points(c.snapshots, c.options)
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })); diff != "" {
				t.Errorf("points (-want +got):\n%s", diff)
			}
		})
	}
}
