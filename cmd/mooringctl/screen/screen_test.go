package screen

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/trend"
)

var update = flag.Bool("update", false, "write what was drawn into testdata")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

var at = time.Date(2026, 11, 25, 12, 0, 0, 0, time.Local)

func looks() (old, now []trend.Sample) {
	make := func(at time.Time, calls uint64) []trend.Sample {
		d := func(id, text string, calls uint64, mean time.Duration) trend.Digest {
			return trend.Digest{ID: id, Text: text, Operation: "select", Counts: trend.Counts{Calls: calls, Rows: 3 * calls, Busy: time.Duration(calls) * mean},
				Histogram: trend.Histogram{Schema: 1, Buckets: map[int]uint64{-18: calls}}}
		}
		orders := trend.Sample{
			Time: at, ID: "shop/orders-0/pg", Name: "orders-0", Engine: "postgresql", Statements: true,
			Total:     trend.Counts{Calls: 3 * calls, Errors: calls / 10, Rows: 9 * calls, Busy: time.Duration(calls) * 5 * time.Millisecond},
			Histogram: trend.Histogram{Schema: 3, Buckets: map[int]uint64{-70: 3 * calls}},
			Gauges:    trend.Gauges{InFlight: 4, OpenTransactions: 2, OldestTransaction: 90 * time.Second},
			Limits:    trend.Limits{Known: true, CPUMillicores: 2000, MemoryBytes: 8 << 30, MemoryInUse: 6 << 30},
			CPU:       trend.Meter{Known: true, Total: time.Duration(calls) * 1500 * time.Microsecond},
			Fsync:     trend.Latency{Known: true, Count: calls, Sum: time.Duration(calls) * time.Millisecond},
			Digests: []trend.Digest{d("1111111111111111", "SELECT * FROM orders WHERE id = ?", 2*calls, time.Millisecond),
				d("2222222222222222", "UPDATE \x1b[31m帐户\u202e SET 余额 = ?", calls, 3*time.Millisecond)},
		}
		orders.Waits[trend.Throttled] = trend.Meter{Known: true, Total: time.Duration(calls) * 500 * time.Microsecond}
		orders.Waits[trend.Client] = trend.Meter{Known: true, Total: time.Duration(calls) * 100 * time.Microsecond}
		return []trend.Sample{orders, {Time: at, ID: "/system.slice/redis", Name: "redis", Engine: "redis"}}
	}
	old, now = make(at, 1000), make(at.Add(2*time.Second), 3000)
	return old, append(now, trend.Sample{Time: at, ID: "n", Name: "fresh", Engine: "mysql", Statements: true, Total: trend.Counts{Calls: 1e9}})
}

func frame(sort string) Frame {
	old, now := looks()
	f := Build(old, now, 10, sort)
	f.Time, f.Node, f.Agent, f.Probe, f.Interval = at, "n1", "v1", "fentry", 2
	return f
}

func TestFramesAreDrawnAsTheyWere(t *testing.T) {
	f := frame("load")
	golden(t, "top.txt", strings.Join(f.Lines(plain), "\n")+"\n")
	golden(t, "top-80.txt", strings.Join(f.Lines(80), "\n")+"\n")
}

func TestFiguresAreRatesBetweenTwoLooks(t *testing.T) {
	f := frame("load")
	in := f.Instances[0]
	require.Equal(t, "orders-0", in.Name)
	require.InDelta(t, 3000, in.Calls, 1e-6)
	require.InDelta(t, 100, in.Errors, 1e-6)
	require.InDelta(t, 5, in.Load, 1e-6)
	require.InDelta(t, 0.75, *in.CPUOfLimit, 1e-6)
	require.InDelta(t, 0.25, *in.Throttled, 1e-6)
	require.InDelta(t, 0.75, *in.MemoryOfLimit, 1e-6)
	require.InDelta(t, 0.02, *in.Blocked, 1e-6)
	require.InDelta(t, 1, in.Waits["fsync"], 1e-6)
	require.NotContains(t, in.Waits, "io")
	require.InDelta(t, 0.6, f.Digests[0].Share, 1e-6)
	require.InDelta(t, 3, f.Digests[0].RowsPer, 1e-6)
	require.True(t, f.Instances[1].New || f.Instances[2].New)
	require.Equal(t, "fresh", frame("name").Instances[0].Name)
	require.Equal(t, "1111111111111111", frame("calls").Digests[0].ID)
}

func TestThePageIsDrawnAsItWas(t *testing.T) {
	stamp := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(at.Add(d)) }
	r := &agentpb.ExplainReply{
		Instance: "shop/orders-0/pg", Engine: "postgresql", From: stamp(-5 * time.Minute), To: stamp(0), History: durationpb.New(3 * time.Hour),
		Findings: []*agentpb.Finding{
			{Kind: "cpu-throttled", Severity: "critical", Title: "throttled by cpu.max", Since: stamp(-2 * time.Hour), SinceAtLeast: true,
				Evidence: []string{"held back 1.2 s per second, over 5m00s", "text: SELECT \x1b]0;evil\x07 " + strings.Repeat("x", 150)}, Next: "raise the limit: mooringctl resize shop/orders-0/pg --cpu 4000m; or find what uses it with mooringctl top"},
			{Kind: "errors", Severity: "warning", Title: "errors", Since: stamp(-26 * time.Hour), Until: stamp(-time.Minute), Evidence: []string{"e"}, Next: "n"},
		},
		Checked: []string{"CPU: 2 cores"}, NotMeasured: []string{"memory stalls: no memory.pressure here"},
	}
	draw := func() string {
		var b bytes.Buffer
		require.NoError(t, WritePage(&b, r, 100, time.Local))
		return b.String()
	}
	golden(t, "explain.txt", draw())
	r.Findings = nil
	golden(t, "explain-nothing.txt", draw())
}

