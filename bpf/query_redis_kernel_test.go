//go:build kernel

package bpf

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

func TestStatementsOfRedis(t *testing.T) {
	db := kerneltest.Redis(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			timer := openTimer(t, mode)
			older := dialRedis(t, "tcp4", db.Address())
			older.ask(t, "*1\r\n$4\r\nPING\r\n")
			w := Watched{
				ID: "redis", Protocol: ProtocolRedis, Ports: []uint16{db.Port},
				CgroupID: kerneltest.CgroupID(t, db.Cgroup), PIDs: kerneltest.PIDs(t, db.Cgroup),
			}
			require.NoError(t, timer.Set([]Watched{w}))
			older.ask(t, "*1\r\n$4\r\nPING\r\n")
			young := dialRedis(t, "tcp4", db.Address())
			require.Equal(t, "+OK", young.ask(t, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"))
			require.Equal(t, "$1", young.ask(t, "*2\r\n$3\r\nget\r\n$1\r\nk\r\n"))
			require.Equal(t, "v", young.line(t))
			require.Equal(t, ":0", young.ask(t, "*5\r\n$11\r\nZRANGESTORE\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\n0\r\n$1\r\n1\r\n"))
			require.Contains(t, young.ask(t, "*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n"), "-ERR")
			many := "*103\r\n$3\r\nDEL\r\n" + strings.Repeat("$1\r\nx\r\n", 102)
			require.Equal(t, ":0", young.ask(t, many))
			local := dialRedis(t, "unix", db.Socket)
			require.Equal(t, "+OK", local.ask(t, "SELECT 0\r\n"))
			requireCounts(t, timer, w.ID, counts{"ping": 1, "write": 3, "write!": 1, "read": 1, "set": 1})

			require.True(t, followsReads(t, timer))
			require.NoError(t, timer.Set(nil))
			require.False(t, followsReads(t, timer), "read and write are followed for nobody")
		})
	}
}

// followsReads tells whether calls of read and write are looked at.
func followsReads(t *testing.T, s *Statements) bool {
	t.Helper()
	var value queryCoreQuerySettings
	require.NoError(t, s.coll.Maps["settings"].Lookup(uint32(0), &value))
	return value.Follow&followReads != 0
}

type redisClient struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialRedis(t *testing.T, network, address string) *redisClient {
	t.Helper()
	conn, err := net.Dial(network, address)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return &redisClient{conn: conn, in: bufio.NewReader(conn)}
}

// ask sends a command and returns the first line of the answer.
func (c *redisClient) ask(t *testing.T, command string) string {
	t.Helper()
	_, err := io.WriteString(c.conn, command)
	require.NoError(t, err, fmt.Sprintf("%q", command))
	return c.line(t)
}

func (c *redisClient) line(t *testing.T) string {
	t.Helper()
	line, err := c.in.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSuffix(line, "\r\n")
}
