// Package retention decides which restore points stay, which are marked and
// which are swept, with a reason for each. It is pure: it reads neither the
// clock nor a cluster, and others do what it decides.
//
// # What is counted
//
// Points are judged claim by claim: of each period the newest N keys that good
// points of that claim carry keep all points that carry them. A point is a
// set, and is kept whole where any of its members is. Claims are told apart by
// namespace and name, as they are when labels are given: a restore in place
// gives a claim another UID, and its history goes on. The newest good points
// are protected for each UID: a claim that was deleted and made anew never
// costs its predecessor the last good one.
//
// What does not count takes no place of another's: points that are not good,
// that have a date of a person's (that date decides, beside whatever period),
// and those whose labels are wrong. Nothing is counted by age and nothing
// depends on which points a run happens to list first, so a second run finds
// nothing to do, and what is swept today would be swept tomorrow.
//
// # The newest good one
//
// The newest MinKeep good points of each claim stay, whatever their labels and
// dates say. If none of them is consistent for the application, the newest one
// that is stays too: eight nights of failed dumps must not cost the last
// proven one. Where fewer are good, what is left of broken sets stays instead.
//
// # Beside restic forget
//
// The buckets are restic's: hours, days, ISO weeks, months and years, the
// newest N that have anything in them. With at most one point in a bucket the
// same points stay. These are the differences:
//
//   - The first point of a bucket stands for it, restic keeps the last. A label
//     is given once, when the point is made, and does not wander: the point
//     that will be a month's last is known when the month is over, and until
//     then a wandering label would condemn yesterday's every night.
//   - restic keeps the oldest point of all while a count is not used up. Here
//     that point is the first of its bucket, and stays as such.
//   - Hours are those of UTC: the hour that comes twice when the clocks go back
//     is two, for restic it is one, and where a zone is off by half an hour
//     the hours begin at other minutes.
//   - Days are those of each run's own zone, in restic those of the machine that
//     forgets.
//   - A point from the future takes no place here. In restic it takes that of
//     a real one.
//   - restic's --keep-last is not here; MinKeep cannot be turned off.
package retention
