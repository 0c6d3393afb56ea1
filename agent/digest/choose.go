package digest

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// halfLife is how fast what decides about being shown fades, and how long a
	// longest statement counts for that.
	halfLife = time.Hour
	// chooseEvery is how often a list without new digests is looked at again.
	chooseEvery = 10 * time.Second
)

// What a digest can be shown for.
const (
	forTime = iota
	forErrors
	forPeak
	reasons
)

// budget shares what a node shows among its instances: each gets what it wants,
// or an equal share where there is not enough for all.
func (t *Table) budget() map[*instance]int {
	want := make(map[*instance]int, len(t.instances))
	order := make([]*instance, 0, len(t.instances))
	for _, in := range t.instances {
		want[in] = in.wants()
		order = append(order, in)
	}
	slices.SortFunc(order, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(want[a], want[b]), cmp.Compare(a.serial, b.serial))
	})
	left := maxShown
	for i, in := range order {
		want[in] = min(want[in], left/(len(order)-i))
		left -= want[in]
	}
	return want
}

// wants is how many digests an instance would show if it were alone.
func (in *instance) wants() int {
	if in.Off {
		return 0
	}
	return min(len(in.byKey), in.Top+2*min(in.Top, guaranteed))
}

// slots returns how many digests may be shown for each reason, budget in all. An
// instance that gets what it wants has all of them.
func (in *instance) slots(budget int) [reasons]int {
	extra := min(guaranteed, in.Top)
	if budget >= in.wants() {
		return [reasons]int{forTime: in.Top, forErrors: extra, forPeak: extra}
	}
	extra = min(extra, budget/5)
	return [reasons]int{forTime: budget - 2*extra, forErrors: extra, forPeak: extra}
}

// choose decides what is shown. A digest keeps the slot it has for Sticky; the
// others go to those with the most time, errors and the longest statements.
func (in *instance) choose(budget int, now time.Time) {
	if budget == in.budget && !in.grown && now.Sub(in.chosen) < chooseEvery {
		return
	}
	in.budget, in.grown, in.chosen = budget, false, now
	all := make([]*entry, 0, len(in.byKey))
	for _, e := range in.byKey {
		e.fade(now)
		all = append(all, e)
	}
	slots := in.slots(budget)
	keep := make(map[*entry]int, budget)
	rank(all, forTime)
	for _, e := range all {
		if e.shown && now.Sub(e.since) < Sticky && slots[e.reason] > 0 {
			keep[e] = e.reason
			slots[e.reason]--
		}
	}
	for reason := range reasons {
		rank(all, reason)
		for i, e := range all {
			if slots[reason] == 0 || e.score(reason) == 0 || reason != forTime && i >= guaranteed {
				break
			}
			if _, ok := keep[e]; !ok {
				keep[e] = reason
				slots[reason]--
			}
		}
	}
	for _, e := range all {
		reason, ok := keep[e]
		in.show(e, ok, now)
		e.reason = reason
	}
}

// rank sorts by what counts for a reason.
func rank(all []*entry, reason int) {
	slices.SortFunc(all, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.score(reason), a.score(reason)), cmp.Compare(b.time, a.time), cmp.Compare(a.number, b.number))
	})
}

// score is what counts for a reason; 0 is never shown for it.
func (e *entry) score(reason int) float64 {
	switch reason {
	case forErrors:
		return e.errors
	case forPeak:
		return float64(e.peak)
	}
	return e.time
}

// weigh adds what came since the last tick to what decides.
func (in *instance) weigh(now time.Time) {
	for _, e := range in.byKey {
		top, ok := e.pending.highest()
		if !ok {
			continue
		}
		e.fade(now)
		// One nanosecond more, so that a statement of no duration counts, too.
		e.time += float64(e.pending.sum + 1)
		e.errors += float64(e.pending.errors)
		if rank := top - lowestBucket + 1; rank >= e.peak {
			e.peak, e.peaked = rank, now
		}
	}
}

// fade lets what was there before fade, to nothing in the end.
func (e *entry) fade(now time.Time) {
	factor := math.Exp2(-float64(now.Sub(e.faded)) / float64(halfLife))
	e.time *= factor
	e.errors *= factor
	e.faded = now
	if e.time < 1e-3 {
		e.time = 0
	}
	if e.errors < 1e-3 {
		e.errors = 0
	}
	if now.Sub(e.peaked) > halfLife {
		e.peak = 0
	}
}

// show puts a digest on the list or takes it off.
func (in *instance) show(e *entry, shown bool, now time.Time) {
	switch {
	case shown == e.shown:
		return
	case shown:
		in.shown++
		e.since = now
	default:
		in.shown--
		e.counted = counts{}
	}
	e.shown = shown
}
