package exporter

import "github.com/mooring-dev/mooring/agent/state"

// maxQueryBytes bounds a statement's text as a label value, with what sentence adds
// to one that it cuts: servers that limit label values refuse the whole scrape for
// one that is longer. All of it is in the answers to mooringctl.
const maxQueryBytes = 256 - len("...")

// digests is the statements of each instance by their shape.
func digests() family {
	labels := instanceLabels("db_system_name", "digest")
	var (
		duration = nativeOnly("db_query_digest_duration_seconds",
			"Time of statements by digest: sixteen hexadecimal digits, or other (not kept apart), unsampled (text not read), tls (encrypted) and none (no text). "+
				"The increases of all digests of an instance add up to that of its statements. A digest counts from when it began to be kept apart. Buckets in the protobuf format alone.",
			labels...)
		failed = counter("db_query_digest_errors_total",
			"Statements answered with an error, by digest.", labels...)
		rows = counter("db_query_digest_rows_total",
			"Rows returned or affected, by digest, where the protocol says so.", labels...)
		info = gauge("db_query_digest_info",
			"Always 1; the text of a digest without literals, cut to 256 bytes, empty where policy keeps texts out. Absent for other, unsampled, tls and none.",
			instanceLabels("db_system_name", "digest", "db_operation_name", "query")...)
		slow = counter("db_slow_queries_total",
			"Statements that took at least the instance's threshold.", instanceLabels("db_system_name")...)
	)
	return family{
		name:    "digests",
		metrics: []*metric{duration, failed, rows, info, slow},
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				if in.Statements == nil {
					continue
				}
				engine := string(in.Engine)
				s.set(slow, float64(in.Statements.Slow), labelValues(&in.Instance, engine)...)
				for j := range in.Statements.Digests {
					d := &in.Statements.Digests[j]
					l := labelValues(&in.Instance, engine, d.ID)
					s.spread(duration, &d.Duration, l...)
					s.set(failed, float64(d.Errors), l...)
					s.set(rows, float64(d.Rows), l...)
					if !standsForOthers(d.ID) {
						s.set(info, 1, labelValues(&in.Instance, engine, d.ID, d.Operation, sentence(d.Text, maxQueryBytes))...)
					}
				}
			}
		},
	}
}

// standsForOthers says that a digest is of no one text.
func standsForOthers(id string) bool {
	switch id {
	case state.DigestOther, state.DigestUnsampled, state.DigestTLS, state.DigestNone:
		return true
	}
	return false
}
