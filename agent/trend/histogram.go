package trend

import (
	"maps"
	"math"
	"slices"
	"time"
)

// Histogram counts durations by the bounds of a Prometheus native histogram:
// of schema s, the key i stands for (2^((i-1)/2^s), 2^(i/2^s)] seconds.
type Histogram struct {
	Schema  int
	Buckets map[int]uint64
}

// maxSchema is the finest schema Prometheus knows; the coarsest is its negative
// half.
const maxSchema = 8

// add counts other's buckets in as well; both have one schema.
func (h *Histogram) add(other map[int]uint64) {
	if h.Buckets == nil {
		h.Buckets = make(map[int]uint64, len(other))
	}
	for i, n := range other {
		h.Buckets[i] += n
	}
}

// minus is what was counted since old. A bucket that fell was begun again.
func (h Histogram) minus(old Histogram) Histogram {
	out := Histogram{Schema: h.Schema}
	for i, n := range h.Buckets {
		if h.Schema == old.Schema {
			n = grown(n, old.Buckets[i])
		}
		if n > 0 {
			out.add(map[int]uint64{i: n})
		}
	}
	return out
}

// Quantile returns the duration that the share q (0 to 1) of what was counted
// did not exceed, interpolated within its bucket; 0 when nothing was counted.
func (h Histogram) Quantile(q float64) time.Duration {
	var count float64
	for _, n := range h.Buckets {
		count += float64(n)
	}
	if count == 0 || h.Schema > maxSchema || h.Schema < -maxSchema/2 {
		return 0
	}
	rank := min(max(q, 0), 1) * count
	width := math.Exp2(-float64(h.Schema))
	var below, last float64
	for _, i := range slices.Sorted(maps.Keys(h.Buckets)) {
		n := float64(h.Buckets[i])
		if n == 0 {
			continue
		}
		// The bounds grow by a constant factor, so the place within a bucket is
		// taken on that scale, as Prometheus does.
		last = math.Exp2((float64(i) - 1 + (rank-below)/n) * width)
		if below+n >= rank {
			break
		}
		below += n
	}
	return seconds(last)
}

// seconds converts without overflow.
func seconds(s float64) time.Duration {
	ns := s * float64(time.Second)
	switch {
	case !(ns > 0):
		return 0
	case ns >= math.MaxInt64:
		return math.MaxInt64
	}
	return time.Duration(ns)
}

// grown is by how much a counter grew. One that fell was begun again from zero
// in between, so all it holds is new.
func grown[T uint64 | int64 | time.Duration](now, old T) T {
	if now < old {
		return max(now, 0)
	}
	return now - old
}
