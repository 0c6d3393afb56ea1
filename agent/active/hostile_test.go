package active

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// says is a server that reads what comes and sends text, again and again if it
// is to, until the connection ends.
func says(t *testing.T, text string, again bool) *guarded {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			if _, err := theirs.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		for first := true; first || again; first = false {
			if _, err := theirs.Write([]byte(text)); err != nil {
				return
			}
		}
		theirs.Close()
	}()
	return guard(ours)
}

// hostile is what no server of any engine sends.
func hostile() map[string]string {
	return map[string]string{
		"nothing":          "",
		"zeros":            strings.Repeat("\x00", 512),
		"ones":             strings.Repeat("\xff", 512),
		"a huge message":   "R\x7f\xff\xff\xff\x00\x00\x00\x00",
		"a negative one":   "R\x80\x00\x00\x00",
		"a huge bulk":      "$9223372036854775807\r\n",
		"a huge list":      "*2147483647\r\n",
		"deep lists":       strings.Repeat("*1\r\n", 1000),
		"a huge packet":    "\xff\xff\xff\x00\x0a",
		"a torn greeting":  "\x4a\x00\x00\x00\x0a5.5.5-10.11\x00",
		"http":             "HTTP/1.1 400 Bad Request\r\n\r\nsecret text",
		"a secret in text": "E\x00\x00\x00\x1cSFATAL\x00CXX000\x00Mhunter2\x00\x00",
	}
}

func TestHostileServersAreFailedProbes(t *testing.T) {
	for name, text := range hostile() {
		for engineName, e := range engines() {
			for _, again := range []bool{false, true} {
				t.Run(string(engineName)+" "+name, func(t *testing.T) {
					if again && text == "" {
						text = "\x01"
					}
					l := &Login{Username: "mooring", Password: []byte("hunter2")}
					target := Target{ID: "a", Engine: engineName, Spec: spec()}
					conn := says(t, text, again)
					c := start(state.ProbeRead, func() outcome {
						s, err := e.login(conn, target, l)
						if err == nil {
							_, err = s.Read()
						}
						return outcome{err: err}
					})
					select {
					case <-c.done:
					case <-time.After(20 * time.Second):
						conn.Close()
						<-c.done
						require.FailNow(t, "it goes on for ever")
					}
					require.Error(t, c.out.err)
					f := asFailure(c.out.err)
					require.NotContains(t, f.Error(), "hunter2")
					require.NotContains(t, f.Error(), "secret text")
					require.LessOrEqual(t, len(f.Error()), 200)
				})
			}
		}
	}
}

func TestGreetingsTakeNothingElse(t *testing.T) {
	for name, text := range hostile() {
		require.Error(t, greetPostgres(says(t, text, false), Target{}), name)
		require.Error(t, greetRedis(says(t, text, false), Target{}), name)
	}
	require.NoError(t, greetPostgres(says(t, "N", false), Target{}))
	require.NoError(t, greetPostgres(says(t, "S", false), Target{}))
	require.NoError(t, greetRedis(says(t, "+PONG\r\n", false), Target{}))
	require.NoError(t, greetRedis(says(t, "-NOAUTH Authentication required.\r\n", false), Target{}), "it answers without a login")
}

func FuzzRESP(f *testing.F) {
	for _, text := range hostile() {
		f.Add([]byte(text))
	}
	f.Add([]byte("*3\r\n$6\r\nmaster\r\n:42\r\n*1\r\n*3\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\n40\r\n"))
	f.Add([]byte("$-1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := (&resp{r: newReader(b)}).read(0)
		if err != nil {
			_ = asFailure(err).Error()
			return
		}
		var r reading
		_ = r.fromROLE(v)
		r.fromINFO(v.text)
		require.False(t, r.lagBytes != nil && *r.lagBytes < 0)
	})
}

func FuzzSocketTables(f *testing.F) {
	f.Add("Num RefCount Protocol Flags Type St Inode Path\n0000: 00000002 00000000 00010000 0001 01 42 /run/a b/.s.PGSQL.5432\n")
	f.Add("  sl  local_address rem_address   st\n   0: 0100007F:1538 00000000:0000 0A 0 0 0 0 0 7\n")
	f.Fuzz(func(t *testing.T, s string) {
		sockets, _ := listeningSockets(strings.NewReader(s))
		for inode, p := range sockets {
			require.NotZero(t, inode)
			require.NotEmpty(t, p)
		}
		all, _ := listening(strings.NewReader(s), 5432)
		for _, l := range all {
			require.True(t, l.reached().IsValid())
		}
	})
}

