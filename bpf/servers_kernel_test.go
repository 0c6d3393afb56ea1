//go:build kernel && servers

package bpf

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/bpf/kerneltest"
	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
)

// engineTest is one server of one release, and a statement for it whose
// operation nothing else of its client has.
type engineTest struct {
	name, release string
	protocol      Protocol
	start         func(context.Context, dbserver.Options) (*dbserver.Server, error)
	statement     string
	operation     string
}

func engineTests() []engineTest {
	var tests []engineTest
	for release, names := range map[string][3]string{
		"bullseye": {"PostgreSQL 13", "MariaDB 10.5", "Redis 6.0"},
		"bookworm": {"PostgreSQL 15", "MariaDB 10.11", "Redis 7.0"},
		"trixie":   {"PostgreSQL 17", "MariaDB 11.8", "Redis 8.0"},
	} {
		tests = append(tests,
			engineTest{names[0], release, ProtocolPostgres, dbserver.StartPostgres, "VALUES (1)", "select"},
			engineTest{names[1], release, ProtocolMySQL, dbserver.StartMariaDB, "DO 1", "call"},
			engineTest{names[2], release, ProtocolRedis, dbserver.StartRedis, "STRLEN k", "read"})
	}
	return append(tests, engineTest{"Valkey 8.1", "trixie", ProtocolRedis, dbserver.StartValkey, "STRLEN k", "read"})
}

// TestStatementsOfReleases needs the trees of cmd/vmtest/setup.sh servers, on the
// machine itself.
func TestStatementsOfReleases(t *testing.T) {
	for _, mode := range testModes(t) {
		timer := openTimer(t, mode)
		for _, tt := range engineTests() {
			t.Run(string(mode)+", "+tt.name, func(t *testing.T) {
				root, err := dbserver.Tree(tt.release)
				require.NoError(t, err)
				o := options(t, root)
				if tt.protocol == ProtocolPostgres {
					// A tree has no /dev/shm.
					o.Args = []string{"-c", "dynamic_shared_memory_type=mmap"}
				}
				s, err := tt.start(t.Context(), o)
				require.NoError(t, err)
				defer func() { require.NoError(t, s.Stop()) }()
				w := watchServer(t, timer, o, tt.protocol)
				for range 3 {
					_, err := s.Query(t.Context(), tt.statement)
					require.NoError(t, err)
				}
				requireOperation(t, timer, w.ID, tt.operation, 3)
			})
		}
	}
}

// TestStatementsOfAServerInGo is about one that reads ahead on one thread and
// answers on another.
func TestStatementsOfAServerInGo(t *testing.T) {
	client, err := dbserver.Tree("bookworm")
	require.NoError(t, err)
	for _, mode := range testModes(t) {
		t.Run(string(mode), func(t *testing.T) {
			timer := openTimer(t, mode)
			o := options(t, "")
			s, err := dbserver.StartMySQLServer(t.Context(), o)
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Stop()) }()
			w := watchServer(t, timer, o, ProtocolMySQL)
			for range 3 {
				cmd, err := dbserver.Command(t.Context(), client, "", "mariadb", "--no-defaults", "--skip-ssl", "-h", o.Address,
					"-P", strconv.Itoa(o.Port), "-u", "root", "-BN", "-e", "CREATE TABLE IF NOT EXISTS t (a INT); INSERT INTO t VALUES (1)", "test")
				require.NoError(t, err)
				out, err := cmd.CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
			requireOperation(t, timer, w.ID, "insert", 3)
			requireOperation(t, timer, w.ID, "ddl", 3)
		})
	}
}

// options are a server's on a free port in a cgroup of its own.
func options(t *testing.T, root string) dbserver.Options {
	t.Helper()
	port := kerneltest.Port(t)
	o := dbserver.Options{
		Root: root, Dir: filepath.Join("/srv/test", strconv.Itoa(int(port))), Address: "127.0.0.1", Port: int(port), Cgroup: kerneltest.Cgroup(t),
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(filepath.Join("/", root, o.Dir))) })
	return o
}

func watchServer(t *testing.T, timer *Statements, o dbserver.Options, p Protocol) Watched {
	t.Helper()
	w := Watched{
		ID: filepath.Base(t.Name()), Protocol: p, Ports: []uint16{uint16(o.Port)},
		CgroupID: kerneltest.CgroupID(t, o.Cgroup), PIDs: kerneltest.PIDs(t, o.Cgroup),
	}
	require.NoError(t, timer.Set([]Watched{w}))
	return w
}

func requireOperation(t *testing.T, timer *Statements, id, operation string, want uint64) {
	t.Helper()
	var got counts
	require.Eventually(t, func() bool {
		got = read(t, timer, id)
		return got[operation] == want
	}, 5*time.Second, 20*time.Millisecond, "%s: want %d, have %v", operation, want, &got)
}
