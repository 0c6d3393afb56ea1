package explain

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const step = trend.Step

// healthy is ten seconds of an instance that has nothing wrong: 100 statements
// a second of two digests, all of it measured.
func healthy(i, n int) trend.Summary {
	s := trend.Summary{
		Start: now.Add(-time.Duration(n-i) * step), Length: step, Statements: true,
		Total: trend.Counts{Calls: 1000, Rows: 5000, Busy: 2 * time.Second}, P99: 9 * time.Millisecond,
		Gauges: trend.Gauges{InFlight: 2, Connections: 20, OpenTransactions: 1, OldestInFlight: 5 * time.Millisecond, OldestTransaction: 20 * time.Millisecond},
		Limits: trend.Limits{Known: true, CPUMillicores: 2000, MemoryBytes: 8 << 30, MemoryInUse: 4 << 30, LocalKnown: true, LocalShare: 0.99},
		CPU:    trend.Meter{Known: true, Total: 8 * time.Second},
		Fsync:  trend.Quick{Known: true, Count: 300, Sum: 300 * time.Millisecond, P99: 3 * time.Millisecond},
		Block:  trend.Quick{Known: true, Count: 500, Sum: 500 * time.Millisecond, P99: 3 * time.Millisecond},
		Digests: []trend.DigestSummary{
			digest("aaaaaaaaaaaaaaaa", 600, 1200*time.Millisecond, 600*i),
			digest("bbbbbbbbbbbbbbbb", 400, 800*time.Millisecond, 400*i),
		},
		Replication: trend.Replication{Known: true, Delay: 100 * time.Millisecond},
		SeenBytes:   1e6, SocketBytes: 1e6,
	}
	for w := range s.Waits {
		s.Waits[w].Known = true
	}
	s.Waits[trend.Fsync].Total = s.Fsync.Sum
	s.Waits[trend.RunQueue].Total = 200 * time.Millisecond
	return s
}

func digest(id string, calls uint64, busy time.Duration, before int) trend.DigestSummary {
	return trend.DigestSummary{
		ID: id, Counts: trend.Counts{Calls: calls, Rows: 5 * calls, Busy: busy}, P99: 9 * time.Millisecond,
		BeforeCalls: uint64(before), BeforeBusy: time.Duration(before) * 2 * time.Millisecond,
	}
}

// history is twenty healthy minutes of which the last so many points are
// spoilt.
func history(last int, spoil func(*trend.Summary)) trend.History {
	const n = 120
	h := trend.History{ID: "shop/orders-0/pg", Name: "orders", Engine: "postgresql", Texts: map[string]string{"aaaaaaaaaaaaaaaa": "SELECT * FROM orders WHERE id = ?"}}
	for i := range n {
		p := healthy(i, n)
		if i >= n-last {
			spoil(&p)
		}
		h.Points = append(h.Points, p)
	}
	return h
}

func page(h trend.History) Page { return Explain(h, Options{Now: now, Since: DefaultSince}) }

func kinds(p Page) []string {
	out := []string{}
	for _, f := range p.Findings {
		out = append(out, f.Kind)
	}
	return out
}

// slower multiplies the time of all statements.
func slower(p *trend.Summary, by int) {
	p.Total.Busy *= time.Duration(by)
	p.P99 *= time.Duration(by)
	for i := range p.Digests {
		p.Digests[i].Busy *= time.Duration(by)
		p.Digests[i].P99 *= time.Duration(by)
	}
}

// cause is one thing that is wrong, and what the page must say of it.
type cause struct {
	name  string
	spoil func(*trend.Summary)
	// first is the finding to come first, then are all that may follow it.
	first    string
	then     []string
	severity Severity
}

