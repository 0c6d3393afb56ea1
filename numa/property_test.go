package numa

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawTopology returns machines of every shape, among them nodes without CPUs
// or memory and nodes fuller than empty.
func drawTopology(t *rapid.T) *Topology {
	topology := &Topology{}
	cpu := 0
	for id := range rapid.IntRange(1, 6).Draw(t, "nodes") {
		if id > 0 && rapid.IntRange(0, 9).Draw(t, "gap") == 0 {
			continue
		}
		n := Node{ID: id}
		var cpus []int
		for range rapid.IntRange(0, 8).Draw(t, "cpus") {
			cpus = append(cpus, cpu)
			cpu++
		}
		n.CPUs = NewCPUSet(cpus...)
		n.MemTotalBytes = rapid.Int64Range(0, 64).Draw(t, "memory") * gib
		n.MemFreeBytes = rapid.Int64Range(0, n.MemTotalBytes).Draw(t, "free")
		n.MemReclaimableBytes = rapid.Int64Range(0, n.MemTotalBytes-n.MemFreeBytes).Draw(t, "cache")
		topology.Nodes = append(topology.Nodes, n)
	}
	return topology
}

func drawWorkload(t *rapid.T, id string) Workload {
	return Workload{
		ID:            id,
		CPUMillicores: rapid.Int64Range(0, 9000).Draw(t, "cpu of "+id),
		MemoryBytes:   rapid.Int64Range(0, 70).Draw(t, "memory of "+id) * gib,
		Node:          rapid.IntRange(-1, 6).Draw(t, "node of "+id),
	}
}

func drawPlaced(t *rapid.T) []Workload {
	var placed []Workload
	for i := range rapid.IntRange(0, 6).Draw(t, "placed") {
		placed = append(placed, drawWorkload(t, fmt.Sprintf("db-%d", i)))
	}
	return placed
}

func forEachPolicy(t *testing.T, check func(t *rapid.T, policy string)) {
	for _, p := range Policies() {
		t.Run(p.Name, rapid.MakeCheck(func(t *rapid.T) { check(t, p.Name) }))
	}
}

