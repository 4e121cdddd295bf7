package catalog

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// RecordVersion is the version of the records that we write. A newer one is
// kept and not judged.
const RecordVersion = 1

// Record is what is known of a snapshot, in its annotation: enough to restore
// it when the claim, its volume and its class are long gone, and the evidence
// for its consistency. Fields are only ever added.
type Record struct {
	Version int         `json:"version"`
	Run     Run         `json:"run"`
	App     string      `json:"app"`     // `statefulset/mysql`; `pvc/data` where no pod mounts it
	Members []string    `json:"members"` // names of the set's claims, sorted
	Claim   ClaimRecord `json:"claim"`

	SnapshotClass string `json:"snapshotClass"`
	RestoreSize   int64  `json:"restoreSize,omitempty"` // bytes; 0: the driver gives none
	TimeZone      string `json:"timeZone"`              // IANA name, in which periods and days are meant

	Consistency Consistency `json:"consistency"`
	Reason      string      `json:"reason"` // how it came to that, in words
	Plugin      string      `json:"plugin,omitempty"`
	Mode        string      `json:"mode,omitempty"` // dump
	Pod         string      `json:"pod,omitempty"`  // in which the dump was taken
	Container   string      `json:"container,omitempty"`
	Tool        string      `json:"tool,omitempty"`          // with its version
	Server      string      `json:"serverVersion,omitempty"` // of the database
	User        *int64      `json:"user,omitempty"`          // uid that the app's pods run as, where their specs say
	Position    string      `json:"position,omitempty"`      // WAL or binlog position before the dump
	Barrier     string      `json:"barrier,omitempty"`       // what forced acknowledged data onto the disk
	Dumps       []Dump      `json:"dumps,omitempty"`         // those that lie in this volume

	// Wanted are the names of the repositories in which a copy was asked for,
	// sorted; none where no copy was.
	Wanted []string `json:"wanted,omitempty"`

	// Requested, Cut and Ready: the request was sent; the storage took it (its
	// own clock); the run saw it usable.
	Requested time.Time `json:"requested"`
	Cut       time.Time `json:"cut"`
	Ready     time.Time `json:"ready"`
	// DumpBegan and Dumped are when the dump began and when its proof was
	// complete; zero without a dump.
	DumpBegan time.Time `json:"dumpBegan,omitzero"`
	Dumped    time.Time `json:"dumped,omitzero"`
}

// ClaimRecord is the source claim as it was at the cut.
type ClaimRecord struct {
	Name         string          `json:"name"`
	UID          string          `json:"uid"`
	Request      int64           `json:"request"`  // bytes asked for
	Capacity     int64           `json:"capacity"` // bytes given
	StorageClass string          `json:"storageClass,omitempty"`
	Driver       string          `json:"driver"`
	AccessModes  []string        `json:"accessModes"`
	VolumeMode   string          `json:"volumeMode"`
	FileSystem   string          `json:"fileSystem,omitempty"`
	NodeAffinity json.RawMessage `json:"nodeAffinity,omitempty"` // the volume's, as in the API
	// Node is where a pod mounted it; only where the volume could not be asked.
	Node string `json:"node,omitempty"`
}

// Dump is one proven file that lies in the volume.
type Dump struct {
	What   string `json:"what"` // name of the database, or globals, users
	Path   string `json:"path"` // from the volume's root
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ReadRecord reads a record; nil without an error for "". One of a newer
// version than RecordVersion, and one that names no claim, are errors.
func ReadRecord(text string) (*Record, error) {
	if text == "" {
		return nil, nil
	}
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, err
	}
	if r.Version < 1 || r.Version > RecordVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", r.Version, RecordVersion)
	}
	if r.Claim.Name == "" {
		return nil, errors.New("it names no claim")
	}
	return &r, nil
}

// Tag is the record as the value of restic's tag `record=`: JSON, gzip,
// base64url without padding. restic 0.19.1 stores tags of 4 KB.
func (r Record) Tag() (string, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("write record: %w", err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return "", fmt.Errorf("pack record: %w", err)
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("pack record: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(packed.Bytes()), nil
}

// maxRecord bounds what a tag may unpack to.
const maxRecord = 1 << 20

// ReadTag reads what Tag wrote.
func ReadTag(tag string) (*Record, error) {
	packed, err := base64.RawURLEncoding.DecodeString(tag)
	if err != nil {
		return nil, fmt.Errorf("read record tag: %w", err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("read record tag: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read record tag: %w", err)
	case len(text) == 0 || len(text) > maxRecord:
		return nil, fmt.Errorf("read record tag: it unpacks to %d bytes", len(text))
	}
	return ReadRecord(string(text))
}
