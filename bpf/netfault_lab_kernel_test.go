//go:build kernel

package bpf

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
	"github.com/mooring-dev/mooring/agent/osthread"
)

// instance is a network namespace that stands for a pod, with a UDP echo
// server inside, and the host's end of its veth pair.
type instance struct {
	name string // of the host's interface
	link int
	conn *net.UDPConn // from the host to the echo server
	// echoed counts the datagrams that reached the server.
	echoed *atomic.Int64
}

// iproute runs a command of iproute2, the independent witness of these tests.
func iproute(t *testing.T, command string, args ...any) string {
	t.Helper()
	words := strings.Fields(fmt.Sprintf(command, args...))
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	require.NoError(t, err, "%v: %s", words, out)
	return strings.TrimSpace(string(out))
}

// startInstance makes instance number i, which may be 1 to 255.
func startInstance(t *testing.T, i int) *instance {
	t.Helper()
	in := &instance{name: fmt.Sprintf("host%d", i), echoed: new(atomic.Int64)}
	pod := fmt.Sprintf("pod%d", i)
	iproute(t, "ip netns add %s", pod)
	t.Cleanup(func() { iproute(t, "ip netns del %s", pod) })
	iproute(t, "ip link add %s type veth peer name eth0 netns %s", in.name, pod)
	iproute(t, "ip addr add 10.77.%d.1/30 dev %s", i, in.name)
	iproute(t, "ip -n %s addr add 10.77.%d.2/30 dev eth0", pod, i)
	iproute(t, "ip link set %s up", in.name)
	iproute(t, "ip -n %s link set eth0 up", pod)
	nic, err := net.InterfaceByName(in.name)
	require.NoError(t, err)
	in.link = nic.Index

	server := listenIn(t, pod, net.IPv4(10, 77, byte(i), 2))
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := server.ReadFromUDP(buf)
			if err != nil {
				return
			}
			in.echoed.Add(1)
			_, _ = server.WriteToUDP(buf[:n], from)
		}
	}()
	in.conn, err = net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, in.conn.Close()) })
	_, ok := in.ping(t)
	require.True(t, ok, "the instance does not answer")
	return in
}

func listenIn(t *testing.T, pod string, ip net.IP) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	osthread.Discard(func() {
		var ns netns.NsHandle
		if ns, err = netns.GetFromName(pod); err == nil {
			err = netns.Set(ns)
		}
		if err == nil {
			conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: ip})
		}
	})
	require.NoError(t, err)
	return conn
}

// ping sends one datagram and waits up to two seconds for its echo.
func (in *instance) ping(t *testing.T) (rtt time.Duration, ok bool) {
	t.Helper()
	var want, got [8]byte
	begun := time.Now()
	for i := range want {
		want[i] = byte(begun.UnixNano() >> (8 * i))
	}
	_, err := in.conn.Write(want[:])
	require.NoError(t, err)
	require.NoError(t, in.conn.SetReadDeadline(begun.Add(2*time.Second)))
	for got != want {
		if _, err := in.conn.Read(got[:]); err != nil {
			return 0, false
		}
	}
	return time.Since(begun), true
}

// pings returns the shortest and the median of n round trips. The shortest is
// what a busy machine does not lengthen.
func (in *instance) pings(t *testing.T, n int) (shortest, median time.Duration) {
	t.Helper()
	var all []time.Duration
	for range n {
		rtt, ok := in.ping(t)
		require.True(t, ok, "a datagram was lost")
		at := 0
		for at < len(all) && all[at] < rtt {
			at++
		}
		all = append(all[:at], append([]time.Duration{rtt}, all[at:]...)...)
	}
	return all[0], all[len(all)/2]
}

// flood sends n datagrams and waits for nothing.
func (in *instance) flood(t *testing.T, n int) {
	t.Helper()
	for range n {
		_, err := in.conn.Write([]byte("x"))
		require.NoError(t, err)
	}
}

// drain reads the echoes that nobody has waited for, until there are no more:
// a full receive buffer would lose those of later pings.
func (in *instance) drain(t *testing.T) {
	t.Helper()
	for {
		require.NoError(t, in.conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		if _, err := in.conn.Read(make([]byte, 8)); err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return
		}
	}
}

// qdiscs is what tc says of the host's end.
func (in *instance) qdiscs(t *testing.T) string {
	t.Helper()
	return iproute(t, "tc qdisc show dev %s", in.name)
}

func (in *instance) rule(delay, lasts time.Duration) change.NetRule {
	return change.NetRule{Link: in.link, Name: in.name, Delay: delay, Deadline: BootTime() + lasts}
}

// setNet arms a rule until the end of the test, with a lease that even a very
// slow machine does not outlast.
func setNet(t *testing.T, n *NetFaults, r change.NetRule) {
	t.Helper()
	require.NoError(t, n.Set(r))
	require.NoError(t, n.Renew(time.Minute))
	t.Cleanup(func() { require.NoError(t, n.Clear(r.Link, r.Name)) })
}

func openNet(t *testing.T) *NetFaults {
	t.Helper()
	n, err := OpenNetFaults()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n
}

// sleepUntil sleeps to a time of the boot clock.
func sleepUntil(t *testing.T, at time.Duration) {
	t.Helper()
	ts := unix.NsecToTimespec(int64(at))
	for unix.ClockNanosleep(unix.CLOCK_BOOTTIME, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
	require.GreaterOrEqual(t, BootTime(), at)
}
