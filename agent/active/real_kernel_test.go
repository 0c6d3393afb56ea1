//go:build kernel

package active

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf/kerneltest"
	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
)

// tree is the Debian tree with the servers: this machine itself in the virtual
// machine, elsewhere MOORING_ROOTFS.
func tree() string { return os.Getenv("MOORING_ROOTFS") }

// dir is a data directory inside the tree.
func dir(t *testing.T, name string) string {
	base := fmt.Sprintf("/tmp/mooring-active-%d", os.Getpid())
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(filepath.Join("/", tree(), base))) })
	return filepath.Join(base, name)
}

// own is a secret that a test changes.
type own struct {
	mu             sync.Mutex
	user, password string
	ca             []byte
}

func (o *own) set(user, password string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.user, o.password = user, password
}

func (o *own) Login(_ context.Context, t Target) (*Login, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return LoginOf(map[string][]byte{KeyUsername: []byte(o.user), KeyPassword: []byte(o.password), KeyCA: append([]byte{}, o.ca...)}, t.Spec.TLS)
}

// target is a server that a test has started.
func target(id string, e state.Engine, s *dbserver.Server, spec state.ProbeSpec) Target {
	return Target{ID: id, Engine: e, PID: s.PID, PIDs: []int{s.PID}, Ports: []uint16{uint16(s.Port)}, Spec: spec}
}

// begin runs a prober until the test ends.
func begin(t *testing.T, secrets Secrets, targets ...Target) *Prober {
	p := New(secrets, Dialer("/proc"))
	p.Set(targets)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return p
}

// becomes waits until what is known of an instance is as wanted.
func becomes(t *testing.T, p *Prober, id string, want func(a *state.Active) bool) *state.Active {
	t.Helper()
	var a *state.Active
	require.Eventually(t, func() bool { a = p.Results()[id]; return a != nil && want(a) }, 2*time.Minute, 100*time.Millisecond, "%s", &told{p, id})
	return a
}

// told prints what is known when a wait has failed.
type told struct {
	p  *Prober
	id string
}

func (f *told) String() string { return fmt.Sprintf("%+v", f.p.Results()[f.id]) }

func is(role string) func(*state.Active) bool {
	return func(a *state.Active) bool { return a.Up != nil && *a.Up && a.Role == role }
}

func query(t *testing.T, s *dbserver.Server, sql string) string {
	t.Helper()
	out, err := s.Query(t.Context(), sql)
	require.NoError(t, err)
	return out
}

// replicated is a spec that reads each second and writes.
func replicated() state.ProbeSpec {
	return state.ProbeSpec{Secret: "s", Read: time.Second, Write: state.WriteReplicated, WritePeriod: 10 * time.Second, TLS: state.TLSDisable}
}

const postgresSetup = `CREATE ROLE mooring LOGIN PASSWORD 'pass word'; GRANT pg_read_all_stats TO mooring; CREATE SCHEMA mooring;
CREATE TABLE mooring.heartbeat (id text PRIMARY KEY, ts timestamptz NOT NULL, seq bigint NOT NULL);
GRANT USAGE ON SCHEMA mooring TO mooring; GRANT SELECT, INSERT, UPDATE ON mooring.heartbeat TO mooring`

// postgresPair starts a primary and a replica that streams from it.
func postgresPair(t *testing.T) (primary, replica *dbserver.Server) {
	port := int(kerneltest.Port(t))
	primary, err := dbserver.StartPostgres(t.Context(), dbserver.Options{Root: tree(), Dir: dir(t, "pg-primary"), Address: "127.0.0.1", Port: port, Args: mapped()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, primary.Stop()) })
	query(t, primary, postgresSetup)
	data := filepath.Join("/", tree(), primary.Dir)
	hba := "local all mooring scram-sha-256\nhost all mooring all scram-sha-256\nlocal all all trust\nhost all all all trust\nhost replication all all trust\n"
	require.NoError(t, os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o644))
	query(t, primary, "SELECT pg_reload_conf()")
	o := dbserver.Options{Root: tree(), Dir: dir(t, "pg-replica"), Address: "127.0.0.1", Port: int(kerneltest.Port(t)), Args: mapped()}
	replica, err = dbserver.StartPostgresReplica(t.Context(), o, primary)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, replica.Stop()) })
	return primary, replica
}

