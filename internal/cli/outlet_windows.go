package cli

import "os"

// awaitUnread returns false: on Windows only writing shows that a pipe has no
// reader any more.
func awaitUnread(*os.File) bool { return false }
