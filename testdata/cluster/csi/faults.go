package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
)

// fault is one entry of the control file; README.md says what the knobs do.
type fault struct {
	Namespace string `json:"namespace"`
	Claim     string `json:"claim"`

	CutDelay       duration     `json:"cutDelay"`
	ReadyDelay     duration     `json:"readyDelay"`
	NeverReady     bool         `json:"neverReady"`
	NoRestoreSize  bool         `json:"noRestoreSize"`
	ExactSize      bool         `json:"exactSize"`
	Errors         *countedFail `json:"errors"`
	FinalError     *failure     `json:"finalError"`
	ReadyThenError *failure     `json:"readyThenError"`
	FailProvision  *provision   `json:"failProvision"`
	RefuseDelete   *failure     `json:"refuseDelete"`
}

type failure struct {
	Code    code   `json:"code"`
	Message string `json:"message"`
}

type countedFail struct {
	failure
	Count int `json:"count"`
}

type provision struct {
	failure
	OnlyFromSnapshots bool `json:"onlyFromSnapshots"`
}

func (f failure) err() error { return coded{codes.Code(f.Code), f.Message} }

// code is a gRPC code by its name, as "DeadlineExceeded".
type code codes.Code

func (c *code) UnmarshalJSON(text []byte) error {
	var name string
	if err := json.Unmarshal(text, &name); err != nil {
		return err
	}
	for known := codes.Canceled; known <= codes.Unauthenticated; known++ {
		if known.String() == name {
			*c = code(known)
			return nil
		}
	}
	return fmt.Errorf("unknown code %q", name)
}

type duration time.Duration

func (d *duration) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(s)
	*d = duration(parsed)
	return err
}

// faultsOf reads the control file and returns what it says of the claims.
func (d *driver) faultsOf(claims ...claim) (fault, error) {
	all, err := readFaults(d.faults)
	return all.of(claims...), err
}

// faults is the content of the control file.
type faults []fault

// readFaults reads the control file. That there is no file, or no path, means
// no faults.
func readFaults(path string) (faults, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read faults: %w", err)
	}
	var all faults
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		return nil, fmt.Errorf("read faults %s: %w", path, err)
	}
	for _, f := range all {
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("read faults %s: %w", path, err)
		}
	}
	return all, nil
}

// of merges the entries that concern one of the claims; the first one that
// sets a knob wins.
func (all faults) of(claims ...claim) fault {
	var f fault
	for _, entry := range all {
		if entry.concerns(claims) {
			f.take(entry)
		}
	}
	return f
}

// check refuses failures without a code: they would be no failures.
func (f fault) check() error {
	given := []*failure{f.FinalError, f.ReadyThenError, f.RefuseDelete}
	if f.Errors != nil {
		given = append(given, &f.Errors.failure)
	}
	if f.FailProvision != nil {
		given = append(given, &f.FailProvision.failure)
	}
	for _, g := range given {
		if g != nil && g.Code == code(codes.OK) {
			return errors.New("a failure needs a code")
		}
	}
	return nil
}

func (f fault) concerns(claims []claim) bool {
	if f.Namespace == "" && f.Claim == "" {
		return true
	}
	for _, c := range claims {
		if (f.Namespace == "" || f.Namespace == c.Namespace) && (f.Claim == "" || f.Claim == c.Name) {
			return true
		}
	}
	return false
}

func (f *fault) take(entry fault) {
	first(&f.CutDelay, entry.CutDelay)
	first(&f.ReadyDelay, entry.ReadyDelay)
	first(&f.NeverReady, entry.NeverReady)
	first(&f.NoRestoreSize, entry.NoRestoreSize)
	first(&f.ExactSize, entry.ExactSize)
	first(&f.Errors, entry.Errors)
	first(&f.FinalError, entry.FinalError)
	first(&f.ReadyThenError, entry.ReadyThenError)
	first(&f.FailProvision, entry.FailProvision)
	first(&f.RefuseDelete, entry.RefuseDelete)
}

func first[T comparable](knob *T, value T) {
	var unset T
	if *knob == unset {
		*knob = value
	}
}

// ready reports whether the snapshot can be used at now.
func (f fault) ready(s snapshot, now time.Time) bool {
	return !f.NeverReady && f.matured(s, now)
}

func (f fault) matured(s snapshot, now time.Time) bool {
	return !now.Before(s.Cut.Add(time.Duration(f.ReadyDelay)))
}

// spoiled is the error that a snapshot answers with once it should be ready.
func (f fault) spoiled(s snapshot, now time.Time) error {
	if f.ReadyThenError != nil && f.matured(s, now) {
		return f.ReadyThenError.err()
	}
	return nil
}

// failCut returns the error that making the snapshot id meets this time. It
// counts on disk, so that a restarted driver goes on counting.
func (f fault) failCut(s *store, id string) error {
	if f.FinalError != nil {
		return f.FinalError.err()
	}
	if f.Errors == nil {
		return nil
	}
	seen, err := failedCuts(s, id)
	if err != nil || seen >= f.Errors.Count {
		return err
	}
	if err := writeAside(failedCutsFile(s, id), []byte(strconv.Itoa(seen+1))); err != nil {
		return err
	}
	return f.Errors.err()
}

func failedCuts(s *store, id string) (int, error) {
	text, err := os.ReadFile(failedCutsFile(s, id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

func forgetFailedCuts(s *store, id string) error {
	if err := os.Remove(failedCutsFile(s, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func failedCutsFile(s *store, id string) string { return s.path("errors", idOf("errors", id)) }
