package snapshot_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

// mysqlShop is one app: a MySQL server with its data in data and a second
// volume, and the cluster it runs in.
func mysqlShop() (catalog.Inventory, *fake) {
	inv := catalog.Inventory{
		Claims:  []catalog.Claim{claim("binlog"), claim("data")},
		Pods:    []catalog.Pod{pod("mysql-0", "statefulset/mysql", "mysql:8.4", "data", "binlog")},
		Classes: classes,
	}
	return inv, newFake(map[string]*server{"mysql-0": {mount: "/data"}})
}

// mysqlAlone is one app with one volume.
func mysqlAlone() (catalog.Inventory, *fake) {
	inv, f := mysqlShop()
	inv.Claims = inv.Claims[1:]
	return inv, f
}

// take plans and runs.
func take(t *testing.T, ctx context.Context, f *fake, r snapshot.Request, inv catalog.Inventory) (snapshot.Result, *seen) {
	t.Helper()
	plan, err := snapshot.MakePlan(r, inv)
	if err != nil {
		t.Fatal(err)
	}
	w := &seen{}
	t.Cleanup(f.storing.Wait)
	return snapshot.Run(ctx, f, func() time.Time { return time.Now().UTC() }, plan, w), w
}

// short is an item in one line: claim, outcome, consistency, code and reason.
func short(i snapshot.Item) string {
	words := []string{i.Claim, string(i.Outcome)}
	if i.Snapshot != nil {
		words = append(words, string(i.Snapshot.Consistency))
		if i.Snapshot.Record != nil {
			words = append(words, "("+i.Snapshot.Record.Reason+")")
		}
	}
	if i.Err != nil {
		words = append(words, string(catalog.CodeOf(i.Err)))
	}
	if i.Reason != "" {
		words = append(words, i.Reason)
	}
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
}

func shorts(r snapshot.Result) []string {
	var lines []string
	for _, i := range r.Items {
		lines = append(lines, short(i))
	}
	return lines
}

// left are the names of the snapshots that stand, sorted.
func (f *fake) left() []string {
	names := []string{}
	for _, s := range f.in("shop") {
		names = append(names, s.Name)
	}
	return names
}

func clock(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return moment
}

// The whole way of one app, every value of it. The clock of a synctest bubble
// begins at midnight of 2000-01-01; half an hour before the next midnight it
// is the day after in Berlin.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlShop()
		f.servers["mysql-0"].takes = 41 * time.Second
		inv.Claims[0].NodeAffinity = []byte(`{"required":{}}`)
		inv.Claims = append(inv.Claims, claim("tmp", noted("schedule", "")), claim("local", driver("")))
		time.Sleep(23*time.Hour + 30*time.Minute)
		result, _ := take(t, t.Context(), f, request(func(r *snapshot.Request) {
			r.Zone, r.Retain = berlin(t), catalog.Retain{Calendar: true}
		}), inv)

		record := catalog.Record{
			Version: 1, Run: run, App: "statefulset/mysql", Members: []string{"binlog", "data"},
			Claim: catalog.ClaimRecord{
				Name: "data", UID: "uid-of-data", Request: 10 << 30, Capacity: 10 << 30, StorageClass: "fast", Driver: "csi.example.com",
				AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem", FileSystem: "ext4",
			},
			SnapshotClass: "snap", RestoreSize: 10 << 30, TimeZone: "Europe/Berlin",
			Consistency: catalog.Application, Reason: "proven dump of mysql in data", Plugin: "mysql", Mode: "dump", Pod: "mysql-0", Container: "main",
			Tool: "mysqldump 8.4.3", Server: "mysql 8.4.3", Position: "binlog.000042:157", Barrier: "FLUSH BINARY LOGS",
			Dumps: []catalog.Dump{
				{What: "users", Path: "sub/.backsnap-1.dump", Bytes: 700, SHA256: sha},
				{What: "database shop", Path: "sub/.backsnap-2.dump", Bytes: 300, SHA256: sha},
			},
			Requested: clock(t, "2000-01-01T23:30:41Z"), Cut: clock(t, "2000-01-01T23:30:42.123456789Z"),
			Ready: clock(t, "2000-01-01T23:30:46Z"), DumpBegan: clock(t, "2000-01-01T23:30:00Z"), Dumped: clock(t, "2000-01-01T23:30:41Z"),
		}
		data := catalog.Snapshot{
			Namespace: "shop", Name: "data-20261122-011500-x7k2", UID: "uid-data", Claim: "data", Run: run, Consistency: catalog.Application, Retain: "calendar",
			Periods: map[catalog.Period]string{"hourly": "2000-01-01T23Z", "daily": "2000-01-02", "weekly": "1999-w52", "monthly": "2000-01", "yearly": "2000"},
			Created: clock(t, "2000-01-01T23:30:41Z"), Cut: clock(t, "2000-01-01T23:30:42.123456789Z"), Ready: true, Class: "snap", Content: "content-data",
			Driver: "csi.example.com", Handle: "handle-data", RestoreSize: 10 << 30, Record: &record,
		}
		binlog, binlogRecord := data, record
		binlog.Name, binlog.UID, binlog.Claim, binlog.Content, binlog.Handle = "binlog-20261122-011500-x7k2", "uid-binlog", "binlog", "content-binlog", "handle-binlog"
		binlogRecord.Claim.Name, binlogRecord.Claim.UID, binlogRecord.Claim.NodeAffinity = "binlog", "uid-of-binlog", []byte(`{"required":{}}`)
		binlogRecord.Dumps = nil
		binlog.Record = &binlogRecord

		skipped := &catalog.Failure{
			Code: catalog.CodeUnsupported, Message: "shop/local skipped: its volume pv-local is no CSI volume: it cannot be snapshotted", State: "no snapshot of it was taken",
			Next: "move it to a StorageClass with a CSI driver, or exclude it: kubectl annotate pvc local -n shop backsnap.sh/schedule=",
		}
		want := snapshot.Result{Run: run, Items: []snapshot.Item{
			{Namespace: "shop", App: "statefulset/mysql", Claim: "binlog", Outcome: snapshot.Protected, Snapshot: &binlog},
			{Namespace: "shop", App: "statefulset/mysql", Claim: "data", Outcome: snapshot.Protected, Snapshot: &data},
			{Namespace: "shop", Claim: "local", Outcome: snapshot.Skipped, Reason: "its volume pv-local is no CSI volume: it cannot be snapshotted", Err: skipped},
			{Namespace: "shop", Claim: "tmp", Outcome: snapshot.Skipped, Reason: "excluded by annotation backsnap.sh/schedule", Wanted: true},
		}}
		if diff := cmp.Diff(want, result); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]catalog.Snapshot{binlog, data}, f.in("shop")); diff != "" {
			t.Errorf("in the cluster (-want +got):\n%s", diff)
		}
		s := f.servers["mysql-0"]
		if s.clientGone || !s.inputClosed {
			t.Errorf("standard input of the dump must stay open until it has ended, and be closed then: %+v", s)
		}
		if want := "20261122-011500-x7k2 1800 yes"; s.asked != want {
			t.Errorf("the dump was asked for %q, want %q: run, seconds, barrier", s.asked, want)
		}
	})
}

