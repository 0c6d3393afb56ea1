//go:build kernel

package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/cgroup"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

// inCgroup starts a shell in a cgroup of its own and returns it as an instance.
func inCgroup(t *testing.T, script string) state.InstanceStatus {
	t.Helper()
	path := kerneltest.Cgroup(t)
	dir, err := os.Open(path)
	require.NoError(t, err)
	defer dir.Close()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		_ = cmd.Wait() // it was killed
	})
	return state.InstanceStatus{Instance: state.Instance{
		ID: path, MainPID: cmd.Process.Pid, PIDs: []int{cmd.Process.Pid}, DataDir: "/scratch", Engine: state.PostgreSQL,
		Cgroup: state.Cgroup{Version: 2, Path: "/" + filepath.Base(path), ID: kerneltest.CgroupID(t, path)},
	}}
}

func TestUsageOfARealCgroup(t *testing.T) {
	cfg := Default()
	cfg.StateDir = "/scratch"
	groups, err := cgroup.New(cfg.CgroupRoot)
	require.NoError(t, err)
	var u usageSource
	caps := u.openLatency(&cfg)
	t.Cleanup(func() { require.NoError(t, u.Close()) })
	require.Equal(t, []string{"block-latency", "fsync-latency"}, []string{caps[0].Name, caps[1].Name})
	require.True(t, caps[0].OK, caps[0].Detail)
	require.True(t, caps[1].OK, caps[1].Detail)

	gate := filepath.Join(t.TempDir(), "gate")
	require.NoError(t, unix.Mkfifo(gate, 0o600))
	file := fmt.Sprintf("/scratch/usage-%d", os.Getpid())
	t.Cleanup(func() { require.NoError(t, os.Remove(file)) })
	in := inCgroup(t, "read x <"+gate+"; dd if=/dev/zero of="+file+" bs=4k count=30 oflag=dsync; "+
		"dd if="+file+" of=/dev/null bs=4k iflag=direct; sleep 1000")
	tick := func() *state.Snapshot {
		next := &state.Snapshot{Instances: []state.InstanceStatus{in}}
		require.NoError(t, u.readMachine(&cfg, next))
		require.NoError(t, u.readInstances(&cfg, groups, next))
		return next
	}
	tick() // from now on it is timed
	require.NoError(t, os.WriteFile(gate, []byte("go\n"), 0o600))
	var last *state.Usage
	require.Eventually(t, func() bool {
		last = tick().Instances[0].Usage
		return len(last.IO) == 3 && last.IO[0].Count >= 30 && last.IO[2].Count >= 30
	}, time.Minute, 50*time.Millisecond)
	require.Equal(t, "fsync", last.IO[2].Name)
	require.Equal(t, uint64(30), last.IO[2].Count)
	require.Positive(t, last.Group.CPU.Usage)
	require.Positive(t, last.Group.MemoryBytes)
	require.NotNil(t, last.Group.Pressure)
	require.NotEmpty(t, last.Group.Disks)
	require.Regexp(t, "^/dev/", last.Group.Disks[0].Device)
	require.GreaterOrEqual(t, last.Group.Disks[0].WriteBytes, int64(30*4096))
	require.GreaterOrEqual(t, last.Tasks.Threads, 1)
	require.Eventually(t, func() bool { s := tick().Instances[0].Usage.Survey; return s != nil && len(s.Directories) == 1 },
		time.Minute, 50*time.Millisecond)
}
