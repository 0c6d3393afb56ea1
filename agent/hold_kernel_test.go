//go:build kernel

package agent

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	heldPath = "/mooring-hold-test"
	heldDir  = "/sys/fs/cgroup" + heldPath
)

// inhabited makes a cgroup of version 2 with a process in it and returns it as
// a declared instance.
func inhabited(t *testing.T) state.Instance {
	t.Helper()
	require.NoError(t, os.Mkdir(heldDir, 0o755))
	fd, err := os.Open(heldDir)
	require.NoError(t, err)
	defer fd.Close()
	cmd := exec.Command("sleep", "3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
		require.Eventually(t, func() bool { return os.Remove(heldDir) == nil }, 10*time.Second, 50*time.Millisecond)
	})
	fi, err := fd.Stat()
	require.NoError(t, err)
	return state.Instance{
		ID: "bank/ledger-0/db", Name: "ledger-0", Engine: state.PostgreSQL, Source: "kubernetes", MainPID: cmd.Process.Pid, PIDs: []int{cmd.Process.Pid},
		Cgroup:   state.Cgroup{Version: 2, Path: heldPath, ID: fi.Sys().(*syscall.Stat_t).Ino},
		Declared: &state.Declared{Namespace: "bank", Pod: "ledger-0", PodUID: uid1, Policy: "bank/postgres", NUMA: state.NUMASingleNode},
	}
}

func TestAPlacementIsHeldByTheKernelUntilItIsAFight(t *testing.T) {
	f := &fixture{}
	f.result.Instances = []state.Instance{inhabited(t)}
	cfg := Default()
	cfg.NodeName, cfg.Probe, cfg.StateDir = "n1", "off", t.TempDir()
	cfg.Tick, cfg.Discover = 100*time.Millisecond, 100*time.Millisecond
	a, err := New(cfg, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(a.Close)
	a.source = f
	a.capabilities = []state.Capability{{Name: "pin", OK: true}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { a.loop(ctx) })
	wg.Go(func() { a.followDesired(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })

	mems := func() string {
		b, err := os.ReadFile(filepath.Join(heldDir, "cpuset.mems.effective"))
		require.NoError(t, err)
		return strings.TrimSpace(string(b))
	}
	held := func(want string) {
		require.Eventually(t, func() bool {
			s := a.Snapshot()
			return s != nil && len(s.Instances) == 1 && mems() == want && s.Instances[0].PlacementErr == "" && s.Instances[0].Placement != nil
		}, 30*time.Second, 50*time.Millisecond, "its cpuset is to be %q, is %q", want, mems())
	}
	require.Eventually(t, func() bool { return mems() == "0" || mems() == "1" }, 30*time.Second, 50*time.Millisecond)
	node := mems()
	held(node)
	for range maxRewrites {
		require.NoError(t, os.WriteFile(filepath.Join(heldDir, "cpuset.mems"), []byte("0-1\n"), 0))
		require.Eventually(t, func() bool { return mems() == node }, 30*time.Second, 50*time.Millisecond)
		held(node)
	}
	require.NoError(t, os.WriteFile(filepath.Join(heldDir, "cpuset.mems"), []byte("0-1\n"), 0))
	require.Eventually(t, func() bool {
		return strings.Contains(a.Snapshot().Instances[0].PlacementErr, "something else writes its cpuset (4 times")
	}, 30*time.Second, 50*time.Millisecond)
	require.Equal(t, "0-1", mems())
}
