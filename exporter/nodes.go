package exporter

// nodes is the memory of the machine's NUMA nodes.
func nodes() family {
	var (
		total = gauge("mooring_node_numa_memory_total_bytes",
			"Memory of a NUMA node (MemTotal of /sys/devices/system/node/node*/meminfo).", "numa_node")
		free = gauge("mooring_node_numa_memory_free_bytes",
			"Free memory of a NUMA node (MemFree of /sys/devices/system/node/node*/meminfo).", "numa_node")
	)
	return family{
		name:    "nodes",
		metrics: []*metric{total, free},
		collect: func(s *scrape) {
			for _, n := range s.snap.Nodes {
				s.set(total, float64(n.TotalBytes), numaNode(n.ID))
				s.set(free, float64(n.FreeBytes), numaNode(n.ID))
			}
		},
	}
}
