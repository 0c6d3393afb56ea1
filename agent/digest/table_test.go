package digest

import (
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

func TestATextIsAskedOnceAndCountedByTheKernel(t *testing.T) {
	b := newBench(t, server("a"))
	require.Equal(t, Known{Digest: key("select"), Text: "select ?"}, b.run("a", "select 1", time.Millisecond, false))
	b.run("a", "select 1", 2*time.Millisecond, true)
	require.Equal(t, uint64(1), b.table.Stats().Texts, "the second time the kernel knew its number")
	b.run("a", "select 2", 3*time.Millisecond, false)
	got := b.tick()["a"]
	b.requireSum(t, "a")
	d := of(got)[key("select")]
	require.Equal(t, state.Digest{
		ID: key("select"), Operation: "select", Text: "select ?", Since: b.now, Errors: 1, Rows: 6, Duration: d.Duration,
	}, d)
	require.Equal(t, uint64(3), d.Duration.Count)
	require.Equal(t, 6*time.Millisecond, d.Duration.Sum)
}

func TestWhatTheKernelNumbersItself(t *testing.T) {
	b := newBench(t, server("a"))
	for number, want := range map[uint32]string{NumberNone: "none", NumberTLS: "tls", NumberUnsampled: "unsampled", NumberOther: "other"} {
		require.Equal(t, Known{Digest: want}, b.end("a", 7, number, time.Second, false))
		require.Equal(t, uint64(1), of(b.tick()["a"])[want].Duration.Count, want)
	}
	t.Run("a record of a text that never came is unsampled", func(t *testing.T) {
		require.Equal(t, Known{Digest: "unsampled"}, b.end("a", 99, 0, time.Second, false))
		require.Equal(t, uint64(2), of(b.tick()["a"])["unsampled"].Duration.Count)
	})
	b.tick()
	b.requireSum(t, "a")
}

func TestThePlacesForTimeErrorsAndLongStatements(t *testing.T) {
	s := server("a")
	s.Top = 30
	b := newBench(t, s)
	b.many("a", "heavy", 60)
	for range 1000 {
		b.run("a", "light1 1", time.Microsecond, false)
	}
	b.run("a", "failing 1", time.Microsecond, true)
	b.run("a", "long 1", time.Hour, false)
	b.run("a", "unimportant 1", time.Microsecond, false)
	got := of(b.tick()["a"])
	require.Contains(t, got, key("failing"))
	require.Contains(t, got, key("long"))
	require.NotContains(t, got, key("unimportant"))
	require.NotContains(t, got, key("light1"))
	for i := 31; i < 60; i++ {
		require.Contains(t, got, key("heavy"+itoa(i)))
	}
	require.LessOrEqual(t, len(got), 30+40+4)
	b.tick()
	b.requireSum(t, "a")
}

func TestADigestStaysHalfAnHour(t *testing.T) {
	s := server("a")
	s.Top = 1
	b := newBench(t, s)
	b.run("a", "first 1", time.Millisecond, false)
	b.tick()
	b.now = b.now.Add(29 * time.Minute)
	for _, shape := range []string{"x", "y", "z"} {
		b.run("a", shape+" 1", time.Hour, false)
	}
	require.Contains(t, of(b.tick()["a"]), key("first"))
	b.now = b.now.Add(time.Minute)
	got := b.tick()["a"]
	require.NotContains(t, of(got), key("first"))
	require.Equal(t, uint64(2), of(got)["other"].Duration.Count, "the two that ran before they were shown, and nothing of what it counted")
	b.requireSum(t, "a")
}

func TestAPromotedDigestCountsFromThenOn(t *testing.T) {
	s := server("a")
	s.Top = 1
	b := newBench(t, s)
	for _, shape := range []string{"x", "y", "z"} {
		b.run("a", shape+" 1", time.Second, false)
	}
	b.run("a", "late 1", time.Millisecond, false)
	before := of(b.tick()["a"])
	require.NotContains(t, before, key("late"))
	b.now = b.now.Add(time.Hour)
	for range 7 {
		b.run("a", "late 1", time.Hour, false)
	}
	got := of(b.tick()["a"])
	require.Equal(t, uint64(7), got[key("late")].Duration.Count)
	require.Equal(t, b.now, got[key("late")].Since)
	require.GreaterOrEqual(t, got["other"].Duration.Count, before["other"].Duration.Count)
}

func TestPolicies(t *testing.T) {
	t.Run("no text is kept where policy says so, and what was there goes", func(t *testing.T) {
		b := newBench(t, server("a"))
		b.run("a", "before 1", time.Second, false)
		s := server("a")
		s.NoText = true
		b.watch(s)
		require.Empty(t, b.run("a", "after 1", time.Second, false).Text)
		for _, d := range b.tick()["a"] {
			require.Empty(t, d.Text)
		}
		b.watch(server("a"))
		b.run("a", "after 2", time.Second, false)
		require.Equal(t, "after ?", of(b.tick()["a"])[key("after")].Text)
	})
	t.Run("a text with a secret has a digest and no text", func(t *testing.T) {
		b := newBench(t, server("a"))
		require.Equal(t, Known{Digest: key("secret")}, b.run("a", "secret 1", time.Second, false))
		require.Empty(t, of(b.tick()["a"])[key("secret")].Text)
	})
	t.Run("it is known that a statement changes privileges, with its text or without", func(t *testing.T) {
		s := server("a")
		s.NoText = true
		b := newBench(t, s)
		for _, text := range []string{"grant 1", "secretgrant 1"} {
			require.True(t, b.run("a", text, time.Second, false).Privileges, text)
			require.True(t, b.run("a", text, time.Second, false).Privileges, "%s, counted by the kernel", text)
		}
		require.False(t, b.run("a", "select 1", time.Second, false).Privileges)
	})
	t.Run("a text is at most so long", func(t *testing.T) {
		b := newBench(t, server("a"))
		got := b.run("a", strings.Repeat("é", 3000)+" 1", time.Second, false)
		require.LessOrEqual(t, len(got.Text), maxText)
		require.GreaterOrEqual(t, len(got.Text), maxText-1)
	})
	t.Run("digests can be switched off and on", func(t *testing.T) {
		b := newBench(t, server("a"))
		b.run("a", "before 1", time.Second, false)
		b.tick()
		s := server("a")
		s.Off = true
		b.watch(s)
		got := b.tick()["a"]
		require.Zero(t, named(got))
		require.Zero(t, of(got)["other"].Duration.Count, "what was shown of it was counted once")
		require.Equal(t, Known{Digest: "unsampled"}, b.run("a", "off 1", time.Second, false))
		b.watch(server("a"))
		b.run("a", "on 1", time.Second, false)
		got = b.tick()["a"]
		require.Equal(t, 1, named(got))
		b.requireSum(t, "a")
	})
	t.Run("none is shown with a top of 0", func(t *testing.T) {
		s := server("a")
		s.Top = 0
		b := newBench(t, s)
		b.many("a", "x", 10)
		b.run("a", "bad 1", time.Hour, true)
		require.Zero(t, named(b.tick()["a"]))
	})
	t.Run("nonsense is refused", func(t *testing.T) {
		b := newBench(t)
		require.Error(t, b.table.Watch([]Server{{ID: "a"}}))
		require.Error(t, b.table.Watch([]Server{{ID: "a", Lexer: words{}, Top: MaxTop + 1}}))
	})
}

func TestAnInstanceThatGoesIsForgotten(t *testing.T) {
	b := newBench(t, server("a"), server("b"))
	b.many("a", "x", 10)
	b.many("b", "x", 10)
	b.tick()
	b.watch(server("b"))
	require.Equal(t, 10, b.table.Stats().Numbers)
	require.NotContains(t, b.tick(), "a")
	delete(b.kernel.counted, "a")
	b.table.Text(Text{ID: "a", Hash: 1, Text: []byte("x 1")})
	require.Equal(t, Known{Digest: "unsampled"}, b.table.Count(Statement{ID: "a", Hash: 1, Uncounted: true}))
	b.ran["a"] = new(counts)
	b.watch(server("a"), server("b"))
	b.tick()
	b.requireSum(t, "a")
}

func TestTheInstancesRoom(t *testing.T) {
	b := newBench(t, server("a"))
	b.many("a", "x", maxNumbers)
	b.tick()
	t.Run("a new key counts as other", func(t *testing.T) {
		require.Equal(t, Known{Digest: key("new")}, b.run("a", "new 1", time.Second, false))
		require.Equal(t, maxNumbers, b.table.Stats().Numbers)
		require.Equal(t, uint64(1), b.table.Stats().Overflowed)
	})
	t.Run("of which it is known that it changes privileges", func(t *testing.T) {
		require.Equal(t, Known{Digest: key("grant"), Privileges: true}, b.run("a", "grant 1", time.Second, false))
	})
	t.Run("and is mapped to other when it comes again", func(t *testing.T) {
		b.run("a", "new 1", time.Second, false)
		require.Equal(t, NumberOther, b.kernel.texts[mapping{"a", hashOf("new 1")}])
		b.run("a", "new 1", time.Second, false)
		b.tick()
		b.requireSum(t, "a")
	})
	t.Run("or takes the place of one that did nothing for a minute", func(t *testing.T) {
		b.now = b.now.Add(replaceAfter)
		b.run("a", "new 2", time.Second, false)
		require.Greater(t, b.kernel.texts[mapping{"a", hashOf("new 2")}], NumberOther)
		require.Equal(t, uint64(maxReplaced), b.table.Stats().Evicted)
	})
	t.Run("idle ones go for any new key, but what is shown stays its time", func(t *testing.T) {
		shown := named(b.tick()["a"])
		b.now = b.now.Add(idleAfter)
		b.many("a", "y", maxNumbers)
		require.LessOrEqual(t, b.table.Stats().Numbers, maxNumbers)
		require.GreaterOrEqual(t, named(b.tick()["a"]), shown)
		b.tick()
		b.requireSum(t, "a")
	})
}

func TestTheNodesRoomIsShared(t *testing.T) {
	var servers []Server
	for i := range 12 {
		servers = append(servers, server("db-"+itoa(i)))
	}
	b := newBench(t, servers...)
	for _, s := range servers {
		b.many(s.ID, "x", maxNumbers)
	}
	require.Equal(t, maxNodeNumbers, b.table.Stats().Numbers)
	all := b.tick()
	require.LessOrEqual(t, b.table.Stats().Shown, maxShown)
	require.Equal(t, DefaultTop, named(all["db-0"]))
	for i := 12; i < 48; i++ {
		servers = append(servers, server("db-"+itoa(i)))
	}
	b.watch(servers...)
	b.tick()
	require.LessOrEqual(t, b.table.Stats().Numbers, maxNodeNumbers)
	for _, s := range servers[12:] {
		b.many(s.ID, "x", 250)
		require.LessOrEqual(t, b.table.Stats().Numbers, maxNodeNumbers)
	}
	b.now = b.now.Add(chooseEvery)
	all = b.tick()
	for _, s := range servers {
		// 62 places: 38 for time, and for long statements some that may be the same.
		require.GreaterOrEqual(t, named(all[s.ID]), 38, s.ID)
		require.LessOrEqual(t, named(all[s.ID]), maxShown/48, s.ID)
		b.requireSum(t, s.ID)
	}
	require.LessOrEqual(t, b.table.Stats().Shown, maxShown)
}

func TestTheKernelRefuses(t *testing.T) {
	b := newBench(t, server("a"))
	b.kernel.fail = syscall.E2BIG
	b.run("a", "x 1", time.Second, false)
	require.Equal(t, uint64(1), b.table.Stats().KernelFull)
	b.kernel.fail = errFull
	b.run("a", "x 1", time.Second, false)
	require.Equal(t, uint64(1), b.table.Stats().KernelErrors)
	b.tick()
	b.requireSum(t, "a")
	require.Equal(t, uint64(2), of(b.tick()["a"])[key("x")].Duration.Count, "they are counted here instead")
	t.Run("a digest that cannot be dropped stays and counts", func(t *testing.T) {
		b.many("a", "y", maxNumbers)
		b.now = b.now.Add(time.Hour)
		b.many("a", "z", 10)
		require.Zero(t, b.table.Stats().Evicted)
		b.tick()
		b.requireSum(t, "a")
	})
	t.Run("counters that cannot be read keep what they had", func(t *testing.T) {
		before := b.tick()["a"]
		b.kernel.read = errFull
		after, err := b.table.Tick()
		require.ErrorIs(t, err, errFull)
		require.Equal(t, before, after["a"])
	})
}

func TestCountersOfTheKernelThatBeginAnew(t *testing.T) {
	b := newBench(t, server("a"))
	for range 5 {
		b.run("a", "x 1", time.Second, false)
	}
	b.tick()
	b.kernel.counted = map[string]map[uint32]*Counts{}
	b.tick()
	b.requireSum(t, "a")
	for range 9 {
		b.run("a", "x 1", time.Second, false)
	}
	b.tick()
	b.requireSum(t, "a")
}

func TestAStatementUnderWayWhileItsDigestIsDropped(t *testing.T) {
	b := newBench(t, server("a"))
	b.run("a", "x 1", time.Second, false)
	number := b.kernel.texts[mapping{"a", hashOf("x 1")}]
	require.Equal(t, FirstNumber, number)
	b.now = b.now.Add(time.Hour)
	b.many("a", "y", maxNumbers)
	b.many("a", "z", 1)
	require.NotZero(t, b.table.Stats().Evicted)
	b.end("a", hashOf("x 1"), number, time.Second, false)
	for range 2 {
		b.tick()
		b.requireSum(t, "a")
	}
	require.NotContains(t, b.kernel.counted["a"], number)
}

// TestAMillionDistinctTexts measures what a flood leaves behind.
func TestAMillionDistinctTexts(t *testing.T) {
	b := newBench(t, server("a"))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	text := []byte("0000000000 1")
	for i := range 1_000_000 {
		for j, v := 9, i; j >= 0; j, v = j-1, v/10 {
			text[j] = byte('0' + v%10)
		}
		b.now = b.now.Add(60 * time.Microsecond)
		hash := uint64(i) + 1
		b.table.Text(Text{ID: "a", Hash: hash, Text: text})
		b.table.Count(Statement{ID: "a", Hash: hash, Uncounted: true, Operation: "select", Duration: time.Millisecond})
		if i%16_667 == 0 {
			b.tick()
		}
	}
	got := b.tick()["a"]
	var total uint64
	for _, d := range got {
		total += d.Duration.Count
	}
	require.Equal(t, uint64(1_000_000), total)
	require.LessOrEqual(t, b.table.Stats().Numbers, maxNumbers)
	grown := int64(heap()) - int64(before)
	t.Logf("heap grew by %d KiB", grown>>10)
	require.Less(t, grown, int64(6<<20))
	runtime.KeepAlive(b)
}

func TestEventsAndTicksAtTheSameTime(t *testing.T) {
	var kernel lockedKernel
	kernel.fakeKernel = newKernel()
	table := New(&kernel)
	require.NoError(t, table.Watch([]Server{server("a")}))
	var events sync.WaitGroup
	for g := range 4 {
		events.Go(func() {
			for i := range 500 {
				hash := uint64(g*500 + i + 1)
				table.Text(Text{ID: "a", Hash: hash, Text: []byte("x" + itoa(i%50) + " 1")})
				table.Count(Statement{ID: "a", Hash: hash, Uncounted: true, Duration: time.Millisecond})
			}
		})
	}
	for range 20 {
		_, err := table.Tick()
		require.NoError(t, err)
		table.Stats()
	}
	events.Wait()
	out, err := table.Tick()
	require.NoError(t, err)
	var total uint64
	for _, d := range out["a"] {
		total += d.Duration.Count
	}
	require.Equal(t, uint64(2000), total)
}

type lockedKernel struct {
	mu sync.Mutex
	*fakeKernel
}

func (k *lockedKernel) MapText(id string, hash uint64, number uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fakeKernel.MapText(id, hash, number)
}

func (k *lockedKernel) Digests(id string) ([]Counts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fakeKernel.Digests(id)
}
