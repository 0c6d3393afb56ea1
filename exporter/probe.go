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
	)
	return family{
		name:    "probe",
		metrics: []*metric{mode, lost, coverage},
		collect: func(s *scrape) {
			if m := s.snap.Probe.Mode; m != "" {
				s.set(mode, 1, m)
			}
			for reason, n := range s.snap.Probe.Lost {
				s.set(lost, float64(n), reason)
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
