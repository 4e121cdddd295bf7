package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process names a process for good: the kernel uses a pid again, but not with
// the same start time, and not in another boot.
type process struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from boot, field 22 of /proc/PID/stat
	Boot  string `json:"boot"`
	Spec  string `json:"spec"` // hash of what it was started as
}

// identify looks the process up that has pid now.
func identify(pid int) (process, error) {
	boot, err := bootID()
	if err != nil {
		return process{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	state, start, err := parseStat(stat)
	if err != nil {
		return process{}, fmt.Errorf("read /proc/%d/stat: %w", pid, err)
	}
	if state == 'Z' || state == 'X' {
		return process{}, fmt.Errorf("find process %d: %w", pid, os.ErrProcessDone)
	}
	return process{Pid: pid, Start: start, Boot: boot}, nil
}

// parseStat reads state and start time. The name before them is in parentheses
// and may itself hold spaces and parentheses.
func parseStat(stat []byte) (state byte, start uint64, err error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 20 {
		return 0, 0, errors.New("too few fields")
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err
}

func bootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}

// alive tells whether p itself, not a successor with its pid, still runs.
func (p process) alive() bool {
	now, err := identify(p.Pid)
	return err == nil && now.Start == p.Start && now.Boot == p.Boot
}

// signal sends s to p. That p has ended is no error: FindProcess holds on to
// the process (a pidfd), so that it cannot become another after the look.
func (p process) signal(s os.Signal) error {
	handle, err := os.FindProcess(p.Pid)
	if err != nil || !p.alive() {
		return err
	}
	defer handle.Release()
	if err := handle.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end asks p to terminate, and makes it if it has not after grace.
func (p process) end(ctx context.Context, grace time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	gone := func(context.Context) error {
		if p.alive() {
			return fmt.Errorf("process %d is still there", p.Pid)
		}
		return nil
	}
	if poll(ctx, grace, gone) == nil {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return poll(ctx, 10*time.Second, gone)
}

// poll calls f until it gives no error, and returns the last one when the time
// is over.
func poll(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := f(ctx)
		var fatal *fatalError
		if err == nil || errors.As(err, &fatal) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// fatalError ends a poll: waiting cannot help.
type fatalError struct{ error }

func (e *fatalError) Unwrap() error { return e.error }

// pidFile is where the process of the part is written down.
func (c *cluster) pidFile(name string) string { return c.path("run", name+".json") }

func (c *cluster) logFile(name string) string { return c.path("log", name+".log") }

// running reads the process of the part; ok is false if none was started or
// it has ended.
func (c *cluster) running(name string) (p process, ok bool, err error) {
	err = readJSON(c.pidFile(name), &p)
	if errors.Is(err, fs.ErrNotExist) {
		return process{}, false, nil
	}
	return p, err == nil && p.alive(), err
}

// launch starts a part in the namespaces of its node and writes down its
// process. The part outlives this program. If that is killed in between, the
// zero process that it leaves written tells the next one.
func (c *cluster) launch(p part) error {
	log, err := os.OpenFile(c.logFile(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := writeJSON(c.pidFile(p.name), process{}); err != nil {
		return err
	}
	cmd := exec.Command("nsenter", c.enter(p.node, p.args...)...)
	cmd.Env = append([]string{"PATH=" + c.path("parts") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // else it is a zombie, and so alive, while this program runs
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, tail(log.Name()))
	}
	id.Spec = c.spec(p)
	return writeJSON(c.pidFile(p.name), id)
}

// enter is the argument list with which nsenter runs args on a node.
func (c *cluster) enter(node int, args ...string) []string {
	return append([]string{"--net=" + c.netns(node), "--mount=" + c.mountns(node), "--"}, args...)
}
