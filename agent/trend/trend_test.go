package trend

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/state"
)

var begin = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func TestQuantileIsWithinItsBucket(t *testing.T) {
	require.Zero(t, Histogram{}.Quantile(0.99))
	// Schema 1, key -18: (2^-9.5, 2^-9] seconds; key 0: (0.707, 1].
	h := Histogram{1, map[int]uint64{-18: 99, 0: 1}}
	require.InDelta(t, 1.0/512, h.Quantile(0.99).Seconds(), 1e-6)
	require.Greater(t, h.Quantile(0.995), 700*time.Millisecond)
	require.Equal(t, time.Second, h.Quantile(1))
	require.EqualValues(t, math.MaxInt64, Histogram{1, map[int]uint64{math.MaxInt32: 1}}.Quantile(0.5))
	require.Zero(t, Histogram{9, map[int]uint64{0: 1}}.Quantile(0.5))
}

func TestQuantileOfAnythingIsNoDisaster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Histogram{rapid.IntRange(-9, 9).Draw(t, "schema"), rapid.MapOf(rapid.Int(), rapid.Uint64()).Draw(t, "buckets")}
		q := rapid.Float64().Draw(t, "q")
		require.GreaterOrEqual(t, h.Quantile(q), time.Duration(0))
		require.LessOrEqual(t, h.Quantile(0.5), h.Quantile(0.99))
	})
}

func sample(at time.Duration, calls uint64) Sample {
	return Sample{
		Time: begin.Add(at), ID: "i", Statements: true, Total: Counts{Calls: calls, Rows: 2 * calls, Busy: time.Duration(calls) * time.Millisecond},
		CPU: Meter{true, time.Duration(calls) * time.Millisecond}, Cgroup: 7, MainPID: 9,
		Digests: []Digest{{ID: "a", Counts: Counts{Calls: calls, Busy: time.Duration(calls) * time.Millisecond}, Histogram: Histogram{1, map[int]uint64{-19: calls}}}},
		Codes:   map[string]uint64{"23505": calls / 10}, Fsync: Latency{Known: true, Count: calls, Sum: time.Duration(calls) * time.Microsecond},
	}
}

func TestBetweenTwoLooksIsWhatGrew(t *testing.T) {
	old, now := sample(0, 1000), sample(2*time.Second, 1500)
	s := Between(&old, &now, 5)
	require.InDelta(t, 250, s.Rate(s.Total.Calls), 1e-9)
	require.InDelta(t, 0.25, s.Load(s.Total.Busy), 1e-9)
	require.Equal(t, time.Millisecond, s.Total.Mean())
	require.Equal(t, []Code{{"23505", 50}}, s.Codes)
	require.Equal(t, uint64(500), s.Digests[0].Calls)
	require.Equal(t, uint64(1000), s.Digests[0].BeforeCalls)
	require.Equal(t, Meter{true, 500 * time.Microsecond}, s.Waits[Fsync])
	require.Positive(t, s.Digests[0].P99)
	require.False(t, s.Waits[IO].Known)
}

func TestCountersThatFellBeganAgain(t *testing.T) {
	old, now := sample(0, 1000), sample(time.Second, 40)
	now.MainPID = 10
	s := Between(&old, &now, 5)
	require.Equal(t, uint64(40), s.Total.Calls)
	require.Equal(t, 40*time.Millisecond, s.Total.Busy)
	require.Equal(t, uint64(40), s.Digests[0].Calls)
	require.Zero(t, s.Digests[0].BeforeCalls)
	require.Equal(t, 40*time.Millisecond, s.CPU.Total)
	require.Equal(t, 1, s.Restarts)
	// A cgroup made again has counted from zero even where it has come further.
	now = sample(time.Second, 1200)
	now.Cgroup = 8
	require.Equal(t, 1200*time.Millisecond, Between(&old, &now, 5).CPU.Total)
	require.Equal(t, uint64(200), Between(&old, &now, 5).Total.Calls)
}

