package trend

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// DigestSummary is what one digest did in an interval.
type DigestSummary struct {
	ID string
	Counts
	P99 time.Duration
	// Before are its calls and their time up to the interval's begin.
	BeforeCalls uint64
	BeforeBusy  time.Duration
}

// Code is how often an error code came.
type Code struct {
	Code  string
	Count uint64
}

// Quick is a Latency's figures in an interval.
type Quick struct {
	Known bool
	Count uint64
	Sum   time.Duration
	P99   time.Duration
}

// Mean is the mean, 0 where nothing was counted.
func (q Quick) Mean() time.Duration {
	return Counts{Calls: q.Count, Busy: q.Sum}.Mean()
}

// Summary is what happened to one instance between two moments.
type Summary struct {
	Start  time.Time
	Length time.Duration
	// Restarts counts servers that took another's place.
	Restarts int
	// Statements says that statements were read at both ends; without it their
	// figures are zero. OOMKills are so where one end's Limits are not known.
	Statements bool
	Total      Counts
	// P99 of a summary that was made of several is the highest of theirs.
	P99 time.Duration
	Gauges
	Limits Limits
	// CPU is the time used on CPUs.
	CPU          Meter
	OOMKills     int64
	Waits        [WaitCount]Meter
	Fsync, Block Quick
	Replication  Replication
	// Codes are the commonest error codes, the commonest first.
	Codes []Code
	// Digests are the heaviest, heaviest first, those that stand for others among
	// them.
	Digests []DigestSummary
	// Other figures by which the page says what it could not see.
	SeenBytes, SocketBytes uint64
	Lost                   Losses
}

// End is when the interval was over.
func (s *Summary) End() time.Time { return s.Start.Add(s.Length) }

// Rate is n per second of the interval.
func (s *Summary) Rate(n uint64) float64 {
	if s.Length <= 0 {
		return 0
	}
	return float64(n) / s.Length.Seconds()
}

// Load is d per second of the interval: the average number of whatever d is the
// time of.
func (s *Summary) Load(d time.Duration) float64 {
	if s.Length <= 0 {
		return 0
	}
	return d.Seconds() / s.Length.Seconds()
}

// codes is how many error codes a summary names.
const codes = 4

// Between is what happened from old to now, with the given number of digests.
// A clock that did not go forward gives a summary without length. What could not
// be read at one of both ends is left out: it would begin from zero.
func Between(old, now *Sample, digests int) Summary {
	out := Summary{
		Start: old.Time, Length: max(0, now.Time.Sub(old.Time)), Statements: old.Statements && now.Statements,
		Gauges: now.Gauges, Limits: now.Limits, Replication: now.Replication, Lost: now.Lost.minus(old.Lost),
		Fsync: quick(old.Fsync, now.Fsync), Block: quick(old.Block, now.Block),
	}
	if out.Statements {
		out.statements(old, now, digests)
	}
	if now.MainPID != old.MainPID {
		out.Restarts = 1
	}
	// A cgroup made again counts from zero, however far its counters have come.
	before := *old
	if now.Cgroup != old.Cgroup {
		before.CPU.Total, before.OOMKills = 0, 0
		for _, w := range []Wait{Throttled, IO, Memory} {
			before.Waits[w].Total = 0
		}
	}
	out.CPU = meter(before.CPU, now.CPU)
	if old.Limits.Known && now.Limits.Known {
		out.OOMKills = grown(now.OOMKills, before.OOMKills)
	}
	for w := range out.Waits {
		out.Waits[w] = meter(before.Waits[w], now.Waits[w])
	}
	out.Waits[Fsync] = Meter{out.Fsync.Known, out.Fsync.Sum}
	return out
}

func (s *Summary) statements(old, now *Sample, digests int) {
	s.Total, s.P99 = now.Total.minus(old.Total), now.Histogram.minus(old.Histogram).Quantile(0.99)
	s.SeenBytes, s.SocketBytes = grown(now.SeenBytes, old.SeenBytes), grown(now.SocketBytes, old.SocketBytes)
	for code, n := range now.Codes {
		if n = grown(n, old.Codes[code]); n > 0 {
			s.Codes = append(s.Codes, Code{code, n})
		}
	}
	s.Codes = commonest(s.Codes)
	s.Digests = digestsBetween(old, now, digests)
}

// meter is known only where both are: what had been counted when measuring
// began says nothing of the interval.
func meter(old, now Meter) Meter {
	if !now.Known || !old.Known {
		return Meter{}
	}
	return Meter{true, grown(now.Total, old.Total)}
}