func TestRolesOfRedis(t *testing.T) {
	c := says(t, "*3\r\n$6\r\nmaster\r\n:42\r\n*2\r\n*3\r\n$1\r\na\r\n$1\r\n1\r\n$2\r\n40\r\n*3\r\n$1\r\nb\r\n$1\r\n1\r\n$2\r\n12\r\n", false)
	r, err := (&redis{newRESP(c)}).Read()
	require.NoError(t, err)
	require.Equal(t, state.RolePrimary, r.role)
	require.EqualValues(t, 30, *r.lagBytes, "of its furthest replica")
	info := "role:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:9\r\nslave_read_repl_offset:5\r\nslave_repl_offset:5\r\nslave_read_only:1\r\n"
	r = reading{}
	r.fromINFO([]byte(info))
	require.True(t, *r.readOnly)
	require.Equal(t, 9*time.Second, *r.lag)
	require.Nil(t, r.lagBytes, "without a link nobody knows")
	r = reading{}
	r.fromINFO([]byte("master_link_status:up\r\nslave_read_repl_offset:15\r\nslave_repl_offset:5\r\n"))
	require.EqualValues(t, 10, *r.lagBytes)
	require.Nil(t, r.lag)
}

func TestReplicationOfMySQL(t *testing.T) {
	old := map[string]string{"Slave_IO_Running": "Yes", "Slave_SQL_Running": "Yes", "Seconds_Behind_Master": "4", "Master_Log_File": "b.1", "Relay_Master_Log_File": "b.1", "Read_Master_Log_Pos": "100", "Exec_Master_Log_Pos": "60"}
	now := map[string]string{"Replica_IO_Running": "No", "Replica_SQL_Running": "Yes", "Seconds_Behind_Source": "", "Source_Log_File": "b.2", "Relay_Source_Log_File": "b.1", "Read_Source_Log_Pos": "100", "Exec_Source_Log_Pos": "60"}
	lag, bytes := behind([]map[string]string{old, now})
	require.Equal(t, 4*time.Second, *lag)
	require.EqualValues(t, 40, *bytes)
	lag, bytes = behind([]map[string]string{now})
	require.Nil(t, lag)
	require.Nil(t, bytes, "two files are no distance")
	require.True(t, replicates([]map[string]string{now}, false))
	stopped := map[string]string{"Slave_IO_Running": "No", "Slave_SQL_Running": "No"}
	require.False(t, replicates([]map[string]string{stopped}, false), "it was promoted")
	require.True(t, replicates([]map[string]string{stopped}, true))
	require.False(t, replicates(nil, false))
}

func TestTheFileOfLogins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logins")
	write := func(text string, mode os.FileMode) File {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return File{path}
	}
	f := write(`{"/pg": {"username": "u", "password": "p", "read": "2s", "write": "replicated"}, "/my": {"username": "v", "password": "a\"b"}}`, 0o600)
	specs, err := f.Specs()
	require.NoError(t, err)
	require.Equal(t, state.ProbeSpec{Secret: path, Read: 2 * time.Second, Write: state.WriteReplicated, WritePeriod: 10 * time.Second, TLS: state.TLSDisable}, specs["/pg"])
	for id, password := range map[string]string{"/pg": "p", "/my": `a"b`} {
		l, err := f.Login(t.Context(), Target{ID: id})
		require.NoError(t, err)
		require.Equal(t, password, string(l.Password))
	}
	_, err = f.Login(t.Context(), Target{ID: "/other"})
	require.ErrorContains(t, err, "no entry")
	for text, says := range map[string]string{
		`{"/pg": {"password": "hunter2"`:                        "byte",
		`{"/pg": "hunter2"}`:                                    "not an object of objects",
		`{"/pg": null}`:                                         "nothing for",
		`{"/pg": {"password": "hunter2", "read": "1ms"}}`:       "shorter than",
		`{"/pg": {"password": "hunter2", "write": "sometime"}}`: "neither",
	} {
		_, err := write(text, 0o600).Specs()
		require.ErrorContains(t, err, says)
		require.NotContains(t, err.Error(), "hunter2")
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o700} {
		_, err := write(`{}`, mode).Specs()
		require.ErrorContains(t, err, "0600", mode)
	}
	require.NoError(t, os.Rename(path, path+"2"))
	require.NoError(t, os.Symlink(path+"2", path))
	_, err = File{path}.Specs()
	require.Error(t, err, "a link leads elsewhere")
}

