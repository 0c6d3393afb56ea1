package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/osthread"
	"github.com/mooring-dev/mooring/agent/state"
)

// From include/uapi/linux/inet_diag.h and tcp.h. The figures of a socket are
// those of TCP_INFO, whose order is fixed; new ones are added at the end.
const (
	diagRequestSize = 56
	diagMessageSize = 72
	diagInfo        = 2 // INET_DIAG_INFO
	tcpEstablished  = 1

	portAt, cookieAt         = 4, 44 // in struct inet_diag_msg
	unackedAt, rttAt, resent = 24, 68, 100
)

// socket is what is needed of one connection.
type socket struct {
	cookie        uint64
	port          uint16
	roundTrip     time.Duration
	unacked       uint32
	retransmitted uint32
}

// connections asks the kernel for the established connections to an instance's
// ports, in its network namespace.
func (s *Surveyor) connections(in *state.Instance, k *surveyed) (*state.Connections, error) {
	if in.MainPID == 0 || len(in.Ports) == 0 {
		return nil, nil
	}
	var sockets []socket
	var err error
	ask := func() { sockets, err = dumpPorts(in.Ports) }
	if in.HostNetwork {
		ask()
	} else {
		ns, openErr := os.Open(s.root + "/" + strconv.Itoa(in.MainPID) + "/ns/net")
		if ended(openErr) {
			return nil, nil
		}
		if openErr != nil {
			return nil, fmt.Errorf("open network namespace of process %d: %w", in.MainPID, openErr)
		}
		defer ns.Close()
		osthread.Discard(func() {
			if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
				ask()
			}
		})
	}
	if err != nil {
		return nil, fmt.Errorf("ask for connections: %w", err)
	}
	return k.summarise(sockets), nil
}

// summarise adds up the connections, and what each sent again since the survey
// before. A connection is known by its cookie, which is never used twice. What
// those of the first survey had sent again by then is not of our time.
func (k *surveyed) summarise(sockets []socket) *state.Connections {
	c := &state.Connections{Count: len(sockets)}
	first := k.retransmitted == nil
	now := make(map[uint64]uint32, len(sockets))
	var sum time.Duration
	for _, s := range sockets {
		sum += s.roundTrip
		c.MaxRoundTrip = max(c.MaxRoundTrip, s.roundTrip)
		c.Unacknowledged += int64(s.unacked)
		if !first {
			k.total += int64(s.retransmitted - min(s.retransmitted, k.retransmitted[s.cookie]))
		}
		now[s.cookie] = s.retransmitted
	}
	if len(sockets) > 0 {
		c.MeanRoundTrip = sum / time.Duration(len(sockets))
	}
	k.retransmitted = now
	c.Retransmissions = k.total
	return c
}

// diagRequest is struct inet_diag_req_v2 for one local port; the kernel leaves
// out all others itself.
type diagRequest struct {
	family uint8
	port   uint16
}

// Len implements nl.NetlinkRequestData.
func (diagRequest) Len() int { return diagRequestSize }

// Serialize implements nl.NetlinkRequestData.
func (r diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize)
	b[0], b[1], b[2] = r.family, unix.IPPROTO_TCP, 1<<(diagInfo-1)
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpEstablished)
	binary.BigEndian.PutUint16(b[8:], r.port)
	return b
}

// dumpPorts asks in the network namespace of the calling thread.
func dumpPorts(ports []uint16) ([]socket, error) {
	var out []socket
	for _, port := range ports {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
			req.AddData(diagRequest{family: family, port: port})
			var bad error
			err := req.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
				s, err := parseSocket(msg)
				if err != nil {
					bad = err
					return false
				}
				if s.port == port {
					out = append(out, s)
				}
				return true
			})
			// A dump during which connections came and went lacks those alone.
			if errors.Is(err, netlink.ErrDumpInterrupted) {
				err = nil
			}
			if err := errors.Join(err, bad); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// parseSocket reads struct inet_diag_msg and the attribute INET_DIAG_INFO.
func parseSocket(msg []byte) (socket, error) {
	if len(msg) < diagMessageSize {
		return socket{}, fmt.Errorf("message of %d bytes about a socket is too short", len(msg))
	}
	s := socket{
		port:   binary.BigEndian.Uint16(msg[portAt:]),
		cookie: uint64(binary.NativeEndian.Uint32(msg[cookieAt:])) | uint64(binary.NativeEndian.Uint32(msg[cookieAt+4:]))<<32,
	}
	attributes, err := nl.ParseRouteAttr(msg[diagMessageSize:])
	if err != nil {
		return socket{}, fmt.Errorf("parse attributes of a socket: %w", err)
	}
	for _, a := range attributes {
		if a.Attr.Type != diagInfo || len(a.Value) < resent+4 {
			continue
		}
		rtt := binary.NativeEndian.Uint32(a.Value[rttAt:])
		s.roundTrip = time.Duration(min(rtt, math.MaxInt32)) * time.Microsecond
		s.unacked = binary.NativeEndian.Uint32(a.Value[unackedAt:])
		s.retransmitted = binary.NativeEndian.Uint32(a.Value[resent:])
	}
	return s, nil
}
