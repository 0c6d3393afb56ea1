//go:build kernel

package bpf

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

// The tests share one server of each engine: starting one takes longest.
func TestStatementsOfPostgres(t *testing.T) {
	db := kerneltest.Postgres(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	admin := kerneltest.DialPostgres(t, "tcp4", db.Address())
	admin.Query("CREATE EXTENSION pg_stat_statements; CREATE EXTENSION dblink")
	pgbench(t, db, "-i", "-s", "1")
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			lab := &postgresLab{db: db, mode: mode, timer: openTimer(t, mode)}
			t.Run("a connection older than the probe counts", func(t *testing.T) { lab.older(t, admin) })
			t.Run("pgbench counts exactly", lab.pgbench)
			t.Run("messages are told apart", lab.messages)
			t.Run("an error counts as one", lab.failures)
			t.Run("a refused login counts as one", lab.refusedLogin)
			t.Run("durations agree with the server's", lab.durations)
			t.Run("a local socket counts", lab.localSocket)
			t.Run("TLS is timed", lab.tls)
			t.Run("the server's own client sockets do not count", lab.outbound)
			t.Run("a forked child is followed by process", lab.byProcess)
			t.Run("a server without statements stays at zero", lab.neighbour)
			lost, err := lab.timer.Lost()
			require.NoError(t, err)
			require.Zero(t, lost["unreadable"]+lost["connections_full"], "%v", lost)
		})
	}
}

// testModes returns the modes to test here: both, or those MOORING_TEST_MODES
// names, for hosts that refuse trampolines.
func testModes(t *testing.T) []Mode {
	named := os.Getenv("MOORING_TEST_MODES")
	if named == "" {
		return []Mode{ModeFentry, ModeTracepoint}
	}
	var modes []Mode
	for _, m := range strings.Split(named, ",") {
		require.Contains(t, []Mode{ModeFentry, ModeTracepoint}, Mode(m))
		modes = append(modes, Mode(m))
	}
	return modes
}

func openTimer(t *testing.T, mode Mode) *Statements {
	t.Helper()
	s, err := OpenStatements(mode)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	require.NoError(t, s.Verify(t.Context()))
	return s
}

// counts is how often each operation occurred; errors have a "!" behind.
type counts map[string]uint64

// read returns the counts of a server.
func read(t *testing.T, s *Statements, id string) counts {
	t.Helper()
	ops, err := s.Read(id)
	require.NoError(t, err)
	c := counts{}
	for _, op := range ops {
		name := op.Name
		if op.Error {
			name += "!"
		}
		require.Equal(t, op.Count, total(op.Classic))
		if op.SumNanoseconds == 0 {
			name += "?" // read between the kernel's additions; the next read has it
		}
		var native uint64
		for _, n := range op.Native {
			native += n
		}
		require.Equal(t, op.Count, native)
		c[name] = op.Count
	}
	return c
}

