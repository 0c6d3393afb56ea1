package explain

import (
	"cmp"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/trend"
)

// view is a history with the window that is asked about.
type view struct {
	h      trend.History
	points []trend.Summary
	now    time.Time
	// from is the window's begin and first its first point.
	from  time.Time
	first int
	// window is what happened in it, in one.
	window trend.Summary

	meanNormal, fsyncNormal, blockNormal, errorNormal, cpuMedian, inFlightNormal normal
}

// normal is what a figure usually is; unknown on a short history.
type normal struct {
	known bool
	value float64
}

func newView(h trend.History, o Options) *view {
	v := &view{h: h, now: o.Now, from: o.Now.Add(-o.Since)}
	for _, p := range h.Points {
		if p.Length > 0 {
			v.points = append(v.points, p)
		}
	}
	v.first = len(v.points)
	for v.first > 0 && v.points[v.first-1].End().After(v.from) {
		v.first--
	}
	if v.first < len(v.points) && v.points[v.first].Start.After(v.from) {
		v.from = v.points[v.first].Start
	}
	v.window = trend.Merge(v.points[v.first:], 1<<30)
	v.meanNormal = v.usual(0.25, func(p *trend.Summary) (float64, bool) {
		return p.Total.Mean().Seconds(), p.Total.Calls > 0
	})
	v.fsyncNormal = v.usual(0.25, func(p *trend.Summary) (float64, bool) { return p.Fsync.Mean().Seconds(), p.Fsync.Count > 0 })
	v.blockNormal = v.usual(0.25, func(p *trend.Summary) (float64, bool) { return p.Block.Mean().Seconds(), p.Block.Count > 0 })
	v.errorNormal = v.usual(0.25, func(p *trend.Summary) (float64, bool) {
		return ratio(float64(p.Total.Errors), float64(p.Total.Calls)), p.Total.Calls > 0
	})
	v.cpuMedian = v.usual(0.5, func(p *trend.Summary) (float64, bool) { return p.Load(p.CPU.Total), p.CPU.Known })
	v.inFlightNormal = v.usual(0.25, func(p *trend.Summary) (float64, bool) { return float64(p.InFlight), p.Statements })
	return v
}

// span is how far back the history reaches.
func (v *view) span() time.Duration {
	if len(v.points) == 0 {
		return 0
	}
	return max(0, v.now.Sub(v.points[0].Start))
}

// usual is the quantile q of a figure over the history, points weighted by
// their length.
func (v *view) usual(q float64, figure func(*trend.Summary) (float64, bool)) normal {
	type weighed struct{ value, seconds float64 }
	var all []weighed
	var sum float64
	for i := range v.points {
		if f, ok := figure(&v.points[i]); ok {
			s := v.points[i].Length.Seconds()
			all = append(all, weighed{f, s})
			sum += s
		}
	}
	if float64(len(all)) < normalPoints.value() {
		return normal{}
	}
	slices.SortFunc(all, func(a, b weighed) int { return cmp.Compare(a.value, b.value) })
	var below float64
	for _, w := range all {
		if below += w.seconds; below >= q*sum {
			return normal{true, w.value}
		}
	}
	return normal{true, all[len(all)-1].value}
}

// run is a stretch of points, from the first to the last one included.
type run struct{ from, to int }

// overlaps says that two runs share a point.
func (r run) overlaps(o run) bool { return r.from <= o.to && o.from <= r.to }

// episode finds the newest run that reaches into the window and in which the
// condition is met for at least so long. A single point between in which it is
// not met does not end a run; a gap does, of which nothing is known.
func (v *view) episode(least time.Duration, met func(*trend.Summary) bool) (run, bool) {
	for to := len(v.points) - 1; to >= v.first; to-- {
		if !met(&v.points[to]) {
			continue
		}
		r := run{to, to}
		long := v.points[to].Length
		for i, misses := to-1, 0; i >= 0 && misses < 2; i-- {
			if v.afterGap(i + 1) {
				break
			}
			if !met(&v.points[i]) {
				misses++
				continue
			}
			misses, r.from = 0, i
			long += v.points[i].Length
		}
		if long >= least {
			return r, true
		}
		to = r.from
	}
	return run{}, false
}

// afterGap says that nothing is known of the time before a point.
func (v *view) afterGap(i int) bool {
	return i == 0 || v.points[i].Start.Sub(v.points[i-1].End()) > trend.MaxGap
}

// sum is what happened in the part of a run that lies in the window.
func (v *view) sum(r run) *trend.Summary {
	s := trend.Merge(v.points[max(r.from, v.first):r.to+1], 1<<30)
	return &s
}

// finding fills in when it was.
func (v *view) finding(r run, f Finding) Finding {
	f.run = r
	f.Since, f.SinceAtLeast = v.points[r.from].Start, v.afterGap(r.from)
	if r.to < len(v.points)-2 {
		f.Until = v.points[r.to].End()
	}
	return f
}

// ratio is a/b, 0 where b is.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
