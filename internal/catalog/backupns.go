package catalog

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// LabelPrefix is what the keys of our labels begin with, up to the slash.
const LabelPrefix = "backsnap.sh"

// BackupNS is what the keys of backup-ns's labels begin with. It writes, on
// VolumeSnapshots alone, pvc, type, pod, retain (`daily_weekly_monthly` or
// `days`), retain-days, daily, weekly (`w47`; before its version 0.2
// `2026-w47`, with the year of the calendar and not of ISO 8601), monthly and
// delete-after, always a day. Of one that its retention looks after it says so
// by retain.
const BackupNS = "backup-ns.sh"

// ReadBackupNS fills in s what backup-ns's labels say, and what prune has
// written beside them. Times, status, name and namespace are the caller's to
// fill, before: the week of a label without its year is the one nearest to the
// cut. zone is where days and weeks begin. False for a snapshot that backup-ns
// does not look after.
func (s *Snapshot) ReadBackupNS(labels, annotations map[string]string, zone *time.Location) (bool, error) {
	retain := labels[BackupNS+"/retain"]
	if retain == "" {
		return false, nil
	}
	s.BackupNS = true
	s.Claim = labels[BackupNS+"/pvc"]
	s.Retain = retain
	if r, err := ParseRetain(retain); err == nil {
		s.Retain = r.Label()
	}
	s.DeleteAfter = labels[s.Spelled(LabelDeleteAfter)]
	s.PinnedAs, s.Pinned = labels[LabelPin]
	s.Periods = map[Period]string{}
	for _, p := range Periods {
		if key := labels[s.Spelled(p.Label())]; key != "" {
			s.Periods[p] = key
		}
	}
	if week := s.Periods[Weekly]; week != "" && !s.CutAt().IsZero() {
		s.Periods[Weekly] = backupNSWeek(week, s.CutAt().In(zone))
	}
	return true, s.readMark(annotations[AnnotationMarked])
}

// Spelled is the key of our label as it stands on s: with backup-ns's prefix
// where that has written it and has such a label. It knows no pin: that is
// ours everywhere.
func (s Snapshot) Spelled(label string) string {
	name, ours := strings.CutPrefix(label, LabelPrefix+"/")
	if !s.BackupNS || !ours || label == LabelPin {
		return label
	}
	return BackupNS + "/" + name
}

var backupNSWeekForm = regexp.MustCompile(`^(?:([0-9]{4})-)?w([0-9]{2})$`)

// backupNSWeek is backup-ns's name of a week as a weekly key, for a snapshot
// cut at cut. What is neither of its forms is left as it is.
func backupNSWeek(value string, cut time.Time) string {
	form := backupNSWeekForm.FindStringSubmatch(value)
	if form == nil {
		return value
	}
	week, _ := strconv.Atoi(form[2])
	isoYear, isoWeek := cut.ISOWeek()
	switch {
	case form[1] == "":
		return fmt.Sprintf("%04d-w%02d", nearestYear(week, cut), week)
	case week == isoWeek && form[1] == cut.Format("2006"): // 30 December 2024 came as 2024-w01
		return fmt.Sprintf("%04d-w%02d", isoYear, week)
	}
	return value
}

// nearestYear is the ISO year whose week of that number is nearest to cut.
func nearestYear(week int, cut time.Time) int {
	nearest, least := 0, time.Duration(0)
	for year := cut.Year() - 1; year <= cut.Year()+1; year++ {
		thursday := mondayOf(year, week).AddDate(0, 0, 3)
		if y, w := thursday.ISOWeek(); y != year || w != week {
			continue // a week 53 that this year does not have
		}
		if off := cut.Sub(thursday).Abs(); nearest == 0 || off < least {
			nearest, least = year, off
		}
	}
	if nearest == 0 {
		return cut.Year()
	}
	return nearest
}
