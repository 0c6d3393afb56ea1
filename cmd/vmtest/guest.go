package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// portName names the virtio serial port between guest and host.
const portName = "vmtest"

// drainLimit bounds the wait for output after the program has ended and all
// other processes are killed. Only one that the kernel cannot kill exceeds it.
const drainLimit = 5 * time.Second

// guestMain is the whole life of process 1 in the guest. It does not return.
func guestMain() {
	if err := guest(); err != nil {
		// No port to report by: the console is all there is.
		fmt.Println("vmtest: guest:", err)
	}
	// No sync: everything the guest wrote is thrown away, and a device that a
	// fault left suspended would block it.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// guest brings the port up and reports the result by it.
func guest() error {
	j, err := startKernel()
	if err != nil {
		return err
	}
	port, err := openPort(portName)
	if err != nil {
		return err
	}
	frames := &frameWriter{w: port}
	stop := make(chan struct{})
	go beat(frames, stop)
	code, err := runJob(j, frames)
	close(stop)
	if err != nil {
		err = frames.send(frameFailed, []byte(err.Error()))
	} else {
		err = frames.send(frameExit, []byte(strconv.Itoa(code)))
	}
	if err != nil {
		return err
	}
	if _, err := port.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("wait for the host to have read all: %w", err)
	}
	return nil
}

// beat tells the host each second that this process still runs.
func beat(frames *frameWriter, stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := frames.send(frameBeat, nil); err != nil {
			return // the host will notice the silence
		}
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// startKernel reads the job and loads the modules that the port and the root need.
func startKernel() (job, error) {
	b, err := os.ReadFile("/job.json")
	if err != nil {
		return job{}, fmt.Errorf("read job: %w", err)
	}
	j, err := decodeJob(b)
	if err != nil {
		return job{}, err
	}
	for _, m := range earlyMounts() {
		if err := m.do(""); err != nil {
			return job{}, err
		}
	}
	for _, m := range j.Modules {
		if err := loadModule("/" + m); err != nil {
			return job{}, err
		}
	}
	return j, nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}

// openPort opens the virtio serial port of that name. Not by os.OpenFile: the
// runtime's poller would make it non-blocking, and virtio_console then loses wake-ups.
func openPort(name string) (*os.File, error) {
	ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, fmt.Errorf("list virtio ports: %w", err)
	}
	for _, p := range ports {
		b, err := os.ReadFile(p)
		if err != nil || strings.TrimSpace(string(b)) != name {
			continue
		}
		device := "/dev/" + filepath.Base(filepath.Dir(p))
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: device, Err: err}
		}
		return os.NewFile(uintptr(fd), device), nil
	}
	return nil, fmt.Errorf("no virtio port %q among %q", name, ports)
}

// runJob sets the system up, runs the program and returns its exit status.
func runJob(j job, frames *frameWriter) (int, error) {
	if err := switchRoot(j); err != nil {
		return 0, err
	}
	if err := configure(j); err != nil {
		return 0, err
	}
	stdout, stdoutDone, err := stream{frames, frameStdout}.pipeTo()
	if err != nil {
		return 0, err
	}
	stderr, stderrDone, err := stream{frames, frameStderr}.pipeTo()
	if err != nil {
		return 0, err
	}
	pid, err := startProgram(j, stdout, stderr)
	stdout.Close()
	stderr.Close()
	if err != nil {
		return 0, err
	}
	status, err := reapUntil(pid)
	if err != nil {
		return 0, err
	}
	// What the program left behind holds the pipes open. It would be killed by
	// the end of this machine anyway.
	_ = unix.Kill(-1, unix.SIGKILL)
	limit := time.After(drainLimit)
	for _, done := range []<-chan struct{}{stdoutDone, stderrDone} {
		select {
		case <-done:
		case <-limit:
			return exitCode(status), nil
		}
	}
	return exitCode(status), nil
}

func startProgram(j job, stdout, stderr *os.File) (int, error) {
	for _, e := range j.Environment {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return 0, fmt.Errorf("set PATH: %w", err)
			}
		}
	}
	program, err := exec.LookPath(j.Arguments[0])
	if err != nil {
		return 0, fmt.Errorf("find program: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("open standard input: %w", err)
	}
	defer null.Close()
	if err := os.WriteFile("/dev/kmsg", []byte(startMark+"\n"), 0); err != nil {
		return 0, fmt.Errorf("mark the start in the kernel log: %w", err)
	}
	pid, err := syscall.ForkExec(program, j.Arguments, &syscall.ProcAttr{
		Dir: j.Directory, Env: append(j.Environment, "PWD="+j.Directory),
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start program %q in %q: %w", program, j.Directory, err)
	}
	return pid, nil
}

// reapUntil waits for the program, and meanwhile takes in every orphan as
// process 1 must: a daemon that stays a zombie looks alive to a test.
func reapUntil(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for program: %w", err)
		case got == pid:
			return status, nil
		}
	}
}

// exitCode is the status a shell would give.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
