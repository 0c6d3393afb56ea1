package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// schedHooks are the events of the group sched and the programs for them.
func schedHooks() map[string]string {
	return map[string]string{"sched_process_fork": "on_fork", "sched_process_exit": "on_exit"}
}

// syscallHook is the program for the raw tracepoint sys_exit.
const syscallHook = "on_syscall"

// Steps that are no protocol's: STEP_... of query_legacy.bpf.c.
const (
	stepReply  = 8
	stepFinish = 9
)

// stepPrograms are the programs that on_syscall jumps to; those that read a
// request have its protocol's number.
func stepPrograms() map[uint32]string {
	return map[uint32]string{
		uint32(ProtocolPostgres): "on_postgres",
		uint32(ProtocolMySQL):    "on_mysql",
		uint32(ProtocolRedis):    "on_redis",
		uint32(ProtocolMongo):    "on_mongo",
		stepReply:                "on_reply",
		stepFinish:               "on_finish",
	}
}

// openTracepoint takes the tracepoints of sockets, or of system calls where the
// kernel has none that can be used.
func (s *Statements) openTracepoint() error {
	sockets := s.openSockets()
	if sockets == nil {
		return nil
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("detach from sockets: %w", err)
	}
	if err := s.openSyscalls(); err != nil {
		return errors.Join(err, sockets)
	}
	return nil
}

// openSockets fails where sock_recv_length and sock_send_length are missing
// (include/trace/events/sock.h, since 6.3), or BTF is.
func (s *Statements) openSockets() error {
	spec, err := loadQuerySocket()
	if err != nil {
		return fmt.Errorf("read socket program: %w", err)
	}
	if s.coll, err = newCollection(spec); err != nil {
		return fmt.Errorf("load socket program: %w", err)
	}
	return s.attachTracing()
}

func (s *Statements) openSyscalls() error {
	s.syscalls = true
	if err := mountTracefs(); err != nil {
		return err
	}
	spec, err := loadQueryLegacy()
	if err != nil {
		return fmt.Errorf("read legacy program: %w", err)
	}
	if s.coll, err = newCollection(spec); err != nil {
		return fmt.Errorf("load legacy program: %w", err)
	}
	for step, name := range stepPrograms() {
		if err := s.coll.Maps["steps"].Put(step, s.coll.Programs[name]); err != nil {
			return fmt.Errorf("chain %s: %w", name, err)
		}
	}
	if err := s.writeSettings(queryCoreQuerySettings{}); err != nil {
		return err
	}
	return s.attachTracepoints()
}

// attachTracepoints attaches all programs. What it has attached when one is
// refused is Close's to detach.
func (s *Statements) attachTracepoints() error {
	for event, program := range schedHooks() {
		l, err := link.Tracepoint("sched", event, s.coll.Programs[program], nil)
		if err != nil {
			return fmt.Errorf("attach %s to sched/%s: %w", program, event, err)
		}
		s.links = append(s.links, l)
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: s.coll.Programs[syscallHook]})
	if err != nil {
		return fmt.Errorf("attach %s to raw tracepoint sys_exit: %w", syscallHook, err)
	}
	s.links = append(s.links, l)
	return nil
}

// mountTracefs mounts tracefs in the kernel's own place for it unless it, or
// debugfs around it, is there. Systemd does so at the first access; minimal
// systems do not.
func mountTracefs() error {
	const path = "/sys/kernel/tracing"
	for _, events := range []string{path + "/events", "/sys/kernel/debug/tracing/events"} {
		if _, err := os.Stat(events); err == nil {
			return nil
		}
	}
	if err := unix.Mount("tracefs", path, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount tracefs at %s: %w", path, err)
	}
	return nil
}

// writeSettings writes what is in use at all.
func (s *Statements) writeSettings(value queryCoreQuerySettings) error {
	if s.syscalls {
		var err error
		if value.ChildPid, err = childPIDOffset("/sys/kernel"); err != nil {
			return err
		}
	}
	if err := s.coll.Maps["settings"].Put(uint32(0), &value); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// childPIDOffset finds child_pid in the event sched_process_fork. Its place
// moved when the names in the event became dynamic strings.
func childPIDOffset(sysKernel string) (uint32, error) {
	const event = "events/sched/sched_process_fork/format"
	var errs []error
	for _, dir := range []string{"tracing", "debug/tracing"} {
		f, err := os.Open(filepath.Join(sysKernel, dir, event))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		offset, err := fieldOffset(f, "child_pid")
		return offset, errors.Join(err, f.Close())
	}
	return 0, fmt.Errorf("find tracefs (mount it at /sys/kernel/tracing): %w", errors.Join(errs...))
}

// fieldOffset reads a tracepoint's format file and returns where a field is.
// A line of it is "field:pid_t child_pid;	offset:44;	size:4;	signed:1;".
func fieldOffset(r io.Reader, name string) (uint32, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ";")
		if len(parts) < 2 || !strings.HasSuffix(parts[0], " "+name) {
			continue
		}
		text, ok := strings.CutPrefix(strings.TrimSpace(parts[1]), "offset:")
		if !ok {
			continue
		}
		offset, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("offset of field %s: %w", name, err)
		}
		return uint32(offset), nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read event format: %w", err)
	}
	return 0, fmt.Errorf("event has no field %s", name)
}
