package restore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
	"github.com/backsnap/kubectl-backsnap/internal/restore"
)

var now = func() time.Time { return at("09:15") }

// way is what is done for a claim of shop on its way, all well.
var ways = map[restore.Way][]string{
	restore.Clone: {
		"try claim shop/data-restored-20261122-091500",
		"make claim shop/data-restored-20261122-091500 from data-20261122-010000-aaaa",
		"await shop/data-restored-20261122-091500",
	},
	restore.Static: {
		"try claim scratch/data-restored-20261122-091500",
		"expose data-20261122-010000-aaaa as scratch/" + elsewhere,
		"make claim scratch/data-restored-20261122-091500 from " + elsewhere,
		"await scratch/data-restored-20261122-091500",
		"remove static scratch/" + elsewhere,
	},
	restore.Fill: {
		"try claim shop/data-restored-20261122-091500",
		"make claim backsnap/" + name + " empty",
		"start mover backsnap/" + name,
		"follow backsnap/" + name + " with " + name,
		"keep volume of backsnap/" + name + ", uid of " + name + ", for shop",
		"hand volume pv from uid of " + name + " to shop/data-restored-20261122-091500",
		"make claim shop/data-restored-20261122-091500 of volume pv",
		"await shop/data-restored-20261122-091500",
		"let volume pv: Delete",
		"remove mover backsnap/" + name,
		"remove claim backsnap/" + name + ", uid of " + name,
	},
}

// by is the request for that way.
func by(way restore.Way) restore.Request {
	r := request()
	switch way {
	case restore.Static:
		r.ToNamespace = "scratch"
	case restore.Fill:
		r.From.Kind = restore.Copy
	}
	return r
}

func TestEachWay(t *testing.T) {
	for way, want := range ways {
		t.Run(string(way), func(t *testing.T) {
			c, w := newCluster(copied(shot("01:00", "data"), "main")), &watcher{}
			outcomes, err := restore.Run(t.Context(), c, c.follow, now, plan(t, c, by(way)), w)
			if err != nil || outcomes[0].Err != nil || outcomes[0].Left != nil {
				t.Fatalf("error %v, outcome %+v", err, outcomes[0])
			}
			is(t, outcomes[0].State, restore.Restored)
			is(t, outcomes[0].Bound, true)
			if diff := cmp.Diff(want, c.diary); diff != "" {
				t.Errorf("done (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{strings.TrimPrefix(want[0], "try ")}, c.left()); diff != "" {
				t.Errorf("there (-want +got):\n%s", diff)
			}
			if way == restore.Fill {
				is(t, outcomes[0].Files, 3)
				is(t, outcomes[0].Bytes, 4096)
				is(t, c.claims["backsnap/"+name].Labels[catalog.LabelRole], string(catalog.RoleClone))
			}
			is(t, w.said[0], "started")
			is(t, w.said[len(w.said)-1], "ok")
		})
	}
}

// TestNothingIsLeft fails each way at each of its steps, and wants all that was
// made before to be removed, and nothing else.
func TestNothingIsLeft(t *testing.T) {
	broken := errors.New("broken")
	for way, steps := range ways {
		for i, step := range steps[:1+slices.IndexFunc(steps, func(step string) bool { return strings.HasPrefix(step, "await ") })] {
			for _, interrupted := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%v", way, i, interrupted), func(t *testing.T) {
					c, w := newCluster(copied(shot("01:00", "data"), "main")), &watcher{}
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					if interrupted {
						c.on = func(line string) {
							if line == step {
								cancel(&catalog.Failure{Code: catalog.CodeInterrupted, Message: "signal"})
							}
						}
					} else {
						c.fail[step] = broken
					}
					p := plan(t, c, by(way))
					outcomes, err := restore.Run(ctx, c, c.follow, now, p, w)
					is(t, outcomes[0].State, restore.Failed)
					want := catalog.CodeStorage
					if interrupted {
						want = catalog.CodeInterrupted
					} else if !errors.Is(err, broken) {
						t.Errorf("error %v does not say why", err)
					}
					is(t, catalog.CodeOf(err), want)
					// A removal that fails once succeeds when it is tried again.
					if left := c.left(); len(left) > 0 || outcomes[0].Left != nil {
						t.Errorf("left: %q, %v, after:\n%s", left, outcomes[0].Left, strings.Join(c.diary, "\n"))
					}
				})
			}
		}
	}
}

