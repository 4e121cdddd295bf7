package snapshot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // Berlin must be there on every machine

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/snapshot"
	"github.com/backsnap/kubectl-backsnap/plugins"
)

const run catalog.Run = "20261122-011500-x7k2"

// notes are annotations: key, value, key, value.
func notes(kv ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m["backsnap.sh/"+kv[i]] = kv[i+1]
	}
	return m
}

// claim is a bound one of the driver that has one snapshot class. A change
// makes it another.
func claim(name string, changes ...func(*catalog.Claim)) catalog.Claim {
	c := catalog.Claim{
		Namespace: "shop", Name: name, UID: "uid-of-" + name, Phase: "Bound", Volume: "pv-" + name, StorageClass: "fast", Driver: "csi.example.com",
		Request: 10 << 30, Capacity: 10 << 30, AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem", FileSystem: "ext4",
	}
	for _, change := range changes {
		change(&c)
	}
	return c
}

func driver(name string) func(*catalog.Claim) { return func(c *catalog.Claim) { c.Driver = name } }
func labels(kv ...string) func(*catalog.Claim) {
	return func(c *catalog.Claim) { c.Labels = map[string]string{kv[0]: kv[1]} }
}
func noted(kv ...string) func(*catalog.Claim) {
	return func(c *catalog.Claim) { c.Annotations = notes(kv...) }
}
func from(namespace string) func(*catalog.Claim) {
	return func(c *catalog.Claim) { c.Namespace = namespace }
}

// pod runs one container and mounts claims as /name. owner is TYPE/NAME, image
// the container's.
func pod(name, owner, image string, claims ...string) catalog.Pod {
	kind, of, _ := strings.Cut(owner, "/")
	c := catalog.Container{Name: "main", Image: image}
	for _, claim := range claims {
		c.Mounts = append(c.Mounts, catalog.Mount{Claim: claim, Path: "/" + claim})
	}
	return catalog.Pod{Namespace: "shop", Name: name, Owner: catalog.Workload{Kind: kind, Name: of}, Phase: "Running", Ready: true, Containers: []catalog.Container{c}}
}

func podLike(p catalog.Pod, change func(*catalog.Pod)) catalog.Pod {
	change(&p)
	return p
}

var classes = []catalog.SnapshotClass{
	{Name: "snap", Driver: "csi.example.com"},
	{Name: "two-a", Driver: "two.example.com"}, {Name: "two-b", Driver: "two.example.com"},
	{Name: "def-a", Driver: "def.example.com"}, {Name: "def-b", Driver: "def.example.com", Default: true},
	{Name: "dd-a", Driver: "dd.example.com", Default: true}, {Name: "dd-b", Driver: "dd.example.com", Default: true},
}

// describe is a plan in short lines: apps, then skips.
func describe(p snapshot.Plan) []string {
	lines := []string{}
	for _, a := range p.Apps {
		line := fmt.Sprintf("%s/%s %s", a.Namespace, a.Name, a.Effort)
		if a.Hook != nil {
			line += " dump " + a.Hook.Plugin.Name + " in"
			for _, c := range a.Hook.Candidates {
				line += " " + c.Pod + "/" + c.Container
			}
		}
		line += " (" + a.Reason + ")"
		for _, v := range a.Volumes {
			line += fmt.Sprintf(" %s:%s:%s", v.Claim.Name, v.Class, v.Retain)
		}
		if a.Err != nil {
			line += " " + string(catalog.CodeOf(a.Err))
		}
		lines = append(lines, line)
	}
	for _, s := range p.Skips {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("skip %s/%s %s: %s", s.Claim.Namespace, s.Claim.Name, s.Reason, s.Code)))
	}
	return lines
}

// request is what `snapshot` without any flag asks for.
func request(changes ...func(*snapshot.Request)) snapshot.Request {
	r := snapshot.Request{
		Run: run, Effort: snapshot.Auto, Retain: catalog.Retain{Days: 30}, Zone: time.UTC, DumpTimeout: 30 * time.Minute, Timeout: time.Hour, Parallel: 4,
	}
	for _, change := range changes {
		change(&r)
	}
	return r
}

func targets(list ...string) func(*snapshot.Request) {
	return func(r *snapshot.Request) {
		for _, t := range list {
			kind, name, _ := strings.Cut(t, "/")
			namespace := "shop"
			if kind == "namespace" {
				namespace = name
			}
			r.Targets = append(r.Targets, snapshot.Target{Namespace: namespace, Kind: kind, Name: name})
		}
	}
}