// Who watches sees each step, in order.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlAlone()
		f.servers["mysql-0"].takes = 41 * time.Second
		_, w := take(t, t.Context(), f, request(), inv)
		e := func(clockTime string, phase catalog.Phase, state catalog.State, more func(*catalog.Event)) catalog.Event {
			e := catalog.Event{Time: clock(t, "2000-01-01T"+clockTime+"Z"), Run: run, Phase: phase, State: state, Namespace: "shop", App: "statefulset/mysql"}
			more(&e)
			return e
		}
		const name = "data-20261122-011500-x7k2"
		want := []catalog.Event{
			e("00:00:00", "probe", "warning", func(e *catalog.Event) { e.Pod, e.Message = "mysql-0", "the clock is slow" }),
			e("00:00:00", "dump", "started", func(e *catalog.Event) { e.Pod, e.Tool = "mysql-0", "mysqldump" }),
			e("00:00:41", "dump", "ok", func(e *catalog.Event) { e.Pod, e.Tool, e.Bytes, e.Took = "mysql-0", "mysqldump", 1000, 41*time.Second }),
			e("00:00:41", "barrier", "ok", func(e *catalog.Event) { e.Pod, e.Message = "mysql-0", "FLUSH BINARY LOGS" }),
			e("00:00:41", "dump", "warning", func(e *catalog.Event) { e.Pod, e.Message = "mysql-0", "a table is not InnoDB" }),
			e("00:00:41", "dump", "warning", func(e *catalog.Event) { e.Pod, e.Message = "mysql-0", "slow disk" }),
			e("00:00:41", "snapshot", "started", func(e *catalog.Event) { e.Claim, e.Name = "data", name }),
			e("00:00:42", "snapshot", "cut", func(e *catalog.Event) { e.Claim, e.Name, e.Took = "data", name, time.Second }),
			e("00:00:46", "snapshot", "ok", func(e *catalog.Event) { e.Claim, e.Name, e.Took = "data", name, 5*time.Second }),
		}
		if diff := cmp.Diff(want, w.events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		wantCalls := []string{
			"exec probe in pod shop/mysql-0, container main", "exec dump in pod shop/mysql-0, container main",
			"create shop/" + name + " of data, class snap", "label shop/" + name,
		}
		if diff := cmp.Diff(wantCalls, f.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}

// What is asked for carries its day of removal from the first moment, but
// nothing that it has not earned yet.
func TestEachStepIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlShop()
		f.slow = "data"
		_, w := take(t, t.Context(), f, request(), inv)
		told := map[string]int{}
		for _, e := range w.events {
			if e.Phase == catalog.PhaseSnapshot {
				told[e.Claim+" "+string(e.State)]++
			}
		}
		want := map[string]int{"binlog started": 1, "binlog cut": 1, "binlog ok": 1, "data started": 1, "data cut": 1, "data ok": 1}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestFailuresAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		break_ func(*fake)
		want   []string
	}{
		"probe":    {func(f *fake) { f.servers["mysql-0"].probeFails = "starting not yet" }, []string{"probe  not yet"}},
		"dump":     {func(f *fake) { f.servers["mysql-0"].dumpFails = "dump exit 2" }, []string{"dump mysql-0 exit 2"}},
		"create":   {func(f *fake) { f.failCreate = "data" }, []string{"snapshot binlog broken", "snapshot data broken"}},
		"time-out": {func(f *fake) { f.never = "data" }, []string{"snapshot binlog not in time", "snapshot data not in time"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv, f := mysqlShop()
				c.break_(f)
				_, w := take(t, t.Context(), f, request(), inv)
				var told []string
				for _, e := range w.events {
					if e.State == catalog.Failed {
						told = append(told, string(e.Phase)+" "+e.Claim+e.Pod+" "+e.Message)
					}
				}
				if diff := cmp.Diff(c.want, told); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestUnfinishedSnapshotsClaimNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlAlone()
		f.never = "data"
		take(t, t.Context(), f, request(func(r *snapshot.Request) { r.Pin = true; r.Timeout = time.Minute }), inv)
		want := []catalog.Snapshot{{
			Namespace: "shop", Name: "data-20261122-011500-x7k2", UID: "uid-data", Claim: "data", Run: run, Retain: "days", DeleteAfter: "2000-01-31", Pinned: true,
			Class: "snap", Created: clock(t, "2000-01-01T00:00:00Z"), Cut: clock(t, "2000-01-01T00:00:01Z"),
		}}
		if diff := cmp.Diff(want, f.in("shop")); diff != "" {
			t.Errorf("in the cluster (-want +got):\n%s", diff)
		}
	})
}

