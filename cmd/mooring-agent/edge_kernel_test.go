//go:build kernel

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/bpf/kerneltest"
)

// leased asks for a freeze until end under a lease, again and again for as
// long as is said, once a second.
func (n *node) leased(uid string, lease time.Duration, end time.Time, during time.Duration) *agentpb.Fault {
	n.t.Helper()
	var f *agentpb.Fault
	for begun := time.Now(); ; {
		r, err := n.apply(&agentpb.ApplyRequest{Uid: uid, Instance: id(n.orders), Desired: &agentpb.ApplyRequest_Fault{
			Fault: &agentpb.FaultSpec{Kind: "freeze", Duration: durationpb.New(time.Until(end)), NotAfter: timestamppb.New(end), Lease: durationpb.New(lease)},
		}})
		require.NoError(n.t, err)
		f = r.GetFault()
		if time.Since(begun) >= during {
			return f
		}
		require.Equal(n.t, "active", f.GetPhase())
		require.True(n.t, frozen(n.orders))
		time.Sleep(time.Second)
	}
}

// fault is what the agent says of it.
func (n *node) fault(uid string) *agentpb.Fault {
	for _, f := range n.status().GetFaults() {
		if f.GetUid() == uid {
			return f
		}
	}
	return nil
}

func TestLeasesAndTheirEvidence(t *testing.T) {
	n := newNode(t)
	n.start()
	t.Run("a fault nobody asks for any more ends with its lease and leaves nothing", func(t *testing.T) {
		before := n.controls()
		begun := time.Now()
		f := n.leased("l-quiet", 10*time.Second, begun.Add(4*time.Minute), 13*time.Second)
		require.Equal(t, "active", f.GetPhase())
		require.Eventually(t, func() bool { return n.phase("l-quiet") == "ended" }, 30*time.Second, 20*time.Millisecond)
		f = n.fault("l-quiet")
		require.Equal(t, "lease", f.GetReason())
		require.WithinRange(t, f.GetEnded().AsTime(), f.GetLeaseUntil().AsTime(), f.GetLeaseUntil().AsTime().Add(3*time.Second))
		require.True(t, f.GetVerified())
		require.Empty(t, f.GetResidue())
		require.Empty(t, f.GetError())
		require.Equal(t, before, n.controls())
		require.NoError(t, ping(n.orders))
	})
	t.Run("the keeper ends it when the agent dies, soon after the lease", func(t *testing.T) {
		f := n.leased("l-killed", 10*time.Second, time.Now().Add(4*time.Minute), 13*time.Second)
		require.Error(t, n.end(syscall.SIGKILL))
		require.True(t, frozen(n.orders))
		require.Eventually(t, func() bool { return !frozen(n.orders) }, 30*time.Second, time.Millisecond)
		require.WithinRange(t, time.Now(), f.GetLeaseUntil().AsTime(), f.GetLeaseUntil().AsTime().Add(6*time.Second))
		n.start()
		f = n.fault("l-killed")
		require.Equal(t, "recovered", f.GetReason())
		require.True(t, f.GetVerified())
		require.Empty(t, f.GetResidue())
	})
	t.Run("the next agent does not begin again what ended with this one", func(t *testing.T) {
		end := time.Now().Add(4 * time.Minute)
		n.leased("l-upgrade", time.Minute, end, 0)
		require.NoError(t, n.end(syscall.SIGTERM))
		require.False(t, frozen(n.orders))
		n.start()
		f := n.leased("l-upgrade", time.Minute, end, 0)
		require.Equal(t, "ended", f.GetPhase())
		require.Equal(t, "agent stopped", f.GetReason())
		require.True(t, f.GetVerified())
		require.False(t, frozen(n.orders))
	})
}

func TestTheAgentFindsItsWayOutOfACgroupNamespace(t *testing.T) {
	dir, err := os.Open(kerneltest.Cgroup(t))
	require.NoError(t, err)
	defer dir.Close()
	n := newNode(t)
	// As a container runtime does: a cgroup of its own, which is the root of
	// all paths from there on.
	n.attr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Unshareflags: unix.CLONE_NEWCGROUP}
	n.start()
	for _, in := range n.status().GetInstances() {
		require.Contains(t, []string{id(n.orders), id(n.ledger)}, in.GetCgroup())
		require.Equal(t, in.GetCgroup(), in.GetId())
		require.Empty(t, in.GetShared())
	}
	n.freeze("ns", time.Minute)
	_, err = n.apply(&agentpb.ApplyRequest{Uid: "ns", Withdraw: true})
	require.NoError(t, err)

	t.Run("and says so when it cannot", func(t *testing.T) {
		c := exec.Command("/proc/self/exe", "--check")
		c.Args[0] = "mooring-agent"
		c.Env = []string{joined}
		c.SysProcAttr = n.attr
		out, err := c.CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "cgroup namespace")
	})
}

func TestAKeeperSurvivesTheAgentsContainer(t *testing.T) {
	container := kerneltest.Cgroup(t)
	n := newNode(t)
	// The program lies where it will be gone, as a container's files are.
	n.exe = filepath.Join(t.TempDir(), "mooring-agent")
	program, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(n.exe, program, 0o755))
	dir, err := os.Open(container)
	require.NoError(t, err)
	defer dir.Close()
	n.attr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	n.start()
	f := n.freeze("k-gone", 10*time.Second)
	procs, err := os.ReadFile(filepath.Join(container, "cgroup.procs"))
	require.NoError(t, err)
	require.Equal(t, strconv.Itoa(n.cmd.Process.Pid), strings.TrimSpace(string(procs)), "the keeper is not in it")
	require.NoError(t, os.Remove(n.exe))
	require.Error(t, n.end(syscall.SIGKILL))
	require.NoError(t, os.Remove(container), "nothing holds the cgroup")
	require.True(t, frozen(n.orders))
	require.Eventually(t, func() bool { return !frozen(n.orders) }, 30*time.Second, time.Millisecond)
	require.WithinRange(t, time.Now(), f.GetDeadline().AsTime().Add(-50*time.Millisecond), f.GetDeadline().AsTime().Add(time.Second))
	require.NoError(t, ping(n.orders))
	// For the next test's clean-up.
	require.NoError(t, os.Mkdir(container, 0o755))
}
