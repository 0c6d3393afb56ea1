package monitoring

import (
	"cmp"
	"fmt"
	"slices"
)

func sortBySeries(input []any) {
	slices.SortFunc(input, func(a, b any) int {
		return cmp.Compare(a.(map[string]any)["series"].(string), b.(map[string]any)["series"].(string))
	})
}

// statements makes n statements a minute until minute m and after it: fast ones
// end within 5 ms, the others within 250 ms.
func statements(m int, fastBefore, slowBefore, fastAfter, slowAfter float64) series {
	all := turning(fastBefore+slowBefore, m, fastAfter+slowAfter)
	fast := turning(fastBefore, m, fastAfter)
	return histogram(operations, and(sys, `db_operation_name="select",error_type=""`),
		turning(0.003*fastBefore+0.2*slowBefore, m, 0.003*fastAfter+0.2*slowAfter),
		map[string]string{"0.005": fast, "0.1": fast, "0.25": all, "+Inf": all})
}

func failures(each float64) series {
	n := growing(each)
	return histogram(operations, and(sys, `db_operation_name="select",error_type="error"`), growing(each*0.003), map[string]string{"0.005": n, "0.1": n, "0.25": n, "+Inf": n})
}

func fsyncs(perMinuteFast, perMinuteSlow float64) series {
	all := growing(perMinuteFast + perMinuteSlow)
	return histogram(fsyncHistogram, id, growing(1), map[string]string{"0.01": growing(perMinuteFast), "0.05": all, "+Inf": all})
}

func of(metric string, labels string, values string) series {
	return series{line(metric, labels): values}
}

func alertCases() []alertCase {
	return slices.Concat(statementCases(), resourceCases(), replicationCases(), probeCases(), agentCases())
}

func statementCases() []alertCase {
	blocked := func(each float64) series {
		return of("db_server_response_blocked_seconds_total", and(sys, `db_operation_name="select"`), growing(each))
	}
	return []alertCase{
		// Slow for twenty minutes after three fast hours; slow by nature.
		{"DBLatencyHigh", 200, statements(180, 600, 0, 0, 600), statements(180, 0, 600, 0, 600)},
		{"DBErrorRatioHigh", 30, join(statements(30, 600, 0, 600, 0), failures(60)), join(statements(30, 600, 0, 600, 0), failures(20))},
		// A tenth is slow for an hour and on; it was, and is over.
		{"DBLatencyBurnRateFast", 200, statements(100, 600, 0, 540, 60), statements(180, 0, 600, 600, 0)},
		{"DBLatencyBurnRateSlow", 400, statements(100, 600, 0, 590, 10), statements(200, 600, 0, 598, 2)},
		{"DBLongTransaction", 5, of("db_server_transaction_open_age_seconds", sys, "0+70x10"), of("db_server_transaction_open_age_seconds", sys, "0+50x10")},
		// Nothing more is answered while clients wait; the same, and they have stopped asking.
		{"DBNoTraffic", 50, join(statements(30, 600, 0, 0, 0), of("db_server_requests_in_flight", sys, steady(5))),
			join(statements(30, 600, 0, 0, 0), of("db_server_requests_in_flight", sys, steady(0)), of("db_server_connections", sys, steady(5)))},
		{"DBLoginFailures", 20, of("db_server_logins_total", and(sys, `result="failed"`), growing(10)),
			join(of("db_server_logins_total", and(sys, `result="failed"`), growing(1)), of("db_server_logins_total", and(sys, `result="ok"`), growing(100)))},
		{"DBSlowQueryBurst", 500, of("db_slow_queries_total", sys, turning(1, 480, 120)), of("db_slow_queries_total", sys, growing(120))},
		{"DBResponseBlocked", 30, join(statements(30, 0, 600, 0, 600), blocked(100)), join(statements(30, 0, 600, 0, 600), blocked(30))},
	}
}

