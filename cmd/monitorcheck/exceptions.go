package main

import "strings"

// exceptions are the metrics that this check cannot have, each with the reason.
// A query may be without data only when it names one of them.
func exceptions() [][2]string {
	const (
		active   = "needs active probes, which need a DatabasePolicy or a credentials file"
		limited  = "needs a limit on the instance's cgroup"
		placed   = "needs a placement"
		broken   = "needs a fault"
		pressure = "needs cgroup version 2 with PSI"
		podNet   = "needs a network namespace of the instance's own"
		kernel   = "needs the kernel's BPF statistics switched on"
		replicas = "needs a replica or subscriber"
		ownGroup = "needs a cgroup of the instance's own"
		timers   = "needs cgroup version 2, and fentry for fsync"
		mounted  = "needs a mount namespace of the instance's own: these servers are in a chroot"
	)
	return [][2]string{
		{"db_up", active}, {"db_role", active}, {"db_read_only", active}, {"db_replication_lag", active},
		{"db_heartbeat_age", active}, {"db_active_probe", active}, {"instance:db_role_primary", active},
		{"_limit", limited}, {"container_cpu_cfs_", limited}, {"container_pressure_", pressure}, {"node_pressure_", pressure},
		{"mooring_instance_numa_local_ratio", placed}, {"mooring_fault_active", broken},
		{"mooring_instance_tcp_retransmitted_segments", podNet}, {"mooring_instance_tcp_resets", podNet}, {"mooring_instance_tcp_listen", podNet},
		{"db_probe_program_run_seconds", kernel}, {"db_server_stream_bytes", replicas},
		{"mooring_instance_memory_events", ownGroup}, {"mooring_instance_cpuset_info", ownGroup},
		{"mooring_instance_memory_kind", ownGroup}, {"container_memory_failures", ownGroup}, {"container_fs_", ownGroup},
		{"mooring_instance_block_io_duration", timers}, {"mooring_instance_fsync_duration", timers}, {"mooring_instance_directory_", mounted},
	}
}

// excuse says why an expression may be without data.
func excuse(expr string) (string, bool) {
	for _, e := range exceptions() {
		if strings.Contains(expr, e[0]) {
			return e[1], true
		}
	}
	return "", false
}
