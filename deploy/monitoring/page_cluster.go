package monitoring

// clusterPage is the members of a cluster beside one another: who is primary, who
// lags, who is slower than the others?
func clusterPage() Dashboard {
	probes := "Needs active probes: spec.probe of a DatabasePolicy."
	each := func(metric string) Query { return q(members(metric), "{{instance}}") }
	return Dashboard{
		UID: uidCluster, Title: "Mooring / Cluster", Description: "The members of a cluster beside one another.",
		Variables: []Variable{{Name: "cluster", Label: "Cluster", Metric: clusterInfo, By: "cluster", All: true}},
		Rows: []Row{
			{"Now", []Panel{
				stat("Members", "short", 4, sum(members(clusterInfo))),
				stat("Primaries", "short", 4, sum(members(primary)), exactlyOne()...).about(probes),
				stat("Worst replication lag", "s", 4, "max("+members("db_replication_lag_seconds")+")", bad(10, 30)...).about(probes),
				stat("Operations a second", "ops", 4, sum(members(rate1m))),
				stat("Load", "short", 4, sum(members(load5m))).about("Average number of statements at work."),
				stat("Worst p99", "s", 4, "max("+members(p99)+")", bad(0.1, 1)...),
			}},
			{"Members", []Panel{
				table("Members", 24,
					column(plain(members(rate1m)), "Operations/s", "ops"),
					column(plain(members(load5m)), "Load", "short"),
					column(plain(members(p50)), "p50", "s"),
					column(plain(members(p99)), "p99", "s", bad(0.1, 1)...),
					column(plain(members(errorRatio)), "Errors", "percentunit", bad(0.01, 0.05)...),
					column(plain(members(blockedShare)), "Waits for clients", "percentunit", bad(0.3, 0.5)...),
				).linked(toInstance()),
			}},
			{"Roles and replication, from active probes", []Panel{
				lines("Primary", "short", 12, each(primary)).upTo(1).about("1 while the instance says that it is primary. " + probes),
				lines("Answers", "short", 12, each("db_up")).upTo(1).about(probes),
				lines("Replication lag", "s", 12, each("db_replication_lag_seconds")).limits(bad(10, 30)).about(probes),
				lines("Replication lag in bytes", "bytes", 12, each("db_replication_lag_bytes")).about(probes),
				lines("Age of the heartbeat", "s", 12, each("db_heartbeat_age_seconds")).limits(bad(10, 30)).about("Of the newest heartbeat row that has reached a replica. Needs spec.probe with write: Replicated."),
				lines("Read only", "short", 12, each("db_read_only")).upTo(1).about(probes),
			}},
			{"Work", []Panel{
				lines("Operations a second", "ops", 12, each(rate1m)).linked(toInstance()),
				lines("Load", "short", 12, each(load5m)).linked(toInstance()),
				lines("p99", "s", 12, each(p99)).linked(toInstance()),
				lines("Share of errors", "percentunit", 12, each(errorRatio)).linked(toInstance()),
				lines("Connections", "short", 12, each("db_server_connections")).linked(toInstance()),
				lines("CPU in use", "short", 12, each(rate("mooring_instance_cpu_usage_seconds_total", "", byInstance, window))).linked(toInstance()).about("Cores."),
				lines("Replication streams out", "Bps", 12, each(rate("db_server_stream_bytes_total", `direction="out"`, byInstance, window))).linked(toInstance()).
					about("Bytes that replicas and subscribers take from the instance."),
				lines("Memory in use", "bytes", 12, each("mooring_instance_memory_in_use_bytes")).linked(toInstance()),
			}},
		},
	}
}
