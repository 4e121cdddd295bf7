package restic

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ErrCut says that an answer did not come through whole.
var ErrCut = errors.New("the answer did not come through whole")

// maxAnswer bounds what an answer may unpack to, in bytes: some hundred
// thousand snapshots.
const maxAnswer = 1 << 30

// ReadAnswer finds the answer with that nonce in a mover's log and unpacks it.
// Whatever is not exactly as the mover sent it is an error that wraps ErrCut:
// lines that are missing or too many, a length or a digest that is not the
// one announced.
func ReadAnswer(log io.Reader, nonce string) ([]byte, error) {
	begin := "backsnap answer " + nonce + " begins"
	end := regexp.MustCompile(`^backsnap answer ` + regexp.QuoteMeta(nonce) + ` ends lines=(\d+) bytes=(\d+) sha256=([0-9a-f]{64})$`)
	in := bufio.NewReader(log)
	var packed strings.Builder
	for lines := -1; ; { // -1: not begun
		line, err := in.ReadString('\n')
		text := strings.TrimRight(line, "\r\n")
		if err != nil && (err != io.EOF || text == "") {
			return nil, cut(lines, err)
		}
		switch said := end.FindStringSubmatch(text); {
		case text == begin && lines < 0:
			lines = 0
		case lines < 0:
		case said != nil && said[1] != fmt.Sprint(lines):
			return nil, fmt.Errorf("%w: %d lines, want %s", ErrCut, lines, said[1])
		case said != nil:
			return unpack(packed.String(), said[2], said[3])
		default:
			packed.WriteString(text)
			lines++
		}
		if err != nil {
			return nil, cut(lines, err)
		}
	}
}

// cut is why the end of the answer was not found.
func cut(lines int, err error) error {
	switch {
	case err != io.EOF:
		return fmt.Errorf("%w: read log: %w", ErrCut, err)
	case lines < 0:
		return fmt.Errorf("%w: the log has none", ErrCut)
	}
	return fmt.Errorf("%w: the log ends after %d of its lines", ErrCut, lines)
}

// unpack is packed as it was, if it has that length and digest.
func unpack(packed, length, digest string) ([]byte, error) {
	zip, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(packed)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	text, err := io.ReadAll(io.LimitReader(zip, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCut, err)
	}
	if fmt.Sprint(len(text)) != length {
		return nil, fmt.Errorf("%w: %d bytes, want %s", ErrCut, len(text), length)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%w: its SHA-256 is not the one announced", ErrCut)
	}
	return text, nil
}

// Snapshot is one that restic lists.
type Snapshot struct {
	ID   string // 64 hexadecimal digits
	Host string
	Time time.Time // of a copy: of the cut
	Tags []string
	// Ended is when it was made, Bytes what was read, Added what was stored,
	// compressed; zero where an older restic has made it.
	Ended        time.Time
	Bytes, Added int64
	Files        int64 // regular ones in it
}

// ReadSnapshots reads the answer of StepList: all of them, in restic's order.
func ReadSnapshots(answer []byte) ([]Snapshot, error) {
	var said []struct {
		ID       string
		Hostname string
		Time     time.Time
		Tags     []string
		Summary  struct {
			End   time.Time `json:"backup_end"`
			Bytes int64     `json:"total_bytes_processed"`
			Added int64     `json:"data_added_packed"`
			Files int64     `json:"total_files_processed"`
		}
	}
	if err := json.Unmarshal(bytes.TrimSpace(answer), &said); err != nil {
		return nil, fmt.Errorf("read snapshots: %w", err)
	}
	var list []Snapshot
	for _, s := range said {
		if !snapshotID.MatchString(s.ID) {
			return nil, fmt.Errorf("read snapshots: %q is no id of one", s.ID)
		}
		list = append(list, Snapshot{ID: s.ID, Host: s.Hostname, Time: s.Time.UTC(), Tags: s.Tags, Ended: s.Summary.End.UTC(), Bytes: s.Summary.Bytes, Added: s.Summary.Added, Files: s.Summary.Files})
	}
	return list, nil
}

// tagPartial is on the notes that movers leave in a repository beside a copy
// that is not whole, with the tag `of=` and its id: restic itself stores its exit
// code nowhere.
const tagPartial = "backsnap-partial"

// Partial are the ids of those copies among all that are not whole, as notes
// among all tell. A mover that was killed right after such a copy has left none.
func Partial(all []Snapshot) map[string]bool {
	partial := map[string]bool{}
	for id := range Notes(all) {
		partial[id] = true
	}
	return partial
}

// Notes are the ids of the notes among all, by that of the copy each is about.
func Notes(all []Snapshot) map[string]string {
	notes := map[string]string{}
	for _, s := range all {
		if slices.Contains(s.Tags, tagPartial) {
			notes[s.Tag("of")] = s.ID
		}
	}
	return notes
}

// Tag is the value of the tag of that name, `ns` for `ns=shop`; "" without it.
func (s Snapshot) Tag(name string) string {
	for _, tag := range s.Tags {
		if value, found := strings.CutPrefix(tag, name+"="); found {
			return value
		}
	}
	return ""
}

// Stats is how much a repository holds.
type Stats struct {
	Snapshots    int64   `json:"snapshots"`
	Blobs        int64   `json:"blobs"`
	Stored       int64   `json:"stored"`       // bytes, compressed
	Uncompressed int64   `json:"uncompressed"` // bytes
	Ratio        float64 `json:"compressionRatio,omitempty"`
}

// ReadStats reads the answer of StepStats.
func ReadStats(answer []byte) (Stats, error) {
	var said struct {
		Snapshots    *int64  `json:"snapshots_count"`
		Blobs        int64   `json:"total_blob_count"`
		Stored       int64   `json:"total_size"`
		Uncompressed int64   `json:"total_uncompressed_size"`
		Ratio        float64 `json:"compression_ratio"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(answer), &said); err != nil {
		return Stats{}, fmt.Errorf("read stats: %w", err)
	}
	if said.Snapshots == nil {
		return Stats{}, errors.New("read stats: it does not say how many snapshots there are")
	}
	return Stats{*said.Snapshots, said.Blobs, said.Stored, said.Uncompressed, said.Ratio}, nil
}

// Cluster is the name of the cluster that has made s as a copy; "" where s is
// none of ours.
func (s Snapshot) Cluster() string {
	name, _, named := strings.Cut(s.Host, "/")
	if !named || !slices.Contains(s.Tags, "backsnap") {
		return ""
	}
	return name
}
