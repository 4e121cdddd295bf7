package plugins

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Role is what a server is among its replicas.
type Role string

// The roles.
const (
	Primary Role = "primary" // takes writes
	Replica Role = "replica" // follows another server
)

// Probe is what was found in a container.
type Probe struct {
	Engine  string // "postgres", "mysql" or "mariadb"
	Version string // of the server: "15.18"
	Role    Role

	DataDir string // in the container, as are Mount and Dir
	Mount   string // where the volume with DataDir is mounted
	Dir     string // where the dumps will lie: Mount, or below it
	UID     int    // owner of DataDir, and so of the dumps
	GID     int

	Tool        string // that will dump: "pg_dump"
	ToolVersion string

	Databases     int   // that will be dumped
	EstimateBytes int64 // of the dump
	SizeBytes     int64 // of the volume
	FreeBytes     int64 // on the volume
	ReserveBytes  int64 // of FreeBytes, what is left to the database
	FreeInodes    int64 // on the volume; -1 if its file system knows no limit

	Warnings []string // sentences; may be empty
}

// Dump is a proven dump.
type Dump struct {
	Engine        string
	ServerVersion string
	Tool          string
	ToolVersion   string

	Mount    string // as in Probe
	Dir      string // as in Probe
	Position string // in the server's log, just before the dump: LSN or GTID; may be empty

	Parts    []Part   // never empty
	Barrier  *Barrier // nil if none was asked for
	Warnings []string // sentences; may be empty
}

// Part is one file of a dump.
type Part struct {
	What   string // "globals", "database shop", "databases", "users"
	Path   string // in the volume, that is below the dump's Mount
	Format string // "custom" (of pg_dump), "sql", "sql.gz", "sql.zst"
	Bytes  int64
	SHA256 string // hex
}

// Barrier is what came of forcing everything acknowledged onto the disk.
type Barrier struct {
	Forced   bool
	How      string   // the statement, or why it was not forced
	Position string   // LSN or GTID up to which all is on the disk; may be empty
	Warnings []string // sentences; may be empty
}

// ReadProbe reads what the command of [Plugin.Probe] printed. The error is an
// [*Error], or wraps [ErrTruncated].
func ReadProbe(nonce string, stdout []byte) (Probe, error) {
	f, err := readFields(nonce, stdout)
	if err != nil {
		return Probe{}, err
	}
	p := Probe{
		Engine: f.text("engine"), Version: f.text("version"), Role: Role(f.text("role")),
		DataDir: f.text("datadir"), Mount: f.text("mount"), Dir: f.text("dir"),
		UID: int(f.number("uid")), GID: int(f.number("gid")),
		Tool: f.text("tool"), ToolVersion: f.text("toolversion"),
		Databases: int(f.number("databases")), EstimateBytes: f.number("estimate"),
		SizeBytes: f.number("size"), FreeBytes: f.number("free"), ReserveBytes: f.number("reserve"),
		FreeInodes: f.number("inodes"), Warnings: f.all["warning"],
	}
	if p.Role != Primary && p.Role != Replica {
		f.fail("role %q", p.Role)
	}
	return p, f.err
}

// ReadDump reads what the command of [Plugin.Dump] printed. The error is an
// [*Error], or wraps [ErrTruncated].
func ReadDump(nonce string, stdout []byte) (Dump, error) {
	f, err := readFields(nonce, stdout)
	if err != nil {
		return Dump{}, err
	}
	d := Dump{
		Engine: f.text("engine"), ServerVersion: f.text("version"),
		Tool: f.text("tool"), ToolVersion: f.text("toolversion"),
		Mount: f.text("mount"), Dir: f.text("dir"), Position: f.text("position"),
		Warnings: f.all["warning"],
	}
	for _, line := range f.all["part"] {
		d.Parts = append(d.Parts, f.part(strings.TrimPrefix(d.Dir, d.Mount), line))
	}
	if len(d.Parts) == 0 {
		f.fail("no part")
	}
	if f.all["barrier"] != nil {
		d.Barrier = f.barrier()
	}
	return d, f.err
}

// ReadBarrier reads what the command of [Plugin.Barrier] printed. The error is
// an [*Error], or wraps [ErrTruncated].
func ReadBarrier(nonce string, stdout []byte) (Barrier, error) {
	f, err := readFields(nonce, stdout)
	if err != nil {
		return Barrier{}, err
	}
	return *f.barrier(), f.err
}

// ReadRemoval reads what the command of [Plugin.Remove] printed: how many files
// of the dump are gone, its list not counted. The error is an [*Error], or
// wraps [ErrTruncated].
func ReadRemoval(nonce string, stdout []byte) (int, error) {
	f, err := readFields(nonce, stdout)
	if err != nil {
		return 0, err
	}
	n := int(f.number("removed"))
	return n, f.err
}