// What is made on the way is removed once the claim is good: that something of it
// could not be is told, and is no reason to take the claim away.
func TestWhatIsLeftIsTold(t *testing.T) {
	for way, steps := range ways {
		for _, step := range steps[1+slices.IndexFunc(steps, func(step string) bool { return strings.HasPrefix(step, "await ") }):] {
			c, w := newCluster(copied(shot("01:00", "data"), "main")), &watcher{}
			c.fail[step] = errors.New("broken")
			outcomes, err := restore.Run(t.Context(), c, c.follow, now, plan(t, c, by(way)), w)
			if err != nil || outcomes[0].State != restore.Restored || outcomes[0].Left == nil {
				t.Errorf("%s: error %v, outcome %+v", step, err, outcomes[0])
			}
			is(t, w.said[len(w.said)-1], "warning clean up: broken")
		}
	}
}

// A claim that waits for its first consumer is left unbound, and so is the
// static copy that it will be made from.
func TestWaitsForItsConsumer(t *testing.T) {
	for way, want := range map[restore.Way][]string{
		restore.Clone:  ways[restore.Clone][:2],
		restore.Static: ways[restore.Static][:3],
	} {
		c, w := newCluster(shot("01:00", "data")), &watcher{}
		c.classes["fast"] = catalog.StorageClass{Name: "fast", WaitsForConsumer: true}
		outcomes, err := restore.Run(t.Context(), c, c.follow, now, plan(t, c, by(way)), w)
		if err != nil {
			t.Fatal(err)
		}
		is(t, outcomes[0].State, restore.Restored)
		is(t, outcomes[0].Bound, false)
		if diff := cmp.Diff(want, c.diary); diff != "" {
			t.Errorf("%s: done (-want +got):\n%s", way, diff)
		}
	}
}