// requireCounts waits until the last statements have been counted, which is
// when the server asks for the next ones, and then for no more.
func requireCounts(t *testing.T, s *Statements, id string, want counts) {
	t.Helper()
	var got counts
	for range 50 {
		if got = read(t, s, id); fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.Equal(t, want, got)
}

type postgresLab struct {
	db    *kerneltest.Database
	mode  Mode
	timer *Statements
	names int
}

// watch makes the server the only watched one, under a name with no counts yet.
func (l *postgresLab) watch(t *testing.T) string {
	t.Helper()
	w := l.watched(t)
	require.NoError(t, l.timer.Set([]Watched{w}))
	return w.ID
}

func (l *postgresLab) watched(t *testing.T) Watched {
	l.names++
	return Watched{
		ID: fmt.Sprintf("postgres-%d", l.names), Protocol: ProtocolPostgres, Ports: []uint16{l.db.Port},
		CgroupID: kerneltest.CgroupID(t, l.db.Cgroup), PIDs: kerneltest.PIDs(t, l.db.Cgroup),
	}
}

func (l *postgresLab) dial(t *testing.T) *kerneltest.PostgresClient {
	t.Helper()
	return kerneltest.DialPostgres(t, "tcp4", l.db.Address())
}

func pgbench(t *testing.T, db *kerneltest.Database, args ...string) {
	t.Helper()
	kerneltest.Run(t, "/usr/lib/postgresql/15/bin/pgbench", append([]string{
		"-h", "127.0.0.1", "-p", fmt.Sprint(db.Port), "-U", "postgres", "-n"}, append(args, "postgres")...)...)
}

func (l *postgresLab) older(t *testing.T, c *kerneltest.PostgresClient) {
	id := l.watch(t)
	for range 10 {
		c.Query("SELECT 1")
	}
	requireCounts(t, l.timer, id, counts{"select": 10})
	// A second look at the probe leaves the server watched and its counters alone.
	require.NoError(t, l.timer.Verify(t.Context()))
	c.Query("SELECT 1")
	requireCounts(t, l.timer, id, counts{"select": 11})
}

func (l *postgresLab) pgbench(t *testing.T) {
	const clients, each = 2, 25
	// Before it begins, pgbench asks for the scale and the partitions; this
	// connection and those of the clients log in.
	control := counts{"select": 2, "auth": 1 + clients}
	const n = clients * each
	for _, tt := range []struct {
		protocol string
		tpcb     bool
		want     counts
	}{
		{"simple", false, counts{"select": n}},
		{"extended", false, counts{"select": n}},
		{"prepared", false, counts{"select": n, "prepare": clients}},
		{"simple", true, counts{"txn": 2 * n, "update": 3 * n, "select": n, "insert": n}},
		{"prepared", true, counts{"txn": 2 * n, "update": 3 * n, "select": n, "insert": n, "prepare": 7 * clients}},
	} {
		t.Run(fmt.Sprintf("%s, TPC-B %v", tt.protocol, tt.tpcb), func(t *testing.T) {
			id := l.watch(t)
			args := []string{"-M", tt.protocol, "-c", fmt.Sprint(clients), "-t", fmt.Sprint(each)}
			if !tt.tpcb {
				args = append(args, "-S")
			}
			pgbench(t, l.db, args...)
			for name, n := range control {
				tt.want[name] += n
			}
			requireCounts(t, l.timer, id, tt.want)
		})
	}
}

// Messages of the extended protocol, with the unnamed statement and portal
// unless a name is given.
func pgParse(name, sql string) string { return kerneltest.Message('P', name+"\x00"+sql+"\x00\x00\x00") }
func pgBind(name string) string {
	return kerneltest.Message('B', "\x00"+name+"\x00\x00\x00\x00\x00\x00\x00")
}
func pgExecute() string  { return kerneltest.Message('E', "\x00\x00\x00\x00\x00") }
func pgDescribe() string { return kerneltest.Message('D', "P\x00") }
func pgSync() string     { return kerneltest.Message('S', "") }

func (l *postgresLab) messages(t *testing.T) {
	c := l.dial(t)
	const name = "stmtcache_0123456789abcdef0123456789abcdef0123456789abcdef"
	long := strings.Repeat("x", 20000)
	for _, tt := range []struct {
		name, send string
		replies    int
		want       counts
	}{
		{"a comment and blanks before the word", kerneltest.Message('Q', "\n  /* a: select */ \t UPDATE pgbench_tellers SET tbalance=0 WHERE tid=1\x00"), 1, counts{"update": 1}},
		{"a line comment", kerneltest.Message('Q', "-- name: Select :one\ndelete from pgbench_history where tid=-1\x00"), 1, counts{"delete": 1}},
		{"a query longer than the receive buffer", kerneltest.Message('Q', "SELECT '"+long+"'\x00"), 1, counts{"select": 1}},
		{"a parse is a prepare", pgParse(name, "INSERT INTO pgbench_history(tid) VALUES (-1)") + pgSync(), 1, counts{"prepare": 1}},
		{"a named statement", pgBind(name) + pgDescribe() + pgExecute() + pgSync(), 1, counts{"insert": 1}},
		{"begin goes with its statement", pgParse("", "BEGIN") + pgBind("") + pgExecute() + pgParse("", "SELECT 1") + pgBind("") + pgDescribe() + pgExecute() + pgSync(), 1, counts{"select": 1}},
		{"a commit", kerneltest.Message('Q', "commit\x00"), 1, counts{"txn": 1}},
		{"a long parameter", pgParse("", "SELECT '"+long+"'") + pgBind("") + pgExecute() + pgSync(), 1, counts{"select": 1}},
		{"a pipeline is one request", strings.Repeat(pgParse("", "SELECT 1")+pgBind("")+pgExecute()+pgSync(), 3), 3, counts{"select": 1}},
		{"a copy into the server", kerneltest.Message('Q', "COPY pgbench_history(tid) FROM STDIN\x00") + kerneltest.Message('d', "-1\n") + kerneltest.Message('c', ""), 1, counts{"copy": 1}},
		{"a copy out of the server", kerneltest.Message('Q', "COPY (SELECT generate_series(1,3000)) TO STDOUT\x00"), 1, counts{"copy": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := l.watch(t)
			reply := c.Send(tt.send)
			for range tt.replies - 1 {
				reply = c.Receive()
			}
			require.False(t, reply.Error)
			requireCounts(t, l.timer, id, tt.want)
		})
		if t.Failed() {
			return
		}
	}
}

func (l *postgresLab) failures(t *testing.T) {
	c := l.dial(t)
	id := l.watch(t)
	for _, send := range []string{
		kerneltest.Message('Q', "SELECT 1/0\x00"),
		kerneltest.Message('Q', "SELECT 100/(50-i) FROM generate_series(1,60) i\x00"), // after rows
		pgParse("", "SELECT nothing") + pgBind("") + pgExecute() + pgSync(),
		pgParse("", "SELECT 1/(length('')*2)") + pgBind("") + pgExecute() + pgSync(),
		kerneltest.Message('Q', "BURN everything\x00"),
	} {
		require.True(t, c.Send(send).Error)
	}
	// What looks like the end of an error is none.
	require.False(t, c.Query("SET application_name = ''").Error)
	requireCounts(t, l.timer, id, counts{"select!": 4, "other!": 1, "set": 1})
}

func (l *postgresLab) refusedLogin(t *testing.T) {
	id := l.watch(t)
	conn, err := net.Dial("tcp4", l.db.Address())
	require.NoError(t, err)
	defer conn.Close()
	const parameters = "\x00\x03\x00\x00user\x00nobody\x00\x00"
	_, err = io.WriteString(conn, "\x00\x00\x00"+string(rune(4+len(parameters)))+parameters)
	require.NoError(t, err)
	reply, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Contains(t, string(reply), "FATAL")
	requireCounts(t, l.timer, id, counts{"auth!": 1})
}

// durations compares with pg_stat_statements, which leaves out parsing, the end
// of the execution and the protocol: ours are a little longer. Now and then
// another process gets the CPU in between, so one run in a few has to agree.
func (l *postgresLab) durations(t *testing.T) {
	// An emulated CPU takes many times as long for what the server leaves out.
	margin := 50 * time.Microsecond
	if os.Getenv("VMTEST") != "" {
		margin *= 100
	}
	const each = 3
	for _, tt := range []struct{ name, sql string }{
		{"a wait", "SELECT pg_sleep(0.02)"},
		{"a large result", "SELECT aid, bid, abalance, filler FROM pgbench_accounts LIMIT 50000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := l.dial(t)
			c.Query(tt.sql) // warm
			agreed := false
			for run := 0; run < 8 && !agreed; run++ {
				psql(t, l.db, "SELECT pg_stat_statements_reset()")
				id := l.watch(t)
				for range each {
					c.Query(tt.sql)
				}
				requireCounts(t, l.timer, id, counts{"select": each})
				ops, err := l.timer.Read(id)
				require.NoError(t, err)
				ours, theirs := time.Duration(ops[0].SumNanoseconds/each), statStatements(t, l.db)/each
				t.Logf("ours %v, the server's %v", ours, theirs)
				require.GreaterOrEqual(t, ours, theirs)
				agreed = ours <= theirs+theirs/100+margin
			}
			require.True(t, agreed)
		})
	}
}

