package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

const recordSize = 4096 // fits direct I/O

// ledger is a log of numbered records and, at a place of its own, how many
// there are. The number is overwritten in place after its record was forced to
// the disk, and forced too before the next record is begun.
type ledger struct{ log, number place }

// place is where records lie, one after the other.
type place struct {
	file   *os.File
	offset int64
}

func (p place) write(record []byte, index int) error {
	if _, err := p.file.WriteAt(record, p.offset+int64(index)*recordSize); err != nil {
		return err
	}
	return p.file.Sync()
}

// read returns the first word of a record and whether all are the same: a cut
// may fall into the middle of a record, as a power failure may.
func (p place) read(index int) (number int, whole bool) {
	record := make([]byte, recordSize)
	if got, _ := p.file.ReadAt(record, p.offset+int64(index)*recordSize); got < recordSize {
		return 0, false
	}
	word := binary.LittleEndian.Uint64(record)
	for i := 0; i < recordSize; i += 8 {
		if binary.LittleEndian.Uint64(record[i:]) != word {
			return int(word), false
		}
	}
	return int(word), true
}

// held counts the records of the log and reads their number.
func (l ledger) held() (records, number int) {
	for n, whole := l.log.read(0); whole && n == records+1; n, whole = l.log.read(records) {
		records++
	}
	number, _ = l.number.read(0)
	return records, number
}

// writer writes a ledger until it is stopped, and remembers when it began each
// record and when the record was on the disk.
type writer struct {
	mu    sync.Mutex
	begun []time.Time
	done  []time.Time
	stop  chan struct{}
	ended chan error
}

func startWriter(l ledger) *writer {
	w := &writer{stop: make(chan struct{}), ended: make(chan error, 1)}
	go func() { w.ended <- w.write(l) }()
	return w
}

func (w *writer) write(l ledger) error {
	// A mapping starts on a page, as direct I/O wants it.
	record, err := unix.Mmap(-1, 0, recordSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	defer unix.Munmap(record)
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return nil
		default:
		}
		for i := 0; i < recordSize; i += 8 {
			binary.LittleEndian.PutUint64(record[i:], uint64(n+1))
		}
		w.note(&w.begun)
		if err := l.log.write(record, n); err != nil {
			return err
		}
		w.note(&w.done)
		if err := l.number.write(record, 0); err != nil {
			return err
		}
	}
}

func (w *writer) note(times *[]time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*times = append(*times, time.Now())
}

// before counts the times that lie before t.
func (w *writer) before(times *[]time.Time, t time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(*times) && (*times)[n].Before(t) {
		n++
	}
	return n
}

func TestCutHoldsEveryForcedByteInOrder(t *testing.T) {
	const clockTick = 10 * time.Millisecond // the kernel stamps the cut from a clock that may lag so much
	for _, test := range []struct {
		name   string
		as     []*csi.VolumeCapability
		ledger func(t *testing.T, path string) ledger
	}{
		{"ext4", asFiles, func(t *testing.T, dir string) ledger {
			return ledger{place{file: open(t, filepath.Join(dir, "log"))}, place{file: open(t, filepath.Join(dir, "number"))}}
		}},
		{"raw device", asBlock, func(t *testing.T, device string) ledger {
			f := open(t, device)
			return ledger{place{file: f, offset: recordSize}, place{file: f}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			n := r.start("a", "")
			v := r.volume(n, volumeRequest("data", 256<<20, test.as))
			w := startWriter(test.ledger(t, r.use(n, v.VolumeId, test.as, false)))
			var cuts []*csi.Snapshot
			for i := range 12 {
				wanted := w.before(&w.done, time.Now()) + 10
				eventually(t, func() bool { return w.before(&w.done, time.Now()) >= wanted })
				cuts = append(cuts, r.snapshot(n, fmt.Sprint(i), v.VolumeId))
			}
			close(w.stop)
			check(t, <-w.ended)
			for i, cut := range cuts {
				c := r.volume(n, cloneRequest(fmt.Sprintf("clone-%d", i), cut.SnapshotId, 0, test.as))
				records, number := test.ledger(t, r.use(n, c.VolumeId, test.as, false)).held()
				if number != records && number != records-1 {
					t.Errorf("cut %d holds %d records and the number %d", i, records, number)
				}
				stamp := cut.CreationTime.AsTime()
				least, most := w.before(&w.done, stamp), w.before(&w.begun, stamp.Add(clockTick))
				if records < least || records > most {
					t.Errorf("cut %d holds %d records; when it was made %d were done and %d begun", i, records, least, most)
				}
			}
		})
	}
}

func TestCutLacksWhatNobodyForcedToTheDisk(t *testing.T) {
	r := newRig(t)
	n := r.start("a", "")
	v := r.volume(n, volumeRequest("data", 64<<20, asFiles))
	dir := r.use(n, v.VolumeId, asFiles, false)
	write(t, filepath.Join(dir, "forced"), "text", true)
	write(t, filepath.Join(dir, "left"), "text", false)
	s := r.snapshot(n, "s", v.VolumeId)

	c := r.volume(n, cloneRequest("clone", s.SnapshotId, 0, asFiles))
	cloned := r.use(n, c.VolumeId, asFiles, false)
	if got := read(t, filepath.Join(cloned, "forced")); got != "text" {
		t.Errorf("of the forced file the cut holds %q", got)
	}
	if got, err := os.ReadFile(filepath.Join(cloned, "left")); string(got) == "text" {
		t.Errorf("the cut holds the file that was not forced (%v)", err)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// eventually polls until the condition holds.
func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}
