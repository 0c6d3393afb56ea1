package monitoring

import "fmt"

// The service level that the burn-rate alerts guard: this share of statements
// ends within this time. The bound is one of the histogram's classic ones.
const (
	SLOBound     = "0.1"
	SLOObjective = 0.999
)

// Names of recorded series that alerts and panels use.
const (
	clusterInfo   = "instance:mooring_cluster:info"
	rate1m        = "instance:db_server_operations:rate1m"
	errorRatio    = "instance:db_server_operation_errors:ratio5m"
	load5m        = "instance:db_server_load:rate5m"
	p50           = "instance:db_server_operation_duration:p50_5m"
	p95           = "instance:db_server_operation_duration:p95_5m"
	p99           = "instance:db_server_operation_duration:p99_5m"
	coverage      = "instance:db_probe_coverage:ratio5m"
	p99Week       = "instance:db_server_operation_duration:p99_median1w"
	ttfbShare     = "instance:db_server_ttfb_share:ratio5m"
	blockedShare  = "instance:db_server_response_blocked_share:ratio5m"
	digestLoad    = "instance_digest:db_query_seconds:rate5m"
	digestCalls   = "instance_digest:db_query_calls:rate5m"
	fsyncP99      = "instance:mooring_fsync_duration:p99_5m"
	blockP99      = "instance:mooring_block_io_duration:p99_5m"
	primary       = "instance:db_role_primary:bool"
	overheadCores = "node:db_probe_overhead_cores:rate5m"
)

// sloWindows are those of the two burn-rate alerts.
func sloWindows() []string { return []string{"5m", "30m", "1h", "6h"} }

func sloRatio(window string) string { return "db:slo_latency_good:ratio_rate" + window }

// recordings are in the order of their dependence.
func recordings() []Group {
	slo := Group{Name: "mooring-recording-slo", Interval: "1m"}
	for _, w := range sloWindows() {
		slo.Rules = append(slo.Rules, record(sloRatio(w), withinShare(SLOBound, operations, bySystem, w)))
	}
	return []Group{
		{Name: "mooring-recording-statements", Rules: []Rule{
			record(clusterInfo, clusters()),
			record(rate1m, countRate(operations, "", bySystem, "1m")),
			record(errorRatio, errorShare(bySystem, "5m")),
			record(load5m, sumRate(operations, "", bySystem, "5m")),
			record(p50, quantile("0.5", operations, "", bySystem, "5m")),
			record(p95, quantile("0.95", operations, "", bySystem, "5m")),
			record(p99, quantile("0.99", operations, "", bySystem, "5m")),
			record(ttfbShare, share(sumRate(firstByte, "", bySystem, "5m"), sumRate(operations, "", bySystem, "5m"))),
			record(blockedShare, share(rate("db_server_response_blocked_seconds_total", "", bySystem, "5m"), sumRate(operations, "", bySystem, "5m"))),
			record(digestLoad, sumRate(digests, "", byDigest, "5m")),
			record(digestCalls, countRate(digests, "", byDigest, "5m")),
		}},
		{Name: "mooring-recording-resources", Rules: []Rule{
			record(fsyncP99, quantile("0.99", fsyncHistogram, "", byInstance, "5m")),
			record(blockP99, quantile("0.99", blockHistogram, "", byInstance+", operation", "5m")),
			// Of now: the ratio since the instance was found takes days to tell a change.
			record(coverage, fmt.Sprintf("%s / (%s > 0)",
				rate("db_probe_seen_bytes_total", "", byInstance, "5m"),
				rate("db_probe_socket_bytes_total", "", byInstance, "5m"))),
			// The agent's own CPU time has the scrape's instance label. Run time of programs
			// is counted only while the kernel's BPF statistics are on.
			record(overheadCores, fmt.Sprintf("%[1]s + (%[2]s or 0 * %[1]s)",
				rate("process_cpu_seconds_total", agentJob, byAgent, "5m"),
				rate("db_probe_program_run_seconds_total", "", byAgent, "5m"))),
		}},
		{Name: "mooring-recording-replication", Rules: []Rule{
			// A role that goes leaves its series behind as a gap, in which nothing changes.
			record(primary, fmt.Sprintf(`max by (%[1]s) (db_role{role="primary"}) or 0 * max by (%[1]s) (db_role)`, byInstance)),
		}},
		slo,
		// A week is read for each series: seldom.
		{Name: "mooring-recording-week", Interval: "5m", Rules: []Rule{
			record(p99Week, fmt.Sprintf("quantile_over_time(0.5, %s[1w])", p99)),
		}},
	}
}

// errorShare is the share of operations that ended with an error: 0 where none
// did, no value where nothing ran.
func errorShare(by, window string) string {
	all := countRate(operations, "", by, window)
	failed := countRate(operations, `error_type="error"`, by, window)
	return share(fmt.Sprintf("%s or 0 * (%s)", failed, all), all)
}

// clusters names each instance's cluster "namespace/cluster", "namespace/-" where
// no policy declares one, and "-" outside Kubernetes.
func clusters() string {
	named := fmt.Sprintf(`label_replace(max by (%s, cluster) (mooring_instance_info), "cluster", "-", "cluster", "")`, byInstance)
	return fmt.Sprintf(`label_replace(label_join(%s, "cluster", "/", "namespace", "cluster"), "cluster", "$1", "cluster", "/(.*)")`, named)
}
