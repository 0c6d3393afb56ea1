package exporter

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/state"
)

const protobufFormat = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

func TestProtobufCarriesClassicAndNativeBuckets(t *testing.T) {
	rec := get(t, fixed().Handler(), "/metrics", protobufFormat)
	require.Contains(t, rec.Header().Get("Content-Type"), "application/vnd.google.protobuf")
	mf := decode(t, rec.Body)["db_server_operation_duration_seconds"]
	require.Equal(t, dto.MetricType_HISTOGRAM, mf.GetType())
	require.Len(t, mf.GetMetric(), 5)

	want := make(map[string]state.Operation)
	for _, in := range snapshot().Instances {
		for _, op := range in.Operations {
			want[key(in.ID, op.Name, op.Error)] = op
		}
	}
	for _, m := range mf.GetMetric() {
		labels := make(map[string]string)
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		name := key(labels["instance"], labels["db_operation_name"], labels["error_type"] == "error")
		t.Run(name, func(t *testing.T) {
			op, ok := want[name]
			require.True(t, ok)
			h := m.GetHistogram()
			require.Equal(t, op.Count, h.GetSampleCount())
			require.InDelta(t, op.Sum.Seconds(), h.GetSampleSum(), 1e-9)
			require.Len(t, h.GetBucket(), len(bounds()))
			if op.Native == nil {
				require.Nil(t, h.Schema)
				require.Empty(t, h.GetPositiveSpan())
				return
			}
			require.EqualValues(t, nativeSchema, h.GetSchema())
			require.Positive(t, h.GetZeroThreshold())
			require.NotEmpty(t, h.GetPositiveSpan(), "without a span it is not taken for a native histogram")
			require.Equal(t, op.Native, expand(t, h))
		})
	}
}

func key(instance, operation string, failed bool) string {
	if failed {
		return instance + " " + operation + " error"
	}
	return instance + " " + operation
}

// TestServedHistogramsAgree states what Prometheus relies on: whatever was
// measured, the classic buckets ascend and end at the count, the native ones
// add up to it, and both put every observation where its duration belongs.
func TestServedHistogramsAgree(t *testing.T) {
	limits := bounds()
	upper := inSeconds(limits)
	desc := prometheus.NewDesc("x_seconds", "X.", []string{"op"}, nil)
	rapid.Check(t, func(r *rapid.T) {
		observed := rapid.SliceOf(rapid.Int64Range(1, int64(20*time.Minute))).Draw(r, "nanoseconds")
		op := measure(limits, observed)
		h, err := newHistogram(desc, upper, &op, "select")
		require.NoError(r, err)
		var m dto.Metric
		require.NoError(r, h.Write(&m))
		got := m.GetHistogram()
		require.EqualValues(r, len(observed), got.GetSampleCount())

		var before uint64
		for i, b := range got.GetBucket() {
			below := 0
			for _, ns := range observed {
				if time.Duration(ns) <= limits[i] {
					below++
				}
			}
			require.EqualValues(r, below, b.GetCumulativeCount())
			require.GreaterOrEqual(r, b.GetCumulativeCount(), before)
			before = b.GetCumulativeCount()
		}
		require.LessOrEqual(r, before, got.GetSampleCount())
		require.Equal(r, op.Native, expand(r, got))
		require.Equal(r, got.GetSampleCount(), infinity(r, h))
	})
}

// TestNativeBucketsEqualTheLibrarys compares with the library's encoder of
// native histograms that have no classic buckets.
func TestNativeBucketsEqualTheLibrarys(t *testing.T) {
	desc := prometheus.NewDesc("x_seconds", "X.", nil, nil)
	rapid.Check(t, func(r *rapid.T) {
		counts := rapid.MapOfN(rapid.IntRange(-200, 80), rapid.Uint64Range(1, 1<<40), 1, -1).Draw(r, "counts")
		var total uint64
		signed := make(map[int]int64)
		for i, n := range counts {
			total += n
			signed[i] = int64(n)
		}
		theirs, err := prometheus.NewConstNativeHistogram(desc, total, 1, signed, nil, 0,
			nativeSchema, prometheus.DefNativeHistogramZeroThreshold, taken())
		require.NoError(r, err)
		var m dto.Metric
		require.NoError(r, theirs.Write(&m))
		spans, deltas := nativeBuckets(counts)
		require.Equal(r, m.GetHistogram().GetPositiveDelta(), deltas)
		require.Len(r, spans, len(m.GetHistogram().GetPositiveSpan()))
		for i, span := range m.GetHistogram().GetPositiveSpan() {
			require.Equal(r, span.GetOffset(), spans[i].GetOffset())
			require.Equal(r, span.GetLength(), spans[i].GetLength())
		}
	})
}

