package digest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// words is a Lexer whose texts are "shape literal": the shape is the digest.
type words struct{}

func (words) Key(text []byte) uint64 {
	shape, _, _ := bytes.Cut(text, []byte(" "))
	h := fnv.New64a()
	h.Write(shape)
	return h.Sum64()
}

func (words) AppendNormalized(dst, text []byte, limit int) []byte {
	shape, _, _ := bytes.Cut(text, []byte(" "))
	dst = append(append(dst, shape...), " ?"...)
	return dst[:min(limit, len(dst))]
}

func (words) Sensitive(text []byte) bool { return bytes.HasPrefix(text, []byte("secret")) }

func (words) Privileges(text []byte) bool { return bytes.Contains(text, []byte("grant")) }

func key(shape string) string { return name(words{}.Key([]byte(shape))) }

// mapping is where the fake kernel holds a text.
type mapping struct {
	id   string
	hash uint64
}

// fakeKernel counts as the kernel does, and everything once more by instance.
type fakeKernel struct {
	texts map[mapping]uint32
	// counted is by instance and number.
	counted    map[string]map[uint32]*Counts
	fail, read error
}

func newKernel() *fakeKernel {
	return &fakeKernel{texts: map[mapping]uint32{}, counted: map[string]map[uint32]*Counts{}}
}

func (k *fakeKernel) MapText(id string, hash uint64, number uint32) error {
	if k.fail != nil {
		return k.fail
	}
	k.texts[mapping{id, hash}] = number
	return nil
}

func (k *fakeKernel) Digests(id string) ([]Counts, error) {
	if k.read != nil {
		return nil, k.read
	}
	var out []Counts
	for _, c := range k.counted[id] {
		copied := *c
		copied.Native = make(map[int]uint64, len(c.Native))
		for i, n := range c.Native {
			copied.Native[i] = n
		}
		out = append(out, copied)
	}
	return out, nil
}

func (k *fakeKernel) DropDigest(id string, number uint32) (Counts, error) {
	if k.fail != nil {
		return Counts{}, k.fail
	}
	c := k.counted[id][number]
	delete(k.counted[id], number)
	for m, n := range k.texts {
		if m.id == id && n == number {
			delete(k.texts, m)
		}
	}
	if c == nil {
		return Counts{Number: number}, nil
	}
	return *c, nil
}

// add counts under a number.
func (k *fakeKernel) add(id string, number uint32, d time.Duration, failed bool, rows uint64) {
	if k.counted[id] == nil {
		k.counted[id] = map[uint32]*Counts{}
	}
	c := k.counted[id][number]
	if c == nil {
		c = &Counts{Number: number, Native: map[int]uint64{}}
		k.counted[id][number] = c
	}
	if failed {
		c.Errors++
	}
	c.Rows += rows
	c.Sum += d
	c.Native[bucketOf(d)]++
}

// bench is a table on a fake kernel with a clock that stands.
type bench struct {
	t      require.TestingT
	kernel *fakeKernel
	table  *Table
	now    time.Time
	// ran is what was run of each instance, grown by how much its digests grew from
	// tick to tick, and last what they were at the last one.
	ran, grown map[string]*counts
	last       map[string][]state.Digest
}

func newBench(t require.TestingT, servers ...Server) *bench {
	b := &bench{
		t: t, kernel: newKernel(), now: time.Unix(1.7e9, 0),
		ran: map[string]*counts{}, grown: map[string]*counts{}, last: map[string][]state.Digest{},
	}
	b.table = New(b.kernel, WithClock(func() time.Time { return b.now }))
	b.watch(servers...)
	return b
}

func (b *bench) watch(servers ...Server) { require.NoError(b.t, b.table.Watch(servers)) }

func server(id string) Server { return Server{ID: id, Lexer: words{}, Top: DefaultTop} }

// run is one statement from its beginning to its end, as the kernel tells of it.
func (b *bench) run(id, text string, d time.Duration, failed bool) Known {
	hash := hashOf(text)
	number := b.kernel.texts[mapping{id, hash}]
	if number == 0 {
		b.table.Text(Text{ID: id, Hash: hash, Text: []byte(text)})
	}
	return b.end(id, hash, number, d, failed)
}

