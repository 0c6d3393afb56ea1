package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

const testMiB = int64(1) << 20

// want is a Size as the tests write it; -1 leaves a limit alone.
func want(cpu, mib int64, parents bool) Size {
	s := Size{Parents: parents}
	if cpu >= 0 {
		s.CPUMillicores = &cpu
	}
	if mib >= 0 {
		mib *= testMiB
		s.MemoryBytes = &mib
	}
	return s
}

func TestPlanResizeOnVersion2(t *testing.T) {
	limited := tree{
		"pod/cpu.max": "250000 100000\n", "pod/db/cpu.max": "200000 100000\n",
		"pod/memory.max": "536870912\n", "pod/db/memory.max": "536870912\n",
	}
	for name, c := range map[string]struct {
		tree tree
		size Size
		want []string
		err  string
	}{
		"nothing asked":               {size: Size{}},
		"already so":                  {tree: limited, size: want(2000, 512, false)},
		"first limits":                {size: want(1500, 256, false), want: []string{"cpu.max=150000 100000", "memory.max=268435456"}},
		"first limits have no parent": {size: want(1500, 256, true), want: []string{"cpu.max=150000 100000", "memory.max=268435456"}},
		"the period is kept": {tree: tree{"pod/db/cpu.max": "max 50000\n"}, size: want(500, -1, false),
			want: []string{"cpu.max=25000 50000"}},
		"what grows comes first": {tree: limited, size: want(1000, 1024, true),
			want: []string{"pod/memory.max=1073741824", "memory.max=1073741824", "cpu.max=100000 100000"}},
		"within the parent": {tree: limited, size: want(2500, -1, false), want: []string{"cpu.max=250000 100000"}},
		"the parent keeps what it has for others": {tree: limited, size: want(4000, -1, true),
			want: []string{"pod/cpu.max=450000 100000", "cpu.max=400000 100000"}},
		"the parent is in the way": {tree: limited, size: want(4000, -1, false),
			err: `CPU limit 4000m is above the 2500m that the cgroup "/pod" over it allows`},
		"the parent is in the way of memory": {tree: limited, size: want(-1, 1024, false),
			err: `memory limit 1Gi is above the 512Mi that the cgroup "/pod" over it allows`},
		"a parent with the same limit is lowered last": {tree: limited, size: want(-1, 256, true),
			want: []string{"memory.max=268435456", "pod/memory.max=268435456"}},
		"a parent with another limit stays": {tree: limited, size: want(1000, -1, true), want: []string{"cpu.max=100000 100000"}},
		"a parent that may not be changed":  {tree: limited, size: want(-1, 256, false), want: []string{"memory.max=268435456"}},
		"limits taken away": {tree: limited, size: want(0, 0, true),
			want: []string{"cpu.max=max 100000", "memory.max=max"}},
		"too little CPU": {size: want(9, -1, false), err: "CPU limit 9m is below 10m, the least the kernel accepts"},
		"negative":       {size: Size{CPUMillicores: new(int64(-5))}, err: "CPU limit -5 is negative"},
		"absurd":         {size: want(1<<62, -1, false), err: "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tree2()
			for file, content := range c.tree {
				tr[file] = content
			}
			root := tr.make(t, t.TempDir())
			g := open(t, root, 2)
			s, err := g.Stat()
			require.NoError(t, err)
			plan, err := g.PlanResize(s, c.size)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				require.ErrorContains(t, err, `resize cgroup "/pod/db"`)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, listed(plan))
			require.Equal(t, tr, snapshot(t, root), "a plan writes nothing")
		})
	}
}

func TestPlanResizeOnVersion1(t *testing.T) {
	limited := tree{
		"cpu/pod/cpu.cfs_quota_us": "200000\n", "cpu/pod/db/cpu.cfs_quota_us": "200000\n",
		"memory/pod/memory.limit_in_bytes": "536870912\n", "memory/pod/db/memory.limit_in_bytes": "536870912\n",
		"memory/pod/db/memory.memsw.limit_in_bytes": "805306368\n",
	}
	for name, c := range map[string]struct {
		size Size
		want []string
		err  string
	}{
		"up, with swap before it": {size: want(3000, 1024, true), want: []string{
			"pod/cpu.cfs_quota_us=300000", "cpu.cfs_quota_us=300000",
			"pod/memory.limit_in_bytes=1073741824", "memory.memsw.limit_in_bytes=1342177280", "memory.limit_in_bytes=1073741824"}},
		"down, with swap after it": {size: want(1000, 256, true), want: []string{
			"cpu.cfs_quota_us=100000", "pod/cpu.cfs_quota_us=100000",
			"memory.limit_in_bytes=268435456", "memory.memsw.limit_in_bytes=536870912", "pod/memory.limit_in_bytes=268435456"}},
		"taken away": {size: want(0, 0, false), want: []string{
			"cpu.cfs_quota_us=-1", "memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"}},
		"the parent is in the way": {size: want(3000, -1, false), err: `above the 2000m that the cgroup "/pod" over it allows`},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tree1()
			for file, content := range limited {
				tr[file] = content
			}
			g := open(t, tr.make(t, t.TempDir()), 1)
			s, err := g.Stat()
			require.NoError(t, err)
			plan, err := g.PlanResize(s, c.size)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, listed(plan))
		})
	}
}

