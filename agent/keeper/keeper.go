package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is the argument with which the agent's binary is to call Main.
const Command = "keeper"

// poll is how often a waiting keeper looks whether it was disarmed. It bounds
// how long a keeper outlives its fault, not how late it acts.
const poll = time.Second

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
	if err := start(cgroupRoot, marker); err != nil {
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

// start runs "mooring-agent keeper MARKER" detached from this process. A pipe
// tells when the keeper has read its duty; its end, that it could not.
func start(cgroupRoot, marker string) error {
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
	settle(cgroupRoot, p.Pid)
	ready := make([]byte, 1)
	if _, err := r.Read(ready); err != nil {
		_, werr := p.Wait()
		return errors.Join(errors.New("keeper ended before it was ready"), werr)
	}
	// The keeper outlives us; until then somebody has to reap it.
	go func() { _, _ = p.Wait() }()
	return nil
}

// settle moves the keeper out of the agent's cgroup, so that stopping the
// agent's service or killing its cgroup leaves the keeper alone. On a system
// where it cannot be moved the keeper still survives a kill of the agent
// itself, so this is best effort.
func settle(cgroupRoot string, pid int) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.procs")); err != nil {
		return // not a unified hierarchy
	}
	dir := filepath.Join(cgroupRoot, "mooring.keeper")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return
	}
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = fmt.Fprint(f, pid)
}

// Main is the keeper process. It returns when its duty is done or was taken
// from it; the error is for the exit status, since nobody reads its output.
func Main(marker string) error {
	b, err := os.ReadFile(marker)
	if err != nil {
		return fmt.Errorf("read keeper marker: %w", err)
	}
	var d Duty
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("read keeper marker: %w", err)
	}
	ready := os.NewFile(3, "ready")
	if _, err := ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("report readiness: %w", err)
	}
	ready.Close()
	for {
		left := d.Deadline - bootTime()
		if left <= 0 {
			break
		}
		// A time.Timer runs on CLOCK_MONOTONIC, which stands still while the
		// machine sleeps; short waits keep the error below one poll.
		time.Sleep(min(left, poll))
		if gone(marker) {
			return nil
		}
	}
	if gone(marker) {
		return nil
	}
	if err := restore(d); err != nil {
		return err
	}
	return os.Remove(marker)
}

// restore writes the old value, unless the cgroup is another one by now.
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
	f, err := os.OpenFile(d.File, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.File, err)
	}
	defer f.Close()
	if _, err := f.WriteString(d.Old); err != nil {
		return fmt.Errorf("write %s: %w", d.File, err)
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
