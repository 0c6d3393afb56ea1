package exporter

// probe is how statements are being timed, and what was lost on the way.
func probe() family {
	var (
		mode = gauge("db_probe_mode",
			"Always 1; how statements are timed: fentry, tracepoint, or off when this kernel allows neither.", "mode")
		lost = counter("db_probe_lost_total",
			"Statements that ran but could not be recorded, by reason, counted in the kernel.", "reason")
	)
	return family{
		name:    "probe",
		metrics: []*metric{mode, lost},
		collect: func(s *scrape) {
			if m := s.snap.Probe.Mode; m != "" {
				s.set(mode, 1, m)
			}
			for reason, n := range s.snap.Probe.Lost {
				s.set(lost, float64(n), reason)
			}
		},
	}
}
