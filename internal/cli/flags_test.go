package cli_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/backsnap/kubectl-backsnap/internal/cli"
)

// shopWorld is two databases, each in a namespace of its own, that are copied.
func shopWorld() *world {
	pod := func(namespace string) worldPod {
		return worldPod{Name: namespace + "/mysql-0", Owner: "statefulset/mysql", Image: "mysql:8.4", Claims: []string{"data"}, Database: &database{Waits: 2}}
	}
	return &world{
		Classes: []worldClass{{Name: "snap", Driver: "csi.example.com", Default: true}, {Name: "other", Driver: "csi.example.com"}},
		Claims: []worldClaim{
			{Name: "crm/data", Driver: "csi.example.com", Labels: map[string]string{"tier": "data"}},
			{Name: "shop/data", Driver: "csi.example.com", Labels: map[string]string{"tier": "data"}},
			{Name: "shop/uploads", Driver: "csi.example.com"},
			{Name: "shop/data-mysql-0", Driver: "csi.example.com", Annotations: map[string]string{"backsnap.sh/schedule": ""}},
		},
		Pods: []worldPod{pod("crm"), pod("shop")},
		Apps: []worldApp{
			{Name: "crm/mysql", Kind: "statefulset", Replicas: 1, Claims: []string{"data"}, Autoscaler: "mysql"},
			{Name: "shop/mysql", Kind: "statefulset", Replicas: 1, Claims: []string{"data", "data-mysql-0"}},
		},
		Volumes: []worldVolume{
			{Name: "pv-data-mysql-0", Run: "20261121-091600-b2c1", Role: "new", Of: "shop/data-mysql-0", Claim: "uid-of-data-mysql-0", Reclaim: "Delete"},
			{Name: "pv-before", Run: "20261121-091600-b2c1", Role: "old", Of: "shop/data-mysql-0", Claim: "uid-before", Reclaim: "Delete"},
		},
		Repositories: []worldRepository{{
			Name: "main", Address: "s3:s3.example.com/acme", Cluster: "prod-eu", Values: map[string]string{"RESTIC_PASSWORD": "hunter2", "RESTIC_REPOSITORY": "s3:s3.example.com/acme"},
			Copies: []worldCopy{
				{ID: "7f3a91c2", Host: "prod-eu/shop/data-mysql-0", Time: time.Date(2026, 11, 21, 1, 15, 42, 0, time.UTC), App: "statefulset/mysql", Tags: []string{
					"backsnap", "ns=shop", "pvc=data-mysql-0", "snapshot=data-mysql-0-20261121-011500-p9aa", "vsuid=uid-data-mysql-0-20261121-011500-p9aa", "run=20261121-011500-p9aa",
				}},
				{ID: "b19c02e4", Host: "prod-eu/shop/data", Time: time.Date(2026, 11, 21, 1, 15, 59, 0, time.UTC), App: "deployment/web", Tags: []string{
					"backsnap", "ns=shop", "pvc=data", "snapshot=data-1", "vsuid=uid-data-1", "run=20261121-011500-p9aa",
				}},
				{ID: "0c55de18", Host: "prod-us/shop/data-mysql-0", Time: time.Date(2026, 11, 20, 1, 15, 42, 0, time.UTC), App: "statefulset/mysql", Tags: []string{
					"backsnap", "ns=shop", "pvc=data-mysql-0", "snapshot=theirs-1", "vsuid=uid-theirs-1", "run=20261120-011500-p9aa",
				}},
			},
		}, {Name: "new", Address: "s3:s3.example.com/new", Cluster: "prod-eu"}},
		Snapshots: []worldSnapshot{
			{Name: "crm/data-1", Claim: "crm/data", App: "deployment/web", Run: "20261121-011500-p9aa", Consistency: "crash", Retain: "days", Cut: time.Date(2026, 11, 21, 1, 15, 59, 0, time.UTC), Ready: true},
			{Name: "shop/data-1", Claim: "shop/data", App: "deployment/web", Run: "20261121-011500-p9aa", Consistency: "crash", Retain: "calendar", Cut: time.Date(2026, 11, 21, 1, 15, 59, 0, time.UTC), Ready: true},
			ofMySQL("data-mysql-0"),
		},
		Contents: []worldContent{{
			Name: "snapcontent-3f2b", Snapshot: "shop/uploads-1", Claim: "shop/uploads", Run: "20261120-011500-p9aa", Policy: "Retain", App: "deployment/web", Consistency: "crash",
			Cut: time.Date(2026, 11, 20, 1, 15, 59, 0, time.UTC),
		}},
		Held: []string{"crm/20261122-011500-x7k2", "shop/20261122-011500-x7k2", "crm/20261101-011500-only"},
	}
}

