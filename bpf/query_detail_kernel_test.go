//go:build kernel

package bpf

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

// listener numbers each text by itself, and keeps what it is told.
type listener struct {
	t     *testing.T
	timer *Statements

	mu        sync.Mutex
	numbers   map[string]uint32    // by text
	uncounted map[[2]string]uint64 // statements, by server and text
	byHash    map[uint64]string
	records   []Record
	sessions  []Session
}

// listen reads the timer's events until the test ends.
func listen(t *testing.T, timer *Statements) *listener {
	l := &listener{t: t, timer: timer, numbers: map[string]uint32{}, uncounted: map[[2]string]uint64{}, byHash: map[uint64]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- timer.ReadEvents(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return l
}

func (l *listener) Text(e *Text) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimRight(string(e.Text), "\x00")
	number, ok := l.numbers[text]
	if !ok {
		number = FirstDigest + uint32(len(l.numbers))
		l.numbers[text] = number
	}
	l.byHash[e.Hash] = text
	if err := l.timer.MapText(e.ID, e.Hash, number); err != nil {
		l.t.Errorf("map %q: %v", text, err)
	}
}

func (l *listener) Record(r *Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, *r)
	if r.Uncounted {
		l.uncounted[[2]string{r.ID, l.byHash[r.Hash]}]++
	}
}

func (l *listener) Session(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = append(l.sessions, *s)
}

// digests returns how often each text was counted, by kernel and listener
// together, and the kernel's own digests under their numbers.
func (l *listener) digests(t *testing.T, id string) counts {
	all, err := l.timer.Digests(id)
	require.NoError(t, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	got := counts{}
	texts := map[uint32]string{}
	for text, number := range l.numbers {
		texts[number] = text
	}
	for _, d := range all {
		name, ok := texts[d.Digest]
		if !ok {
			name = fmt.Sprint(d.Digest)
		}
		got[name] += d.Count
	}
	for key, n := range l.uncounted {
		if key[0] == id {
			got[key[1]] += n
		}
	}
	return got
}

func (l *listener) requireDigests(t *testing.T, id string, want counts) {
	t.Helper()
	var got counts
	for range 50 {
		if got = l.digests(t, id); fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.Equal(t, want, got)
}

// details asks for what only the details of a server tell.
type details struct {
	rows, statements, in, out uint64
}

func readDetails(t *testing.T, s *Statements, id string) map[string]details {
	ops, err := s.Read(id)
	require.NoError(t, err)
	got := map[string]details{}
	for _, op := range ops {
		require.Equal(t, op.Count, op.FirstByte.Count, op.Name)
		require.LessOrEqual(t, op.FirstByte.SumNanoseconds, op.SumNanoseconds, op.Name)
		got[op.Name] = details{op.Rows, op.Statements, op.RequestBytes, op.ResponseBytes}
	}
	return got
}

func requireErrors(t *testing.T, s *Statements, id string, want map[string]uint64) {
	t.Helper()
	all, err := s.Errors()
	require.NoError(t, err)
	got := map[string]uint64{}
	for _, e := range all[id] {
		got[e.Code] = e.Count
	}
	require.Equal(t, want, got)
}

func requireTransactions(t *testing.T, s *Statements, id string, want counts) {
	t.Helper()
	all, err := s.Transactions(id)
	require.NoError(t, err)
	got := counts{}
	for _, tx := range all {
		got[tx.Outcome] = tx.Count
	}
	require.Equal(t, want, got)
}

func requireCoverage(t *testing.T, s *Statements, id string) {
	t.Helper()
	traffic, err := s.Traffic(id)
	require.NoError(t, err)
	require.NotZero(t, traffic.SeenBytes)
	if !s.syscalls {
		require.Equal(t, traffic.SocketBytes, traffic.SeenBytes)
	}
}

func TestDetailsOfPostgres(t *testing.T) {
	db := kerneltest.Postgres(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	pgbench(t, db, "-i", "-s", "1")
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			timer := openTimer(t, mode)
			lab := &postgresLab{db: db, mode: mode, timer: timer}
			heard := listen(t, timer)
			t.Run("rows, bytes and statements", lab.amounts)
			t.Run("transactions", lab.transactions)
			t.Run("errors by code", lab.codes)
			t.Run("a text is told once and counted in the kernel", func(t *testing.T) { lab.texts(t, heard) })
			t.Run("a prepared statement counts under its text", func(t *testing.T) { lab.preparedTexts(t, heard) })
			t.Run("numbers do not make a text another one", func(t *testing.T) { lab.numbers(t, heard) })
			t.Run("slow and failed statements are recorded", func(t *testing.T) { lab.records(t, heard) })
			t.Run("sessions have names", func(t *testing.T) { lab.sessions(t, heard) })
			t.Run("no text leaves the kernel where it may not", func(t *testing.T) { lab.noText(t, heard) })
			t.Run("a slow client shows as such", lab.slowClient)
		})
	}
}

