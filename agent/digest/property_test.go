package digest

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func itoa(i int) string { return strconv.Itoa(i) }

// TestInvariants plays statements, ticks, time, floods, restarts of counters,
// refusals and changes of policy in any order. After each tick what was shown has
// grown by what ran, and no counter that is still there has fallen (bench.note).
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		ids := []string{"a", "b", "c"}
		servers := make([]Server, len(ids))
		for i, id := range ids {
			servers[i] = server(id)
			servers[i].Top = rapid.SampledFrom([]int{0, 1, 3, 100}).Draw(r, "top")
		}
		b := newBench(r, servers...)
		type open struct {
			id     string
			hash   uint64
			number uint32
		}
		var under []open
		duration := rapid.Custom(func(r *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, 1<<rapid.IntRange(0, 40).Draw(r, "scale")).Draw(r, "ns"))
		})
		check := func(r *rapid.T) {
			all, err := b.table.Tick()
			if b.kernel.fail == nil {
				require.NoError(r, err)
			}
			b.note(all)
			var shown int
			for _, id := range ids {
				b.requireSum(r, id)
				require.Len(r, of(all[id]), len(all[id]), "each digest once")
				shown += named(all[id])
			}
			stats := b.table.Stats()
			require.Equal(r, stats.Shown, shown)
			require.LessOrEqual(r, shown, maxShown)
			require.LessOrEqual(r, stats.Numbers, maxNodeNumbers)
		}
		r.Repeat(map[string]func(*rapid.T){
			"run": func(r *rapid.T) {
				id := rapid.SampledFrom(ids).Draw(r, "id")
				text := "s" + itoa(rapid.IntRange(0, 20).Draw(r, "shape")) + " " + itoa(rapid.IntRange(0, 3).Draw(r, "literal"))
				b.run(id, text, duration.Draw(r, "duration"), rapid.Bool().Draw(r, "failed"))
			},
			"kernel's own": func(r *rapid.T) {
				b.end(rapid.SampledFrom(ids).Draw(r, "id"), 0, uint32(rapid.IntRange(1, 4).Draw(r, "number")), duration.Draw(r, "duration"), false)
			},
			"begin": func(r *rapid.T) {
				id, text := rapid.SampledFrom(ids).Draw(r, "id"), "s"+itoa(rapid.IntRange(0, 20).Draw(r, "shape"))+" 1"
				under = append(under, open{id, hashOf(text), b.kernel.texts[mapping{id, hashOf(text)}]})
			},
			"end": func(r *rapid.T) {
				for _, o := range under {
					b.end(o.id, o.hash, o.number, duration.Draw(r, "duration"), false)
				}
				under = nil
			},
			"flood": func(r *rapid.T) {
				b.many(rapid.SampledFrom(ids).Draw(r, "id"), "f"+itoa(rapid.IntRange(0, 5).Draw(r, "prefix"))+"-", 400)
			},
			"time": func(r *rapid.T) {
				b.now = b.now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 11 * time.Minute, 31 * time.Minute}).Draw(r, "passed"))
			},
			"tick": check,
			"counters begin anew": func(r *rapid.T) {
				check(r) // what was not read yet is lost with them
				delete(b.kernel.counted, rapid.SampledFrom(ids).Draw(r, "id"))
				check(r) // and if they grew back at once nobody could tell
			},
			"refusals": func(r *rapid.T) {
				b.kernel.fail = rapid.SampledFrom([]error{nil, nil, errFull}).Draw(r, "error")
			},
			"policy": func(r *rapid.T) {
				i := rapid.IntRange(0, len(servers)-1).Draw(r, "server")
				servers[i].Off = rapid.IntRange(0, 3).Draw(r, "off") == 0
				servers[i].Top = rapid.SampledFrom([]int{0, 2, 50, 500}).Draw(r, "top")
				b.watch(servers...)
			},
		})
		check(r)
	})
}
