//go:build kernel

package numa

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadThisMachine needs the virtual machine of cmd/vmtest: two nodes with
// one CPU each at a distance of 21.
func TestReadThisMachine(t *testing.T) {
	topology, err := Read("/sys", "/proc")
	require.NoError(t, err)
	require.Len(t, topology.Nodes, 2)
	for i, n := range topology.Nodes {
		require.Equal(t, i, n.ID)
		require.Equal(t, NewCPUSet(i), n.CPUs)
		require.Equal(t, [][]int{{i}}, n.Cores)
		require.Greater(t, n.MemTotalBytes, int64(256<<20))
		require.Positive(t, n.MemFreeBytes)
		require.LessOrEqual(t, n.MemFreeBytes+n.MemReclaimableBytes, n.MemTotalBytes)
	}
	require.Equal(t, []int{10, 21}, topology.Nodes[0].Distances)
	require.Equal(t, []int{21, 10}, topology.Nodes[1].Distances)

	small := Request{Workload: Workload{ID: "db", CPUMillicores: 500, MemoryBytes: 64 << 20, Node: -1}}
	p, err := Place(topology, nil, small)
	require.NoError(t, err)
	require.Equal(t, 1, p.CPUs.Len())
}