func TestPlaceIsDeterministicAndIgnoresOrder(t *testing.T) {
	forEachPolicy(t, func(t *rapid.T, policy string) {
		topology, placed := drawTopology(t), drawPlaced(t)
		r := Request{Workload: drawWorkload(t, "new"), Policy: policy}
		want, wantErr := Place(topology, placed, r)
		again, againErr := Place(topology, placed, r)
		require.Equal(t, want, again)
		require.Equal(t, wantErr, againErr)

		shuffled := slices.Clone(placed)
		seed := rapid.Int64().Draw(t, "seed")
		rand.New(rand.NewSource(seed)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		got, gotErr := Place(topology, shuffled, r)
		require.Equal(t, want, got)
		require.Equal(t, wantErr, gotErr)
	})
}

func TestPlaceStaysWithinTheNodeAndItsRoom(t *testing.T) {
	forEachPolicy(t, func(t *rapid.T, policy string) {
		topology, placed := drawTopology(t), drawPlaced(t)
		r := Request{Workload: drawWorkload(t, "new"), Policy: policy}
		p, err := Place(topology, placed, r)
		if err != nil {
			return
		}
		node := topology.Node(p.Node)
		require.NotNil(t, node)
		require.Equal(t, []int{p.Node}, p.Mems)
		require.Positive(t, p.CPUs.Len())
		require.True(t, p.CPUs.Equal(p.CPUs.Intersect(node.CPUs)), "CPUs of another node")
		cpu, memory := r.CPUMillicores, r.MemoryBytes
		for _, o := range placed {
			if o.Node == p.Node {
				cpu, memory = cpu+o.CPUMillicores, memory+o.MemoryBytes
			}
		}
		require.LessOrEqual(t, cpu, int64(node.CPUs.Len())*1000)
		require.LessOrEqual(t, memory, node.MemTotalBytes)
		require.Len(t, p.Reasons, len(topology.Nodes))
	})
}

func TestPlaceNeverMovesAnInstanceBecauseAnotherCame(t *testing.T) {
	forEachPolicy(t, func(t *rapid.T, policy string) {
		topology := drawTopology(t)
		var placed []Workload
		for i := range rapid.IntRange(1, 8).Draw(t, "arrivals") {
			w := drawWorkload(t, fmt.Sprintf("db-%d", i))
			w.Node = -1
			p, err := Place(topology, placed, Request{Workload: w, Policy: policy})
			if err != nil {
				continue
			}
			w.Node = p.Node
			placed = append(placed, w)
			for _, o := range placed {
				again, err := Place(topology, placed, Request{Workload: o, Policy: policy})
				require.NoError(t, err, "%s no longer fits where it is", o.ID)
				require.Equal(t, o.Node, again.Node, "%s would move", o.ID)
			}
		}
	})
}

func TestPlaceGivesAReasonForEveryRefusal(t *testing.T) {
	forEachPolicy(t, func(t *rapid.T, policy string) {
		topology, placed := drawTopology(t), drawPlaced(t)
		r := Request{Workload: drawWorkload(t, "new"), Policy: policy}
		_, err := Place(topology, placed, r)
		if err == nil {
			return
		}
		require.ErrorContains(t, err, `"new"`)
		for _, n := range topology.Nodes {
			reasons := []string{"lacks ", "has no CPUs", "has no memory"}
			require.True(t, slices.ContainsFunc(reasons, func(s string) bool {
				return strings.Contains(err.Error(), fmt.Sprintf("node %d %s", n.ID, s))
			}), "node %d is not explained in %q", n.ID, err)
		}
	})
}

func TestPlaceFindsRoomWhenOneNodeIsEmptied(t *testing.T) {
	forEachPolicy(t, func(t *rapid.T, policy string) {
		topology, placed := drawTopology(t), drawPlaced(t)
		r := Request{Workload: drawWorkload(t, "new"), Policy: policy}
		if _, err := Place(topology, placed, r); err != nil {
			return
		}
		_, err := Place(topology, placed[:len(placed)/2], r)
		require.NoError(t, err, "fewer instances must not make less room")
	})
}

func TestAnExplicitNodeIsTheOneOrAnError(t *testing.T) {
	forEachPolicy(t, func(t *rapid.T, policy string) {
		topology, placed := drawTopology(t), drawPlaced(t)
		node := rapid.IntRange(-1, 7).Draw(t, "explicit")
		p, err := Place(topology, placed, Request{Workload: drawWorkload(t, "new"), Policy: policy, Node: &node})
		if err == nil {
			require.Equal(t, node, p.Node)
			return
		}
		require.ErrorContains(t, err, fmt.Sprintf("node %d", node))
	})
}

func TestAbsurdSizesDoNotWrapAround(t *testing.T) {
	topology := &Topology{Nodes: []Node{{CPUs: NewCPUSet(0), MemTotalBytes: gib, MemFreeBytes: gib}}}
	const most = int64(^uint64(0) >> 1)
	placed := []Workload{{ID: "a", CPUMillicores: most, MemoryBytes: most}, {ID: "b", CPUMillicores: most, MemoryBytes: most}}
	_, err := Place(topology, placed, Request{Workload: Workload{ID: "new", CPUMillicores: most, MemoryBytes: most}})
	require.ErrorContains(t, err, "node 0 lacks ")
	_, err = Place(topology, placed, Request{Workload: Workload{ID: "new"}})
	require.ErrorContains(t, err, "node 0 lacks ")
	_, err = Place(topology, nil, Request{Workload: Workload{ID: "new", CPUMillicores: 1000, MemoryBytes: gib}})
	require.NoError(t, err)
}

func TestAnEqualFitIsSettledByTheNumber(t *testing.T) {
	node := func(id, cpu int) Node {
		return Node{ID: id, CPUs: NewCPUSet(cpu), MemTotalBytes: gib, MemFreeBytes: gib}
	}
	topology := &Topology{Nodes: []Node{node(3, 0), node(5, 1)}}
	p, err := Place(topology, nil, Request{Workload: Workload{ID: "new", Node: -1}})
	require.NoError(t, err)
	require.Equal(t, 3, p.Node)
}
