package pods

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/process"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

// procFS reads processes below a procfs root.
type procFS struct{ root string }

func (p procFS) path(pid int, elem string) string {
	return p.root + "/" + strconv.Itoa(pid) + "/" + elem
}

// context tells gopsutil where procfs is. The methods that take a context take
// one that came from here.
func (p procFS) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, common.EnvKey, common.EnvMap{common.HostProcEnvKey: p.root})
}

// pids returns all processes, ascending.
func (p procFS) pids(ctx context.Context) ([]int, error) {
	ids, err := process.PidsWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("list processes in %q: %w", p.root, err)
	}
	out := make([]int, 0, len(ids))
	for _, id := range ids {
		out = append(out, int(id))
	}
	slices.Sort(out)
	return out, nil
}

// args returns a process's command line.
func (p procFS) args(ctx context.Context, pid int) ([]string, error) {
	one := process.Process{Pid: int32(pid)}
	return one.CmdlineSliceWithContext(ctx)
}

// dataDir returns the working directory and the device that holds it. The link
// is followed by the kernel into the process's mount namespace. The device is
// asked for without synchronising, so that a network file system whose server
// is away does not hang the scan.
func (p procFS) dataDir(ctx context.Context, pid int) (string, state.Device, error) {
	one := process.Process{Pid: int32(pid)}
	dir, err := one.CwdWithContext(ctx)
	if err != nil {
		return "", state.Device{}, fmt.Errorf("read working directory: %w", err)
	}
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, p.path(pid, "cwd"), unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if err != nil {
		return "", state.Device{}, fmt.Errorf("stat working directory %q: %w", dir, err)
	}
	return dir, state.Device{Major: st.Dev_major, Minor: st.Dev_minor}, nil
}

// procStat is what is needed of /proc/PID/stat.
type procStat struct {
	comm   string
	parent int
	// start is the start time in clock ticks since boot: with the pid it names
	// a process for good.
	start uint64
}

// stat reads the stat line itself: gopsutil reads the boot time and the
// priority along with it, for every process anew.
func (p procFS) stat(pid int) (procStat, error) {
	data, err := os.ReadFile(p.path(pid, "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(data)
}

// parseStat reads "pid (comm) state ppid …", see proc(5). The name may hold
// spaces and parentheses; the last one closes it.
func parseStat(data []byte) (procStat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return procStat{}, fmt.Errorf("stat line %q has no name", data)
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("stat line %q is too short", data)
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return procStat{}, fmt.Errorf("parent in stat line: %w", err)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("start time in stat line: %w", err)
	}
	return procStat{comm: string(data[open+1 : end]), parent: parent, start: start}, nil
}

// executable returns the base name of a process's executable. Kernel threads
// have none and answer fs.ErrNotExist, like processes that are gone.
func (p procFS) executable(ctx context.Context, pid int) (string, error) {
	one := process.Process{Pid: int32(pid)}
	link, err := one.ExeWithContext(ctx)
	if err != nil {
		return "", err
	}
	return executableName(link), nil
}

// netns returns the inode number of a process's network namespace.
func (p procFS) netns(pid int) (uint64, error) {
	link, err := os.Readlink(p.path(pid, "ns/net"))
	if err != nil {
		return 0, err
	}
	id, ok := inodeIn(link, "net:[")
	if !ok {
		return 0, fmt.Errorf("network namespace link %q has no inode number", link)
	}
	return id, nil
}

// inodeIn reads the number of a link such as "socket:[4711]".
func inodeIn(link, prefix string) (uint64, bool) {
	rest, ok := strings.CutPrefix(link, prefix)
	if !ok {
		return 0, false
	}
	digits, ok := strings.CutSuffix(rest, "]")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil
}

// sockets calls visit for every open socket of a process and returns how many
// descriptors it read. It stops after limit of them; complete says that none
// was left.
func (p procFS) sockets(pid, limit int, visit func(inode uint64)) (read int, complete bool, err error) {
	dir, err := os.Open(p.path(pid, "fd"))
	if err != nil {
		return 0, false, err
	}
	defer dir.Close()
	for read < limit {
		names, err := dir.Readdirnames(min(256, limit-read))
		for _, name := range names {
			read++
			// A descriptor closed meanwhile is no longer a listener.
			link, err := os.Readlink(filepath.Join(dir.Name(), name))
			if err != nil {
				continue
			}
			if inode, ok := inodeIn(link, "socket:["); ok {
				visit(inode)
			}
		}
		if errors.Is(err, io.EOF) {
			return read, true, nil
		}
		if err != nil {
			return read, false, err
		}
	}
	return read, false, nil
}

// self returns the agent's own pid as this procfs counts, 0 if it is not in it.
func (p procFS) self() int {
	link, err := os.Readlink(p.root + "/self")
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(link)
	if err != nil {
		return 0
	}
	return pid
}

// vanished reports whether an error means that the process, or its cgroup, has
// ended: files of a process that is gone answer ESRCH once opened, files of a
// cgroup that is gone ENODEV.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV)
}