// end is the end of a statement whose text had that number when it came.
func (b *bench) end(id string, hash uint64, number uint32, d time.Duration, failed bool) Known {
	ran := b.ran[id]
	if ran == nil {
		ran = new(counts)
		b.ran[id] = ran
	}
	one := counts{rows: 2, sum: d}
	if failed {
		one.errors = 1
	}
	one.buckets.add(bucketOf(d), 1)
	ran.add(&one)
	if number != 0 {
		b.kernel.add(id, number, d, failed, 2)
	}
	return b.table.Count(Statement{
		ID: id, Hash: hash, Number: number, Uncounted: number == 0, Operation: "select", Failed: failed, Duration: d, Rows: 2,
	})
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}

func (b *bench) tick() map[string][]state.Digest {
	out, err := b.table.Tick()
	require.NoError(b.t, err)
	b.note(out)
	return out
}

// note adds up by how much digests grew since the last tick, as whoever reads
// their counters does. No count may fall.
func (b *bench) note(out map[string][]state.Digest) {
	for id, all := range out {
		was, grown := of(b.last[id]), b.grown[id]
		if grown == nil {
			grown = new(counts)
			b.grown[id] = grown
		}
		for _, d := range all {
			before := counts{}
			if w, ok := was[d.ID]; ok && w.Since.Equal(d.Since) {
				before = countsOf(b.t, w)
			}
			now := countsOf(b.t, d)
			fell := now.sum < before.sum || now.errors < before.errors || now.rows < before.rows
			for i := lowestBucket; i <= highestBucket; i++ {
				fell = fell || now.buckets.at(i) < before.buckets.at(i)
			}
			require.False(b.t, fell, "%s of %s", d.ID, id)
			grown.add(now.since(&before))
		}
	}
	for id := range b.last {
		if _, ok := out[id]; !ok {
			delete(b.grown, id)
		}
	}
	b.last = out
}

// countsOf reads what a digest shows.
func countsOf(t require.TestingT, d state.Digest) counts {
	c := counts{errors: d.Errors, rows: d.Rows, sum: d.Duration.Sum}
	for i, n := range d.Duration.Native {
		c.buckets.add(i, n)
	}
	require.Equal(t, c.total(), d.Duration.Count, d.ID)
	return c
}

// of returns the digests of one instance by their IDs.
func of(all []state.Digest) map[string]state.Digest {
	out := make(map[string]state.Digest, len(all))
	for _, d := range all {
		out[d.ID] = d
	}
	return out
}

// requireSum checks that what an instance's digests grew by, up to the last tick,
// adds up to what was run of it.
func (b *bench) requireSum(t require.TestingT, id string) {
	want, got := b.ran[id], b.grown[id]
	if want == nil {
		want = new(counts)
	}
	require.NotNil(t, got, "no tick")
	require.Equal(t, want.errors, got.errors, "errors")
	require.Equal(t, want.rows, got.rows, "rows")
	require.Equal(t, want.sum, got.sum, "time")
	for i := lowestBucket; i <= highestBucket; i++ {
		require.Equal(t, want.buckets.at(i), got.buckets.at(i), "bucket %d", i)
	}
}

// many runs n shapes once each; the i-th takes i+1 milliseconds.
func (b *bench) many(id, prefix string, n int) {
	for i := range n {
		b.run(id, prefix+strconv.Itoa(i)+" 1", time.Duration(i+1)*time.Millisecond, false)
	}
}

var errFull = fmt.Errorf("update map: %w", errors.New("no"))

func named(all []state.Digest) int { return len(all) - 4 }

func TestBucketsAreThoseOfPrometheus(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: lowestBucket, 0: lowestBucket, 1: lowestBucket, 953: lowestBucket, 954: lowestBucket + 1,
		time.Second: 0, time.Second + 1: 1, time.Second - 1: 0, 500 * time.Millisecond: -2, 500*time.Millisecond + 1: -1,
		128 * time.Second: 14, 128*time.Second + 1: 15, 1 << 62: highestBucket,
	} {
		require.Equal(t, want, bucketOf(d), d)
	}
}
