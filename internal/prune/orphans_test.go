package prune_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

func orphanRequest() prune.Request {
	r := request()
	r.Scope = catalog.Scope{Namespaces: []string{"shop"}}
	return r
}

// orphans are what is one, by the name of its snapshot or content.
func orphans(p prune.OrphanPlan) map[string]string {
	found := map[string]string{}
	for _, row := range p.Rows {
		found[row.Snapshots[0].Name] = string(row.Does) + ": " + row.Reason
	}
	for _, o := range p.Contents {
		found[o.Name] = string(o.Does) + ": " + o.Reason
	}
	return found
}

func TestOrphans(t *testing.T) {
	const (
		lost   = "sweep: its snapshot data-10 is gone"
		parted = "sweep: its claim data is gone"
		stays  = "; the newest good one stays"
	)
	change := func(f *fake, name string, do func(*catalog.Content)) {
		content := f.contents[name]
		do(&content)
		f.contents[name] = content
	}
	for _, c := range []struct {
		name     string
		claims   []string
		prepare  func(f *fake, r *prune.Request)
		want     map[string]string
		wantGone []string // after a sweep
	}{
		{
			name: "what has its claim and its content is none", claims: []string{"data"},
			want: map[string]string{},
		},
		{
			name: "a content without its snapshot goes", claims: []string{"data"},
			prepare:  func(f *fake, _ *prune.Request) { f.lose("data-10") },
			want:     map[string]string{"content-data-10": lost},
			wantGone: []string{"let go Delete content-data-10", "delete content-data-10"},
		},
		{
			name:     "snapshots without their claim go, but for the newest good one",
			want:     map[string]string{"data-10": parted, "data-20": "leave: its claim data is gone" + stays},
			wantGone: []string{"delete data-10"},
		},
		{
			name:     "who wants none to stay says so",
			prepare:  func(_ *fake, r *prune.Request) { r.MinKeep = 0 },
			want:     map[string]string{"data-10": parted, "data-20": parted},
			wantGone: []string{"delete data-10", "delete data-20"},
		},
		{
			name:     "the newest content stays where no snapshot does",
			prepare:  func(f *fake, _ *prune.Request) { f.lose("data-10", "data-20") },
			want:     map[string]string{"content-data-10": lost, "content-data-20": "leave: its snapshot data-20 is gone" + stays},
			wantGone: []string{"let go Delete content-data-10", "delete content-data-10"},
		},
		{
			name: "a claim that was made anew under the name of another has its snapshots", claims: []string{"data", "logs"},
			want: map[string]string{},
		},
		{
			name: "what is pinned stays, and so does a content whose snapshot was", claims: nil,
			prepare: func(f *fake, r *prune.Request) {
				r.MinKeep = 0
				f.touch("data-20", func(s *catalog.Snapshot) { s.Pinned = true })
				change(f, "content-data-10", func(c *catalog.Content) { c.Labels[catalog.LabelPin] = "audit" })
				f.lose("data-10")
			},
			want: map[string]string{"content-data-10": "leave: its snapshot data-10 is gone; pinned", "data-20": "leave: its claim data is gone; pinned"},
		},
		{
			name: "one snapshot of the storage that two contents name stays", claims: []string{"data"},
			prepare: func(f *fake, _ *prune.Request) {
				f.lose("data-10")
				change(f, "content-data-20", func(c *catalog.Content) { c.Handle = "handle-data-10" })
			},
			want: map[string]string{"content-data-10": "leave: its snapshot data-10 is gone; content content-data-20 names the same snapshot of the storage"},
		},
		{
			name: "others' contents, and what has a role, are nobody's orphans", claims: []string{"data"},
			prepare: func(f *fake, _ *prune.Request) {
				f.lose("data-10", "data-20")
				change(f, "content-data-10", func(c *catalog.Content) { c.Ours = false })
				change(f, "content-data-20", func(c *catalog.Content) { c.Role = catalog.RoleStatic })
			},
			want: map[string]string{},
		},
		{
			name: "a content that is to be bound to a snapshot is none", claims: []string{"data"},
			prepare: func(f *fake, _ *prune.Request) {
				change(f, "content-data-10", func(c *catalog.Content) { c.SnapshotUID = "" })
			},
			want: map[string]string{},
		},
		{
			name: "one that is on its way out is left to that", claims: []string{"data"},
			prepare: func(f *fake, _ *prune.Request) {
				f.lose("data-10")
				change(f, "content-data-10", func(c *catalog.Content) { c.Terminating = true })
			},
			want: map[string]string{"content-data-10": "leave: its snapshot data-10 is gone; it is being deleted"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFake(daily(point("data", 10)), daily(point("data", 20))), orphanRequest()
				for _, name := range c.claims {
					f.claims = append(f.claims, catalog.Claim{Namespace: "shop", Name: name, UID: "another"})
				}
				if c.prepare != nil {
					c.prepare(f, &r)
				}
				plan, err := prune.MakeOrphanPlan(t.Context(), f, r)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(c.want, orphans(plan)); diff != "" {
					t.Errorf("orphans (-want +got):\n%s", diff)
				}
				if _, err := sweepOrphans(t.Context(), f, plan); err != nil {
					t.Fatal(err)
				}
				slices.Sort(f.did)
				slices.Sort(c.wantGone)
				if diff := cmp.Diff(c.wantGone, f.did); diff != "" {
					t.Errorf("writes (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func sweepOrphans(ctx context.Context, f *fake, plan prune.OrphanPlan) (prune.OrphanResult, error) {
	return prune.RunOrphans(ctx, f, func() time.Time { return now }, plan, quiet{})
}

// outcomesOf are the outcomes of a sweep by content.
func outcomesOf(r prune.OrphanResult) map[string]prune.Outcome {
	found := map[string]prune.Outcome{}
	for _, item := range slices.Concat(r.Items, r.Contents) {
		found[item.Snapshot.Content] = item.Outcome
	}
	return found
}

// What is no orphan any more when the sweep comes stays.
func TestAnOrphanThatIsNoneAnyMoreStays(t *testing.T) {
	for name, since := range map[string]func(f *fake){
		"its claim was restored": func(f *fake) { f.claims = []catalog.Claim{{Namespace: "shop", Name: "data"}} },
		"it was pinned":          func(f *fake) { f.touch("data-10", func(s *catalog.Snapshot) { s.Pinned = true }) },
		"somebody copies it": func(f *fake) {
			f.contents["static"] = catalog.Content{Name: "static", Role: catalog.RoleStatic, Driver: "csi.example.com", Handle: "handle-data-10"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r := newFake(daily(point("data", 10)), daily(point("data", 20))), orphanRequest()
				plan, err := prune.MakeOrphanPlan(t.Context(), f, r)
				if err != nil {
					t.Fatal(err)
				}
				since(f)
				if _, err := sweepOrphans(t.Context(), f, plan); err != nil || len(f.did) > 0 {
					t.Errorf("did %v, %v", f.did, err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // and a content that was adopted since
		f, r := newFake(daily(point("data", 10)), daily(point("data", 20))), orphanRequest()
		f.claims = []catalog.Claim{{Namespace: "shop", Name: "data"}}
		f.lose("data-10")
		plan, err := prune.MakeOrphanPlan(t.Context(), f, r)
		if err != nil {
			t.Fatal(err)
		}
		if points, contents := plan.Sweeps(); points+contents != 1 {
			t.Fatalf("planned %v", orphans(plan))
		}
		if err := f.Adopt(t.Context(), adoptedAs(f, "content-data-10"), "content-data-10"); err != nil {
			t.Fatal(err)
		}
		f.did = nil
		if _, err := sweepOrphans(t.Context(), f, plan); err != nil || len(f.did) > 0 {
			t.Errorf("did %v, %v", f.did, err)
		}
	})
}

// What the storage does not let go of is told, and stops nothing else.
func TestAnOrphanThatDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, r := newFake(daily(point("data", 10)), daily(point("data", 11)), daily(point("data", 20))), orphanRequest()
		f.claims = []catalog.Claim{{Namespace: "shop", Name: "data"}}
		f.lose("data-10", "data-11")
		f.stays = "content-data-10"
		plan, err := prune.MakeOrphanPlan(t.Context(), f, r)
		if err != nil {
			t.Fatal(err)
		}
		result, err := sweepOrphans(t.Context(), f, plan)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]prune.Outcome{"content-data-10": prune.Stuck, "content-data-11": prune.Deleted}
		if diff := cmp.Diff(want, outcomesOf(result)); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
	})
}

// A brake stops what is too much; rights are those of what is done.
func TestBrakesAndRightsOfOrphans(t *testing.T) {
	f, r := newFake(daily(point("data", 9)), daily(point("data", 10)), daily(point("data", 20))), orphanRequest()
	f.lose("data-09")
	r.Limit = prune.Limit{Percent: 25}
	plan, err := prune.MakeOrphanPlan(t.Context(), f, r)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Brakes(); catalog.CodeOf(err) != catalog.CodeTooMany || err.Error() != "prune would remove 2 of 3 restore points (limit 25%)" {
		t.Errorf("brake: %v", err)
	}
	var rights []string
	for _, right := range plan.Rights() {
		rights = append(rights, right.String())
	}
	want := []string{"delete volumesnapshotcontents.snapshot.storage.k8s.io", "delete volumesnapshots.snapshot.storage.k8s.io in shop", "patch volumesnapshotcontents.snapshot.storage.k8s.io"}
	if diff := cmp.Diff(want, rights); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
	if points, contents := plan.Sweeps(); points != 1 || contents != 1 || plan.Empty() {
		t.Errorf("%d points, %d contents", points, contents)
	}
	f.forbidden = "Contents"
	if _, err := prune.MakeOrphanPlan(t.Context(), f, r); catalog.CodeOf(err) != catalog.CodeForbidden {
		t.Errorf("contents may not be read: %v", err)
	}
}

// adoptedAs is the snapshot that adopting that content makes.
func adoptedAs(f *fake, content string) catalog.Snapshot {
	s := f.lost[content]
	s.Content, s.Pinned, s.PinnedAs, s.Handle, s.Driver = "adopted-uid-"+content, true, catalog.Adopted, f.contents[content].Handle, f.contents[content].Driver
	return s
}

func adopt(ctx context.Context, f *fake, names ...string) []error {
	plan, err := prune.MakeAdoptPlan(ctx, f, prune.AdoptRequest{Run: "20261122-090000-x7k2", Contents: names, Timeout: time.Minute})
	if err != nil {
		return []error{err}
	}
	return prune.RunAdopt(ctx, f, func() time.Time { return now }, plan, quiet{})
}

func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(due(point("data", 10)), daily(point("data", 20)))
		f.lose("data-10")
		if err := errors.Join(adopt(t.Context(), f, "content-data-10")...); err != nil {
			t.Fatal(err)
		}
		want := []string{"make adopted-uid-content-data-10", "make data-10", "let go Retain content-data-10", "delete content-data-10"}
		if diff := cmp.Diff(want, f.did); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		s := point("data", 10) // no mark: the next prune would take it again
		s.UID, s.Content, s.Pinned, s.PinnedAs, s.Marked = "again-data-10", "adopted-uid-content-data-10", true, catalog.Adopted, now.AddDate(0, 0, -2)
		s.Driver, s.Handle = "csi.example.com", "handle-data-10"
		if diff := cmp.Diff(s, f.snapshots["data-10"]); diff != "" {
			t.Errorf("snapshot (-want +got):\n%s", diff)
		}
		plan, err := prune.MakePlan(t.Context(), f, request())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range plan.Rows {
			if row.Does != retention.Keep {
				t.Errorf("%s: %s, %s", row.Point.Name, row.Does, row.Reason)
			}
		}
		// Once more changes nothing.
		f.did = nil
		if err := errors.Join(adopt(t.Context(), f, "content-data-10")...); err != nil || len(f.did) > 0 {
			t.Errorf("once more: %v, %v", f.did, err)
		}
	})
}

// A run that is killed after any of its writes is finished by the next, and at
// no time is the storage's snapshot nobody's, or one that goes with a content.
func TestAdoptIsFinishedByTheNextRun(t *testing.T) {
	for kill := range 5 {
		t.Run(fmt.Sprintf("before write %d", kill+1), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(daily(point("data", 10)))
				f.lose("data-10")
				content := f.contents["content-data-10"]
				content.Policy, content.Lent = "Delete", true // a prune that died was about to sweep it
				f.contents["content-data-10"] = content
				ctx, end := context.WithCancelCause(t.Context())
				writes := 0
				f.before = func(f *fake, verb, name string) {
					if writes++; writes == kill+1 {
						end(errors.New("killed"))
					}
				}
				if err := errors.Join(adopt(ctx, f, "content-data-10")...); err == nil {
					t.Fatal("it was not killed")
				}
				held := slices.ContainsFunc(slices.Collect(maps.Values(f.contents)), func(c catalog.Content) bool { return c.Handle == "handle-data-10" })
				if !held {
					t.Fatal("no content holds the storage's snapshot")
				}
				f.before = nil
				if err := errors.Join(adopt(t.Context(), f, "content-data-10")...); err != nil {
					t.Fatal(err)
				}
				if len(f.contents) != 1 || f.contents["adopted-uid-content-data-10"].Policy != "Retain" || f.snapshots["data-10"].Content != "adopted-uid-content-data-10" {
					t.Errorf("left %+v, %+v", f.contents, f.snapshots)
				}
			})
		})
	}
}

