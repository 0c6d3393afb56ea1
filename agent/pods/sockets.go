package pods

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
)

const (
	// tcpListen is TCP_LISTEN of include/net/tcp_states.h.
	tcpListen = "0A"
	// acceptsConnections is __SO_ACCEPTCON of include/uapi/linux/net.h.
	acceptsConnections = 0x10000
	// lineBuffer holds one page, what one read of a socket table returns.
	lineBuffer = 4096
)

// listeners are the listening TCP sockets of one network namespace.
type listeners struct {
	// ports is the port of each socket, by inode number.
	ports map[uint64]uint16
	// inodes are the keys of ports, ascending.
	inodes []uint64
}

// tcpListeners reads the listening TCP sockets of a process's network
// namespace.
func (p procFS) tcpListeners(pid int) (*listeners, error) {
	l := &listeners{ports: make(map[uint64]uint16)}
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(p.path(pid, name))
		if errors.Is(err, os.ErrNotExist) && name == "net/tcp6" {
			continue // IPv6 is off
		}
		if err != nil {
			return nil, err
		}
		err = parseListeners(f, func(inode uint64, port uint16) { l.ports[inode] = port })
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	for inode := range l.ports {
		l.inodes = append(l.inodes, inode)
	}
	slices.Sort(l.inodes)
	return l, nil
}

// parseListeners reads the text of /proc/net/tcp and calls visit for every
// listening socket. It stops at the first socket in another state: the kernel
// walks all listening sockets before the others (tcp_get_idx in
// net/ipv4/tcp_ipv4.c), and a server may have many thousand connections.
func parseListeners(r io.Reader, visit func(inode uint64, port uint16)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, lineBuffer), bufio.MaxScanTokenSize)
	for first := true; lines.Scan(); first = false {
		if first {
			continue // column names
		}
		fields := bytes.Fields(lines.Bytes())
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 10 {
			return fmt.Errorf("socket line %q has %d columns, want at least 10", lines.Text(), len(fields))
		}
		if string(fields[3]) != tcpListen {
			return nil
		}
		colon := bytes.LastIndexByte(fields[1], ':')
		port, err := strconv.ParseUint(string(fields[1][colon+1:]), 16, 16)
		if colon < 0 || err != nil {
			return fmt.Errorf("socket line %q has the local address %q", lines.Text(), fields[1])
		}
		inode, err := strconv.ParseUint(string(fields[9]), 10, 64)
		if err != nil {
			return fmt.Errorf("socket line %q has the inode %q", lines.Text(), fields[9])
		}
		if inode != 0 {
			visit(inode, uint16(port))
		}
	}
	return lines.Err()
}

// unixListeners reads the listening unix sockets of a process's network
// namespace.
func (p procFS) unixListeners(pid int) (map[uint64]bool, error) {
	f, err := os.Open(p.path(pid, "net/unix"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := make(map[uint64]bool)
	if err := parseUnixListeners(f, func(inode uint64) { out[inode] = true }); err != nil {
		return nil, fmt.Errorf("read net/unix: %w", err)
	}
	return out, nil
}

// parseUnixListeners reads the text of /proc/net/unix and calls visit for every
// listening socket.
func parseUnixListeners(r io.Reader, visit func(inode uint64)) error {
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		if first {
			continue // column names
		}
		fields := bytes.Fields(lines.Bytes())
		// A path may hold a line break and so spoil the line after it: what does
		// not begin like a socket is left alone.
		if len(fields) < 7 || !bytes.HasSuffix(fields[0], []byte(":")) {
			continue
		}
		flags, err := strconv.ParseUint(string(fields[3]), 16, 32)
		if err != nil || flags&acceptsConnections == 0 {
			continue
		}
		inode, err := strconv.ParseUint(string(fields[6]), 10, 64)
		if err == nil && inode != 0 {
			visit(inode)
		}
	}
	return lines.Err()
}
