package restic

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Lock is one in a repository.
type Lock struct {
	ID        string    `json:"id"` // 64 hexadecimal digits, or their beginning
	Host      string    `json:"host"`
	User      string    `json:"user,omitempty"`
	PID       int       `json:"pid"`
	Exclusive bool      `json:"exclusive"`
	Since     time.Time `json:"since"` // restic sets it anew every five minutes
}

// String is `host mover-1 since 2026-11-22 01:15:42 UTC`.
func (l Lock) String() string {
	return fmt.Sprintf("host %s since %s", l.Host, l.Since.UTC().Format("2006-01-02 15:04:05 UTC"))
}

const lockTime = "2006-01-02 15:04:05"

// blocking is what restic says of the lock that stands in its way (restic
// 0.19.1, internal/restic/lock.go, Lock.String).
var blocking = regexp.MustCompile(`already locked (exclusively )?by PID (\d+) on (\S+) by (.*) \(UID \d+, GID \d+\)\s+lock was created at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \([^)]*\)\s+storage ID ([0-9a-f]+)`)

// blockedBy is the lock that a message of restic's names; nil if it names
// none. Times are UTC, as movers have it.
func blockedBy(message string) *Lock {
	said := blocking.FindStringSubmatch(message)
	if said == nil {
		return nil
	}
	pid, err := strconv.Atoi(said[2])
	since, timeErr := time.Parse(lockTime, said[5])
	if err != nil || timeErr != nil {
		return nil
	}
	return &Lock{ID: said[6], Host: said[3], User: said[4], PID: pid, Exclusive: said[1] != "", Since: since}
}

// ReadLocks reads the answer of StepLocks and StepUnlock: the locks there are.
func ReadLocks(answer []byte) ([]Lock, error) {
	var locks []Lock
	in := json.NewDecoder(bytes.NewReader(answer))
	for {
		var one struct {
			ID   string
			Lock struct {
				Time      time.Time
				Exclusive bool
				Hostname  string
				Username  string
				PID       int
			}
		}
		err := in.Decode(&one)
		if errors.Is(err, io.EOF) {
			return locks, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read locks: %w", err)
		}
		l := one.Lock
		locks = append(locks, Lock{ID: one.ID, Host: l.Hostname, User: l.Username, PID: l.PID, Exclusive: l.Exclusive, Since: l.Time.UTC()})
	}
}

// Mark is what the names of all movers have in them that work on r from its
// namespace in this cluster, and no others': several clusters may share a
// repository. "" while the cluster has no name in it.
func Mark(r catalog.Repository) string {
	if r.Cluster == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(r.Cluster + "\n" + r.Namespace))
	return "-" + hex.EncodeToString(sum[:3])
}

// marked is how the pods of movers are called: the Job's name, with the mark,
// what else tells it from others and the run, and five characters.
var marked = regexp.MustCompile(`^[a-z0-9].*(-[0-9a-f]{6})([0-9a-f]{8})?-[0-9]{8}-[0-9]{6}-[a-z0-9]{4}-[a-z0-9]{5}$`)

// Ours reports whether host is spelled like the pod of a mover that bears mark.
func Ours(host, mark string) bool {
	found := marked.FindStringSubmatch(host)
	return mark != "" && found != nil && found[1] == mark
}