func (l *postgresLab) amounts(t *testing.T) {
	c := l.dial(t)
	id := l.watch(t)
	c.Query("SELECT generate_series(1, 50000)")
	c.Query("INSERT INTO pgbench_history(tid) VALUES (-7), (-7), (-7)")
	c.Query("UPDATE pgbench_history SET bid = 1 WHERE tid = -7")
	c.Query("DELETE FROM pgbench_history WHERE tid = -7")
	c.Query("SET application_name = '12 34'")
	c.Send(pgParse("", "SELECT 1") + pgBind("") + pgExecute() + pgParse("", "SELECT 2") + pgBind("") + pgExecute() + pgSync())
	requireCounts(t, l.timer, id, counts{"select": 2, "insert": 1, "update": 1, "delete": 1, "set": 1})
	got := readDetails(t, l.timer, id)
	for name, want := range map[string]details{
		"select": {rows: 50001, statements: 3}, "insert": {rows: 3, statements: 1}, "update": {rows: 3, statements: 1},
		"delete": {rows: 3, statements: 1}, "set": {statements: 1},
	} {
		require.Equal(t, [2]uint64{want.rows, want.statements}, [2]uint64{got[name].rows, got[name].statements}, name)
	}
	require.EqualValues(t, len(kerneltest.Message('Q', "DELETE FROM pgbench_history WHERE tid = -7\x00")), got["delete"].in)
	require.EqualValues(t, len("C\x00\x00\x00\x0dDELETE 3\x00Z\x00\x00\x00\x05I"), got["delete"].out)
	require.Greater(t, got["select"].out, uint64(50000*(5+2+4)))
	requireCoverage(t, l.timer, id)
}

func (l *postgresLab) transactions(t *testing.T) {
	c := l.dial(t)
	id := l.watch(t)
	c.Query("BEGIN")
	c.Query("SELECT pg_sleep(0.05)")
	open, err := l.timer.Open()
	require.NoError(t, err)
	require.Equal(t, 1, open[id].Transactions)
	require.GreaterOrEqual(t, open[id].OldestTransaction, 50*time.Millisecond)
	require.NotZero(t, open[id].Connections)
	c.Query("COMMIT")
	c.Query("BEGIN; SELECT 1")
	c.Query("ROLLBACK")
	c.Query("BEGIN")
	require.True(t, c.Query("SELECT 1/0").Error)
	c.Query("COMMIT") // which the server answers with a rollback
	c.Query("SELECT 1")
	requireCounts(t, l.timer, id, counts{"txn": 6, "select": 2, "select!": 1})
	requireTransactions(t, l.timer, id, counts{"commit": 1, "rollback": 2})
	all, err := l.timer.Transactions(id)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Duration(all[0].SumNanoseconds), 50*time.Millisecond)
	open, err = l.timer.Open()
	require.NoError(t, err)
	require.Zero(t, open[id].Transactions)
	require.Zero(t, open[id].InFlight)
}

func (l *postgresLab) codes(t *testing.T) {
	c := l.dial(t)
	id := l.watch(t)
	c.Query("SELECT 1/0")
	c.Query("SELECT 1/0")
	c.Query("BURN everything")
	c.Send(pgParse("", "SELECT * FROM nowhere") + pgBind("") + pgExecute() + pgSync())
	requireCounts(t, l.timer, id, counts{"select!": 3, "other!": 1})
	requireErrors(t, l.timer, id, map[string]uint64{"22012": 2, "42601": 1, "42P01": 1})
}

func (l *postgresLab) texts(t *testing.T, heard *listener) {
	c := l.dial(t)
	id := l.watch(t)
	for range 20 {
		c.Query("SELECT 'a' AS first")
		c.Query("SELECT 'b' AS second, 1")
	}
	requireCounts(t, l.timer, id, counts{"select": 40})
	heard.requireDigests(t, id, counts{"SELECT 'a' AS first": 20, "SELECT 'b' AS second, 1": 20})
	number := heard.number("SELECT 'a' AS first")
	had, err := l.timer.DropDigest(id, number)
	require.NoError(t, err)
	require.NotZero(t, had.Count)
	c.Query("SELECT 'a' AS first")
	// Its text is still known and its digest is not: the listener has to count.
	requireCounts(t, l.timer, id, counts{"select": 41})
	heard.requireDigests(t, id, counts{"SELECT 'a' AS first": 21 - had.Count, "SELECT 'b' AS second, 1": 20})
}

