package digest

import (
	"math"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// The buckets that exist, those of the kernel: the first is everything up to
// 2^-20 s, the last everything above 128 s.
const (
	lowestBucket  = -40
	highestBucket = 15
)

// bucketBounds are the upper bounds of all buckets but the last, in nanoseconds.
// A duration is a whole number of those, so that cutting the fraction off is exact.
func bucketBounds() [highestBucket - lowestBucket]int64 {
	var out [highestBucket - lowestBucket]int64
	for i := range out {
		out[i] = int64(math.Exp2(float64(lowestBucket+i)/2) * 1e9)
	}
	return out
}

var bounds = bucketBounds()

// bucketOf returns the index of d in schema 1.
func bucketOf(d time.Duration) int {
	low, high := 0, len(bounds)
	for low < high {
		if m := (low + high) / 2; bounds[m] < int64(d) {
			low = m + 1
		} else {
			high = m
		}
	}
	return lowestBucket + low
}

// histogram counts by bucket, from low on without a gap. Statements of one digest
// take similar times: most fill a few buckets.
type histogram struct {
	low int
	n   []uint64
}

// add adds n to bucket i.
func (h *histogram) add(i int, n uint64) {
	switch {
	case n == 0:
		return
	case len(h.n) == 0:
		h.low, h.n = i, append(h.n[:0], 0)
	case i < h.low:
		grown := make([]uint64, h.low-i+len(h.n))
		copy(grown[h.low-i:], h.n)
		h.low, h.n = i, grown
	case i >= h.low+len(h.n):
		grown := make([]uint64, i-h.low+1)
		copy(grown, h.n)
		h.n = grown
	}
	h.n[i-h.low] += n
}

func (h *histogram) at(i int) uint64 {
	if i < h.low || i >= h.low+len(h.n) {
		return 0
	}
	return h.n[i-h.low]
}

// counts is what is counted of a digest.
type counts struct {
	errors, rows uint64
	sum          time.Duration
	buckets      histogram
}

// add adds all of d.
func (c *counts) add(d *counts) {
	c.errors += d.errors
	c.rows += d.rows
	c.sum += d.sum
	for i, n := range d.buckets.n {
		c.buckets.add(d.buckets.low+i, n)
	}
}

func (c *counts) total() uint64 {
	var t uint64
	for _, n := range c.buckets.n {
		t += n
	}
	return t
}

// highest returns the highest bucket that has a count, and false where none has.
func (c *counts) highest() (int, bool) {
	for i := len(c.buckets.n) - 1; i >= 0; i-- {
		if c.buckets.n[i] > 0 {
			return c.buckets.low + i, true
		}
	}
	return 0, false
}

// since returns what came to c after before was read of the same counters. Where
// any of them has fallen they began anew, and all of c is new.
func (c *counts) since(before *counts) *counts {
	fell := c.errors < before.errors || c.rows < before.rows || c.sum < before.sum
	for i, n := range before.buckets.n {
		fell = fell || c.buckets.at(before.buckets.low+i) < n
	}
	if fell {
		before = new(counts)
	}
	d := &counts{errors: c.errors - before.errors, rows: c.rows - before.rows, sum: c.sum - before.sum}
	for i, n := range c.buckets.n {
		at := c.buckets.low + i
		d.buckets.add(at, n-before.buckets.at(at))
	}
	return d
}

// isZero says that there is nothing in c.
func (c *counts) isZero() bool {
	return c.errors == 0 && c.rows == 0 && c.sum == 0 && c.total() == 0
}

// distribution copies the latencies for a snapshot.
func (c *counts) distribution() state.Distribution {
	d := state.Distribution{Count: c.total(), Sum: c.sum, Native: make(map[int]uint64, len(c.buckets.n))}
	for i, n := range c.buckets.n {
		if n > 0 {
			d.Native[c.buckets.low+i] = n
		}
	}
	return d
}
