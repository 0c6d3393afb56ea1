package monitoring

import (
	"fmt"
	"time"
)

// resourceAlerts are on what a database has of its node. cAdvisor serves series of
// the same names: where one is used, the job tells ours.
func resourceAlerts() []Rule {
	const available, size = "mooring_instance_directory_available_bytes", "mooring_instance_directory_size_bytes"
	const free, inodes = "mooring_instance_directory_inodes_free", "mooring_instance_directory_inodes"
	periods := func(metric string) string { return rate(metric, agentJob, byInstance, "5m") }
	return []Rule{
		alert("DBFsyncSlow", warning, 10*time.Minute, fsyncP99+" > 0.02",
			"fsync of {{ $labels.instance }} takes {{ $value | humanizeDuration }} (p99)",
			"The 99th percentile of fsync has been above 20 ms, much for a solid-state disk, for ten minutes. Every commit waits for one.",
			"Dashboard Mooring / Instance, row Disk: is block latency high too? Then the device (its node's panel Disks busy, the storage's own view, a neighbour); if not, the file system's journal. A spinning disk deserves another limit."),
		alert("DBDiskSpace", warning, 30*time.Minute,
			fmt.Sprintf("predict_linear(%[1]s[6h], 86400) < 0 and %[1]s / %[2]s < 0.5", available, size),
			"The {{ $labels.directory }} directory of {{ $labels.instance }} will be full within a day",
			"At the pace of the last six hours its file system is full within 24 hours, and less than half is left.",
			"Dashboard Mooring / Instance, row Disk: what grows? data: tables or bloat; log: a replication slot or an archiver that does not go on; deleted, still open: restart who holds it. Then enlarge the volume."),
		alert("DBDiskNearlyFull", critical, 5*time.Minute,
			fmt.Sprintf("%s / %s < 0.05 or %s / (%s > 0) < 0.05", available, size, free, inodes),
			"The file system of the {{ $labels.directory }} directory of {{ $labels.instance }} has {{ $value | humanizePercentage }} left",
			"Less than 5 % of the bytes or of the inodes are left. A database that cannot write its log stops.",
			"Enlarge the volume now; never delete files of a data or log directory by hand. Then see what grows on dashboard Mooring / Instance, row Disk."),
		alert("DBThrottled", warning, 15*time.Minute,
			share(periods("container_cpu_cfs_throttled_periods_total"), periods("container_cpu_cfs_periods_total"))+" > 0.25",
			"{{ $labels.instance }} was held back by its CPU limit in {{ $value | humanizePercentage }} of all periods",
			"For 15 minutes the CPU limit has stopped the instance in more than a quarter of its periods; statements that run then wait until the next one.",
			"Raise the limit: an InstanceResize (deploy/examples/instanceresize.yaml) or mooringctl resize; neither restarts the database. Or find the digest that uses the CPU: dashboard Mooring / Instance, panel Load by digest."),
		alert("DBOOMKilled", critical, 0,
			// The count of the container's cgroup ends with the container, that of the pod does not.
			fmt.Sprintf("sum by (%[1]s) (increase(mooring_instance_pod_oom_kills_total[10m])) > 0 or sum by (%[1]s) (increase(mooring_instance_oom_kills_total[10m])) > 0", byInstance),
			"A process of {{ $labels.instance }} or of its pod was killed for lack of memory",
			"The kernel killed a process in the instance's cgroup, or in another container of its pod, within the last ten minutes because a memory limit was reached.",
			"Dashboard Mooring / Instance, row Memory: what grew? Raise the limit by an InstanceResize, or lower the database's own buffers and the number of connections."),
	}
}