// ofMySQL is a snapshot of a claim of statefulset/mysql.
func ofMySQL(claim string) worldSnapshot {
	return worldSnapshot{
		Name: "shop/" + claim + "-20261121-011500-p9aa", Claim: "shop/" + claim, App: "statefulset/mysql", Run: "20261121-011500-p9aa", Consistency: "application", Retain: "calendar",
		Cut: time.Date(2026, 11, 21, 1, 15, 42, 0, time.UTC), Ready: true, RestoreSize: "10Gi", Copies: []string{"main/7f3a91c2" + strings.Repeat("0", 56)}, Dumps: []string{"database shop", "users"},
	}
}

// effect is what is to be seen with a flag and not without it.
type effect struct{ base, flag, shows string }

// Every flag does something: each is on one line here, with what is to be
// seen with it and not without it. What is seen is all that was said, the exit
// code and the world that is left.
func TestEveryFlagHasAnEffect(t *testing.T) {
	commands := map[string]map[string]effect{
		"snapshot": {
			"all-namespaces":              {"", "-A", "created in crm"},
			"allow-missing-template-keys": {"-o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"", "--backup-namespace=elsewhere", "no repository in namespace elsewhere"},
			"cache-claim":                 {"", "--cache-claim=cache", "CacheClaim:cache"},
			"cache-size":                  {"", "--cache-size=5Gi", "CacheSize:5Gi"},
			"color":                       {"--progress=tty", "--color=always", "\x1b[32m"},
			"consistency":                 {"", "--consistency=application", "BS011"},
			"dry-run":                     {"", "--dry-run=client", "exit 0\nPlan"},
			"dump-timeout":                {"", "--dump-timeout=90s", "90 seconds"},
			"in-namespace":                {"", "--in-namespace", "no repository in namespace shop"},
			"limit-upload":                {"", "--limit-upload=512", "at most 512 KiB/s"},
			"mover-deadline":              {"", "--mover-deadline=2h", "deadline 2h30m"},
			"mover-ttl":                   {"", "--mover-ttl=1h", "Keep:1h0m0s"},
			"exclude-namespace":           {"-A", "--exclude-namespace=c*", "skipped  crm/data: its namespace is left out"},
			"field-selector":              {"", "--field-selector=metadata.name=none", "no PersistentVolumeClaim is selected"},
			"filename":                    {"--repository=none", "-f testdata/manifests/more", "protected=1 "},
			"lock-dir":                    {"", "--lock-dir=/slots", `slots in "/slots"`},
			"lock-slots":                  {"", "--lock-slots=2", "2 slots"},
			"lock-timeout":                {"", "--lock-timeout=9m", "wait 9m0s"},
			"movers-per-node":             {"", "--movers-per-node=2", "takes slot"},
			"output":                      {"", "-o json", `"kind": "SnapshotRun"`},
			"parallel":                    {"-A", "--parallel=1", "01:16:0"}, // alone, a dump waits a minute in vain for the other
			"pin":                         {"", "--pin", "pinned: true"},
			"plugin":                      {"", "--plugin=postgres", "dump by plugin postgres"},
			"progress":                    {"", "--progress=json", `"type":"progress"`},
			"quiet":                       {"", "-q", ")\n--\n--\n"},
			"recursive":                   {"-f testdata/manifests", "-R", "uploads-20261122-011500-x7k2 created"},
			"remove-dump":                 {"", "--remove-dump", "remove dump of 20261122-011500-x7k2 from /data of shop/mysql-0"},
			"repository":                  {"", "--repository=new", "app-consistent, off-site 3ac951c2"},
			"restic-image":                {"", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"retry-lock":                  {"", "--retry-lock=7s", "wait 7s for a lock"},
			"retain":                      {"", "--retain=3d", `deleteAfter: "2026-11-25"`},
			"selector":                    {"", "-l tier=none", "no PersistentVolumeClaim is selected"},
			"snapshot-class":              {"", "--snapshot-class=other", "class: other"},
			"template":                    {"-o go-template", "--template={{.kind}}", "SnapshotRun"},
			"timeout":                     {"", "--timeout=3s", "BS022"},
			"timezone":                    {"--retain=calendar", "--timezone=Pacific/Honolulu", `daily: "2026-11-21"`},
			"wait":                        {"", "--wait=false", "copy under way to main"},
		},
		"abort": {
			"all-namespaces":              {"run/20261101-011500-only --yes", "-A", "lock crm over run 20261101-011500-only"},
			"allow-missing-template-keys": {"run/20261122-011500-x7k2 --dry-run=client -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"run/20261101-011500-aaaa", "--backup-namespace=elsewhere", "nor in backup namespace elsewhere"},
			"color":                       {"run/20261110-011500-left --yes --progress=tty", "--color=always", "\x1b[33m"},
			"dry-run":                     {"run/20261110-011500-left --yes", "--dry-run=server", "try to delete"},
			"output":                      {"run/20261122-011500-x7k2 --yes", "-o json", `"kind": "AbortRun"`},
			"progress":                    {"run/20261110-011500-left --yes", "--progress=json", `"type":"warning"`},
			"quiet":                       {"run/20261110-011500-left --yes", "-q", "left deleted\n--\n--\n"},
			"template":                    {"run/20261122-011500-x7k2 --dry-run=client -o go-template", "--template={{.kind}}", "AbortRun"},
			"yes":                         {"run/20261122-011500-x7k2", "--yes", "exit 0"},
		},
		"copy": {
			"dry-run":           {"", "--dry-run=client", "exit 0\nPlan"},
			"exclude-namespace": {"-A", "--exclude-namespace=s*", "copied=1 "},
			"field-selector":    {"", "--field-selector=metadata.name=none", "no restore point is selected"},
			"filename":          {"", "-f testdata/manifests/more", "no snapshot of pvc/uploads"},
			"quiet":             {"", "-q", ")\n--\n--\n"},
			"recursive":         {"-f testdata/manifests", "-R", "no snapshot of pvc/uploads"},
			"all-namespaces":    {"", "-A", "copied in crm"},
			"output":            {"", "-o json", `"kind": "CopyRun"`},
			"parallel":          {"-A", "--parallel=1", "01:15:50 result"},
			"repository":        {"", "--repository=new", "(off-site 32a182e8)"},
			"selector":          {"", "-l backsnap.sh/retain=days", "no restore point is selected"},
			"template":          {"-o go-template", "--template={{.kind}}", "CopyRun"},
			"timeout":           {"", "--timeout=3s", "not waited for [BS022]"},
		},
		"restore": {
			"allow-missing-template-keys": {"data-mysql-0 -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"at":                          {"data-mysql-0", "--at=2026-11-20T00:00", "BS061"},
			"backup-namespace":            {"data-mysql-0 --from=copy", "--backup-namespace=elsewhere", "whose Secret is not in namespace elsewhere"},
			"color":                       {"data-mysql-0 --progress=tty", "--color=always", "\x1b[32m"},
			"dry-run":                     {"data-mysql-0", "--dry-run=client", "exit 0\nPlan"},
			"dump":                        {"data-mysql-0 --dump-to=out/", "--dump=shop", "dumps of database shop  from"},
			"dump-to":                     {"data-mysql-0", "--dump-to=out/", "users, 14 B, SHA-256 as recorded"},
			"file":                        {"data-mysql-0 --to-dir=out", "--file=conf.d", "1 files"},
			"from":                        {"data-mysql-0", "--from=copy", "(copy 7f3a91c2 in main"},
			"from-cluster":                {"data", "--from-cluster=prod-us", "(copy 0c55de18 in main"},
			"database":                    {"data-mysql-0 --load --yes", "--database=fresh", "database fresh loaded in pod/mysql-0"},
			"in-namespace":                {"data-mysql-0 --from=copy", "--in-namespace", "whose Secret is not in namespace shop"},
			"into-claim":                  {"data-mysql-0 --in-namespace --yes", "--into-claim", "BS056"},
			"into":                        {"data-mysql-0 --load --yes", "--into=sts/other", "no running pod of statefulset/other in shop"},
			"load":                        {"data-mysql-0 --yes", "--load", "database shop loaded in pod/mysql-0"},
			"load-timeout":                {"data-mysql-0 --load --yes", "--load-timeout=7s", "7 seconds"},
			"lock-dir":                    {"data-mysql-0", "--lock-dir=/slots", `slots in "/slots"`},
			"lock-slots":                  {"data-mysql-0", "--lock-slots=2", "2 slots"},
			"lock-timeout":                {"data-mysql-0", "--lock-timeout=9m", "wait 9m0s"},
			"mover-deadline":              {"data-mysql-0 --from=copy", "--mover-deadline=2h", "deadline 2h30m"},
			"output":                      {"data-mysql-0", "-o json", `"kind": "RestoreRun"`},
			"parallel":                    {"statefulset/mysql --from=copy", "--parallel=1", "duration=30s"}, // ten seconds a mover, five a claim
			"progress":                    {"data-mysql-0", "--progress=json", `"type":"progress"`},
			"quiet":                       {"data-mysql-0", "-q", ")\n--\n--\n"},
			"restic-image":                {"data-mysql-0 --from=copy", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"retry-lock":                  {"data-mysql-0 --from=copy", "--retry-lock=7s", "wait 7s for a lock"},
			"size":                        {"data-mysql-0", "--size=20Gi", "of 21474836480 bytes"},
			"storage-class":               {"data-mysql-0", "--storage-class=slow", "class slow"},
			"template":                    {"data-mysql-0 -o go-template", "--template={{.kind}}", "RestoreRun"},
			"timeout":                     {"data-mysql-0", "--timeout=3s", "BS022"},
			"to-dir":                      {"data-mysql-0", "--to-dir=out", "out/: 2 files"},
			"to-namespace":                {"data-mysql-0", "--to-namespace=scratch", "created in scratch"},
			"to-pvc":                      {"data-mysql-0", "--to-pvc=back", "persistentvolumeclaim/back created"},
			"in-place":                    {"data-mysql-0 --yes", "--in-place", "statefulset.apps/mysql restored"},
			"yes":                         {"data-mysql-0 --in-place", "--yes", "statefulset.apps/mysql restored"},
			"app-timeout":                 {"data-mysql-0 --in-place --yes", "--app-timeout=1s", "BS081"},
			"ignore-controller":           {"data -n crm --in-place --yes", "--ignore-controller", "statefulset.apps/mysql restored"},
			"rollback":                    {"--yes", "--rollback=20261121-091600-b2c1", "statefulset.apps/mysql rolled back"},
			"commit":                      {"--yes", "--commit=20261121-091600-b2c1", "statefulset.apps/mysql committed"},
			"grace":                       {"data-mysql-0 --in-place --yes", "--grace=48h", "from 2026-11-24T01:15"},
		},
		"list": {
			"all-namespaces":              {"", "-A", "NAMESPACE"},
			"backup-namespace":            {"--from-repository=main", "--backup-namespace=elsewhere", "BS056"},
			"color":                       {"--from-repository=stuck --progress=tty", "--color=always", "\x1b[33m"},
			"for-namespace":               {"-A --from-repository=each", "--for-namespace=shop", "exit 0"},
			"from-cluster":                {"-A --from-repository=main", "--from-cluster=prod-us", "copy    0c55de18"},
			"from-repository":             {"", "--from-repository=main", "copy    7f3a91c2"},
			"progress":                    {"--from-repository=stuck", "--progress=json", `"type":"warning"`},
			"quiet":                       {"--from-repository=stuck", "-q", "exit 1\n--\nerror"},
			"restic-image":                {"--from-repository=main", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"timeout":                     {"--from-repository=main", "--timeout=7m", "deadline 37m"},
			"allow-missing-template-keys": {"-o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"exclude-namespace":           {"", "--exclude-namespace=s*", "No restore points found"},
			"field-selector":              {"", "--field-selector=metadata.name=none", "No restore points found"},
			"filename":                    {"", "-f testdata/manifests/more", "No restore points found"},
			"no-headers":                  {"", "--no-headers", "exit 0\ndata-1"},
			"output":                      {"", "-o name", "volumesnapshot.snapshot.storage.k8s.io/data-1"},
			"recursive":                   {"-f testdata -o name", "-R", "volumesnapshot.snapshot.storage.k8s.io/data-1"},
			"selector":                    {"", "-l backsnap.sh/retain=days", "No restore points found"},
			"sort-by":                     {"-o name", "--sort-by=.cut", "exit 0\nvolumesnapshot.snapshot.storage.k8s.io/data-mysql-0"},
			"template":                    {"-o go-template", "--template={{.kind}}", "RestorePointList"},
			"watch":                       {"-o json", "-w", "}\n{\n"},
		},
		"status": {
			"all-namespaces":              {"", "-A", "crm "},
			"allow-missing-template-keys": {"-o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"calendar":                    {"", "--calendar", "x failed, nothing usable"},
			"color":                       {"", "--color=always", "\x1b[31m"},
			"details":                     {"", "--details", "  uploads"},
			"exclude-namespace":           {"", "--exclude-namespace=s*", "No PersistentVolumeClaim is selected"},
			"fail-on":                     {"uploads", "--fail-on=warn", "exit 0"},
			"field-selector":              {"", "--field-selector=metadata.name=none", "No PersistentVolumeClaim is selected"},
			"filename":                    {"", "-f testdata/manifests/more", "1 app, 1 volume"},
			"max-age":                     {"", "--max-age=3d", "3d "},
			"no-headers":                  {"", "--no-headers", "exit 7\nshop "},
			"output":                      {"", "-o json", `"kind": "ProtectionList"`},
			"recursive":                   {"-f testdata/manifests -o name", "-R", "pvc/uploads"},
			"require":                     {"-o json", "--require=offsite", `"require": "offsite"`},
			"selector":                    {"", "-l tier=none", "No PersistentVolumeClaim is selected"},
			"template":                    {"-o go-template", "--template={{.kind}}", "ProtectionList"},
			"timezone":                    {"--calendar data", "--timezone=Pacific/Honolulu", "oldest 2026-11-20"},
		},
		"describe": {
			"all-namespaces":              {"run/20261121-011500-p9aa", "-A", "Namespace:         crm"},
			"allow-missing-template-keys": {"data -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"data", "--backup-namespace=elsewhere", "movers were looked for in elsewhere"},
			"exclude-namespace":           {"data", "--exclude-namespace=s*", "no restore point of pvc/data"},
			"field-selector":              {"data", "--field-selector=metadata.name=none", "no restore point of pvc/data"},
			"filename":                    {"", "-f testdata/manifests", "exit 0\nName:              data-1"},
			"output":                      {"data", "-o name", "volumesnapshot.snapshot.storage.k8s.io/data-1"},
			"recursive":                   {"-f testdata/manifests -o name", "-R", "no restore point of pvc/uploads"},
			"selector":                    {"data", "-l backsnap.sh/retain=days", "no restore point of pvc/data"},
			"template":                    {"data -o go-template", "--template={{.kind}}", "RestorePointList"},
		},
		"logs": {
			"all-namespaces":   {"run/20261110-011500-left", "-A", "crm/data  asked for"},
			"backup-namespace": {"run/20261101-011500-aaaa", "--backup-namespace=elsewhere", "nor in backup namespace elsewhere"},
			"follow":           {"run/20261110-011500-left", "-f", "copied to main as"},
			"phase":            {"run/20261110-011500-left --phase=snapshot", "--phase=upload", "restic: 50%"},
		},
		"repo create": {
			"allow-missing-template-keys": {"x --env-file=main.env -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"x --env-file=main.env -o json", "--backup-namespace=elsewhere", `"namespace": "elsewhere"`},
			"ca-cert":                     {"x --env-file=main.env", "--ca-cert=main.env", "RESTIC_CACERT: /repository/ca.crt"},
			"claim":                       {"x --env-file=main.env", "--claim=store", "does not lie below /repository-claim"},
			"cluster-name":                {"x --env-file=main.env", "--cluster-name=prod-us", "cluster: prod-us"},
			"color":                       {"stuck --env-file=main.env --init --progress=tty", "--color=always", "\x1b[33m"},
			"dry-run":                     {"x --env-file=main.env", "--dry-run=server", "created (server dry run)"},
			"env-file":                    {"x", "--env-file=main.env", "secret/x created"},
			"for-namespace":               {"every --env-file=each.env --init", "--for-namespace=shop", "repository/every initialised"},
			"init":                        {"x --env-file=main.env", "--init", "repository/x initialised"},
			"output":                      {"x --env-file=main.env", "-o json", `"state": "created"`},
			"progress":                    {"stuck --env-file=main.env --init", "--progress=json", `"type":"warning"`},
			"quiet":                       {"stuck --env-file=main.env --init", "-q", "unchanged\n--\nerror"},
			"restic-image":                {"x --env-file=main.env --init", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"template":                    {"x --env-file=main.env -o go-template", "--template={{.kind}}", "Repository"},
			"timeout":                     {"x --env-file=main.env --init", "--timeout=7m", "deadline 37m"},
		},
		"repo check": {
			"allow-missing-template-keys": {"new -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"new", "--backup-namespace=elsewhere", "BS056"},
			"color":                       {"stuck --progress=tty", "--color=always", "\x1b[33m"},
			"for-namespace":               {"each", "--for-namespace=shop", "repository/each has no errors"},
			"output":                      {"new", "-o json", "RepositoryCheck"},
			"progress":                    {"stuck", "--progress=json", `"type":"warning"`},
			"quiet":                       {"stuck", "-q", "exit 1\n--\nerror"},
			"read-data-subset":            {"new", "--read-data-subset=1/7", "examine [--json --read-data-subset 1/7]"},
			"restic-image":                {"new", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"retry-lock":                  {"new", "--retry-lock=7s", "wait 7s"},
			"template":                    {"new -o go-template", "--template={{.kind}}", "RepositoryCheck"},
			"timeout":                     {"new", "--timeout=7m", "deadline 47m"},
		},
		"repo unlock": {
			"allow-missing-template-keys": {"new -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"new", "--backup-namespace=elsewhere", "BS056"},
			"color":                       {"stuck --progress=tty", "--color=always", "\x1b[33m"},
			"for-namespace":               {"each", "--for-namespace=shop", "repository/each has no locks"},
			"output":                      {"new", "-o json", "RepositoryUnlock"},
			"progress":                    {"stuck", "--progress=json", `"type":"warning"`},
			"quiet":                       {"stuck", "-q", "exit 1\n--\nerror"},
			"remove-all":                  {"busy --yes", "--remove-all", "repository/busy unlocked"},
			"restic-image":                {"new", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"template":                    {"new -o go-template", "--template={{.kind}}", "RepositoryUnlock"},
			"timeout":                     {"new", "--timeout=7m", "deadline 37m"},
			"yes":                         {"busy --remove-all", "-y", "repository/busy unlocked"},
		},
		"repo stats": {
			"allow-missing-template-keys": {"new -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"new", "--backup-namespace=elsewhere", "BS056"},
			"color":                       {"stuck --progress=tty", "--color=always", "\x1b[33m"},
			"for-namespace":               {"each", "--for-namespace=shop", "exit 0"},
			"no-headers":                  {"new", "--no-headers", "exit 0\nnew"},
			"output":                      {"new", "-o json", "RepositoryStats"},
			"progress":                    {"stuck", "--progress=json", `"type":"warning"`},
			"quiet":                       {"stuck", "-q", "exit 1\n--\nerror"},
			"restic-image":                {"new", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"template":                    {"new -o go-template", "--template={{.kind}}", "RepositoryStats"},
			"timeout":                     {"new", "--timeout=7m", "deadline 37m"},
		},
		"version": {
			"allow-missing-template-keys": {"-o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"output":                      {"", "-o json", `"kind": "Version"`},
			"server":                      {"", "--server", "v1.36.3"},
			"template":                    {"-o go-template", "--template={{.kind}}", "Version"},
		},
		"repo init": {
			"allow-missing-template-keys": {"new -o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"new", "--backup-namespace=elsewhere", "BS056"},
			"cluster-name":                {"new", "--cluster-name=prod-us", "this cluster is called prod-eu"},
			"color":                       {"stuck --progress=tty", "--color=always", "\x1b[33m"},
			"for-namespace":               {"each", "--for-namespace=shop", "repository/each initialised"},
			"output":                      {"new", "-o name", "secret/new"},
			"progress":                    {"stuck", "--progress=json", `"type":"warning"`},
			"quiet":                       {"stuck", "-q", "exit 1\n--\nerror"},
			"restic-image":                {"new", "--restic-image=registry.example.com/restic", "image registry.example.com/restic"},
			"template":                    {"new -o go-template", "--template={{.kind}}", "Repository"},
			"timeout":                     {"new", "--timeout=7m", "deadline 37m"},
		},
		"completion install": {"dir": {"", "--dir=elsewhere", "elsewhere/kubectl_complete-backsnap created"}},
		"repo list": {
			"allow-missing-template-keys": {"-o jsonpath={.nonsense}", "--allow-missing-template-keys=false", "nonsense is not found"},
			"backup-namespace":            {"", "--backup-namespace=elsewhere", "No repositories found in namespace elsewhere"},
			"no-headers":                  {"", "--no-headers", "exit 0\nbusy"},
			"output":                      {"", "-o name", "secret/main"},
			"template":                    {"-o go-template", "--template={{.kind}}", "RepositoryList"},
		},
	}
	// The pod of a mover is shaped in one way, whatever the mover is for.
	shapes := map[string]effect{
		"mover-limits":          {"", "--mover-limits=cpu=2,memory=2Gi", "MemoryLimit:2Gi"},
		"mover-priority-class":  {"", "--mover-priority-class=low", "PriorityClass:low"},
		"mover-pull-secret":     {"", "--mover-pull-secret=a,b", "PullSecrets:[a b]"},
		"mover-requests":        {"", "--mover-requests=cpu=1,memory=512Mi", "pod CPU:1"},
		"mover-service-account": {"", "--mover-service-account=uploader", "ServiceAccount:uploader"},
		"mover-toleration":      {"", "--mover-toleration=a=b:NoExecute", "{Key:a Value:b Effect:NoExecute}"},
		"run-as-user":           {"", "--run-as-user=999", "User:999"},
	}
	commands["prune"], commands["adopt"] = pruneEffects(), adoptEffects()
	commands["schedule create"], commands["schedule list"] = scheduleEffects(), scheduleListEffects()
	commands["snapshot"]["if-due"] = effect{"", "--if-due", "are not due yet, or have no schedule"}
	commands["snapshot"]["schedule"] = effect{"--if-due", "--schedule=@daily", "created (crash"}
	for name, base := range map[string]string{
		"prune": "--dry-run", "list": "--from-repository=main", "repo check": "new", "repo create": "x --env-file=main.env --init", "repo init": "new", "repo stats": "new", "repo unlock": "new",
		"restore": "data-mysql-0 --from=copy", "snapshot": "",
	} {
		for flag, e := range shapes {
			e.base = base
			commands[name][flag] = e
		}
	}
	delete(commands["restore"], "run-as-user") // such a mover must be root
	for _, flag := range ownFlags()["copy"] {
		if _, own := commands["copy"][flag]; !own { // it does there what it does here
			commands["copy"][flag] = commands["snapshot"][flag]
		}
	}
	for name, flags := range ownFlags() {
		for _, flag := range flags {
			e, known := commands[name][flag]
			if !known {
				t.Errorf("%s --%s: does it do anything?", name, flag)
			}
			t.Run(name+" --"+flag, func(t *testing.T) {
				without, with := observe(t, name, e.base), observe(t, name, e.base+" "+e.flag)
				if !strings.Contains(with, e.shows) {
					t.Errorf("%q is not to be seen with %s:\n%s", e.shows, e.flag, with)
				}
				if strings.Contains(without, e.shows) {
					t.Errorf("%q is to be seen without %s too:\n%s", e.shows, e.flag, without)
				}
			})
		}
		for flag := range commands[name] {
			if !slices.Contains(flags, flag) {
				t.Errorf("%s has no flag --%s", name, flag)
			}
		}
	}
}

// ownFlags are the flags of each command that are not kubectl's.
func ownFlags() map[string][]string {
	flags := map[string][]string{}
	for _, cmd := range commandsOf(cli.New(&cli.Env{Getenv: func(string) string { return "" }})) {
		if !cmd.HasParent() || cmd.HasSubCommands() || cmd.Name() == "options" {
			continue
		}
		name := strings.TrimPrefix(cmd.CommandPath(), "kubectl backsnap ")
		flags[name] = nil
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				flags[name] = append(flags[name], f.Name)
			}
		})
	}
	return flags
}

// commandsOf are cmd and all commands under it.
func commandsOf(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		all = append(all, commandsOf(sub)...)
	}
	return all
}

// observe is all that comes of a command in shopWorld.
func observe(t *testing.T, name, args string) string {
	t.Helper()
	w := shopWorld()
	w.Repositories = append(w.Repositories,
		worldRepository{Name: "each", Address: "s3:s3.example.com/{namespace}", Cluster: "prod-eu"},
		worldRepository{Name: "busy", Address: "s3:s3.example.com/busy", Cluster: "prod-eu", Locks: []worldLock{{Host: "laptop", PID: 42}}},
		worldRepository{
			Name: "stuck", Address: "s3:s3.example.com/acme", Cluster: "prod-eu", Restic: worldError{Stuck: "ImagePullBackOff: no such image"},
			Values: map[string]string{"RESTIC_PASSWORD": "hunter2", "RESTIC_REPOSITORY": "s3:s3.example.com/acme"},
		})
	w.Repositories[0].Copies = []worldCopy{
		{ID: "7f3a91c2", Host: "prod-eu/shop/data", Tags: []string{"backsnap", "ns=shop", "pvc=data", "snapshot=gone-1", "vsuid=1", "run=20261120-011500-p9aa"}, App: "statefulset/mysql"},
		{ID: "0c55de18", Host: "prod-us/shop/data", Tags: []string{"backsnap", "ns=shop", "pvc=data", "snapshot=theirs-1", "vsuid=2", "run=20261120-011500-p9aa"}, Time: time.Date(2026, 11, 20, 1, 15, 42, 0, time.UTC), App: "statefulset/mysql"},
	}
	switch name {
	case "snapshot", "copy", "restore":
		w.Repositories = w.Repositories[:2]
	case "prune":
		pruneWorld(w)
	case "adopt":
		w.Storage.Never = "stuck"
		w.Contents = append(w.Contents, worldContent{Name: "snapcontent-77aa", Snapshot: "shop/stuck-1", Claim: "shop/stuck", Run: "20261120-011500-p9aa", Policy: "Retain", Consistency: "crash"})
	case "schedule list":
		scheduleWorld(w)
	case "abort", "logs":
		w.Snapshots = append(w.Snapshots, worldSnapshot{Name: "shop/left", Claim: "shop/data", Run: "20261110-011500-left"},
			worldSnapshot{Name: "crm/left", Claim: "crm/data", Run: "20261110-011500-left"})
		w.Movers = append(w.Movers, worldMover{
			Name: "left-1", Parts: []string{"job"}, Run: "20261110-011500-left", Snapshot: "shop/left", Claim: "shop/data", Repository: "main",
			Log: []string{`{"message_type":"status","seconds_elapsed":1,"total_bytes":100,"bytes_done":50}`},
		})
	}
	if name == "list" {
		w.Later = []worldSnapshot{{Name: "shop/later", Claim: "shop/data", Run: "20261122-011500-p9aa"}}
	}
	if name == "restore" {
		w.Pods[1].Claims, w.Pods[1].Database = append(w.Pods[1].Claims, "data-mysql-0"), &database{Databases: []string{"shop"}}
		w.Snapshots = append(w.Snapshots, ofMySQL("binlog-mysql-0"))
	}
	code, stdout, stderr := invoke(t, w, nil, append(strings.Fields(name), strings.Fields(args)...)...)
	left, err := yaml.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("exit %d\n%s--\n%s--\n%s", code, stdout, stderr, left)
}
