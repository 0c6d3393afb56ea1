package bpf

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   109        0 101 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1538 0100007F:C350 01 00000000:00000000 02:000006A7 00000000   109        0 102 2 0000000000000000 20 4 30 10 -1
   2: 0100007F:C351 0100007F:1538 01 00000000:00000000 02:000006A7 00000000   109        0 103 2 0000000000000000 20 4 30 10 -1
   3: 0100007F:1538 0100007F:C352 06 00000000:00000000 03:000006A7 00000000     0        0 0 3 0000000000000000
   4: 0100007F:24E4 00000000:0000 0A 00000000:00000000 00:00000000 00000000   109        0 106 1 0000000000000000 100 0 0 10 0
`

const tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1538 00000000000000000000000001000000:C353 01 00000000:00000000 00:00000000 00000000   109        0 104 1 0000000000000000 100 0 0 10 0
`

const unixTable = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01   201 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000003 00000000 00000000 0001 03   202 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000003 00000000 00000000 0001 03   203
`

// fakeProcess adds a process with the given descriptors to a tree like /proc.
func fakeProcess(t *testing.T, root string, pid int, fds map[int]string) {
	t.Helper()
	dir := filepath.Join(root, fmt.Sprint(pid))
	for _, sub := range []string{"fd", "ns", "net"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	for fd, target := range fds {
		require.NoError(t, os.Symlink(target, filepath.Join(dir, "fd", fmt.Sprint(fd))))
	}
	require.NoError(t, os.Symlink("net:[4026531840]", filepath.Join(dir, "ns", "net")))
	for name, text := range map[string]string{"tcp": tcpTable, "tcp6": tcp6Table, "unix": unixTable} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "net", name), []byte(text), 0o644))
	}
}

func TestSocketRoles(t *testing.T) {
	root := t.TempDir()
	fakeProcess(t, root, 10, map[int]string{
		0: "/dev/null", 1: "pipe:[300]", 3: "socket:[101]", 4: "socket:[102]", 5: "socket:[103]", 6: "socket:[104]",
		7: "socket:[201]", 8: "socket:[202]", 9: "socket:[203]", 10: "socket:[999]", 11: "socket:[106]", 12: "anon_inode:[eventpoll]",
	})
	fakeProcess(t, root, 11, map[int]string{0: "/dev/null"})
	postgres := map[uint16]bool{5432: true}

	t.Run("a socket is on the server side by its own end", func(t *testing.T) {
		roles, err := newSocketTables(procfs{root}).roles(10, postgres)
		require.NoError(t, err)
		require.Equal(t, map[int]bool{
			3:  true,  // the listener
			4:  true,  // accepted
			5:  false, // connected to another server on the same port
			6:  true,  // accepted over IPv6
			7:  true,  // a named listener
			8:  true,  // accepted by it
			9:  false, // connected to one
			10: false, // neither TCP nor Unix
			11: false, // a listener on a port of no interest
		}, roles)
	})
	t.Run("processes of one network namespace share a table", func(t *testing.T) {
		tables := newSocketTables(procfs{root})
		fakeProcess(t, root, 12, map[int]string{3: "socket:[102]"})
		require.NoError(t, os.RemoveAll(filepath.Join(root, "12", "net")))
		_, err := tables.roles(10, postgres)
		require.NoError(t, err)
		roles, err := tables.roles(12, postgres)
		require.NoError(t, err)
		require.Equal(t, map[int]bool{3: true}, roles)
	})
	t.Run("without IPv6 there is no table of it", func(t *testing.T) {
		fakeProcess(t, root, 13, map[int]string{3: "socket:[102]"})
		require.NoError(t, os.Remove(filepath.Join(root, "13", "net", "tcp6")))
		roles, err := newSocketTables(procfs{root}).roles(13, postgres)
		require.NoError(t, err)
		require.Equal(t, map[int]bool{3: true}, roles)
	})
	t.Run("a process without sockets needs no table", func(t *testing.T) {
		roles, err := newSocketTables(procfs{root}).roles(11, postgres)
		require.NoError(t, err)
		require.Empty(t, roles)
	})
	t.Run("a process that has ended has no sockets", func(t *testing.T) {
		roles, err := newSocketTables(procfs{root}).roles(99, postgres)
		require.NoError(t, err)
		require.Empty(t, roles)
		require.False(t, procfs{root}.alive(99))
		require.True(t, procfs{root}.alive(10))
	})
}

func FuzzSocketTables(f *testing.F) {
	f.Add(tcpTable)
	f.Add(tcp6Table)
	f.Add(unixTable)
	f.Add("0: :1538 x x x x x x x 1")
	f.Fuzz(func(t *testing.T, text string) {
		for _, read := range []func(table socketTable) error{
			func(table socketTable) error { return readTCP(strings.NewReader(text), table) },
			func(table socketTable) error { return readUnix(strings.NewReader(text), table) },
		} {
			table := socketTable{}
			if err := read(table); err == nil {
				require.LessOrEqual(t, len(table), strings.Count(text, "\n")+1)
			}
		}
	})
}

func TestIsSocket(t *testing.T) {
	root := t.TempDir()
	fakeProcess(t, root, 7, map[int]string{3: "socket:[42]", 4: "/dev/null"})
	proc := procfs{root: root}
	require.True(t, proc.isSocket(7, 3, 42))
	require.True(t, proc.isSocket(7, 3, 0), "the number is not known")
	require.False(t, proc.isSocket(7, 3, 43), "another one since")
	require.False(t, proc.isSocket(7, 4, 0))
	require.False(t, proc.isSocket(7, 5, 42), "closed")
}
