package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// logDir holds the services' logs, on the disk.
const logDir = "/var/log/node"

// service is a program that runs until it is told not to. It is safe for
// concurrent use.
type service struct {
	name  string
	dir   string // of the log
	args  []string
	ready func() bool // whether it serves
	group string      // cgroup to start in; "" is this process's own
	ended chan<- error
	mu    sync.Mutex
	cmd   *exec.Cmd
	done  chan struct{} // closed once cmd has ended
	state string
}

// readyLimit is how long a service may take until it serves.
const readyLimit = 2 * time.Minute

func newService(name string, ended chan<- error, ready func() bool, args ...string) *service {
	return &service{name: name, dir: logDir, args: args, ended: ended, ready: ready, state: "stopped"}
}

// endedError says that a service ended without having been told to.
type endedError struct {
	name, state string
	err         error // of waiting for it
	log         string
}

func (e *endedError) Error() string {
	return fmt.Sprintf("%s ended by itself: %s\nend of its log:\n%s", e.name, e.state, e.log)
}

func (e *endedError) Unwrap() error { return e.err }

// start starts it and waits until it serves.
func (s *service) start() error {
	done, err := s.launch()
	if err != nil {
		return err
	}
	limit := time.After(readyLimit)
	for !s.ready() {
		select {
		case <-done:
			return fmt.Errorf("start %s: it ended: %s", s.name, s.tail())
		case <-limit:
			return fmt.Errorf("start %s: it does not serve after %v: %s", s.name, readyLimit, s.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// launch starts it, with its output appended to its log.
func (s *service) launch() (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == "runs" {
		return nil, fmt.Errorf("start %s: it runs", s.name)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, s.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", s.name, err)
	}
	defer log.Close()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if s.group != "" {
		group, err := os.Open(s.group)
		if err != nil {
			return nil, fmt.Errorf("open cgroup of %s: %w", s.name, err)
		}
		defer group.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	done := make(chan struct{})
	s.cmd, s.done, s.state = cmd, done, "runs"
	go func() {
		err := cmd.Wait()
		s.mu.Lock()
		wanted := s.state == "stopping"
		s.state = "stopped"
		if !wanted {
			s.state = "ended"
		}
		s.mu.Unlock()
		close(done)
		if !wanted {
			s.ended <- &endedError{s.name, cmd.ProcessState.String(), err, s.tail()}
		}
	}()
	return done, nil
}

// stop ends it by SIGTERM, after twenty seconds by SIGKILL, and waits.
func (s *service) stop() error { return s.end(syscall.SIGTERM) }

// kill ends it by SIGKILL and waits.
func (s *service) kill() error { return s.end(syscall.SIGKILL) }

func (s *service) end(signal syscall.Signal) error {
	s.mu.Lock()
	if s.state != "runs" {
		s.mu.Unlock()
		return nil
	}
	s.state = "stopping"
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	select {
	case <-done:
		return nil
	case <-time.After(20 * time.Second):
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", s.name, err)
	}
	<-done
	return nil
}

func (s *service) status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// tail is the end of the log.
func (s *service) tail() string {
	b, err := os.ReadFile(filepath.Join(s.dir, s.name))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}
