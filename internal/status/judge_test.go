package status_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/status"
)

var now = time.Date(2026, 11, 22, 9, 15, 0, 0, time.UTC)

func claim(name string, notes ...string) catalog.Claim {
	c := catalog.Claim{Namespace: "shop", Name: name, UID: "uid-" + name, Phase: "Bound", Driver: "csi", Capacity: 1 << 30, Annotations: map[string]string{}}
	for i := 0; i+1 < len(notes); i += 2 {
		c.Annotations[notes[i]] = notes[i+1]
	}
	return c
}

func pod(owner, name string, claims ...string) catalog.Pod {
	p := catalog.Pod{Namespace: "shop", Name: name, Phase: "Running", Owner: catalog.Workload{Kind: "statefulset", Name: owner}, Containers: []catalog.Container{{}}}
	for _, c := range claims {
		p.Containers[0].Mounts = append(p.Containers[0].Mounts, catalog.Mount{Claim: c})
	}
	return p
}

// shot is a good snapshot of that claim, so long before now.
func shot(name string, ago time.Duration, change ...func(*catalog.Snapshot)) catalog.Snapshot {
	cut := now.Add(-ago)
	run := catalog.Run(cut.Format("20060102-150405") + "-aaaa")
	s := catalog.Snapshot{
		Namespace: "shop", Name: name + "-" + string(run), Claim: name, Run: run, Created: cut, Cut: cut, Ready: true, Consistency: catalog.Application,
		Record: &catalog.Record{Version: 1, Run: run, App: "statefulset/" + name, Members: []string{name}, Cut: cut, Claim: catalog.ClaimRecord{Name: name, UID: "uid-" + name}},
	}
	for _, do := range change {
		do(&s)
	}
	return s
}

func copied(s *catalog.Snapshot) { s.Copies = []catalog.Copy{{Repository: "main"}} }
func proven(s *catalog.Snapshot) {
	s.Proof = &catalog.Proof{Level: "drill", At: s.Cut.Add(time.Hour)}
}
func failed(s *catalog.Snapshot) {
	s.Record, s.Consistency, s.Ready, s.Cut, s.Err = nil, "", false, time.Time{}, "dump exited 2"
}

