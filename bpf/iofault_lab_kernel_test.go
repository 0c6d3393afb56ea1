//go:build kernel

package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// ioRoleEnv makes the test binary, started again by TestIOFaults, play another
// process instead of the tests.
const ioRoleEnv = "MOORING_TEST_IO_ROLE"

// setIO arms a rule until the end of the test, with a lease that even a very slow
// machine does not outlast.
func setIO(t *testing.T, f *IOFaults, uid string, r change.IORule) {
	t.Helper()
	require.NoError(t, f.Set(uid, r))
	require.NoError(t, f.Renew(time.Minute))
	t.Cleanup(func() { require.NoError(t, f.Clear(uid)) })
}

// ioLab is two cgroups with a worker each, and two file systems.
type ioLab struct {
	target, neighbour *ioPeer
	victim, other     string
	major, minor      uint32
}

func newIOLab(t *testing.T) *ioLab {
	t.Helper()
	mnt := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", mnt, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mnt, unix.MNT_DETACH)) })
	lab := &ioLab{
		target:    startIOPeer(t, "worker", "io-target"),
		neighbour: startIOPeer(t, "worker", "io-neighbour"),
		victim:    filepath.Join(mnt, "victim"),
		other:     filepath.Join(t.TempDir(), "other"),
	}
	for _, path := range []string{lab.victim, lab.other} {
		require.NoError(t, os.WriteFile(path, make([]byte, 4096), 0o600))
	}
	var st unix.Stat_t
	require.NoError(t, unix.Stat(lab.victim, &st))
	lab.major, lab.minor = unix.Major(st.Dev), unix.Minor(st.Dev)
	return lab
}

func (l *ioLab) rule(lasts time.Duration) change.IORule {
	return change.IORule{
		CgroupID: l.target.cgroup, Major: l.major, Minor: l.minor,
		Write: true, Errno: int(unix.EIO), PPM: 1_000_000,
		Deadline: BootTime() + lasts,
	}
}

func (l *ioLab) ruleArgs() string {
	return fmt.Sprintf("MOORING_TEST_IO_RULE=%d %d %d", l.target.cgroup, l.major, l.minor)
}

// ioPeer is another process of the test binary and its cgroup.
type ioPeer struct {
	cmd    *exec.Cmd
	cgroup uint64
	in     io.Writer
	out    *bufio.Reader
}

// startIOPeer starts the test binary in a role, in a cgroup of its own if one is
// named, and kills it at the end of the test.
func startIOPeer(t *testing.T, role, cgroup string, env ...string) *ioPeer {
	t.Helper()
	p := &ioPeer{cmd: exec.Command("/proc/self/exe", "-test.run=^TestIOFaults$")}
	p.cmd.Env = append(append(os.Environ(), ioRoleEnv+"="+role), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if cgroup != "" {
		dir := filepath.Join("/sys/fs/cgroup", cgroup)
		require.NoError(t, os.Mkdir(dir, 0o755))
		t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
		fd, err := os.Open(dir)
		require.NoError(t, err)
		defer fd.Close()
		var st unix.Stat_t
		require.NoError(t, unix.Fstat(int(fd.Fd()), &st))
		p.cgroup = st.Ino
		p.cmd.SysProcAttr.UseCgroupFD = true
		p.cmd.SysProcAttr.CgroupFD = int(fd.Fd())
	}
	in, err := p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.in, p.out = in, bufio.NewReader(out)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *ioPeer) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSuffix(s, "\n")
}

func (p *ioPeer) ask(t *testing.T, format string, args ...any) string {
	t.Helper()
	_, err := fmt.Fprintf(p.in, format+"\n", args...)
	require.NoError(t, err)
	return p.line(t)
}

