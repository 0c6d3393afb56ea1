//go:build kernel

package active

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf/kerneltest"
	"github.com/mooring-dev/mooring/bpf/kerneltest/dbserver"
)

// redisServer starts a server with a password and returns its process and port.
func redisServer(t *testing.T, args ...string) (pid int, port string) {
	port = strconv.Itoa(int(kerneltest.Port(t)))
	// A replica writes down what it got at first.
	dump := "mooring-active-" + port
	t.Cleanup(func() {
		if err := os.Remove(filepath.Join("/", tree(), "tmp", dump)); err != nil {
			require.ErrorIs(t, err, os.ErrNotExist)
		}
	})
	cmd, err := dbserver.Command(t.Context(), tree(), "", "redis-server", append([]string{"--bind", "127.0.0.1", "--port", port, "--dir", "/tmp",
		"--dbfilename", dump, "--save", "", "--appendonly", "no", "--requirepass", "pass word", "--masterauth", "pass word",
		"--repl-diskless-sync-delay", "0"}, args...)...)
	require.NoError(t, err)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid, port
}

func TestRedisPrimaryAndReplica(t *testing.T) {
	ppid, pport := redisServer(t)
	rpid, rport := redisServer(t, "--replicaof", "127.0.0.1", pport)
	spec := state.ProbeSpec{Secret: "s", Read: time.Second, Write: state.WriteOff, TLS: state.TLSDisable}
	to := func(id string, pid int, port string) Target {
		n, err := strconv.Atoi(port)
		require.NoError(t, err)
		return Target{ID: id, Engine: state.Redis, PID: pid, Ports: []uint16{uint16(n)}, Spec: spec}
	}
	secret := &own{user: "default", password: "pass word"}
	p := begin(t, secret, to("p", ppid, pport), to("r", rpid, rport))
	becomes(t, p, "p", func(a *state.Active) bool { return is(state.RolePrimary)(a) && a.LagBytes != nil })
	r := becomes(t, p, "r", func(a *state.Active) bool { return is(state.RoleReplica)(a) && a.LagBytes != nil })
	require.True(t, *r.ReadOnly)
	require.Nil(t, r.Lag, "while it has a link Redis does not tell a time")
	require.NoError(t, syscall.Kill(ppid, syscall.SIGKILL))
	becomes(t, p, "p", func(a *state.Active) bool { return a.Up != nil && !*a.Up })
	becomes(t, p, "r", func(a *state.Active) bool { return a.Lag != nil && *a.Lag >= time.Second && a.LagBytes == nil })

	secret.set("default", "wrong")
	q := begin(t, secret, to("q", rpid, rport))
	b := becomes(t, q, "q", func(a *state.Active) bool { return len(a.Probes) == 2 && a.Probes[1].Failures[ReasonAuth] == 1 })
	require.Contains(t, b.Probes[1].Err, "WRONGPASS")
	require.True(t, *b.Up)
}
