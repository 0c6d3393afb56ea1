//go:build kernelv1

package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// controllers1 are the version 1 hierarchies in which the tests make their own
// cgroups.
func controllers1() []string { return []string{"cpu", "cpuacct", "cpuset", "memory", "freezer"} }

// group1 makes "mooring.test/db" in every hierarchy and opens it. It returns
// the group and the directories by controller.
func group1(t *testing.T) (*Group, map[string]string) {
	t.Helper()
	fs, err := New("/sys/fs/cgroup")
	require.NoError(t, err)
	require.Equal(t, 1, fs.Version(), "these tests need a host with cgroup version 1")
	paths, dirs := map[string]string{}, map[string]string{}
	for _, c := range controllers1() {
		parent := filepath.Join("/sys/fs/cgroup", c, "mooring.test")
		dirs[c] = filepath.Join(parent, "db")
		paths[c] = "/mooring.test/db"
		makeDir(t, parent)
		makeDir(t, dirs[c])
		if c == "cpuset" {
			for _, d := range []string{parent, dirs[c]} {
				put(t, filepath.Join(d, "cpuset.cpus"), get(t, "/sys/fs/cgroup/cpuset/cpuset.cpus"))
				put(t, filepath.Join(d, "cpuset.mems"), get(t, "/sys/fs/cgroup/cpuset/cpuset.mems"))
			}
		}
	}
	delete(paths, "cpuacct") // found on its own
	g, err := fs.Open(paths)
	require.NoError(t, err)
	return g, dirs
}

func startIn1(t *testing.T, sizeMiB int, dirs map[string]string) int {
	t.Helper()
	var all []string
	for _, c := range controllers1() {
		all = append(all, dirs[c])
	}
	return startIn(t, sizeMiB, all...)
}

func TestV1LimitsFollowAndReturn(t *testing.T) {
	g, dirs := group1(t)
	startIn1(t, 64, dirs)
	before, err := g.Stat()
	require.NoError(t, err)
	require.Zero(t, before.CPUMillicores)
	require.Zero(t, before.MemoryLimitBytes)
	require.Greater(t, before.MemoryInUseBytes, 60*mib, "the kernel counts in batches")
	require.Greater(t, before.MemoryUsageBytes, 60*mib)
	require.NotEmpty(t, before.CPUs)
	require.NotEmpty(t, before.MemoryNodes)
	require.Greater(t, before.NodeBytes[0], 60*mib)
	require.Positive(t, nodeShare(before, 0))

	set, err := g.PlanResize(before, Size{CPUMillicores: pointer(100), MemoryBytes: pointer(512 * mib)})
	require.NoError(t, err)
	first := apply(t, change.File, set...)
	s, err := g.Stat()
	require.NoError(t, err)
	require.Equal(t, int64(100), s.CPUMillicores)
	require.Equal(t, 512*mib, s.MemoryLimitBytes)
	require.Eventually(t, func() bool {
		now, err := g.Stat()
		return err == nil && now.CPUThrottled > s.CPUThrottled && now.CPUUsage > s.CPUUsage
	}, eventually, often, "a busy process is held back")

	// With a limit on memory and swap together both must move, in order.
	put(t, filepath.Join(dirs["memory"], "memory.memsw.limit_in_bytes"), "1073741824")
	for _, size := range []int64{1024, 256, 2048} {
		now, err := g.Stat()
		require.NoError(t, err)
		plan, err := g.PlanResize(now, Size{CPUMillicores: pointer(size), MemoryBytes: pointer(size * mib)})
		require.NoError(t, err)
		require.Len(t, plan, 3)
		done := apply(t, change.File, plan...)
		after, err := g.Stat()
		require.NoError(t, err)
		require.Equal(t, size, after.CPUMillicores)
		require.Equal(t, size*mib, after.MemoryLimitBytes)
		revert(t, done)
	}
	require.Equal(t, "1073741824", get(t, dirs["memory"], "memory.memsw.limit_in_bytes"))
	put(t, filepath.Join(dirs["memory"], "memory.memsw.limit_in_bytes"), "-1")
	revert(t, first)
	require.Equal(t, "-1", get(t, dirs["cpu"], "cpu.cfs_quota_us"))
	after, err := g.Stat()
	require.NoError(t, err)
	require.Zero(t, after.CPUMillicores)
	require.Zero(t, after.MemoryLimitBytes)
	require.Zero(t, after.OOMKills)
}

func TestV1ParentsAreRaisedFirstAndLoweredLast(t *testing.T) {
	g, dirs := group1(t)
	startIn1(t, 8, dirs)
	parent := filepath.Dir(dirs["cpu"])
	put(t, filepath.Join(parent, "cpu.cfs_quota_us"), "100000")
	put(t, filepath.Join(dirs["cpu"], "cpu.cfs_quota_us"), "100000")
	s, err := g.Stat()
	require.NoError(t, err)
	_, err = g.PlanResize(s, Size{CPUMillicores: pointer(1500)})
	require.ErrorContains(t, err, `above the 1000m that the cgroup "/mooring.test" over it allows`)
	up, err := g.PlanResize(s, Size{CPUMillicores: pointer(1500), Parents: true})
	require.NoError(t, err)
	raised := apply(t, change.File, up...)
	require.Equal(t, "150000", get(t, parent, "cpu.cfs_quota_us"))
	s, err = g.Stat()
	require.NoError(t, err)
	down, err := g.PlanResize(s, Size{CPUMillicores: pointer(500), Parents: true})
	require.NoError(t, err)
	lowered := apply(t, change.File, down...)
	require.Equal(t, "50000", get(t, parent, "cpu.cfs_quota_us"))
	revert(t, lowered)
	revert(t, raised)
	require.Equal(t, "100000", get(t, parent, "cpu.cfs_quota_us"))

	// The kernel's own refusal, as it reaches the operator.
	c := change.Change{Class: change.File, File: &up[len(up)-1]}
	require.ErrorContains(t, Files{}.Apply(c), "above the parent's share")
}

