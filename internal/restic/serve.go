package restic

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// MaxArchived is the largest file that goes into an archive: the tar of
// busybox, which is in restic's image, writes sizes of 33 bits.
const MaxArchived = 8<<30 - 1

// idle is how long a pod that hands out files waits for somebody who takes them.
const idle = 5 * time.Minute

var (
	//go:embed hold.sh
	holdScript string
	//go:embed serve.sh
	serveScript string
)

// Serve is a volume of which files are handed out.
type Serve struct {
	Namespace, Name string // of the Job
	Image           string // any with a shell and tar in it: restic's own is at hand
	Run             catalog.Run
	Source          catalog.Source // what the Job says of itself
	Claim           string         // whose volume it is; mounted read-only
	// NodeAffinity is where the pod must be, as in the API; nil for anywhere.
	NodeAffinity json.RawMessage
	Pod          Pod           // without ServiceAccount and cache
	Deadline     time.Duration // for all that is handed out
}

// Job is the pod that the files are taken from. It has no Secret, and ends by
// itself soon after nobody takes files any more.
func (s Serve) Job() (Job, error) {
	job, err := errand(s.Namespace, s.Name, s.Image, s.Run, s.Source, s.Pod)
	if err != nil {
		return Job{}, err
	}
	job.Command, job.Args = []string{"/bin/sh", "-c", holdScript, "backsnap"}, []string{fmt.Sprint(int(idle.Seconds()))}
	job.Claim, job.NodeAffinity, job.Deadline = s.Claim, s.NodeAffinity, s.Deadline+setup
	return job, nil
}

// errand is what all Jobs have in common that read a volume without restic.
func errand(namespace, name, image string, run catalog.Run, of catalog.Source, pod Pod) (Job, error) {
	source, err := json.Marshal(of)
	if err != nil {
		return Job{}, fmt.Errorf("write source: %w", err)
	}
	job := Job{
		Namespace: namespace, Name: name, Image: image, Pod: pod.orDefault(),
		Labels: catalog.Ours(catalog.RoleMover, run), Annotations: catalog.HandsOff(),
		Env: []Env{{"BACKSNAP_DATA", DataPath}, {"TMPDIR", TempPath}},
	}
	// It does nothing for which it would need an identity or a cache.
	job.ServiceAccount, job.CacheClaim, job.Keep = "", "", keepErrand
	job.Labels[catalog.LabelNamespace] = of.Namespace
	job.Labels[catalog.LabelClaim] = catalog.ClaimLabel(of.Claim)
	job.Annotations[catalog.AnnotationSource] = string(source)
	return job, nil
}

// What an Ask is for.
const (
	AskSurvey = "survey" // what there is
	AskTar    = "tar"    // archives, one behind the other
	AskRaw    = "raw"    // one file as it is
)

// Ask is one request to the pod of a Serve.
type Ask struct {
	Nonce string // of letters and digits
	Mode  string
	// Paths are relative to the volume's root, clean, of any bytes; none for
	// the whole volume. AskRaw wants one.
	Paths []string
	// Limit is the size in bytes above which a survey calls a file large, and
	// an archive goes without it; 0 for an archive of all files.
	Limit int64
}

// ServeArgv is the command of every Ask. It is in the API server's audit log,
// and so it is a constant.
var ServeArgv = []string{"/bin/sh", "-c", `IFS= read -r n; eval "$(dd bs=1 count="$n" 2>/dev/null)"`}

// Stdin is what the command is to be sent. Its standard input is to stay open
// after that, until it has ended.
func (a Ask) Stdin() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d\n%s%s\n%s\n%d\n", len(serveScript), serveScript, a.Nonce, a.Mode, a.Limit)
	fmt.Fprintln(&b, len(a.Paths))
	for _, path := range a.Paths {
		fmt.Fprintln(&b, octal(path))
	}
	return b.Bytes()
}

