//go:build kernel

package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

const (
	root2   = "/sys/fs/cgroup"
	parent2 = root2 + "/mooring.test"
	child2  = parent2 + "/db"
)

// group2 makes "mooring.test/db" with the controllers that the machine gives
// to the root's children, and opens it.
func group2(t *testing.T) *Group {
	t.Helper()
	fs, err := New(root2)
	require.NoError(t, err)
	require.Equal(t, 2, fs.Version(), "these tests need cgroup version 2")
	makeDir(t, parent2)
	put(t, parent2+"/cgroup.subtree_control", "+cpu +memory +cpuset")
	makeDir(t, child2)
	g, err := fs.Open(map[string]string{"": "/mooring.test/db"})
	require.NoError(t, err)
	return g
}

func stat(t *testing.T, g *Group) Stat {
	t.Helper()
	s, err := g.Stat()
	require.NoError(t, err)
	return s
}

func TestLimitsFollowAndReturn(t *testing.T) {
	g := group2(t)
	pid := startIn(t, 64, child2)
	before := stat(t, g)
	require.Zero(t, before.CPUMillicores)
	require.Zero(t, before.MemoryLimitBytes)
	require.Greater(t, before.MemoryInUseBytes, 60*mib, "the kernel counts in batches")
	require.Greater(t, before.MemoryUsageBytes, 60*mib)
	require.Equal(t, "0-1", before.CPUs)
	require.Equal(t, "0-1", before.MemoryNodes)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(child2, &st))
	require.Equal(t, st.Ino, g.ID())
	pids, err := g.Procs()
	require.NoError(t, err)
	require.Equal(t, []int{pid}, pids)

	put(t, child2+"/cpu.max", "max 50000")
	plan, err := g.PlanResize(before, Size{CPUMillicores: pointer(500), MemoryBytes: pointer(512*mib + 1)})
	require.NoError(t, err)
	done := apply(t, change.File, plan...)
	require.Equal(t, "25000 50000", get(t, child2, "cpu.max"), "the period is kept")
	s := stat(t, g)
	require.Equal(t, int64(500), s.CPUMillicores)
	require.Equal(t, 512*mib, s.MemoryLimitBytes, "rounded to a page")
	require.Eventually(t, func() bool {
		now := stat(t, g)
		return now.CPUThrottled > s.CPUThrottled && now.CPUUsage > s.CPUUsage
	}, eventually, often, "a busy process is held back")

	up, err := g.PlanResize(s, Size{CPUMillicores: pointer(1500), MemoryBytes: pointer(1024 * mib)})
	require.NoError(t, err)
	upDone := apply(t, change.File, up...)
	require.Equal(t, "75000 50000", get(t, child2, "cpu.max"))
	revert(t, upDone)
	revert(t, done)
	require.Equal(t, "max 50000", get(t, child2, "cpu.max"))
	require.Equal(t, "max", get(t, child2, "memory.max"))
	require.Zero(t, stat(t, g).OOMKills)
}

func TestParentsAreRaisedFirstAndLoweredLast(t *testing.T) {
	g := group2(t)
	startIn(t, 8, child2)
	for _, dir := range []string{parent2, child2} {
		put(t, dir+"/memory.max", "268435456")
		put(t, dir+"/cpu.max", "100000 100000")
	}
	s := stat(t, g)
	bigger := Size{CPUMillicores: pointer(2000), MemoryBytes: pointer(512 * mib)}
	_, err := g.PlanResize(s, bigger)
	require.ErrorContains(t, err, `above the 1000m that the cgroup "/mooring.test" over it allows`)
	bigger.Parents = true
	plan, err := g.PlanResize(s, bigger)
	require.NoError(t, err)
	raised := apply(t, change.File, plan...)
	require.Equal(t, "536870912", get(t, parent2, "memory.max"))
	require.Equal(t, "200000 100000", get(t, parent2, "cpu.max"))
	plan, err = g.PlanResize(stat(t, g), Size{CPUMillicores: pointer(1000), MemoryBytes: pointer(256 * mib), Parents: true})
	require.NoError(t, err)
	lowered := apply(t, change.File, plan...)
	require.Equal(t, "268435456", get(t, parent2, "memory.max"))
	revert(t, lowered)
	revert(t, raised)
	require.Equal(t, "100000 100000", get(t, parent2, "cpu.max"))
	require.Equal(t, "268435456", get(t, parent2, "memory.max"))
}

