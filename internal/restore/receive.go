package restore

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// errArchive says that an archive holds what nobody has asked for, or what
// would lead out of its folder.
var errArchive = errors.New("the archive is not one of what was asked for")

// receiver unpacks an archive as tar does for its caller: with owners for root
// alone, else without them and what the umask takes away. All goes into root
// and nowhere else: a name that leads out, that leads through a link, that comes twice, or
// that nobody has asked for ends it.
type receiver struct {
	root   *os.Root
	wanted []string
	umask  fs.FileMode
	super  bool // who may give files away

	files, bytes                   int64 // regular files by all their names
	folders, links, pipes, devices int64
	unmade                         int64 // pipes that this machine cannot make
	owners, bits                   int64 // files without their owner, without setuid or setgid
	late                           []lateFolder
	parent                         string // the last one that was found to be a folder
}

// lateFolder is a folder that gets its mode and time when nothing more is
// written into it.
type lateFolder struct {
	name  string
	mode  fs.FileMode
	mtime time.Time
}

// all reports whether the whole of a volume is wanted.
func (r *receiver) all() bool { return len(r.wanted) == 1 && r.wanted[0] == "." }

// unpack unpacks archives that come one behind the other, with zeros between
// and behind them.
func (r *receiver) unpack(from io.Reader) error {
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		block, err := in.Peek(512)
		switch {
		case len(block) == 0 && err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%w: it ends in the middle of a block", errArchive)
		case bytes.Equal(block, zeros[:len(block)]):
			_, _ = in.Discard(len(block)) // they are there
		default:
			if err := r.one(tar.NewReader(in)); err != nil {
				return err
			}
		}
	}
}

// one unpacks one archive.
func (r *receiver) one(archive *tar.Reader) error {
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := r.name(h.Name)
		if err != nil {
			return err
		}
		if err := r.entry(name, h, archive); err != nil {
			return fmt.Errorf("unpack %q: %w", name, err)
		}
	}
}

// name is that of an entry, if it is one that was asked for.
func (r *receiver) name(text string) (string, error) {
	name := path.Clean(text)
	asked := slices.ContainsFunc(r.wanted, func(w string) bool { return within(name, w) })
	if path.IsAbs(text) || slices.Contains(strings.Split(text, "/"), "..") || !filepath.IsLocal(name) || !asked {
		return "", fmt.Errorf("%w: it has an entry %q", errArchive, text)
	}
	if parent := path.Dir(name); parent != r.parent {
		info, err := r.root.Lstat(parent)
		if err != nil || !info.IsDir() {
			return "", fmt.Errorf("%w: its entry %q is in no folder of it", errArchive, text)
		}
		r.parent = parent
	}
	return name, nil
}

// entry makes one file.
func (r *receiver) entry(name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		return r.folder(name, h)
	case tar.TypeReg:
		r.files, r.bytes = r.files+1, r.bytes+h.Size
		return r.file(name, h, content)
	case tar.TypeLink:
		return r.link(name, h)
	case tar.TypeSymlink:
		r.links++
		if err := r.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return r.own(name, h)
	case tar.TypeFifo:
		r.pipes++
		return r.pipe(name, h)
	case tar.TypeChar, tar.TypeBlock:
		r.devices++
		return nil
	}
	return fmt.Errorf("%w: its kind is %q", errArchive, h.Typeflag)
}

// folder makes a folder that nobody else may write to until all is there.
func (r *receiver) folder(name string, h *tar.Header) error {
	r.folders++
	if name == "." { // the folder of that is the caller's
		return nil
	}
	if err := r.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	r.late = append(r.late, lateFolder{name, r.mode(h), h.ModTime})
	return r.own(name, h)
}

// mode is the one that the file gets here.
func (r *receiver) mode(h *tar.Header) fs.FileMode {
	mode := h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	if r.super {
		return mode
	}
	if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		r.bits++
	}
	return mode &^ (fs.ModeSetuid | fs.ModeSetgid | r.umask)
}

// own gives the file its owner, if the caller may.
func (r *receiver) own(name string, h *tar.Header) error {
	if r.super {
		return r.root.Lchown(name, h.Uid, h.Gid)
	}
	if h.Uid != os.Geteuid() || h.Gid != os.Getegid() {
		r.owners++
	}
	return nil
}

// dress gives what is no link owner, mode and time.
func (r *receiver) dress(name string, h *tar.Header) error {
	if err := r.own(name, h); err != nil {
		return err
	}
	if err := r.root.Chmod(name, r.mode(h)); err != nil {
		return err
	}
	return r.root.Chtimes(name, h.ModTime, h.ModTime)
}