// Done reports whether stdout holds the end line, so that nothing more will
// come and standard input may be closed.
func Done(nonce string, stdout []byte) bool {
	i := bytes.LastIndex(stdout, []byte("@bs:"+nonce+":END "))
	return i >= 0 && bytes.HasSuffix(stdout, []byte("\n"))
}

// Tick reports whether line of standard error is only a sign of life.
func Tick(nonce, line string) bool {
	return strings.TrimRight(line, "\r\n") == "@bs:"+nonce+":TICK"
}

// fields is what a script has said. Its readers keep the first error.
type fields struct {
	all map[string][]string
	err error
}

var endLine = regexp.MustCompile(`^END rc=([0-9]+) lines=([0-9]+)$`)

// readFields reads the lines of a script that has come to its end. A script
// that failed gives its *Error.
func readFields(nonce string, stdout []byte) (*fields, error) {
	lines := strings.SplitAfter(string(stdout), "\n")
	if n := len(lines); n < 3 || lines[n-1] != "" {
		return nil, fmt.Errorf("%w: it has no end line", ErrTruncated)
	}
	lines = lines[:len(lines)-1]
	for i, line := range lines {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "@bs:"+nonce+":")
		if !ok {
			return nil, fmt.Errorf("%w: line %d is not the script's", ErrTruncated, i+1)
		}
		lines[i] = rest
	}
	keys, last := lines[1:len(lines)-1], lines[len(lines)-1]
	end := endLine.FindStringSubmatch(last)
	switch {
	case lines[0] != "BEGIN":
		return nil, fmt.Errorf("%w: its beginning is missing", ErrTruncated)
	case end == nil:
		return nil, fmt.Errorf("%w: it has no end line", ErrTruncated)
	case end[2] != strconv.Itoa(len(keys)):
		return nil, fmt.Errorf("%w: it has %d lines of %s", ErrTruncated, len(keys), end[2])
	}
	f := &fields{all: map[string][]string{}}
	for _, line := range keys {
		f.add(line)
	}
	if f.err != nil {
		return nil, f.err
	}
	return f, f.failure(end[1])
}

// add takes one key=value line. The value of a key that ends in .hex is hex,
// since it holds bytes that cannot stand on a line.
func (f *fields) add(line string) {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		f.fail("line %q", line)
		return
	}
	if name, isHex := strings.CutSuffix(key, ".hex"); isHex {
		b, err := hex.DecodeString(value)
		if err != nil {
			f.fail("%s: %v", key, err)
			return
		}
		key, value = name, string(b)
	}
	f.all[key] = append(f.all[key], value)
}

// failure is the error of a script that ended with status rc.
func (f *fields) failure(rc string) error {
	said := f.all["error"]
	if rc == "0" && said == nil {
		return nil
	}
	kind, message, _ := strings.Cut(strings.Join(said, "; "), " ")
	if hints[Kind(kind)] == "" {
		kind, message = string(Internal), fmt.Sprintf("the script ended with status %s: %s", rc, strings.Join(said, "; "))
	}
	return &Error{Kind: Kind(kind), Message: message, Hint: hints[Kind(kind)]}
}

// fail keeps the first fault of lines that are whole but make no sense.
func (f *fields) fail(format string, args ...any) {
	if f.err == nil {
		f.err = &Error{Kind: Internal, Message: "the script said something unexpected: " + fmt.Sprintf(format, args...), Hint: hints[Internal]}
	}
}

// text is the value of key, which stands exactly once.
func (f *fields) text(key string) string {
	if len(f.all[key]) != 1 {
		f.fail("%d lines %q", len(f.all[key]), key)
		return ""
	}
	return f.all[key][0]
}

func (f *fields) number(key string) int64 {
	text := f.text(key)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		f.fail("%s %q", key, text)
	}
	return n
}

var partLine = regexp.MustCompile(`^(\S+) (\S+) ([1-9][0-9]*) ([0-9a-f]{64}) ((?:[0-9a-f]{2})+)$`)

// part reads "FILE FORMAT BYTES SHA256 WHAT", WHAT in hex, of a file in dir.
func (f *fields) part(dir, line string) Part {
	m := partLine.FindStringSubmatch(line)
	if m == nil {
		f.fail("part %q", line)
		return Part{}
	}
	size, err := strconv.ParseInt(m[3], 10, 64)
	what, err2 := hex.DecodeString(m[5])
	if err != nil || err2 != nil {
		f.fail("part %q", line)
	}
	return Part{What: string(what), Path: strings.TrimPrefix(path.Join(dir, m[1]), "/"), Format: m[2], Bytes: size, SHA256: m[4]}
}

func (f *fields) barrier() *Barrier {
	return &Barrier{
		Forced: f.text("barrier") == "yes", How: f.text("barrier-how"),
		Position: f.text("barrier-position"), Warnings: f.all["barrier-warning"],
	}
}