// A dump that fails, in any way, gives a snapshot that does not call itself
// consistent, or none at all where consistency was demanded.
func TestFailedDump(t *testing.T) {
	for _, c := range []struct {
		name   string
		break_ func(*fake)
		code   catalog.Code
		cause  string
	}{
		{"the server is starting", func(f *fake) { f.servers["mysql-0"].probeFails = "starting the server is starting up" }, catalog.CodeHook, "the server is starting up"},
		{"the wrong plugin", func(f *fake) { f.servers["mysql-0"].probeFails = "no-server no mysqld runs here" }, catalog.CodeNoPlugin, "no mysqld runs here"},
		{"no room, known before", func(f *fake) { f.servers["mysql-0"].probeFails = "nospace 1 MiB free of 2 needed" }, catalog.CodeSpace, "1 MiB free of 2 needed"},
		{"no inode", func(f *fake) { f.servers["mysql-0"].probeFails = "noinodes none free" }, catalog.CodeSpace, "none free"},
		{"no login", func(f *fake) { f.servers["mysql-0"].probeFails = "login access denied" }, catalog.CodeDump, "access denied"},
		{"no tool", func(f *fake) { f.servers["mysql-0"].probeFails = "no-tool mysqldump is missing" }, catalog.CodeHook, "mysqldump is missing"},
		{"a kind that nobody knows", func(f *fake) { f.servers["mysql-0"].probeFails = "sunspots today" }, catalog.CodeDump, "the script ended with status 1: sunspots today"},
		{"the probe's stream is cut", func(f *fake) { f.servers["mysql-0"].cut = "probe" }, catalog.CodeTruncated, "the output of the script is not whole: it has no end line"},
		{"the pod cannot be reached", func(f *fake) { delete(f.servers, "mysql-0") }, catalog.CodeTruncated,
			"the output of the script is not whole: it has no end line: pod shop/mysql-0, container main: no such pod"},
		{"the dump fails, its tool says why", func(f *fake) {
			f.servers["mysql-0"].dumpFails = "dump mysqldump exited with 2"
			f.servers["mysql-0"].stderr = "one\ntwo\n\nmysqldump: Got error: 1045\nthree\n"
		}, catalog.CodeDump, "mysqldump exited with 2: two | mysqldump: Got error: 1045 | three"},
		{"what the tool says is in the message already", func(f *fake) {
			f.servers["mysql-0"].dumpFails = "dump mysqldump: Got error: 1045"
			f.servers["mysql-0"].stderr = "mysqldump: Got error: 1045\n"
		}, catalog.CodeDump, "mysqldump: Got error: 1045"},
		{"the dump cannot be proven", func(f *fake) { f.servers["mysql-0"].dumpFails = "verify no trailer" }, catalog.CodeTruncated, "no trailer"},
		{"the dump is empty", func(f *fake) { f.servers["mysql-0"].dumpFails = "empty no database" }, catalog.CodeTruncated, "no database"},
		{"it filled the volume", func(f *fake) { f.servers["mysql-0"].dumpFails = "nospace it would fill the volume" }, catalog.CodeSpace, "it would fill the volume"},
		{"it was stopped", func(f *fake) { f.servers["mysql-0"].dumpFails = "stopped TERM" }, catalog.CodeTruncated, "TERM"},
		{"the dump's stream is cut, without an error", func(f *fake) { f.servers["mysql-0"].cut = "dump" }, catalog.CodeTruncated, "the output of the script is not whole: it has no end line"},
		{"its end is there but not its middle", func(f *fake) { f.servers["mysql-0"].garbled = true }, catalog.CodeTruncated, "the output of the script is not whole: line 16 is not the script's"},
		{"its end says that all is well, the exec does not", func(f *fake) { f.servers["mysql-0"].exit = &catalog.ExitError{Code: 137} }, catalog.CodeDump, "exit 137"},
		{"it takes too long, and so does its end", func(f *fake) { f.servers["mysql-0"].hangs = "dump" }, catalog.CodeDump, "not in time"},
		{"the probe hangs", func(f *fake) { f.servers["mysql-0"].hangs = "probe" }, catalog.CodeDump, "not in time"},
		{"it says more than any script", func(f *fake) { f.servers["mysql-0"].talks = true }, catalog.CodeTruncated,
			"the output of the script is not whole: it has no end line: script said more than 1048576 bytes"},
		{"the data lies on no volume that is cut", func(f *fake) { f.servers["mysql-0"].mount = "/elsewhere" }, catalog.CodeHook, "its data directory lies on /elsewhere, which is no volume of this snapshot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, e := range []struct {
				effort snapshot.Effort
				want   []string
				left   []string
			}{
				{snapshot.Auto, []string{"binlog Protected fuzzy (" + c.cause + ") " + string(c.code), "data Protected fuzzy (" + c.cause + ") " + string(c.code)},
					[]string{"binlog-20261122-011500-x7k2", "data-20261122-011500-x7k2"}},
				{snapshot.Application, []string{"binlog Failed " + string(c.code), "data Failed " + string(c.code)}, []string{}},
			} {
				synctest.Test(t, func(t *testing.T) {
					inv, f := mysqlShop()
					c.break_(f)
					result, _ := take(t, t.Context(), f, request(effort(e.effort)), inv)
					if diff := cmp.Diff(e.want, shorts(result)); diff != "" {
						t.Errorf("%s (-want +got):\n%s", e.effort, diff)
					}
					if diff := cmp.Diff(e.left, f.left()); diff != "" {
						t.Errorf("%s: left (-want +got):\n%s", e.effort, diff)
					}
					for _, i := range result.Items {
						if s := i.Snapshot; s != nil && s.Record != nil && (len(s.Record.Dumps) > 0 || s.Record.Plugin != "" || !s.Record.Dumped.IsZero()) {
							t.Errorf("%s: the record speaks of a dump: %+v", e.effort, s.Record)
						}
					}
				})
			}
		})
	}
}

// The script's last word is the proof: that the stream breaks after it is no
// failure of the dump.
func TestTheStreamBreaksAfterTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlShop()
		f.servers["mysql-0"].exit = errors.New("websocket: close 1006")
		result, _ := take(t, t.Context(), f, request(effort(snapshot.Application)), inv)
		want := []string{"binlog Protected application (proven dump of mysql in data)", "data Protected application (proven dump of mysql in data)"}
		if diff := cmp.Diff(want, shorts(result)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What a person reads of a failed dump.
func TestFailedDumpSaysWhatToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for e, want := range map[snapshot.Effort]catalog.Failure{
			snapshot.Application: {
				Code: catalog.CodeHook, Message: "snapshot of shop/statefulset/mysql not taken: probe in pod mysql-0 failed",
				State: "app running, not frozen; nothing created; partial dump files removed", Next: "wait until the pod is ready, then try again",
			},
			snapshot.Auto: {
				Code: catalog.CodeHook, Message: "snapshot of shop/statefulset/mysql is not application-consistent: probe in pod mysql-0 failed",
				State: "app running, not frozen; the snapshot holds what the disk held", Next: "wait until the pod is ready, then try again",
			},
		} {
			inv, f := mysqlAlone()
			f.servers["mysql-0"].probeFails = "starting the server is starting up"
			result, _ := take(t, t.Context(), f, request(effort(e)), inv)
			got := failure(t, result.Items[0].Err)
			var said *plugins.Error
			if !errors.As(got.Cause, &said) || said.Kind != plugins.Starting {
				t.Errorf("%s: cause %v", e, got.Cause)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(catalog.Failure{}, "Cause")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", e, diff)
			}
		}
	})
}

