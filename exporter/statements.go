package exporter

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// statements is the latency of SQL statements and Redis commands. The metric
// and its labels follow the OpenTelemetry conventions for databases.
func statements(classicBounds []time.Duration) family {
	// The value type is of no meaning here: the series are not single values.
	duration := declare("histogram, classic and native", prometheus.UntypedValue,
		"db_server_operation_duration_seconds",
		"Time a statement took in the server: from the return of the receive that brought its first byte "+
			"to the return of the last send of its answer, timed in the kernel by eBPF. "+
			"error_type is \"error\" when the server answered with an error, else empty.",
		instanceLabels("db_system_name", "db_operation_name", "error_type"))
	bounds := inSeconds(classicBounds)
	return family{
		name:    "statements",
		metrics: []*metric{duration},
		collect: func(s *scrape) {
			for i := range s.snap.Instances {
				in := &s.snap.Instances[i]
				for j := range in.Operations {
					op := &in.Operations[j]
					var errorType string
					if op.Error {
						errorType = "error"
					}
					h, err := newHistogram(duration.desc, bounds, op,
						labelValues(&in.Instance, string(in.Engine), op.Name, errorType)...)
					if err != nil {
						s.omit(fmt.Errorf("%s of %q: %w", op.Name, in.ID, err))
					}
					if h != nil {
						s.ch <- h
					}
				}
			}
		},
	}
}