func (l *listener) number(text string) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.numbers[text]
}

func (l *postgresLab) preparedTexts(t *testing.T, heard *listener) {
	c := l.dial(t)
	id := l.watch(t)
	c.Send(pgParse("named", "SELECT 3 AS named") + pgSync())
	for range 10 {
		c.Send(pgBind("named") + pgExecute() + pgSync())
		c.Send(pgParse("", "SELECT 4 AS unnamed") + pgBind("") + pgExecute() + pgSync())
	}
	requireCounts(t, l.timer, id, counts{"prepare": 1, "select": 20})
	got := counts{}
	for range 50 {
		// The types of the parameters stand behind the text of a Parse.
		got = counts{}
		for text, n := range heard.digests(t, id) {
			text, _, _ = strings.Cut(text, "\x00")
			got[text] += n
		}
		if got["SELECT 3 AS named"] == 10 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.Equal(t, counts{"1": 1, "SELECT 3 AS named": 10, "SELECT 4 AS unnamed": 10}, got)
}

func (l *postgresLab) numbers(t *testing.T, heard *listener) {
	c := l.dial(t)
	id := l.watch(t)
	for i := range 100 {
		c.Query(fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d", 1000+i))
	}
	requireCounts(t, l.timer, id, counts{"select": 100})
	if l.timer.syscalls {
		return // the legacy program tells each of them
	}
	heard.requireDigests(t, id, counts{"SELECT abalance FROM pgbench_accounts WHERE aid = 1000": 100})
}

func (l *postgresLab) records(t *testing.T, heard *listener) {
	c := l.dial(t)
	w := l.watched(t)
	w.Slow = 20 * time.Millisecond
	w.Audit = AuditWrite
	require.NoError(t, l.timer.Set([]Watched{w}))
	c.Query("SELECT pg_sleep(0.03)")
	c.Query("SELECT 1/0")
	c.Query("DELETE FROM pgbench_history WHERE tid = -7")
	for range 5 {
		c.Query("SELECT 5")
	}
	requireCounts(t, l.timer, w.ID, counts{"select": 6, "select!": 1, "delete": 1})
	var slow, failed, audited []Record
	require.Eventually(t, func() bool {
		slow, failed, audited = nil, nil, nil
		heard.mu.Lock()
		defer heard.mu.Unlock()
		for _, r := range heard.records {
			if r.ID != w.ID {
				continue
			}
			if r.Slow {
				slow = append(slow, r)
			}
			if r.Failed {
				failed = append(failed, r)
			}
			if r.Audited {
				audited = append(audited, r)
			}
		}
		return len(slow) > 0 && len(failed) > 0 && len(audited) > 0
	}, 5*time.Second, 20*time.Millisecond)
	require.NotEmpty(t, slow)
	require.Equal(t, "select", slow[0].Operation)
	require.GreaterOrEqual(t, slow[0].Duration, 30*time.Millisecond)
	require.EqualValues(t, 1, slow[0].Rows)
	require.WithinDuration(t, time.Now(), slow[0].Ended, time.Minute)
	require.Len(t, failed, 1)
	require.Equal(t, "22012", failed[0].Code)
	require.Len(t, audited, 1)
	require.Equal(t, "delete", audited[0].Operation)
	if !l.timer.syscalls {
		require.Equal(t, "127.0.0.1", audited[0].Client.Addr().String())
		require.NotZero(t, audited[0].Client.Port())
	}
	traffic, err := l.timer.Traffic(w.ID)
	require.NoError(t, err)
	require.EqualValues(t, len(slow), traffic.Slow)
}

func (l *postgresLab) sessions(t *testing.T, heard *listener) {
	id := l.watch(t)
	c := l.dial(t)
	c.Query("SELECT 1")
	requireCounts(t, l.timer, id, counts{"auth": 1, "select": 1})
	var login Session
	require.Eventually(t, func() bool {
		heard.mu.Lock()
		defer heard.mu.Unlock()
		for _, s := range heard.sessions {
			if s.ID == id && s.Event == SessionLogin {
				login = s
			}
		}
		return login.ID != ""
	}, 5*time.Second, 20*time.Millisecond)
	require.Equal(t, "postgres", login.User)
	require.Equal(t, "postgres", login.Database)
}

func (l *postgresLab) noText(t *testing.T, heard *listener) {
	c := l.dial(t)
	w := l.watched(t)
	w.NoText = true
	require.NoError(t, l.timer.Set([]Watched{w}))
	for range 3 {
		c.Query("SELECT 'a secret of this test'")
	}
	requireCounts(t, l.timer, w.ID, counts{"select": 3})
	heard.requireDigests(t, w.ID, counts{fmt.Sprint(DigestUnsampled): 3})
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for text := range heard.numbers {
		require.NotContains(t, text, "a secret of this test")
	}
}

func (l *postgresLab) slowClient(t *testing.T) {
	c := l.dial(t)
	id := l.watch(t)
	c.Start(kerneltest.Message('Q', "SELECT repeat('x', 1000) FROM generate_series(1, 30000)\x00"))
	time.Sleep(300 * time.Millisecond) // while the reply of 30 MB fills both buffers
	c.Receive()
	requireCounts(t, l.timer, id, counts{"select": 1})
	ops, err := l.timer.Read(id)
	require.NoError(t, err)
	blocked := time.Duration(ops[0].BlockedNanoseconds)
	require.Greater(t, blocked, 100*time.Millisecond)
	require.Less(t, blocked, time.Duration(ops[0].SumNanoseconds))
}

func TestDetailsOfMariaDB(t *testing.T) {
	db := kerneltest.MariaDB(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	sysbench(t, db, "oltp_read_write", "disable", "prepare")
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			lab := &mariadbLab{db: db, timer: openTimer(t, mode)}
			heard := listen(t, lab.timer)
			t.Run("rows, transactions, errors and texts", func(t *testing.T) { lab.details(t, heard) })
			t.Run("prepared statements count under their texts", func(t *testing.T) { lab.preparedTexts(t, heard) })
		})
	}
}