func TestAClockThatStoodOrWentBackGivesNoRates(t *testing.T) {
	old, now := sample(0, 1000), sample(-time.Hour, 1500)
	s := Between(&old, &now, 5)
	require.Zero(t, s.Length)
	require.Zero(t, s.Rate(s.Total.Calls))
	require.Zero(t, s.Load(s.Total.Busy))
}

func TestMergingIsAddingUp(t *testing.T) {
	a, b, c := sample(0, 100), sample(10*time.Second, 300), sample(20*time.Second, 900)
	whole := Between(&a, &c, 5)
	one, two := Between(&a, &b, 5), Between(&b, &c, 5)
	parts := Merge([]Summary{one, two}, 5)
	require.Equal(t, whole.Total, parts.Total)
	require.Equal(t, whole.Length, parts.Length)
	require.Equal(t, whole.CPU, parts.CPU)
	require.Equal(t, whole.Codes, parts.Codes)
	require.Equal(t, whole.Digests[0].Counts, parts.Digests[0].Counts)
	require.Equal(t, uint64(200), one.Digests[0].Calls, "the parts are left alone")
	require.Equal(t, Summary{}, Merge(nil, 5))
}

func TestASampleIsTakenFromASnapshot(t *testing.T) {
	in := state.InstanceStatus{
		Instance:  state.Instance{ID: "i", Name: "n", Engine: state.MySQL, MainPID: 4, Cgroup: state.Cgroup{ID: 5}},
		Resources: state.Resources{CPUMillicores: 1500, CPUUsage: time.Second, CPUThrottled: 2 * time.Second, MemoryLimitBytes: 10, MemoryInUseBytes: 9, OOMKills: 1, NodeBytes: map[int]int64{0: 1, 1: 3}},
		Placement: &state.Placement{Node: 1},
		Operations: []state.Operation{
			{Name: "auth", Count: 50, Sum: time.Hour}, {Name: "select", Count: 10, Sum: time.Second, Rows: 7, Native: map[int]uint64{-8: 10}},
			{Name: "select", Error: true, Count: 2, Sum: time.Second, Native: map[int]uint64{-8: 1, 0: 1}},
		},
		Statements: &state.Statements{
			Traffic: state.Traffic{Blocked: time.Minute, SeenBytes: 3, SocketBytes: 4}, InFlight: 3, OpenTransactions: 2, OldestTransaction: time.Hour,
			Errors:  []state.ErrorCount{{Code: "1062", Count: 2}},
			Digests: []state.Digest{{ID: "d", Text: "SELECT ?", Errors: 2, Rows: 7, Duration: state.Distribution{Count: 12, Sum: 2 * time.Second, Native: map[int]uint64{-2: 12}}}},
		},
	}
	snap := &state.Snapshot{Time: begin, Probe: state.Probe{Mode: "fentry", Lost: map[string]uint64{"unreadable": 1, "tls_unseen": 2, "budget": 40, "newer": 2, "aborted": 700}}}
	s := SampleOf(snap, &in)
	require.Equal(t, Counts{Calls: 12, Errors: 2, Rows: 7, Busy: 2 * time.Second}, s.Total)
	require.Equal(t, map[int]uint64{-8: 11, 0: 1}, s.Histogram.Buckets)
	require.Equal(t, Meter{true, time.Minute}, s.Waits[Client])
	require.Equal(t, Meter{true, 2 * time.Second}, s.Waits[Throttled])
	require.InDelta(t, 0.75, s.Limits.LocalShare, 1e-9)
	require.Equal(t, Losses{Known: true, Uncounted: 3, Partial: 42}, s.Lost)
	require.Equal(t, "SELECT ?", s.Digests[0].Text)
	require.Equal(t, uint64(2), s.Codes["1062"])
	in.Cgroup.Shared, in.Statements, snap.Probe.Mode = "it is the root", nil, "off"
	s = SampleOf(snap, &in)
	require.False(t, s.Limits.Known || s.CPU.Known || s.Waits[Throttled].Known || s.Waits[Client].Known || s.Statements)
}