func TestNothingThatSteersATerminalSurvivesAndWidthHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Clean(rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "s"))
		for _, r := range s {
			require.True(t, unicode.IsGraphic(r), "%U", r)
			require.NotEqual(t, unicode.ReplacementChar, r)
		}
		n := rapid.IntRange(0, 20).Draw(t, "columns")
		require.LessOrEqual(t, Width(Cut(s, n)), n)
		for _, l := range wrap(s, 10) {
			require.LessOrEqual(t, Width(l), 10)
		}
	})
	require.Equal(t, "a?[31m ? b", Clean("a\x1b[31m\n\u202e\tb"))
	require.Equal(t, 4, Width("帐户"))
	require.Equal(t, "帐…", Cut("帐户余额", 4))
	require.Equal(t, 1, Width("e\u0301"))
}

func TestAnySamplesGiveAFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.Custom(func(t *rapid.T) trend.Sample {
			n := rapid.SampledFrom([]uint64{0, 1, 77, 1 << 63, 1<<64 - 1})
			d := rapid.SampledFrom([]time.Duration{-1, 0, 1, time.Hour, 1 << 62})
			s := trend.Sample{ID: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id"), Time: at.Add(d.Draw(t, "at")), Statements: true}
			s.Total = trend.Counts{Calls: n.Draw(t, "calls"), Errors: n.Draw(t, "errors"), Busy: d.Draw(t, "busy")}
			s.CPU, s.Limits.CPUMillicores, s.Limits.MemoryBytes = trend.Meter{Known: true, Total: d.Draw(t, "cpu")}, int64(d.Draw(t, "m")), int64(d.Draw(t, "b"))
			for w := range s.Waits {
				s.Waits[w] = trend.Meter{Known: true, Total: d.Draw(t, "wait")}
			}
			s.Digests = []trend.Digest{{ID: "x", Counts: trend.Counts{Calls: n.Draw(t, "n"), Rows: n.Draw(t, "r"), Busy: d.Draw(t, "db")}}}
			return s
		})
		f := Build(rapid.SliceOfN(gen, 0, 3).Draw(t, "old"), rapid.SliceOfN(gen, 0, 3).Draw(t, "now"), 5, rapid.SampledFrom(Sorts()).Draw(t, "sort"))
		text := strings.Join(f.Lines(200), "\n")
		require.NotContains(t, text, "NaN")
		require.NotContains(t, text, "%!")
	})
}

func TestWithoutATerminalFramesHoldNoEscapes(t *testing.T) {
	var b bytes.Buffer
	n := 0
	l := Live{Out: &b, Interval: time.Millisecond, Sort: "load", Next: func(context.Context, string) (Frame, error) {
		if n++; n == 3 {
			return Frame{}, errors.New("the agent is gone")
		}
		return frame("load"), nil
	}}
	require.EqualError(t, l.Run(context.Background()), "the agent is gone")
	require.Equal(t, 2, strings.Count(b.String(), "node n1"))
	require.NotContains(t, b.String(), "\x1b")
}

func TestATerminalWithoutASizeIsDrawnOn(t *testing.T) {
	type got struct{ columns, rows int }
	of := func(columns, rows int, err error) got {
		columns, rows = size(columns, rows, err)
		return got{columns, rows}
	}
	require.Equal(t, got{200, 50}, of(200, 50, nil))
	require.Equal(t, got{80, 24}, of(0, 0, nil), "a serial line")
	require.Equal(t, got{80, 24}, of(80, 0, nil))
	require.Equal(t, got{80, 24}, of(0, 0, errors.New("no terminal")))
}

func TestWhatWasCountedIsNotLost(t *testing.T) {
	look := func(at time.Time, lost map[string]uint64) []trend.Sample {
		return Samples(&agentpb.CountersReply{Time: timestamppb.New(at), Probe: &agentpb.Probe{Lost: lost}, Instances: []*agentpb.Counters{{Id: "a"}}})
	}
	old := look(at, map[string]uint64{"budget": 5, "unreadable": 7, "aborted": 9})
	f := Build(old, look(at.Add(time.Second), map[string]uint64{"budget": 18005, "unreadable": 10, "aborted": 10}), 1, "load")
	require.Equal(t, []uint64{3, 18000}, []uint64{f.Lost, f.Partial})
	require.Contains(t, f.Lines(plain)[0], "3 not counted  18000 without text or record")
	f = Build(old, look(at.Add(time.Second), nil), 1, "load")
	require.Zero(t, f.Lost+f.Partial, "what could not be read is not zero")
}

func TestKeysSortAndEnd(t *testing.T) {
	l := Live{Sort: "load"}
	seen := map[string]bool{}
	for range Sorts() {
		require.True(t, l.press('s'))
		seen[l.Sort] = true
	}
	require.Len(t, seen, len(Sorts()))
	require.True(t, l.press('x'))
	require.False(t, l.press('q') || l.press(3))
}
