package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mooring-dev/mooring/cmd/e2e/testbed"
	"golang.org/x/sys/unix"
)

// insideCommand is how the supervisor starts itself within the namespaces. Its
// arguments are the command and the folder of the run.
const insideCommand = "inside"

// netnsDir is where ip-netns(8) looks for namespaces by name.
const netnsDir = "/run/netns"

// supervise runs the command in a network and mount namespace of its own and
// tidies up afterwards. The one inside dies with this process, and all that it
// started with it.
func supervise(ctx context.Context, o options) (code int, err error) {
	if os.Geteuid() != 0 {
		return 2, errors.New("this makes network namespaces and file systems: run it as root")
	}
	cache, err := testbed.OpenCache(os.Getenv)
	if err != nil {
		return 1, err
	}
	defer cache.Close()
	runs := filepath.Join(cache.Dir, "runs")
	r, err := newRun(runs)
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, r.remove()) }()
	self, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, insideArguments(o, r.dir)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		// An interrupt from the terminal is for this process, which passes it on.
		Setpgid: true,
	}
	// Pdeathsig follows the thread that makes the process.
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start in a namespace of its own: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := r.name(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return 1, errors.Join(err, <-ended)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr, "e2e: ending the run")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return 1, fmt.Errorf("pass the signal on: %w", err)
		}
		select {
		case <-ended:
		case <-time.After(90 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			return 1, errors.New("the run did not end within 90 s and was killed")
		}
	}
	if s := cmd.ProcessState.ExitCode(); s >= 0 {
		return s, nil
	}
	return 1, fmt.Errorf("the run was ended by %v", cmd.ProcessState)
}

// insideArguments pass the flags on.
func insideArguments(o options, dir string) []string {
	a := []string{"-kernel", o.kernel, "-memory", o.memory, "-timeout", o.limit.String(), "-pace", o.pace.String()}
	if o.keep {
		a = append(a, "-keep")
	}
	if o.logs != "" {
		a = append(a, "-logs", o.logs)
	}
	return append(a, insideCommand, o.command, dir)
}

// runFolder is the folder and the name of one run. Its lock says that it lives.
type runFolder struct {
	dir  string
	lock *os.File
}

// newRun makes the folder, and removes those of runs that were killed. One run
// at a time: a folder whose lock is not taken yet would look abandoned.
func newRun(runs string) (*runFolder, error) {
	r := &runFolder{dir: filepath.Join(runs, "e2e-"+strconv.Itoa(os.Getpid()))}
	if err := os.MkdirAll(runs, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of the runs: %w", err)
	}
	all, err := os.OpenFile(filepath.Join(runs, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the runs: %w", err)
	}
	defer all.Close()
	if err := unix.Flock(int(all.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the runs: %w", err)
	}
	if err := sweep(runs); err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of the run: %w", err)
	}
	if r.lock, err = os.Create(filepath.Join(r.dir, "lock")); err != nil {
		return nil, fmt.Errorf("lock the run: %w", err)
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the run: %w", err)
	}
	return r, nil
}

func (r *runFolder) netns() string { return filepath.Join(netnsDir, filepath.Base(r.dir)) }

// shareNames makes the folder of names a shared mount, as ip-netns(8) does when it
// is not one. Where that came later, it would hide the mounts that are names, and
// then those cannot be removed any more.
func shareNames() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) { // it is no mount
		return err
	}
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// name makes the namespace of a process known to ip-netns(8) by the run's name.
func (r *runFolder) name(pid int) error {
	if err := shareNames(); err != nil {
		return fmt.Errorf("name the network namespace: share %s: %w", netnsDir, err)
	}
	f, err := os.OpenFile(r.netns(), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("name the network namespace: %w", err)
	}
	f.Close()
	if err := unix.Mount(fmt.Sprintf("/proc/%d/ns/net", pid), r.netns(), "none", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("name the network namespace: %w", err)
	}
	return nil
}

// remove takes away the name and the folder.
func (r *runFolder) remove() error {
	var errs []error
	if err := unix.Unmount(r.netns(), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("unmount %s: %w", r.netns(), err))
	}
	if err := os.Remove(r.netns()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, fmt.Errorf("remove name of the network namespace: %w", err))
	}
	if err := os.RemoveAll(r.dir); err != nil {
		errs = append(errs, fmt.Errorf("remove folder of the run: %w", err))
	}
	if r.lock != nil {
		r.lock.Close()
	}
	return errors.Join(errs...)
}

// sweep removes what runs that were killed left: a folder whose lock is free.
func sweep(runs string) error {
	dirs, err := filepath.Glob(filepath.Join(runs, "e2e-*"))
	if err != nil {
		return fmt.Errorf("list runs: %w", err)
	}
	for _, d := range dirs {
		lock, err := os.Open(filepath.Join(d, "lock"))
		if err != nil {
			continue // it is being made or removed
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
			fmt.Fprintln(os.Stderr, "e2e: removing what a killed run left:", d)
			err = (&runFolder{dir: d}).remove()
		}
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// living returns the folder of the run to act on: the named one, or the only one.
func living(runs, name string) (string, error) {
	dirs, err := filepath.Glob(filepath.Join(runs, "e2e-*"))
	if err != nil {
		return "", fmt.Errorf("list runs: %w", err)
	}
	var found []string
	for _, d := range dirs {
		lock, err := os.Open(filepath.Join(d, "lock"))
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil && (name == "" || filepath.Base(d) == name) {
			found = append(found, d)
		}
		lock.Close()
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", errors.New("no cluster is up: run e2e up")
	}
	return "", fmt.Errorf("several clusters are up: choose one by -run: %s", strings.Join(found, " "))
}