func effort(e snapshot.Effort) func(*snapshot.Request) {
	return func(r *snapshot.Request) { r.Effort = e }
}
func class(name string) func(*snapshot.Request) { return func(r *snapshot.Request) { r.Class = name } }
func plugin(name string) func(*snapshot.Request) {
	return func(r *snapshot.Request) { r.Plugin = name }
}

func TestMakePlan(t *testing.T) {
	mysql := pod("mysql-0", "statefulset/mysql", "mysql:8.4", "data", "binlog")
	web := pod("web-1", "deployment/web", "nginx:1.27", "uploads")
	for _, c := range []struct {
		name    string
		request snapshot.Request
		inv     catalog.Inventory
		want    []string
	}{
		{
			name: "every claim of the namespace; those of one app together; one that no pod mounts for itself", request: request(),
			inv: catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data"), claim("old"), claim("uploads")}, Pods: []catalog.Pod{mysql, web}},
			want: []string{
				"shop/deployment/web auto (no database known in image nginx:1.27) uploads:snap:30d",
				"shop/pvc/old auto (not mounted) old:snap:30d",
				"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) binlog:snap:30d data:snap:30d",
			},
		},
		{name: "nothing there", request: request(), want: []string{}},

		// Targets.
		{
			name: "a workload is all claims that its pods mount", request: request(targets("statefulset/mysql")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data"), claim("uploads")}, Pods: []catalog.Pod{mysql, web}},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) binlog:snap:30d data:snap:30d"},
		},
		{
			name: "a pod is all claims that it mounts", request: request(targets("pod/web-1")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("data"), claim("uploads")}, Pods: []catalog.Pod{mysql, web}},
			want: []string{"shop/deployment/web auto (no database known in image nginx:1.27) uploads:snap:30d"},
		},
		{
			name: "a claim of an app is cut alone", request: request(targets("pvc/data")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) data:snap:30d"},
		},
		{
			name: "a claim named twice is cut once", request: request(targets("pvc/data", "statefulset/mysql")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) binlog:snap:30d data:snap:30d"},
		},
		{
			name: "a namespace is all of its claims", request: request(targets("namespace/crm")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("data", from("crm")), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"crm/pvc/data auto (not mounted) data:snap:30d"},
		},
		{
			name: "a selector is asked of the claims",
			request: request(func(r *snapshot.Request) {
				r.Selects = func(c catalog.Claim) bool { return c.Labels["tier"] == "data" }
			}),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data", labels("tier", "data"))}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) data:snap:30d"},
		},
		{
			name: "a selector within a target",
			request: request(targets("statefulset/mysql"), func(r *snapshot.Request) {
				r.Selects = func(c catalog.Claim) bool { return c.Labels["tier"] == "data" }
			}),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("data", labels("tier", "data")), claim("uploads", labels("tier", "data"))}, Pods: []catalog.Pod{mysql, web}},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) data:snap:30d"},
		},

		{
			name: "a namespace that is left out, and what is left out with it",
			request: request(func(r *snapshot.Request) {
				r.Excludes = func(ns string) string { return map[string]string{"crm": "crm is left out"}[ns] }
			}),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("a", from("crm")), claim("b", from("crm"), noted("schedule", "")), claim("a")}},
			want: []string{"shop/pvc/a auto (not mounted) a:snap:30d", "skip crm/a crm is left out:", "skip crm/b crm is left out:"},
		},
		{
			name: "marks of the programs that people come from", request: request(),
			inv: catalog.Inventory{
				Namespaces: map[string]map[string]string{"crm": {"backsnap.skyb.it/schedule": ""}, "shop": {}},
				Claims: []catalog.Claim{
					claim("a", from("crm")),
					claim("b", from("crm"), func(c *catalog.Claim) { c.Annotations = map[string]string{"backsnap.skyb.it/schedule": "@daily"} }),
					claim("c", func(c *catalog.Claim) { c.Annotations = map[string]string{"backsnap.skyb.it/schedule": ""} }),
					claim("d", func(c *catalog.Claim) { c.Annotations = map[string]string{"skyb.it/backsnap-no-backup": ""} }),
					claim("e", func(c *catalog.Claim) {
						c.Annotations = map[string]string{"skyb.it/backsnap-no-backup": "yes", "backsnap.skyb.it/schedule": "@daily"}
					}),
					claim("f", func(c *catalog.Claim) {
						c.Annotations = map[string]string{"skyb.it/backsnap-no-backup": "yes", "backsnap.sh/schedule": "@daily"}
					}),
				},
			},
			want: []string{
				"crm/pvc/b auto (not mounted) b:snap:30d", "shop/pvc/f auto (not mounted) f:snap:30d",
				"skip crm/a excluded by annotation backsnap.skyb.it/schedule:", "skip shop/c excluded by annotation backsnap.skyb.it/schedule:",
				"skip shop/d excluded by annotation skyb.it/backsnap-no-backup:", "skip shop/e excluded by annotation skyb.it/backsnap-no-backup:",
			},
		},

		// Grouping.
		{
			name: "workloads that share a claim are one app", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("a"), claim("b"), claim("shared")},
				Pods:   []catalog.Pod{pod("x", "deployment/x", "x", "a", "shared"), pod("y", "deployment/y", "y", "b", "shared")},
			},
			want: []string{"shop/deployment/x+deployment/y auto (no database known in image x, y) a:snap:30d b:snap:30d shared:snap:30d"},
		},
		{
			name: "also those that are tied by a third", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("a"), claim("b"), claim("c"), claim("d"), claim("e"), claim("f")},
				Pods: []catalog.Pod{
					pod("x", "deployment/x", "x", "a", "f"), pod("y", "deployment/y", "y", "b"), pod("z", "deployment/z", "z", "c"),
					pod("tie", "job/tie", "tie", "a", "d"), pod("knot", "job/knot", "knot", "b", "d", "c"), pod("w", "deployment/w", "w", "e"),
				},
			},
			want: []string{
				"shop/deployment/w auto (no database known in image w) e:snap:30d",
				"shop/deployment/x+deployment/y+deployment/z+job/knot+job/tie auto (no database known in image knot, tie, x, y, z) a:snap:30d b:snap:30d c:snap:30d d:snap:30d f:snap:30d",
			},
		},
		{
			name: "workloads of one name in two namespaces are two apps", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("data", from("crm")), claim("data")},
				Pods:   []catalog.Pod{podLike(pod("mysql-0", "statefulset/mysql", "mysql", "data"), func(p *catalog.Pod) { p.Namespace = "crm" }), mysql},
			},
			want: []string{
				"crm/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) data:snap:30d",
				"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) data:snap:30d",
			},
		},
		{
			name: "a pod that has come to its end mounts nothing", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("data"), claim("uploads")},
				Pods: []catalog.Pod{
					podLike(pod("job-1", "job/job", "mysql", "data"), func(p *catalog.Pod) { p.Phase = "Succeeded" }),
					podLike(pod("job-2", "job/job", "mysql", "uploads"), func(p *catalog.Pod) { p.Phase = "Failed" }),
				},
			},
			want: []string{"shop/pvc/data auto (not mounted) data:snap:30d", "shop/pvc/uploads auto (not mounted) uploads:snap:30d"},
		},

		// Skips.
		{
			name: "what cannot be cut is skipped with its reason", request: request(),
			inv: catalog.Inventory{Claims: []catalog.Claim{
				claim("clone", func(c *catalog.Claim) { c.Role = catalog.RoleClone }),
				claim("going", func(c *catalog.Claim) { c.Terminating = true }),
				claim("local", driver("")),
				claim("lost", func(c *catalog.Claim) { c.Phase = "Lost" }),
				claim("no-class", driver("none.example.com")),
				claim("pending", func(c *catalog.Claim) { c.Phase, c.Volume, c.Driver = "Pending", "", "" }),
			}},
			want: []string{
				"skip shop/clone made by backsnap (clone):",
				"skip shop/going it is being deleted: BS024",
				"skip shop/local its volume pv-local is no CSI volume: it cannot be snapshotted: BS024",
				"skip shop/lost it is Lost, not bound to a volume: BS024",
				"skip shop/no-class no VolumeSnapshotClass for driver none.example.com: BS021",
				"skip shop/pending it is Pending, not bound to a volume: BS024",
			},
		},
		{
			name: "an empty schedule on the claim leaves it out; its namespace's is overruled by it", request: request(),
			inv: catalog.Inventory{
				Namespaces: map[string]map[string]string{"shop": notes("schedule", "")},
				Claims:     []catalog.Claim{claim("a"), claim("b", noted("schedule", "0 1 * * *")), claim("c", noted("schedule", ""))},
			},
			want: []string{
				"shop/pvc/b auto (not mounted) b:snap:30d",
				"skip shop/a excluded by annotation backsnap.sh/schedule:", "skip shop/c excluded by annotation backsnap.sh/schedule:",
			},
		},
		{
			name: "of an app, one volume may be skipped: it is no part of it then", request: request(),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog", noted("schedule", "", "consistency", "application")), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main (image mysql) data:snap:30d", "skip shop/binlog excluded by annotation backsnap.sh/schedule:"},
		},
		{
			name: "a database all of whose volumes are skipped is not dumped", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("data", driver("")), claim("uploads")},
				Pods:   []catalog.Pod{pod("mysql-0", "statefulset/shop", "mysql", "data"), pod("web-0", "statefulset/shop", "nginx", "uploads"), pod("tie-0", "statefulset/shop", "nginx", "data", "uploads")},
			},
			want: []string{
				"shop/statefulset/shop auto (no database known in image nginx) uploads:snap:30d",
				"skip shop/data its volume pv-data is no CSI volume: it cannot be snapshotted: BS024",
			},
		},
		{
			name: "an annotation that makes no sense costs its claim only", request: request(),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("a", noted("retain", "forever")), claim("b")}},
			want: []string{"shop/pvc/b auto (not mounted) b:snap:30d", `skip shop/a annotation backsnap.sh/retain: retain "forever": want days such as 30d, hours such as 12h, calendar or copied: BS002`},
		},
		{
			name: "or its app", request: request(),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("a", noted("consistency", "perfect")), claim("b", noted("plugin", "oracle")), claim("c")}},
			want: []string{"shop/pvc/a  () a:snap:30d BS002", "shop/pvc/b auto () b:snap:30d BS002", "shop/pvc/c auto (not mounted) c:snap:30d"},
		},

		// Snapshot classes.
		{
			name: "the driver's only class, its default, and none of two", request: request(),
			inv: catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b", driver("def.example.com")), claim("c", driver("two.example.com")), claim("d", driver("dd.example.com"))}},
			want: []string{
				"shop/pvc/a auto (not mounted) a:snap:30d", "shop/pvc/b auto (not mounted) b:def-b:30d",
				"skip shop/c driver two.example.com has 2 VolumeSnapshotClasses and no default: two-a, two-b: BS021",
				"skip shop/d driver dd.example.com has 2 default VolumeSnapshotClasses: dd-a, dd-b: BS021",
			},
		},
		{
			name: "the flag's class, where it is of the driver", request: request(class("two-b")),
			inv: catalog.Inventory{Claims: []catalog.Claim{claim("a"), claim("b", driver("two.example.com")), claim("c", driver("none.example.com"))}},
			want: []string{
				"shop/pvc/b auto (not mounted) b:two-b:30d",
				"skip shop/a VolumeSnapshotClass two-b is not one of its driver csi.example.com (snap): BS021",
				"skip shop/c VolumeSnapshotClass two-b is not one of its driver none.example.com (it has none): BS021",
			},
		},
		{
			name: "the claim's annotation goes before its namespace's, that before the flag", request: request(class("two-b")),
			inv: catalog.Inventory{
				Namespaces: map[string]map[string]string{"shop": notes("snapshot-class", "def-a")},
				Claims:     []catalog.Claim{claim("a", driver("def.example.com")), claim("b", driver("two.example.com"), noted("snapshot-class", "two-a")), claim("c", driver("two.example.com"))},
			},
			want: []string{
				"shop/pvc/a auto (not mounted) a:def-a:30d", "shop/pvc/b auto (not mounted) b:two-a:30d",
				"skip shop/c VolumeSnapshotClass def-a is not one of its driver two.example.com (two-a, two-b): BS021",
			},
		},

		// Consistency and plugins.
		{
			name: "application, and no plugin knows the app", request: request(effort(snapshot.Application)),
			inv: catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data"), claim("old"), claim("uploads")}, Pods: []catalog.Pod{mysql, web}},
			want: []string{
				"shop/deployment/web application (no database known in image nginx:1.27) uploads:snap:30d BS011",
				"shop/pvc/old application (not mounted) old:snap:30d BS011",
				"shop/statefulset/mysql application dump mysql in mysql-0/main (image mysql) binlog:snap:30d data:snap:30d",
			},
		},
		{
			name: "crash runs nothing in any pod", request: request(effort(snapshot.Crash), plugin("mysql")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql crash (crash consistency was asked for) binlog:snap:30d data:snap:30d"},
		},
		{
			name: "annotations of the claim, else of the namespace, go before the flags", request: request(effort(snapshot.Application), plugin("postgres")),
			inv: catalog.Inventory{
				Namespaces: map[string]map[string]string{"shop": notes("consistency", "auto", "plugin", "none", "retain", "7d")},
				Claims:     []catalog.Claim{claim("a", noted("consistency", "crash", "retain", "calendar")), claim("b", noted("plugin", "mysql")), claim("c")},
				Pods:       []catalog.Pod{pod("b-0", "statefulset/b", "custom", "b"), pod("c-0", "statefulset/c", "postgres", "c")},
			},
			want: []string{
				"shop/pvc/a crash (crash consistency was asked for) a:snap:calendar",
				"shop/statefulset/b auto dump mysql in b-0/main (the name that was given) b:snap:7d",
				"shop/statefulset/c auto (no plugin was asked for) c:snap:7d",
			},
		},
		{
			name: "a plugin that is named is tried in every container that mounts the claims", request: request(plugin("postgres")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql auto dump postgres in mysql-0/main (the name that was given) binlog:snap:30d data:snap:30d"},
		},
		{
			name: "no plugin", request: request(plugin("none")),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("binlog"), claim("data")}, Pods: []catalog.Pod{mysql}},
			want: []string{"shop/statefulset/mysql auto (no plugin was asked for) binlog:snap:30d data:snap:30d"},
		},
		{
			name: "all replicas are candidates; containers that do not mount the claims, and pods that are going, are not", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("data-0"), claim("data-1"), claim("data-2")},
				Pods: []catalog.Pod{
					pod("mysql-0", "statefulset/mysql", "mysql", "data-0"),
					podLike(pod("mysql-1", "statefulset/mysql", "mysql", "data-1"), func(p *catalog.Pod) {
						p.Containers = append(p.Containers, catalog.Container{Name: "proxy", Image: "mysql"})
					}),
					podLike(pod("mysql-2", "statefulset/mysql", "mysql", "data-2"), func(p *catalog.Pod) { p.Terminating = true }),
				},
			},
			want: []string{"shop/statefulset/mysql auto dump mysql in mysql-0/main mysql-1/main (image mysql) data-0:snap:30d data-1:snap:30d data-2:snap:30d"},
		},
		{
			name: "of two databases in one app the first is dumped", request: request(),
			inv: catalog.Inventory{
				Claims: []catalog.Claim{claim("a"), claim("b")},
				Pods:   []catalog.Pod{pod("x-0", "statefulset/x", "postgres", "a"), pod("x-1", "statefulset/x", "mysql", "b")},
			},
			want: []string{"shop/statefulset/x auto dump postgres in x-0/main (image postgres) a:snap:30d b:snap:30d"},
		},
		{
			name: "the only pod is going", request: request(),
			inv:  catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Pods: []catalog.Pod{podLike(pod("mysql-0", "statefulset/mysql", "mysql", "data"), func(p *catalog.Pod) { p.Terminating = true })}},
			want: []string{"shop/statefulset/mysql auto (no pod that mounts it runs) data:snap:30d"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.inv.Classes = classes
			plan, err := snapshot.MakePlan(c.request, c.inv)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, describe(plan)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// byName compares plugins and zones, whose insides are their own, by name.
var byName = cmp.Options{
	cmp.Comparer(func(a, b plugins.Plugin) bool { return a.Name == b.Name }),
	cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() }),
}

