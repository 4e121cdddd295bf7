package restore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Stages are the folders in which what comes is kept until
// all of it has come. They are called after the run.
const (
	stagePrefix = ".backsnap-"
	stageSuffix = ".part"
)

// folder is one on this machine that files come to: first into a folder of
// their own in it. Nothing is ever written outside.
type folder struct {
	dir   string
	made  []string // folders that were not there before, the outermost first
	root  *os.Root
	stage *os.Root
	name  string // of stage
	umask fs.FileMode
}

// newFolder makes the folder, if need be. close removes it again if nothing has come.
func newFolder(dir string, run catalog.Run) (*folder, error) {
	f := &folder{dir: dir, name: stagePrefix + string(run) + stageSuffix}
	for up := dir; ; up = filepath.Dir(up) {
		if _, err := os.Stat(up); !errors.Is(err, fs.ErrNotExist) || up == filepath.Dir(up) {
			break
		}
		f.made = append([]string{up}, f.made...)
	}
	if err := f.open(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) open() (err error) {
	if err := os.MkdirAll(f.dir, 0o777); err != nil {
		return err
	}
	if f.root, err = os.OpenRoot(f.dir); err != nil {
		return err
	}
	// There is no other way to read it that changes nothing for others.
	if err := f.root.Mkdir(f.name, 0o777); err != nil {
		return err
	}
	made, err := f.root.Lstat(f.name)
	if err != nil {
		return err
	}
	f.umask = 0o777 &^ made.Mode().Perm()
	if err := f.root.Chmod(f.name, 0o700); err != nil {
		return err
	}
	f.stage, err = f.root.OpenRoot(f.name)
	return err
}

// close removes what has not been committed. What cannot be removed lies in a
// folder whose name says whose it is.
func (f *folder) close() {
	if f.stage != nil {
		_ = f.stage.Close()
	}
	if f.root != nil {
		_ = f.root.RemoveAll(f.name)
		_ = f.root.Close()
	}
	for i := len(f.made) - 1; i >= 0; i-- {
		_ = os.Remove(f.made[i]) // fails where something is in it
	}
}

// receive is what unpacks an archive of those paths, none for all, into f.
func (f *folder) receive(paths []string) (*receiver, error) {
	r := &receiver{root: f.stage, wanted: paths, umask: f.umask, super: os.Geteuid() == 0}
	if len(paths) == 0 {
		r.wanted = []string{"."}
	}
	for _, p := range paths {
		if err := f.stage.MkdirAll(path.Dir(p), 0o700); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// commit gives all that r has received its name. It looks first whether all
// names are free.
func (f *folder) commit(r *receiver) error {
	names := r.wanted
	if r.all() {
		entries, err := fs.ReadDir(f.stage.FS(), ".")
		if err != nil {
			return err
		}
		names = nil
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	for _, name := range names {
		if err := f.free(name); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := f.root.MkdirAll(path.Dir(name), 0o777); err != nil {
			return err
		}
		if err := f.root.Rename(path.Join(f.name, name), name); err != nil {
			return err
		}
	}
	return r.finish(f.root)
}

// free wants no file of that name.
func (f *folder) free(name string) error {
	_, err := f.root.Lstat(name)
	switch {
	case err == nil:
		return exists(filepath.Join(f.dir, name))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// put makes one file of what write writes. In name, a * stands for what the
// form of a dump's content adds to it. It returns the file's path.
func (f *folder) put(name string, write func(io.Writer) error) (string, error) {
	const part = "dump"
	out, err := f.stage.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	head := &beginning{w: out}
	err = write(head)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return "", err
	}
	name = strings.ReplaceAll(name, "*", head.form())
	if err := f.free(name); err != nil {
		return "", err
	}
	return filepath.Join(f.dir, name), f.root.Rename(path.Join(f.name, part), name)
}

// beginning keeps the first bytes that go through it.
type beginning struct {
	w    io.Writer
	head []byte
}

// Write writes to w.
func (b *beginning) Write(p []byte) (int, error) {
	if room := 8 - len(b.head); room > 0 {
		b.head = append(b.head, p[:min(room, len(p))]...)
	}
	return b.w.Write(p)
}

// form is how the name of a file ends that begins so.
func (b *beginning) form() string {
	for _, form := range forms {
		if bytes.HasPrefix(b.head, []byte(form.begins)) {
			return form.ends
		}
	}
	return ""
}

// dumpName is what the file of the dump is called; a * stands for its form.
func (v Volume) dumpName(r Request, d catalog.Dump) string {
	if r.Local.several() {
		return fileName(d.What) + "*"
	}
	return filepath.Base(r.Local.File)
}

// taken is what stands on this machine in place of what would come of v; ""
// for nothing.
func (v Volume) taken(r Request) (string, error) {
	var names []string
	switch {
	case r.Local.Dumps():
		for _, d := range v.Dumps {
			for _, form := range forms {
				names = append(names, strings.ReplaceAll(v.dumpName(r, d), "*", form.ends))
			}
		}
	case len(r.Paths) == 0:
		entries, err := os.ReadDir(v.To)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		for _, e := range entries {
			// One that a killed run has left is in nobody's way.
			if !strings.HasPrefix(e.Name(), stagePrefix) || !strings.HasSuffix(e.Name(), stageSuffix) {
				return filepath.Join(v.To, e.Name()), nil
			}
		}
		return "", nil
	default:
		names = r.Paths
	}
	for _, name := range names {
		file := filepath.Join(v.To, name)
		if _, err := os.Lstat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for %q: %w", file, err)
		}
	}
	return "", nil
}
