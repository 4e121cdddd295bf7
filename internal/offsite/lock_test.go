package offsite_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// pack is text as a mover sends it.
func pack(text, nonce string) string {
	var zip bytes.Buffer
	w := gzip.NewWriter(&zip)
	w.Write([]byte(text))
	w.Close()
	return fmt.Sprintf("backsnap answer %s begins\n%s\nbacksnap answer %s ends lines=1 bytes=%d sha256=%x\n",
		nonce, base64.StdEncoding.EncodeToString(zip.Bytes()), nonce, len(text), sha256.Sum256([]byte(text)))
}

// dead is the pod of a mover of main, as repository has it.
func dead() string {
	return "data" + restic.Mark(repository("main")) + "01234567-20261121-011500-x7k2-b7xkz"
}

// blocked is the end of a mover that finds a lock.
func blocked(step, host string) restic.End {
	return ends(11, step, 0, `{"message_type":"exit_error","code":11,"message":"Fatal: unable to create lock in backend: repository is already locked exclusively by PID 42 on `+host+
		` by root (UID 0, GID 0)\nlock was created at 2026-11-22 01:00:00 (15m0s ago)\nstorage ID 1234abcd\n"}`)
}

// inTurn are movers that end like that, one after the other.
func inTurn(t *testing.T, all ...restic.End) func(context.Context, func(restic.Sight)) (restic.End, error) {
	return func(context.Context, func(restic.Sight)) (restic.End, error) {
		if len(all) == 0 {
			t.Error("one mover too many")
			return restic.End{}, catalog.ErrGone
		}
		end := all[0]
		all = all[1:]
		return end, nil
	}
}

func workRequest() offsite.WorkRequest {
	return offsite.WorkRequest{Run: run, Repository: repository("main"), Image: offsite.DefaultImage, Deadline: time.Minute, RetryLock: 10 * time.Minute, Nonce: "5c0ffee5"}
}

const clean = `{"message_type":"summary","num_errors":0}`

func TestCheckAndLocks(t *testing.T) {
	tests := []struct {
		name  string
		pods  []string
		ends  []restic.End
		logs  []string // answers
		code  catalog.Code
		says  string
		calls []string
		told  []string
	}{
		{
			name: "no lock", ends: []restic.End{ends(0, "examine", 0, clean)},
			calls: []string{"start", "follow", "remove mover"},
		},
		{
			name: "the lock of a mover that is gone is removed first",
			ends: []restic.End{blocked("examine", dead()), ends(0, "unlock", 0), ends(0, "examine", 0, clean)}, logs: []string{""},
			calls: []string{"start", "follow", "remove mover", "pods", "start", "follow", "log mover-pod", "remove mover", "start", "follow", "remove mover"},
			told:  []string{"warning removed the lock of host " + dead() + " since 2026-11-22 01:00:00 UTC: its pod is gone"},
		},
		{
			name: "that of one that is alive is waited for", pods: []string{dead()},
			ends:  []restic.End{blocked("examine", dead()), ends(0, "examine", 0, clean)},
			calls: []string{"start", "follow", "remove mover", "pods", "start", "follow", "remove mover"},
		},
		{
			name: "and named when it does not go", pods: []string{dead()},
			ends:  []restic.End{blocked("examine", dead()), blocked("examine", dead())},
			code:  catalog.CodeRepoLocked,
			says:  "repository main not examined: locked exclusively by host " + dead() + " since 2026-11-22 01:00:00 UTC (pod alive)",
			calls: []string{"start", "follow", "remove mover", "pods", "start", "follow", "remove mover", "pods"},
		},
		{
			name: "another's is named", ends: []restic.End{blocked("examine", "laptop")},
			code:  catalog.CodeRepoLocked,
			says:  "repository main not examined: locked exclusively by host laptop since 2026-11-22 01:00:00 UTC (no mover of this cluster)",
			calls: []string{"start", "follow", "remove mover"},
		},
		{
			name: "a lock that stays though it was to go is an error",
			ends: []restic.End{blocked("examine", dead()), ends(0, "unlock", 0)}, logs: []string{`{"id":"1","lock":{"hostname":"` + dead() + `","pid":42}}`},
			code:  catalog.CodeMover,
			says:  "repository main not examined: remove the lock of host " + dead() + " since 2026-11-22 01:00:00 UTC: it is still there",
			calls: []string{"start", "follow", "remove mover", "pods", "start", "follow", "log mover-pod", "remove mover"},
		},
		{
			name: "faults", ends: []restic.End{ends(1, "examine", 2, `{"message_type":"summary","num_errors":2}`, `{"message_type":"error","message":"pack 1: missing"}`)},
			code: catalog.CodeDamaged, says: "repository main is damaged: restic found 2 errors in it: pack 1: missing",
			calls: []string{"start", "follow", "remove mover"},
		},
		{
			name: "a repository that cannot be reached is not damaged", ends: []restic.End{ends(1, "examine", 0, `{"message_type":"summary","num_errors":1}`, "Fatal: no route")},
			code: catalog.CodeMover, says: "repository main not examined: exit 1: Fatal: no route",
			calls: []string{"start", "follow", "remove mover"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.pods, c.follow[""] = test.pods, inTurn(t, test.ends...)
			for _, answer := range test.logs {
				c.logs = append(c.logs, pack(answer, "5c0ffee5"))
			}
			told := &events{}
			_, err := offsite.Check(t.Context(), c, at, workRequest(), "", told)
			equal(t, "code", test.code, catalog.CodeOf(err))
			if err != nil {
				equal(t, "error", test.says, err.Error())
			}
			equal(t, "calls", test.calls, c.diary[""])
			equal(t, "told", test.told, told.of(""))
			equal(t, "left", []string(nil), c.left())
		})
	}
}

