package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// procfs reads /proc, or a tree like it.
type procfs struct{ root string }

func (p procfs) path(pid int, elem ...string) string {
	return filepath.Join(append([]string{p.root, strconv.Itoa(pid)}, elem...)...)
}

// alive tells whether a process or thread exists.
func (p procfs) alive(pid int) bool {
	_, err := os.Stat(p.path(pid))
	return err == nil
}

// isSocket tells whether a descriptor of a process is a socket still, and that with
// the given inode number unless it is 0. One that cannot be looked at counts as one.
func (p procfs) isSocket(pid, fd int, inode uint64) bool {
	link, err := os.Readlink(p.path(pid, "fd", strconv.Itoa(fd)))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	found, ok := socketInode(link)
	return ok && (inode == 0 || inode == found)
}

// socketInode returns the inode number in the link of a socket's descriptor.
func socketInode(link string) (uint64, bool) {
	number, ok := strings.CutPrefix(link, "socket:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}

// socketTable tells of sockets, by inode, whether they are on the server side.
// A socket that is in no table is on none.
type socketTable map[uint64]localEnd

// localEnd is a socket's own address: a TCP port, or for a Unix socket whether
// it has a name. An accepted Unix socket has its listener's.
type localEnd struct {
	port  uint16
	named bool
}

func (e localEnd) serverSide(ports map[uint16]bool) bool { return e.named || ports[e.port] }

// socketTables keeps the tables of the network namespaces that were read, for
// many processes share one.
type socketTables struct {
	proc procfs
	byNS map[string]socketTable
}

func newSocketTables(proc procfs) *socketTables {
	return &socketTables{proc: proc, byNS: map[string]socketTable{}}
}

// roles returns the open socket descriptors of a process, and whether each is
// on the server side: its own end is one of ports, or a named Unix socket. A
// process that has gone has none.
func (t *socketTables) roles(pid int, ports map[uint16]bool) (map[int]bool, error) {
	fds, err := t.proc.sockets(pid)
	if errors.Is(err, fs.ErrNotExist) || len(fds) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sockets of process %d: %w", pid, err)
	}
	table, err := t.table(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read socket tables of process %d: %w", pid, err)
	}
	roles := make(map[int]bool, len(fds))
	for fd, inode := range fds {
		end, ok := table[inode]
		roles[fd] = ok && end.serverSide(ports)
	}
	return roles, nil
}

// sockets returns the inodes of a process's sockets by descriptor.
func (p procfs) sockets(pid int) (map[int]uint64, error) {
	entries, err := os.ReadDir(p.path(pid, "fd"))
	if err != nil {
		return nil, err
	}
	fds := map[int]uint64{}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		target, err := os.Readlink(p.path(pid, "fd", e.Name()))
		if err != nil {
			continue // closed since
		}
		if inode, ok := socketInode(target); ok {
			fds[fd] = inode
		}
	}
	return fds, nil
}

// table reads the tables of a process's network namespace.
func (t *socketTables) table(pid int) (socketTable, error) {
	ns, err := os.Readlink(t.proc.path(pid, "ns", "net"))
	if err != nil {
		return nil, err
	}
	if table, ok := t.byNS[ns]; ok {
		return table, nil
	}
	table := socketTable{}
	for name, read := range map[string]func(io.Reader, socketTable) error{
		"tcp": readTCP, "tcp6": readTCP, "unix": readUnix,
	} {
		err := readTable(t.proc.path(pid, "net", name), read, table)
		if name == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			continue // IPv6 is off
		}
		if err != nil {
			return nil, err
		}
	}
	t.byNS[ns] = table
	return table, nil
}

func readTable(path string, read func(io.Reader, socketTable) error, table socketTable) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only: an error of close means nothing
	return read(f, table)
}

// readTCP reads /proc/net/tcp or tcp6 (net/ipv4/tcp_ipv4.c, get_tcp4_sock):
// "sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode".
func readTCP(r io.Reader, table socketTable) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		colon := strings.LastIndexByte(fields[1], ':')
		port, err := strconv.ParseUint(fields[1][colon+1:], 16, 16)
		if err != nil {
			continue // the heading
		}
		inode, err := strconv.ParseUint(fields[9], 10, 64)
		if err != nil || inode == 0 {
			continue // nobody holds it: closing
		}
		table[inode] = localEnd{port: uint16(port)}
	}
	return lines.Err()
}

// readUnix reads /proc/net/unix (net/unix/af_unix.c, unix_seq_show):
// "Num RefCount Protocol Flags Type St Inode Path", Path being optional.
func readUnix(r io.Reader, table socketTable) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 7 {
			continue
		}
		inode, err := strconv.ParseUint(fields[6], 10, 64)
		if err != nil {
			continue // the heading
		}
		table[inode] = localEnd{named: len(fields) > 7}
	}
	return lines.Err()
}
