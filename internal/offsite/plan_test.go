package offsite_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

func TestParseRepositories(t *testing.T) {
	tests := []struct {
		text string
		want []string
		ok   bool
	}{
		{"", nil, true},
		{"none", []string{}, true},
		{"main", []string{"main"}, true},
		{"second, main,main", []string{"main", "second"}, true},
		{"main,", nil, false},
		{"main,none", nil, false},
		{",", nil, false},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			got, err := offsite.ParseRepositories(test.text)
			equal(t, "names", test.want, got)
			equal(t, "ok", test.ok, err == nil)
		})
	}
}

func TestNew(t *testing.T) {
	unnamed := repository("fresh")
	unnamed.Cluster = ""
	all := []catalog.Repository{repository("main"), repository("second"), unnamed}
	const fresh = "repository fresh was not initialised for this cluster"
	tests := []struct {
		name      string
		change    func(r *offsite.Request)
		snapshots []catalog.Snapshot
		want      []string // copies
		uses      []string // repositories
		err       string
		codes     []catalog.Code
	}{
		{
			name:      "all that there are, the volumes in order",
			snapshots: []catalog.Snapshot{snapshot("b"), snapshot("a")},
			want:      []string{"shop/a to main", "shop/a to second", "shop/b to main", "shop/b to second"},
			uses:      []string{"main", "second"},
			err:       fresh, codes: []catalog.Code{catalog.CodeNoRepository},
		},
		{
			name:      "those that are asked for",
			change:    func(r *offsite.Request) { r.Repositories = []string{"second"} },
			snapshots: []catalog.Snapshot{snapshot("a")},
			want:      []string{"shop/a to second"}, uses: []string{"second"},
		},
		{
			name:      "none is asked for",
			change:    func(r *offsite.Request) { r.Repositories = []string{} },
			snapshots: []catalog.Snapshot{snapshot("a")},
		},
		{
			name: "a claim's own choice goes first",
			change: func(r *offsite.Request) {
				r.Repositories = []string{"main"}
				r.Choice = map[string][]string{"shop/a": {}, "shop/b": {"second"}, "other/c": {"second"}}
			},
			snapshots: []catalog.Snapshot{snapshot("a"), snapshot("b"), snapshot("c")},
			want:      []string{"shop/b to second", "shop/c to main"}, uses: []string{"main", "second"},
		},
		{
			name:      "a claim may choose all",
			change:    func(r *offsite.Request) { r.Repositories, r.Choice = []string{}, map[string][]string{"shop/a": nil} },
			snapshots: []catalog.Snapshot{snapshot("a"), snapshot("b")},
			want:      []string{"shop/a to main", "shop/a to second"}, uses: []string{"main", "second"},
			err: fresh, codes: []catalog.Code{catalog.CodeNoRepository},
		},
		{
			name:      "one that is not there is said once, the others are used",
			change:    func(r *offsite.Request) { r.Repositories = []string{"lost", "main"} },
			snapshots: []catalog.Snapshot{snapshot("a"), snapshot("b")},
			want:      []string{"shop/a to main", "shop/b to main"}, uses: []string{"main"},
			err: "no repository lost", codes: []catalog.Code{catalog.CodeNoSecret},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := request()
			if test.change != nil {
				test.change(&r)
			}
			p, err := offsite.New(r, all, test.snapshots)
			var copies, uses []string
			for _, c := range p.Copies {
				copies = append(copies, c.String())
			}
			for _, r := range p.Repositories() {
				uses = append(uses, r.Name)
			}
			equal(t, "copies", test.want, copies)
			equal(t, "repositories", test.uses, uses)
			said := ""
			if err != nil {
				said = err.Error()
			}
			equal(t, "error", test.err, said)
			equal(t, "codes", test.codes, codes(err))
		})
	}
}

// codes are those of the joined failures.
func codes(err error) []catalog.Code {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var codes []catalog.Code
	for _, e := range joined.Unwrap() {
		codes = append(codes, catalog.CodeOf(e))
	}
	return codes
}

func TestFindSaysWhatThereIs(t *testing.T) {
	_, err := offsite.Find([]catalog.Repository{repository("main"), repository("second")}, "mian")
	var f *catalog.Failure
	if !errors.As(err, &f) {
		t.Fatalf("%v is no Failure", err)
	}
	equal(t, "state", "there is main, second", f.State)
	got, err := offsite.Find([]catalog.Repository{repository("main")}, "main")
	equal(t, "found", repository("main"), got)
	equal(t, "error", error(nil), err)
}

// A name is a pod's host name and a label, and no two copies share one.
func TestNamesOfCopies(t *testing.T) {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	long := strings.Repeat("a.very-long.claim", 14)
	seen := map[string]bool{}
	for _, namespace := range []string{"shop", "shop-a"} {
		for _, claim := range []string{"data", "a-data", "a.data", "0", long, long + "1"} {
			s := snapshot(claim)
			s.Namespace = namespace
			p, err := offsite.New(request(), []catalog.Repository{repository("main"), repository("second")}, []catalog.Snapshot{s})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range p.Copies {
				if !label.MatchString(c.Name) || !strings.HasSuffix(c.Name, "-"+string(run)) || seen[c.Name] {
					t.Errorf("%s is called %q", c, c.Name)
				}
				seen[c.Name] = true
			}
		}
	}
}

func TestRights(t *testing.T) {
	var none offsite.Plan
	equal(t, "rights of nothing", []catalog.Right(nil), none.Rights())
	var rights []string
	for _, r := range plan(t, "a", "b").Rights() {
		rights = append(rights, r.String())
	}
	equal(t, "rights", []string{
		"create volumesnapshotcontents.snapshot.storage.k8s.io",
		"create volumesnapshots.snapshot.storage.k8s.io in backsnap",
		"list volumesnapshots.snapshot.storage.k8s.io in backsnap",
		"watch volumesnapshots.snapshot.storage.k8s.io in backsnap",
		"delete volumesnapshots.snapshot.storage.k8s.io in backsnap",
		"create persistentvolumeclaims in backsnap",
		"watch persistentvolumeclaims in backsnap",
		"delete persistentvolumeclaims in backsnap",
		"create jobs.batch in backsnap",
		"list jobs.batch in backsnap",
		"watch jobs.batch in backsnap",
		"delete jobs.batch in backsnap",
		"list pods in backsnap",
		"watch pods in backsnap",
		"patch volumesnapshots.snapshot.storage.k8s.io in shop",
	}, rights)
}