func quick(old, now Latency) Quick {
	if !now.Known || !old.Known {
		return Quick{}
	}
	c := Counts{Calls: now.Count, Busy: now.Sum}.minus(Counts{Calls: old.Count, Busy: old.Sum})
	return Quick{true, c.Calls, c.Busy, now.Histogram.minus(old.Histogram).Quantile(0.99)}
}

func digestsBetween(old, now *Sample, keep int) []DigestSummary {
	was := make(map[string]*Digest, len(old.Digests))
	for i := range old.Digests {
		was[old.Digests[i].ID] = &old.Digests[i]
	}
	var out []DigestSummary
	from := make(map[string]int, len(now.Digests))
	for i := range now.Digests {
		d := &now.Digests[i]
		before := was[d.ID]
		if before == nil || d.Calls < before.Calls {
			before = &Digest{}
		}
		c := d.Counts.minus(before.Counts)
		if c.Calls == 0 {
			continue
		}
		from[d.ID] = i
		out = append(out, DigestSummary{ID: d.ID, Counts: c, BeforeCalls: before.Calls, BeforeBusy: before.Busy})
	}
	out = heaviest(out, keep)
	for i := range out {
		d := &now.Digests[from[out[i].ID]]
		old := Histogram{}
		if before := was[d.ID]; before != nil && d.Calls >= before.Calls {
			old = before.Histogram
		}
		out[i].P99 = d.Histogram.minus(old).Quantile(0.99)
	}
	return out
}

// heaviest sorts by load and keeps so many. The rest is given back.
func heaviest(d []DigestSummary, keep int) []DigestSummary {
	slices.SortFunc(d, func(a, b DigestSummary) int {
		return cmp.Or(cmp.Compare(b.Busy, a.Busy), cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.ID, b.ID))
	})
	if len(d) > keep {
		d = slices.Clone(d[:max(keep, 0)])
	}
	return slices.Clip(d)
}

func commonest(c []Code) []Code {
	slices.SortFunc(c, func(a, b Code) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code)) })
	if len(c) > codes {
		c = slices.Clone(c[:codes])
	}
	return slices.Clip(c)
}

// Merge makes one summary of several in their order, with the given number of
// digests. Gauges and percentiles are the highest, limits and replication those
// of the last.
func Merge(all []Summary, digests int) Summary {
	if len(all) == 0 {
		return Summary{}
	}
	out := all[0]
	out.Digests, out.Codes = slices.Clone(out.Digests), slices.Clone(out.Codes)
	for i := range all[1:] {
		out.join(&all[i+1])
	}
	out.Digests = heaviest(out.Digests, digests)
	out.Codes = commonest(out.Codes)
	return out
}

func (s *Summary) join(next *Summary) {
	s.Length += next.Length
	s.Restarts += next.Restarts
	s.Statements = s.Statements || next.Statements
	s.Total.add(next.Total)
	s.P99 = max(s.P99, next.P99)
	s.Gauges = s.Gauges.highest(next.Gauges)
	s.Limits, s.Replication = next.Limits, next.Replication
	s.CPU = s.CPU.plus(next.CPU)
	s.OOMKills += next.OOMKills
	for w := range s.Waits {
		s.Waits[w] = s.Waits[w].plus(next.Waits[w])
	}
	s.Fsync, s.Block = s.Fsync.plus(next.Fsync), s.Block.plus(next.Block)
	s.SeenBytes += next.SeenBytes
	s.SocketBytes += next.SocketBytes
	s.Lost = s.Lost.plus(next.Lost)
	byCode := map[string]uint64{}
	for _, c := range slices.Concat(s.Codes, next.Codes) {
		byCode[c.Code] += c.Count
	}
	s.Codes = s.Codes[:0]
	for _, code := range slices.Sorted(maps.Keys(byCode)) {
		s.Codes = append(s.Codes, Code{code, byCode[code]})
	}
	at := make(map[string]int, len(s.Digests))
	for i, d := range s.Digests {
		at[d.ID] = i
	}
	for _, d := range next.Digests {
		i, ok := at[d.ID]
		if !ok {
			s.Digests = append(s.Digests, d)
			continue
		}
		s.Digests[i].Counts.add(d.Counts)
		s.Digests[i].P99 = max(s.Digests[i].P99, d.P99)
	}
}

func (m Meter) plus(o Meter) Meter { return Meter{m.Known || o.Known, m.Total + o.Total} }

func (q Quick) plus(o Quick) Quick {
	return Quick{q.Known || o.Known, q.Count + o.Count, q.Sum + o.Sum, max(q.P99, o.P99)}
}
