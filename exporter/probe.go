package exporter

// probe is how statements are being timed, and what was lost on the way.
func probe() family {
	var (
		mode = gauge("db_probe_mode",
			"Always 1; how statements are timed: fentry, tracepoint, or off when this kernel allows neither.", "mode")
		lost = counter("db_probe_lost_total",
			"Statements that ran but could not be recorded, by reason, counted in the kernel.", "reason")
		coverage = gauge("db_probe_coverage_ratio",
			"Share of the bytes of an instance's sockets that the probe saw; absent where the kernel does not tell.", instanceLabels()...)
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
		metrics: []*metric{mode, lost, coverage, events, entries, capacity, run},
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
				if share, ok := in.Statements.Traffic.Coverage(); ok {
					s.set(coverage, share, labelValues(&in.Instance)...)
				}
			}
		},
	}
}
