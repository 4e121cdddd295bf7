package catalog

import "time"

// Labels of what a schedule is made of, so that exactly that can be found and
// removed: its CronJobs, their identity and their rights. LabelNamespace says
// where the schedule is, on what lies elsewhere or in no namespace too.
const (
	// LabelSchedule is the schedule's name.
	LabelSchedule = "backsnap.sh/schedule-name"
	// RoleSchedule is the role of all of it.
	RoleSchedule Role = "schedule"
)

// AnnotationTarget stands on a schedule's CronJob and says for people what it
// works on.
const AnnotationTarget = "backsnap.sh/target"

// AnnotationPlaces stands on a schedule's ServiceAccount and names the namespaces
// that have parts of the schedule, with commas between them; PlaceCluster among
// them says that others are in no namespace.
const (
	AnnotationPlaces = "backsnap.sh/places"
	PlaceCluster     = "*"
)

// OfSchedule are the labels of what the schedule of that name is made of. The
// map is the caller's.
func OfSchedule(namespace, name string) map[string]string {
	return map[string]string{
		LabelManagedBy: ManagedBy, LabelRole: string(RoleSchedule), LabelNamespace: namespace, LabelSchedule: name,
	}
}

// Schedule is one CronJob of a schedule.
type Schedule struct {
	Namespace string
	Name      string // of the CronJob
	Of        string // the schedule's name: that of the CronJob, but for its parts
	Cron      string
	Zone      string // an IANA name; "" for that of the controller
	Target    string // for people
	Suspended bool
	LastOK    time.Time // end of the last run that succeeded; zero for none
	Last      time.Time // begin of the last run; zero for none
}

// ScheduleOf is the schedule that people have written for a claim: on the claim
// itself, else on its namespace, whose annotations notes are; ours before those
// of the operator that they come from. said is whether there is one: an empty
// one keeps the claim out.
func ScheduleOf(claim Claim, notes map[string]string) (schedule, annotation string, said bool) {
	for _, on := range []map[string]string{claim.Annotations, notes} {
		for _, key := range []string{AnnotationSchedule, AnnotationOperatorSchedule} {
			if text, there := on[key]; there {
				return text, key, true
			}
		}
	}
	return "", "", false
}
