//go:build kernel

package bpf

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest/wire"
)

// TestWireConversations plays the published protocols of engines that are not at
// hand, and of those that are, to the timer.
func TestWireConversations(t *testing.T) {
	playAll(t, func(s wire.Scenario) bool { return s.Needs == "" })
}

// playAll plays the chosen scenarios in each mode.
func playAll(t *testing.T, chosen func(wire.Scenario) bool) {
	protocols := []struct {
		name      string
		protocol  Protocol
		scenarios []wire.Scenario
	}{
		{"PostgreSQL", ProtocolPostgres, wire.Postgres()}, {"MySQL", ProtocolMySQL, wire.MySQL()},
		{"Redis", ProtocolRedis, wire.Redis()}, {"MongoDB", ProtocolMongo, wire.Mongo()},
	}
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			timer := openTimer(t, mode)
			for _, p := range protocols {
				for _, s := range p.scenarios {
					if chosen(s) {
						t.Run(p.name+", "+s.Name, func(t *testing.T) { playOne(t, timer, p.protocol, s) })
					}
				}
			}
			lost, err := timer.Lost()
			require.NoError(t, err)
			require.Zero(t, lost["unreadable"]+lost["connections_full"], "%v", lost)
		})
	}
}

// playOne watches this process as the server of one scenario.
func playOne(t *testing.T, timer *Statements, protocol Protocol, s wire.Scenario) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer l.Close()
	w := Watched{
		ID: strings.ReplaceAll(t.Name(), "/", "-"), Protocol: protocol, PIDs: []int{os.Getpid()},
		Ports: []uint16{uint16(l.Addr().(*net.TCPAddr).Port)},
	}
	require.NoError(t, timer.Set([]Watched{w}))
	require.NoError(t, wire.Play(t.Context(), l, s))
	requireCounts(t, timer, w.ID, counts(s.Want))
	require.NoError(t, timer.Set(nil))
}
