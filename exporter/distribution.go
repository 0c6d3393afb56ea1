package exporter

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/mooring-dev/mooring/agent/state"
)

// The buckets that schema 1 has, over the range of a float64.
const (
	coarseMin = -1074 << state.DistributionSchema
	coarseMax = 1024 << state.DistributionSchema
)

// nativeOnly declares a histogram without classic buckets: in the text formats it
// has its count, its sum and the bucket of all alone.
func nativeOnly(name, help string, labels ...string) *metric {
	return declare("histogram, native", prometheus.UntypedValue, name, help, labels)
}

// newDistribution makes a series of d, which has no classic buckets. It refuses
// one whose buckets do not add up to its count.
func newDistribution(desc *prometheus.Desc, d *state.Distribution, labels ...string) (*histogram, error) {
	var total uint64
	for i, n := range d.Native {
		if i < coarseMin || i > coarseMax {
			return nil, fmt.Errorf("native bucket %d is outside schema %d", i, state.DistributionSchema)
		}
		if n > math.MaxInt64 {
			return nil, errors.New("native count overflows")
		}
		total += n
	}
	if total != d.Count {
		return nil, fmt.Errorf("native counts add up to %d, not to the count %d", total, d.Count)
	}
	data := &dto.Histogram{
		SampleCount: new(d.Count), SampleSum: new(d.Sum.Seconds()),
		Schema:        new(int32(state.DistributionSchema)),
		ZeroThreshold: new(prometheus.DefNativeHistogramZeroThreshold),
		ZeroCount:     new(uint64(0)),
	}
	data.PositiveSpan, data.PositiveDelta = nativeBuckets(d.Native)
	return &histogram{desc: desc, labels: prometheus.MakeLabelPairs(desc, valid(labels)), data: data}, nil
}

// spread sends one series of m, which nativeOnly made.
func (s *scrape) spread(m *metric, d *state.Distribution, labels ...string) {
	h, err := newDistribution(m.desc, d, labels...)
	if err != nil {
		s.omit(fmt.Errorf("%s: %w", m.name, err))
		return
	}
	s.ch <- h
}