func resourceCases() []alertCase {
	dir := and(id, `directory="data"`)
	space := func(available, size string) series {
		return join(of("mooring_instance_directory_available_bytes", dir, available), of("mooring_instance_directory_size_bytes", dir, size))
	}
	periods := func(throttled float64, job string) series {
		labels := and(id, `job="`+job+`"`)
		return join(of("container_cpu_cfs_periods_total", labels, growing(600)), of("container_cpu_cfs_throttled_periods_total", labels, growing(throttled)))
	}
	return []alertCase{
		{"DBFsyncSlow", 30, fsyncs(500, 100), fsyncs(600, 1)},
		// 1000 of 10000, less by 1 a minute: over in 16 hours; with less by 0.1 in a week.
		{"DBDiskSpace", 400, space("1400-1x600", steady(10000)), space("1040-0.1x600", steady(10000))},
		{"DBDiskNearlyFull", 30, space(steady(400), steady(10000)), space(steady(600), steady(10000))},
		// cAdvisor's series of the same names are another job's.
		{"DBThrottled", 60, periods(300, "mooring-agent"), join(periods(60, "mooring-agent"), periods(300, "cadvisor"))},
		{"DBOOMKilled", 30, of("mooring_instance_oom_kills_total", id, "0x25 1x100"), of("mooring_instance_oom_kills_total", id, "0x5 1x100")},
		// The container ended by it: its own count begins at 0 again.
		{"DBOOMKilled", 30,
			join(of("mooring_instance_oom_kills_total", id, steady(0)), of("mooring_instance_pod_oom_kills_total", id, "0x25 1x100")),
			join(of("mooring_instance_oom_kills_total", id, steady(0)), of("mooring_instance_pod_oom_kills_total", id, "0x5 1x100"))},
	}
}

func replicationCases() []alertCase {
	role := func(instance, role, values string) series {
		return of("db_role", fmt.Sprintf(`namespace="db",node="n1",pod=%q,container="pg",instance=%q,role=%q`, instance, instance, role), values)
	}
	info := func(instance, cluster string) series {
		return of("mooring_instance_info", fmt.Sprintf(`namespace="db",node="n1",pod=%q,container="pg",instance=%q,cluster=%q`, instance, instance, cluster), steady(1))
	}
	written := func(success float64) series {
		return of("db_active_probe_success", and(id, `probe="write"`), steady(success))
	}
	const mark = "stale" // the series ends, as it does when the label changes
	return []alertCase{
		{"DBDown", 10, of("db_up", id, "1x3 0x20"), of("db_up", id, "1x8 0x20")},
		// A server that ended: its series do too, but a policy declares it.
		{"DBDown", 10,
			join(of("db_up", id, "1 1 1 "+mark), of("mooring_declared_instance_found", id, "1x3 0x20")),
			join(of("db_up", id, "1 1 1 "+mark), of("mooring_declared_instance_found", id, "1x8 0x20"))},
		// One that never served is being set up, and half an hour is too long for it.
		{"DBDown", 80,
			of("mooring_declared_instance_found", id, "1x40 0x80"),
			of("mooring_declared_instance_found", id, "0x120")},
		{"DBNotServing", 40, of("mooring_declared_instance_found", id, "0x120"), of("mooring_declared_instance_found", id, "0x25 1x120")},
		{"DBRoleFlapping", 12,
			join(role("a", "primary", "1 1 1 "+mark+" _ 1 1 "+mark+" _ 1 1 1 1 1"), role("a", "replica", "_ _ _ 1 1 "+mark+" _ 1 1 "+mark)),
			join(role("a", "primary", "1 1 1 "+mark), role("a", "replica", "_ _ _ 1x20"))},
		{"DBTwoPrimaries", 10,
			join(role("a", "primary", steady(1)), role("b", "primary", steady(1)), info("a", "shop"), info("b", "shop")),
			// One primary each of two clusters, and two that no policy declares.
			join(role("a", "primary", steady(1)), role("b", "primary", steady(1)), info("a", "shop"), info("b", "stock"),
				role("c", "primary", steady(1)), role("d", "primary", steady(1)), info("c", ""), info("d", ""),
				role("e", "replica", steady(1)), info("e", "shop"))},
		{"DBWriteProbeFailing", 15, written(0), join(written(0), of("db_read_only", id, steady(1)))},
		{"DBWriteProbeFailing", 15, written(0), join(written(1), of("db_read_only", id, steady(0)))},
		{"DBProbeLoginStopped", 5, of("db_active_probe_stopped", id, steady(1)), of("db_active_probe_stopped", id, steady(0))},
		{"DBReplicationLag", 20, of("db_replication_lag_seconds", id, steady(60)),
			join(of("db_replication_lag_seconds", id, "60x4 1x100"), of("db_heartbeat_age_seconds", id, steady(11)), of("db_heartbeat_period_seconds", id, steady(10)))},
		// A replica that has lost its primary says 0; and a heartbeat once in an hour.
		{"DBReplicationLag", 20,
			join(of("db_replication_lag_seconds", id, steady(0)), of("db_heartbeat_age_seconds", id, steady(60)), of("db_heartbeat_period_seconds", id, steady(10))),
			join(of("db_replication_lag_seconds", id, steady(0)), of("db_heartbeat_age_seconds", id, steady(3000)), of("db_heartbeat_period_seconds", id, steady(3600)))},
	}
}