func TestV1ALimitBelowWhatIsInUseIsRefusedByTheKernel(t *testing.T) {
	g, dirs := group1(t)
	pid := startIn1(t, 64, dirs)
	s, err := g.Stat()
	require.NoError(t, err)
	require.ErrorContains(t, CheckMemory(s, 32*mib, false), "risk an OOM kill")
	require.NoError(t, CheckMemory(s, MemoryFloor(s), false))
	// Not to let the kernel swap its way below the limit.
	put(t, filepath.Join(dirs["memory"], "memory.swappiness"), "0")
	plan, err := g.PlanResize(s, Size{MemoryBytes: pointer(32 * mib)})
	require.NoError(t, err)
	c := change.Change{Class: change.File, File: &plan[0]}
	require.NoError(t, Files{}.Prepare(&c))
	err = Files{}.Apply(c)
	require.ErrorIs(t, err, unix.EBUSY)
	require.ErrorContains(t, err, "more is in use than the new limit")
	require.NoError(t, Files{}.Revert(c))
	require.NoError(t, unix.Kill(pid, 0))
	after, err := g.Stat()
	require.NoError(t, err)
	require.Zero(t, after.MemoryLimitBytes)
	require.Zero(t, after.OOMKills)
}

func TestV1PinAndGiveBack(t *testing.T) {
	g, dirs := group1(t)
	startIn1(t, 8, dirs)
	all := get(t, dirs["cpuset"], "cpuset.cpus")
	plan, err := g.PlanPin("0", "0")
	require.NoError(t, err)
	require.Equal(t, "1", plan[0].New, "pages follow")
	done := apply(t, change.File, plan...)
	s, err := g.Stat()
	require.NoError(t, err)
	require.Equal(t, "0", s.CPUs)
	require.Equal(t, "0", s.MemoryNodes)
	back, err := g.PlanPin("", "")
	require.NoError(t, err)
	apply(t, change.File, back...)
	require.Equal(t, all, get(t, dirs["cpuset"], "cpuset.cpus"))
	revert(t, done)
	require.Equal(t, all, get(t, dirs["cpuset"], "cpuset.cpus"))
	require.Equal(t, "0", get(t, dirs["cpuset"], "cpuset.memory_migrate"))
	_, err = g.PlanPin("500", "")
	require.ErrorContains(t, err, "not all allowed")
	for value, meaning := range map[string]string{"": "may not be made empty", "500": "above what this kernel"} {
		c := change.Change{Class: change.File, File: &change.FileChange{
			Path: filepath.Join(dirs["cpuset"], "cpuset.cpus"), CgroupID: plan[0].CgroupID, New: value,
		}}
		require.ErrorContains(t, Files{}.Apply(c), meaning)
	}
}

func TestV1FreezeAndThaw(t *testing.T) {
	g, dirs := group1(t)
	startIn1(t, 8, dirs)
	require.True(t, usageGrows(t, g))
	plan, err := g.PlanFreeze()
	require.NoError(t, err)
	done := apply(t, change.Freeze, plan)
	require.False(t, usageGrows(t, g))
	again := change.Change{Class: change.Freeze, File: &plan}
	require.ErrorContains(t, Files{}.Prepare(&again), "somebody else has frozen")
	revert(t, done)
	require.True(t, usageGrows(t, g))
}

func TestV1StrangersInAControllersCgroupAreLeftAlone(t *testing.T) {
	g, dirs := group1(t)
	startIn1(t, 8, dirs)
	startIn(t, 8, dirs["freezer"])
	_, err := g.PlanFreeze()
	require.ErrorContains(t, err, "also holds processes that are not in the memory cgroup")
	s, err := g.Stat()
	require.NoError(t, err)
	_, err = g.PlanResize(s, Size{CPUMillicores: pointer(500)})
	require.NoError(t, err, "cpu is the instance's alone")
}

func TestV1ARemovedCgroupIsGone(t *testing.T) {
	g, dirs := group1(t)
	plan, err := g.PlanFreeze()
	require.NoError(t, err)
	done := apply(t, change.Freeze, plan)
	require.NoError(t, unix.Rmdir(dirs["freezer"]))
	require.NoError(t, os.Mkdir(dirs["freezer"], 0o755))
	put(t, filepath.Join(dirs["freezer"], "freezer.state"), "FROZEN")
	revert(t, done)
	require.Equal(t, "FROZEN", get(t, dirs["freezer"], "freezer.state"), "not ours any more")
	require.ErrorIs(t, Files{}.Apply(done[0]), ErrGone)
	put(t, filepath.Join(dirs["freezer"], "freezer.state"), "THAWED")

	require.NoError(t, unix.Rmdir(dirs["memory"]))
	_, err = g.Stat()
	require.ErrorIs(t, err, ErrGone)
	_, err = g.PlanFreeze()
	require.ErrorIs(t, err, ErrGone)
}

func TestV1Probes(t *testing.T) {
	fs, err := New("/sys/fs/cgroup")
	require.NoError(t, err)
	for name, probe := range map[string]func() (string, error){
		"limits": fs.ProbeLimits, "cpuset": fs.ProbeCpuset, "freeze": fs.ProbeFreeze,
	} {
		t.Run(name, func(t *testing.T) {
			detail, err := probe()
			require.NoError(t, err)
			require.Contains(t, detail, "cgroup v1: ")
			t.Log(detail)
		})
	}
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + probeName)
	require.NoError(t, err)
	require.Empty(t, left)
}
