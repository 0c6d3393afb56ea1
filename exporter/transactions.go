package exporter

// transactions is what is open, and how long transactions take.
func transactions() family {
	labels := instanceLabels("db_system_name")
	var (
		duration = nativeOnly("db_server_transaction_duration_seconds",
			"Time from the statement that opened a transaction to the end of the one that ended it, by outcome: commit, rollback or unknown; buckets in the protobuf format alone.",
			instanceLabels("db_system_name", "outcome")...)
		open = gauge("db_server_transactions_open",
			"Transactions open now.", labels...)
		openAge = gauge("db_server_transaction_open_age_seconds",
			"Age of the oldest transaction that is open; 0 when none is.", labels...)
		inFlight = gauge("db_server_requests_in_flight",
			"Requests begun and not yet answered.", labels...)
		flightAge = gauge("db_server_request_open_age_seconds",
			"Age of the oldest request that is not answered; 0 when none is.", labels...)
		connections = gauge("db_server_connections",
			"Client connections that are followed now.", labels...)
	)
	return family{
		name:    "transactions",
		metrics: []*metric{duration, open, openAge, inFlight, flightAge, connections},
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				st := in.Statements
				if st == nil {
					continue
				}
				engine := string(in.Engine)
				for j := range st.Transactions {
					t := &st.Transactions[j]
					s.spread(duration, &t.Duration, labelValues(&in.Instance, engine, t.Outcome)...)
				}
				l := labelValues(&in.Instance, engine)
				s.set(open, float64(st.OpenTransactions), l...)
				s.set(openAge, st.OldestTransaction.Seconds(), l...)
				s.set(inFlight, float64(st.InFlight), l...)
				s.set(flightAge, st.OldestInFlight.Seconds(), l...)
				s.set(connections, float64(st.Connections), l...)
			}
		},
	}
}
