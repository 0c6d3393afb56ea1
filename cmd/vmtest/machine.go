package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// machine is one QEMU process and our ends of its channels.
type machine struct {
	dir      string // temporary files, gone once the guest is up
	devices  devices
	command  *exec.Cmd
	console  *os.File
	port     *os.File
	monitor  *os.File
	messages bytes.Buffer // QEMU's own
}

// ending is how a run ended.
type ending struct {
	up       bool // the guest came so far as to send a frame
	reported bool // the guest sent the program's exit status
	code     int
	failed   string // why the guest could not run the program
	cause    error  // why we ended it: a hang, the time limit, a signal
	qemu     string // what QEMU itself said
	console  []byte
	skipped  []string // tests
}

// newMachine makes the files a guest needs. The caller must call remove.
func newMachine(o options, j job, k kernel, rootfs, qemu string) (_ *machine, err error) {
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return nil, fmt.Errorf("make temporary folder: %w", err)
	}
	m := &machine{dir: dir, devices: devices{
		tree: qemu, kernel: k.image, shares: j.Shares,
		initramfs: filepath.Join(dir, "initramfs"), console: filepath.Join(dir, "console"),
	}}
	defer func() {
		if err != nil {
			m.remove()
		}
	}()
	if m.console, err = os.Create(m.devices.console); err != nil {
		return nil, fmt.Errorf("make console file: %w", err)
	}
	if j.Scratch {
		m.devices.scratch = filepath.Join(dir, "scratch")
		if err := makeScratch(m.devices.scratch, rootfs, o.disk); err != nil {
			return nil, err
		}
	}
	if o.image != "" {
		if m.devices.image, err = imageFile(o.image); err != nil {
			return nil, err
		}
	}
	if err := writeInitramfs(m.devices.initramfs, k, j); err != nil {
		return nil, err
	}
	return m, nil
}

// imageFile refuses what QEMU would refuse less clearly, or worse, make.
func imageFile(name string) (string, error) {
	path, err := filepath.Abs(name)
	if err != nil {
		return "", fmt.Errorf("find disk image: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("find disk image: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("disk image %q is not a file", path)
	}
	return path, nil
}

// remove deletes the files. QEMU has them open by then, so it is also called
// while the guest runs: nothing is left behind if vmtest is killed.
func (m *machine) remove() { os.RemoveAll(m.dir) }

// start starts QEMU. It must be called on a thread that lives as long as the
// process: QEMU is killed when that thread ends.
func (m *machine) start(o options) error {
	program := foreign(m.devices.tree, "usr/bin/qemu-system-x86_64")
	m.command = exec.Command(program[0], append(program[1:], qemuArguments(o, m.devices)...)...)
	m.command.Env = append(os.Environ(),
		"QEMU_MODULE_DIR="+filepath.Join(m.devices.tree, "usr/lib/x86_64-linux-gnu/qemu"))
	m.command.Stdout, m.command.Stderr = &m.messages, &m.messages
	// Its own process group: an interrupt from a terminal is ours to handle.
	m.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	for _, end := range []**os.File{&m.port, &m.monitor} {
		ours, theirs, err := socketPair()
		if err != nil {
			return err
		}
		defer theirs.Close()
		*end = ours
		m.command.ExtraFiles = append(m.command.ExtraFiles, theirs)
	}
	if err := m.command.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	return nil
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	// Only a non-blocking descriptor gets deadlines from os.NewFile.
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, nil, fmt.Errorf("make socket non-blocking: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "guest"), os.NewFile(uintptr(fds[1]), "qemu"), nil
}

// supervise passes output on until QEMU has ended, and ends QEMU itself when ctx
// is done or the guest hangs. It closes all channels to QEMU.
func (m *machine) supervise(ctx context.Context, o options, stdout, stderr io.Writer) ending {
	var e ending
	dog := newWatchdog(o.boot)
	watching, stopWatching := context.WithCancel(context.Background())
	defer stopWatching()
	hung := make(chan error, 1)
	go func() { hung <- dog.wait(watching) }()
	received := make(chan error, 1)
	go func() {
		err := m.receive(o, dog, &e, stdout, stderr)
		if err != nil {
			m.kill()
		}
		received <- err
	}()
	exited := make(chan error, 1)
	go func() { exited <- m.command.Wait() }()

	var status error
	select {
	case status = <-exited:
	case e.cause = <-hung:
		e.qemu = m.registers()
		m.kill()
		<-exited
	case <-ctx.Done():
		e.cause = context.Cause(ctx)
		m.kill()
		<-exited
	}
	if err := <-received; err != nil && e.cause == nil {
		e.cause = err
	} else if status != nil && e.cause == nil {
		e.qemu = status.Error()
	}
	e.qemu = strings.TrimSpace(e.qemu + "\n" + m.messages.String())
	e.console = m.readConsole()
	m.port.Close()
	m.monitor.Close()
	return e
}

// receive handles the guest's frames until QEMU closes the port.
func (m *machine) receive(o options, dog *watchdog, e *ending, stdout, stderr io.Writer) error {
	skips := &skipFinder{}
	if isTestBinary(o.arguments[0]) {
		stdout = io.MultiWriter(stdout, skips)
	}
	started, now := time.Now(), running
	for r := bufio.NewReader(m.port); ; {
		kind, data, err := readFrame(r)
		if err != nil {
			skips.finish()
			e.skipped = skips.skipped
			return endOfPort(err)
		}
		if !e.up {
			e.up = true
			m.remove()
			note(o, stderr, "guest is up after %v", time.Since(started).Round(100*time.Millisecond))
		}
		dog.alive(now, o.hang)
		dog.pause()
		switch kind {
		case frameStdout:
			_, err = stdout.Write(data)
		case frameStderr:
			_, err = stderr.Write(data)
		case frameExit:
			e.code, err = parseExit(data)
			e.reported = err == nil
		case frameFailed:
			e.failed = string(data)
		}
		dog.resume()
		if err == nil && (kind == frameExit || kind == frameFailed) {
			now = stopping
			dog.alive(now, o.hang)
			note(o, stderr, "program ended after %v", time.Since(started).Round(100*time.Millisecond))
			// The guest waits for this before it powers off: output still in
			// QEMU's hands would be lost otherwise.
			_, err = m.port.Write([]byte{'.'})
		}
		if err != nil {
			return fmt.Errorf("pass on the guest's output: %w", err)
		}
	}
}

// endOfPort tells the port's end, which QEMU's own end brings, from an error.
// A reset is that end too: QEMU went with something of ours unread.
func endOfPort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return fmt.Errorf("read from guest: %w", err)
}

func (m *machine) kill() {
	// An error means that it has ended already.
	_ = m.command.Process.Kill()
}

// registers asks QEMU where the processors of a hung guest are. Without an
// answer it returns what there is.
func (m *machine) registers() string {
	limit := time.Now().Add(2 * time.Second)
	if err := m.monitor.SetDeadline(limit); err != nil {
		return ""
	}
	if _, err := io.WriteString(m.monitor, "info registers -a\n"); err != nil {
		return ""
	}
	b, _ := io.ReadAll(io.LimitReader(m.monitor, 64<<10))
	var lines []string
	for line := range strings.Lines(printable(b)) {
		if strings.HasPrefix(line, "CPU#") || strings.HasPrefix(line, "RIP=") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

func (m *machine) readConsole() []byte {
	defer m.console.Close()
	if _, err := m.console.Seek(0, io.SeekStart); err != nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(m.console, 64*mib))
	if err != nil {
		return append(b, "\nvmtest: read console: "+err.Error()+"\n"...)
	}
	return b
}