var causes = []cause{
	{"one digest slow", func(p *trend.Summary) {
		p.Digests[0].Busy *= 8
		p.Total.Busy += 7 * 1200 * time.Millisecond
		p.InFlight = 3
		p.CPU.Total = 16 * time.Second
	}, KindSlowDigest, nil, Warning},
	{"new heavy digest", func(p *trend.Summary) {
		p.Digests = append(p.Digests, digest("cccccccccccccccc", 50, 20*time.Second, 0))
		p.Total.Busy += 20 * time.Second
		p.CPU.Total = 16 * time.Second
	}, KindNewDigest, nil, Warning},
	{"client does not read", func(p *trend.Summary) {
		slower(p, 5)
		p.Waits[trend.Client].Total = 7 * time.Second
	}, KindClient, []string{KindSlowDigest}, Warning},
	{"throttled", func(p *trend.Summary) {
		slower(p, 4)
		p.Waits[trend.Throttled].Total = 12 * time.Second
		p.Waits[trend.RunQueue].Total = 14 * time.Second
	}, KindThrottled, []string{KindSlowDigest}, Critical},
	{"neighbours on its CPUs", func(p *trend.Summary) {
		slower(p, 2)
		p.Waits[trend.RunQueue].Total = 6 * time.Second
	}, KindQueue, nil, Warning},
	{"fsync slow", func(p *trend.Summary) {
		slower(p, 6)
		p.Fsync.Sum = 9 * time.Second
		p.InFlight = 9
	}, KindIO, []string{KindSlowDigest}, Warning},
	{"fsync slow for a fast device", func(p *trend.Summary) { p.Fsync.Sum = 1500 * time.Millisecond }, KindIO, nil, Warning},
	{"block device slow", func(p *trend.Summary) { p.Block.Sum = 15 * time.Second }, KindIO, nil, Warning},
	{"stalls for I/O", func(p *trend.Summary) { p.Waits[trend.IO].Total = 7 * time.Second }, KindIO, nil, Critical},
	{"memory stalls", func(p *trend.Summary) { p.Waits[trend.Memory].Total = time.Second }, KindMemory, nil, Warning},
	{"memory near its limit", func(p *trend.Summary) { p.Limits.MemoryInUse = 8<<30 - 1<<20 }, KindMemory, nil, Critical},
	{"killed for memory", func(p *trend.Summary) { p.OOMKills = 1; p.Restarts = 1 }, KindOOM, []string{KindRestart}, Critical},
	{"restarted", func(p *trend.Summary) { p.Restarts = 1 }, KindRestart, nil, Warning},
	{"lock with slow statements", func(p *trend.Summary) {
		slower(p, 20)
		p.CPU.Total = 4 * time.Second
		p.InFlight, p.OpenTransactions, p.OldestTransaction, p.OldestInFlight = 18, 18, 40*time.Second, 3*time.Second
	}, KindLock, []string{KindSlowDigest}, Critical},
	{"lock at which all stands still", func(p *trend.Summary) {
		p.Total, p.Digests, p.P99, p.CPU.Total = trend.Counts{}, nil, 0, 0
		p.InFlight, p.OldestInFlight, p.OldestTransaction, p.OpenTransactions = 20, 50*time.Second, 100*time.Second, 20
	}, KindLock, nil, Critical},
	{"old transaction", func(p *trend.Summary) { p.OldestTransaction = time.Hour }, KindTransaction, nil, Warning},
	{"remote memory", func(p *trend.Summary) { p.Limits.LocalShare = 0.4 }, KindRemote, nil, Warning},
	{"replica behind", func(p *trend.Summary) { p.Replication.Delay = 20 * time.Second }, KindReplication, nil, Warning},
	{"replica far behind", func(p *trend.Summary) {
		p.Replication = trend.Replication{Known: true, Delay: time.Hour, Bytes: 5 << 30}
	}, KindReplication, nil, Critical},
	{"errors", func(p *trend.Summary) {
		p.Total.Errors = 100
		p.Codes = []trend.Code{{Code: "40001", Count: 90}, {Code: "23505", Count: 10}}
	}, KindErrors, nil, Warning},
	{"texts not read", func(p *trend.Summary) {
		p.Digests = append(p.Digests, digest("unsampled", 100, 100*time.Millisecond, 9))
	}, KindCoverage, nil, Notice},
	{"statements lost", func(p *trend.Summary) { p.Lost.Uncounted = 3 }, KindCoverage, nil, Notice},
	{"bytes not seen", func(p *trend.Summary) { p.SeenBytes = 9e5 }, KindCoverage, nil, Notice},
}

func TestEachCauseComesFirstAndNothingFalseFollows(t *testing.T) {
	for _, c := range causes {
		t.Run(c.name, func(t *testing.T) {
			for _, last := range []int{6, 20} {
				p := page(history(last, c.spoil))
				require.NotEmpty(t, p.Findings)
				f := p.Findings[0]
				require.Equal(t, c.first, f.Kind, "%v", kinds(p))
				require.Equal(t, c.severity, f.Severity, "%v", f)
				for _, k := range kinds(p)[1:] {
					require.Contains(t, append(c.then, c.first), k)
				}
				require.NotEmpty(t, f.Evidence)
				require.NotEmpty(t, f.Next)
				require.Zero(t, f.Until)
				if f.Kind != KindCoverage {
					require.Equal(t, now.Add(-time.Duration(last)*step), f.Since)
					require.False(t, f.SinceAtLeast)
				}
			}
		})
	}
}