func TestALimitBelowWhatIsInUseIsRefusedAndWouldKill(t *testing.T) {
	g := group2(t)
	startIn(t, 64, child2)
	s := stat(t, g)
	require.ErrorContains(t, CheckMemory(s, 32*mib, false), "risk an OOM kill")
	floor := MemoryFloor(s)
	require.NoError(t, CheckMemory(s, floor, false))
	plan, err := g.PlanResize(s, Size{MemoryBytes: &floor})
	require.NoError(t, err)
	apply(t, change.File, plan...)
	require.Zero(t, stat(t, g).OOMKills, "the floor is safe")

	// What the refusal is about: the kernel takes the limit and kills.
	plan, err = g.PlanResize(stat(t, g), Size{MemoryBytes: pointer(16 * mib)})
	require.NoError(t, err)
	apply(t, change.File, plan...)
	require.Eventually(t, func() bool { return stat(t, g).OOMKills > 0 }, eventually, often)
}

func TestPinMovesThePagesAlong(t *testing.T) {
	g := group2(t)
	home, err := g.PlanPin("0", "0")
	require.NoError(t, err)
	atHome := apply(t, change.File, home...)
	startIn(t, 64, child2)
	require.Greater(t, nodeShare(stat(t, g), 0), 0.9)

	away, err := g.PlanPin("1", "1")
	require.NoError(t, err)
	require.Len(t, away, 2)
	moved := apply(t, change.File, away...)
	require.Eventually(t, func() bool { return nodeShare(stat(t, g), 1) > 0.9 }, eventually, often)
	s := stat(t, g)
	require.Equal(t, "1", s.CPUs)
	require.Equal(t, "1", s.MemoryNodes)
	require.Greater(t, s.NodeBytes[1], 60*mib)
	same, err := g.PlanPin("1", "1")
	require.NoError(t, err)
	require.Empty(t, same, "what is in place is not written again")

	revert(t, moved)
	require.Eventually(t, func() bool { return nodeShare(stat(t, g), 0) > 0.9 }, eventually, often)
	back, err := g.PlanPin("", "")
	require.NoError(t, err)
	apply(t, change.File, back...)
	require.Equal(t, "0-1", stat(t, g).CPUs)
	again, err := g.PlanPin("", "")
	require.NoError(t, err)
	require.Empty(t, again, "it is given back already")
	revert(t, atHome)
	require.Equal(t, "0-1", stat(t, g).MemoryNodes)
}

func TestAnEmptyCgroupGetsItsEmptyCpusetBack(t *testing.T) {
	g := group2(t)
	plan, err := g.PlanPin("1", "1")
	require.NoError(t, err)
	revert(t, apply(t, change.File, plan...))
	require.Empty(t, get(t, child2, "cpuset.cpus"))
	require.Empty(t, get(t, child2, "cpuset.mems"))
}

func TestAPinThatTheParentOverridesIsAnError(t *testing.T) {
	g := group2(t)
	_, err := g.PlanPin("7", "0")
	require.ErrorContains(t, err, `CPUs "7" are not all allowed by the cgroup "/mooring.test" above it, which has "0-1"`)
	stale, err := g.PlanPin("1", "")
	require.NoError(t, err)
	put(t, parent2+"/cpuset.cpus", "0")
	c := change.Change{Class: change.File, File: &stale[0]}
	require.NoError(t, Files{}.Prepare(&c))
	require.ErrorContains(t, Files{}.Apply(c), "a cgroup above it overrides it")
	require.NoError(t, Files{}.Revert(c))

	c.File.Path = child2 + "/cpuset.mems"
	c.File.New = "5"
	require.ErrorContains(t, Files{}.Apply(c), "a node does not exist or has no memory")
}

func TestFreezeAndThaw(t *testing.T) {
	g := group2(t)
	startIn(t, 8, child2)
	require.True(t, usageGrows(t, g))
	plan, err := g.PlanFreeze()
	require.NoError(t, err)
	done := apply(t, change.Freeze, plan)
	require.Contains(t, get(t, child2, "cgroup.events"), "frozen 1")
	require.False(t, usageGrows(t, g))
	again := change.Change{Class: change.Freeze, File: &plan}
	require.ErrorContains(t, Files{}.Prepare(&again), "somebody else has frozen")
	revert(t, done)
	require.True(t, usageGrows(t, g))
}