// TestNothingInconsistentIsServed feeds operations whose counts contradict one
// another, as a reader of live counters may produce.
func TestNothingInconsistentIsServed(t *testing.T) {
	desc := prometheus.NewDesc("x_seconds", "X.", nil, nil)
	upper := inSeconds(bounds())
	small := rapid.Uint64Range(0, 3)
	rapid.Check(t, func(r *rapid.T) {
		op := state.Operation{
			Count:   small.Draw(r, "count"),
			Classic: rapid.SliceOfN(small, 4, 6).Draw(r, "classic"),
			Native:  rapid.MapOf(rapid.IntRange(-1<<40, 1<<40), small).Draw(r, "native"),
		}
		h, err := newHistogram(desc, upper, &op)
		if h == nil {
			require.Error(r, err)
			return
		}
		require.Equal(r, h.data.GetSampleCount(), infinity(r, h))
		if h.data.Schema == nil {
			require.Error(r, err)
			return
		}
		require.NoError(r, err)
		var total uint64
		for _, n := range expand(r, h.data) {
			total += n
		}
		require.Equal(r, h.data.GetSampleCount(), total)
	})
}

func TestInconsistentOperations(t *testing.T) {
	good := func() state.Operation {
		return state.Operation{Count: 3, Classic: []uint64{1, 1, 1, 0, 0}, Native: map[int]uint64{-90: 1, -70: 2}}
	}
	for name, c := range map[string]struct {
		spoil  func(*state.Operation)
		series bool // served, without native buckets
		err    string
	}{
		"too few classic counts":    {func(o *state.Operation) { o.Classic = o.Classic[:4] }, false, "4 classic counts for 4 bounds"},
		"classic sum is not count":  {func(o *state.Operation) { o.Count = 4 }, false, "classic counts add up to 3, not to the count 4"},
		"native sum is not count":   {func(o *state.Operation) { o.Native[3] = 1 }, true, "native counts add up to 4, not to the count 3"},
		"native index out of range": {func(o *state.Operation) { o.Native = map[int]uint64{1 << 20: 3} }, true, "native bucket 1048576 is outside schema 3"},
		"native count overflows":    {func(o *state.Operation) { o.Native[-90] = math.MaxUint64 }, true, "native count overflows"},
	} {
		t.Run(name, func(t *testing.T) {
			op := good()
			c.spoil(&op)
			desc := prometheus.NewDesc("x_seconds", "X.", nil, nil)
			h, err := newHistogram(desc, inSeconds(bounds()), &op)
			require.EqualError(t, err, c.err)
			require.Equal(t, c.series, h != nil)
			if h != nil {
				require.Nil(t, h.data.Schema)
				require.Empty(t, h.data.PositiveSpan)
			}
		})
	}
}

// measure sorts durations into an operation the slow and obvious way.
func measure(limits []time.Duration, nanoseconds []int64) state.Operation {
	op := state.Operation{Name: "select", Classic: make([]uint64, len(limits)+1), Native: make(map[int]uint64)}
	for _, ns := range nanoseconds {
		d := time.Duration(ns)
		op.Count++
		op.Sum += d
		i := slices.IndexFunc(limits, func(b time.Duration) bool { return d <= b })
		if i < 0 {
			i = len(limits)
		}
		op.Classic[i]++
		op.Native[int(math.Ceil(math.Log2(d.Seconds())*8))]++
	}
	return op
}

// expand undoes the sparse form of native buckets.
func expand(t require.TestingT, h *dto.Histogram) map[int]uint64 {
	out := make(map[int]uint64)
	var index, used int
	var count int64
	for _, span := range h.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			require.Less(t, used, len(h.GetPositiveDelta()))
			count += h.GetPositiveDelta()[used]
			used++
			require.GreaterOrEqual(t, count, int64(0))
			if count > 0 {
				out[index] = uint64(count)
			}
			index++
		}
	}
	require.Len(t, h.GetPositiveDelta(), used)
	return out
}

// infinity returns the last bucket of the text form, which the encoder adds.
func infinity(t require.TestingT, h *histogram) uint64 {
	var m dto.Metric
	require.NoError(t, h.Write(&m))
	mf := &dto.MetricFamily{Name: new("x_seconds"), Help: new("X."), Type: dto.MetricType_HISTOGRAM.Enum(), Metric: []*dto.Metric{&m}}
	var buf bytes.Buffer
	_, err := expfmt.MetricFamilyToText(&buf, mf)
	require.NoError(t, err)
	var back dto.MetricFamily
	dec := expfmt.NewDecoder(&buf, expfmt.NewFormat(expfmt.TypeTextPlain))
	require.NoError(t, dec.Decode(&back))
	buckets := back.GetMetric()[0].GetHistogram().GetBucket()
	last := buckets[len(buckets)-1]
	require.True(t, math.IsInf(last.GetUpperBound(), 1))
	return last.GetCumulativeCount()
}

func decode(t *testing.T, r io.Reader) map[string]*dto.MetricFamily {
	t.Helper()
	out := make(map[string]*dto.MetricFamily)
	dec := expfmt.NewDecoder(r, expfmt.NewFormat(expfmt.TypeProtoDelim))
	for {
		mf := new(dto.MetricFamily)
		err := dec.Decode(mf)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out[mf.GetName()] = mf
	}
}
