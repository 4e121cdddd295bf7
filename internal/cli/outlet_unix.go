//go:build unix

package cli

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// awaitUnread returns true once the pipe that file is has no reader any more.
// It does not return where file is something else.
func awaitUnread(file *os.File) bool {
	ends := []unix.PollFd{{Fd: int32(file.Fd())}} // no events: only what always is told
	for {
		_, err := unix.Poll(ends, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false
		case ends[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
			return true
		}
	}
}