// What a mover says is believed only if all numbers agree.
func TestProof(t *testing.T) {
	const counted = "backsnap step=restore exit=0\n"
	summary := func(items, total, bytes, totalBytes int) string {
		return fmt.Sprintf(`{"message_type":"summary","total_files":%d,"files_restored":%d,"total_bytes":%d,"bytes_restored":%d}`+"\n", total, items, totalBytes, bytes)
	}
	for _, c := range []struct {
		name  string
		end   restic.End
		files int64 // on record
		code  catalog.Code
		fails []string
	}{
		{name: "all agree", end: restic.End{Pod: "pod", Text: report(3, 4096)}, files: 3},
		{name: "an older copy, whose files nobody counted", end: restic.End{Pod: "pod", Text: report(7, 4096)}},
		{name: "a file is missing", end: restic.End{Pod: "pod", Text: report(2, 4096)}, files: 3, code: catalog.CodeDiffers, fails: []string{"there are 2 files, it has 3"}},
		{name: "bytes are missing", end: restic.End{Pod: "pod", Text: report(3, 4095)}, files: 3, code: catalog.CodeDiffers, fails: []string{"there are 4095 bytes, it has 4096"}},
		{
			name: "restic has left something out", end: restic.End{Pod: "pod", Text: counted + summary(4, 5, 4096, 4096) + "counted files=3 bytes=4096\n"}, files: 3,
			code: catalog.CodeDiffers, fails: []string{"restic has restored 4 of 5 items"},
		},
		{
			name: "restic has written less than it wanted", end: restic.End{Pod: "pod", Text: counted + summary(5, 5, 4000, 4096) + "counted files=3 bytes=4096\n"}, files: 3,
			code: catalog.CodeDiffers, fails: []string{"restic has restored 4000 of 4096 bytes"},
		},
		{name: "nobody has counted", end: restic.End{Pod: "pod", Text: counted + summary(5, 5, 4096, 4096)}, files: 3, code: catalog.CodeMover, fails: []string{"restic ended without a summary"}},
		{name: "no summary", end: restic.End{Pod: "pod", Text: counted + "counted files=3 bytes=4096\n"}, files: 3, code: catalog.CodeMover, fails: []string{"restic ended without a summary"}},
		{
			name: "a damaged pack", end: restic.End{Pod: "pod", Exit: 1, Text: "backsnap step=restore exit=1\nerrors=1\n" +
				`{"message_type":"error","error":{"message":"ciphertext verification failed"},"during":"restore","item":"/data/a"}` + "\n" +
				`{"message_type":"exit_error","code":1,"message":"Fatal: There were 1 errors"}`},
			files: 3, code: catalog.CodeMover, fails: []string{"/data/a: ciphertext verification failed", "see whether repository main is sound"},
		},
		{
			name: "the volume is too small", end: restic.End{Pod: "pod", Exit: 1, Text: "backsnap step=restore exit=1\nerrors=1\n" +
				`{"message_type":"error","error":{"message":"write /data/a: no space left on device"},"during":"restore","item":"/data/a"}`},
			code: catalog.CodeMover, fails: []string{"no space left on device", "the same command with a larger --size"},
		},
		{
			name: "a wrong password", end: restic.End{Pod: "pod", Exit: 12, Text: "backsnap step=check exit=12\nFatal: wrong password or no key found"},
			files: 3, code: catalog.CodeRepoPassword, fails: []string{"wrong password", "set RESTIC_PASSWORD in Secret backsnap/main-secret"},
		},
		{name: "no repository", end: restic.End{Pod: "pod", Exit: 10, Text: "backsnap step=check exit=10\n"}, code: catalog.CodeNoRepository, fails: []string{"Secret backsnap/main-secret has the address"}},
		{name: "killed", end: restic.End{Pod: "pod", Exit: 137, Killed: "OOMKilled"}, code: catalog.CodeMover, fails: []string{"OOMKilled", "--mover-limits=memory=2Gi"}},
		{name: "no pod at all", end: restic.End{Reason: "DeadlineExceeded", Message: "too long"}, code: catalog.CodeMover, fails: []string{"DeadlineExceeded: too long"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := copied(shot("01:00", "data"), "main")
			s.Copies[0].Files = c.files
			world, w := newCluster(s), &watcher{}
			world.end = c.end
			outcomes, err := restore.Run(t.Context(), world, world.follow, now, plan(t, world, by(restore.Fill)), w)
			check(t, err, c.fails)
			is(t, catalog.CodeOf(err), c.code)
			if c.code != "" {
				is(t, outcomes[0].State, restore.Failed)
				if left := world.left(); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
			}
		})
	}
}

