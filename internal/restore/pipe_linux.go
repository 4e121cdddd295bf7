package restore

import (
	"os"
	"path"
	"syscall"
)

// makePipe makes a named pipe in root.
func makePipe(root *os.Root, name string) (made bool, err error) {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return false, err
	}
	defer dir.Close()
	return true, syscall.Mknodat(int(dir.Fd()), path.Base(name), syscall.S_IFIFO|0o600, 0)
}
