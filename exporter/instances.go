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
			"1 when the instance's resource usage could be read from its cgroup in the last tick; at 0, also while the cgroup is shared, its CPU, memory, NUMA and cpuset series are absent.",
			instanceLabels()...)
		unresolved = gauge("mooring_unresolved",
			"What looked like an instance, or is declared to be one, and could not be resolved exactly, so that nothing is done to it; mooringctl says what and why.")
		shared = gauge("mooring_instance_cgroup_shared",
			"1 when other processes live in the instance's cgroup, so that nothing will be changed on it.",
			instanceLabels()...)
		found = gauge("mooring_declared_instance_found",
			"1 when the server of a pod that a DatabasePolicy declares was found, 0 when the pod runs and no server listens in it: it has ended, begins again or is still being set up. Absent for a pod that does not run or is being deleted.",
			instanceLabels("db_system_name", "policy")...)
	)
	type group struct{ engine, source string }
	return family{
		name:    "instances",
		metrics: []*metric{count, unknown, unresolved, info, readable, shared, found},
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
				s.set(readable, boolean(wasRead(in)), labelValues(&in.Instance)...)
				s.set(shared, boolean(in.Cgroup.Shared != ""), labelValues(&in.Instance)...)
				if in.Declared != nil {
					s.set(found, 1, labelValues(&in.Instance, string(in.Engine), d.Policy)...)
				}
			}
			for i := range s.snap.Missing {
				d := &s.snap.Missing[i]
				s.set(found, 0, labelValues(missing(d), string(d.Engine), d.Policy)...)
			}
			for g, n := range groups {
				s.set(count, float64(n), g.engine, g.source)
			}
			s.set(unknown, float64(s.snap.UnknownListeners))
			s.set(unresolved, float64(len(s.snap.Unresolved)))
		},
	}
}

// missing is the instance that a declared pod without a server would have, so that
// its series goes on under the same labels. Where the container is not known
// either, the pod stands for it.
func missing(d *state.Declared) *state.Instance {
	id := d.Namespace + "/" + d.Pod
	if d.Container != "" {
		id += "/" + d.Container
	}
	return &state.Instance{ID: id, Namespace: d.Namespace, Pod: d.Pod, Container: d.Container}
}
