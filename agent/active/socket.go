package active

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// acceptsConnections is __SO_ACCEPTCON of include/uapi/linux/net.h.
	acceptsConnections = 0x10000
	// maxDescriptors bounds the descriptors of a server that are looked at.
	maxDescriptors = 1 << 16
)

// dialUnix connects to the first of the server's own unix sockets that will do.
func dialUnix(ctx context.Context, procRoot string, t Target) (net.Conn, error) {
	proc := filepath.Join(procRoot, strconv.Itoa(t.PID))
	paths, err := ownSockets(proc, t)
	if err != nil {
		return nil, err
	}
	for _, p := range paths {
		var c net.Conn
		if c, err = connectBelow(ctx, proc, p); err != nil {
			continue
		}
		if err = isPeer(c, t); err == nil {
			return c, nil
		}
		c.Close()
	}
	if err == nil {
		err = os.ErrNotExist
	}
	return nil, fmt.Errorf("connect to unix socket: %w", err)
}

// ownSockets returns the paths, as the server named them, of the listening unix
// sockets that its process holds and that speak the engine's protocol.
func ownSockets(proc string, t Target) ([]string, error) {
	f, err := os.Open(filepath.Join(proc, "net/unix"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := listeningSockets(f)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	own, err := socketsOf(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, err
	}
	var out []string
	for inode, p := range all {
		if own[inode] && speaks(t, path.Base(p)) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out, nil
}

// speaks tells by its name whether a server's socket is for clients of the
// engine's own protocol.
func speaks(t Target, base string) bool {
	switch t.Engine.Wire() {
	case state.WirePostgreSQL:
		return strings.HasPrefix(base, ".s.PGSQL.")
	case state.WireMySQL:
		// The X protocol and its admin interface have sockets of their own.
		return !strings.Contains(base, "mysqlx") && !strings.Contains(base, "admin")
	}
	return true
}

// listeningSockets reads /proc/net/unix and returns the paths of listening
// stream sockets by inode. Abstract names are left out.
func listeningSockets(r io.Reader) (map[uint64]string, error) {
	out := map[uint64]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		// Num RefCount Protocol Flags Type St Inode Path, where a path may hold
		// spaces (unix_seq_show in net/unix/af_unix.c).
		f := strings.Fields(lines.Text())
		if len(f) < 8 || !strings.HasSuffix(f[0], ":") || f[4] != "0001" || f[7][0] == '@' {
			continue
		}
		flags, err := strconv.ParseUint(f[3], 16, 32)
		if err != nil || flags&acceptsConnections == 0 {
			continue
		}
		inode, err := strconv.ParseUint(f[6], 10, 64)
		if err != nil || inode == 0 {
			continue
		}
		if _, p, ok := strings.Cut(lines.Text(), " "+f[6]+" "); ok {
			out[inode] = p
		}
	}
	return out, lines.Err()
}

// socketsOf returns the inodes of the sockets that a process has open.
func socketsOf(dir string) (map[uint64]bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxDescriptors)
	if err != nil {
		return nil, err
	}
	out := map[uint64]bool{}
	for _, n := range names {
		link, err := os.Readlink(filepath.Join(dir, n))
		if err != nil {
			continue
		}
		if s, ok := strings.CutPrefix(link, "socket:["); ok {
			if inode, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
				out[inode] = true
			}
		}
	}
	return out, nil
}

// connectBelow connects to a socket by its path inside the process's own root,
// or below its working directory. A link in there leads nowhere outside of it
// (RESOLVE_IN_ROOT, from Linux 5.6), and the socket is reached through its
// descriptor, so that its path may be longer than the 108 bytes of sun_path.
func connectBelow(ctx context.Context, proc, p string) (net.Conn, error) {
	base, how := "root", uint64(unix.RESOLVE_IN_ROOT)
	if !path.IsAbs(p) {
		base, how = "cwd", unix.RESOLVE_BENEATH
	}
	dir, err := unix.Open(filepath.Join(proc, base), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", base, err)
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: how | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat socket: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("stat socket: %w", syscall.ENOTSOCK)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
}

// isPeer accepts a connection only if a process of the instance listens at its
// other end: the path could have been taken by another one meanwhile.
func isPeer(c net.Conn, t Target) error {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if ctl := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); ctl != nil {
		return ctl
	}
	if err != nil {
		return fmt.Errorf("read peer: %w", err)
	}
	if pid := int(cred.Pid); pid != t.PID && !slices.Contains(t.PIDs, pid) {
		return fmt.Errorf("process %d listens there, which is none of the instance", pid)
	}
	return nil
}
