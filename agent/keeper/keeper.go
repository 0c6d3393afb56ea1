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
	if err := mark(dir, uid, d); err != nil {
		return err
	}
	marker := filepath.Join(dir, uid)
	if err := start(cgroupRoot, marker, uid); err != nil {
		return errors.Join(err, Disarm(dir, uid))
	}
	return nil
}

// mark writes the marker of uid as a whole: a keeper reads it at any time.
func mark(dir, uid string, d Duty) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode keeper duty: %w", err)
	}
	// A uid does not begin with a dot, so this is nobody's marker.
	temp := filepath.Join(dir, "."+uid)
	if err := os.WriteFile(temp, b, 0o600); err != nil {
		return fmt.Errorf("write keeper marker: %w", err)
	}
	if err := os.Rename(temp, filepath.Join(dir, uid)); err != nil {
		return errors.Join(fmt.Errorf("write keeper marker: %w", err), os.Remove(temp))
	}
	return nil
}

// Extend gives the keeper of uid another deadline. It must come well before the
// one that is set: a keeper that has begun to restore goes on with it for a
// while.
func Extend(dir, uid string, deadline time.Duration) error {
	d, err := read(filepath.Join(dir, uid))
	if err != nil {
		return err
	}
	d.Deadline = deadline
	return mark(dir, uid, d)
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
		if strings.HasPrefix(e.Name(), ".") {
			// A marker that was being written; the one before it is there.
			errs = append(errs, Disarm(dir, e.Name()))
			continue
		}
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
// agent leaves the keeper alone: systemd ends all processes in the service's
// cgroup, a container runtime all in the container's, in whichever hierarchy it
// counts them. In version 2 and in systemd's own hierarchy the keeper gets a
// cgroup of its own. In those of the version 1 controllers it goes to the root,
// where no limit holds and nothing has to be set up.
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
		if tree == "" {
			return nil // version 2 alone: what is below are cgroups
		}
	}
	controllers, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return fmt.Errorf("list cgroup hierarchies: %w", err)
	}
	for _, e := range controllers {
		procs := filepath.Join(cgroupRoot, e.Name(), "cgroup.procs")
		// A link names a hierarchy that is there under its full name too.
		if _, err := os.Stat(procs); err != nil || !e.IsDir() || e.Name() == "systemd" || e.Name() == "unified" {
			continue
		}
		if err := write(procs, strconv.Itoa(pid)); err != nil {
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
		// The marker first: without it the file may be another fault's, and
		// the deadline may have been extended.
		next, rerr := read(marker)
		if errors.Is(rerr, fs.ErrNotExist) {
			return nil
		}
		if rerr == nil {
			d = next
		}
		// A time.Timer runs on CLOCK_MONOTONIC, which stands still while the
		// machine sleeps; short waits keep the error below one poll.
		now := bootTime()
		left := d.Deadline - now
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

func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		// CLOCK_BOOTTIME exists since 2.6.39; without it nothing here works.
		panic(err)
	}
	return time.Duration(t.Nano())
}