func TestCopyAndLocks(t *testing.T) {
	tests := []struct {
		name    string
		pods    []string
		ends    []restic.End // of the copy's movers
		unlocks []restic.End
		state   offsite.State
		says    string
		marks   string // of the last mover
	}{
		{
			name: "a mover that is gone has left its lock", ends: []restic.End{blocked("backup", dead()), ends(0, "backup", 0)}, unlocks: []restic.End{ends(0, "unlock", 0)},
			state: offsite.Copied, marks: restic.Mark(repository("main")),
		},
		{
			name: "a mover that is alive is waited for", pods: []string{dead()}, ends: []restic.End{blocked("backup", dead()), ends(0, "backup", 0)},
			state: offsite.Copied,
		},
		{
			name: "another is named", ends: []restic.End{blocked("backup", "laptop")}, state: offsite.Failed, marks: restic.Mark(repository("main")),
			says: "copy of shop/data to main not made: locked exclusively by host laptop since 2026-11-22 01:00:00 UTC (no mover of this cluster)",
		},
		{
			name: "a lock that cannot be removed is waited for", ends: []restic.End{blocked("backup", dead()), blocked("backup", dead())}, unlocks: []restic.End{ends(1, "unlock", 0, "denied")},
			state: offsite.Failed, says: "copy of shop/data to main not made: locked exclusively by host " + dead() + " since 2026-11-22 01:00:00 UTC (pod gone)",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				p := plan(t, "data")
				c.pods, c.follow["data"], c.follow[""] = test.pods, inTurn(t, test.ends...), inTurn(t, test.unlocks...)
				c.log = pack("", string(p.Request.Run)+p.Copies[0].Name)
				outcomes, err := offsite.Run(t.Context(), c, at, p, &events{})
				equal(t, "state", test.state, outcomes[0].State)
				if said := fmt.Sprint(err); test.says != "" && said != test.says || test.says == "" && err != nil {
					t.Errorf("error %s, want %s", said, test.says)
				}
				env := ""
				for _, e := range c.jobs[p.Copies[0].Name].Env {
					if e.Name == "BACKSNAP_MARK" {
						env = e.Value
					}
				}
				equal(t, "mark of the last mover", test.marks, env)
				equal(t, "left", []string(nil), c.left())
			})
		})
	}
}

