package exporter

// probe is how statements are being timed, and what was lost on the way.
func probe() family {
	var (
		mode = gauge("db_probe_mode",
			"Always 1; how statements are timed: fentry, tracepoint, or off when this kernel allows neither.", "mode")
		lost = counter("db_probe_lost_total",
			"What was not counted as it should be, by reason, counted in the kernel; the table of reasons in the exporter's README says by which of them a statement is missing.", "reason")
		coverage = gauge("db_probe_coverage_ratio",
			"Share of the bytes of an instance's sockets that the probe saw since the instance was found; absent where the kernel does not tell. Of now it is the ratio of the rates of db_probe_seen_bytes_total and db_probe_socket_bytes_total.", instanceLabels()...)
		seen = counter("db_probe_seen_bytes_total",
			"Bytes of the connections of an instance that the probe saw; absent where the kernel does not tell.", instanceLabels()...)
		carried = counter("db_probe_socket_bytes_total",
			"Bytes that the sockets of these connections counted; absent where the kernel does not tell.", instanceLabels()...)
		events = counter("db_probe_events_total",
			"Events that the kernel told the agent: texts it did not know, finished statements, logins and logouts.", "kind")
		entries = gauge("db_probe_map_entries",
			"Entries of a map of the kernel; what finds it full is lost and counted.", "map")
		capacity = gauge("db_probe_map_capacity",
			"Entries that a map of the kernel has room for.", "map")
		run = counter("db_probe_program_run_seconds_total",
			"Time spent in a program of the kernel since it was loaded; absent unless the kernel measures it (sysctl kernel.bpf_stats_enabled).", "program")
	)
	return family{
		name:    "probe",
		metrics: []*metric{mode, lost, coverage, seen, carried, events, entries, capacity, run},
		collect: func(s *scrape) {
			if m := s.snap.Probe.Mode; m != "" {
				s.set(mode, 1, m)
			}
			for reason, n := range s.snap.Probe.Lost {
				s.set(lost, float64(n), reason)
			}
			for kind, n := range s.snap.Probe.Events {
				s.set(events, float64(n), kind)
			}
			for name, fill := range s.snap.Probe.Maps {
				s.set(entries, float64(fill.Entries), name)
				s.set(capacity, float64(fill.Capacity), name)
			}
			for program, took := range s.snap.Probe.RunTime {
				s.set(run, took.Seconds(), program)
			}
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if in.Statements == nil {
					continue
				}
				t := &in.Statements.Traffic
				if share, ok := t.Coverage(); ok {
					s.set(coverage, share, labelValues(&in.Instance)...)
					s.set(seen, float64(t.SeenBytes), labelValues(&in.Instance)...)
					s.set(carried, float64(t.SocketBytes), labelValues(&in.Instance)...)
				}
			}
		},
	}
}