// file makes a regular file.
func (r *receiver) file(name string, h *tar.Header, content io.Reader) error {
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(&sparse{file: f}, content)
	if err == nil {
		err = f.Truncate(n) // what ends with zeros has not been written to its end
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return r.dress(name, h)
}

// large makes a file that came by itself, for it is too large for an archive.
// Its mode is that of a new file: only archives know modes.
func (r *receiver) large(name string, write func(io.Writer) error) error {
	if !slices.ContainsFunc(r.wanted, func(w string) bool { return within(name, w) }) || !filepath.IsLocal(name) {
		return fmt.Errorf("%w: %q", errArchive, name)
	}
	f, err := r.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	counted := &sparse{file: f}
	err = write(counted)
	if err == nil {
		err = f.Truncate(counted.at)
	}
	r.files, r.bytes = r.files+1, r.bytes+counted.at
	return errors.Join(err, f.Close())
}

// sparse writes no block that is all zeros: the file has a hole there.
type sparse struct {
	file *os.File
	at   int64
}

// sparseBlock is the smallest hole.
const sparseBlock = 4096

var zeros [sparseBlock]byte

// Write writes at the end of what was written before.
func (s *sparse) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		block := p[done:min(len(p), done+sparseBlock)]
		if !bytes.Equal(block, zeros[:len(block)]) {
			// As much as there is up to the next hole, at once.
			end := done + len(block)
			for end < len(p) {
				next := p[end:min(len(p), end+sparseBlock)]
				if bytes.Equal(next, zeros[:len(next)]) {
					break
				}
				end += len(next)
			}
			block = p[done:end]
			if _, err := s.file.WriteAt(block, s.at); err != nil {
				return done, err
			}
		}
		s.at += int64(len(block))
		done += len(block)
	}
	return len(p), nil
}

// link makes another name of what came before.
func (r *receiver) link(name string, h *tar.Header) error {
	target := path.Clean(h.Linkname)
	if path.IsAbs(h.Linkname) || !filepath.IsLocal(target) {
		return fmt.Errorf("%w: it is a link to %q", errArchive, h.Linkname)
	}
	info, err := r.root.Lstat(target)
	if err != nil {
		return err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		r.files, r.bytes = r.files+1, r.bytes+info.Size()
	case mode&fs.ModeSymlink != 0:
		r.links++
	case mode&fs.ModeNamedPipe != 0:
		r.pipes++
	default:
		return fmt.Errorf("%w: it is a link to the folder %q", errArchive, target)
	}
	return r.root.Link(target, name)
}

// pipe makes a named pipe, where this machine has such.
func (r *receiver) pipe(name string, h *tar.Header) error {
	made, err := makePipe(r.root, name)
	if err != nil {
		return err
	}
	if !made {
		r.unmade++
		return nil
	}
	return r.dress(name, h)
}

// compare wants to have received what there was.
func (r *receiver) compare(s restic.Survey) error {
	for _, c := range []struct {
		what        string
		here, there int64
	}{
		{"files", r.files, s.Files}, {"bytes", r.bytes, s.Bytes}, {"folders", r.folders, s.Folders},
		{"links", r.links, s.Links}, {"pipes", r.pipes, s.Pipes}, {"devices", r.devices, s.Devices},
	} {
		if c.here != c.there {
			return fmt.Errorf("%w: %d %s have come, there are %d", errDiffers, c.here, c.what, c.there)
		}
	}
	return nil
}

// finish gives the folders mode and time, now that they are in their place
// below root: the inner ones first.
func (r *receiver) finish(root *os.Root) error {
	for _, f := range slices.Backward(r.late) {
		if err := root.Chtimes(f.name, f.mtime, f.mtime); err != nil {
			return err
		}
		if err := root.Chmod(f.name, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// notes are what could not be kept, in words.
func (r *receiver) notes(s restic.Survey) []string {
	var notes []string
	say := func(n int64, words string) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf(words, n))
		}
	}
	say(r.owners, "%d files are yours now: only root gives files their owners")
	say(r.bits, "%d files have lost setuid or setgid, for they are yours now")
	say(r.unmade, "%d named pipes are not made: this machine has none")
	say(s.Sockets, "%d sockets are not brought")
	say(r.devices, "%d devices are not brought")
	say(int64(len(s.Large)), "%d files over 8 GiB have the mode and time of new files")
	return notes
}
