package cli_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// adoptEffects is what each flag of adopt does.
func adoptEffects() map[string]effect {
	const one = "snapcontent-3f2b"
	return map[string]effect{
		"allow-missing-template-keys": {one + " -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
		"color":                       {one + " --progress=tty", "--color=always", "\x1b[32m"},
		"dry-run":                     {one, "--dry-run=client", "exit 0\n  snapcontent-3f2b -> vs/uploads-1 -n shop"},
		"lock-dir":                    {one, "--lock-dir=/slots", `slots in "/slots"`},
		"lock-slots":                  {one, "--lock-slots=2", "2 slots"},
		"lock-timeout":                {one, "--lock-timeout=9m", "wait 9m0s"},
		"output":                      {one, "-o json", `"kind": "AdoptRun"`},
		"progress":                    {one, "--progress=json", `"type":"result"`},
		"quiet":                       {one, "-q", "adopted\n--\n--\n"},
		"template":                    {one + " -o go-template", "--template={{.kind}}", "AdoptRun"},
		"timeout":                     {"snapcontent-77aa", "--timeout=3s", "duration=3.0s"},
	}
}

// pruneEffects is what each flag of prune does in pruneWorld.
func pruneEffects() map[string]effect {
	effects := map[string]effect{
		"all-namespaces":              {"--dry-run", "-A", "exit 0\nNAMESPACE"},
		"allow-missing-template-keys": {"--dry-run -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
		"backup-namespace":            {"", "--backup-namespace=elsewhere", "-n shop --backup-namespace=elsewhere --yes"},
		"color":                       {"--yes --progress=tty", "--color=always", "\x1b[32m"},
		"dry-run":                     {"--yes", "--dry-run", "exit 0\nAPP"},
		"exclude-namespace":           {"-A --dry-run", "--exclude-namespace=s*", "exit 0\nSNAPSHOT SET"},
		"exit-code":                   {"--dry-run", "--exit-code", "exit 7"},
		"field-selector":              {"--dry-run", "--field-selector=metadata.name=none", "no restore point is selected"},
		"filename":                    {"--dry-run", "-f testdata/manifests/more", "exit 0\nSNAPSHOT SET"},
		"grace":                       {"--yes", "--grace=48h", "deleteAfter: 20261124T011500Z"},
		"keep":                        {"--dry-run", "--keep=daily=1", "daily 2/1"},
		"label-prefix":                {"--dry-run -o json", "--label-prefix=backup-ns.sh", `"set": "mysql-2026-11-20"`},
		"lock-dir":                    {"--yes", "--lock-dir=/slots", `slots in "/slots"`},
		"lock-slots":                  {"--yes", "--lock-slots=2", "2 slots"},
		"lock-timeout":                {"--yes", "--lock-timeout=9m", "wait 9m0s"},
		"mark-only":                   {"--yes", "--mark-only", "not swept: --mark-only"},
		"max-delete":                  {"--yes", "--max-delete=0", "BS041"},
		"min-keep":                    {"--dry-run --keep=daily=1", "--min-keep=2", "newest good set stays; daily 2/1"},
		"now":                         {"run/20261101-011500-aaaa --yes", "--now", "asked for: --now"},
		"orphans":                     {"--dry-run -o json", "--orphans", `"kind": "OrphanRun"`},
		"output":                      {"--yes", "-o json", `"kind": "PruneRun"`},
		"parallel":                    {"--yes", "--parallel=1", "01:15:02 result"}, // a second a snapshot
		"progress":                    {"--yes", "--progress=json", `"type":"result"`},
		"quiet":                       {"--yes", "-q", "deleted\n--\n--\n"},
		"recursive":                   {"--dry-run -f testdata/manifests", "-R", "exit 0\nAPP"},
		"selector":                    {"--dry-run", "-l backsnap.sh/retain=none", "no restore point is selected"},
		"sweep-only":                  {"--yes", "--sweep-only", "left as it is: --sweep-only"},
		"template":                    {"--yes -o go-template", "--template={{.kind}}", "PruneRun"},
		"timeout":                     {"-A --yes", "--timeout=3s", "is not gone after 3s"},
		"timezone":                    {"--dry-run", "--timezone=Pacific/Honolulu", "swept after 2026-11-22 15:15"},
		"unmark":                      {"", "--unmark=run/20261110-011500-aaaa", "pinnedAs: unmarked"},
		"yes":                         {"", "--yes", "exit 0"},
	}
	for flag, e := range effects { // what is due in a repository is the other flags' business
		if e.base != "" {
			e.base += " --repository=none"
			effects[flag] = e
		}
	}
	for flag, e := range map[string]effect{
		"cache-claim":     {"--dry-run", "--cache-claim=warm", "pod CacheClaim:warm"},
		"cache-size":      {"--dry-run", "--cache-size=5Gi", "pod CacheSize:5Gi"},
		"in-namespace":    {"--dry-run", "--in-namespace", "job in shop"},
		"keep-copies":     {"--dry-run", "--keep-copies=daily=1", "daily 2/1"},
		"limit-upload":    {"--yes --max-delete=100%", "--limit-upload=64", "at most 64 KiB/s"},
		"max-repack-size": {"--yes --max-delete=100%", "--max-repack-size=1G", "--max-repack-size 1G"},
		"mover-deadline":  {"--dry-run", "--mover-deadline=2h", "deadline 2h40m"},
		"repository":      {"--dry-run", "--repository=nope", "no repository nope"},
		"restic-image":    {"--dry-run", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
		"retry-lock":      {"--dry-run", "--retry-lock=7s", "wait 7s for a lock"},
	} {
		effects[flag] = e
	}
	return effects
}

// pruneWorld adds, in shop, one restore point that goes, one that is marked and
// those that stay; in crm one that the storage does not let go of.
func pruneWorld(w *world) {
	point := func(name, claim, app string, day, month int) worldSnapshot {
		cut := time.Date(2026, time.Month(month), day, 1, 15, 0, 0, time.UTC)
		return worldSnapshot{
			Name: name, Claim: claim, App: app, Run: cut.Format("20060102") + "-011500-aaaa", Consistency: "application", Retain: "calendar", Cut: cut, Ready: true,
		}
	}
	daily := func(s worldSnapshot) worldSnapshot {
		s.Periods = map[string]string{"daily": s.Cut.Format(time.DateOnly)}
		return s
	}
	w.Snapshots = []worldSnapshot{point("shop/loose", "shop/data", "statefulset/mysql", 10, 11)}
	for _, claim := range []string{"data", "logs"} {
		s := point("shop/old-"+claim, "shop/"+claim, "statefulset/mysql", 1, 11)
		s.Retain, s.DeleteAfter, s.Members = "days", "2026-11-20", []string{"data", "logs"}
		w.Snapshots = append(w.Snapshots, s)
	}
	for _, day := range []int{20, 21} {
		w.Snapshots = append(w.Snapshots, daily(point(fmt.Sprintf("shop/data-%d", day), "shop/data", "statefulset/mysql", day, 11)),
			daily(point(fmt.Sprintf("shop/logs-%d", day), "shop/logs", "deployment/logs", day, 11)))
	}
	w.Snapshots = append(w.Snapshots, daily(point("shop/uploads-1", "shop/uploads", "deployment/web", 21, 11)), daily(point("crm/data-1", "crm/data", "statefulset/mysql", 21, 11)))
	theirs := daily(point("shop/mysql-2026-11-20", "shop/mysql", "", 20, 11))
	theirs.Run, theirs.BackupNS = "", true
	w.Snapshots = append(w.Snapshots, theirs)
	stuck := point("crm/stuck", "crm/data", "statefulset/mysql", 2, 11)
	stuck.Retain, stuck.DeleteAfter = "days", "2026-11-20"
	w.Snapshots = append(w.Snapshots, stuck)
	w.Storage.Keeps = []string{"crm/stuck"}
	beside := worldRepository{Name: "main", Namespace: "shop", Address: "s3:s3.example.com/shop", Cluster: "prod-eu"}
	w.Repositories = append(w.Repositories[:1:1], beside)
	w.Repositories[0].Copies = nil
	for i, day := range []int{1, 20, 21} {
		cut := time.Date(2026, 11, day, 1, 15, 0, 0, time.UTC)
		run := cut.Format("20060102") + "-011500-aaaa"
		tags := []string{"backsnap", "ns=shop", "pvc=data", "snapshot=gone-" + run, fmt.Sprintf("vsuid=%d", i), "run=" + run, "consistency=crash", "retain=calendar"}
		if day == 1 {
			tags = append(tags[:7], "retain=days", "delete-after=2026-11-08")
		}
		w.Repositories[0].Copies = append(w.Repositories[0].Copies, worldCopy{
			ID: fmt.Sprintf("7f3a91c%d", i), Host: "prod-eu/shop/data", Tags: tags, App: "statefulset/mysql", Members: []string{"data"}, Time: cut,
		})
	}
}

// backup-ns's sweep fails where there is nothing to sweep: number 5 of the study
// of the programs before ours.
func TestSeed05AnEmptySweepIsNoFailure(t *testing.T) {
	for name, w := range map[string]*world{
		"nothing there": {},
		"nothing is due": {
			Claims:    []worldClaim{{Name: "shop/data", Driver: "csi.example.com"}},
			Snapshots: []worldSnapshot{{Name: "shop/data-1", Claim: "shop/data", App: "pvc/data", Run: "20261121-011500-p9aa", Consistency: "crash", Retain: "calendar", Periods: map[string]string{"daily": "2026-11-21"}, Cut: time.Date(2026, 11, 21, 1, 15, 42, 0, time.UTC), Ready: true}},
		},
	} {
		for _, args := range [][]string{{}, {"--sweep-only"}, {"--orphans=sweep"}} {
			code, stdout, stderr := invoke(t, w, nil, append([]string{"prune", "--yes"}, args...)...)
			if code != 0 || stdout != "" || strings.Contains(stderr, "error:") {
				t.Errorf("%s, %v: exit %d\n%s%s", name, args, code, stdout, stderr)
			}
		}
	}
}