// octal is s as printf's %b reads it.
func octal(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\0%03o`, s[i])
	}
	return b.String()
}

var special = regexp.MustCompile(`[\\*?\[\]]`)

// literal is the pattern that matches s alone.
func literal(s string) string { return special.ReplaceAllString(s, `\$0`) }

// include is the pattern of restic's that matches the path in a copy, and
// what is below it. A byte that is no text cannot be in a pod's spec: the
// pattern takes any in its place.
func include(name string) string {
	var b strings.Builder
	for _, part := range split(name) {
		if utf8.ValidString(part) {
			b.WriteString(literal(part))
		} else {
			b.WriteByte('?')
		}
	}
	return DataPath + "/" + b.String()
}

// split is s by its characters, a byte that is none by itself.
func split(s string) []string {
	var parts []string
	for len(s) > 0 {
		_, size := utf8.DecodeRuneInString(s)
		parts, s = append(parts, s[:size]), s[size:]
	}
	return parts
}

// Survey is what lies below the paths of an Ask.
type Survey struct {
	Files, Bytes                            int64 // regular files by all their names
	Folders, Links, Pipes, Sockets, Devices int64
	Large                                   []string // files above the limit, by name
	Missing                                 []int    // indexes of paths that are not there
	Led                                     []int    // of paths with a symbolic link among their folders
}

// Served is how an Ask ended.
type Served struct {
	Exit   int
	Bytes  int64  // that went to standard output
	SHA256 string // of them
	Survey Survey
}

// Reply is the standard error of an Ask, as it comes.
type Reply struct {
	nonce string
	rest  []byte // of a line that has not ended
	mine  []string
	said  []string // what else was said: the first lines of it
}

// quoted is how many lines of tar's a Reply keeps, maxLine how long one may be.
const (
	quotedLines = 5
	maxLine     = 64 << 20
)

// NewReply is what the Ask with that nonce writes to.
func NewReply(nonce string) *Reply { return &Reply{nonce: nonce} }

// Write takes what comes.
func (r *Reply) Write(p []byte) (int, error) {
	r.rest = append(r.rest, p...)
	for {
		line, rest, ended := bytes.Cut(r.rest, []byte("\n"))
		if !ended {
			break
		}
		r.line(string(line))
		r.rest = rest
	}
	if len(r.rest) > maxLine {
		return 0, errors.New("a line of standard error does not end")
	}
	return len(p), nil
}

func (r *Reply) line(line string) {
	if mine, ok := strings.CutPrefix(line, "backsnap "+r.nonce+" "); ok {
		r.mine = append(r.mine, mine)
	} else if line != "" && len(r.said) < quotedLines {
		r.said = append(r.said, line)
	}
}

// Said is what tar and its like have said, in one line; "" for nothing.
func (r *Reply) Said() string { return strings.Join(r.said, "; ") }

// Served reads the reply. One without its last line, or that cannot be read,
// is an error that wraps ErrCut.
func (r *Reply) Served() (Served, error) {
	var s Served
	ended := false
	for _, line := range r.mine {
		kind, rest, _ := strings.Cut(line, " ")
		var err error
		switch kind {
		case "missing":
			s.Survey.Missing, err = index(s.Survey.Missing, rest)
		case "link":
			s.Survey.Led, err = index(s.Survey.Led, rest)
		case "large":
			s.Survey.Large, err = names(rest)
		case "end":
			ended = true
			err = s.end(rest)
		}
		if err != nil {
			return s, fmt.Errorf("%w: %q: %w", ErrCut, line, err)
		}
	}
	if !ended {
		return s, fmt.Errorf("%w: the other side has not said how it ended", ErrCut)
	}
	return s, nil
}

// end reads `exit=0 bytes=3 sha256=...`, or the counts of a survey.
func (s *Served) end(text string) error {
	numbers := map[string]*int64{
		"files": &s.Survey.Files, "folders": &s.Survey.Folders, "links": &s.Survey.Links, "pipes": &s.Survey.Pipes,
		"sockets": &s.Survey.Sockets, "devices": &s.Survey.Devices, "bytes": &s.Bytes,
	}
	for _, field := range strings.Fields(text) {
		key, value, _ := strings.Cut(field, "=")
		var err error
		switch {
		case key == "exit":
			_, err = fmt.Sscanf(value+";", "%d;", &s.Exit)
		case key == "sha256":
			s.SHA256 = value
		case numbers[key] != nil:
			_, err = fmt.Sscanf(value+";", "%d;", numbers[key])
		default:
			err = errors.New("not known")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	s.Survey.Bytes = s.Bytes
	return nil
}

// index adds a number that counts from 1.
func index(to []int, text string) ([]int, error) {
	n := 0
	_, err := fmt.Sscanf(text+";", "%d;", &n)
	return append(to, n-1), err
}

// names reads names as hexadecimal digits, each with a NUL at its end and ./
// at its beginning.
func names(text string) ([]string, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	var list []string
	for name := range bytes.SplitSeq(raw, []byte{0}) {
		if len(name) > 0 {
			list = append(list, strings.TrimPrefix(string(name), "./"))
		}
	}
	return list, nil
}
