package lock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// TestMain is also the process that holds a slot until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BACKSNAP_TEST_HOLD_SLOT"); dir != "" {
		if _, err := Slot(context.Background(), dir, 1, 0, theirs); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		println("held")
		select {}
	}
	os.Exit(m.Run())
}

func TestNoSlotsIsNoLimit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slots")
	release, err := Slot(t.Context(), dir, 0, 0, mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestSlots(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "slots")
	first, err := Slot(t.Context(), dir, 2, 0, mine)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Slot(t.Context(), dir, 2, 0, theirs)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "mode of the directory", fs.FileMode(0o700), info.Mode().Perm())

	_, err = Slot(t.Context(), dir, 2, 0, "20261122-011500-zzzz")
	var f *catalog.Failure
	if !errors.As(err, &f) {
		t.Fatalf("error %v, want a failure", err)
	}
	equal(t, "code", catalog.CodeBusy, f.Code)
	want := "each of the 2 slots in " + dir + ": slot 1 is taken by run " + string(mine) + " (" + holder() + ") since "
	if !strings.HasPrefix(f.Message, want) {
		t.Errorf("message %q, want %q and a time", f.Message, want)
	}

	if err := first(); err != nil {
		t.Fatal(err)
	}
	third, err := Slot(t.Context(), dir, 2, 0, mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(second(), third()); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.holder"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "notes left", []string(nil), left)
}

// A slot that gets free while one waits is taken.
func TestSlotWaits(t *testing.T) {
	dir := t.TempDir()
	first, err := Slot(t.Context(), dir, 1, 0, theirs)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		release, err := Slot(t.Context(), dir, 1, time.Minute, mine)
		if err == nil {
			err = release()
		}
		got <- err
	}()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestSlotEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	release, err := Slot(t.Context(), dir, 1, 0, theirs)
	if err != nil {
		t.Fatal(err)
	}
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted)
	if _, err := Slot(ctx, dir, 1, time.Hour, mine); !errors.Is(err, interrupted) {
		t.Errorf("error %v, want %v", err, interrupted)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

// A process that is killed leaves its note, but not its slot.
func TestSlotOfAKilledProcessIsFree(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command(self)
	other.Env = append(os.Environ(), "BACKSNAP_TEST_HOLD_SLOT="+dir)
	said, err := other.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("held\n"))
	if _, err := said.Read(line); err != nil || string(line) != "held\n" {
		t.Fatalf("the other process said %q: %v", line, err)
	}
	if _, err := Slot(t.Context(), dir, 1, 0, mine); catalog.CodeOf(err) != catalog.CodeBusy || !strings.Contains(err.Error(), string(theirs)) {
		t.Errorf("error %v, want one that names run %s", err, theirs)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // killed
	release, err := Slot(t.Context(), dir, 1, 0, mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
}

func TestDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/var/cache/jo")
	t.Setenv("HOME", "/home/jo")
	got, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "directory", "/var/cache/jo/backsnap", got)
}
