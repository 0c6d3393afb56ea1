package numa

import (
	"fmt"
	"math"
	"strings"
)

// singleNode puts a workload on the one node where it fits best. A node is
// possible when it has CPUs, memory, and enough of both left. Where the
// workload already is goes first, because moving costs a copy of its memory;
// then the node with the least left over, so that large gaps stay whole for
// large newcomers; then the lowest number.
type singleNode struct{}

// Place implements Policy.
func (singleNode) Place(t *Topology, placed []Workload, w Workload) (Placement, error) {
	var (
		best                *Node
		bestFree            int64
		reasons, rejections []string
		chosen              int
	)
	for i := range t.Nodes {
		n := &t.Nodes[i]
		r := roomOn(n, placed, w)
		if lack := r.lack(n, w); lack != "" {
			rejections = append(rejections, fmt.Sprintf("node %d %s", n.ID, lack))
			reasons = append(reasons, fmt.Sprintf("node %d is refused: it %s", n.ID, lack))
			continue
		}
		free := r.freeAfter(n, w)
		reasons = append(reasons, fmt.Sprintf("node %d would have %s of memory and %dm CPU left",
			n.ID, sizeText(r.memory-w.MemoryBytes, roundDown), r.cpu-w.CPUMillicores))
		if best != nil && !better(n, free, best, bestFree, w) {
			continue
		}
		best, bestFree, chosen = n, free, len(reasons)-1
	}
	if best == nil {
		return Placement{}, fmt.Errorf("no NUMA node fits %q: %s", w.ID, strings.Join(rejections, ", "))
	}
	why := "it is chosen as the best fit"
	if best.ID == w.Node {
		why = "it is chosen because the instance is there already"
	}
	reasons[chosen] += ": " + why
	return Placement{
		Policy:  SingleNode,
		Node:    best.ID,
		CPUs:    best.CPUs,
		Mems:    []int{best.ID},
		Reasons: reasons,
	}, nil
}

// better says whether n, seen after best and so of a higher number, beats it.
func better(n *Node, free int64, best *Node, bestFree int64, w Workload) bool {
	if best.ID == w.Node || n.ID == w.Node {
		return n.ID == w.Node
	}
	return free < bestFree
}

// room is what a workload could have of one node.
type room struct {
	cpu    int64 // millicores; negative when too much was given away
	memory int64 // bytes; likewise
}

// roomOn counts what the node has less what is set aside there for others.
//
// For a newcomer, memory that is set aside for nobody but in use all the same
// (by the kernel, by programs nobody told us of) does not count either. For a
// workload that is there already that question is settled: its memory is part
// of what is in use.
func roomOn(n *Node, placed []Workload, w Workload) room {
	r := room{cpu: int64(n.CPUs.Len()) * 1000, memory: n.MemTotalBytes}
	for i := range placed {
		p := &placed[i]
		if p.ID == w.ID || p.Node != n.ID {
			continue
		}
		r.cpu = subtract(r.cpu, p.CPUMillicores)
		r.memory = subtract(r.memory, p.MemoryBytes)
	}
	if w.Node != n.ID {
		r.memory = min(r.memory, n.MemFreeBytes+n.MemReclaimableBytes)
	}
	return r
}

// subtract is a-b for b >= 0 that stops at a large negative number, so that
// absurd sizes cannot wrap around into room. A negative b counts as zero.
func subtract(a, b int64) int64 {
	const floor = math.MinInt64 / 4
	if b <= 0 {
		return a
	}
	if a-floor < b {
		return floor
	}
	return a - b
}

// lack says what keeps w off the node; empty when nothing does.
func (r room) lack(n *Node, w Workload) string {
	switch {
	case n.CPUs.Len() == 0:
		return "has no CPUs"
	case n.MemTotalBytes <= 0:
		return "has no memory"
	}
	var lacks []string
	if short := -subtract(r.memory, w.MemoryBytes); short > 0 {
		lacks = append(lacks, sizeText(short, roundUp)+" of memory")
	}
	if short := -subtract(r.cpu, w.CPUMillicores); short > 0 {
		lacks = append(lacks, fmt.Sprintf("%dm CPU", short))
	}
	if len(lacks) == 0 {
		return ""
	}
	return "lacks " + strings.Join(lacks, " and ")
}

// freeAfter is how empty the node would be with w on it: the shares of CPU and
// of memory left over, in parts per million, added up.
func (r room) freeAfter(n *Node, w Workload) int64 {
	return share(r.cpu-w.CPUMillicores, int64(n.CPUs.Len())*1000) +
		share(r.memory-w.MemoryBytes, n.MemTotalBytes)
}

// share is part/whole in parts per million, for 0 <= part and 0 < whole. Both
// are first scaled down to where the product cannot overflow.
func share(part, whole int64) int64 {
	for whole > math.MaxInt64/2_000_000 {
		part, whole = part>>1, whole>>1
	}
	return min(part, whole) * 1_000_000 / whole
}

type rounding bool

const (
	roundDown rounding = false
	roundUp   rounding = true
)

// sizeText writes a size in the largest of MiB and GiB that is whole, rounded
// to MiB. What is missing is rounded up, so that it never reads as nothing.
func sizeText(bytes int64, r rounding) string {
	const mib, gib = 1 << 20, 1 << 30
	n := bytes / mib
	if r == roundUp && bytes%mib > 0 {
		n++
	}
	if n > 0 && n%(gib/mib) == 0 {
		return fmt.Sprintf("%d GiB", n/(gib/mib))
	}
	return fmt.Sprintf("%d MiB", n)
}