func TestWhatOneEndDoesNotKnowIsNotTakenForZero(t *testing.T) {
	known, unknown := sample(0, 1000), Sample{Time: begin.Add(Step), ID: "i", Cgroup: 7, MainPID: 9}
	known.Limits.Known, known.OOMKills, known.Lost = true, 5, Losses{true, 6, 7}
	known.SeenBytes, known.SocketBytes = 8, 9
	again := known
	again.Time = begin.Add(2 * Step)
	for _, ends := range [][2]*Sample{{&known, &unknown}, {&unknown, &again}} {
		s := Between(ends[0], ends[1], 5)
		require.Equal(t, Step, s.Length)
		require.False(t, s.Statements || s.CPU.Known || s.Lost.Known)
		require.Zero(t, s.Total)
		require.Zero(t, s.P99)
		require.Empty(t, s.Digests)
		require.Empty(t, s.Codes)
		require.Zero(t, s.OOMKills)
		require.Zero(t, s.SeenBytes+s.SocketBytes)
		require.Zero(t, s.Lost)
	}
	require.True(t, Between(&known, &again, 5).Statements)
}

func TestAStepIsLongerWhereSomethingCouldNotBeReadOnce(t *testing.T) {
	b := NewBook()
	look := func(at time.Duration, spoil func(*state.Snapshot)) {
		s := snapshot(at, 1, 3)
		s.Instances[0].Resources.OOMKills = 5
		spoil(s)
		b.Add(s)
	}
	whole := func(*state.Snapshot) {}
	look(0, whole)
	look(Step, func(s *state.Snapshot) { s.Instances[0].Statements = nil })
	look(2*Step, whole)
	look(3*Step, func(s *state.Snapshot) { s.Instances[0].Cgroup.Shared = "for a moment" })
	look(4*Step, whole)
	h, err := b.History("i0")
	require.NoError(t, err)
	require.Len(t, h.Points, 2)
	for _, p := range h.Points {
		require.Equal(t, 2*Step, p.Length)
		require.True(t, p.Statements && p.Limits.Known)
		require.Equal(t, uint64(2000), p.Total.Calls)
		require.Zero(t, p.OOMKills, "these were before")
	}
	// What stays unknown does not hold up the rest.
	for i := range time.Duration(6) {
		look((5+i)*Step, func(s *state.Snapshot) { s.Instances[0].Statements = nil })
	}
	h, err = b.History("i0")
	require.NoError(t, err)
	last := h.Points[len(h.Points)-1]
	require.Equal(t, begin.Add(10*Step), last.End())
	require.False(t, last.Statements)
	require.True(t, last.Limits.Known)
}

func TestAnInstanceThatWasAwayLeavesAGap(t *testing.T) {
	b := NewBook()
	for _, at := range []time.Duration{0, Step, 50 * time.Minute, 50*time.Minute + Step} {
		b.Add(snapshot(at, 1, 1))
	}
	h, err := b.History("i0")
	require.NoError(t, err)
	require.Len(t, h.Points, 2)
	require.Equal(t, begin.Add(Step), h.Points[0].End())
	require.Equal(t, begin.Add(50*time.Minute), h.Points[1].Start)
	require.Equal(t, Step, h.Points[1].Length)
}

func TestWhoWritesThePodsLimits(t *testing.T) {
	owner := func(writer, source, path string) Owner {
		s := snapshot(0, 1, 1)
		s.LimitsWriter = writer
		in := &s.Instances[0]
		in.Source, in.Cgroup.Path, in.Namespace, in.Pod = source, path, "shop", "orders-0"
		in.Declared = &state.Declared{Policy: "shop/orders"}
		return ownerOf(s, in)
	}
	require.Equal(t, Owner{"shop", "orders-0", "shop/orders", true}, owner("kubelet", "kubernetes", "/kubepods/x"))
	require.True(t, owner("", "kubernetes", "/kubepods/x").Kubelet, "not known yet")
	require.True(t, owner("kubelet", "standalone", "/kubepods.slice/x").Kubelet)
	require.False(t, owner("agent", "kubernetes", "/kubepods/x").Kubelet)
	require.False(t, owner("", "standalone", "/system.slice/pg").Kubelet)
}