func probeCases() []alertCase {
	lost := func(reason string) series {
		return of("db_probe_lost_total", and(self, `reason="`+reason+`"`), growing(5))
	}
	seen := func(bytes string) series {
		return join(of("db_probe_seen_bytes_total", id, bytes), of("db_probe_socket_bytes_total", id, growing(1000)))
	}
	fill := func(n float64) series {
		return join(of("db_probe_map_entries", and(self, `map="connections"`), steady(n)), of("db_probe_map_capacity", and(self, `map="connections"`), steady(1000)))
	}
	cores := func(agent, programs float64) series {
		return join(of("process_cpu_seconds_total", self, growing(agent*60)), of("db_probe_program_run_seconds_total", and(self, `program="recv"`), growing(programs*60)))
	}
	return []alertCase{
		// A text that was not read costs no statement.
		{"DBProbeEventsLost", 20, lost("connections_full"), lost("texts")},
		// Whatever it was before.
		{"DBProbeCoverageLow", 60, seen(turning(1000, 30, 950)), seen(turning(500, 30, 1000))},
		{"DBProbeMapNearFull", 20, fill(900), fill(700)},
		{"DBProbeUnsupported", 20, of("db_probe_mode", and(self, `mode="off"`), steady(1)), of("db_probe_mode", and(self, `mode="tracepoint"`), steady(1))},
		// Neither alone is too much.
		{"DBProbeOverheadHigh", 30, cores(0.2, 0.2), cores(0.2, 0.05)},
	}
}