func TestMakePlanWhole(t *testing.T) {
	data, cache := claim("data", noted("retain", "calendar")), claim("cache", driver(""))
	mysql := podLike(pod("mysql-0", "statefulset/mysql", "registry.example.com/mysql:8.4", "data"), func(p *catalog.Pod) {
		p.Phase = "Pending"
		p.Containers[0].Mounts[0].SubPath = "db"
	})
	r := request(func(r *snapshot.Request) { r.Pin = true })
	got, err := snapshot.MakePlan(r, catalog.Inventory{Claims: []catalog.Claim{cache, data}, Pods: []catalog.Pod{mysql}, Classes: classes})
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot.Plan{
		Request: r,
		Apps: []snapshot.App{{
			Namespace: "shop", Name: "statefulset/mysql", Mounted: true, Effort: snapshot.Auto, Reason: "image mysql",
			Volumes: []snapshot.Volume{{Claim: data, Class: "snap", Name: "data-20261122-011500-x7k2", Retain: catalog.Retain{Calendar: true}}},
			Hook: &snapshot.Hook{
				Plugin: plugins.Plugin{Name: "mysql"},
				Candidates: []snapshot.Candidate{{
					ContainerRef: catalog.ContainerRef{Namespace: "shop", Pod: "mysql-0", Container: "main"}, Image: "registry.example.com/mysql:8.4",
					Mounts: []catalog.Mount{{Claim: "data", Path: "/data", SubPath: "db"}}, NotRunning: "Pending",
				}},
			},
		}},
		Skips: []snapshot.Skip{{
			Claim: cache, Code: catalog.CodeUnsupported, Reason: "its volume pv-cache is no CSI volume: it cannot be snapshotted",
			Next: "move it to a StorageClass with a CSI driver, or exclude it: kubectl annotate pvc cache -n shop backsnap.sh/schedule=",
		}},
	}
	if diff := cmp.Diff(want, got, byName); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestMakePlanRefuses(t *testing.T) {
	inv := catalog.Inventory{Claims: []catalog.Claim{claim("data")}, Pods: []catalog.Pod{pod("mysql-0", "statefulset/mysql", "mysql", "data")}, Classes: classes}
	for _, c := range []struct {
		name    string
		request snapshot.Request
		want    catalog.Failure // but the cause
	}{
		{"a claim that is not there", request(targets("pvc/logs")), catalog.Failure{
			Code: catalog.CodeNotFound, Message: "no PersistentVolumeClaim logs in namespace shop", State: "nothing changed", Next: "kubectl get pvc -n shop",
		}},
		{"a workload that is not there", request(targets("deployment/mysql")), catalog.Failure{
			Code: catalog.CodeNotFound, Message: "no running pod of deployment/mysql in namespace shop mounts a PersistentVolumeClaim", State: "nothing changed",
			Next: "kubectl get deployment/mysql,pvc -n shop; name the claims where the workload is scaled to zero",
		}},
		{"a namespace without claims", request(targets("namespace/crm")), catalog.Failure{
			Code: catalog.CodeNotFound, Message: "no PersistentVolumeClaim in namespace crm", State: "nothing changed", Next: "kubectl get pvc -n crm",
		}},
		{"one of two targets that is not there", request(targets("pvc/data", "pvc/logs")), catalog.Failure{
			Code: catalog.CodeNotFound, Message: "no PersistentVolumeClaim logs in namespace shop", State: "nothing changed", Next: "kubectl get pvc -n shop",
		}},
		{"a plugin that there is not", request(plugin("oracle")), catalog.Failure{
			Code: catalog.CodeUsage, Message: "choose plugin", State: "nothing changed", Next: "name one of these with --plugin",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := snapshot.MakePlan(c.request, inv)
			var f *catalog.Failure
			if !errors.As(err, &f) {
				t.Fatalf("got %v", err)
			}
			if f.Code == catalog.CodeUsage && !errors.Is(err, plugins.ErrUnknown) {
				t.Errorf("cause: %v", f.Cause)
			}
			got := *f
			got.Cause = nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("failure (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseEffort(t *testing.T) {
	for _, e := range []snapshot.Effort{snapshot.Auto, snapshot.Application, snapshot.Crash} {
		if got, err := snapshot.ParseEffort(string(e)); got != e || err != nil {
			t.Errorf("%s is read as %q, %v", e, got, err)
		}
	}
	for _, text := range []string{"", "Auto", "none", "fuzzy"} {
		if got, err := snapshot.ParseEffort(text); err == nil {
			t.Errorf("%q is read as %q", text, got)
		}
	}
}

func TestPlanSums(t *testing.T) {
	inv := catalog.Inventory{
		Claims: []catalog.Claim{
			claim("data", from("crm")), claim("binlog"), claim("data"), claim("old"), claim("local", driver("")),
			claim("bad", from("web"), noted("consistency", "perfect")), // nothing of it is taken
		},
		Pods:    []catalog.Pod{pod("mysql-0", "statefulset/mysql", "mysql", "data", "binlog")},
		Classes: classes,
	}
	plan, err := snapshot.MakePlan(request(), inv)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"crm", "shop"}, plan.Namespaces()); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	var got []string
	for _, r := range plan.Rights() {
		got = append(got, r.String())
	}
	const vs = "volumesnapshots.snapshot.storage.k8s.io"
	want := []string{
		"create " + vs + " in crm", "get " + vs + " in crm", "list " + vs + " in crm", "watch " + vs + " in crm", "patch " + vs + " in crm", "delete " + vs + " in crm",
		"create " + vs + " in shop", "get " + vs + " in shop", "list " + vs + " in shop", "watch " + vs + " in shop", "patch " + vs + " in shop", "delete " + vs + " in shop",
		"get pods/exec in shop", "create pods/exec in shop",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}