func (l *mariadbLab) details(t *testing.T, heard *listener) {
	id := l.watch(t)
	l.db.MariaDB(t, strings.Join([]string{
		"CREATE TABLE sbtest.d (i INT PRIMARY KEY) ENGINE=InnoDB",
		"INSERT INTO sbtest.d VALUES (1),(2),(3)",
		"BEGIN", "UPDATE sbtest.d SET i = i + 10", "COMMIT",
		"START TRANSACTION", "DELETE FROM sbtest.d", "SELECT 1 FROM sbtest.d", "ROLLBACK",
		"INSERT INTO sbtest.d VALUES (11)",
		"DROP TABLE sbtest.d",
	}, ";"), "--force", "--user="+kerneltest.MariaDBUser, "--password="+kerneltest.MariaDBUser,
		"--host=127.0.0.1", fmt.Sprintf("--port=%d", l.db.Port))
	requireCounts(t, l.timer, id, counts{"auth": 1, "ddl": 2, "insert": 1, "insert!": 1, "txn": 4, "update": 1, "delete": 1, "select": 1})
	got := readDetails(t, l.timer, id)
	require.EqualValues(t, 3, got["update"].rows)
	require.EqualValues(t, 3, got["delete"].rows)
	requireErrors(t, l.timer, id, map[string]uint64{"1062": 1})
	requireTransactions(t, l.timer, id, counts{"commit": 1, "rollback": 1})
	requireCoverage(t, l.timer, id)
	digests := heard.digests(t, id)
	require.EqualValues(t, 1, digests["UPDATE sbtest.d SET i = i + 10"], "%v", digests)
	require.EqualValues(t, 1, digests["1"], "the login")
	var session Session
	heard.mu.Lock()
	defer heard.mu.Unlock()
	for _, s := range heard.sessions {
		if s.ID == id && s.Event == SessionLogin {
			session = s
		}
	}
	require.Equal(t, kerneltest.MariaDBUser, session.User)
}

func (l *mariadbLab) preparedTexts(t *testing.T, heard *listener) {
	id := l.watch(t)
	sysbench(t, l.db, "oltp_point_select", "auto", "run")
	got := l.settled(t, id)
	var sum uint64
	for _, n := range got {
		sum += n
	}
	var digests counts
	require.Eventually(t, func() bool {
		digests = heard.digests(t, id)
		var all uint64
		for _, n := range digests {
			all += n
		}
		return all == sum
	}, 5*time.Second, 50*time.Millisecond, "%v of %v", digests, got)
	require.EqualValues(t, got["select"], digests["SELECT c FROM sbtest1 WHERE id=?"], "%v", digests)
}
