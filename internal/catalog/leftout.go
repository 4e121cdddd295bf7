package catalog

import "strings"

// LeftOut is the annotation by which a person keeps c out of backups, "" for
// none: a schedule that is empty, or a mark of a program that people come from.
// The claim's word goes before that of its namespace, whose annotations are
// given, and ours before another's.
func (c Claim) LeftOut(namespace map[string]string) string {
	if annotation, said := emptySchedule(c.Annotations, AnnotationSchedule); said {
		return annotation
	}
	if _, marked := c.Annotations[AnnotationNoBackup]; marked {
		return AnnotationNoBackup
	}
	if annotation, said := emptySchedule(c.Annotations, AnnotationOperatorSchedule); said {
		return annotation
	}
	annotation, _ := emptySchedule(namespace, AnnotationSchedule, AnnotationOperatorSchedule)
	return annotation
}

// emptySchedule is the first of the schedules that notes have, if it is empty,
// and whether there is one.
func emptySchedule(notes map[string]string, schedules ...string) (annotation string, said bool) {
	for _, key := range schedules {
		if schedule, ok := notes[key]; ok {
			if strings.TrimSpace(schedule) == "" {
				return key, true
			}
			return "", true
		}
	}
	return "", false
}