func TestUnlock(t *testing.T) {
	lock := func(host string, pid int) string {
		return fmt.Sprintf(`{"id":"%064d","lock":{"hostname":%q,"username":"root","pid":%d,"time":"2026-11-22T01:00:00Z"}}`+"\n", pid, host, pid)
	}
	c := newCluster(t)
	c.follow[""] = inTurn(t, ends(0, "locks", 0), ends(0, "unlock", 0))
	c.logs = []string{pack(lock(dead(), 1)+lock("laptop", 2), "5c0ffee5"), pack(lock("laptop", 2), "5c0ffee5")}
	there, err := offsite.Locks(t.Context(), c, at, workRequest(), &events{})
	if err != nil {
		t.Fatal(err)
	}
	done, err := offsite.Unlock(t.Context(), c, at, workRequest(), there, false, &events{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "removed", there[:1], done.Removed)
	equal(t, "left", there[1:], done.Left)
	equal(t, "holders", []offsite.Holder{offsite.Gone, offsite.Unknown}, []offsite.Holder{there[0].Holder, there[1].Holder})
	job := c.jobs["unlock-main"+restic.Mark(repository("main"))+"-"+string(run)]
	equal(t, "host of the mover", dead(), job.Host)
}

// A copy that is not whole is told by the note beside it; what is listed may be
// less than all that there is.
func TestListSaysWhatIsNotWhole(t *testing.T) {
	entry := func(id string, tags ...string) string {
		text, err := json.Marshal(map[string]any{"id": strings.Repeat(id, 64), "hostname": "prod-eu/shop/data", "tags": tags})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	tags := []string{"backsnap", "ns=shop", "pvc=data", "snapshot=data-1", "vsuid=u"}
	all := "[" + entry("a", tags...) + "," + entry("b", tags...) + "," + entry("c", "backsnap-partial", "of="+strings.Repeat("a", 64), "errors=3") + "]"
	c := newCluster(t)
	c.follow[""], c.logs = says(ends(0, "list", 0)), []string{pack(all, "5c0ffee5")}
	request := workRequest()
	request.Of = []string{"shop", "crm"}
	found, err := offsite.List(t.Context(), c, at, request, "", &events{})
	if err != nil {
		t.Fatal(err)
	}
	merged := offsite.Merge(nil, found.Snapshots, []string{"main"})
	if len(merged) != 1 {
		t.Fatalf("%d restore points: %+v", len(merged), merged)
	}
	var copies []string
	for _, copy := range merged[0].Copies {
		copies = append(copies, fmt.Sprint(copy.Snapshot[:1], copy.Partial))
	}
	equal(t, "copies", []string{"bfalse", "atrue"}, copies)
	args := c.jobs["list-main"+restic.Mark(repository("main"))+"-"+string(run)].Args
	equal(t, "arguments", []string{"--tag", "backsnap-partial", "--tag", "backsnap,ns=shop", "--tag", "backsnap,ns=crm"}, args[len(args)-6:])
}

func TestListIsWholeOrNone(t *testing.T) {
	text := `[{"id":"` + id + `","hostname":"prod-eu/shop/data","time":"2026-11-22T01:15:42Z","tags":["backsnap","ns=shop","pvc=data","snapshot=data-1","vsuid=u","run=` + string(run) + `"]},` +
		`{"id":"` + strings.Repeat("a", 64) + `","hostname":"prod-us/shop/data","tags":["backsnap"]}]`
	whole := pack(text, "5c0ffee5")
	for _, test := range []struct {
		name string
		end  restic.End
		logs []string
		code catalog.Code
	}{
		{"whole", ends(0, "list", 0), []string{whole}, ""},
		{"a log that is behind is read again", ends(0, "list", 0), []string{whole[:len(whole)-9], "", whole}, ""},
		{"cut", ends(0, "list", 0), []string{whole[:9], whole[:9], whole[:9], whole[:9]}, catalog.CodeListing},
		{"another's nonce", ends(0, "list", 0), []string{pack(text, "other"), pack(text, "other"), pack(text, "other"), pack(text, "other")}, catalog.CodeListing},
		{"restic left one out", ends(0, "list", 1), []string{whole}, catalog.CodeListing},
		{"no JSON", ends(0, "list", 0), []string{pack("[", "5c0ffee5")}, catalog.CodeMover},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				c.follow[""], c.logs = says(test.end), test.logs
				found, err := offsite.List(t.Context(), c, at, workRequest(), "", &events{})
				equal(t, "code", test.code, catalog.CodeOf(err))
				if err != nil {
					equal(t, "found", offsite.Listed{}, found)
					return
				}
				cut := time.Date(2026, 11, 22, 1, 15, 42, 0, time.UTC)
				equal(t, "found", offsite.Listed{Clusters: []string{"prod-us"}, Snapshots: []catalog.Snapshot{{
					Namespace: "shop", Name: "data-1", UID: "u", Claim: "data", Run: run, Cut: cut, Created: cut, CopyOnly: true,
					Copies: []catalog.Copy{{Repository: "main", Snapshot: id, Finished: time.Time{}.UTC()}},
				}}}, found)
			})
		})
	}
}