func TestHealthyInstanceHasNoFindingAndTheFiguresLookedAt(t *testing.T) {
	p := page(history(0, nil))
	require.Empty(t, p.Findings)
	require.Equal(t, "nothing wrong was found in the last 5m00s", p.Verdict())
	require.Len(t, p.Checked, 13)
	require.Empty(t, p.NotMeasured)
}

func TestMoreLoadIsNoTrouble(t *testing.T) {
	p := page(history(12, func(p *trend.Summary) {
		p.Total.Calls, p.Total.Busy, p.CPU.Total = 5000, 10*time.Second, 18*time.Second
		p.InFlight = 12
		for i := range p.Digests {
			p.Digests[i].Calls, p.Digests[i].Busy = p.Digests[i].Calls*5, p.Digests[i].Busy*5
		}
	}))
	require.Empty(t, p.Findings)
}

func TestOneBadStepIsNoTrouble(t *testing.T) {
	for _, c := range causes {
		if slices.Contains([]string{KindOOM, KindRestart, KindTransaction, KindCoverage}, c.first) {
			continue // these are events
		}
		require.Empty(t, kinds(page(history(1, c.spoil))), c.name)
	}
}

func TestFindingsThatAreOverSaySoAndComeLater(t *testing.T) {
	h := history(20, func(p *trend.Summary) { p.Limits.LocalShare = 0.4 })
	for i := 80; i < 110; i++ {
		h.Points[i].Waits[trend.Throttled].Total = 2 * time.Second
	}
	p := page(h)
	require.Equal(t, []string{KindRemote, KindThrottled}, kinds(p))
	require.Equal(t, now.Add(-10*step), p.Findings[1].Until)
	require.Equal(t, now.Add(-40*step), p.Findings[1].Since)
	for i := range h.Points[:85] {
		h.Points[i].Waits[trend.Throttled].Total = 0
	}
	require.Empty(t, kinds(Explain(h, Options{Now: now.Add(time.Hour), Since: time.Minute})))
}

func TestSinceReachesBeyondTheWindowAndSaysWhereItCannot(t *testing.T) {
	p := page(history(80, func(p *trend.Summary) { p.Limits.LocalShare = 0.4 }))
	require.Equal(t, now.Add(-80*step), p.Findings[0].Since)
	p = page(history(120, func(p *trend.Summary) { p.Limits.LocalShare = 0.4 }))
	require.True(t, p.Findings[0].SinceAtLeast)
}

func TestTroubleSinceBeforeTheHistoryIsSeenByTheLifetimeMean(t *testing.T) {
	h := history(120, func(p *trend.Summary) {
		p.Digests[0].Busy *= 8
		p.Total.Busy += 7 * 1200 * time.Millisecond
	})
	for i := range h.Points {
		h.Points[i].Digests[0].BeforeCalls += 5000
		h.Points[i].Digests[0].BeforeBusy += 10 * time.Second
	}
	p := page(h)
	require.Equal(t, []string{KindSlowDigest}, kinds(p))
	require.True(t, p.Findings[0].SinceAtLeast)
}

func TestUsualErrorsAreANotice(t *testing.T) {
	p := page(history(120, func(p *trend.Summary) { p.Total.Errors = 100 }))
	require.Equal(t, []string{KindErrors}, kinds(p))
	require.Equal(t, Notice, p.Findings[0].Severity)
}

func TestAGeneralSlownessIsTheCausesAndASingleOneItsOwn(t *testing.T) {
	throttle := func(p *trend.Summary) { p.Waits[trend.Throttled].Total = 2 * time.Second }
	p := page(history(12, func(p *trend.Summary) { throttle(p); slower(p, 5) }))
	require.Equal(t, []string{KindThrottled, KindSlowDigest, KindSlowDigest}, kinds(p))
	require.Equal(t, Notice, p.Findings[1].Severity)
	h := history(12, func(p *trend.Summary) { throttle(p); p.Digests[0].Busy *= 5; p.Total.Busy *= 3 })
	for i := range h.Points {
		h.Points[i].Digests = append(h.Points[i].Digests, digest("cccccccccccccccc", 1, time.Millisecond, i))
	}
	p = page(h)
	require.Equal(t, []string{KindThrottled, KindSlowDigest}, kinds(p))
	require.Equal(t, Warning, p.Findings[1].Severity)
}

