package monitoring

import "fmt"

const (
	fsyncHistogram = "mooring_instance_fsync_duration_seconds"
	blockHistogram = "mooring_instance_block_io_duration_seconds"
)

// resourceRows are what an instance has of its node, and what its node has left.
func resourceRows() []Row {
	return []Row{cpuRow(), memoryRow(), diskRow(), networkRow(), probeRow(), mooringRow(), nodeRow()}
}

// used is the rate of a counter of the chosen instance.
func used(counter, legend string) Query { return q(rate(counter, chosen, byInstance, window), legend) }

func cpuRow() Row {
	return Row{"CPU", []Panel{
		lines("CPU", "short", 6, used("mooring_instance_cpu_usage_seconds_total", "in use"), q(one("mooring_instance_cpu_limit_cores"), "limit")).about("Cores."),
		lines("Throttled", "percentunit", 6, q(share(
			rate("container_cpu_cfs_throttled_periods_total", chosen, byInstance, window), rate("container_cpu_cfs_periods_total", chosen, byInstance, window)), "periods")).
			upTo(1).limits(bad(0.05, 0.25)).about("Share of the periods of the CPU limit in which it held the instance back; nothing without a limit."),
		lines("Waiting for a CPU", "short", 6, used("container_cpu_schedstat_runqueue_seconds_total", "run queue")).about("Threads that could run and waited for a CPU, on average."),
		lines("Pressure of the instance", "percentunit", 6,
			used("container_pressure_cpu_waiting_seconds_total", "CPU, some"), used("container_pressure_memory_waiting_seconds_total", "memory, some"),
			used("container_pressure_memory_stalled_seconds_total", "memory, all"), used("container_pressure_io_waiting_seconds_total", "I/O, some"),
			used("container_pressure_io_stalled_seconds_total", "I/O, all")).about("Share of time in which some, or all, of its threads waited (PSI). Cgroup version 2 only."),
		lines("Threads", "short", 12, q(one("container_threads"), "threads"), q(one("container_processes"), "processes"),
			q(one(`container_tasks_state`), "{{state}}")),
		lines("File descriptors of the fullest process", "short", 12, q(one("mooring_instance_fullest_process_file_descriptors"), "open"),
			q(one("mooring_instance_fullest_process_file_descriptors_limit"), "limit")),
	}}
}

func memoryRow() Row {
	return Row{"Memory", []Panel{
		lines("Memory", "bytes", 6, q(one("mooring_instance_memory_usage_bytes"), "with page cache"), q(one("mooring_instance_memory_in_use_bytes"), "in use"),
			q(one("mooring_instance_memory_limit_bytes"), "limit")).about("In use is what cannot be reclaimed without swapping."),
		lines("Memory by kind", "bytes", 6, q(one("mooring_instance_memory_kind_bytes"), "{{kind}}")),
		lines("Major faults", "ops", 6, q(rate("container_memory_failures_total", and(chosen, `failure_type="pgmajfault"`), byInstance, window), "major faults")).
			about("Pages that had to be read from disk."),
		lines("Memory events", "short", 6, q(fmt.Sprintf("sum by (%s, event) (increase(mooring_instance_memory_events_total{%s}[%s]))", byInstance, chosen, window), "{{event}}")).
			about("Times a limit was hit, and processes killed for it."),
	}}
}

func diskRow() Row {
	latency := func(quant, histogram, more, legend string) Query {
		return q(quantile(quant, histogram, chosen, byInstance+more, window), legend)
	}
	return Row{"Disk", []Panel{
		lines("Block I/O latency", "s", 6, latency("0.5", blockHistogram, ", operation", "p50 {{operation}}"), latency("0.99", blockHistogram, ", operation", "p99 {{operation}}")).
			limits(bad(0.02, 0.1)).about("From the issue of a request to its completion by the device."),
		lines("fsync latency", "s", 6, latency("0.5", fsyncHistogram, "", "p50"), latency("0.99", fsyncHistogram, "", "p99")).limits(bad(0.02, 0.1)).
			about("Time in fsync and fdatasync: what a commit waits for."),
		lines("fsyncs and requests", "ops", 6, q(countRate(fsyncHistogram, chosen, byInstance, window), "fsync"),
			q(countRate(blockHistogram, chosen, byInstance+", operation", window), "{{operation}}")),
		lines("Bytes read and written", "Bps", 6, used("container_fs_reads_bytes_total", "read"), used("container_fs_writes_bytes_total", "written")),
		lines("Space left", "percentunit", 8, q(one("mooring_instance_directory_available_bytes")+" / "+one("mooring_instance_directory_size_bytes"), "{{directory}}")).
			upTo(1).about("Of the file systems that hold data, log and backup."),
		lines("Space used", "bytes", 8, q(one("mooring_instance_directory_used_bytes"), "{{directory}}"), q(one("mooring_instance_deleted_open_bytes"), "deleted, still open")),
		lines("Inodes left", "percentunit", 8, q(one("mooring_instance_directory_inodes_free")+" / ("+one("mooring_instance_directory_inodes")+" > 0)", "{{directory}}")).upTo(1),
	}}
}