func TestAServersOwnSocketOnly(t *testing.T) {
	// Longer than the 108 bytes of sun_path, reached through a link that is
	dir := t.TempDir()
	t.Chdir(dir)
	l, err := net.Listen("unix", ".s.PGSQL.5432")
	require.NoError(t, err)
	defer l.Close()
	self := Target{ID: "a", Engine: state.PostgreSQL, PID: os.Getpid(), Spec: spec()}
	c, err := dialUnix(t.Context(), "/proc", self)
	require.NoError(t, err, "a relative path is below the working directory")
	require.True(t, unixSocket(c))
	require.NoError(t, c.Close())
	redis := self
	redis.Engine = state.MySQL
	require.True(t, speaks(redis, "mysqld.sock"))
	require.False(t, speaks(redis, "mysqlx.sock"))
	redis.Engine = state.Percona
	require.False(t, speaks(redis, "mysqlx.sock"))
	other := self
	other.PID = os.Getppid()
	conn, err := net.Dial("unix", ".s.PGSQL.5432")
	require.NoError(t, err)
	defer conn.Close()
	require.ErrorContains(t, isPeer(conn, other), "none of the instance")
}

// TestOnlyTheProcessOwnPort: two servers on one port, at two addresses of one
// network namespace.
func TestOnlyTheProcessOwnPort(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	row := func(local string, inode int) string {
		return fmt.Sprintf("   0: %s:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   999        0 %d 1 0 100 0 0 10 0\n", local, inode)
	}
	// Addresses as a little-endian machine has them.
	const loopback, node, any4 = "0100007F", "0500000A", "00000000"
	const any6 = "00000000000000000000000000000000"
	of := func(own []int, tcp, tcp6 string) (string, error) {
		proc := t.TempDir()
		for _, d := range []string{"fd", "net"} {
			require.NoError(t, os.Mkdir(filepath.Join(proc, d), 0o700))
		}
		for i, inode := range own {
			require.NoError(t, os.Symlink(fmt.Sprintf("socket:[%d]", inode), filepath.Join(proc, "fd", strconv.Itoa(i))))
		}
		require.NoError(t, os.WriteFile(filepath.Join(proc, "net/tcp"), []byte(head+tcp), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(proc, "net/tcp6"), []byte(head+tcp6), 0o600))
		a, err := listens(proc, []uint16{3306, 33060})
		return a.String(), err
	}
	both := row(loopback, 11) + row(node, 22)
	got, err := of([]int{22, 7}, both, "")
	require.NoError(t, err)
	require.Equal(t, "10.0.0.5:3306", got, "loopback is another server's")
	got, err = of([]int{11, 22}, both, "")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:3306", got)
	got, err = of([]int{33}, row(loopback, 11), row(any6, 33))
	require.NoError(t, err)
	require.Equal(t, "[::1]:3306", got)
	for _, own := range [][]int{{99}, {44}} {
		_, err = of(own, row(loopback, 11)+row(any4, 44), "")
		require.Equal(t, ReasonGone, asFailure(err).Reason, "what is dialled would be another server's")
	}
}

func TestTCPWhereItListens(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	s := spec()
	s.TLS = state.TLSVerifyCA
	c, err := Dialer("/proc")(t.Context(), Target{Engine: state.PostgreSQL, PID: os.Getpid(), Ports: []uint16{port, 65535}, Spec: s})
	require.NoError(t, err)
	require.True(t, c.RemoteAddr().(*net.TCPAddr).IP.IsLoopback())
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
	_, err = Dialer("/proc")(t.Context(), Target{Engine: state.PostgreSQL, PID: os.Getpid(), Ports: []uint16{port}, Spec: s})
	require.Equal(t, ReasonGone, asFailure(err).Reason)
}