// snapshot makes a node of n instances with so many digests each.
func snapshot(at time.Duration, n, digests int) *state.Snapshot {
	s := &state.Snapshot{Time: begin.Add(at), Probe: state.Probe{Mode: "fentry"}}
	calls := uint64(at/time.Second) + 1
	for i := range n {
		in := state.InstanceStatus{Instance: state.Instance{ID: fmt.Sprint("i", i)}, Statements: &state.Statements{InFlight: int(at/time.Second) % 10}}
		in.Operations = []state.Operation{{Name: "select", Count: 100 * calls, Sum: time.Duration(calls) * time.Millisecond, Native: map[int]uint64{-70: 100 * calls}}}
		for d := range digests {
			in.Statements.Digests = append(in.Statements.Digests, state.Digest{
				ID: fmt.Sprintf("%016x", d), Text: "SELECT ?", Duration: state.Distribution{Count: calls, Sum: time.Duration(calls) * time.Duration(d), Native: map[int]uint64{-20: calls}},
			})
		}
		for c := range 6 {
			in.Statements.Errors = append(in.Statements.Errors, state.ErrorCount{Code: fmt.Sprint("4000", c), Count: calls})
		}
		s.Instances = append(s.Instances, in)
	}
	return s
}

func TestAHistoryIsFineThenCoarseWithoutOverlap(t *testing.T) {
	b := NewBook()
	const hours = 7
	for at := time.Duration(0); at <= hours*time.Hour; at += Step / 2 {
		b.Add(snapshot(at, 1, 20))
	}
	h, err := b.History("i0")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(h.Points), finePoints+coarse)
	require.Equal(t, 5*time.Minute, h.Points[0].Length)
	for i := 1; i < len(h.Points); i++ {
		require.Equal(t, h.Points[i-1].End(), h.Points[i].Start)
	}
	last := h.Points[len(h.Points)-1]
	require.Equal(t, Step, last.Length)
	require.Equal(t, begin.Add(hours*time.Hour), last.End())
	require.Len(t, last.Digests, Digests)
	require.Equal(t, uint64(10), last.Digests[0].Calls)
	require.Equal(t, uint64(300), h.Points[0].Digests[0].Calls)
	require.Len(t, h.Points[0].Codes, codes)
	require.Len(t, h.Texts, 20)
	_, err = b.History("nobody")
	require.ErrorIs(t, err, ErrUnknown)
}

func TestTheHighestGaugeOfAStepIsKept(t *testing.T) {
	b := NewBook()
	for at := time.Duration(0); at <= Step; at += time.Second {
		b.Add(snapshot(at, 1, 20))
	}
	h, err := b.History("i0")
	require.NoError(t, err)
	require.Equal(t, 9, h.Points[0].InFlight)
}

func TestInstancesThatAreGoneAreForgotten(t *testing.T) {
	b := NewBook()
	for at := range 3 {
		b.Add(snapshot(time.Duration(at)*Step, 5, 1))
	}
	b.Add(snapshot(keepGone+3*Step, 1, 1))
	require.Len(t, b.rings, 1)
	b.Add(snapshot(keepGone+4*Step, 2*maxInstances, 1))
	require.Len(t, b.rings, maxInstances)
}

func TestFiftyInstancesStayWithinTheirMemory(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	b := NewBook()
	for at := time.Duration(0); at < 6*time.Hour+30*time.Minute; at += Step {
		b.Add(snapshot(at, 50, Digests))
	}
	used := heap() - before
	require.Len(t, b.rings, 50)
	t.Logf("%.1f MB", float64(used)/1e6)
	require.Less(t, used, uint64(20<<20))
	runtime.KeepAlive(b)
}
