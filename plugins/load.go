package plugins

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// LoadRequest says what is loaded, and into what. Names are those of databases.
type LoadRequest struct {
	What   string // as in Part, but no globals
	Bytes  int64
	SHA256 string // hex
	// Path is where the dump lies in the container; "" if it comes over standard
	// input after Stdin, all but its last [Withheld] bytes. Then Head and Tail are
	// its first bytes, 8 or more, and its last, Withheld or all there are.
	Path       string
	Head, Tail []byte
	// From is the database of the dump; "" for all that are in it, and for users.
	From string
	// Into is where it goes; "" where From is. It is made if it is not there.
	// Fresh: it must not be there, or be empty.
	Into  string
	Fresh bool
	// Roles are statements to be run before, in the same transaction: see
	// [Roles]. PostgreSQL only.
	Roles   string
	Timeout time.Duration // for the whole script, held inside the container too; at least a second
}

// Server is what was found where a dump is to be loaded.
type Server struct {
	Engine    string // "postgres", "mysql" or "mariadb"
	Version   string // of the server: "15.18"
	Role      Role
	Databases []string         // all that there are, but the server's own
	Targets   map[string]Stand // what was asked for, by name
}

// Stand is what stands in a database. The zero value is one that is not there.
type Stand struct {
	There   bool
	Bytes   int64
	Objects int // tables and the like; 0: it is empty
}

// Look looks at the server and those databases of it, changing nothing. Read it
// with [ReadServer].
func (p Plugin) Look(nonce string, databases []string) (Command, error) {
	var names []string
	for _, name := range databases {
		names = append(names, hex.EncodeToString([]byte(name)))
	}
	return p.command(stepLoad, nonce, "look", "60", strings.Join(names, " "))
}

// Withheld is how many of a dump's last bytes a script gets beforehand. They are
// what it gives to the server last, once it knows that all of the dump is right.
const Withheld = 64

// Load loads one part of a dump. Read it with [ReadServer].
func (p Plugin) Load(nonce string, r LoadRequest) (Command, error) {
	switch {
	case r.Timeout < time.Second:
		return Command{}, fmt.Errorf("load by %s: timeout %s is under a second", p.Name, r.Timeout)
	case !sumForm.MatchString(r.SHA256) || r.Bytes < 1:
		return Command{}, fmt.Errorf("load by %s: %d bytes with SHA-256 %q are no dump", p.Name, r.Bytes, r.SHA256)
	case r.What == WhatGlobals:
		return Command{}, fmt.Errorf("load by %s: globals are loaded as Roles", p.Name)
	case r.Path == "" && int64(len(r.Tail)) != min(Withheld, r.Bytes):
		return Command{}, fmt.Errorf("load by %s: a tail of %d bytes", p.Name, len(r.Tail))
	case strings.ContainsRune(r.Roles, 0):
		return Command{}, fmt.Errorf("load by %s: roles with a NUL", p.Name)
	}
	fresh := "no"
	if r.Fresh {
		fresh = "yes"
	}
	last := strconv.Itoa(len(r.Roles))
	if !strings.HasPrefix(r.What, database) {
		last = r.What
	}
	c, err := p.command(stepLoad, nonce, "load", strconv.FormatInt(int64(r.Timeout/time.Second), 10), hex.EncodeToString([]byte(r.Into)),
		hex.EncodeToString([]byte(r.From)), fresh, strconv.FormatInt(r.Bytes, 10), r.SHA256, r.Path,
		hex.EncodeToString(r.Head[:min(8, len(r.Head))]), hex.EncodeToString(r.Tail), last)
	c.Stdin = append(c.Stdin, r.Roles...)
	return c, err
}

// Find says how long a file is, and what is in it if text is true: for small
// ones. Read it with [ReadFile].
func (p Plugin) Find(nonce, path string, text bool) (Command, error) {
	want := "no"
	if text {
		want = "yes"
	}
	return p.command(stepFind, nonce, want, path)
}

// What a part of a dump may be.
const (
	WhatGlobals   = "globals"   // of PostgreSQL: roles and tablespaces
	WhatDatabases = "databases" // of MySQL and MariaDB: all of them
	WhatUsers     = "users"     // of MySQL and MariaDB
	database      = "database " // and its name; of PostgreSQL
)

// DatabaseOf is the one database that a part is of.
func DatabaseOf(what string) (name string, ok bool) { return strings.CutPrefix(what, database) }

var sumForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ReadServer reads what the commands of [Plugin.Look] and [Plugin.Load] printed.
// The error is an [*Error], or wraps [ErrTruncated].
func ReadServer(nonce string, stdout []byte) (Server, error) {
	f, err := readFields(nonce, stdout)
	if err != nil {
		return Server{}, err
	}
	s := Server{Engine: f.text("engine"), Version: f.text("version"), Role: Role(f.text("role")), Targets: map[string]Stand{}}
	for _, name := range f.all["database"] {
		s.Databases = append(s.Databases, f.unhex(name))
	}
	for _, line := range f.all["target"] {
		f.target(s.Targets, line)
	}
	return s, f.err
}

// target reads "NAME KIB OBJECTS", NAME in hex, KIB -1 for none.
func (f *fields) target(into map[string]Stand, line string) {
	words := strings.Fields(line)
	if len(words) != 3 {
		f.fail("target %q", line)
		return
	}
	kib, err := strconv.ParseInt(words[1], 10, 64)
	objects, err2 := strconv.Atoi(words[2])
	if err != nil || err2 != nil {
		f.fail("target %q", line)
		return
	}
	stand := Stand{}
	if kib >= 0 {
		stand = Stand{There: true, Bytes: kib << 10, Objects: objects}
	}
	into[f.unhex(words[0])] = stand
}

func (f *fields) unhex(text string) string {
	b, err := hex.DecodeString(text)
	if err != nil {
		f.fail("name %q", text)
	}
	return string(b)
}

// File is what [Plugin.Find] has found.
type File struct {
	Bytes int64  // -1: there is none
	Text  []byte // what is in it, if that was asked for
}

// ReadFile reads what the command of [Plugin.Find] printed. The error is an
// [*Error], or wraps [ErrTruncated].
func ReadFile(nonce string, stdout []byte) (File, error) {
	f, err := readFields(nonce, stdout)
	if err != nil {
		return File{}, err
	}
	file := File{Bytes: f.number("bytes")}
	if f.all["text"] != nil {
		file.Text = []byte(f.text("text"))
	}
	return file, f.err
}
