package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestStat(t *testing.T) {
	page := int64(os.Getpagesize())
	want := Stat{
		CPUUsage:         5 * time.Second,
		CPUThrottled:     250 * time.Millisecond,
		MemoryUsageBytes: 1 << 30,
		OOMKills:         1,
		CPUs:             "0-7",
		MemoryNodes:      "0-1",
	}
	t.Run("of version 2", func(t *testing.T) {
		want := want
		want.MemoryInUseBytes = 419430400 + 104857600 + 4096 + 10485760
		want.NodeBytes = map[int]int64{0: 524288000, 1: 0}
		got, err := open(t, tree2().make(t, t.TempDir()), 2).Stat()
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
	t.Run("of version 1", func(t *testing.T) {
		want := want
		want.MemoryInUseBytes = 419430400 + 104857600 + 20971520
		want.NodeBytes = map[int]int64{0: 10 * page, 1: 20 * page}
		got, err := open(t, tree1().make(t, t.TempDir()), 1).Stat()
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
	t.Run("of kernels that tell less", func(t *testing.T) {
		tr := tree2()
		delete(tr, "pod/db/memory.numa_stat")
		tr["pod/db/memory.stat"] = "anon 100\nshmem 10\nslab_unreclaimable 1\nkernel_stack 2\npagetables 4\npercpu 8\nslab_reclaimable 1000\n"
		got, err := open(t, tr.make(t, t.TempDir()), 2).Stat()
		require.NoError(t, err)
		require.Nil(t, got.NodeBytes)
		require.Equal(t, int64(125), got.MemoryInUseBytes)

		tr = tree1()
		delete(tr, "memory/pod/db/memory.kmem.usage_in_bytes")
		tr["memory/pod/db/memory.numa_stat"] = "total=3 N0=1 N1=2\n"
		got, err = open(t, tr.make(t, t.TempDir()), 1).Stat()
		require.NoError(t, err)
		require.Equal(t, int64(524288000), got.MemoryInUseBytes)
		require.Equal(t, map[int]int64{0: page, 1: 2 * page}, got.NodeBytes)
	})
}

func TestOOMKillsAboveAreThoseOfThePod(t *testing.T) {
	tr := tree2()
	tr["pod/memory.events"] = "low 0\nhigh 0\nmax 40\noom 5\noom_kill 3\noom_group_kill 1\n"
	n, ok, err := open(t, tr.make(t, t.TempDir()), 2).OOMKillsAbove()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, int64(3), n)

	delete(tr, "pod/memory.events")
	_, ok, err = open(t, tr.make(t, t.TempDir()), 2).OOMKillsAbove()
	require.NoError(t, err, "the root has no such file")
	require.False(t, ok)

	tr["pod/memory.events"] = "oom_kill many\n"
	_, _, err = open(t, tr.make(t, t.TempDir()), 2).OOMKillsAbove()
	require.ErrorContains(t, err, "is not a key and a number")

	_, ok, err = open(t, tree1().make(t, t.TempDir()), 1).OOMKillsAbove()
	require.NoError(t, err)
	require.False(t, ok, "version 1 counts in the cgroup itself alone")
}

func TestStatReadsLimitsAndWhatIsAbove(t *testing.T) {
	t.Run("with limits", func(t *testing.T) {
		tr := tree2()
		tr["pod/db/cpu.max"], tr["pod/db/memory.max"] = "75000 50000\n", "2147483648\n"
		got, err := open(t, tr.make(t, t.TempDir()), 2).Stat()
		require.NoError(t, err)
		require.Equal(t, int64(1500), got.CPUMillicores)
		require.Equal(t, int64(2<<30), got.MemoryLimitBytes)
		tr = tree1()
		tr["cpu/pod/db/cpu.cfs_quota_us"], tr["memory/pod/db/memory.limit_in_bytes"] = "150000\n", "2147483648\n"
		got, err = open(t, tr.make(t, t.TempDir()), 1).Stat()
		require.NoError(t, err)
		require.Equal(t, int64(1500), got.CPUMillicores)
		require.Equal(t, int64(2<<30), got.MemoryLimitBytes)
	})
	t.Run("takes the cpuset from above where there is none", func(t *testing.T) {
		tr := tree2()
		for _, dir := range []string{"pod/db", "pod"} {
			delete(tr, dir+"/cpuset.cpus.effective")
			delete(tr, dir+"/cpuset.mems.effective")
		}
		tr["cpuset.cpus.effective"] = "0-3\n"
		got, err := open(t, tr.make(t, t.TempDir()), 2).Stat()
		require.NoError(t, err)
		require.Equal(t, "0-3", got.CPUs)
	})
}

func TestStatRefusesDamagedFiles(t *testing.T) {
	for file, want := range map[string]string{
		"memory.current":   "controller is not enabled",
		"memory.stat":      "memory.stat",
		"memory.numa_stat": "is not a node and a number",
		"cpu.max":          "is not a CPU limit and a period",
		"memory.max":       "is not a size in bytes",
	} {
		t.Run("with a bad "+file+" is an error", func(t *testing.T) {
			root := tree2().make(t, t.TempDir())
			name := filepath.Join(root, "pod/db", file)
			if strings.Contains(want, "not enabled") {
				require.NoError(t, os.Remove(name))
			} else {
				require.NoError(t, os.WriteFile(name, []byte("anon bad\n"), 0o644))
			}
			_, err := open(t, root, 2).Stat()
			require.ErrorContains(t, err, want)
			require.NotErrorIs(t, err, ErrGone)
		})
	}
}

func TestMemoryFloorLeavesHeadroom(t *testing.T) {
	const mib = 1 << 20
	require.Equal(t, int64(464*mib), MemoryFloor(Stat{MemoryInUseBytes: 400 * mib}))
	require.Equal(t, int64(8400*mib), MemoryFloor(Stat{MemoryInUseBytes: 8000 * mib}))
}

func TestCheckMemory(t *testing.T) {
	const mib = 1 << 20
	s := Stat{MemoryInUseBytes: 400 * mib, MemoryLimitBytes: 440 * mib}
	require.EqualError(t, CheckMemory(s, 256*mib, false), "memory limit 256Mi is below what the database has in use (400Mi) "+
		"plus headroom (64Mi): lower the database's cache first, or use --force and risk an OOM kill")
	require.NoError(t, CheckMemory(s, 256*mib, true), "forced")
	require.Error(t, CheckMemory(s, 439*mib, false), "lowered, and too near")
	require.NoError(t, CheckMemory(s, 450*mib, false), "raised, though not enough")
	require.NoError(t, CheckMemory(s, 0, false), "no limit")
	s.MemoryLimitBytes = 0
	require.Error(t, CheckMemory(s, 463*mib, false))
	require.NoError(t, CheckMemory(s, 464*mib, false))
}

func FuzzParseKeys(f *testing.F) {
	f.Add("anon 1\nfile 2\n")
	f.Add("anon 18446744073709551615\n")
	f.Add("anon\n")
	f.Fuzz(func(t *testing.T, s string) {
		keys, err := parseKeys(strings.NewReader(s))
		if err != nil {
			return
		}
		for k, v := range keys {
			require.GreaterOrEqual(t, v, int64(0), k)
		}
	})
}

func FuzzParseNodeStat(f *testing.F) {
	f.Add("anon N0=1 N1=2\nfile N0=3\n")
	f.Add("anon=3 N0=9223372036854775807 N0=1\n")
	f.Add("anon N-1=2\n")
	f.Fuzz(func(t *testing.T, s string) {
		nodes, err := parseNodeStat(strings.NewReader(s), 4096, "anon", "file")
		if err != nil {
			return
		}
		for n, v := range nodes {
			require.GreaterOrEqual(t, n, 0)
			require.GreaterOrEqual(t, v, int64(0))
		}
	})
}

func FuzzParseList(f *testing.F) {
	for _, s := range []string{"", "0", "0-3,8", "3-1", "1,1,0-5", "4294967295"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseList(s)
		if err != nil {
			return
		}
		require.True(t, sameList(s, l.String()))
		require.True(t, l.within(list{{0, maxListed}}))
	})
}

func FuzzParseCPUMax(f *testing.F) {
	for _, s := range []string{"max 100000", "1 1", "max", "9223372036854775807 1", "0 0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseCPUMax(s)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, l.millicores(), int64(0))
		require.True(t, sameCPUMax(s, s))
	})
}