// A script whose end nobody has heard may have left half a dump.
func TestLostDumpClaimsNoCleanUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlAlone()
		f.servers["mysql-0"].cut = "dump"
		result, _ := take(t, t.Context(), f, request(effort(snapshot.Application)), inv)
		want := "not frozen; nothing created; a half-written dump is removed by its own script, or by the next run where the pod was killed"
		if got := failure(t, result.Items[0].Err).State; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func failure(t *testing.T, err error) catalog.Failure {
	t.Helper()
	var f *catalog.Failure
	if !errors.As(err, &f) {
		t.Fatalf("no failure: %v", err)
	}
	return *f
}

// A script has its time and, to end itself, half a minute more.
func TestScriptsHaveTheirTime(t *testing.T) {
	for step, want := range map[string]time.Duration{"probe": time.Minute, "dump": 5*time.Minute + 30*time.Second} {
		synctest.Test(t, func(t *testing.T) {
			inv, f := mysqlAlone()
			f.servers["mysql-0"].hangs = step
			began := time.Now()
			take(t, t.Context(), f, request(effort(snapshot.Application), func(r *snapshot.Request) { r.DumpTimeout = 5 * time.Minute }), inv)
			if got := time.Since(began); got != want {
				t.Errorf("a %s that hangs was given up after %s, want %s", step, got, want)
			}
		})
	}
}

// Of several servers every primary is dumped, or one replica.
func TestPrimariesAndReplicas(t *testing.T) {
	primary, replica := func() *server { return &server{role: plugins.Primary} }, func() *server { return &server{role: plugins.Replica} }
	starting := func() *server { return &server{probeFails: "starting not yet"} }
	for _, c := range []struct {
		name     string
		servers  []*server
		dumped   []int
		want     string // of the first claim
		warnings []string
	}{
		{"the primary, not its replicas", []*server{replica(), primary(), replica()}, []int{0, 1, 0}, "data-0 Protected application (proven dump of mysql in data-1)", nil},
		{"every primary", []*server{primary(), replica(), primary()}, []int{1, 0, 1}, "data-0 Protected application (proven dump of mysql in data-0)", nil},
		{"the first replica where there is no primary", []*server{replica(), replica(), replica()}, []int{1, 0, 0}, "data-0 Protected application (proven dump of mysql in data-0)", nil},
		{"a replica that does not answer costs a warning", []*server{primary(), starting(), replica()}, []int{1, 0, 0}, "data-0 Protected application (proven dump of mysql in data-0)",
			[]string{"probe: snapshot of shop/statefulset/mysql is not application-consistent: probe in pod mysql-1 failed: not yet"}},
		{"one that does not answer may be the primary", []*server{replica(), starting(), replica()}, []int{0, 0, 0}, "data-0 Protected fuzzy (not yet) BS015", nil},
		{"none answers", []*server{starting(), starting(), starting()}, []int{0, 0, 0}, "data-0 Protected fuzzy (not yet) BS015", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv := catalog.Inventory{Classes: classes}
				f := newFake(map[string]*server{})
				for i, s := range c.servers {
					n := string(rune('0' + i))
					s.mount = "/data-" + n
					f.servers["mysql-"+n] = s
					inv.Claims = append(inv.Claims, claim("data-"+n))
					inv.Pods = append(inv.Pods, pod("mysql-"+n, "statefulset/mysql", "mysql", "data-"+n))
				}
				result, w := take(t, t.Context(), f, request(), inv)
				var dumped []int
				for _, s := range c.servers {
					dumped = append(dumped, s.dumped)
				}
				if diff := cmp.Diff(c.dumped, dumped); diff != "" {
					t.Errorf("dumped (-want +got):\n%s", diff)
				}
				if got := short(result.Items[0]); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				others := slices.DeleteFunc(w.warnings(), func(m string) bool {
					return strings.Contains(m, "clock is slow") || strings.Contains(m, "InnoDB") || strings.Contains(m, "slow disk")
				})
				if diff := cmp.Diff(c.warnings, others, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("warnings (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// Each volume's record lists the dumps that lie in it.
func TestDumpsAreOnRecordWhereTheyLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv := catalog.Inventory{Classes: classes, Claims: []catalog.Claim{claim("data-0"), claim("data-1")}}
		f := newFake(map[string]*server{"mysql-0": {mount: "/data-0/"}, "mysql-1": {mount: "/data-1"}})
		for _, n := range []string{"0", "1"} {
			p := pod("mysql-"+n, "statefulset/mysql", "mysql", "data-"+n)
			p.Containers[0].Mounts[0].SubPath = "part" + n
			inv.Pods = append(inv.Pods, p)
		}
		result, _ := take(t, t.Context(), f, request(), inv)
		var paths [][]string
		for _, i := range result.Items {
			var of []string
			for _, d := range i.Snapshot.Record.Dumps {
				of = append(of, d.Path)
			}
			paths = append(paths, of)
		}
		want := [][]string{{"part0/sub/.backsnap-1.dump", "part0/sub/.backsnap-2.dump"}, {"part1/sub/.backsnap-1.dump", "part1/sub/.backsnap-2.dump"}}
		if diff := cmp.Diff(want, paths); diff != "" {
			t.Errorf("paths in the volumes (-want +got):\n%s", diff)
		}
	})
}

func TestBarrierThatForcedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlAlone()
		f.servers["mysql-0"].noBarrier = true
		result, w := take(t, t.Context(), f, request(), inv)
		if got := result.Items[0].Snapshot.Record.Barrier; got != "" {
			t.Errorf("the record says that %q forced everything onto the disk", got)
		}
		want := []string{"barrier: it is a replica", "dump: a table is not InnoDB", "dump: slow disk", "probe: the clock is slow"}
		if diff := cmp.Diff(want, w.warnings()); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	})
}

