package lock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// slotPause is how often all slots are tried.
const slotPause = 200 * time.Millisecond

// Dir is where the slots of this user on this machine are if nothing else is
// said: the user's cache directory, which is the same for a shell and for cron.
func Dir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for slots: %w; name one with --lock-dir", err)
	}
	return filepath.Join(cache, "backsnap"), nil
}

// Slot takes one of so many slots on this machine and gives it back when
// release is called, or when the process ends, however it does. 0 slots is no
// limit: nothing is touched. dir is made if it is not there, for its owner
// alone; the runs of one user that share it count together. If all slots are
// taken when timeout is over, the error is a catalog.Failure of CodeBusy that
// names one holder.
func Slot(ctx context.Context, dir string, slots int, timeout time.Duration, run catalog.Run) (func() error, error) {
	if slots == 0 {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for slots: %w", err)
	}
	deadline := time.Now().Add(timeout)
	for {
		for n := 1; n <= slots; n++ {
			release, err := tryslot(slotPath(dir, n), run)
			if release != nil || err != nil {
				return release, err
			}
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, slotsBusy(dir, slots)
		}
		if err := pause(ctx, min(slotPause, left)); err != nil {
			return nil, err
		}
	}
}

func slotPath(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("slot-%d.lock", n))
}

// tryslot takes one slot and writes down who has it; nil if it is taken.
func tryslot(path string, run catalog.Run) (func() error, error) {
	slot := flock.New(path)
	free, err := slot.TryLock()
	if err != nil {
		return nil, fmt.Errorf("take slot: %w", err)
	}
	if !free {
		return nil, nil
	}
	// Beside the lock, for Windows lets nobody read a file that is locked.
	note := holderPath(path)
	text := fmt.Sprintf("%s\n%s\n%s\n", run, holder(), time.Now().UTC().Format(time.RFC3339))
	if err := os.WriteFile(note, []byte(text), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("write holder of slot: %w", err), slot.Unlock())
	}
	return func() error {
		removed := os.Remove(note)
		if errors.Is(removed, fs.ErrNotExist) { // somebody has emptied the cache
			removed = nil
		}
		if err := errors.Join(removed, slot.Unlock()); err != nil {
			return fmt.Errorf("release slot: %w", err)
		}
		return nil
	}, nil
}

func holderPath(slot string) string { return strings.TrimSuffix(slot, ".lock") + ".holder" }

// slotsBusy names the first holder that can be read: it may be writing still.
func slotsBusy(dir string, slots int) error {
	what := fmt.Sprintf("each of the %d slots in %s", slots, dir)
	for n := 1; n <= slots; n++ {
		text, err := os.ReadFile(holderPath(slotPath(dir, n)))
		lines := strings.Split(string(text), "\n")
		if err != nil || len(lines) < 3 {
			continue
		}
		since, _ := time.Parse(time.RFC3339, lines[2]) // zero is not printed
		return busy(fmt.Sprintf("%s: slot %d", what, n), lines[0], lines[1], since)
	}
	return busy(what, "unknown", "", time.Time{})
}