// The image of a device is proven by how much of it the wrapper has read back.
func TestProofOfAnImage(t *testing.T) {
	const text = "backsnap step=image exit=0\nerrors=0\ncounted files=1 bytes=%d\n"
	for _, c := range []struct {
		name  string
		end   restic.End
		code  catalog.Code
		fails []string
	}{
		{name: "whole", end: restic.End{Pod: "pod", Text: fmt.Sprintf(text, 4096)}},
		{name: "a part of it", end: restic.End{Pod: "pod", Text: fmt.Sprintf(text, 4000)}, code: catalog.CodeDiffers, fails: []string{"there are 4000 bytes, it has 4096"}},
		{name: "not read back", end: restic.End{Pod: "pod", Text: "backsnap step=image exit=0\n"}, code: catalog.CodeMover, fails: []string{"restic ended without a summary"}},
		{name: "files instead", end: restic.End{Pod: "pod", Text: report(1, 4096)}, code: catalog.CodeMover, fails: []string{"restic ended without a summary"}},
		{
			name: "it does not fit", end: restic.End{Pod: "pod", Exit: 1, Text: "backsnap step=image exit=1\nwrite the device: dd: error writing '/data': No space left on device\n"},
			code: catalog.CodeMover, fails: []string{"No space left on device"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := copied(shot("01:00", "data"), "main")
			s.Record.Claim.VolumeMode, s.Copies[0].Files = catalog.BlockMode, 1
			world, w := newCluster(s), &watcher{}
			world.end = c.end
			outcomes, err := restore.Run(t.Context(), world, world.follow, now, plan(t, world, by(restore.Fill)), w)
			check(t, err, c.fails)
			is(t, catalog.CodeOf(err), c.code)
			if c.code == "" {
				is(t, outcomes[0].Bytes, 4096)
				is(t, world.claims["backsnap/"+name].VolumeMode, catalog.BlockMode)
			} else if left := world.left(); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if job := world.jobs[0]; !job.Block || !job.Writes || job.Args[0] != restic.StepImage {
				t.Errorf("mover %v", job.Args)
			}
		})
	}
}

// A snapshot that is not what it was when the plan was made is not restored.
func TestSnapshotChangedUnderUs(t *testing.T) {
	for name, change := range map[string]func(*cluster){
		"it is gone": func(c *cluster) { c.fail["current"] = catalog.ErrGone },
		"is not ready any more: x": func(c *cluster) {
			c.current = func(s catalog.Snapshot) catalog.Snapshot { s.Ready, s.Err = false, "x"; return s }
		},
	} {
		c, w := newCluster(shot("01:00", "data")), &watcher{}
		p := plan(t, c, request())
		change(c)
		_, err := restore.Run(t.Context(), c, c.follow, now, p, w)
		check(t, err, []string{name})
		if diff := cmp.Diff([]string{"try claim shop/data-restored-20261122-091500"}, c.diary); diff != "" {
			t.Errorf("done (-want +got):\n%s", diff)
		}
	}
}

// The volume of a class that retains goes all the same, if it came to nothing.
func TestRetainedVolumes(t *testing.T) {
	c, w := newCluster(shot("01:00", "data")), &watcher{}
	c.classes["fast"] = catalog.StorageClass{Name: "fast", Retains: true}
	c.fail["await shop/data-restored-20261122-091500"] = errors.New("broken")
	_, err := restore.Run(t.Context(), c, c.follow, now, plan(t, c, request()), w)
	check(t, err, []string{"broken: ProvisioningFailed: no room"})
	if diff := cmp.Diff(append(slices.Clone(ways[restore.Clone]),
		"keep volume of shop/data-restored-20261122-091500, uid of data-restored-20261122-091500, for shop",
		"let volume pv: Delete",
		"remove claim shop/data-restored-20261122-091500, uid of data-restored-20261122-091500",
	), c.diary); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"started", "warning ProvisioningFailed: no room"}, w.said[:2]); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
}

// What another has in its place is left alone.
func TestTaken(t *testing.T) {
	for _, step := range []string{ways[restore.Static][0], ways[restore.Static][1], ways[restore.Static][2], ways[restore.Fill][1], ways[restore.Fill][2]} {
		way := restore.Static
		if strings.Contains(step, "backsnap/") {
			way = restore.Fill
		}
		c, w := newCluster(copied(shot("01:00", "data"), "main")), &watcher{}
		c.fail[step] = fmt.Errorf("%w", catalog.ErrTaken)
		_, err := restore.Run(t.Context(), c, c.follow, now, plan(t, c, by(way)), w)
		is(t, catalog.CodeOf(err), catalog.CodeExists)
		what := strings.Fields(step)
		for _, line := range c.diary {
			if strings.HasPrefix(line, "remove "+what[1]+" ") && strings.Contains(line, what[2]) {
				t.Errorf("%s: another's was removed: %s", step, line)
			}
		}
	}
}