func TestAThawBelowAFrozenParentIsAnError(t *testing.T) {
	g := group2(t)
	startIn(t, 8, child2)
	plan, err := g.PlanFreeze()
	require.NoError(t, err)
	done := apply(t, change.Freeze, plan)
	put(t, parent2+"/cgroup.freeze", "1")
	require.ErrorContains(t, Files{}.Revert(done[0]), "a cgroup above it may be frozen too")
	put(t, parent2+"/cgroup.freeze", "0")
	revert(t, done)
	require.True(t, usageGrows(t, g))
}

func TestARemovedCgroupIsGone(t *testing.T) {
	g := group2(t)
	plan, err := g.PlanResize(stat(t, g), Size{CPUMillicores: pointer(500)})
	require.NoError(t, err)
	done := apply(t, change.File, plan...)
	require.NoError(t, unix.Rmdir(child2))
	_, err = g.Stat()
	require.ErrorIs(t, err, ErrGone)
	revert(t, done)
	require.ErrorIs(t, Files{}.Apply(done[0]), ErrGone)

	require.NoError(t, os.Mkdir(child2, 0o755))
	put(t, child2+"/cpu.max", "70000 100000")
	revert(t, done)
	require.Equal(t, "70000 100000", get(t, child2, "cpu.max"), "not ours any more")
	require.ErrorIs(t, Files{}.Apply(done[0]), ErrGone)
	_, err = g.PlanFreeze()
	require.ErrorIs(t, err, ErrGone)
}

func TestAControllerThatIsOffIsNamed(t *testing.T) {
	g := group2(t)
	put(t, parent2+"/cgroup.subtree_control", "-cpuset")
	_, err := g.PlanPin("0", "0")
	require.ErrorContains(t, err, "the cpuset controller is not enabled for this cgroup")
	require.Equal(t, "0-1", stat(t, g).CPUs, "from the cgroup above")

	plan, err := g.PlanResize(stat(t, g), Size{CPUMillicores: pointer(500)})
	require.NoError(t, err)
	done := apply(t, change.File, plan...)
	put(t, parent2+"/cgroup.subtree_control", "-cpu")
	require.ErrorContains(t, Files{}.Revert(done[0]), "the controller is not enabled")
	require.NotErrorIs(t, Files{}.Revert(done[0]), ErrGone)
	require.NotContains(t, get(t, parent2, "cgroup.subtree_control"), "cpu", "nothing was switched on")
}

func TestControlFilesAreOpenedForBlockingWrites(t *testing.T) {
	group2(t)
	id, err := inode(child2)
	require.NoError(t, err)
	target, err := Files{}.target(change.Change{Class: change.File,
		File: &change.FileChange{Path: child2 + "/memory.max", CgroupID: id}})
	require.NoError(t, err)
	fd, err := target.open()
	require.NoError(t, err)
	defer unix.Close(fd)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.Zero(t, flags&(unix.O_NONBLOCK|unix.O_CREAT|unix.O_TRUNC))
}

func TestProbes(t *testing.T) {
	fs, err := New(root2)
	require.NoError(t, err)
	probes := map[string]func() (string, error){
		"limits": fs.ProbeLimits, "cpuset": fs.ProbeCpuset, "freeze": fs.ProbeFreeze,
	}
	for name, probe := range probes {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.Mkdir(filepath.Join(root2, probeName), 0o755), "as left by a killed agent")
			detail, err := probe()
			require.NoError(t, err)
			require.Contains(t, detail, "cgroup v2: ")
			require.NoDirExists(t, filepath.Join(root2, probeName))
		})
	}
	t.Run("a controller that is not given to the root's children is named", func(t *testing.T) {
		had := strings.Fields(get(t, root2, "cgroup.subtree_control"))
		put(t, root2+"/cgroup.subtree_control", "-cpuset")
		t.Cleanup(func() { put(t, root2+"/cgroup.subtree_control", "+"+strings.Join(had, " +")) })
		_, err := fs.ProbeCpuset()
		require.ErrorContains(t, err, "the cpuset controller is not enabled for cgroups below the root")
		require.NoDirExists(t, filepath.Join(root2, probeName))
	})
}
