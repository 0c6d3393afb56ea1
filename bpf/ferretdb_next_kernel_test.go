//go:build kernel && servers && next

package bpf

import (
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
	"github.com/mooring-dev/mooring/bpf/kerneltest/wire"
)

// TestStatementsOfFerretDB is the MongoDB protocol of a real server.
func TestStatementsOfFerretDB(t *testing.T) {
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			timer := openTimer(t, mode)
			o := options(t, "")
			s, err := dbserver.StartFerretDB(t.Context(), o)
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Stop()) }()
			w := watchServer(t, timer, o, ProtocolMongo)
			conn, err := net.Dial("tcp4", net.JoinHostPort(o.Address, strconv.Itoa(o.Port)))
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
			db := wire.E{Name: "$db", Value: "shop"}
			for _, d := range []wire.D{
				{{Name: "hello", Value: int32(1)}, {Name: "$db", Value: "admin"}},
				{{Name: "insert", Value: "things"}, {Name: "documents", Value: []wire.D{{{Name: "a", Value: int32(1)}}}}, db},
				{{Name: "find", Value: "things"}, db}, {{Name: "count", Value: "things"}, db},
				{{Name: "delete", Value: "things"}, {Name: "deletes", Value: []wire.D{{{Name: "q", Value: wire.D{}}, {Name: "limit", Value: int32(0)}}}}, db},
				{{Name: "drop", Value: "things"}, db}, {{Name: "noSuchCommand", Value: int32(1)}, db},
			} {
				_, err := conn.Write(wire.Msg(0, d))
				require.NoError(t, err)
				takeAnswer(t, conn)
			}
			requireCounts(t, timer, w.ID, counts{"ping": 1, "insert": 1, "read": 2, "delete": 1, "ddl": 1, "other!": 1})
		})
	}
}

// takeAnswer receives one message.
func takeAnswer(t *testing.T, conn net.Conn) {
	t.Helper()
	var size [4]byte
	_, err := io.ReadFull(conn, size[:])
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, conn, int64(binary.LittleEndian.Uint32(size[:]))-4)
	require.NoError(t, err)
}