func TestPostgresPrimaryAndReplica(t *testing.T) {
	primary, replica := postgresPair(t)
	secret := &own{user: "mooring", password: "pass word"}
	p := begin(t, secret, target("p", state.PostgreSQL, primary, replicated()), target("r", state.PostgreSQL, replica, replicated()))
	a := becomes(t, p, "p", is(state.RolePrimary))
	require.False(t, *a.ReadOnly)
	require.Nil(t, a.Lag)
	r := becomes(t, p, "r", func(a *state.Active) bool { return is(state.RoleReplica)(a) && a.HeartbeatAge != nil })
	require.True(t, *r.ReadOnly)
	require.Less(t, *r.HeartbeatAge, 15*time.Second)
	require.NotNil(t, r.LagBytes)
	require.Empty(t, r.Note)
	require.Equal(t, "1", query(t, primary, "SELECT count(*) FROM mooring.heartbeat WHERE id = 'p'"))
	require.Equal(t, "1", query(t, primary, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mooring'"))
	require.Equal(t, "t", query(t, primary, "SELECT client_addr IS NULL FROM pg_stat_activity WHERE application_name = 'mooring'"), "over the unix socket")

	t.Run("a replica that stops replaying falls behind in bytes and seconds", func(t *testing.T) {
		query(t, replica, "SELECT pg_wal_replay_pause()")
		query(t, primary, "CREATE TABLE t AS SELECT generate_series(1, 100000) i")
		becomes(t, p, "r", func(a *state.Active) bool {
			return a.LagBytes != nil && *a.LagBytes > 1<<20 && a.Lag != nil && *a.Lag > 2*time.Second && *a.HeartbeatAge > 3*time.Second
		})
		query(t, replica, "SELECT pg_wal_replay_resume()")
		becomes(t, p, "r", func(a *state.Active) bool { return a.LagBytes != nil && *a.LagBytes == 0 && *a.Lag == 0 })
	})
	t.Run("a server that hangs has one connection", func(t *testing.T) {
		backend, err := strconv.Atoi(query(t, primary, "SELECT pid FROM pg_stat_activity WHERE application_name = 'mooring'"))
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(backend, syscall.SIGSTOP))
		a := becomes(t, p, "p", func(a *state.Active) bool { return a.Up != nil && !*a.Up })
		require.Empty(t, a.Role)
		require.NoError(t, syscall.Kill(backend, syscall.SIGCONT))
		becomes(t, p, "p", is(state.RolePrimary))
		require.Eventually(t, func() bool {
			return query(t, primary, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mooring'") == "1"
		}, 20*time.Second, 100*time.Millisecond)
	})
	t.Run("a promoted replica is a primary", func(t *testing.T) {
		query(t, replica, "SELECT pg_promote(true, 60)")
		a := becomes(t, p, "r", is(state.RolePrimary))
		require.False(t, *a.ReadOnly)
		require.Nil(t, a.LagBytes)
	})
	t.Run("a wrong password is tried and not forced", func(t *testing.T) {
		secret.set("mooring", "wrong")
		q := begin(t, secret, target("q", state.PostgreSQL, primary, replicated()))
		a := becomes(t, q, "q", func(a *state.Active) bool { return len(a.Probes) == 2 && a.Probes[1].Failures[ReasonAuth] == 1 })
		require.True(t, *a.Up, "the server is there although the login is refused")
		require.Contains(t, a.Probes[1].Err, "28P01")
	})
	t.Run("a server that is gone", func(t *testing.T) {
		require.NoError(t, primary.Stop())
		becomes(t, p, "p", func(a *state.Active) bool { return a.Up != nil && !*a.Up })
	})
}

func TestMariaDB(t *testing.T) {
	s, err := dbserver.StartMariaDB(t.Context(), dbserver.Options{Root: tree(), Dir: dir(t, "maria"), Address: "127.0.0.1", Port: int(kerneltest.Port(t))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	query(t, s, "FLUSH PRIVILEGES; CREATE DATABASE mooring; CREATE TABLE mooring.heartbeat (id varchar(255) PRIMARY KEY, ts timestamp(6) NOT NULL, seq bigint unsigned NOT NULL) ENGINE=InnoDB; "+
		"CREATE USER mooring@localhost IDENTIFIED BY 'pass word'; GRANT REPLICA MONITOR ON *.* TO mooring@localhost; GRANT SELECT, INSERT, UPDATE ON mooring.heartbeat TO mooring@localhost")
	secret := &own{user: "mooring", password: "pass word"}
	p := begin(t, secret, target("m", state.MariaDB, s, replicated()))
	a := becomes(t, p, "m", func(a *state.Active) bool { return is(state.RolePrimary)(a) && len(a.Probes) == 2 })
	require.Equal(t, state.ProbeWrite, a.Probes[1].Kind)
	require.Empty(t, a.Probes[1].Err)
	require.False(t, *a.ReadOnly)
	require.Empty(t, a.Note)
	secret.set("mooring", "wrong")
	q := begin(t, secret, target("q", state.MariaDB, s, replicated()))
	b := becomes(t, q, "q", func(a *state.Active) bool { return len(a.Probes) == 1 && a.Probes[0].Failures[ReasonAuth] == 1 })
	require.Contains(t, b.Probes[0].Err, "1045")
	require.Nil(t, b.Up)
}

// mapped spares PostgreSQL /dev/shm, which a bare tree does not have.
func mapped() []string { return []string{"-c", "dynamic_shared_memory_type=mmap"} }
