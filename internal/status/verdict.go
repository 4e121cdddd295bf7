package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// finding is one thing that is to be said of a volume. Where do is "", a new
// restore point mends it.
type finding struct {
	state      State
	reason, do string
}

// volume judges one claim.
func (j *judge) volume(c catalog.Claim) Volume {
	v := Volume{Claim: c.Name, Size: cmp.Or(c.Capacity, c.Request)}
	if annotation := j.leftOut(c); annotation != "" {
		v.Judgement = Judgement{State: Out, Reason: "left out by annotation " + annotation}
		return v
	}
	since := j.take(&v, c)
	unread := j.goal(&v, c)
	v.Next = j.next(c)
	worst := finding{state: OK}
	for _, one := range []finding{j.age(v, c, since), j.offsite(v, c), j.proof(v), unended(c), replaced(v, c), unread} {
		if one.state != "" && rank[one.state] < rank[worst.state] {
			worst = one
		}
	}
	v.State, v.Reason, v.Do = worst.state, worst.reason, worst.do
	if since != nil && (v.State == None || v.State == Late) {
		v.Run = since.Run
	}
	return v
}

// take notes c's good restore points. What was tried since the last of them and
// is none, or not yet, is returned; nil for nothing.
func (j *judge) take(v *Volume, c catalog.Claim) (since *Point) {
	points := j.points[key{c.Namespace, c.Name}] // the newest first
	for i := range points {
		switch p := &points[i]; {
		case p.State == retention.Good:
			j.good(v, c, p)
		case v.Last == nil && since == nil && (p.State == retention.Failed || p.State == retention.Unready):
			tried := *p
			tried.Because = j.because(p, c)
			since = &tried
		}
	}
	return since
}

// because is why p, which a run left unfinished, is no good one of c. Such
// points hold all claims of their run: what is said of c itself goes before what
// is said of another.
func (j *judge) because(p *Point, c catalog.Claim) string {
	for _, m := range p.Members {
		if s := j.snapshots[key{c.Namespace, m.Name}]; m.Claim == c.Name && s != nil && s.Err != "" {
			return s.Err
		}
	}
	return p.Because
}

func (j *judge) good(v *Volume, c catalog.Claim, p *Point) {
	i := slices.IndexFunc(p.Members, func(m retention.Member) bool { return m.Claim == c.Name })
	s := j.snapshots[key{c.Namespace, p.Members[i].Name}]
	if s == nil {
		return
	}
	if v.Last == nil {
		v.Last, v.LastGood, v.Consistency, v.Run = s, p.when(), p.Consistency, p.Run
	}
	if v.LastCopy.IsZero() && copied(*s) {
		v.LastCopy = p.when()
	}
	v.LastProof = later(v.LastProof, proofOf(s))
}

// age judges the last good restore point. since is what was tried after it.
func (j *judge) age(v Volume, c catalog.Claim, since *Point) finding {
	state, plain := None, "no restore point"
	switch {
	case !v.LastGood.IsZero() && !j.late(v, v.LastGood):
		if since == nil || since.State != retention.Failed {
			return finding{}
		}
		return finding{Warn, "last run failed: " + since.Because, since.look()}
	case !v.LastGood.IsZero():
		state, plain = Late, "nothing taken since"
	}
	reason, do := unfit(c)
	switch {
	case since != nil && since.State == retention.Failed && state == None:
		return finding{state, "never taken: " + since.Because, since.look()}
	case since != nil && since.State == retention.Failed:
		return finding{state, since.Because, since.look()}
	case c.Phase == "Pending" && state == None: // there is nothing yet that could be lost
		return finding{Warn, reason, do}
	case reason != "":
		return finding{state, reason, do}
	case since != nil:
		return finding{state, plain + ": " + since.Because, since.look()}
	}
	return finding{state: state, reason: plain}
}

// late reports whether t is longer ago than v's goal.
func (j *judge) late(v Volume, t time.Time) bool { return v.Goal > 0 && j.Now.Sub(t) > v.Goal }

// look is the command that tells what became of p.
func (p Point) look() string {
	if p.Run == "" {
		return fmt.Sprintf("kubectl describe volumesnapshot %s -n %s", p.Members[0].Name, p.Namespace)
	}
	return fmt.Sprintf("kubectl backsnap logs run/%s -n %s", p.Run, p.Namespace)
}

// unfit is why c cannot be taken and what to do, "" where it can.
func unfit(c catalog.Claim) (reason, do string) {
	switch {
	case c.Terminating:
		return "it is being deleted", look(c)
	case c.Phase != "Bound":
		return "it is " + c.Phase + ", not bound to a volume", look(c)
	case c.Driver == "":
		return "its volume is no CSI volume", fmt.Sprintf("kubectl annotate pvc %s -n %s %s=", c.Name, c.Namespace, catalog.AnnotationSchedule)
	}
	return "", ""
}

