package pods

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const tcpTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 24046 1 ffff 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 ffff 100 0 0 10 0
   2: 0100007F:1538 0100007F:9999 01 00000000:00000000 00:00000000 00000000   999        0 24099 1 ffff 20 4 30 10 -1
`

const tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0CEA 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   113        0 30001 1 ffff 100 0 0 10 0
`

const unixTable = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20001 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000003 00000000 00000000 0001 03 20002 /run/postgresql/.s.PGSQL.5432
0000000000000000: 00000002 00000000 00010000 0001 01 20003 @abstract
0000000000000000: 00000002 00000000 00000000 0002 01 20004
0000000000000000: 00000002 00000000 00010000 0001 01 20005 /run/with
line break
`

func TestListeningSocketsAreRead(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want map[uint64]uint16
	}{
		"of IPv4":                 {tcpTable, map[uint64]uint16{24046: 5432, 1234: 22}},
		"of IPv6":                 {tcp6Table, map[uint64]uint16{30001: 3306}},
		"of an empty table":       {tcpTable[:strings.Index(tcpTable, "\n")+1], map[uint64]uint16{}},
		"of a file without lines": {"", map[uint64]uint16{}},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(map[uint64]uint16)
			require.NoError(t, parseListeners(strings.NewReader(tt.text), func(i uint64, p uint16) { got[i] = p }))
			require.Equal(t, tt.want, got)
		})
	}
}

// countingReader counts what is read, one page at a time like a seq_file.
type countingReader struct {
	r     *strings.Reader
	bytes int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p[:min(len(p), lineBuffer)])
	c.bytes += n
	return n, err
}

func TestConnectionsAfterTheListenersAreNotRead(t *testing.T) {
	line := tcpTable[strings.LastIndex(strings.TrimSpace(tcpTable), "\n")+1:]
	r := &countingReader{r: strings.NewReader(tcpTable + strings.Repeat(line, 50_000))}
	count := 0
	require.NoError(t, parseListeners(r, func(uint64, uint16) { count++ }))
	require.Equal(t, 2, count)
	require.LessOrEqual(t, r.bytes, 2*lineBuffer)
}

func TestABrokenSocketTableIsAnError(t *testing.T) {
	for _, line := range []string{"x", "0: a b 0A c d e f g h", "0: 0:1FFFF b 0A c d e f g 7", "0: 0:1F b 0A c d e f g x"} {
		err := parseListeners(strings.NewReader("head\n"+line+"\n"), func(uint64, uint16) {})
		require.ErrorContains(t, err, fmt.Sprintf("%q", line))
	}
}

func TestListeningUnixSocketsAreRead(t *testing.T) {
	var got []uint64
	require.NoError(t, parseUnixListeners(strings.NewReader(unixTable), func(i uint64) { got = append(got, i) }))
	require.Equal(t, []uint64{20001, 20003, 20005}, got)
}

func TestAStatLineIsReadAroundItsName(t *testing.T) {
	st, err := parseStat([]byte("12 (a) b (c) S 7 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200\n"))
	require.NoError(t, err)
	require.Equal(t, procStat{comm: "a) b (c", parent: 7, start: 4711}, st)
	for _, bad := range []string{"", "12 S 7", ") (", "12 (a) S 7", "12 (a)" + strings.Repeat(" x", 30)} {
		_, err := parseStat([]byte(bad))
		require.Error(t, err, bad)
	}
}

func FuzzParseListeners(f *testing.F) {
	f.Add([]byte(tcpTable))
	f.Add([]byte(tcp6Table))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parseListeners(bytes.NewReader(data), func(inode uint64, _ uint16) { require.NotZero(t, inode) })
	})
}

func FuzzParseUnixListeners(f *testing.F) {
	f.Add([]byte(unixTable))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = parseUnixListeners(bytes.NewReader(data), func(inode uint64) { require.NotZero(t, inode) })
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (a) b (c) S 7 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 100 200\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseStat(data) })
}
