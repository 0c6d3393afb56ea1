package exporter

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// crowded is a node of n instances with ten kinds of statement each.
func crowded(n int) *state.Snapshot {
	snap := snapshot()
	snap.Instances, snap.Missing = nil, nil
	for i := range n {
		in := postgres()
		in.Pod = fmt.Sprintf("pg-%d", i)
		in.ID = "db/" + in.Pod + "/postgres"
		op := measure(usualBounds(), latencies())
		in.Operations = nil
		for _, name := range []string{"select", "insert", "update", "delete", "call", "ddl", "txn", "set", "copy", "other"} {
			op.Name = name
			in.Operations = append(in.Operations, op)
		}
		snap.Instances = append(snap.Instances, in)
	}
	return snap
}

// usualBounds are the sixteen bounds from 50 us to 10 s.
func usualBounds() []time.Duration {
	var out []time.Duration
	for _, us := range []int{50, 100, 250, 500, 1e3, 2500, 5e3, 1e4, 25e3, 5e4, 1e5, 25e4, 5e5, 1e6, 25e5, 1e7} {
		out = append(out, time.Duration(us)*time.Microsecond)
	}
	return out
}

// latencies fill about forty native buckets, one after the other.
func latencies() []int64 {
	var out []int64
	for ns := 1e5; ns < 4e6; ns *= 1.09 {
		out = append(out, int64(ns))
	}
	return out
}

func BenchmarkScrape(b *testing.B) {
	benchmarkScrape(b, "500 instances with 10 operations", crowded(500))
}

func benchmarkScrape(b *testing.B, what string, snap *state.Snapshot) {
	h := New(hold(snap), usualBounds()).Handler()
	for name, accept := range map[string]string{
		"text":     "",
		"protobuf": protobufFormat,
	} {
		b.Run(name+", "+what, func(b *testing.B) {
			req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil)
			req.Header.Set("Accept", accept)
			b.ReportAllocs()
			for b.Loop() {
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, req)
				require.Equal(b, http.StatusOK, rec.Code)
				b.ReportMetric(float64(rec.Body.Len()), "B/scrape")
			}
		})
	}
}