func TestWithoutIOFiguresALockIsSaidToBeLessSure(t *testing.T) {
	h := history(12, causes[13].spoil)
	for i := range h.Points {
		h.Points[i].Fsync, h.Points[i].Block = trend.Quick{}, trend.Quick{}
		h.Points[i].Waits[trend.IO], h.Points[i].Waits[trend.Fsync] = trend.Meter{}, trend.Meter{}
	}
	p := page(h)
	require.Equal(t, KindLock, p.Findings[0].Kind)
	require.Equal(t, Warning, p.Findings[0].Severity)
	require.Contains(t, fmt.Sprint(p.Findings[0].Evidence), "not measured here")
	require.Contains(t, fmt.Sprint(p.NotMeasured), "io.pressure")
}

func TestStatementsThatWereCountedAreNotLost(t *testing.T) {
	literals := func(p *trend.Summary) { p.Lost = trend.Losses{Known: true, Partial: 200000} }
	require.Empty(t, page(history(120, literals)).Findings, "texts of any instance of the node were not read")
	p := page(history(120, func(p *trend.Summary) {
		literals(p)
		p.Digests = append(p.Digests, digest("unsampled", 100, 100*time.Millisecond, 9))
	}))
	require.Equal(t, []string{KindCoverage}, kinds(p))
	require.Contains(t, p.Findings[0].Evidence[1], "counted without their text")
	p = page(history(120, func(p *trend.Summary) { p.Lost = trend.Losses{Known: true, Uncounted: 1} }))
	require.Contains(t, p.Findings[0].Evidence[0], "uncounted 30 times")
}

func TestTheNextStepIsOneThatIsTaken(t *testing.T) {
	short := func(p *trend.Summary) {
		p.Limits.MemoryInUse, p.OOMKills = 8<<30-1<<20, 1
		p.Waits[trend.Throttled].Total = 12 * time.Second
	}
	next := func(o trend.Owner) []string {
		h := history(6, short)
		h.Owner = o
		var out []string
		for _, f := range page(h).Findings {
			out = append(out, f.Next)
		}
		require.Len(t, out, 3)
		return out
	}
	for _, n := range next(trend.Owner{}) {
		require.Contains(t, n, ": mooringctl resize shop/orders-0/pg --")
	}
	pod := trend.Owner{Namespace: "shop", Pod: "orders-0", Policy: "shop/orders", Kubelet: true}
	for _, n := range next(pod) {
		require.Contains(t, n, "kubectl mooring resize -n shop --policy orders --pods orders-0 --")
		require.NotContains(t, n, "mooringctl resize")
	}
	pod.Policy = ""
	for _, n := range next(pod) {
		require.Contains(t, n, "DatabasePolicy")
		require.NotContains(t, n, "mooringctl resize")
	}
}

func TestWhereEnginesTellOfTheirLocks(t *testing.T) {
	same := map[state.Engine]state.Engine{state.Percona: state.MySQL, state.Valkey: state.Redis}
	general := lockQuery("")
	for _, f := range state.Engines() {
		switch as, ok := same[f.Engine]; {
		case ok:
			require.Equal(t, lockQuery(string(as)), lockQuery(string(f.Engine)), f.Engine)
		case state.Engine(f.Wire) == f.Engine:
			require.NotEqual(t, general, lockQuery(string(f.Engine)), f.Engine)
		default:
			require.NotEqual(t, lockQuery(string(f.Wire)), lockQuery(string(f.Engine)), "%s has views of its own", f.Engine)
		}
	}
}

func TestAGapEndsWhatIsKnownToHaveHeld(t *testing.T) {
	h := history(80, func(p *trend.Summary) { p.Limits.LocalShare = 0.4 })
	for i := range h.Points[:60] {
		h.Points[i].Start = h.Points[i].Start.Add(-time.Hour)
	}
	p := page(h)
	require.Equal(t, []string{KindRemote}, kinds(p))
	require.Equal(t, now.Add(-60*step), p.Findings[0].Since)
	require.True(t, p.Findings[0].SinceAtLeast)
}

func TestNothingMeasuredIsSaid(t *testing.T) {
	p := page(trend.History{ID: "x"})
	require.Equal(t, "nothing could be looked at", p.Verdict())
	require.Contains(t, p.NotMeasured[0], "no figures")
	p = page(trend.History{ID: "x", Points: []trend.Summary{{Start: now.Add(-2 * time.Minute), Length: step}}})
	require.Empty(t, p.Findings)
	require.Len(t, p.NotMeasured, 10)
}

func TestEachThresholdHasAReason(t *testing.T) {
	for i, l := range Limits() {
		require.NotEmpty(t, l.What, "%d", i)
		require.NotEmpty(t, l.Why, l.What)
		require.Positive(t, l.Value, l.What)
		require.Contains(t, []string{"", "s", "x", "%"}, l.Unit)
	}
}

