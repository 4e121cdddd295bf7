package lock

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// view is what we have seen of somebody else's lease, by our own clock.
type view struct {
	fallback time.Duration // duration of a lease that gives none

	holder   string
	renewed  time.Time     // as the holder's clock has it
	duration time.Duration // of the lease
	changed  time.Time     // when we first saw it like that
	alive    bool          // we saw it renewed
}

// note takes in the lease as it is now.
func (v *view) note(l *coordinationv1.Lease) {
	holder, renewed := holderOf(l), renewTime(l)
	if !v.changed.IsZero() && holder == v.holder && renewed.Equal(v.renewed) {
		return
	}
	v.alive = !v.changed.IsZero()
	v.holder, v.renewed, v.changed, v.duration = holder, renewed, time.Now(), v.fallback
	if l.Spec.LeaseDurationSeconds != nil {
		v.duration = time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
	}
}

// free reports whether run may take the lease: nobody holds it, run itself
// does (its answer was lost), or its holder is dead.
func (v *view) free(run catalog.Run) bool {
	return v.holder == "" || v.holder == string(run) || !time.Now().Before(v.changed.Add(v.duration))
}

// patience is until when waiting makes sense: until deadline, but for a holder
// that seems dead by its own clock until we have seen that it is.
func (v *view) patience(deadline time.Time) time.Time {
	death := v.changed.Add(v.duration)
	seemsDead := !v.alive && time.Since(v.renewed) > v.duration
	if seemsDead || death.Before(deadline) {
		return death
	}
	return deadline
}

func holderOf(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func renewTime(l *coordinationv1.Lease) time.Time {
	if l.Spec.RenewTime == nil {
		return time.Time{}
	}
	return l.Spec.RenewTime.Time
}

// since is when the holder took the lease; zero if that is not known.
func since(l *coordinationv1.Lease) time.Time {
	if l.Spec.AcquireTime == nil {
		return time.Time{}
	}
	return l.Spec.AcquireTime.Time
}