func TestAdoptRefuses(t *testing.T) {
	lost := func(f *fake) { f.lose("data-10") }
	change := func(do func(*catalog.Content)) func(*fake) {
		return func(f *fake) {
			f.lose("data-10")
			content := f.contents["content-data-10"]
			do(&content)
			f.contents["content-data-10"] = content
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(*fake)
		code    catalog.Code
		want    string
	}{
		{"its snapshot is there", func(*fake) {}, catalog.CodeNoOrphan, "content content-data-10 not adopted: its snapshot shop/data-10 is there"},
		{"it is somebody else's", change(func(c *catalog.Content) { c.Ours = false }), catalog.CodeNoOrphan, "content content-data-10 not adopted: it carries no label of ours: nobody knows what it is of"},
		{"it is a copy that a mover reads", change(func(c *catalog.Content) { c.Role = catalog.RoleStatic }), catalog.CodeNoOrphan, "content content-data-10 not adopted: it has role static: it is no restore point"},
		{"it is being deleted", change(func(c *catalog.Content) { c.Terminating = true }), catalog.CodeNoOrphan, "content content-data-10 not adopted: it is being deleted"},
		{"it has no handle", change(func(c *catalog.Content) { c.Handle = "" }), catalog.CodeNoOrphan, "content content-data-10 not adopted: the storage has given it no snapshot"},
		{"another names its handle", func(f *fake) {
			lost(f)
			f.contents["other"] = catalog.Content{Name: "other", Driver: "csi.example.com", Handle: "handle-data-10"}
		}, catalog.CodeNoOrphan, "content content-data-10 not adopted: content other names the same snapshot of the storage"},
		{"another snapshot has the name", func(f *fake) {
			lost(f)
			f.snapshots["data-10"] = catalog.Snapshot{Namespace: "shop", Name: "data-10", UID: "other"}
		}, catalog.CodeNoOrphan, "content content-data-10 not adopted: another snapshot is called shop/data-10 now"},
		{"its namespace is gone", func(f *fake) { lost(f); f.gone = []string{"shop"} }, catalog.CodeNoOrphan, "content content-data-10 not adopted: namespace shop of its snapshot does not exist"},
		{"there is none", func(f *fake) { lost(f); delete(f.contents, "content-data-10") }, catalog.CodeNotFound, "no content content-data-10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(daily(point("data", 10)), daily(point("data", 20)))
			c.prepare(f)
			errs := adopt(t.Context(), f, "content-data-10")
			if len(errs) != 1 || catalog.CodeOf(errs[0]) != c.code || errs[0].Error() != c.want || len(f.did) > 0 {
				t.Errorf("%v, did %v", errs, f.did)
			}
		})
	}
}

