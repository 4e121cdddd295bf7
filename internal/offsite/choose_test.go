package offsite_test

import (
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/offsite"
)

func TestChoose(t *testing.T) {
	of := func(claim string, run catalog.Run, change ...func(*catalog.Snapshot)) catalog.Snapshot {
		s := snapshot(claim)
		s.Name, s.UID, s.Run = claim+"-"+string(run), "uid-"+claim+"-"+string(run), run
		for _, c := range change {
			c(&s)
		}
		return s
	}
	unready := func(s *catalog.Snapshot) { s.Ready, s.Err = false, "no room" }
	static := func(s *catalog.Snapshot) { s.Role = catalog.RoleStatic }
	unfinished := func(s *catalog.Snapshot) { s.Consistency = "" }
	going := func(s *catalog.Snapshot) { s.Terminating = true }
	unknown := func(s *catalog.Snapshot) { s.Record = nil }
	all := offsite.Wish{Matches: func(catalog.Snapshot) bool { return true }}
	named := func(name string) offsite.Wish {
		return offsite.Wish{Text: "vs/" + name, Every: true, Matches: func(s catalog.Snapshot) bool { return s.Name == name }}
	}
	claim := func(name string) offsite.Wish {
		return offsite.Wish{Text: "pvc/" + name, Matches: func(s catalog.Snapshot) bool { return s.Claim == name }}
	}
	type left struct {
		name, reason string
		code         catalog.Code
	}
	tests := []struct {
		name   string
		wishes []offsite.Wish
		there  []catalog.Snapshot
		want   []string
		left   []left
		code   catalog.Code
	}{
		{
			name: "the newest of each claim", wishes: []offsite.Wish{all},
			there: []catalog.Snapshot{of("b", "2"), of("a", "1"), of("a", "3"), of("a", "2")},
			want:  []string{"a-3", "b-2"},
		},
		{
			name: "what is newer and no restore point is said", wishes: []offsite.Wish{all},
			there: []catalog.Snapshot{of("a", "1"), of("a", "2"), of("a", "3", unready), of("a", "4", unfinished), of("a", "5", going), of("a", "6", unknown)},
			want:  []string{"a-2"},
			left: []left{
				{"a-3", "it is not ready: no room", ""}, {"a-4", "its run has not finished it: it is no restore point", ""},
				{"a-5", "it is being deleted", ""}, {"a-6", "it has no record that can be read", ""},
			},
		},
		{
			name: "that there is none at all is a failure, once", wishes: []offsite.Wish{all},
			there: []catalog.Snapshot{of("a", "1", unready), of("a", "2", unfinished), of("b", "1")},
			want:  []string{"b-1"},
			left:  []left{{"a-2", "its run has not finished it: it is no restore point", catalog.CodeUnsupported}},
		},
		{
			name: "what we made for copies is nobody's wish", wishes: []offsite.Wish{all},
			there: []catalog.Snapshot{of("a", "1"), of("a", "2", static)},
			want:  []string{"a-1"},
			left:  []left{{"a-2", "made by backsnap (static), no restore point", ""}},
		},
		{
			name: "one that is named is meant, however old", wishes: []offsite.Wish{named("a-1")},
			there: []catalog.Snapshot{of("a", "1"), of("a", "2")},
			want:  []string{"a-1"},
		},
		{
			name: "one that is named and cannot be copied is a failure", wishes: []offsite.Wish{named("a-1"), named("a-2")},
			there: []catalog.Snapshot{of("a", "1", static), of("a", "2", unready)},
			left: []left{
				{"a-1", "made by backsnap (static), no restore point", catalog.CodeUnsupported},
				{"a-2", "it is not ready: no room", catalog.CodeNotReady},
			},
		},
		{
			name: "what is wished twice is copied once", wishes: []offsite.Wish{claim("a"), named("a-2"), named("a-1")},
			there: []catalog.Snapshot{of("a", "1"), of("a", "2")},
			want:  []string{"a-1", "a-2"},
		},
		{name: "nothing in scope is no failure", wishes: []offsite.Wish{all}},
		{
			name: "nothing of what was named is one", wishes: []offsite.Wish{claim("a"), claim("b")},
			there: []catalog.Snapshot{of("a", "1")}, code: catalog.CodeNotFound,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			choice, err := offsite.Choose(test.wishes, test.there)
			var names []string
			for _, s := range choice.Snapshots {
				names = append(names, s.Name)
			}
			var out []left
			for _, l := range choice.Left {
				out = append(out, left{l.Snapshot.Name, l.Reason, catalog.CodeOf(l.Err)})
			}
			equal(t, "chosen", test.want, names)
			equal(t, "left out", test.left, out)
			equal(t, "code", test.code, catalog.CodeOf(err))
		})
	}
}

// The storage's word for the time of the cut may be wrong; the record's has
// been judged.
func TestChosenSnapshotsHaveTheTimeOfTheirRecord(t *testing.T) {
	s := snapshot("data")
	s.Cut = began.AddDate(-56, 0, 0)
	choice, err := offsite.Choose([]offsite.Wish{{Matches: func(catalog.Snapshot) bool { return true }}}, []catalog.Snapshot{s})
	equal(t, "error", error(nil), err)
	equal(t, "cut", s.Record.Cut, choice.Snapshots[0].Cut)
}
