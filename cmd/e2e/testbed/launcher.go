package testbed

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
	"sync"
	"syscall"
	"time"
)

// Launcher starts processes that die with this one. PR_SET_PDEATHSIG follows
// the thread that made the process, so all are made by one thread that stays.
type Launcher struct{ work chan func() }

// NewLauncher starts that thread, which lasts as long as this process.
func NewLauncher() *Launcher {
	l := &Launcher{work: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range l.work {
			f()
		}
		select {} // its end would kill what it started
	}()
	return l
}

// start starts cmd in a process group of its own: an interrupt from a terminal
// is for this process to handle.
func (l *Launcher) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true
	result := make(chan error, 1)
	l.work <- func() { result <- cmd.Start() }
	return <-result
}

// Run runs cmd to its end and returns its output, which is also in the error.
func (l *Launcher) Run(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := l.start(cmd); err != nil {
		return "", fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("run %s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Process is one program that runs until it is told to end. It is safe for
// concurrent use.
type Process struct {
	// Name is what messages call it, Log the file with its output.
	Name, Log string
	cmd       *exec.Cmd
	done      chan struct{}
	err       error // once done is closed
	mu        sync.Mutex
	told      bool
}

// Start starts cmd with its output appended to the file log. ended, if not nil,
// is called when the process ends without Stop or Kill.
func (l *Launcher) Start(name, log string, cmd *exec.Cmd, ended func(error)) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := l.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{Name: name, Log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		p.mu.Lock()
		told := p.told
		p.mu.Unlock()
		close(p.done)
		if !told && ended != nil {
			ended(fmt.Errorf("%s ended by itself: %w: its log is %s", name, p.how(), log))
		}
	}()
	return p, nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns how the process ended, or the context's error.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Expect notes that the process may end by itself from now on.
func (p *Process) Expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = true
}

// how says how the process ended, as an error in any case.
func (p *Process) how() error {
	if p.err != nil {
		return p.err
	}
	return errors.New("exit status 0")
}

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Stop asks the process to end, kills it after limit, and waits for its end.
// How it ended is no error: it was told to.
func (p *Process) Stop(limit time.Duration) error {
	p.Expect()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(limit):
		return p.Kill()
	}
}

// Kill ends the process by SIGKILL and waits for its end.
func (p *Process) Kill() error {
	p.Expect()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// Freeze stops the process by SIGSTOP and returns when none of its threads runs
// any more: the signal only asks for it.
func (p *Process) Freeze(ctx context.Context) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(ctx, 10*time.Second, p.Name+" to be frozen", func(context.Context) error {
		return frozen("/proc", p.PID())
	})
}

// Thaw ends Freeze.
func (p *Process) Thaw() error { return p.Signal(syscall.SIGCONT) }

// frozen returns nil if all threads of a process are in state T (proc_pid_stat(5)).
func frozen(proc string, pid int) error {
	files, err := filepath.Glob(fmt.Sprintf("%s/%d/task/*/stat", proc, pid))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("process %d is not there: %w", pid, os.ErrProcessDone)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		if _, state, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(state, "T") {
			return fmt.Errorf("a thread of process %d is in state %.1q", pid, state)
		}
	}
	return nil
}

// Memory is the process's resident memory in bytes, with that of its children.
func (p *Process) Memory() int64 { return residentMemory("/proc", p.PID()) }

// residentMemory reads VmRSS of a process and of all below it. One that is gone
// counts as nothing.
func residentMemory(proc string, pid int) int64 {
	var sum int64
	dir := fmt.Sprintf("%s/%d", proc, pid)
	b, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			sum += kib << 10
		}
	}
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return sum
	}
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + "/task/" + t.Name() + "/children")
		for child := range strings.FieldsSeq(string(b)) {
			if id, err := strconv.Atoi(child); err == nil {
				sum += residentMemory(proc, id)
			}
		}
	}
	return sum
}

// Output is all that the process has written so far.
func (p *Process) Output() (string, error) {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return "", fmt.Errorf("read output of %s: %w", p.Name, err)
	}
	return string(b), nil
}

// Tail is the end of the process's log.
func (p *Process) Tail() string { return tail(p.Log, 4096) }

func tail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}