// until lets the worker write until a write succeeds, and returns when the
// last failed write began and when the first good one was over.
func (p *ioPeer) until(t *testing.T, path string) (lastFailed, firstOK time.Duration) {
	t.Helper()
	_, err := fmt.Sscan(p.ask(t, "until %s 0", path), (*int64)(&lastFailed), (*int64)(&firstOK))
	require.NoError(t, err)
	require.NotZero(t, lastFailed, "no write failed")
	return lastFailed, firstOK
}

// ioWorker obeys one command a line on standard input: a verb, a path and how
// many times.
func ioWorker() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var verb, path string
		var n int
		if _, err := fmt.Sscan(in.Text(), &verb, &path, &n); err != nil {
			fmt.Println(err)
			continue
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			fmt.Println(err)
			continue
		}
		if verb == "until" {
			fmt.Println(untilWritten(file))
		} else {
			fmt.Println(tally(n, func() error { return ioCall(verb, file) }))
		}
		_ = file.Close()
	}
}

// untilWritten writes until a write succeeds.
func untilWritten(file *os.File) string {
	var lastFailed time.Duration
	for {
		begun := BootTime()
		if _, err := file.WriteAt(make([]byte, 512), 0); err == nil {
			return fmt.Sprint(int64(lastFailed), int64(BootTime()))
		}
		lastFailed = begun
	}
}

// ioCall makes one system call on a file of 4096 bytes.
func ioCall(verb string, file *os.File) error {
	buf := make([]byte, 512)
	fd := int(file.Fd())
	switch verb {
	case "write":
		_, err := file.WriteAt(buf, 0)
		return err
	case "read":
		_, err := file.ReadAt(buf, 0)
		return err
	case "list":
		_, err := os.ReadDir(filepath.Dir(file.Name()))
		return err
	case "aio":
		return aioWrite(fd, buf)
	case "fallocate":
		return unix.Fallocate(fd, 0, 0, 4096)
	case "copy":
		from, to := int64(0), int64(2048)
		_, err := unix.CopyFileRange(fd, &from, fd, &to, 512, 0)
		return err
	case "fsync":
		return unix.Fsync(fd)
	case "truncate":
		return unix.Ftruncate(fd, 4096)
	case "store":
		mem, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		mem[0]++
		return unix.Munmap(mem)
	case "open":
		again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		return unix.Close(again)
	}
	return unix.ENOSYS
}

// aioWrite submits one asynchronous write. A fault shows in io_submit itself.
func aioWrite(fd int, buf []byte) error {
	var ctx uintptr
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&ctx)), 0); errno != 0 {
		return fmt.Errorf("io_setup: %v", errno)
	}
	defer unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
	// struct iocb of include/uapi/linux/aio_abi.h.
	cb := &struct {
		data             uint64
		key, rwFlags     uint32
		opcode           uint16
		priority         int16
		fd               uint32
		buf, size        uint64
		offset           int64
		reserved         uint64
		flags, completes uint32
	}{opcode: 1 /* IOCB_CMD_PWRITE */, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&buf[0]))), size: uint64(len(buf))}
	_, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, 1, uintptr(unsafe.Pointer(&cb)))
	runtime.KeepAlive(buf)
	if errno != 0 {
		return errno
	}
	return nil
}

// tally returns how many of n calls failed, and the last errno.
func tally(n int, call func() error) string {
	failed := 0
	var last syscall.Errno
	for range n {
		if err := call(); err != nil {
			failed++
			errors.As(err, &last)
		}
	}
	return fmt.Sprint(failed, int(last))
}

// ioAgent arms a rule, says so and waits to be killed.
func ioAgent() {
	r := change.IORule{Write: true, Errno: int(unix.EIO), PPM: 1_000_000, Deadline: BootTime() + time.Minute}
	_, err := fmt.Sscan(os.Getenv("MOORING_TEST_IO_RULE"), &r.CgroupID, &r.Major, &r.Minor)
	if err == nil {
		var f *IOFaults
		if f, err = OpenIOFaults(); err == nil {
			err = errors.Join(f.Set("agent", r), f.Renew(time.Minute))
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("armed")
	select {}
}
