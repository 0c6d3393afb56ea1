package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is the argument with which the agent's binary is to call Main.
const Command = "keeper"

const (
	// poll is how often a waiting keeper looks whether it was disarmed. It
	// bounds how long a keeper outlives its fault, not how late it acts.
	poll = time.Second
	// vigil is how long after the deadline a keeper goes on restoring: the
	// freeze may be written late, and a write may fail.
	vigil = time.Minute
)

// Duty is what one keeper watches over.
type Duty struct {
	// File is the absolute path of the control file.
	File string `json:"file"`
	// CgroupID is the inode number of the directory that holds File.
	CgroupID uint64 `json:"cgroupId"`
	// Old is written to File at the deadline.
	Old string `json:"old"`
	// Deadline is on CLOCK_BOOTTIME.
	Deadline time.Duration `json:"deadline"`
}

// Arm writes the marker for uid below dir and starts a keeper process from the
// running binary. It returns once the keeper runs; the freeze comes after.
func Arm(dir, cgroupRoot, uid string, d Duty) error {
	if strings.ContainsAny(uid, "/\x00") || uid == "" || strings.HasPrefix(uid, ".") {
		return fmt.Errorf("keeper uid %q cannot be a file name", uid)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make keeper directory: %w", err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode keeper duty: %w", err)
	}
	marker := filepath.Join(dir, uid)
	if err := os.WriteFile(marker, b, 0o600); err != nil {
		return fmt.Errorf("write keeper marker: %w", err)
	}
	if err := start(cgroupRoot, marker, uid); err != nil {
		return errors.Join(err, Disarm(dir, uid))
	}
	return nil
}

// Disarm removes the marker of uid; without it a keeper does nothing. It is
// idempotent.
func Disarm(dir, uid string) error {
	err := os.Remove(filepath.Join(dir, uid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove keeper marker: %w", err)
	}
	return nil
}

// Sweep deals with the markers in dir that keep does not want: where the file
// still holds another value than before, it is restored, then the marker is
// removed. It is for an agent that starts: its journal may have lost what the
// marker still tells.
func Sweep(dir string, keep func(uid string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list keepers: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if keep(e.Name()) {
			continue
		}
		d, err := read(filepath.Join(dir, e.Name()))
		if err == nil {
			err = restore(d)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep keeper %q: %w", e.Name(), err))
			continue
		}
		errs = append(errs, Disarm(dir, e.Name()))
	}
	return errors.Join(errs...)
}

// start runs "mooring-agent keeper MARKER" detached from this process. A pipe
// tells when the keeper has read its duty; its end, that it could not.
func start(cgroupRoot, marker, uid string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make keeper pipe: %w", err)
	}
	defer r.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("open null device: %w", err), w.Close())
	}
	defer null.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{"mooring-agent", Command, marker}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []*os.File{null, null, null, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return fmt.Errorf("start keeper: %w", err)
	}
	if err := settle(cgroupRoot, p.Pid); err != nil {
		_ = p.Kill() // it has done nothing yet
		_, _ = p.Wait()
		return fmt.Errorf("give keeper of %q a cgroup of its own: %w", uid, err)
	}
	ready := make([]byte, 1)
	if _, err := r.Read(ready); err != nil {
		_, werr := p.Wait()
		return errors.Join(errors.New("keeper ended before it was ready"), werr)
	}
	// The keeper outlives us; until then somebody has to reap it.
	go func() { _, _ = p.Wait() }()
	return nil
}

// settle moves the keeper out of the agent's cgroup, so that whoever ends the
// agent's service, as systemd does with all processes left in it, leaves the
// keeper alone: in the unified hierarchy, or else in systemd's own and in the
// version 2 tree beside version 1.
func settle(cgroupRoot string, pid int) error {
	moved := false
	for _, tree := range []string{"", "systemd", "unified"} {
		root := filepath.Join(cgroupRoot, tree)
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(root, "mooring.keeper")
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make cgroup: %w", err)
		}
		if err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return err
		}
		moved = true
	}
	if !moved {
		return fmt.Errorf("no cgroup hierarchy for processes at %s", cgroupRoot)
	}
	return nil
}

// Main is the keeper process. It returns when its duty is done or was taken
// from it; the error is for the exit status, since nobody reads its output.
func Main(marker string) error {
	d, err := read(marker)
	if err != nil {
		return err
	}
	ready := os.NewFile(3, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("report readiness: %w", err)
	}
	ready.Close()
	for {
		// A time.Timer runs on CLOCK_MONOTONIC, which stands still while the
		// machine sleeps; short waits keep the error below one poll.
		now := bootTime()
		left := d.Deadline - now
		// The marker first: without it the file may be another fault's.
		if gone(marker) {
			return nil
		}
		if left <= 0 {
			left = poll
			err = restore(d)
		}
		if now > d.Deadline+vigil {
			break
		}
		time.Sleep(min(left, poll))
	}
	if err != nil {
		return err
	}
	return os.Remove(marker)
}

func read(marker string) (Duty, error) {
	var d Duty
	b, err := os.ReadFile(marker)
	if err != nil {
		return d, fmt.Errorf("read keeper marker: %w", err)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("read keeper marker: %w", err)
	}
	return d, nil
}

// restore writes the old value unless it is there already, or the cgroup is
// another one by now, and reads it back.
func restore(d Duty) error {
	fi, err := os.Stat(filepath.Dir(d.File))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at cgroup: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || st.Ino != d.CgroupID {
		return nil
	}
	if holds(d) {
		return nil
	}
	if err := write(d.File, d.Old); err != nil {
		return err
	}
	if !holds(d) {
		return fmt.Errorf("%s does not read %q after it was written", d.File, d.Old)
	}
	return nil
}

// holds says whether the file reads as it did before the fault.
func holds(d Duty) bool {
	b, err := os.ReadFile(d.File)
	return err == nil && strings.TrimSpace(string(b)) == d.Old
}

// write writes a control file, which must exist.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open control file: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteString(value); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func gone(marker string) bool {
	_, err := os.Stat(marker)
	return errors.Is(err, fs.ErrNotExist)
}

func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		// CLOCK_BOOTTIME exists since 2.6.39; without it nothing here works.
		panic(err)
	}
	return time.Duration(t.Nano())
}
