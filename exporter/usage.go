package exporter

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mooring-dev/mooring/agent/state"
)

// column is one metric of a table with one row: read sends its series of v with
// the labels that tell the row apart before its own.
type column[V any] struct {
	*metric
	read func(v V, put func(value float64, labels ...string))
}

// send sends all columns of a row.
func send[V any](s *scrape, columns []column[V], v V, labels []string) {
	for _, c := range columns {
		c.read(v, func(value float64, more ...string) {
			s.set(c.metric, value, append(labels[:len(labels):len(labels)], more...)...)
		})
	}
}

// declared returns the metrics of columns.
func declared[V any](columns []column[V]) []*metric {
	var out []*metric
	for _, c := range columns {
		out = append(out, c.metric)
	}
	return out
}

// one is a column with one series without labels of its own.
func one[V any](m *metric, value func(V) float64) column[V] {
	return column[V]{m, func(v V, put func(float64, ...string)) { put(value(v)) }}
}

// duration is a column in seconds.
func duration[V any](m *metric, value func(V) time.Duration) column[V] {
	return one(m, func(v V) float64 { return value(v).Seconds() })
}

// usage is what an instance's cgroup and threads use. Metrics that cAdvisor has
// keep its names.
func usage() family {
	group := append(append(groupCPU(), groupMemory()...), groupPressure()...)
	group = append(group, groupDisks()...)
	tasks := taskColumns()
	return family{
		name:    "usage",
		metrics: append(declared(group), declared(tasks)...),
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if in.Usage == nil {
					continue
				}
				labels := labelValues(&in.Instance)
				if in.Usage.Group != nil {
					send(s, group, in.Usage.Group, labels)
				}
				send(s, tasks, &in.Usage.Tasks, labels)
			}
		},
	}
}

func groupCPU() []column[*state.GroupUsage] {
	type group = *state.GroupUsage
	return []column[group]{
		duration(counter("container_cpu_usage_seconds_total",
			"CPU time used (usage_usec of cpu.stat, or cpuacct.usage).", instanceLabels()...),
			func(g group) time.Duration { return g.CPU.Usage }),
		duration(counter("container_cpu_user_seconds_total",
			"CPU time used outside the kernel (user_usec of cpu.stat, or cpuacct.stat).", instanceLabels()...),
			func(g group) time.Duration { return g.CPU.User }),
		duration(counter("container_cpu_system_seconds_total",
			"CPU time used in the kernel (system_usec of cpu.stat, or cpuacct.stat).", instanceLabels()...),
			func(g group) time.Duration { return g.CPU.System }),
		one(counter("container_cpu_cfs_periods_total",
			"Periods of the CPU limit in which something ran (nr_periods of cpu.stat).", instanceLabels()...),
			func(g group) float64 { return float64(g.CPU.Periods) }),
		one(counter("container_cpu_cfs_throttled_periods_total",
			"Periods in which the CPU limit was met (nr_throttled of cpu.stat).", instanceLabels()...),
			func(g group) float64 { return float64(g.CPU.ThrottledPeriods) }),
		duration(counter("container_cpu_cfs_throttled_seconds_total",
			"Time in which the CPU limit held the instance back (throttled_usec or throttled_time of cpu.stat), added up over CPUs.", instanceLabels()...),
			func(g group) time.Duration { return g.CPU.Throttled }),
		{gauge("container_threads_max", "Largest number of threads allowed (pids.max); absent without a limit.", instanceLabels()...),
			func(g group, put func(float64, ...string)) {
				if g.TaskLimit > 0 {
					put(float64(g.TaskLimit))
				}
			}},
	}
}

func groupMemory() []column[*state.GroupUsage] {
	type group = *state.GroupUsage
	kind := func(m *metric, name string) column[group] {
		return column[group]{m, func(g group, put func(float64, ...string)) {
			if n, ok := g.MemoryKinds[name]; ok {
				put(float64(n))
			}
		}}
	}
	return []column[group]{
		one(gauge("container_memory_usage_bytes", "Memory charged, page cache included (memory.current or memory.usage_in_bytes).", instanceLabels()...),
			func(g group) float64 { return float64(g.MemoryBytes) }),
		one(gauge("container_memory_working_set_bytes", "Memory charged without inactive file pages, as the kubelet counts it.", instanceLabels()...),
			func(g group) float64 { return float64(g.WorkingSetBytes) }),
		kind(gauge("container_memory_rss", "Anonymous memory in bytes (anon or total_rss of memory.stat).", instanceLabels()...), "anon"),
		kind(gauge("container_memory_cache", "Page cache in bytes, shared memory included (file or total_cache of memory.stat).", instanceLabels()...), "file"),
		one(gauge("container_memory_swap", "Swap in use in bytes (memory.swap.current, or total_swap of memory.stat).", instanceLabels()...),
			func(g group) float64 { return float64(g.SwapBytes) }),
		{gauge("mooring_instance_memory_kind_bytes",
			"Parts of the memory charged, by the names of memory.stat of cgroup v2; shmem and file_* are part of file, slab_* of kernel.", instanceLabels("kind")...),
			func(g group, put func(float64, ...string)) {
				for name, n := range g.MemoryKinds {
					put(float64(n), name)
				}
			}},
		{counter("mooring_instance_memory_events_total",
			"Events of memory.events; on cgroup v1 max (memory.failcnt) and oom_kill alone.", instanceLabels("event")...),
			func(g group, put func(float64, ...string)) {
				for name, n := range g.MemoryEvents {
					put(float64(n), name)
				}
			}},
		{counter("container_oom_events_total", "Processes killed for lack of memory (oom_kill of memory.events or memory.oom_control).", instanceLabels()...),
			func(g group, put func(float64, ...string)) {
				if n, ok := g.MemoryEvents["oom_kill"]; ok {
					put(float64(n))
				}
			}},
		{counter("container_memory_failures_total", "Major page faults (pgmajfault of memory.stat), with cAdvisor's labels.", instanceLabels("failure_type", "scope")...),
			func(g group, put func(float64, ...string)) { put(float64(g.MajorFaults), "pgmajfault", "hierarchy") }},
	}
}

