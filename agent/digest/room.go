package digest

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// room is how many digests an instance may have.
func (t *Table) room() int { return min(maxNumbers, maxNodeNumbers/max(1, len(t.instances))) }

// admit makes a digest, false where there is no room for it. One whose key came
// again may take the place of one that was not at work for a while.
func (t *Table) admit(in *instance, key uint64, again bool) (*entry, bool) {
	if len(in.byKey) >= t.room() || t.numbers >= maxNodeNumbers {
		if !t.makeRoom(in, again) {
			return nil, false
		}
	}
	now := t.now()
	e := &entry{key: key, number: t.next, active: now, faded: now}
	t.next++
	t.numbers++
	in.grown = true
	in.byKey[key], in.byNumber[e.number] = e, e
	return e, true
}

// makeRoom gives up digests that are idle, or stale ones for one that came
// again. Another instance's are given up only where the node is full and they
// have more than their share.
func (t *Table) makeRoom(in *instance, again bool) bool {
	from := in
	if len(in.byKey) < t.room() {
		from = t.largest()
	}
	if !from.noIdle {
		from.noIdle = t.giveUp(from, idleAfter, maxNumbers/8) == 0
		if !from.noIdle {
			return true
		}
	}
	if !again || from.noStale {
		return false
	}
	from.noStale = t.giveUp(from, replaceAfter, maxReplaced) == 0
	return !from.noStale
}

// giveUp drops up to n digests that were idle for so long and returns how many.
func (t *Table) giveUp(in *instance, after time.Duration, n int) int {
	var dropped int
	for _, e := range in.idle(t.now(), after, n) {
		if t.drop(in, e) == nil {
			dropped++
			t.stats.Evicted++
		}
	}
	return dropped
}

// largest returns the instance with the most digests.
func (t *Table) largest() *instance {
	var most *instance
	for _, in := range t.instances {
		if most == nil || len(in.byKey) > len(most.byKey) {
			most = in
		}
	}
	return most
}

// idle returns up to n digests that were not at work for so long, those that are
// not shown first, then the longest idle. One that is shown stays for Sticky.
func (in *instance) idle(now time.Time, after time.Duration, n int) []*entry {
	var out []*entry
	for _, e := range in.byKey {
		if now.Sub(e.active) >= after && (!e.shown || now.Sub(e.since) >= Sticky) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *entry) int {
		return cmp.Or(compareBool(a.shown, b.shown), a.active.Compare(b.active), cmp.Compare(a.number, b.number))
	})
	return out[:min(n, len(out))]
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// trim gives up what an instance has more than its share, as the number of
// instances grew: idle ones first.
func (t *Table) trim(in *instance) error {
	over := len(in.byKey) - t.room()
	if in.Off {
		over = len(in.byKey)
	}
	if over <= 0 {
		return nil
	}
	all := make([]*entry, 0, len(in.byKey))
	for _, e := range in.byKey {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int {
		return cmp.Or(compareBool(a.shown, b.shown), a.active.Compare(b.active), cmp.Compare(a.number, b.number))
	})
	for _, e := range all[:over] {
		if err := t.drop(in, e); err != nil {
			return err
		}
		t.stats.Evicted++
	}
	return nil
}

// drop gives a digest up; what came since the last tick goes to "other", and what
// was shown goes with it. Where the kernel does not let go of it, it stays.
func (t *Table) drop(in *instance, e *entry) error {
	last, err := t.kernel.DropDigest(in.ID, e.number)
	if err != nil {
		t.mapped(err)
		return fmt.Errorf("drop digest %d of %q: %w", e.number, in.ID, err)
	}
	in.other.add(last.counts().since(&e.kernel))
	in.other.add(&e.pending)
	if e.shown {
		in.shown--
	}
	t.numbers--
	in.grown = true
	delete(in.byKey, e.key)
	delete(in.byNumber, e.number)
	return nil
}