// look is the command that shows c and what happened to it.
func look(c catalog.Claim) string {
	return fmt.Sprintf("kubectl describe pvc %s -n %s", c.Name, c.Namespace)
}

// offsite judges the last copy: what a person requires and does not have in
// time is late, what would be good to have is a warning.
func (j *judge) offsite(v Volume, c catalog.Claim) finding {
	if v.Last == nil || j.noCopies(c) {
		return finding{}
	}
	f := finding{state: Warn, do: fmt.Sprintf("kubectl backsnap copy run/%s -n %s", v.Run, c.Namespace)}
	if v.Run == "" {
		f.do = fmt.Sprintf("kubectl backsnap copy vs/%s -n %s", v.Last.Name, c.Namespace)
	}
	if j.Require == Offsite || j.Require == Proven {
		f.state = Late
	}
	switch missing := v.Last.MissingCopies(); {
	case v.LastCopy.IsZero():
		f.reason = "no off-site copy"
	case !j.late(v, v.LastCopy):
		return finding{}
	case len(missing) > 0:
		f.reason = "off-site copy is late: none yet in " + strings.Join(missing, ", ")
	default:
		f.reason = "off-site copy is late"
	}
	return f
}

// noCopies reports whether a person wants no copies of c.
func (j *judge) noCopies(c catalog.Claim) bool {
	said, _ := j.setting(c, catalog.AnnotationRepository)
	return said == "none"
}

// proof judges whether a restore was tried, at any time, where that is required.
func (j *judge) proof(v Volume) finding {
	if v.Last == nil || j.Require != Proven || !v.LastProof.IsZero() {
		return finding{}
	}
	return finding{Late, "no restore was ever tried", fmt.Sprintf("kubectl backsnap describe vs/%s -n %s", v.Last.Name, v.Last.Namespace)}
}

// unended judges a claim into which a run was restoring that has not ended: no
// snapshot is taken of it, and its app may stand still.
func unended(c catalog.Claim) finding {
	run := c.HalfRestored()
	if run == "" {
		return finding{}
	}
	do := look(c)
	if _, err := catalog.ParseRun(run); err == nil {
		do = fmt.Sprintf("kubectl backsnap logs run/%s -n %s", run, c.Namespace)
	}
	return finding{Warn, "run " + run + " was restoring into it and has not ended: it may hold parts of two states", do}
}

// replaced judges whether the restore points are those of another claim.
func replaced(v Volume, c catalog.Claim) finding {
	if v.Last == nil || v.Last.Record == nil || c.UID == "" || v.Last.Record.Claim.UID == "" || v.Last.Record.Claim.UID == c.UID {
		return finding{}
	}
	return finding{state: Warn, reason: "taken of the claim that had its name before"}
}

// goal notes how old v's last good restore point may get. Where what an
// annotation says of it cannot be read, that is found, and the flag's holds.
func (j *judge) goal(v *Volume, c catalog.Claim) finding {
	v.Goal = j.MaxAge
	text, said := j.setting(c, catalog.AnnotationMaxAge)
	if !said {
		return finding{}
	}
	age, err := catalog.ParseAge(text)
	if err != nil {
		what := fmt.Sprintf("pvc %s -n %s", c.Name, c.Namespace)
		if _, own := c.Annotations[catalog.AnnotationMaxAge]; !own {
			what = "namespace " + c.Namespace
		}
		return finding{Warn, fmt.Sprintf("annotation %s: %v", catalog.AnnotationMaxAge, err), fmt.Sprintf("kubectl annotate --overwrite %s %s=24h", what, catalog.AnnotationMaxAge)}
	}
	v.Goal = age
	return finding{}
}

func (j *judge) next(c catalog.Claim) time.Time {
	for _, annotation := range []string{catalog.AnnotationSchedule, catalog.AnnotationOperatorSchedule} {
		if schedule, said := j.setting(c, annotation); said && j.Next != nil {
			if next, known := j.Next(schedule, j.Now.In(j.Zone)); known {
				return next
			}
			return time.Time{}
		}
	}
	return time.Time{}
}

// setting is what c's annotation says, else its namespace's.
func (j *judge) setting(c catalog.Claim, annotation string) (string, bool) {
	if text, said := c.Annotations[annotation]; said {
		return text, true
	}
	text, said := j.inv.Namespaces[c.Namespace][annotation]
	return text, said
}