func networkRow() Row {
	return Row{"Network", []Panel{
		lines("Retransmissions", "ops", 6, used("mooring_instance_tcp_connection_retransmissions_total", "connections"), used("mooring_instance_tcp_retransmitted_segments_total", "whole pod")).
			about("Segments sent again: of connections to the instance's ports, and of the pod's network namespace."),
		lines("Round trip", "s", 6, q(one("mooring_instance_tcp_round_trip_seconds"), "{{stat}}")).about("Smoothed, as the kernel's TCP sees it, over the open connections."),
		lines("Resets and refused connections", "ops", 6, q(rate("mooring_instance_tcp_resets_total", chosen, byInstance+", direction", window), "reset {{direction}}"),
			used("mooring_instance_tcp_listen_overflows_total", "accept queue full"), used("mooring_instance_tcp_listen_drops_total", "dropped while listening")).about("Of the pod's network namespace; absent in the host's."),
		lines("Not acknowledged", "short", 6, q(one("mooring_instance_tcp_unacknowledged_segments"), "segments"), q(one("mooring_instance_tcp_connections"), "connections")),
	}}
}

// nodeRow is the node that the instance runs on, by the agent's own figures.
func nodeRow() Row {
	own := func(expr string) string {
		return fmt.Sprintf("(%s) and on (node) mooring_instance_info{%s}", expr, chosen)
	}
	counted := func(counter, selector, by string) string {
		return own(rate(counter, and(agentJob, selector), by, window))
	}
	gauge := func(metric string) string { return own(metric + braces(agentJob)) }
	return Row{"Its node", []Panel{
		lines("CPU of the node", "short", 6, q(counted("node_cpu_seconds_total", `mode!="idle"`, "node, mode"), "{{mode}}")).stacked().about("Cores."),
		lines("Memory of the node", "bytes", 6, q(gauge("node_memory_MemAvailable_bytes"), "available"), q(gauge("node_memory_MemTotal_bytes"), "total"),
			q(gauge("node_memory_Dirty_bytes"), "dirty")),
		lines("Pressure of the node", "percentunit", 6, q(counted("node_pressure_cpu_waiting_seconds_total", "", "node"), "CPU"),
			q(counted("node_pressure_memory_waiting_seconds_total", "", "node"), "memory"), q(counted("node_pressure_io_waiting_seconds_total", "", "node"), "I/O")),
		lines("Disks busy", "percentunit", 6, q(counted("node_disk_io_time_seconds_total", "", "node, device"), "{{device}}")).upTo(1),
		lines("Disks: mean time of a request", "s", 6,
			q(own(share(rate("node_disk_read_time_seconds_total", agentJob, "node, device", window), rate("node_disk_reads_completed_total", agentJob, "node, device", window))), "read {{device}}"),
			q(own(share(rate("node_disk_write_time_seconds_total", agentJob, "node, device", window), rate("node_disk_writes_completed_total", agentJob, "node, device", window))), "write {{device}}")),
		lines("Load and swap", "short", 6, q(gauge("node_load1"), "load"), q(counted("node_vmstat_pswpin", "", "node"), "pages swapped in a second"),
			q(counted("node_vmstat_pswpout", "", "node"), "pages swapped out a second")),
		lines("Packets dropped", "ops", 6, q(counted("node_softnet_dropped_total", "", "node"), "softnet")),
		lines("Clock offset", "s", 6, q(own(fmt.Sprintf("abs(node_timex_offset_seconds{%s})", agentJob)), "offset"), q(gauge("node_timex_maxerror_seconds"), "largest error")).
			about("What heartbeat ages are worth."),
	}}
}

// probeRow is what active probes say; see the cluster's page for the members together.
func probeRow() Row {
	return Row{"Role and replication, from active probes", []Panel{
		lines("Answers", "short", 6, q(one("db_up"), "up"), q(one("db_read_only"), "read only"), q(one(primary), "primary")).upTo(1).about("Needs spec.probe of a DatabasePolicy."),
		lines("Time of probes", "s", 6, q(one("db_active_probe_duration_seconds"), "{{probe}}")).about("Newest connect, read and write."),
		lines("Failed probes", "ops", 6, q(rate("db_active_probe_failures_total", chosen, byInstance+", probe, reason", window), "{{probe}} {{reason}}")),
		lines("Behind", "s", 6, q(one("db_replication_lag_seconds"), "lag"), q(one("db_heartbeat_age_seconds"), "heartbeat")).limits(bad(10, 30)),
	}}
}

// mooringRow is what Mooring does to the instance.
func mooringRow() Row {
	return Row{"Mooring at work", []Panel{
		lines("Coverage", "percentunit", 6, q(one(coverage), "coverage")).upTo(1).about("Share of the instance's socket bytes that the probe saw."),
		lines("Memory on its own NUMA node", "percentunit", 6, q(one("mooring_instance_numa_local_ratio"), "local")).upTo(1).about("Needs a placement."),
		lines("Faults on purpose", "short", 6, q(one("mooring_fault_active"), "{{kind}}")),
		table("Where it is", 6, column(one("mooring_instance_cpuset_info"), "", "")).hiding("__name__", "job", "namespace", "pod", "container").about("The CPUs and memory nodes it may use."),
	}}
}
