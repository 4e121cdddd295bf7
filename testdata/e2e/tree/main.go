// Command tree makes a tree of files that a backup has trouble with, and lists
// all that matters of a tree, so that two can be compared. It stands alone: a
// test puts it into a pod.
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fail(fmt.Errorf("usage: tree make DIR [COUNT], or tree list DIR"))
	}
	switch os.Args[1] {
	case "make":
		fail(plant(os.Args[2], os.Args[3:]))
	case "list":
		fail(list(os.Stdout, os.Args[2]))
	default:
		fail(fmt.Errorf("no such command: %s", os.Args[1]))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "tree:", err)
		os.Exit(1)
	}
}

// when is the time of all that is made, to the nanosecond.
var when = time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC)

// plant makes the tree in root, with so many files more as count says.
func plant(root string, count []string) error {
	if err := files(root); err != nil {
		return err
	}
	if len(count) > 0 {
		n, err := strconv.Atoi(count[0])
		if err != nil {
			return err
		}
		if err := many(root, n); err != nil {
			return err
		}
	}
	if err := attributes(root); err != nil {
		return err
	}
	// Times last, and folders after what is in them.
	var paths []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink == 0 && d.Name() != "lost+found" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, path := range slices.Backward(paths) {
		if err := os.Chtimes(path, when, when); err != nil {
			return err
		}
	}
	return nil
}

// files makes files, folders and links.
func files(root string) error {
	in := func(name string) string { return filepath.Join(root, name) }
	for _, dir := range []string{"empty", "deep/er/still", "shared"} {
		if err := os.MkdirAll(in(dir), 0o755); err != nil {
			return err
		}
	}
	names := []string{
		"plain", "no bytes", "new\nline", "tab\tquote'\"back\\slash", "-rf", "*", "not utf-8 \xff\xfe", "Grüße 世界", ".hidden",
		strings.Repeat("l", 255), "deep/er/still/file", "owned", "setuid", "setgid", "unreadable", "capable", "listed", "noted", "linked",
	}
	for _, name := range names {
		text := []byte("this is " + name)
		if name == "no bytes" {
			text = nil
		}
		if err := os.WriteFile(in(name), text, 0o644); err != nil {
			return err
		}
	}
	sparse, err := os.Create(in("sparse"))
	if err != nil {
		return err
	}
	defer sparse.Close()
	if _, err := sparse.WriteAt([]byte("end"), 8<<20); err != nil {
		return err
	}
	for _, link := range [][2]string{{"plain", "soft"}, {"/nowhere/at all", "dangling"}} {
		if err := os.Symlink(link[0], in(link[1])); err != nil {
			return err
		}
	}
	for _, name := range []string{"linked too", "deep/linked far"} {
		if err := os.Link(in("linked"), in(name)); err != nil {
			return err
		}
	}
	return syscall.Mkfifo(in("pipe"), 0o640)
}

// attributes gives them owners, modes and what else a file can carry.
func attributes(root string) error {
	in := func(name string) string { return filepath.Join(root, name) }
	for name, owner := range map[string][2]int{"owned": {1234, 5678}, "soft": {999, 998}, "shared": {0, 5678}} {
		if err := os.Lchown(in(name), owner[0], owner[1]); err != nil {
			return err
		}
	}
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2750, "shared": 0o3777, "unreadable": 0, "empty": 0o700} {
		if err := syscall.Chmod(in(name), mode); err != nil {
			return err
		}
	}
	for _, x := range []struct {
		name, key string
		value     []byte
	}{
		{"noted", "user.note", []byte("with \x00 and \xff")},
		{"deep", "user.note", []byte("of a folder")},
		{"capable", "security.capability", capability()},
		{"listed", "system.posix_acl_access", acl()},
		{"shared", "system.posix_acl_default", acl()},
	} {
		if err := syscall.Setxattr(in(x.name), x.key, x.value, 0); err != nil {
			return fmt.Errorf("set %s of %s: %w", x.key, x.name, err)
		}
	}
	return nil
}

// capability is cap_net_bind_service+ep (linux/capability.h, vfs_cap_data, revision 2).
func capability() []byte {
	var b []byte
	for _, n := range []uint32{0x02000001, 1 << 10, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

// acl lets user 1001 read and write (linux/posix_acl_xattr.h).
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	const nobody = 0xffffffff
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, nobody}, {0x02, 6, 1001}, {0x04, 4, nobody}, {0x10, 6, nobody}, {0x20, 0, nobody}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// list writes one line a file: all of it that a restore must bring back.
func list(w io.Writer, root string) error {
	firsts := map[uint64]string{} // names of files with several, by inode
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(path, &stat); err != nil {
			return err
		}
		what, err := content(path, &stat)
		if err != nil {
			return err
		}
		link := ""
		if stat.Mode&syscall.S_IFMT != syscall.S_IFDIR && stat.Nlink > 1 {
			if firsts[stat.Ino] == "" {
				firsts[stat.Ino] = name
			}
			link = fmt.Sprintf(" one with %q", firsts[stat.Ino])
		}
		notes, err := xattrs(path, &stat)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%q %o %d:%d %d.%09d %s%s%s\n", name, stat.Mode, stat.Uid, stat.Gid, stat.Mtim.Sec, stat.Mtim.Nsec, what, link, notes)
		return err
	})
}

// content is what a file holds or a link points to.
func content(path string, stat *syscall.Stat_t) (string, error) {
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return "", err
		}
		return fmt.Sprintf("%d %x", stat.Size, sum.Sum(nil)), nil
	case syscall.S_IFLNK:
		to, err := os.Readlink(path)
		return fmt.Sprintf("to %q", to), err
	}
	return "-", nil
}

// xattrs are the extended attributes of what is no link, sorted.
func xattrs(path string, stat *syscall.Stat_t) (string, error) {
	if stat.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return "", nil
	}
	buffer := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, buffer)
	if err != nil {
		return "", fmt.Errorf("attributes of %s: %w", path, err)
	}
	keys := strings.Split(strings.Trim(string(buffer[:n]), "\x00"), "\x00")
	slices.Sort(keys)
	text := ""
	for _, key := range keys {
		if key == "" {
			continue
		}
		n, err := syscall.Getxattr(path, key, buffer)
		if err != nil {
			return "", fmt.Errorf("attribute %s of %s: %w", key, path, err)
		}
		text += fmt.Sprintf(" %s=%x", key, buffer[:n])
	}
	return text, nil
}