func TestPlanResizeNeverChangesWhatIsAboveTheParent(t *testing.T) {
	tr := tree2()
	tr["cpu.max"] = "100000 100000\n" // the root of a cgroup namespace has limits
	g := open(t, tr.make(t, t.TempDir()), 2)
	_, err := g.PlanResize(Stat{CPUMillicores: 500}, want(2000, -1, true))
	require.ErrorContains(t, err, `above the 1000m that the cgroup "/" over it allows`)
}

func TestPlanPin(t *testing.T) {
	for name, c := range map[string]struct {
		tree       tree
		cpus, mems string
		want       []string
		err        string
	}{
		"to a node":            {cpus: "4-7", mems: "1", want: []string{"cpuset.cpus=4-7", "cpuset.mems=1"}},
		"spelt another way":    {cpus: "7,6,4-5", mems: "1\n", want: []string{"cpuset.cpus=4-7", "cpuset.mems=1"}},
		"only memory":          {tree: tree{"pod/db/cpuset.cpus": "4-7\n"}, cpus: "4,5,6,7", mems: "1", want: []string{"cpuset.mems=1"}},
		"given back":           {tree: tree{"pod/db/cpuset.cpus": "4-7\n"}, want: []string{"cpuset.cpus="}},
		"given back already":   {tree: tree{"pod/db/cpuset.cpus": "0-7\n"}},
		"outside the parent":   {cpus: "6-9", mems: "1", err: `CPUs "6-9" are not all allowed by the cgroup "/pod" above it, which has "0-7"`},
		"a node that is not":   {cpus: "0", mems: "2", err: `memory nodes "2" are not all allowed`},
		"not a list":           {cpus: "all", mems: "0", err: `"all" is not a list of CPUs or nodes`},
		"without a controller": {tree: tree{"pod/db/cpuset.cpus": ""}, cpus: "0", mems: "0", err: "switching controllers on is left to its owner"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tree2()
			for file, content := range c.tree {
				tr[file] = content
				if content == "" {
					delete(tr, file)
				}
			}
			plan, err := open(t, tr.make(t, t.TempDir()), 2).PlanPin(c.cpus, c.mems)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, listed(plan))
		})
	}
	t.Run("on version 1 pages follow and an empty list is the parent's", func(t *testing.T) {
		g := open(t, tree1().make(t, t.TempDir()), 1)
		plan, err := g.PlanPin("4-7", "1")
		require.NoError(t, err)
		require.Equal(t, []string{"cpuset.memory_migrate=1", "cpuset.cpus=4-7", "cpuset.mems=1"}, listed(plan))
		plan, err = g.PlanPin("", "")
		require.NoError(t, err)
		require.Empty(t, plan)
		plan, err = g.PlanPin("4-7", "")
		require.NoError(t, err)
		require.Equal(t, []string{"cpuset.memory_migrate=1", "cpuset.cpus=4-7"}, listed(plan))
	})
}

func TestPlanFreeze(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	plan, err := open(t, root, 2).PlanFreeze()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "pod/db/cgroup.freeze"), plan.Path)
	require.Equal(t, "1", plan.New)
	require.NotZero(t, plan.CgroupID)

	root = tree1().make(t, t.TempDir())
	plan, err = open(t, root, 1).PlanFreeze()
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "freezer/pod/db/freezer.state"), plan.Path)
	require.Equal(t, "FROZEN", plan.New)
	id, err := inode(filepath.Join(root, "freezer/pod/db"))
	require.NoError(t, err)
	require.Equal(t, id, plan.CgroupID, "of the freezer's directory")
}

func TestVersion1ChangesOnlyWhatIsTheInstancesAlone(t *testing.T) {
	root := tree1().make(t, t.TempDir())
	f, err := New(root)
	require.NoError(t, err)
	t.Run("not the root", func(t *testing.T) {
		g, err := f.Open(map[string]string{"cpu": "/pod/db", "memory": "/pod/db", "cpuset": "/", "freezer": "/"})
		require.NoError(t, err)
		s, err := g.Stat()
		require.NoError(t, err)
		require.Equal(t, "0-7", s.CPUs, "it can be read")
		_, err = g.PlanPin("0", "0")
		require.ErrorContains(t, err, "the root that holds everything on the node")
		_, err = g.PlanFreeze()
		require.ErrorContains(t, err, "the root that holds everything on the node")
	})
	t.Run("not what is not known", func(t *testing.T) {
		g, err := f.Open(map[string]string{"cpu": "/pod/db", "memory": "/pod/db"})
		require.NoError(t, err)
		_, err = g.PlanFreeze()
		require.ErrorContains(t, err, `cgroup "/pod/db" has no freezer controller`)
	})
	t.Run("not what others share", func(t *testing.T) {
		require.NoError(t, os.WriteFile(filepath.Join(root, "cpu/pod/cgroup.procs"), []byte("7\n"), 0o644))
		g, err := f.Open(map[string]string{"cpu": "/pod", "memory": "/pod/db"})
		require.NoError(t, err)
		_, err = g.PlanResize(Stat{}, want(1000, -1, false))
		require.ErrorContains(t, err, `the cpu cgroup "/pod" also holds processes that are not in the memory cgroup "/pod/db" (pid 7)`)
	})
}