func TestWithoutHook(t *testing.T) {
	for _, c := range []struct {
		name    string
		request snapshot.Request
		inv     catalog.Inventory
		want    []string
	}{
		{
			"one volume that nothing mounts", request(), catalog.Inventory{Claims: []catalog.Claim{claim("old")}},
			[]string{"old Protected crash (not mounted)"},
		},
		{
			"an app that no plugin knows", request(),
			catalog.Inventory{Claims: []catalog.Claim{claim("www")}, Pods: []catalog.Pod{pod("web", "deployment/web", "nginx", "www")}},
			[]string{"www Protected crash (no database known in image nginx)"},
		},
		{
			"two volumes of one app are cut apart", request(),
			catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b")}, Pods: []catalog.Pod{pod("web", "deployment/web", "nginx", "a", "b")}},
			[]string{"a Protected fuzzy (no database known in image nginx)", "b Protected fuzzy (no database known in image nginx)"},
		},
		{
			"a database, and crash was asked for", request(effort(snapshot.Crash)),
			catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Pods: []catalog.Pod{pod("mysql-0", "statefulset/mysql", "mysql", "data")}},
			[]string{"data Protected crash (crash consistency was asked for)"},
		},
		{
			"a database whose pod does not run", request(),
			catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Pods: []catalog.Pod{podLike(pod("mysql-0", "statefulset/mysql", "mysql", "data"), func(p *catalog.Pod) { p.Phase = "Pending" })}},
			[]string{"data Protected crash (the pod is Pending) BS015"},
		},
		{
			"consistency that nobody can give", request(effort(snapshot.Application)), catalog.Inventory{Claims: []catalog.Claim{claim("old")}},
			[]string{"old Failed BS011"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.inv.Classes = classes
				f := newFake(nil)
				result, _ := take(t, t.Context(), f, c.request, c.inv)
				if diff := cmp.Diff(c.want, shorts(result)); diff != "" {
					t.Errorf("result (-want +got):\n%s", diff)
				}
				if slices.ContainsFunc(f.calls, func(call string) bool { return strings.HasPrefix(call, "exec") }) {
					t.Errorf("something ran in a pod: %v", f.calls)
				}
			})
		})
	}
}

// A snapshot that does not get ready in time is left to the storage, and is no
// restore point.
// Who may read nothing of the whole cluster leaves the class to it, and is told
// once that the contents have no labels.
func TestWithTheRightsOfANamespace(t *testing.T) {
	user := int64(999)
	inNamespace := func() (catalog.Inventory, *fake) {
		inv, f := mysqlShop()
		inv.Classes, inv.Unread = nil, []string{catalog.KindVolumes, catalog.KindClasses}
		for i := range inv.Pods {
			inv.Pods[i].Node = "node-2"
			for j := range inv.Pods[i].Containers {
				inv.Pods[i].Containers[j].User = &user
			}
		}
		f.unmirrored = true
		return inv, f
	}
	t.Run("all is well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			inv, f := inNamespace()
			result, w := take(t, t.Context(), f, request(func(r *snapshot.Request) { r.Effort = snapshot.Crash }), inv)
			if diff := cmp.Diff([]string{"snapshot: " + catalog.ErrUnmirrored.Error()}, w.warnings()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			for _, item := range result.Items {
				if item.Outcome != snapshot.Protected || item.Snapshot.Class != "" || *item.Snapshot.Record.User != user || item.Snapshot.Record.Claim.Node != "node-2" {
					t.Errorf("item %+v of snapshot %+v", item, item.Snapshot)
				}
			}
		})
	})
	t.Run("there is no default class", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			inv, f := inNamespace()
			f.never, f.driverSays = "data", "Failed to set default snapshot class with error cannot find default snapshot class"
			result, _ := take(t, t.Context(), f, request(), inv)
			if diff := cmp.Diff([]string{"binlog Failed BS021", "data Failed BS021"}, shorts(result)); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if left := f.left(); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	})
	t.Run("the named class is taken at its word", func(t *testing.T) {
		inv, _ := inNamespace()
		plan, err := snapshot.MakePlan(request(func(r *snapshot.Request) { r.Class = "named" }), inv)
		if err != nil || plan.Apps[0].Volumes[0].Class != "named" {
			t.Errorf("plan %+v, error %v", plan, err)
		}
	})
	t.Run("the movers' cache is left out", func(t *testing.T) {
		inv, _ := inNamespace()
		plan, err := snapshot.MakePlan(request(func(r *snapshot.Request) { r.Cache = "binlog" }), inv)
		if err != nil || len(plan.Skips) != 1 || plan.Skips[0].Claim.Name != "binlog" || !plan.Skips[0].Wanted() {
			t.Errorf("plan %+v, error %v", plan, err)
		}
		plan, err = snapshot.MakePlan(request(func(r *snapshot.Request) { r.Cache, r.CacheIn = "binlog", "backsnap" }), inv)
		if err != nil || len(plan.Skips) != 0 {
			t.Errorf("of another namespace: plan %+v, error %v", plan, err)
		}
	})
	t.Run("pods that run as several users are as none", func(t *testing.T) {
		inv, _ := inNamespace()
		other := inv.Pods[0]
		other.Name, other.Containers = "other", slices.Clone(other.Containers)
		other.Containers[0].User = new(int64)
		inv.Pods = append(inv.Pods, other)
		plan, err := snapshot.MakePlan(request(), inv)
		if err != nil || plan.Apps[0].User != nil {
			t.Errorf("plan %+v, error %v", plan, err)
		}
	})
}

func TestNotReadyInTime(t *testing.T) {
	for _, c := range []struct {
		name    string
		storage func(*fake)
		message string
	}{
		{"never ready", func(f *fake) { f.never, f.driverSays = "data", "rpc error: ResourceExhausted" },
			"snapshot of shop/statefulset/mysql not ready after 1m0s (data-20261122-011500-x7k2: rpc error: ResourceExhausted)"},
		{"never ready, and nobody says why", func(f *fake) { f.never = "data" }, "snapshot of shop/statefulset/mysql not ready after 1m0s"},
		{"never cut", func(f *fake) { f.cutAfter, f.readyAfter = 2*time.Minute, 2*time.Minute }, "snapshot of shop/statefulset/mysql not cut after 1m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv, f := mysqlShop()
				c.storage(f)
				result, _ := take(t, t.Context(), f, request(func(r *snapshot.Request) { r.Timeout, r.Retain = time.Minute, catalog.Retain{Calendar: true} }), inv)
				if diff := cmp.Diff([]string{"binlog Failed BS022", "data Failed BS022"}, shorts(result)); diff != "" {
					t.Errorf("result (-want +got):\n%s", diff)
				}
				want := catalog.Failure{
					Code: catalog.CodeNotReady, Message: c.message, State: "app running, not frozen; the storage goes on with it, it is no restore point",
					Next: "kubectl describe volumesnapshot binlog-20261122-011500-x7k2 -n shop",
				}
				if diff := cmp.Diff(want, failure(t, result.Items[0].Err), cmpopts.IgnoreFields(catalog.Failure{}, "Cause")); diff != "" {
					t.Errorf("failure (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string{"binlog-20261122-011500-x7k2", "data-20261122-011500-x7k2"}, f.left()); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
				for _, s := range f.in("shop") {
					if s.Consistency != "" || len(s.Periods) > 0 || s.Record != nil {
						t.Errorf("%s looks like a restore point: %+v", s.Name, s)
					}
				}
			})
		})
	}
}