// anyHistory is what no instance does: any figures, overlaps, zero lengths.
func anyHistory() *rapid.Generator[trend.History] {
	return rapid.Custom(func(t *rapid.T) trend.History {
		h := trend.History{ID: "x", Engine: rapid.SampledFrom([]string{"", "redis", "mysql", "mariadb"}).Draw(t, "engine")}
		for range rapid.IntRange(0, 40).Draw(t, "points") {
			p := trend.Summary{Start: now.Add(time.Duration(rapid.Int64Range(-int64(10*time.Minute), int64(time.Minute)).Draw(t, "start")))}
			p.Length = time.Duration(rapid.SampledFrom([]int64{0, 1, int64(step), int64(step), int64(step), -5, 1 << 62}).Draw(t, "length"))
			figure := func(name string) time.Duration {
				return time.Duration(rapid.SampledFrom([]int64{0, 1, int64(time.Millisecond), int64(step), 1 << 62, -1}).Draw(t, name))
			}
			known := rapid.Bool()
			p.Statements = known.Draw(t, "statements")
			count := rapid.SampledFrom([]uint64{0, 1, 1000, 1 << 63, 1<<64 - 1})
			p.Total = trend.Counts{Calls: count.Draw(t, "calls"), Errors: count.Draw(t, "errors"), Rows: count.Draw(t, "rows"), Busy: figure("busy")}
			for w := range p.Waits {
				p.Waits[w] = trend.Meter{Known: known.Draw(t, "known"), Total: figure("wait")}
			}
			p.CPU = trend.Meter{Known: known.Draw(t, "cpu known"), Total: figure("cpu")}
			p.Fsync = trend.Quick{Known: known.Draw(t, "fsync known"), Count: count.Draw(t, "fsyncs"), Sum: figure("fsync"), P99: figure("fsync p99")}
			p.Gauges = trend.Gauges{InFlight: rapid.Int().Draw(t, "flight"), OldestInFlight: figure("oldest"), OldestTransaction: figure("oldest tx")}
			p.Limits = trend.Limits{Known: true, MemoryBytes: rapid.Int64().Draw(t, "limit"), MemoryInUse: rapid.Int64().Draw(t, "use"), CPUMillicores: rapid.Int64().Draw(t, "milli"), LocalKnown: true, LocalShare: rapid.Float64().Draw(t, "local")}
			p.SeenBytes, p.SocketBytes = count.Draw(t, "seen"), count.Draw(t, "socket")
			p.Lost = trend.Losses{Known: true, Uncounted: count.Draw(t, "uncounted"), Partial: count.Draw(t, "partial")}
			h.Owner = trend.Owner{Namespace: "n", Pod: rapid.SampledFrom([]string{"", "p"}).Draw(t, "pod"), Policy: rapid.SampledFrom([]string{"", "n/p", "/"}).Draw(t, "policy"), Kubelet: known.Draw(t, "kubelet")}
			p.OOMKills, p.Restarts = rapid.Int64Range(-1, 2).Draw(t, "oom"), rapid.IntRange(0, 1).Draw(t, "restarts")
			p.Replication = trend.Replication{Known: known.Draw(t, "repl"), Delay: figure("delay"), Bytes: count.Draw(t, "bytes")}
			for _, id := range []string{"a", "b", "tls", "other", "unsampled"} {
				if known.Draw(t, id) {
					p.Digests = append(p.Digests, trend.DigestSummary{ID: id, Counts: trend.Counts{Calls: count.Draw(t, "n"), Rows: count.Draw(t, "r"), Busy: figure("b")}, BeforeCalls: count.Draw(t, "before"), BeforeBusy: figure("before busy")})
				}
			}
			h.Points = append(h.Points, p)
		}
		return h
	})
}

func TestAnyHistoryGivesAPageAndTheSameOneTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := anyHistory().Draw(t, "history")
		o := Options{Now: now, Since: time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "since"))}
		p := Explain(h, o)
		require.Equal(t, fmt.Sprint(p), fmt.Sprint(Explain(h, o)))
		for i, f := range p.Findings {
			require.NotContains(t, fmt.Sprint(f), "NaN")
			require.NotContains(t, fmt.Sprint(f.Title, f.Evidence, f.Next), "%!")
			require.NotEmpty(t, f.Evidence)
			require.True(t, slices.Contains(order, f.Kind))
			if i > 0 {
				require.GreaterOrEqual(t, p.Findings[i-1].Severity, f.Severity)
			}
		}
		require.NotContains(t, fmt.Sprint(p.Checked, p.NotMeasured), "NaN")
	})
}
