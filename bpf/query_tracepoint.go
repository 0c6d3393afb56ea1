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

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// hook is a tracepoint and the program for it.
type hook struct{ group, event, program string }

// alwaysHooks are what every engine needs.
func alwaysHooks() []hook {
	return []hook{
		{"sched", "sched_process_fork", "on_fork"},
		{"sched", "sched_process_exit", "on_exit"},
		{"syscalls", "sys_enter_bind", "on_bind"},
		{"syscalls", "sys_enter_connect", "on_connect"},
		{"syscalls", "sys_enter_accept", "on_accept"},
		{"syscalls", "sys_exit_accept", "on_accepted"},
		{"syscalls", "sys_enter_accept4", "on_accept"},
		{"syscalls", "sys_exit_accept4", "on_accepted"},
		{"syscalls", "sys_enter_sendto", "on_send_enter"},
		{"syscalls", "sys_exit_sendto", "on_send_exit"},
		{"syscalls", "sys_enter_recvfrom", "on_recv_enter"},
		{"syscalls", "sys_exit_recvfrom", "on_recv_exit"},
	}
}

// readHooks are for engines that use read and write on their sockets.
func readHooks() []hook {
	return []hook{
		{"syscalls", "sys_enter_write", "on_send_enter"},
		{"syscalls", "sys_exit_write", "on_send_exit"},
		{"syscalls", "sys_enter_writev", "on_writev_enter"},
		{"syscalls", "sys_exit_writev", "on_send_exit"},
		{"syscalls", "sys_enter_read", "on_read_enter"},
		{"syscalls", "sys_exit_read", "on_recv_exit"},
	}
}

// stepMessage is STEP_MESSAGE; the other steps have the number of a Protocol.
const stepMessage = 0

func (s *Statements) openTracepoint() error {
	if err := mountTracefs(); err != nil {
		return err
	}
	spec, err := loadQueryLegacy()
	if err != nil {
		return fmt.Errorf("read legacy program: %w", err)
	}
	if s.coll, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load legacy program: %w", err)
	}
	for index, name := range map[uint32]string{
		stepMessage:              "on_message",
		uint32(ProtocolPostgres): "on_postgres",
		uint32(ProtocolMySQL):    "on_mysql",
		uint32(ProtocolRedis):    "on_redis",
	} {
		if err := s.coll.Maps["steps"].Put(index, s.coll.Programs[name]); err != nil {
			return fmt.Errorf("chain %s: %w", name, err)
		}
	}
	if err := s.setFollow(0); err != nil {
		return err
	}
	s.links, err = s.attach(alwaysHooks())
	return err
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

// attach attaches all hooks or none.
func (s *Statements) attach(hooks []hook) ([]link.Link, error) {
	var links []link.Link
	for _, h := range hooks {
		l, err := link.Tracepoint(h.group, h.event, s.coll.Programs[h.program], nil)
		if err != nil {
			errs := []error{fmt.Errorf("attach %s to %s/%s: %w", h.program, h.group, h.event, err)}
			for _, l := range links {
				errs = append(errs, l.Close())
			}
			return nil, errors.Join(errs...)
		}
		links = append(links, l)
	}
	return links, nil
}

// followReads attaches the tracepoints of read and write, or takes them away.
func (s *Statements) followReads(wanted bool) error {
	if s.mode != ModeTracepoint || wanted == (s.reads != nil) {
		return nil
	}
	if wanted {
		var err error
		s.reads, err = s.attach(readHooks())
		return err
	}
	var errs []error
	for _, l := range s.reads {
		errs = append(errs, l.Close())
	}
	s.reads = nil
	return errors.Join(errs...)
}

// setFollow writes the settings: which ways of choosing processes are in use.
func (s *Statements) setFollow(follow uint32) error {
	value := queryCoreQuerySettings{Follow: follow}
	if s.mode == ModeTracepoint {
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
