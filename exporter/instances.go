package exporter

import (
	"strconv"

	"github.com/mooring-dev/mooring/agent/state"
)

// instances is what was found on the node.
func instances() family {
	var (
		count = gauge("mooring_instances",
			"Database instances found on this node by matching listening processes; absent for an engine and source that has none.",
			"engine", "source")
		unknown = gauge("mooring_unknown_listeners",
			"Listening processes that matched no known engine and were left alone.")
		info = gauge("mooring_instance_info",
			"Always 1; what is known of an instance. cgroup_version is the hierarchy that limits it; cluster, role and policy are what its DatabasePolicy says, empty without one.",
			instanceLabels("db_system_name", "source", "cgroup_version", "cluster", "role", "policy")...)
		readable = gauge("mooring_instance_read_success",
			"1 when the instance's resource usage could be read from its cgroup in the last tick; at 0 its CPU, memory, NUMA and cpuset series are absent.",
			instanceLabels()...)
		unresolved = gauge("mooring_unresolved",
			"What looked like an instance, or is declared to be one, and could not be resolved exactly, so that nothing is done to it; mooringctl says what and why.")
		shared = gauge("mooring_instance_cgroup_shared",
			"1 when other processes live in the instance's cgroup, so that nothing will be changed on it.",
			instanceLabels()...)
	)
	type group struct{ engine, source string }
	return family{
		name:    "instances",
		metrics: []*metric{count, unknown, unresolved, info, readable, shared},
		collect: func(s *scrape) {
			groups := make(map[group]int)
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				groups[group{string(in.Engine), in.Source}]++
				var d state.Declared
				if in.Declared != nil {
					d = *in.Declared
				}
				s.set(info, 1, labelValues(&in.Instance,
					string(in.Engine), in.Source, strconv.Itoa(in.Cgroup.Version), d.Cluster, d.Role, d.Policy)...)
				s.set(readable, boolean(in.Err == ""), labelValues(&in.Instance)...)
				s.set(shared, boolean(in.Cgroup.Shared != ""), labelValues(&in.Instance)...)
			}
			for g, n := range groups {
				s.set(count, float64(n), g.engine, g.source)
			}
			s.set(unknown, float64(s.snap.UnknownListeners))
			s.set(unresolved, float64(len(s.snap.Unresolved)))
		},
	}
}
