package exporter

// records is what became of records of statements and sessions, and how full the
// agent's table of digests is.
func records() family {
	var (
		made = counter("mooring_records_total",
			"Records of statements and sessions that went to the file, standard output or subscribers, by kind; none is made while there is neither.", "kind")
		lost = counter("mooring_records_lost_total",
			"Records that did not, by reason: limited (over the rate of their instance), sink_full (more than the file took), sink_failed (could not be written), "+
				"subscriber (too slow; once for each subscriber). What the kernel could not tell the agent is in db_probe_lost_total.", "reason")
		limited = counter("mooring_records_limited_total",
			"Those of mooring_records_lost_total that were limited, by instance.", instanceLabels()...)
		sessions = gauge("mooring_record_sessions",
			"Connections whose user is known, and named in their records.")
		bugs = counter("mooring_event_bugs_total",
			"Events of the kernel whose reading met a bug of the agent: a text, a record or a session is missing for each. The agent's log has the first.")
		numbers = gauge("mooring_digests",
			"Digests that are kept apart in the kernel, shown or not; absent while the statement probe is off.")
		shown = gauge("mooring_digests_shown",
			"Digests that have series of their own; absent while the statement probe is off.")
		texts = counter("mooring_digest_texts_total",
			"Texts of statements that the kernel did not know and told the agent.")
		overflowed = counter("mooring_digest_overflowed_total",
			"Of those, texts that found no room: their statements count as the digest other.")
		evicted = counter("mooring_digest_evicted_total",
			"Digests that were given up for others.")
		refused = counter("mooring_digest_kernel_refused_total",
			"Calls that the kernel refused, by reason: full (no room for a text) or error.", "reason")
	)
	return family{
		name:    "records",
		metrics: []*metric{made, lost, limited, sessions, bugs, numbers, shown, texts, overflowed, evicted, refused},
		collect: func(s *scrape) {
			r := &s.snap.Records
			for kind, n := range r.Made {
				s.set(made, float64(n), kind)
			}
			for reason, n := range r.Lost {
				s.set(lost, float64(n), reason)
			}
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i].Instance
				if n, ok := r.Limited[in.ID]; ok {
					s.set(limited, float64(n), labelValues(in)...)
				}
			}
			s.set(sessions, float64(r.Sessions))
			s.set(bugs, float64(r.Bugs))
			t := s.snap.DigestTable
			if t == nil {
				return
			}
			s.set(numbers, float64(t.Numbers))
			s.set(shown, float64(t.Shown))
			s.set(texts, float64(t.Texts))
			s.set(overflowed, float64(t.Overflowed))
			s.set(evicted, float64(t.Evicted))
			s.set(refused, float64(t.KernelFull), "full")
			s.set(refused, float64(t.KernelErrors), "error")
		},
	}
}
