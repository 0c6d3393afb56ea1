package exporter

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/state"
)

func TestDistributionsEqualTheLibrarys(t *testing.T) {
	desc := prometheus.NewDesc("x_seconds", "X.", nil, nil)
	rapid.Check(t, func(r *rapid.T) {
		d := state.Distribution{Native: rapid.MapOfN(rapid.IntRange(-60, 30), rapid.Uint64Range(1, 1<<40), 1, -1).Draw(r, "counts"), Sum: time.Second}
		signed := make(map[int]int64)
		for i, n := range d.Native {
			d.Count += n
			signed[i] = int64(n)
		}
		theirs, err := prometheus.NewConstNativeHistogram(desc, d.Count, 1, signed, nil, 0,
			state.DistributionSchema, prometheus.DefNativeHistogramZeroThreshold, taken())
		require.NoError(r, err)
		ours, err := newDistribution(desc, &d)
		require.NoError(r, err)
		var want, got dto.Metric
		require.NoError(r, theirs.Write(&want))
		require.NoError(r, ours.Write(&got))
		want.Histogram.CreatedTimestamp = nil
		require.Equal(r, want.GetHistogram().String(), got.GetHistogram().String())
		require.Equal(r, d.Count, infinity(r, ours), "the text form has the bucket of all")
	})
}

func TestDistributionsThatContradictThemselvesAreRefused(t *testing.T) {
	desc := prometheus.NewDesc("x_seconds", "X.", nil, nil)
	for want, d := range map[string]state.Distribution{
		"native counts add up to 1, not to the count 2": {Count: 2, Native: map[int]uint64{0: 1}},
		"native bucket 4096 is outside schema 1":        {Count: 1, Native: map[int]uint64{4096: 1}},
		"native count overflows":                        {Count: math.MaxUint64, Native: map[int]uint64{0: math.MaxUint64}},
	} {
		h, err := newDistribution(desc, &d)
		require.EqualError(t, err, want)
		require.Nil(t, h)
	}
}

// digested is a node of 50 instances with ten operations and as many digests as
// a node shows.
func digested() *state.Snapshot {
	snap := crowded(50)
	for i := range snap.Instances {
		st := statementsOf()
		own := st.Digests[0]
		for n := range 60 - 1 {
			own.ID = fmt.Sprintf("%016x", i*1000+n)
			own.Text = strings.Repeat("select a, b from t where c = ? and ", 7)
			st.Digests = append(st.Digests, own)
		}
		snap.Instances[i].Statements = st
	}
	return snap
}

// TestSeriesOfAFullNode counts what a server that stores native histograms
// keeps, and the lines of the text format.
func TestSeriesOfAFullNode(t *testing.T) {
	e := New(hold(digested()), usualBounds())
	var series int
	for _, mf := range gather(t, e) {
		series += len(mf.GetMetric())
	}
	var lines int
	for line := range strings.Lines(get(t, e.Handler(), "/metrics", "").Body.String()) {
		if !strings.HasPrefix(line, "#") {
			lines++
		}
	}
	t.Logf("%d series, %d sample lines in the text format", series, lines)
	require.LessOrEqual(t, series, 30_000)
}

func BenchmarkScrapeFullDigests(b *testing.B) {
	benchmarkScrape(b, "50 instances with full digests", digested())
}