// A snapshot that does not get ready leaves all as it is, for another try.
func TestAdoptWaitsForReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(daily(point("data", 10)))
		f.lose("data-10")
		f.keeps["data-10"] = true
		errs := adopt(t.Context(), f, "content-data-10")
		if catalog.CodeOf(errs[0]) != catalog.CodeNotReady || f.contents["content-data-10"].Policy != "Retain" {
			t.Errorf("%v", errs)
		}
	})
}

// The finalizer that the snapshot-controller puts on a snapshot whose content was
// made to go with it saves nothing; a label that a person sets then does.
func TestAReleasedSnapshotGoes(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*catalog.Snapshot)
		want   prune.Outcome
	}{
		"a finalizer": {func(*catalog.Snapshot) {}, prune.Deleted},
		"a pin":       {func(s *catalog.Snapshot) { s.Pinned = true }, prune.Kept},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(due(point("data", 10)), daily(point("data", 20)))
				content := f.contents["content-data-10"]
				content.Policy = "Retain"
				f.contents["content-data-10"] = content
				once := true
				f.before = func(f *fake, verb, name string) {
					if verb == "delete" && name == "data-10" && once {
						once = false
						f.touch(name, c.change)
					}
				}
				_, outcomes := run(t, t.Context(), f, request())
				if outcomes["data-10"] != c.want || c.want == prune.Kept && f.contents["content-data-10"].Policy != "Retain" {
					t.Errorf("%v, %+v", outcomes, f.contents)
				}
			})
		})
	}
}
