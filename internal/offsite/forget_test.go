package offsite_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// lies is a snapshot as restic lists it.
func lies(n int, host string, tags ...string) map[string]any {
	return map[string]any{"id": fmt.Sprintf("%064x", n), "hostname": host, "time": "2026-11-22T01:15:42Z", "tags": tags}
}

func ours(more ...string) []string {
	return append([]string{"backsnap", "ns=shop", "pvc=data", "vsuid=u1", "run=20261122-011500-x7k2"}, more...)
}

// Only what says everywhere that it is this cluster's may be judged.
func TestCopiesBeyondDoubt(t *testing.T) {
	record := catalog.Record{Version: 1, Claim: catalog.ClaimRecord{Name: "other"}}
	tag, err := record.Tag()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := json.Marshal([]map[string]any{
		lies(1, "prod-eu/shop/data", ours("retain=days", "delete-after=2026-12-22", "pin=true")...),
		lies(2, "prod-eu/crm/data", ours()...),
		lies(3, "prod-eu/shop/data", ours("record="+tag)...),
		lies(4, "prod-us/shop/data", ours()...),
		lies(5, "prod-eu/shop/data", "ns=shop", "pvc=data"),
		lies(6, "prod-eu/shop/data", "backsnap", "ns=shop", "pvc=data", "vsuid=u1", "run=yesterday"),
		lies(7, "prod-eu/shop/data", "backsnap", "ns=shop", "pvc=data", "run=20261122-011500-x7k2"),
		lies(8, "mover", "backsnap-partial", fmt.Sprintf("of=%064x", 9)),
		lies(9, "prod-eu/shop/data", ours()...),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	c.follow[""], c.logs = inTurn(t, ends(0, "list", 0)), []string{pack(string(answer), "5c0ffee5")}
	got, err := offsite.Copies(t.Context(), c, at, workRequest(), &events{})
	if err != nil {
		t.Fatal(err)
	}
	var ids, notes []string
	for _, s := range got.Copies {
		ids, notes = append(ids, s.Copies[0].Snapshot[63:]), append(notes, fmt.Sprint(s.Copies[0].Partial, s.Copies[0].Note != ""))
	}
	equal(t, "copies", []string{"1", "9"}, ids)
	equal(t, "partial, with a note", []string{"false false", "true true"}, notes)
	equal(t, "doubtful", 4, len(got.Doubtful))
	one := got.Copies[0]
	equal(t, "kept", "days 2026-12-22 true", fmt.Sprint(one.Retain, " ", one.DeleteAfter, " ", one.Pinned))
}

func TestForgetAndPrune(t *testing.T) {
	var many []string
	for n := range 1500 {
		many = append(many, fmt.Sprintf("%064x", n))
	}
	refused := ends(3, "forget", 0, "unable to remove snapshot/1234 from the repository")
	for _, test := range []struct {
		name  string
		ids   []string
		ends  []restic.End
		logs  []string
		pods  []string
		kept  bool
		code  catalog.Code
		says  string
		calls []string
	}{
		{name: "many", ids: many, ends: []restic.End{ends(0, "forget", 0), ends(0, "forget", 0)}, calls: []string{"start", "follow", "remove mover", "start", "follow", "remove mover"}},
		{name: "an append-only repository", ids: many[:1], ends: []restic.End{refused}, kept: true, calls: []string{"start", "follow", "remove mover"}},
		{
			name: "the lock of a mover that is gone", ids: many[:1], ends: []restic.End{blocked("forget", dead()), ends(0, "unlock", 0), ends(0, "forget", 0)}, logs: []string{""},
			calls: []string{"start", "follow", "remove mover", "pods", "start", "follow", "log mover-pod", "remove mover", "start", "follow", "remove mover"},
		},
		{
			name: "the storage is down", ids: many[:1], ends: []restic.End{ends(124, "check", 0)}, code: catalog.CodeMover,
			says: "repository main not pruned: the repository did not answer within 1m0s; does its bucket exist?", calls: []string{"start", "follow", "remove mover"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			c.pods, c.follow[""] = test.pods, inTurn(t, test.ends...)
			for _, answer := range test.logs {
				c.logs = append(c.logs, pack(answer, "5c0ffee5"))
			}
			kept, err := offsite.Forget(t.Context(), c, at, workRequest(), test.ids, &events{})
			equal(t, "kept", test.kept, kept)
			equal(t, "code", test.code, catalog.CodeOf(err))
			if err != nil {
				equal(t, "error", test.says, err.Error())
			}
			equal(t, "calls", test.calls, c.diary[""])
			equal(t, "left", []string(nil), c.left())
		})
	}
	if _, err := offsite.Forget(t.Context(), newCluster(t), at, workRequest(), []string{"latest"}, &events{}); err == nil || !strings.Contains(err.Error(), "64 hexadecimal digits") {
		t.Errorf("a word: %v", err)
	}

	c := newCluster(t)
	c.follow[""] = inTurn(t, ends(0, "prune", 0, "total prune:          3 blobs / 1.750 MiB"))
	freed, err := offsite.Prune(t.Context(), c, at, workRequest(), "20G", 64, &events{})
	equal(t, "freed", "1.750 MiB", freed)
	if err != nil {
		t.Error(err)
	}
	for _, job := range c.jobs {
		equal(t, "arguments", []string{"--max-unused", "10%", "--max-repack-size", "20G", "--limit-upload", "64"}, job.Args[5:])
	}
}
