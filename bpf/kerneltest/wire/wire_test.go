package wire

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// every returns all scenarios by protocol.
func every() map[string][]Scenario {
	return map[string][]Scenario{"postgres": Postgres(), "mysql": MySQL(), "redis": Redis(), "mongo": Mongo()}
}

func TestEveryConversationComesToItsEnd(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer l.Close()
	for protocol, scenarios := range every() {
		var names []string
		for _, s := range scenarios {
			require.NotContains(t, names, s.Name, protocol)
			names = append(names, s.Name)
			require.NotNil(t, s.Want, s.Name)
			require.NoError(t, Play(t.Context(), l, s), "%s: %s", protocol, s.Name)
		}
	}
}

func TestPlayTellsOfAConversationThatStops(t *testing.T) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.ErrorContains(t, Play(t.Context(), l, Scenario{}), "dial")
}

func TestPacketsAreCutWhereTheyMustBe(t *testing.T) {
	require.Equal(t, []byte("\x03\x00\x00\x05abc"), Packet(5, "abc"))
	require.Equal(t, []byte("\x00\x00\x00\x02"), Packet(2, ""))
	long := Packet(0, strings.Repeat("x", mysqlMost+1))
	require.Equal(t, []byte{0xff, 0xff, 0xff, 0}, long[:4])
	require.Equal(t, []byte{1, 0, 0, 1, 'x'}, long[4+mysqlMost:])
	exact := Packet(0, strings.Repeat("x", mysqlMost))
	require.Equal(t, []byte{0, 0, 0, 1}, exact[4+mysqlMost:], "a full packet is followed by one, though it be empty")
	for _, m := range [][]byte{long, exact, Packet(0, ""), Packet(0, "abc")} {
		require.True(t, bytes.Equal(m, slices.Concat(Pieces(m)...)))
	}
	require.Len(t, Pieces(Packet(0, "abc")), 2)
}

func TestMessagesAreAsPublished(t *testing.T) {
	require.Equal(t, []byte("Q\x00\x00\x00\x0dSELECT 1\x00"), PG('Q', "SELECT 1\x00"))
	require.Equal(t, []byte("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), RESP("GET", "k"))
	require.Equal(t, []byte("\x0f\x00\x00\x00\x10ping\x00\x01\x00\x00\x00\x00"), BSON(D{{"ping", int32(1)}}))
	m := Msg(MongoMoreToCome, D{{"ping", int32(1)}})
	require.Equal(t, le32(uint32(len(m))), m[:4])
	require.Equal(t, []byte("\xdd\x07\x00\x00\x02\x00\x00\x00\x00"), m[12:21])
	require.Equal(t, []byte{1, 0, 0, 7, 0, 0, 0, 'x'}, Compressed(7, []byte("x"), false))
	require.Equal(t, []byte{0xab, 0x20}, OceanBase20(0, nil)[7:9])
}
