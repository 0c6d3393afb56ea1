package active

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/osthread"
	"github.com/mooring-dev/mooring/agent/state"
)

// Dialer connects to a server where its process is found in /proc: over its own
// unix socket where it has one and TLS is not asked for, else over TCP in its
// network namespace.
func Dialer(procRoot string) Dial {
	return func(ctx context.Context, t Target) (net.Conn, error) {
		if t.Spec.TLS != state.TLSVerifyCA {
			if c, err := dialUnix(ctx, procRoot, t); err == nil {
				return c, nil
			}
		}
		return dialTCP(ctx, procRoot, t)
	}
}

// dialTCP connects to where the server listens.
func dialTCP(ctx context.Context, procRoot string, t Target) (net.Conn, error) {
	proc := filepath.Join(procRoot, strconv.Itoa(t.PID))
	addr, err := listens(proc, t.Ports)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	there, err := os.Readlink(filepath.Join(proc, "ns/net"))
	if err != nil {
		return nil, fmt.Errorf("read network namespace: %w", err)
	}
	if here, err := os.Readlink(filepath.Join(procRoot, "self/ns/net")); err == nil && here == there {
		return d.DialContext(ctx, "tcp", addr.String())
	}
	ns, err := os.Open(filepath.Join(proc, "ns/net"))
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()
	var conn net.Conn
	osthread.Discard(func() {
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter network namespace: %w", err)
			return
		}
		// A socket stays in the namespace it was made in.
		conn, err = d.DialContext(ctx, "tcp", addr.String())
	})
	return conn, err
}

// listens returns where to reach the lowest of a server's ports: engines with
// several have the one for clients there. Loopback is taken where it will do,
// since MySQL never blocks it. The tables are those of the network namespace, in
// which others may listen on the same port at another address: only sockets that
// the process holds count.
func listens(proc string, ports []uint16) (netip.AddrPort, error) {
	if len(ports) == 0 {
		return netip.AddrPort{}, &Failure{Reason: ReasonGone, Detail: "it listens on no TCP port and its unix socket cannot be used"}
	}
	port := slices.Min(ports)
	own, err := socketsOf(filepath.Join(proc, "fd"))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read descriptors: %w", err)
	}
	var found []netip.Addr
	others := map[netip.Addr]bool{}
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(filepath.Join(proc, name))
		if errors.Is(err, os.ErrNotExist) && name == "net/tcp6" {
			continue // IPv6 is off
		}
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("read %s: %w", name, err)
		}
		all, err := listening(f, port)
		f.Close()
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("read %s: %w", name, err)
		}
		for _, l := range all {
			if own[l.inode] {
				found = append(found, l.reached())
			} else {
				others[l.addr] = true
			}
		}
	}
	// The kernel prefers who listens at the very address to who does at any.
	found = slices.DeleteFunc(found, func(a netip.Addr) bool { return others[a] })
	if len(found) == 0 {
		return netip.AddrPort{}, &Failure{Reason: ReasonGone, Detail: fmt.Sprintf("its process does not listen on port %d any more, or behind another one", port)}
	}
	if i := slices.IndexFunc(found, netip.Addr.IsLoopback); i > 0 {
		found[0] = found[i]
	}
	return netip.AddrPortFrom(found[0], port), nil
}

// listener is a listening socket.
type listener struct {
	addr  netip.Addr
	inode uint64
}

// reached returns an address at which it can be reached from here.
func (l listener) reached() netip.Addr {
	switch l.addr {
	case netip.IPv4Unspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	}
	return l.addr
}

// listening returns what a table of /proc/net/tcp form has as listening on port.
// Listening sockets stand before all others (tcp_get_idx in net/ipv4/tcp_ipv4.c).
func listening(r io.Reader, port uint16) ([]listener, error) {
	var out []listener
	lines := bufio.NewScanner(r)
	for first := true; lines.Scan(); first = false {
		f := strings.Fields(lines.Text())
		if first || len(f) == 0 {
			continue
		}
		if len(f) < 4 || f[3] != "0A" { // TCP_LISTEN
			return out, nil
		}
		host, p, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(p, 16, 16)
		if !ok || err != nil || uint16(n) != port || len(f) < 10 {
			continue
		}
		// get_tcp4_sock prints the inode behind queues, timers, user and timeouts.
		inode, err := strconv.ParseUint(f[9], 10, 64)
		if a, ok := kernelAddr(host); ok && err == nil {
			out = append(out, listener{a, inode})
		}
	}
	return out, lines.Err()
}

// kernelAddr reads an address as the kernel prints it: 32-bit words in the byte
// order of the machine.
func kernelAddr(s string) (netip.Addr, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	return netip.AddrFromSlice(b)
}