// statStatements returns the server's own time for the statement it spent most on.
func statStatements(t *testing.T, db *kerneltest.Database) time.Duration {
	t.Helper()
	out := psql(t, db, "SELECT max(total_plan_time + total_exec_time) FROM pg_stat_statements")
	ms, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	require.NoError(t, err)
	return time.Duration(ms * float64(time.Millisecond))
}

func psql(t *testing.T, db *kerneltest.Database, sql string) string {
	t.Helper()
	return kerneltest.Run(t, "/usr/lib/postgresql/15/bin/psql", "-h", "127.0.0.1", "-p", fmt.Sprint(db.Port),
		"-U", "postgres", "-XAtc", sql, "postgres")
}

func (l *postgresLab) localSocket(t *testing.T) {
	before := kerneltest.DialPostgres(t, "unix", l.db.Socket)
	id := l.watch(t)
	before.Query("SELECT 1")
	kerneltest.DialPostgres(t, "unix", l.db.Socket).Query("UPDATE pgbench_tellers SET tbalance=0 WHERE tid=1")
	requireCounts(t, l.timer, id, counts{"select": 1, "update": 1, "auth": 1})
}

func (l *postgresLab) tls(t *testing.T) {
	id := l.watch(t)
	cmd := exec.CommandContext(t.Context(), "/usr/lib/postgresql/15/bin/pgbench", "-h", "127.0.0.1",
		"-p", fmt.Sprint(l.db.Port), "-U", "postgres", "-n", "-S", "-c", "2", "-t", "20", "postgres")
	cmd.Env = append(os.Environ(), "PGSSLMODE=require")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	// Three handshakes; then three encrypted logins, two questions and the rest.
	requireCounts(t, l.timer, id, counts{"auth": 3, "tls": 3 + 2 + 40})
}

