package exporter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/mooring-dev/mooring/agent/state"
)

const (
	// nativeSchema is the resolution of the exponential buckets: 2^3 to a
	// doubling, each 9 % wide. It is the one state.Operation.Native is in.
	nativeSchema = 3
	// Schema 3 covers the float64 range, 2^-1074 to 2^1024, and no more.
	nativeMin = -1074 << nativeSchema
	nativeMax = 1024 << nativeSchema
	// maxGap is how many empty buckets are written out rather than skipped by
	// a new span; a span costs about as much as two empty buckets.
	maxGap = 2
)

// histogram is one series with classic and native buckets. The library's own
// constant histograms carry either, never both, and a server that does not
// scrape native histograms needs the classic ones.
type histogram struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	data   *dto.Histogram
}

// Desc returns the metric's descriptor.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write hands out the series; the receiver must not change it.
func (h *histogram) Write(out *dto.Metric) error {
	out.Label, out.Histogram = h.labels, h.data
	return nil
}

// newHistogram makes a series of op. It refuses an operation whose classic
// counts do not fit the bounds or do not add up to its count. When only the
// native counts do not add up, it returns the series without them together
// with an error that says so: Prometheus drops a whole scrape for one native
// histogram that contradicts itself.
func newHistogram(desc *prometheus.Desc, bounds []float64, op *state.Operation, labels ...string) (*histogram, error) {
	if len(op.Classic) != len(bounds)+1 {
		return nil, fmt.Errorf("%d classic counts for %d bounds", len(op.Classic), len(bounds))
	}
	buckets, total := classicBuckets(bounds, op.Classic)
	if total != op.Count {
		return nil, fmt.Errorf("classic counts add up to %d, not to the count %d", total, op.Count)
	}
	data := &dto.Histogram{
		SampleCount: new(op.Count),
		SampleSum:   new(op.Sum.Seconds()),
		Bucket:      buckets,
	}
	h := &histogram{desc: desc, labels: prometheus.MakeLabelPairs(desc, valid(labels)), data: data}
	if op.Native == nil {
		return h, nil
	}
	if err := checkNative(op); err != nil {
		return h, err
	}
	data.Schema = new(int32(nativeSchema))
	data.ZeroThreshold = new(prometheus.DefNativeHistogramZeroThreshold)
	data.ZeroCount = new(uint64(0))
	data.PositiveSpan, data.PositiveDelta = nativeBuckets(op.Native)
	return h, nil
}

// classicBuckets returns the cumulative buckets and the sum of all counts. The
// bucket up to +Inf is left to the encoder, which takes it from the count.
func classicBuckets(bounds []float64, counts []uint64) ([]*dto.Bucket, uint64) {
	var total uint64
	// One allocation for each field of all buckets, not for each bucket.
	buckets := make([]dto.Bucket, len(bounds))
	cumulative := make([]uint64, len(bounds))
	out := make([]*dto.Bucket, len(bounds))
	for i := range bounds {
		total += counts[i]
		cumulative[i] = total
		buckets[i].UpperBound = &bounds[i]
		buckets[i].CumulativeCount = &cumulative[i]
		out[i] = &buckets[i]
	}
	return out, total + counts[len(bounds)]
}

func checkNative(op *state.Operation) error {
	var total uint64
	for i, n := range op.Native {
		if i < nativeMin || i > nativeMax {
			return fmt.Errorf("native bucket %d is outside schema %d", i, nativeSchema)
		}
		if n > math.MaxInt64 {
			return errors.New("native count overflows")
		}
		total += n
	}
	if total != op.Count {
		return fmt.Errorf("native counts add up to %d, not to the count %d", total, op.Count)
	}
	return nil
}

// nativeBuckets returns the sparse form of the protobuf: runs of consecutive
// buckets, each with its distance from the end of the run before, and for each
// bucket the difference from the bucket before it. See metrics.proto of
// github.com/prometheus/client_model. With no observation it returns one empty
// run, the mark of a native histogram that has no buckets yet.
func nativeBuckets(counts map[int]uint64) ([]*dto.BucketSpan, []int64) {
	indices := make([]int, 0, len(counts))
	for i, n := range counts {
		if n > 0 {
			indices = append(indices, i)
		}
	}
	if len(indices) == 0 {
		return []*dto.BucketSpan{{Offset: new(int32(0)), Length: new(uint32(0))}}, nil
	}
	slices.Sort(indices)
	var spans []*dto.BucketSpan
	deltas := make([]int64, 0, len(indices))
	var next int // the bucket after the last one written
	var last int64
	put := func(n int64) {
		deltas = append(deltas, n-last)
		last = n
		*spans[len(spans)-1].Length++
		next++
	}
	for _, i := range indices {
		if gap := i - next; len(spans) == 0 || gap > maxGap {
			spans = append(spans, &dto.BucketSpan{Offset: new(int32(gap)), Length: new(uint32(0))})
			next = i
		}
		for next < i {
			put(0)
		}
		put(int64(counts[i]))
	}
	return spans, deltas
}

// inSeconds returns the bounds as Prometheus writes them.
func inSeconds(bounds []time.Duration) []float64 {
	out := make([]float64, len(bounds))
	for i, b := range bounds {
		out[i] = b.Seconds()
	}
	return out
}