// When one member of a set fails, none of it stays.
func TestSetsAreWholeOrNotThere(t *testing.T) {
	const left = "binlog-20261122-011500-x7k2"
	for _, c := range []struct {
		name    string
		break_  func(*fake)
		message string
		left    []string
	}{
		{"one cannot be created", func(f *fake) { f.failCreate = "binlog" }, "snapshot of shop/statefulset/mysql not taken: create VolumeSnapshot: broken", []string{}},
		{"one is deleted by somebody else", func(f *fake) { f.lost = "binlog" },
			"snapshot of shop/statefulset/mysql not taken: watch VolumeSnapshots: snapshot binlog-20261122-011500-x7k2 was deleted by somebody else", []string{}},
		{"the watch breaks", func(f *fake) { f.failAwait = true }, "snapshot of shop/statefulset/mysql not taken: watch VolumeSnapshots: broken", []string{}},
		{"the content of one cannot be read", func(f *fake) { f.failComplete = "binlog" }, "snapshot of shop/statefulset/mysql not taken: read VolumeSnapshotContent: broken", []string{}},
		{"one cannot be labelled", func(f *fake) { f.failLabel = "binlog" },
			"snapshot of shop/statefulset/mysql not taken: label VolumeSnapshot: label binlog-20261122-011500-x7k2: broken", []string{}},
		{"and it cannot be removed either", func(f *fake) { f.failLabel, f.failDelete = "binlog", "binlog" },
			"snapshot of shop/statefulset/mysql not taken: label VolumeSnapshot: label binlog-20261122-011500-x7k2: broken\nremove unfinished snapshot shop/binlog-20261122-011500-x7k2: broken", []string{left}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv, f := mysqlShop()
				c.break_(f)
				result, _ := take(t, t.Context(), f, request(), inv)
				if diff := cmp.Diff([]string{"binlog Failed BS023", "data Failed BS023"}, shorts(result)); diff != "" {
					t.Errorf("result (-want +got):\n%s", diff)
				}
				err := result.Items[0].Err
				if err.Error() != c.message {
					t.Errorf("got  %s\nwant %s", err, c.message)
				}
				if f := failure(t, err); f.State != "app running, not frozen; what was unfinished is removed" || f.Next != "kubectl backsnap snapshot statefulset/mysql -n shop" {
					t.Errorf("state %q, next %q", f.State, f.Next)
				}
				if diff := cmp.Diff(c.left, f.left()); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// ^C removes what is unfinished, at every step.
func TestInterrupt(t *testing.T) {
	signal := &catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal interrupt"}
	for _, c := range []struct {
		name  string
		after time.Duration // the dump takes from 0 to 10s, the cut is at 11s, ready at 15s
		setup func(*fake, func())
		calls []string
	}{
		{"before anything", -1, nil, nil},
		{"during the dump", 5 * time.Second, nil, []string{"exec dump", "exec probe"}},
		{"before the cut", 10*time.Second + time.Millisecond, nil, []string{"create", "create", "delete", "delete", "exec dump", "exec probe"}},
		{"before ready", 13 * time.Second, nil, []string{"create", "create", "delete", "delete", "exec dump", "exec probe"}},
		{"before the labels", -1, func(f *fake, stop func()) { f.atLabel = stop }, []string{"create", "create", "delete", "delete", "exec dump", "exec probe"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv, f := mysqlShop()
				f.servers["mysql-0"].takes = 10 * time.Second
				ctx, cancel := context.WithCancelCause(t.Context())
				stop := func() { cancel(signal) }
				switch {
				case c.setup != nil:
					c.setup(f, stop)
				case c.after < 0:
					stop()
				default:
					time.AfterFunc(c.after, stop)
				}
				result, _ := take(t, ctx, f, request(), inv)
				if diff := cmp.Diff([]string{"binlog Failed BS090", "data Failed BS090"}, shorts(result)); diff != "" {
					t.Errorf("result (-want +got):\n%s", diff)
				}
				want := catalog.Failure{
					Code: catalog.CodeInterrupted, Message: "snapshot of shop/statefulset/mysql not taken", Cause: signal,
					State: "app running, not frozen; what was unfinished is removed", Next: "kubectl backsnap snapshot statefulset/mysql -n shop",
				}
				if diff := cmp.Diff(want, failure(t, result.Items[0].Err)); diff != "" {
					t.Errorf("failure (-want +got):\n%s", diff)
				}
				if len(f.left()) > 0 {
					t.Errorf("left: %v", f.left())
				}
				var calls []string
				for _, call := range f.calls {
					verb, rest, _ := strings.Cut(call, " ")
					if verb == "exec" {
						verb += " " + strings.Fields(rest)[0]
					}
					calls = append(calls, verb)
				}
				slices.Sort(calls)
				if diff := cmp.Diff(c.calls, calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
				synctest.Wait()
			})
		})
	}
}

// A lock that was lost says itself what it is.
func TestLostLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlAlone()
		lost := &catalog.Failure{Code: catalog.CodeBusy, Message: "the Lease was lost"}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { cancel(lost) })
		result, _ := take(t, ctx, f, request(), inv)
		if err := result.Items[0].Err; err != error(lost) {
			t.Errorf("got %v", err)
		}
		if len(f.left()) > 0 {
			t.Errorf("left: %v", f.left())
		}
	})
}

func TestAppsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv := catalog.Inventory{
			Claims:  []catalog.Claim{claim("a"), claim("b"), claim("c"), claim("data", from("crm"))},
			Pods:    []catalog.Pod{pod("a-0", "statefulset/a", "mysql", "a"), pod("b-0", "statefulset/b", "mysql", "b"), pod("c-0", "deployment/c", "nginx", "c")},
			Classes: classes,
		}
		f := newFake(map[string]*server{"a-0": {mount: "/a", dumpFails: "dump exit 2"}, "b-0": {mount: "/b"}})
		f.failCreate = "c"
		result, _ := take(t, t.Context(), f, request(effort(snapshot.Auto)), inv)
		want := []string{"data Protected crash (not mounted)", "c Failed BS023", "a Protected crash (exit 2) BS012", "b Protected application (proven dump of mysql in b)"}
		if diff := cmp.Diff(want, shorts(result)); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
	})
}

