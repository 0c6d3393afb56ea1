package exporter

import "github.com/mooring-dev/mooring/agent/state"

// traffic is what statements carry, beside how long they take.
func traffic() family {
	labels := instanceLabels("db_system_name", "db_operation_name")
	var (
		ttfb = nativeOnly("db_server_operation_ttfb_seconds",
			"Time from the first byte of a request to the first byte of its reply; buckets in the protobuf format alone.", labels...)
		blocked = counter("db_server_response_blocked_seconds_total",
			"Time the server waited for clients to take its replies: a slow client or network, not a slow server.", labels...)
		in = counter("db_server_request_bytes_total",
			"Bytes of requests received.", labels...)
		out = counter("db_server_response_bytes_total",
			"Bytes of replies sent.", labels...)
		rows = counter("db_server_rows_total",
			"Rows returned or affected, where the protocol says so.", labels...)
		statements = counter("db_server_statements_total",
			"Statements inside requests, more than requests where clients pipeline; requests are the count of db_server_operation_duration_seconds.",
			instanceLabels("db_system_name")...)
		stream = counter("db_server_stream_bytes_total",
			"Bytes of replication and subscriptions, which are not timed; direction is in or out, as the server sees it.",
			instanceLabels("db_system_name", "direction")...)
		failed = counter("db_server_errors_total",
			"Errors that were answered, by the protocol's code; other stands for all beyond a bounded list.",
			instanceLabels("db_system_name", "db_response_status_code")...)
		logins = counter("db_server_logins_total",
			"Logins by result, ok or failed; over an encrypted connection they end where encryption begins and count as ok.",
			instanceLabels("db_system_name", "result")...)
	)
	return family{
		name:    "traffic",
		metrics: []*metric{ttfb, blocked, in, out, rows, statements, stream, failed, logins},
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				d := &s.snap.Instances[i]
				engine := string(d.Engine)
				if d.Statements == nil {
					continue
				}
				for _, op := range mergedOperations(d.Operations) {
					l := labelValues(&d.Instance, engine, op.Name)
					s.spread(ttfb, &op.FirstByte, l...)
					s.set(blocked, op.Blocked.Seconds(), l...)
					s.set(in, float64(op.RequestBytes), l...)
					s.set(out, float64(op.ResponseBytes), l...)
					s.set(rows, float64(op.Rows), l...)
				}
				for result, n := range loginResults(d.Operations) {
					s.set(logins, float64(n), labelValues(&d.Instance, engine, result)...)
				}
				t := &d.Statements.Traffic
				s.set(statements, float64(t.Statements), labelValues(&d.Instance, engine)...)
				s.set(stream, float64(t.StreamInBytes), labelValues(&d.Instance, engine, "in")...)
				s.set(stream, float64(t.StreamOutBytes), labelValues(&d.Instance, engine, "out")...)
				for _, e := range d.Statements.Errors {
					s.set(failed, float64(e.Count), labelValues(&d.Instance, engine, e.Code)...)
				}
			}
		},
	}
}

// loginResults counts logins by result; both are there, also at zero, so that the
// first failure shows as a rise.
func loginResults(ops []state.Operation) map[string]uint64 {
	results := map[string]uint64{"ok": 0, "failed": 0}
	for _, op := range ops {
		switch {
		case op.Name != "auth":
		case op.Error:
			results["failed"] += op.Count
		default:
			results["ok"] += op.Count
		}
	}
	return results
}