func TestCheckRights(t *testing.T) {
	c := newCluster(shot("01:00", "data"))
	p := plan(t, c, by(restore.Static))
	if err := restore.Check(t.Context(), c, p); err != nil {
		t.Fatal(err)
	}
	c.missing = []catalog.Right{{Verb: "create", Group: "snapshot.storage.k8s.io", Resource: "volumesnapshotcontents"}}
	err := restore.Check(t.Context(), c, p)
	is(t, catalog.CodeOf(err), catalog.CodeForbidden)
	check(t, err, []string{"cannot create volumesnapshotcontents.snapshot.storage.k8s.io", "not with --from copy"})
}

// One claim that fails stops no other.
func TestOneOfTwoFails(t *testing.T) {
	c, w := newCluster(shot("01:00", "binlog", "binlog", "data"), shot("01:00", "data", "binlog", "data")), &watcher{}
	r := request()
	r.Target = restore.Target{Namespace: "shop", Kind: "statefulset", Name: "mysql"}
	c.fail["await shop/binlog-restored-20261122-091500"] = errors.New("broken")
	outcomes, err := restore.Run(t.Context(), c, c.follow, now, plan(t, c, r), w)
	check(t, err, []string{"binlog not restored to shop/binlog-restored-20261122-091500"})
	is(t, outcomes[0].State, restore.Failed)
	is(t, outcomes[1].State, restore.Restored)
}

// TestSweep is what a restore removes of those before it.
func TestSweep(t *testing.T) {
	const old = "20261121-091500-aaaa"
	static := func(name, claim string) catalog.Snapshot {
		return catalog.Snapshot{Namespace: "scratch", Name: name, Claim: claim, Role: catalog.RoleStatic, Run: old}
	}
	claim := func(name, of, phase, volume string, role catalog.Role) catalog.Claim {
		return catalog.Claim{
			Namespace: "scratch", Name: name, UID: "uid-" + name, Phase: phase, Volume: volume, Role: role,
			Labels: map[string]string{catalog.LabelRun: old, catalog.LabelClaim: of},
		}
	}
	c, w := newCluster(
		shot("01:00", "data"), static("bound", "a"), static("waiting", "b"), static("orphan", "c"),
		with(static("own", "d"), func(s *catalog.Snapshot) { s.Run = run }),
	), &watcher{}
	c.inventory.Claims = append(c.inventory.Claims,
		claim("a-restored", "a", "Bound", "pv-a", ""), claim("b-restored", "b", "Pending", "", ""),
		claim("e-restored", "e", "Bound", "pv-e", ""), claim("f-restored", "f", "Pending", "pv-f", ""),
		claim("g-clone", "g", "Bound", "pv-g", catalog.RoleClone))
	c.kept = []catalog.Volume{{Name: "pv-e", Run: old, Reclaim: "Retain"}, {Name: "pv-f", Run: old, Reclaim: "Delete"}, {Name: "pv-g", Run: old}, {Name: "pv-own", Run: run}}
	p := plan(t, c, by(restore.Static))
	restore.Sweep(t.Context(), c, now, p, w)
	if diff := cmp.Diff([]string{
		"remove static scratch/bound", "remove static scratch/orphan", "let volume pv-e: Retain",
		"remove claim scratch/f-restored, uid-f-restored", "let volume pv-f: Delete", "let volume pv-g: Delete",
	}, c.diary); diff != "" {
		t.Errorf("done (-want +got):\n%s", diff)
	}

	c.diary, c.kept = nil, nil
	p.BackupNamespace = "scratch" // where copies have static copies too
	restore.Sweep(t.Context(), c, now, p, w)
	if diff := cmp.Diff([]string{"remove static scratch/bound"}, c.diary); diff != "" {
		t.Errorf("done in the backup namespace (-want +got):\n%s", diff)
	}
	c.fail["kept"] = errors.New("broken")
	restore.Sweep(t.Context(), c, now, p, w)
	is(t, w.said[len(w.said)-1], "warning remove what earlier restores left: broken")
}
