package numa

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Topology is the memory layout of one machine at one moment. It is immutable.
type Topology struct {
	// Nodes are the NUMA nodes, sorted by ID; there is at least one.
	Nodes []Node
}

// Node is one NUMA node.
type Node struct {
	ID int
	// CPUs are the online CPUs of the node that the scheduler may use freely:
	// isolated ones (isolcpus=) are left out. Empty on a memory-only node.
	CPUs CPUSet
	// Cores groups CPUs by physical core: each element holds the threads of
	// one core in ascending order.
	Cores [][]int
	// MemTotalBytes and MemFreeBytes are the node's memory and what of it is
	// free now.
	MemTotalBytes, MemFreeBytes int64
	// MemReclaimableBytes is file cache the kernel can drop for a newcomer:
	// the file LRU lists, so neither shared memory nor locked pages.
	MemReclaimableBytes int64
	// HugePages are the reserved huge pages by page size in bytes.
	HugePages map[int64]HugePages
	// Distances are the access costs to the other nodes, by index in
	// Topology.Nodes; 10 is local (ACPI SLIT).
	Distances []int
}

// HugePages counts the reserved huge pages of one size on one node.
type HugePages struct {
	Total, Free int64
}

// NodeIDs returns the numbers of all nodes.
func (t *Topology) NodeIDs() CPUSet {
	ids := make([]int, len(t.Nodes))
	for i := range t.Nodes {
		ids[i] = t.Nodes[i].ID
	}
	return NewCPUSet(ids...)
}

// Node returns the node with the given number, or nil.
func (t *Topology) Node(id int) *Node {
	for i := range t.Nodes {
		if t.Nodes[i].ID == id {
			return &t.Nodes[i]
		}
	}
	return nil
}

// reader reads one sysfs tree. cpus are the CPUs a workload may use.
type reader struct {
	sys, proc string
	cpus      CPUSet
}

// Read reads the topology from sysfs at sysRoot (normally "/sys"). procRoot
// (normally "/proc") is read only on a kernel without NUMA, which is shown as
// one node 0 with all CPUs and all memory. It opens a few files per CPU and
// does not block.
func Read(sysRoot, procRoot string) (*Topology, error) {
	r := &reader{sys: sysRoot, proc: procRoot}
	if err := r.readCPUs(); err != nil {
		return nil, fmt.Errorf("read CPU topology: %w", err)
	}
	ids, err := r.nodeIDs()
	if errors.Is(err, fs.ErrNotExist) {
		node, err := r.onlyNode()
		if err != nil {
			return nil, fmt.Errorf("read memory of a kernel without NUMA: %w", err)
		}
		return &Topology{Nodes: []Node{node}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list NUMA nodes: %w", err)
	}
	t := &Topology{Nodes: make([]Node, 0, len(ids))}
	for _, id := range ids {
		node, err := r.node(id, len(ids))
		if err != nil {
			return nil, fmt.Errorf("read NUMA node %d: %w", id, err)
		}
		t.Nodes = append(t.Nodes, node)
	}
	return t, nil
}

func (r *reader) readCPUs() error {
	online, err := readCPUSet(filepath.Join(r.sys, "devices/system/cpu/online"))
	if err != nil {
		return err
	}
	if online.Len() == 0 {
		return errors.New("no CPU is online")
	}
	// Kernels before 4.15 have no such file; without it nothing is isolated.
	isolated, err := readCPUSet(filepath.Join(r.sys, "devices/system/cpu/isolated"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.cpus = online.Minus(isolated)
	return nil
}

func (r *reader) nodeDir(id int) string {
	return filepath.Join(r.sys, "devices/system/node", "node"+strconv.Itoa(id))
}

// nodeIDs returns the node numbers in ascending order, fs.ErrNotExist when
// the kernel shows no nodes at all.
func (r *reader) nodeIDs() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(r.sys, "devices/system/node"))
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), "node")
		if !ok {
			continue
		}
		if id, err := strconv.Atoi(number); err == nil && id >= 0 {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, fs.ErrNotExist
	}
	slices.Sort(ids)
	return ids, nil
}

func (r *reader) node(id, nodes int) (Node, error) {
	n := Node{ID: id}
	dir := r.nodeDir(id)
	cpus, err := readCPUSet(filepath.Join(dir, "cpulist"))
	if err != nil {
		return n, err
	}
	n.CPUs = cpus.Intersect(r.cpus)
	if n.Cores, err = r.cores(n.CPUs); err != nil {
		return n, err
	}
	if err := readMeminfo(filepath.Join(dir, "meminfo"), &n); err != nil {
		return n, err
	}
	if n.HugePages, err = readHugePages(filepath.Join(dir, "hugepages")); err != nil {
		return n, err
	}
	if n.Distances, err = readDistances(filepath.Join(dir, "distance")); err != nil {
		return n, err
	}
	if len(n.Distances) != nodes {
		return n, fmt.Errorf("distance has %d values for %d nodes", len(n.Distances), nodes)
	}
	return n, nil
}

func (r *reader) onlyNode() (Node, error) {
	n := Node{CPUs: r.cpus, Distances: []int{10}}
	var err error
	if n.Cores, err = r.cores(n.CPUs); err != nil {
		return n, err
	}
	if err := readMeminfo(filepath.Join(r.proc, "meminfo"), &n); err != nil {
		return n, err
	}
	n.HugePages, err = readHugePages(filepath.Join(r.sys, "kernel/mm/hugepages"))
	return n, err
}

// cores groups cpus by core. A CPU whose siblings are not published, as in
// some virtual machines, is a core of its own.
func (r *reader) cores(cpus CPUSet) ([][]int, error) {
	var cores [][]int
	var seen CPUSet
	for _, cpu := range cpus.cpus {
		if seen.Contains(cpu) {
			continue
		}
		siblings, err := readCPUSet(filepath.Join(r.sys, "devices/system/cpu",
			"cpu"+strconv.Itoa(cpu), "topology/thread_siblings_list"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		core := siblings.Union(NewCPUSet(cpu)).Intersect(cpus)
		seen = seen.Union(core)
		cores = append(cores, core.List())
	}
	return cores, nil
}
