//go:build kernel

package bpf

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

const (
	sysbenchThreads = 2
	sysbenchEvents  = 40
)

func TestStatementsOfMariaDB(t *testing.T) {
	db := kerneltest.MariaDB(t, kerneltest.Dir(t), kerneltest.Port(t), kerneltest.Cgroup(t))
	sysbench(t, db, "oltp_read_write", "disable", "prepare")
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			lab := &mariadbLab{db: db, timer: openTimer(t, mode)}
			t.Run("point selects count exactly", lab.pointSelects)
			t.Run("transactions count exactly", lab.transactions)
			t.Run("commands are told apart", lab.commands)
			t.Run("a server without statements stays at zero", lab.neighbour)
		})
	}
}

type mariadbLab struct {
	db    *kerneltest.Database
	timer *Statements
	names int
}

func (l *mariadbLab) watch(t *testing.T) string {
	t.Helper()
	l.names++
	w := Watched{
		ID: fmt.Sprintf("mariadb-%d", l.names), Protocol: ProtocolMySQL, Ports: []uint16{l.db.Port},
		CgroupID: kerneltest.CgroupID(t, l.db.Cgroup), PIDs: kerneltest.PIDs(t, l.db.Cgroup),
	}
	require.NoError(t, l.timer.Set([]Watched{w}))
	return w.ID
}

func sysbench(t *testing.T, db *kerneltest.Database, script, prepared, command string) {
	t.Helper()
	kerneltest.Run(t, "sysbench", script, "--db-driver=mysql", "--mysql-host=127.0.0.1",
		fmt.Sprintf("--mysql-port=%d", db.Port), "--mysql-user="+kerneltest.MariaDBUser,
		"--mysql-password="+kerneltest.MariaDBUser, "--mysql-db=sbtest", "--tables=1", "--table-size=1000",
		fmt.Sprintf("--threads=%d", sysbenchThreads), fmt.Sprintf("--events=%d", sysbenchEvents), "--time=0",
		"--db-ps-mode="+prepared, command)
}

// status returns the server's own counters, by an unwatched look.
func (l *mariadbLab) status(t *testing.T) map[string]uint64 {
	t.Helper()
	require.NoError(t, l.timer.Set(nil))
	status := map[string]uint64{}
	fields := strings.Fields(l.db.MariaDB(t, "SHOW GLOBAL STATUS LIKE 'Com\\_%'"))
	for i := 0; i+1 < len(fields); i += 2 {
		n, err := strconv.ParseUint(fields[i+1], 10, 64)
		require.NoError(t, err)
		status[fields[i]] = n
	}
	return status
}

func (l *mariadbLab) pointSelects(t *testing.T) {
	for _, tt := range []struct{ prepared, counter string }{
		{"disable", "Com_select"},
		{"auto", "Com_stmt_execute"},
	} {
		t.Run("prepared statements "+tt.prepared, func(t *testing.T) {
			before := l.status(t)
			id := l.watch(t)
			sysbench(t, l.db, "oltp_point_select", tt.prepared, "run")
			want := counts{"auth": sysbenchThreads, "select": sysbenchEvents}
			if tt.prepared == "auto" {
				want["prepare"] = sysbenchThreads
			}
			requireCounts(t, l.timer, id, want)
			require.EqualValues(t, sysbenchEvents, l.status(t)[tt.counter]-before[tt.counter])
		})
	}
}

func (l *mariadbLab) transactions(t *testing.T) {
	for _, prepared := range []string{"disable", "auto"} {
		t.Run("prepared statements "+prepared, func(t *testing.T) {
			before := l.status(t)
			id := l.watch(t)
			sysbench(t, l.db, "oltp_read_write", prepared, "run")
			got := l.settled(t, id)
			after := l.status(t)
			for operation, counters := range map[string][]string{
				"select": {"Com_select"}, "update": {"Com_update"}, "delete": {"Com_delete"}, "insert": {"Com_insert"},
				"txn": {"Com_begin", "Com_commit", "Com_rollback"}, "prepare": {"Com_stmt_prepare"},
			} {
				var theirs uint64
				for _, c := range counters {
					theirs += after[c] - before[c]
				}
				require.Equal(t, theirs, got[operation]+got[operation+"!"], operation)
			}
			require.GreaterOrEqual(t, got["select"], uint64(14*sysbenchEvents))
		})
	}
}

// settled returns the counts once they stand still: a thread asks for the next
// command, which ends the one before, a little after its client has the reply.
func (l *mariadbLab) settled(t *testing.T, id string) counts {
	t.Helper()
	var got counts
	require.Eventually(t, func() bool {
		before := got
		got = read(t, l.timer, id)
		return fmt.Sprint(before) == fmt.Sprint(got)
	}, 10*time.Second, 100*time.Millisecond)
	return got
}

func (l *mariadbLab) commands(t *testing.T) {
	for _, tt := range []struct {
		name, statements string
		want             counts
	}{
		{"an error", "SELECT nothing", counts{"select!": 1}},
		{"a comment before the word", "/* c */ DO 1", counts{"call": 1}},
		{"a schema change", "CREATE TABLE sbtest.t (i INT); DROP TABLE sbtest.t", counts{"ddl": 2}},
		{"a long statement", "SELECT '" + strings.Repeat("x", 50000) + "'", counts{"select": 1}},
		{"statements in SQL", "PREPARE s FROM 'SELECT 1'; EXECUTE s", counts{"prepare": 1, "call": 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := l.watch(t)
			l.db.MariaDB(t, tt.statements, "--force", "--user="+kerneltest.MariaDBUser, "--password="+kerneltest.MariaDBUser,
				"--host=127.0.0.1", fmt.Sprintf("--port=%d", l.db.Port))
			tt.want["auth"] = 1
			requireCounts(t, l.timer, id, tt.want)
		})
	}
}

func (l *mariadbLab) neighbour(t *testing.T) {
	other := Watched{ID: "neighbour", Protocol: ProtocolMySQL, CgroupID: kerneltest.CgroupID(t, kerneltest.Cgroup(t)), Ports: []uint16{l.db.Port}}
	require.NoError(t, l.timer.Set([]Watched{other}))
	l.db.MariaDB(t, "DO 1")
	require.Empty(t, read(t, l.timer, other.ID))
}