func TestEachClaimIsJudged(t *testing.T) {
	const h = time.Hour
	for _, c := range []struct {
		name    string
		claim   catalog.Claim
		shots   []catalog.Snapshot
		require status.Level
		want    string
	}{
		{name: "a copy within the goal is all that is wished for", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 8*h, copied)}, want: "ok"},
		{name: "without a copy it lies in the cluster only", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 8*h)}, want: "WARN no off-site copy"},
		{name: "where no copies are wanted none is missed", claim: claim("data", catalog.AnnotationRepository, "none"), shots: []catalog.Snapshot{shot("data", 8*h)}, want: "ok"},
		{name: "a copy that is required and missing is late", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 8*h)}, require: status.Offsite, want: "LATE no off-site copy"},
		{name: "an old copy is late too", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 48*h, copied), shot("data", 8*h)}, require: status.Offsite, want: "LATE off-site copy is late"},
		{name: "a partial copy is none", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 8*h, func(s *catalog.Snapshot) { s.Copies = []catalog.Copy{{Repository: "main", Partial: true}} })}, want: "WARN no off-site copy"},
		{name: "a proof that is required and missing is late", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 8*h, copied)}, require: status.Proven, want: "LATE no restore was ever tried"},
		{name: "the proof of an older one will do", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 48*h, proven), shot("data", 8*h, copied)}, require: status.Proven, want: "ok"},
		{name: "one that is too old is late", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 25*h, copied)}, want: "LATE nothing taken since"},
		{name: "and tells why the last try failed", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 25*h, copied), shot("data", h, failed)}, want: "LATE dump exited 2"},
		{name: "a failure within the goal is a warning", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 8*h, copied), shot("data", h, failed)}, want: "WARN last run failed: dump exited 2"},
		{name: "a failure before the last good one is forgotten", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 9*h, failed), shot("data", 8*h, copied)}, want: "ok"},
		{name: "the claim's own goal goes before", claim: claim("data", catalog.AnnotationMaxAge, "2d"), shots: []catalog.Snapshot{shot("data", 25*h, copied)}, want: "ok"},
		{name: "a goal of none is never late", claim: claim("data", catalog.AnnotationMaxAge, "none"), shots: []catalog.Snapshot{shot("data", 2500*h, copied)}, want: "ok"},
		{name: "a goal that cannot be read is told", claim: claim("data", catalog.AnnotationMaxAge, "soon"), shots: []catalog.Snapshot{shot("data", h, copied)}, want: `WARN annotation backsnap.sh/max-age: age "soon": want the form 24h, 7d, 2w or none`},
		{name: "nothing at all is none", claim: claim("data"), want: "NONE no restore point"},
		{name: "only failures are none", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, failed)}, want: "NONE never taken: dump exited 2"},
		{name: "one that is not ready does not count", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, func(s *catalog.Snapshot) { s.Ready = false })}, want: "NONE no restore point: data is not ready"},
		{name: "a safety snapshot does not count", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, func(s *catalog.Snapshot) { s.Role = catalog.RoleSafety })}, want: "NONE no restore point"},
		{name: "part of a set does not count", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, func(s *catalog.Snapshot) { s.Record.Members = []string{"data", "gone"} })}, want: "NONE no restore point"},
		{name: "another claim had its name", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, copied, func(s *catalog.Snapshot) { s.Record.Claim.UID = "before" })}, want: "WARN taken of the claim that had its name before"},
		{name: "no CSI volume", claim: catalog.Claim{Namespace: "shop", Name: "data", Phase: "Bound"}, want: "NONE its volume is no CSI volume"},
		{name: "what waits for its first pod holds nothing yet", claim: catalog.Claim{Namespace: "shop", Name: "data", Phase: "Pending"}, want: "WARN it is Pending, not bound to a volume"},
		{name: "a volume that is lost is none", claim: catalog.Claim{Namespace: "shop", Name: "data", Phase: "Lost"}, want: "NONE it is Lost, not bound to a volume"},
		{name: "a restore into it that has not ended", claim: claim("data", catalog.AnnotationRefill, "{}"), shots: []catalog.Snapshot{shot("data", h, copied)}, want: "WARN run (not known) was restoring into it and has not ended: it may hold parts of two states"},
		{name: "left out", claim: claim("data", catalog.AnnotationSchedule, ""), want: "out left out by annotation backsnap.sh/schedule"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := status.Request{MaxAge: 24 * h, Require: c.require, Now: now}
			report := status.Judge(r, catalog.Inventory{Claims: []catalog.Claim{c.claim}}, c.shots, nil)
			if len(report.Apps) != 1 {
				t.Fatalf("%d apps, want 1", len(report.Apps))
			}
			if got := strings.TrimSpace(string(report.Apps[0].State) + " " + report.Apps[0].Reason); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAnAppIsAsWellOffAsItsWorstVolume(t *testing.T) {
	inv := catalog.Inventory{
		Claims: []catalog.Claim{claim("a"), claim("b"), claim("c"), claim("lone"), claim("rested"), claim("skip", catalog.AnnotationSchedule, ""),
			{Namespace: "shop", Name: "clone", Role: catalog.RoleClone, Phase: "Bound"}},
		Pods: []catalog.Pod{pod("db", "db-0", "a", "b"), pod("web", "web-0", "b", "c"), pod("old", "old-0", "skip")},
	}
	shots := []catalog.Snapshot{shot("a", time.Hour, copied), shot("b", 30*time.Hour, copied), shot("c", 2*time.Hour, copied), shot("rested", time.Hour, copied)}
	report := status.Judge(status.Request{MaxAge: 24 * time.Hour, Now: now}, inv, shots, nil)
	var got []string
	for _, a := range report.Apps {
		got = append(got, fmt.Sprintf("%s %s %d %q", a.State, a.Name, len(a.Volumes), a.Reason))
	}
	want := []string{
		`NONE pvc/lone 1 "no restore point"`,
		`LATE statefulset/db+statefulset/web 3 "b: nothing taken since"`,
		`ok statefulset/rested 1 ""`,
		`out statefulset/old 1 "left out by annotation backsnap.sh/schedule"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if age := now.Sub(report.Apps[1].LastGood); age != 30*time.Hour {
		t.Errorf("the app's last good is %v old, want that of its worst volume", age)
	}
	if report.Unprotected() != 2 || report.Volumes() != 6 {
		t.Errorf("%d of %d volumes unprotected, want 2 of 6", report.Unprotected(), report.Volumes())
	}
}

// The command of a row does something about its reason, and names what is there.
func TestEachReasonHasItsCommand(t *testing.T) {
	const h = time.Hour
	run := func(ago time.Duration) string { return string(shot("data", ago).Run) }
	byOperator := pod("pg", "pg-1", "data")
	byOperator.Owner.Kind = "cluster"
	for _, c := range []struct {
		name    string
		claim   catalog.Claim
		pods    []catalog.Pod
		shots   []catalog.Snapshot
		require status.Level
		want    string
	}{
		{name: "all is well", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, copied)}, want: ""},
		{name: "left out", claim: claim("data", catalog.AnnotationSchedule, ""), want: ""},
		{name: "take it, by its workload", claim: claim("data"), pods: []catalog.Pod{pod("db", "db-0", "data")}, want: "kubectl backsnap snapshot statefulset/db -n shop"},
		{name: "by all that mount it", claim: claim("data"), pods: []catalog.Pod{pod("db", "db-0", "data"), pod("app", "app-0", "data")}, want: "kubectl backsnap snapshot statefulset/app statefulset/db -n shop"},
		{name: "by the claim, where none mounts it", claim: claim("data"), want: "kubectl backsnap snapshot data -n shop"},
		{name: "where its app is scaled to zero", claim: claim("data"), shots: []catalog.Snapshot{shot("data", 48*h)}, want: "kubectl backsnap snapshot data -n shop"},
		{name: "and where the command line has no TYPE for what mounts it", claim: claim("data"), pods: []catalog.Pod{byOperator}, want: "kubectl backsnap snapshot data -n shop"},
		{name: "see why it failed", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, failed)}, want: "kubectl backsnap logs run/" + run(h) + " -n shop"},
		{name: "copy the last one", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h)}, want: "kubectl backsnap copy run/" + run(h) + " -n shop"},
		{name: "that of backup-ns has no run", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, func(s *catalog.Snapshot) { s.BackupNS, s.Run, s.Record, s.Name = true, "", nil, "data-old" })}, want: "kubectl backsnap copy vs/data-old -n shop"},
		{name: "see what was proven", claim: claim("data"), shots: []catalog.Snapshot{shot("data", h, copied)}, require: status.Proven, want: "kubectl backsnap describe vs/data-" + run(h) + " -n shop"},
		{name: "leave out what cannot be taken", claim: catalog.Claim{Namespace: "shop", Name: "data", Phase: "Bound"}, want: "kubectl annotate pvc data -n shop backsnap.sh/schedule="},
		{name: "see why it is not bound", claim: catalog.Claim{Namespace: "shop", Name: "data", Phase: "Lost"}, want: "kubectl describe pvc data -n shop"},
		{name: "mend a goal", claim: claim("data", catalog.AnnotationMaxAge, "soon"), shots: []catalog.Snapshot{shot("data", h, copied)}, want: "kubectl annotate --overwrite pvc data -n shop backsnap.sh/max-age=24h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := status.Request{MaxAge: 24 * h, Require: c.require, Now: now}
			report := status.Judge(r, catalog.Inventory{Claims: []catalog.Claim{c.claim}, Pods: c.pods}, c.shots, nil)
			if got := report.Apps[0]; got.Do != c.want || got.Volumes[0].Do != c.want {
				t.Errorf("got  %q and %q\nwant %q", got.Do, got.Volumes[0].Do, c.want)
			}
		})
	}
}

// Two apps of one run fail, each for its own reason; of what is late the oldest
// comes first.
func TestTheReasonIsTheClaimsOwn(t *testing.T) {
	inv := catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b"), claim("c")}}
	because := func(text string) func(*catalog.Snapshot) {
		return func(s *catalog.Snapshot) { failed(s); s.Err = text }
	}
	shots := []catalog.Snapshot{
		shot("a", 30*time.Hour, copied), shot("b", 40*time.Hour, copied), shot("c", 35*time.Hour, copied),
		shot("a", time.Hour, because("the array is full")), shot("b", time.Hour, because("quota")),
	}
	report := status.Judge(status.Request{MaxAge: 24 * time.Hour, Now: now}, inv, shots, nil)
	var got []string
	for _, a := range report.Apps {
		got = append(got, a.Name+": "+a.Reason)
	}
	want := []string{"statefulset/b: quota", "statefulset/c: nothing taken since", "statefulset/a: the array is full"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhatIsAtWorkIsNoFailure(t *testing.T) {
	inv := catalog.Inventory{Claims: []catalog.Claim{claim("data")}}
	alive := func(catalog.Run) bool { return true }
	report := status.Judge(status.Request{Now: now}, inv, []catalog.Snapshot{shot("data", time.Hour, copied), shot("data", time.Minute, failed)}, alive)
	if got := report.Apps[0].State; got != status.OK {
		t.Errorf("state %s, want ok", got)
	}
}

func TestCalendar(t *testing.T) {
	const day = 24 * time.Hour
	weekly := func(s *catalog.Snapshot) { s.Periods = map[catalog.Period]string{catalog.Weekly: "x"} }
	monthly := func(s *catalog.Snapshot) { s.Periods = map[catalog.Period]string{catalog.Monthly: "x"} }
	crash := func(s *catalog.Snapshot) { s.Consistency = catalog.Crash }
	report := status.Judge(status.Request{Now: now}, catalog.Inventory{Claims: []catalog.Claim{claim("data")}}, []catalog.Snapshot{
		shot("data", 0, copied), shot("data", day), shot("data", 2*day, crash), shot("data", 3*day, failed),
		shot("data", 7*day, copied, weekly), shot("data", 38*day, copied, monthly), shot("data", 200*day, copied),
	}, nil)
	c := report.Apps[0].Calendar(time.UTC, now)
	var days []byte
	for _, g := range c.Days {
		days = append(days, byte(g))
	}
	week := func(n int) string { return string(days[7*n : 7*n+7]) }
	if week(11) != "...xo+#" || week(10) != "......W" || week(6) != "...M..." || week(5) != "......." {
		t.Errorf("last weeks %q %q, one before %q", week(11), week(10), week(6))
	}
	if c.Points != 6 || c.Copied != 4 || c.Oldest.Format(time.DateOnly) != "2026-05-06" || c.Monday.Format(time.DateOnly) != "2026-08-31" || c.Recent != 23*day {
		t.Errorf("%d points, %d copied, oldest %v, from %v, longest gap of the last 30 days %v", c.Points, c.Copied, c.Oldest, c.Monday, c.Recent)
	}
	months, weeks := c.Header()
	if strings.Join(months[:], ",") != "Sep,,,,Oct,,,,Nov,,," || weeks[0] != "w36" || weeks[11] != "w47" {
		t.Errorf("header %q, %q", months, weeks)
	}
}

// fake is a cluster that answers, or not.
type fake struct {
	inventory catalog.Inventory
	err       error
	holdings  error
}

func (f fake) Inventory(context.Context, catalog.Scope) (catalog.Inventory, error) {
	return f.inventory, nil
}
func (f fake) Snapshots(context.Context, catalog.Scope) ([]catalog.Snapshot, error) {
	return []catalog.Snapshot{shot("data", time.Minute, failed)}, f.err
}
func (f fake) Holdings(context.Context, catalog.Scope) ([]catalog.Holding, error) {
	return nil, f.holdings
}

func TestMake(t *testing.T) {
	broken := errors.New("broken")
	inventory := catalog.Inventory{Claims: []catalog.Claim{claim("data")}}
	if _, err := status.Make(t.Context(), fake{err: broken}, status.Request{Now: now}); !errors.Is(err, broken) {
		t.Errorf("a listing that fails: %v", err)
	}
	report, err := status.Make(t.Context(), fake{inventory: inventory, holdings: &catalog.Failure{Code: catalog.CodeForbidden}}, status.Request{Now: now})
	if err != nil || report.Apps[0].Reason != "no restore point: dump exited 2" {
		t.Errorf("who may not see the Leases takes runs for alive: %v, %+v", err, report.Apps)
	}
}

func BenchmarkJudge(b *testing.B) {
	var inv catalog.Inventory
	var shots []catalog.Snapshot
	for n := range 500 {
		namespace := fmt.Sprintf("ns-%03d", n)
		for i := range 10 {
			name := fmt.Sprintf("data-%d", i)
			c, p := claim(name), pod("db-"+name, "pod-"+name, name)
			c.Namespace, p.Namespace = namespace, namespace
			inv.Claims, inv.Pods = append(inv.Claims, c), append(inv.Pods, p)
			for day := range 4 {
				s := shot(name, time.Duration(day)*24*time.Hour, copied)
				s.Namespace = namespace
				shots = append(shots, s)
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if report := status.Judge(status.Request{MaxAge: 24 * time.Hour, Now: now}, inv, shots, nil); len(report.Apps) != 5000 {
			b.Fatal(len(report.Apps))
		}
	}
}