func groupPressure() []column[*state.GroupUsage] {
	type group = *state.GroupUsage
	var out []column[group]
	for _, r := range []struct {
		name string
		of   func(*state.Pressure) state.Stall
	}{
		{"cpu", func(p *state.Pressure) state.Stall { return p.CPU }},
		{"memory", func(p *state.Pressure) state.Stall { return p.Memory }},
		{"io", func(p *state.Pressure) state.Stall { return p.IO }},
	} {
		for _, k := range []struct {
			name, who string
			of        func(state.Stall) time.Duration
		}{
			{"waiting", "some", func(s state.Stall) time.Duration { return s.Some }},
			{"stalled", "all", func(s state.Stall) time.Duration { return s.Full }},
		} {
			m := counter("container_pressure_"+r.name+"_"+k.name+"_seconds_total",
				fmt.Sprintf("Time in which %s of the instance's tasks waited for %s (%s.pressure); cgroup v2 only.", k.who, r.name, r.name),
				instanceLabels()...)
			out = append(out, column[group]{m, func(g group, put func(float64, ...string)) {
				if g.Pressure != nil {
					put(k.of(r.of(g.Pressure)).Seconds())
				}
			}})
		}
	}
	return out
}

func groupDisks() []column[*state.GroupUsage] {
	type group = *state.GroupUsage
	disk := func(name, help string, value func(*state.DiskUsage) int64) column[group] {
		return column[group]{counter(name, help, instanceLabels("device")...),
			func(g group, put func(float64, ...string)) {
				for i := range g.Disks {
					put(float64(value(&g.Disks[i])), g.Disks[i].Device)
				}
			}}
	}
	return []column[group]{
		disk("container_fs_reads_bytes_total", "Bytes read from a device (io.stat, or blkio.throttle.io_service_bytes).",
			func(d *state.DiskUsage) int64 { return d.ReadBytes }),
		disk("container_fs_writes_bytes_total", "Bytes written to a device; on cgroup v1 without what is written back later.",
			func(d *state.DiskUsage) int64 { return d.WriteBytes }),
		disk("container_fs_reads_total", "Reads from a device.", func(d *state.DiskUsage) int64 { return d.Reads }),
		disk("container_fs_writes_total", "Writes to a device; on cgroup v1 without what is written back later.",
			func(d *state.DiskUsage) int64 { return d.Writes }),
	}
}

func taskColumns() []column[*state.TaskUsage] {
	type tasks = *state.TaskUsage
	return []column[tasks]{
		one(gauge("container_processes", "Processes of the instance.", instanceLabels()...),
			func(t tasks) float64 { return float64(t.Processes) }),
		one(gauge("container_threads", "Threads of the instance.", instanceLabels()...),
			func(t tasks) float64 { return float64(t.Threads) }),
		{gauge("container_tasks_state", "Threads in a state when last looked at; only uninterruptible (D) is counted.", instanceLabels("state")...),
			func(t tasks, put func(float64, ...string)) { put(float64(t.Uninterruptible), "uninterruptible") }},
		duration(counter("container_cpu_schedstat_runqueue_seconds_total",
			"Time threads were ready and waited for a CPU (schedstat), added up since the agent first saw them; what a thread waited after it was last looked at is not in it.",
			instanceLabels()...),
			func(t tasks) time.Duration { return t.RunDelay }),
	}
}

// ioLatency is how long block requests and fsync took, timed in the kernel.
func ioLatency(classicBounds []time.Duration) family {
	const typ = "histogram, classic and native"
	block := declare(typ, prometheus.UntypedValue, "mooring_instance_block_io_duration_seconds",
		"Time a block request of the instance took from its issue to the device to its end, by the cgroup that its data is charged to, timed in the kernel by eBPF.",
		instanceLabels("operation"))
	fsync := declare(typ, prometheus.UntypedValue, "mooring_instance_fsync_duration_seconds",
		"Time an fsync, fdatasync, msync or synchronous write of the instance took to reach the disk, timed in the kernel by eBPF.",
		instanceLabels())
	info := gauge("mooring_io_probe_info",
		"Always 1; how block requests (probe=block) and fsync are timed on this node, or why they are not (mode=off), cut after 200 bytes.", "probe", "mode", "detail")
	lost := counter("mooring_io_probe_lost_total", "Block requests and fsyncs that were not timed, as too many were under way.", "reason")
	bounds := inSeconds(classicBounds)
	return family{
		name:    "latency",
		metrics: []*metric{block, fsync, info, lost},
		collect: func(s *scrape) {
			if m := s.snap.Machine; m != nil {
				for _, p := range m.IOProbes {
					s.set(info, 1, p.Name, p.Mode, sentence(p.Detail, maxDetailBytes))
				}
				for reason, n := range m.IOLost {
					s.set(lost, float64(n), reason)
				}
			}
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if in.Usage == nil {
					continue
				}
				for j := range in.Usage.IO {
					op := &in.Usage.IO[j]
					m, labels := block, labelValues(&in.Instance, op.Name)
					if op.Name == "fsync" {
						m, labels = fsync, labelValues(&in.Instance)
					}
					h, err := newHistogram(m.desc, bounds, op, labels...)
					if err != nil {
						s.omit(fmt.Errorf("%s of %q: %w", op.Name, in.ID, err))
					}
					if h != nil {
						s.ch <- h
					}
				}
			}
		},
	}
}