func agentCases() []alertCase {
	fault := and(id, `kind="freeze"`)
	controller := line("up", `job="mooring-controller",instance="c"`)
	return []alertCase{
		{"MooringFaultStuck", 5, of("mooring_fault_stuck", fault, steady(1)), of("mooring_fault_stuck", fault, steady(0))},
		{"MooringJournalDamaged", 5, of("mooring_journal_damaged", self, steady(1)), of("mooring_journal_damaged", self, steady(0))},
		{"MooringAgentStuck", 10, of("mooring_snapshot_age_seconds", self, "0+60x20"), of("mooring_snapshot_age_seconds", self, "1 31 1 31 1 31 1 31 1 31 1 31")},
		{"MooringAgentDown", 10, of("up", self, steady(0)), of("up", self, "0x4 1x20")},
		{"MooringExporterIncomplete", 20, of("mooring_exporter_success", and(self, `family="statements"`), steady(0)),
			of("mooring_exporter_success", and(self, `family="statements"`), "0x5 1x20")},
		{"MooringSourceFailing", 20, of("mooring_collector_success", and(self, `collector="records"`), steady(0)),
			of("mooring_collector_success", and(self, `collector="records"`), "0x5 1x20")},
		{"MooringSourceFailing", 20, of("mooring_collector_success", and(self, `collector="statements"`), steady(0)),
			of("mooring_collector_success", and(self, `collector="api-server"`), steady(0))},
		// It is one alert, whichever number of nodes: promtool counts it.
		{"MooringAPIServerUnreachable", 20,
			join(of("mooring_collector_success", and(self, `collector="api-server"`), steady(0)),
				of("mooring_collector_success", `collector="api-server",instance="10.0.0.2:9750",job="mooring-agent",node="n2"`, steady(0))),
			of("mooring_collector_success", and(self, `collector="records"`), steady(0))},
		{"MooringEventBug", 30, of("mooring_event_bugs_total", self, "0x20 1x20"), of("mooring_event_bugs_total", self, "0x5 1x40")},
		{"MooringRecordsLost", 10, of("mooring_records_lost_total", and(self, `reason="sink_failed"`), growing(1)),
			of("mooring_records_lost_total", and(self, `reason="subscriber"`), growing(1))},
		// The second controller is up.
		{"MooringControllerDown", 10, series{controller: steady(0)}, series{controller: steady(0), line("up", `job="mooring-controller",instance="d"`): steady(1)}},
	}
}

func recordCases() []recordCase {
	half := statements(30, 300, 300, 300, 300) // ten a second, half of them slow; 1.015 s a second
	byDigest := func(seconds, calls float64) series {
		labels := and(sys, `digest="00000000000000aa"`)
		return series{line(digests+"_sum", labels): growing(seconds), line(digests+"_count", labels): growing(calls)}
	}
	cases := []recordCase{
		{clusterInfo, and(`cluster="db/shop"`, id), 5, of("mooring_instance_info", and(id, `cluster="shop",role="primary"`), steady(1)), 1000},
		{clusterInfo, `cluster="-",instance="/a.service"`, 5, of("mooring_instance_info", `instance="/a.service"`, steady(1)), 1000},
		{rate1m, sys, 20, half, 10000},
		{errorRatio, sys, 20, join(half, failures(200)), 250},
		{load5m, sys, 20, half, 1015},
		{p50, sys, 20, half, 5},
		{p95, sys, 20, half, 235},
		{p99, sys, 20, half, 247},
		{p99Week, sys, 30, half, 247},
		{ttfbShare, sys, 20, join(half, of(firstByte+"_sum", and(sys, `db_operation_name="select"`), growing(30.45))), 500},
		{blockedShare, sys, 20, join(half, of("db_server_response_blocked_seconds_total", sys, growing(15.225))), 250},
		{digestLoad, and(sys, `digest="00000000000000aa"`), 20, byDigest(120, 60), 2000},
		{digestCalls, and(sys, `digest="00000000000000aa"`), 20, byDigest(120, 60), 1000},
		{fsyncP99, id, 20, fsyncs(0, 600), 50},
		{blockP99, and(id, `operation="write"`), 20, histogram(blockHistogram, and(id, `operation="write"`), growing(1),
			map[string]string{"0.01": growing(0), "0.05": growing(600), "+Inf": growing(600)}), 50},
		{coverage, id, 60, join(of("db_probe_seen_bytes_total", id, turning(500, 30, 950)), of("db_probe_socket_bytes_total", id, growing(1000))), 950},
		{primary, id, 20, of("db_role", and(id, `role="primary"`), steady(1)), 1000},
		{overheadCores, `instance="10.0.0.1:9750",node="n1"`, 20, join(of("process_cpu_seconds_total", self, growing(6)),
			of("db_probe_program_run_seconds_total", and(self, `program="recv"`), growing(3))), 150},
		{overheadCores, `instance="10.0.0.1:9750",node="n1"`, 20, of("process_cpu_seconds_total", self, growing(6)), 100},
	}
	for _, w := range sloWindows() {
		cases = append(cases, recordCase{sloRatio(w), sys, 20, half, 500})
	}
	return cases
}
