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
// since MySQL never blocks it.
func listens(proc string, ports []uint16) (netip.AddrPort, error) {
	if len(ports) == 0 {
		return netip.AddrPort{}, &Failure{Reason: ReasonGone, Detail: "it listens on no TCP port and its unix socket cannot be used"}
	}
	port := slices.Min(ports)
	var found []netip.Addr
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(filepath.Join(proc, name))
		if errors.Is(err, os.ErrNotExist) && name == "net/tcp6" {
			continue // IPv6 is off
		}
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("read %s: %w", name, err)
		}
		at, err := listening(f, port)
		f.Close()
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("read %s: %w", name, err)
		}
		found = append(found, at...)
	}
	for i, a := range found {
		switch {
		case a == netip.IPv4Unspecified():
			found[i] = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		case a == netip.IPv6Unspecified():
			found[i] = netip.IPv6Loopback()
		}
	}
	if len(found) == 0 {
		return netip.AddrPort{}, &Failure{Reason: ReasonGone, Detail: fmt.Sprintf("nothing listens on port %d any more", port)}
	}
	if i := slices.IndexFunc(found, netip.Addr.IsLoopback); i > 0 {
		found[0] = found[i]
	}
	return netip.AddrPortFrom(found[0], port), nil
}

// listening returns the addresses that a table of /proc/net/tcp form has as
// listening on port. Listening sockets stand before all others
// (tcp_get_idx in net/ipv4/tcp_ipv4.c).
func listening(r io.Reader, port uint16) ([]netip.Addr, error) {
	var out []netip.Addr
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
		if !ok || err != nil || uint16(n) != port {
			continue
		}
		if a, ok := kernelAddr(host); ok {
			out = append(out, a)
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
