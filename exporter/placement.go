package exporter

import (
	"strconv"

	"github.com/mooring-dev/mooring/agent/state"
)

// maxListBytes bounds a kernel list as a label value. An alternating list on a
// machine of many CPUs is longer than Prometheus servers commonly accept.
const maxListBytes = 256

// placement is where an instance was asked to be and where its memory is.
func placement() family {
	var (
		memory = gauge("mooring_instance_numa_memory_bytes",
			"Anonymous and shared memory of the instance on each NUMA node (memory.numa_stat); on cgroup version 1 page cache as well.",
			instanceLabels("numa_node")...)
		local = gauge("mooring_instance_numa_local_ratio",
			"Share, 0 to 1, of the instance's memory on the NUMA node it was placed on; absent when it was not placed on one node.",
			instanceLabels()...)
		placed = gauge("mooring_instance_placement_info",
			"Always 1; the policy that placed the instance and the NUMA node it chose, \"all\" for every node; absent when it was not placed.",
			instanceLabels("policy", "numa_node")...)
		cpuset = gauge("mooring_instance_cpuset_info",
			"Always 1; the CPUs and memory nodes the instance may use (cpuset.cpus.effective and cpuset.mems.effective) as kernel lists, cut after 256 bytes.",
			instanceLabels("cpus", "mems")...)
		misplaced = gauge("mooring_instance_placement_error",
			"1 when the instance is not where its DatabasePolicy wants it, 0 when it is; absent when no policy wants it anywhere. mooringctl says why.",
			instanceLabels()...)
	)
	return family{
		name:    "placement",
		metrics: []*metric{memory, local, placed, cpuset, misplaced},
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if p := in.Placement; p != nil {
					s.set(placed, 1, labelValues(&in.Instance, p.Policy, numaNode(p.Node))...)
				}
				if d := in.Declared; d != nil && d.NUMA == state.NUMASingleNode {
					s.set(misplaced, boolean(in.PlacementErr != ""), labelValues(&in.Instance)...)
				}
				if !wasRead(in) {
					continue
				}
				for node, bytes := range in.Resources.NodeBytes {
					s.set(memory, float64(bytes), labelValues(&in.Instance, numaNode(node))...)
				}
				if share, ok := in.LocalShare(); ok {
					s.set(local, share, labelValues(&in.Instance)...)
				}
				if r := &in.Resources; r.CPUs != "" || r.MemoryNodes != "" {
					s.set(cpuset, 1, labelValues(&in.Instance, cut(r.CPUs), cut(r.MemoryNodes))...)
				}
			}
		},
	}
}

func numaNode(n int) string {
	if n < 0 {
		return "all"
	}
	return strconv.Itoa(n)
}

func cut(list string) string {
	if len(list) <= maxListBytes {
		return list
	}
	return list[:maxListBytes] + "..."
}