// At most so many apps at once; waiting for the storage takes no place.
func TestParallel(t *testing.T) {
	for _, c := range []struct {
		parallel int
		want     map[string]string // when the snapshot of each was created
	}{
		{1, map[string]string{"a": "00:00:10", "b": "00:00:21", "c": "00:00:32"}}, // a dump of 10s, and 1s until the cut
		{2, map[string]string{"a": "00:00:10", "b": "00:00:10", "c": "00:00:21"}},
		{4, map[string]string{"a": "00:00:10", "b": "00:00:10", "c": "00:00:10"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			inv, f := catalog.Inventory{Classes: classes}, newFake(map[string]*server{})
			for _, name := range []string{"a", "b", "c"} {
				inv.Claims = append(inv.Claims, claim(name))
				inv.Pods = append(inv.Pods, pod(name+"-0", "statefulset/"+name, "mysql", name))
				f.servers[name+"-0"] = &server{mount: "/" + name, takes: 10 * time.Second}
			}
			f.readyAfter = time.Hour
			result, _ := take(t, t.Context(), f, request(func(r *snapshot.Request) { r.Parallel, r.Timeout = c.parallel, 2*time.Hour }), inv)
			var want, got []string
			for _, i := range result.Items {
				want, got = append(want, c.want[i.Claim]), append(got, i.Snapshot.Created.Format(time.TimeOnly))
			}
			slices.Sort(want) // which app is first is nobody's business
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d at once: created at (-want +got):\n%s", c.parallel, diff)
			}
		})
	}
}

// What the set carries when it is ready, by how long it is kept.
func TestRetention(t *testing.T) {
	all := map[catalog.Period]string{"hourly": "2000-01-01T00Z", "daily": "2000-01-01", "weekly": "1999-w52", "monthly": "2000-01", "yearly": "2000"}
	earlier := func(claim string, periods map[catalog.Period]string) catalog.Snapshot {
		return catalog.Snapshot{Namespace: "shop", Name: "earlier-" + claim, UID: "earlier-" + claim, Claim: claim, Ready: true, Periods: periods}
	}
	type carried struct {
		Retain, DeleteAfter string
		Pinned              bool
		Periods             map[catalog.Period]string
	}
	calendar := func(r *snapshot.Request) { r.Retain = catalog.Retain{Calendar: true} }
	for _, c := range []struct {
		name    string
		request snapshot.Request
		inv     catalog.Inventory
		before  []catalog.Snapshot
		want    map[string]carried
	}{
		{
			"days take no period", request(), catalog.Inventory{Claims: []catalog.Claim{claim("data")}}, nil,
			map[string]carried{"data": {Retain: "days", DeleteAfter: "2000-01-31"}},
		},
		{
			"pinned", request(func(r *snapshot.Request) { r.Pin = true }), catalog.Inventory{Claims: []catalog.Claim{claim("data")}}, nil,
			map[string]carried{"data": {Retain: "days", DeleteAfter: "2000-01-31", Pinned: true}},
		},
		{
			"two claims of one namespace on one day both stand for all periods", request(calendar), catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b")}}, nil,
			map[string]carried{"a": {Retain: "calendar", Periods: all}, "b": {Retain: "calendar", Periods: all}},
		},
		{
			"periods that are taken are not taken again; another claim takes nothing away", request(calendar),
			catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b")}},
			[]catalog.Snapshot{earlier("a", map[catalog.Period]string{"hourly": "1999-12-31T23Z", "daily": "1999-12-31", "weekly": "1999-w52", "monthly": "1999-12", "yearly": "1999"})},
			map[string]carried{
				"a": {Retain: "calendar", Periods: map[catalog.Period]string{"hourly": "2000-01-01T00Z", "daily": "2000-01-01", "monthly": "2000-01", "yearly": "2000"}},
				"b": {Retain: "calendar", Periods: all},
			},
		},
		{
			"a set stands for a period as one", request(calendar),
			catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b")}, Pods: []catalog.Pod{pod("x", "deployment/x", "x", "a", "b")}},
			[]catalog.Snapshot{earlier("a", all)},
			map[string]carried{"a": {Retain: "calendar", Periods: all}, "b": {Retain: "calendar", Periods: all}},
		},
		{
			"nothing is free any more", request(calendar), catalog.Inventory{Claims: []catalog.Claim{claim("a")}}, []catalog.Snapshot{earlier("a", all)},
			map[string]carried{"a": {Retain: "calendar", Periods: map[catalog.Period]string{}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(nil)
				for _, s := range c.before {
					f.snapshots[s.Namespace+"/"+s.Name] = s
				}
				c.inv.Classes = classes
				result, _ := take(t, t.Context(), f, c.request, c.inv)
				got := map[string]carried{}
				for _, i := range result.Items {
					got[i.Claim] = carried{i.Snapshot.Retain, i.Snapshot.DeleteAfter, i.Snapshot.Pinned, i.Snapshot.Periods}
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("carried (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// The day of removal is counted from the cut, not from the request.
func TestKeptFromTheDayOfTheCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24*time.Hour - time.Second)
		f := newFake(nil)
		f.cutAfter = 2 * time.Second
		result, _ := take(t, t.Context(), f, request(), catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Classes: classes})
		if got, want := result.Items[0].Snapshot.DeleteAfter, "2000-02-01"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// A storage whose clock cannot be right does not date the snapshot.
func TestTimeOfTheCut(t *testing.T) {
	for _, c := range []struct{ name, said, want string }{
		{"to the nanosecond", "2000-01-01T00:00:01.5Z", "2000-01-01T00:00:01.5Z"},
		{"a clock that is a little slow", "1999-12-31T23:57:00Z", "1999-12-31T23:57:00Z"},
		{"a clock that is a little fast", "2000-01-01T00:04:00Z", "2000-01-01T00:04:00Z"},
		{"a driver that gives no time says 1970", "1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z"},
		{"seconds taken for nanoseconds", "2100-01-01T00:00:00Z", "2000-01-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(nil)
				f.wrongCut = clock(t, c.said)
				result, _ := take(t, t.Context(), f, request(), catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Classes: classes})
				s := result.Items[0].Snapshot
				if got := []time.Time{s.Cut, s.Record.Cut}; !got[0].Equal(clock(t, c.want)) || !got[1].Equal(got[0]) {
					t.Errorf("got %v, want %s", got, c.want)
				}
			})
		})
	}
}

// The client's clock may be a day off: what is kept, and how long, goes by the
// clocks of storage and server.
func TestClockOfTheClient(t *testing.T) {
	for name, off := range map[string]time.Duration{"right": 0, "a day ahead": 24 * time.Hour, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(nil)
				plan, err := snapshot.MakePlan(request(), catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Classes: classes})
				if err != nil {
					t.Fatal(err)
				}
				started := time.Now()
				result := snapshot.Run(t.Context(), f, func() time.Time { return time.Now().Add(off).UTC() }, plan, &seen{})
				f.storing.Wait()
				s := result.Items[0].Snapshot
				if result.Items[0].Outcome != snapshot.Protected || s.Cut.Sub(started).Abs() > time.Minute {
					t.Errorf("%s, cut at %v, asked for at %v", result.Items[0].Outcome, s.Cut, started)
				}
				if want := plan.Retain.DeleteAfter(started.In(plan.Zone)); s.DeleteAfter != want {
					t.Errorf("kept through %s, want %s", s.DeleteAfter, want)
				}
			})
		})
	}
}

