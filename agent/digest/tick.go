package digest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// Tick reads the kernel's counters and returns each instance's digests, by its
// ID: those shown, heaviest first, and "other", "unsampled", "tls" and "none".
// An instance whose counters could not be read keeps what it had, and the error
// says so.
func (t *Table) Tick() (map[string][]state.Digest, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.ticks++
	var errs []error
	for _, in := range t.instances {
		in.noIdle, in.noStale = false, false
		errs = append(errs, t.trim(in), t.read(in, now))
	}
	budget := t.budget()
	for _, in := range t.instances {
		in.weigh(now)
		in.choose(budget[in], now)
	}
	out := make(map[string][]state.Digest, len(t.instances))
	for id, in := range t.instances {
		in.settle()
		out[id] = in.digests()
	}
	return out, errors.Join(errs...)
}

// read takes the kernel's counters of one instance.
func (t *Table) read(in *instance, now time.Time) error {
	all, err := t.kernel.Digests(in.ID)
	if err != nil {
		return fmt.Errorf("read digests of %q: %w", in.ID, err)
	}
	for i := range all {
		k, c := &all[i], all[i].counts()
		if e, ok := in.byNumber[k.Number]; ok {
			d := c.since(&e.kernel)
			e.kernel, e.read = *c, t.ticks
			if !d.isZero() {
				e.active = now
				e.pending.add(d)
			}
			continue
		}
		before := in.seen[k.Number]
		if before == nil {
			before = new(stray)
		}
		in.kind(k.Number).add(c.since(&before.counts))
		in.seen[k.Number] = &stray{counts: *c, read: t.ticks}
	}
	in.forget(t.ticks)
	return t.sweep(in)
}

// forget begins anew with counters that the kernel no longer has.
func (in *instance) forget(tick uint64) {
	for _, e := range in.byNumber {
		if e.read != tick {
			e.kernel = counts{}
		}
	}
	for number, s := range in.seen {
		if s.read != tick {
			delete(in.seen, number)
		}
	}
}

// kind is what the statements of a number that no entry has count as. A number
// from FirstNumber up is one that was given up while a statement was under way.
func (in *instance) kind(number uint32) *counts {
	switch number {
	case NumberNone:
		return &in.none
	case NumberTLS:
		return &in.tls
	case NumberUnsampled:
		return &in.unsampled
	}
	return &in.other
}

// sweep gives up numbers that no digest has.
func (t *Table) sweep(in *instance) error {
	for number, before := range in.seen {
		if number < FirstNumber {
			continue
		}
		last, err := t.kernel.DropDigest(in.ID, number)
		if err != nil {
			t.mapped(err)
			return fmt.Errorf("drop digest %d of %q: %w", number, in.ID, err)
		}
		in.other.add(last.counts().since(&before.counts))
		delete(in.seen, number)
	}
	return nil
}

// settle adds what came since the last tick to where it is shown.
func (in *instance) settle() {
	for _, e := range in.byKey {
		if e.shown {
			e.counted.add(&e.pending)
		} else {
			in.other.add(&e.pending)
		}
		e.pending = counts{}
	}
}

// digests copies what is shown.
func (in *instance) digests() []state.Digest {
	entries := make([]*entry, 0, in.shown)
	for _, e := range in.byKey {
		if e.shown {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.counted.sum, a.counted.sum), cmp.Compare(a.number, b.number))
	})
	out := make([]state.Digest, 0, len(entries)+4)
	for _, e := range entries {
		out = append(out, state.Digest{
			ID: name(e.key), Operation: e.operation, Text: e.text, Since: e.since,
			Errors: e.counted.errors, Rows: e.counted.rows, Duration: e.counted.distribution(),
		})
	}
	for _, p := range []struct {
		id string
		c  *counts
	}{
		{state.DigestOther, &in.other}, {state.DigestUnsampled, &in.unsampled},
		{state.DigestTLS, &in.tls}, {state.DigestNone, &in.none},
	} {
		out = append(out, state.Digest{ID: p.id, Errors: p.c.errors, Rows: p.c.rows, Duration: p.c.distribution()})
	}
	return out
}