func (l *postgresLab) outbound(t *testing.T) {
	c := l.dial(t)
	c.Query(fmt.Sprintf("SELECT dblink_connect('old', 'host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable')", l.db.Port))
	id := l.watch(t)
	inner := "SELECT * FROM dblink(%s, 'UPDATE pgbench_tellers SET tbalance=0 WHERE tid=1 RETURNING tid') AS x(i int)"
	// By a connection that the server made before it was watched, and by a new one.
	require.False(t, c.Query(fmt.Sprintf(inner, "'old'")).Error)
	require.False(t, c.Query(fmt.Sprintf(inner, fmt.Sprintf("'host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable'", l.db.Port))).Error)
	// dblink sets the other side's formats before it fetches.
	want := counts{"select": 2, "update": 2, "auth": 1}
	got := read(t, l.timer, id)
	if n := got["set"]; n > 0 {
		want["set"] = n
	}
	requireCounts(t, l.timer, id, want)
	c.Query("SELECT dblink_disconnect('old')")
}

func (l *postgresLab) byProcess(t *testing.T) {
	w := l.watched(t)
	w.CgroupID = 0
	require.NoError(t, l.timer.Set([]Watched{w}))
	c := l.dial(t)
	c.Query("SELECT 1")
	// The child is not in the list; saying so again must not lose it.
	require.NoError(t, l.timer.Set([]Watched{w}))
	c.Query("SELECT 1")
	requireCounts(t, l.timer, w.ID, counts{"auth": 1, "select": 2})
	pid := slices.Max(kerneltest.PIDs(t, l.db.Cgroup))
	known, err := l.timer.followed()
	require.NoError(t, err)
	require.Contains(t, known, uint32(pid))
	c.Close()
	require.Eventually(t, func() bool {
		known, err := l.timer.followed()
		_, ok := known[uint32(pid)]
		return err == nil && !ok
	}, 10*time.Second, 20*time.Millisecond, "an ended process is followed still")
}

func (l *postgresLab) neighbour(t *testing.T) {
	w := l.watched(t)
	other := Watched{ID: "neighbour", Protocol: ProtocolPostgres, CgroupID: kerneltest.CgroupID(t, kerneltest.Cgroup(t)), Ports: w.Ports}
	require.NoError(t, l.timer.Set([]Watched{w, other}))
	l.dial(t).Query("SELECT 1")
	requireCounts(t, l.timer, w.ID, counts{"auth": 1, "select": 1})
	require.Empty(t, read(t, l.timer, other.ID))

	require.NoError(t, l.timer.Set([]Watched{other}))
	l.dial(t).Query("SELECT 1")
	require.Empty(t, read(t, l.timer, other.ID))
	_, err := l.timer.Read(w.ID)
	require.ErrorContains(t, err, "not watched")
}