// The command that tries again must be one that there is.
func TestNextIsACommandThatThereIs(t *testing.T) {
	for _, c := range []struct {
		pods []catalog.Pod
		want string
	}{
		{[]catalog.Pod{pod("x-0", "statefulset/x", "x", "data", "logs")}, "kubectl backsnap snapshot statefulset/x -n shop"},
		{[]catalog.Pod{pod("x", "pod/x", "x", "data", "logs")}, "kubectl backsnap snapshot pod/x -n shop"},
		{[]catalog.Pod{pod("x", "job/x", "x", "data", "logs")}, "kubectl backsnap snapshot data logs -n shop"},
		{[]catalog.Pod{pod("x", "deployment/x", "x", "data", "logs"), pod("y", "deployment/y", "y", "data")}, "kubectl backsnap snapshot data logs -n shop"},
		{nil, "kubectl backsnap snapshot data -n shop"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(nil)
			f.failCreate = "data"
			result, _ := take(t, t.Context(), f, request(), catalog.Inventory{Claims: []catalog.Claim{claim("data"), claim("logs")}, Pods: c.pods, Classes: classes})
			if got := failure(t, result.Items[0].Err).Next; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A dump is removed once it lies in a restore point, not before and not else.
func TestRemoveDump(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*snapshot.Request, *fake)
		removed []string
		warns   bool
	}{
		{"not unless it is asked for", func(r *snapshot.Request, _ *fake) { r.RemoveDump = false }, nil, false},
		{"from where it lies", nil, []string{"20261122-011500-x7k2 /data/sub"}, false},
		{"not if the snapshot never gets ready", func(r *snapshot.Request, f *fake) { r.Timeout, f.never = time.Minute, "data" }, nil, false},
		{"not if there is no dump", func(_ *snapshot.Request, f *fake) { f.servers["mysql-0"].dumpFails = "dump no" }, nil, false},
		{"that it cannot be is a warning", func(_ *snapshot.Request, f *fake) { f.servers["mysql-0"].removeFails = "permission it may not" },
			[]string{"20261122-011500-x7k2 /data/sub"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv, f := mysqlAlone()
				r := request(func(r *snapshot.Request) { r.RemoveDump = true })
				if c.change != nil {
					c.change(&r, f)
				}
				result, w := take(t, t.Context(), f, r, inv)
				if diff := cmp.Diff(c.removed, f.servers["mysql-0"].removed); diff != "" {
					t.Errorf("removed (-want +got):\n%s\n%v", diff, shorts(result))
				}
				warns := slices.ContainsFunc(w.warnings(), func(s string) bool { return s == "dump: remove dump from data: it may not" })
				if warns != c.warns {
					t.Errorf("warnings %q", w.warnings())
				}
				if c.warns && result.Items[0].Outcome != snapshot.Protected {
					t.Errorf("items %v", shorts(result))
				}
			})
		})
	}
}

// What copies were asked for is on record, so that who prunes can tell later.
func TestWantedCopiesAreOnRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv, f := mysqlAlone()
		plan, err := snapshot.MakePlan(request(func(r *snapshot.Request) { r.Retain = catalog.Retain{Copied: true} }), inv)
		if err != nil {
			t.Fatal(err)
		}
		plan.Apps[0].Volumes[0].Wanted = []string{"cold", "main"}
		t.Cleanup(f.storing.Wait)
		snapshot.Run(t.Context(), f, time.Now, plan, &seen{})
		taken := f.in("shop")[0]
		if diff := cmp.Diff([]string{"cold", "main"}, taken.Record.Wanted); diff != "" {
			t.Errorf("wanted (-want +got):\n%s", diff)
		}
		if taken.Retain != "copied" || taken.DeleteAfter != "" || len(taken.Periods) != 0 {
			t.Errorf("labels %v", taken.Labels())
		}
	})
}

// A client whose clock is a day off makes the same restore point, and is told.
func TestTheClockOfTheClientIsADayOff(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 24 * time.Hour, "behind": -24 * time.Hour, "within bounds": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inv, f := mysqlAlone()
				f.servers["mysql-0"].takes = 41 * time.Second
				time.Sleep(12 * time.Hour)
				plan, err := snapshot.MakePlan(request(func(r *snapshot.Request) { r.Retain = catalog.Retain{Calendar: true} }), inv)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(f.storing.Wait)
				w := &seen{}
				snapshot.Run(t.Context(), f, func() time.Time { return time.Now().Add(off) }, plan, w)
				taken := f.in("shop")[0]
				r := taken.Record
				got := []time.Time{r.DumpBegan, r.Dumped, r.Requested, r.Cut, r.Ready}
				want := []time.Time{
					clock(t, "2000-01-01T12:00:00Z"), clock(t, "2000-01-01T12:00:41Z"), clock(t, "2000-01-01T12:00:41Z"),
					clock(t, "2000-01-01T12:00:42.123456789Z"), clock(t, "2000-01-01T12:00:46Z"),
				}
				if name == "within bounds" {
					for i := range want {
						if i != 3 { // the storage's own clock
							want[i] = want[i].Add(off)
						}
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("times (-want +got):\n%s", diff)
				}
				if taken.Periods["daily"] != "2000-01-01" {
					t.Errorf("periods %v", taken.Periods)
				}
				told := slices.ContainsFunc(w.warnings(), func(s string) bool {
					return s == "snapshot: the clock of this machine is 24h0m0s off the cluster's: records and days go by the cluster's"
				})
				if told != (name != "within bounds") {
					t.Errorf("warnings %q", w.warnings())
				}
			})
		})
	}
}
