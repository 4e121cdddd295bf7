package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// perFolder is how many files lie in one folder.
const perFolder = 500

// many makes count files, of every kind in turn.
func many(root string, count int) error {
	folder, before := "", ""
	for i := range count {
		if i%perFolder == 0 {
			folder = filepath.Join(root, fmt.Sprintf("many %d", i/perFolder))
			if err := os.Mkdir(folder, 0o755|os.FileMode(i/perFolder%8)<<3); err != nil {
				return err
			}
			before = ""
		}
		name := filepath.Join(folder, oddName(i))
		if err := one(name, before, i); err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
		before = name
	}
	return nil
}

// oddName is one that no other file has, with something odd in it.
func oddName(i int) string {
	odd := []string{"plain", "two words", "new\nline", "-rf", "*?[", "quote'\"", "back\\slash", "\xff\xfe", "Grüße", ".hidden", "tab\t", strings.Repeat("long", 50)}
	return fmt.Sprintf("%s %d", odd[i%len(odd)], i)
}

// one makes a file, or another name of before.
func one(name, before string, i int) error {
	const kinds = 13 // no divisor of the number of odd names
	switch kind := i % kinds; {
	case kind == 0:
		return os.Symlink(fmt.Sprintf("../to %d", i), name)
	case kind == 1:
		return syscall.Mkfifo(name, 0o600)
	case (kind == 9 || kind == 12) && before != "": // both after what is a file with bytes
		return os.Link(before, name)
	}
	if err := os.WriteFile(name, []byte(strings.Repeat(fmt.Sprintf("file %d\n", i), i%97)), 0o644); err != nil {
		return err
	}
	switch i % kinds {
	case 3:
		return os.Lchown(name, 1000+i, 2000+i)
	case 4:
		return syscall.Setxattr(name, "user.number", fmt.Appendf(nil, "%d", i), 0)
	case 5:
		return syscall.Setxattr(name, "system.posix_acl_access", acl(), 0)
	case 6:
		return syscall.Chmod(name, 0o4000|uint32(i%0o1000))
	case 7:
		return syscall.Chmod(name, uint32(i%0o10000))
	case 8:
		return os.Truncate(name, int64(i%(256<<10)))
	}
	return nil
}
