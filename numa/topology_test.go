package numa

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const gib = int64(1) << 30

func fixture(t require.TestingT, name string) *Topology {
	topology, err := Read(filepath.Join("testdata/topology", name), "testdata/no-such-proc")
	require.NoError(t, err)
	return topology
}

func TestReadTwoSockets(t *testing.T) {
	require.Equal(t, &Topology{Nodes: []Node{
		{
			ID:                  0,
			CPUs:                NewCPUSet(0, 1, 2, 3, 8, 9, 10, 11),
			Cores:               [][]int{{0, 8}, {1, 9}, {2, 10}, {3, 11}},
			MemTotalBytes:       64 * gib,
			MemFreeBytes:        40 * gib,
			MemReclaimableBytes: 16 * gib,
			HugePages:           map[int64]HugePages{2 << 20: {Total: 512, Free: 512}, 1 << 30: {}},
			Distances:           []int{10, 21},
		},
		{
			ID:                  1,
			CPUs:                NewCPUSet(4, 5, 6, 7, 12, 13, 14, 15),
			Cores:               [][]int{{4, 12}, {5, 13}, {6, 14}, {7, 15}},
			MemTotalBytes:       64 * gib,
			MemFreeBytes:        56 * gib,
			MemReclaimableBytes: 4 * gib,
			HugePages:           map[int64]HugePages{2 << 20: {Total: 1024, Free: 256}, 1 << 30: {}},
			Distances:           []int{21, 10},
		},
	}}, fixture(t, "2-socket"))
}

func TestReadLeavesOutIsolatedAndOfflineCPUs(t *testing.T) {
	topology := fixture(t, "4-node-asym")
	require.Equal(t, "0-2,4", topology.NodeIDs().String())
	require.Equal(t, "0-2", topology.Node(0).CPUs.String())
	require.Equal(t, "12,14-15", topology.Node(4).CPUs.String())
	require.Equal(t, [][]int{{12}, {14}, {15}}, topology.Node(4).Cores)
	require.Equal(t, []int{33, 32, 16, 10}, topology.Node(4).Distances)
	require.Nil(t, topology.Node(3))
}

func TestReadKeepsMemoryOnlyNodes(t *testing.T) {
	node := fixture(t, "cxl").Node(2)
	require.Zero(t, node.CPUs.Len())
	require.Empty(t, node.Cores)
	require.Equal(t, 256*gib, node.MemTotalBytes)
}

func TestReadShowsAKernelWithoutNUMAAsOneNode(t *testing.T) {
	topology, err := Read("testdata/topology/no-numa/sys", "testdata/topology/no-numa/proc")
	require.NoError(t, err)
	require.Equal(t, &Topology{Nodes: []Node{{
		CPUs:                NewCPUSet(0, 1),
		Cores:               [][]int{{0}, {1}},
		MemTotalBytes:       4 * gib,
		MemFreeBytes:        1 * gib,
		MemReclaimableBytes: 768 << 20,
		Distances:           []int{10},
	}}}, topology)
}

func TestReadRefusesADamagedTree(t *testing.T) {
	for name, damage := range map[string]struct{ file, content, want string }{
		"no CPU online":           {"devices/system/cpu/online", "\n", "no CPU is online"},
		"bad online list":         {"devices/system/cpu/online", "0-x\n", "parse CPU list"},
		"bad isolated list":       {"devices/system/cpu/isolated", "?\n", "parse CPU list"},
		"bad node list":           {"devices/system/node/node1/cpulist", "3-1\n", "NUMA node 1"},
		"too few distances":       {"devices/system/node/node0/distance", "10\n", "distance has 1 values for 2 nodes"},
		"distance not a number":   {"devices/system/node/node0/distance", "10 far\n", `"far" is not a distance`},
		"memory without a total":  {"devices/system/node/node0/meminfo", "Node 0 MemFree: 1 kB\n", "no MemTotal"},
		"memory in another unit":  {"devices/system/node/node0/meminfo", "Node 0 MemTotal: 1 MB\n", "not a size in kB"},
		"memory beyond all sense": {"devices/system/node/node0/meminfo", "Node 0 MemTotal: 9223372036854775807 kB\n", "not a size in kB"},
		"bad huge page count":     {"devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "x\n", "is not a number"},
		"bad siblings":            {"devices/system/cpu/cpu0/topology/thread_siblings_list", "x\n", "parse CPU list"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			require.NoError(t, os.CopyFS(root, os.DirFS("testdata/topology/2-socket")))
			require.NoError(t, os.WriteFile(filepath.Join(root, damage.file), []byte(damage.content), 0o644))
			_, err := Read(root, root)
			require.ErrorContains(t, err, damage.want)
		})
	}
	t.Run("no tree at all", func(t *testing.T) {
		_, err := Read(t.TempDir(), t.TempDir())
		require.ErrorIs(t, err, os.ErrNotExist)
	})
}

func FuzzParseMeminfo(f *testing.F) {
	f.Add("Node 0 MemTotal: 4 kB\nNode 0 Active(file): 1 kB\n")
	f.Add("MemTotal: 4 kB\nMemFree: -1 kB\n")
	f.Add("MemTotal:\n")
	f.Fuzz(func(t *testing.T, text string) {
		var n Node
		if parseMeminfo(strings.NewReader(text), &n) == nil {
			require.GreaterOrEqual(t, n.MemTotalBytes, int64(0))
			require.GreaterOrEqual(t, n.MemFreeBytes, int64(0))
		}
	})
}
