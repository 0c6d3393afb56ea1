package exporter

import "github.com/mooring-dev/mooring/agent/state"

// resource is one column of the resources family: a metric and how it is read.
// The function returns false where there is nothing to say.
type resource struct {
	*metric
	read func(*state.Resources) (float64, bool)
}

// resources is what an instance may use and uses. A limit that is not set is
// an absent series, not 0, so that usage divided by limit is right or missing.
// So is everything of an instance whose cgroup was not read or is others' as well:
// a counter that is 0 for a while is a reset to whoever takes its rate.
func resources() family {
	columns := append(cpuResources(), memoryResources()...)
	f := family{
		name: "resources",
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if !wasRead(in) {
					continue
				}
				for _, c := range columns {
					if v, ok := c.read(&in.Resources); ok {
						s.set(c.metric, v, labelValues(&in.Instance)...)
					}
				}
			}
		},
	}
	for _, c := range columns {
		f.metrics = append(f.metrics, c.metric)
	}
	return f
}

func cpuResources() []resource {
	return []resource{
		{gauge("mooring_instance_cpu_limit_cores",
			"CPU limit of the instance's cgroup (cpu.max, or cpu.cfs_quota_us by cpu.cfs_period_us); absent without a limit.",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return float64(r.CPUMillicores) / 1000, r.CPUMillicores > 0 }},
		{counter("mooring_instance_cpu_usage_seconds_total",
			"CPU time used since the cgroup was made (usage_usec of cpu.stat, or cpuacct.usage).",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return r.CPUUsage.Seconds(), true }},
		{counter("mooring_instance_cpu_throttled_seconds_total",
			"Time the cgroup was held back by its CPU limit (throttled_usec or throttled_time of cpu.stat).",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return r.CPUThrottled.Seconds(), true }},
	}
}

func memoryResources() []resource {
	return []resource{
		{gauge("mooring_instance_memory_limit_bytes",
			"Memory limit of the instance's cgroup (memory.max or memory.limit_in_bytes); absent without a limit.",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return float64(r.MemoryLimitBytes), r.MemoryLimitBytes > 0 }},
		{gauge("mooring_instance_memory_usage_bytes",
			"Memory charged to the cgroup, page cache included (memory.current or memory.usage_in_bytes).",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return float64(r.MemoryUsageBytes), true }},
		{gauge("mooring_instance_memory_in_use_bytes",
			"Memory that reclaim cannot take back without swapping: anonymous, shared and unreclaimable kernel memory (memory.stat). A limit below it kills the database.",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return float64(r.MemoryInUseBytes), true }},
		{counter("mooring_instance_oom_kills_total",
			"Processes of the cgroup killed for lack of memory (oom_kill of memory.events or memory.oom_control).",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) { return float64(r.OOMKills), true }},
		{counter("mooring_instance_pod_oom_kills_total",
			"Processes killed for lack of memory in any container of the instance's pod, those that ended by it included: unlike the instance's own cgroup the pod's outlives a restart of the container (oom_kill of its memory.events). In pods and on cgroup version 2 alone.",
			instanceLabels()...),
			func(r *state.Resources) (float64, bool) {
				if r.PodOOMKills == nil {
					return 0, false
				}
				return float64(*r.PodOOMKills), true
			}},
	}
}

// wasRead says that an instance's Resources were read and are its own.
func wasRead(in *state.InstanceStatus) bool { return in.Err == "" && in.Cgroup.Shared == "" }
