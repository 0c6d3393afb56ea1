package exporter

import "strconv"

// instances is what was found on the node.
func instances() family {
	var (
		count = gauge("mooring_instances",
			"Database instances found on this node by matching listening processes; absent for an engine and source that has none.",
			"engine", "source")
		unknown = gauge("mooring_unknown_listeners",
			"Listening processes that matched no known engine and were left alone.")
		info = gauge("mooring_instance_info",
			"Always 1; what is known of an instance. cgroup_version is the hierarchy that limits it.",
			instanceLabels("db_system_name", "source", "cgroup_version")...)
		readable = gauge("mooring_instance_read_success",
			"1 when the instance's resource usage could be read from its cgroup in the last tick; at 0 its CPU, memory, NUMA and cpuset series are absent.",
			instanceLabels()...)
		shared = gauge("mooring_instance_cgroup_shared",
			"1 when other processes live in the instance's cgroup, so that nothing will be changed on it.",
			instanceLabels()...)
	)
	type group struct{ engine, source string }
	return family{
		name:    "instances",
		metrics: []*metric{count, unknown, info, readable, shared},
		collect: func(s *scrape) {
			groups := make(map[group]int)
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				groups[group{string(in.Engine), in.Source}]++
				s.set(info, 1, labelValues(&in.Instance,
					string(in.Engine), in.Source, strconv.Itoa(in.Cgroup.Version))...)
				s.set(readable, boolean(in.Err == ""), labelValues(&in.Instance)...)
				s.set(shared, boolean(in.Cgroup.Shared != ""), labelValues(&in.Instance)...)
			}
			for g, n := range groups {
				s.set(count, float64(n), g.engine, g.source)
			}
			s.set(unknown, float64(s.snap.UnknownListeners))
		},
	}
}
