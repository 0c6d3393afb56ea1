package numa

import (
	"fmt"
	"slices"
	"strings"
)

// Workload is a database instance as the placer sees it.
type Workload struct {
	ID string
	// CPUMillicores and MemoryBytes are what to set aside for it: its limits,
	// or, where it has none, what it is expected to use. Zero sets nothing
	// aside. Negative values are refused in a request.
	CPUMillicores int64
	MemoryBytes   int64
	// Node is where it is now; -1 is unplaced, which is to say everywhere.
	Node int
}

// Request asks where one workload should live.
type Request struct {
	Workload
	// Policy is a name of the table Policies; empty means SingleNode.
	Policy string
	// Node asks for one node; nil leaves the choice to the policy.
	Node *int
}

// Placement is where a workload should live.
type Placement struct {
	Policy string
	Node   int
	// CPUs and Mems are the CPUs it may run on and the nodes it may take
	// memory from; neither is ever empty.
	CPUs CPUSet
	Mems []int
	// Reasons say why, one sentence for each node, in the order of the nodes.
	Reasons []string
}

// Policy chooses a placement for w. Implementations are pure and
// deterministic: the result depends on the arguments alone and not on the
// order of placed. placed may hold w itself, which counts as w's own.
type Policy interface {
	Place(t *Topology, placed []Workload, w Workload) (Placement, error)
}

// SingleNode is the policy that keeps CPUs and memory on one node.
const SingleNode = "single-node"

// NamedPolicy is one line of the table of policies.
type NamedPolicy struct {
	Name   string
	Help   string
	Policy Policy
}

// Policies returns the table of policies in the order in which they are shown.
func Policies() []NamedPolicy {
	return []NamedPolicy{
		{SingleNode, "all CPUs and memory on the one node that fits best", singleNode{}},
	}
}

// Place answers a request. It is pure: see the package comment. The error
// names every node that was refused and what it lacks.
func Place(t *Topology, placed []Workload, r Request) (Placement, error) {
	if r.Policy == "" {
		r.Policy = SingleNode
	}
	table := Policies()
	i := slices.IndexFunc(table, func(p NamedPolicy) bool { return p.Name == r.Policy })
	if i < 0 {
		return Placement{}, fmt.Errorf("unknown placement policy %q: known are %s", r.Policy, policyNames(table))
	}
	if r.CPUMillicores < 0 || r.MemoryBytes < 0 {
		return Placement{}, fmt.Errorf("place %q: negative size: %dm CPU, %d bytes of memory",
			r.ID, r.CPUMillicores, r.MemoryBytes)
	}
	if r.Node != nil {
		node := t.Node(*r.Node)
		if node == nil {
			return Placement{}, fmt.Errorf("NUMA node %d does not exist: this machine has %s", *r.Node, nodesText(t))
		}
		// A policy that sees one node can choose no other.
		t = &Topology{Nodes: []Node{*node}}
	}
	p, err := table[i].Policy.Place(t, placed, r.Workload)
	if err != nil && r.Node != nil {
		return Placement{}, fmt.Errorf("NUMA node %d was asked for: %w", *r.Node, err)
	}
	if err != nil {
		return Placement{}, err
	}
	p.Policy = r.Policy
	return p, nil
}

func policyNames(table []NamedPolicy) string {
	names := make([]string, len(table))
	for i, p := range table {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

func nodesText(t *Topology) string {
	ids := t.NodeIDs()
	if ids.Len() == 1 {
		return "only node " + ids.String()
	}
	return "nodes " + ids.String()
}
