// Package lock keeps runs apart: a Lease in each namespace that a run works
// in, so that no two do there at once from anywhere, and slots on this machine,
// so that no more runs than wanted share its network and its disks.
//
// A Lease does not fence: a run that was stopped and woken again may believe
// for a moment that it still holds one. What is written must bear that.
package lock

import (
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// holder names this process, for those who find the lock taken.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	text := fmt.Sprintf("pid %d on %s", os.Getpid(), host)
	if u, err := user.Current(); err == nil {
		text += ", user " + u.Username
	}
	return text
}

// busy is the failure of a run that finds what taken by another.
func busy(what, run, holder string, since time.Time) error {
	message := fmt.Sprintf("%s is taken by run %s", what, run)
	if holder != "" {
		message += " (" + holder + ")"
	}
	if !since.IsZero() {
		message += " since " + since.UTC().Format(time.RFC3339)
	}
	return &catalog.Failure{
		Code:    catalog.CodeBusy,
		Message: message,
		State:   "nothing changed",
		Next:    "wait until that run has ended, or let this one wait: --lock-timeout=10m",
	}
}
