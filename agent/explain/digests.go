package explain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
)

// most is how many digests a page names for one reason.
const most = 3

// named leaves out what stands for texts of all sorts: its mean moves with the
// mixture. Encrypted statements are all an instance may have, and stay.
func named(id string) bool {
	return id != state.DigestOther && id != state.DigestUnsampled && id != state.DigestNone
}

func digestOf(p *trend.Summary, id string) *trend.DigestSummary {
	for i := range p.Digests {
		if p.Digests[i].ID == id {
			return &p.Digests[i]
		}
	}
	return nil
}

// digestNormal is a digest's usual mean: the lower quartile of its points, or
// what it was before the history began, whichever is less.
func (v *view) digestNormal(id string) normal {
	n := v.usual(0.25, func(p *trend.Summary) (float64, bool) {
		if d := digestOf(p, id); d != nil {
			return d.Mean().Seconds(), true
		}
		return 0, false
	})
	for i := range v.points {
		d := digestOf(&v.points[i], id)
		if d == nil {
			continue
		}
		before := trend.Counts{Calls: d.BeforeCalls, Busy: d.BeforeBusy}.Mean().Seconds()
		if float64(d.BeforeCalls) >= knownCalls.value() && (!n.known || before < n.value) {
			return normal{true, before}
		}
		break
	}
	return n
}

// slowed is one digest that takes longer than it used to.
type slowed struct {
	id     string
	normal float64
	run    run
	sum    *trend.Summary
	in     *trend.DigestSummary
}

func (v *view) slowed(id string) (slowed, bool) {
	n := v.digestNormal(id)
	if !n.known {
		return slowed{}, false
	}
	r, ok := v.episode(lasting.time(), func(p *trend.Summary) bool {
		d := digestOf(p, id)
		return d != nil && d.Mean().Seconds() >= max(slowFactor.value()*n.value, n.value+slowExcess.value()) && p.Load(d.Busy) >= slowLoad.value()
	})
	if !ok {
		return slowed{}, false
	}
	out := slowed{id: id, normal: n.value, run: r, sum: v.sum(r)}
	out.in = digestOf(out.sum, id)
	return out, out.in != nil
}

// slowDigests names digests that became slow. When one of the causes told
// already coincides and most digests are slow, they suffer and are no cause.
func (v *view) slowDigests(told []Finding) []Finding {
	var all []slowed
	judged := 0
	for _, d := range v.window.Digests {
		if !named(d.ID) {
			continue
		}
		judged++
		if s, ok := v.slowed(d.ID); ok {
			all = append(all, s)
		}
	}
	general := len(all)*2 >= judged
	var out []Finding
	for _, s := range all {
		f := v.slowDigest(s)
		if cause := coincides(told, s.run); cause != "" && general {
			f.Severity = Notice
			f.Evidence = append(f.Evidence, fmt.Sprintf("%d of %d digests are slow, and %s is so at the same time", len(all), judged, cause))
			f.Next = "see to " + cause + " first; look at this statement again if it stays slow without"
		}
		out = append(out, f)
	}
	return heaviest(out)
}

// heaviest keeps those that cost most.
func heaviest(f []Finding) []Finding {
	slices.SortStableFunc(f, func(a, b Finding) int { return cmp.Or(cmp.Compare(b.impact, a.impact), cmp.Compare(a.Title, b.Title)) })
	return f[:min(len(f), most)]
}

// coincides names a cause among the findings that shares time with a run.
func coincides(told []Finding, r run) string {
	causes := []string{KindThrottled, KindMemory, KindIO, KindLock, KindQueue, KindClient}
	for _, f := range told {
		if slices.Contains(causes, f.Kind) && f.run.overlaps(r) {
			return f.Kind
		}
	}
	return ""
}

func (v *view) slowDigest(s slowed) Finding {
	d := s.in
	times := "from next to nothing"
	if s.normal > 0 {
		times = digits(d.Mean().Seconds()/s.normal) + "x slower"
	}
	share := ratio(d.Busy.Seconds(), s.sum.Total.Busy.Seconds())
	f := Finding{
		Kind: KindSlowDigest, Severity: Warning,
		impact: s.sum.Load(d.Busy) * max(0, 1-ratio(s.normal, d.Mean().Seconds())),
		Title:  fmt.Sprintf("a statement became %s: digest %s", times, d.ID),
		Evidence: []string{
			fmt.Sprintf("mean %s, p99 up to %s, normally %s; %s over %s", duration(d.Mean()), duration(d.P99), duration(span(s.normal)), rate(s.sum.Rate(d.Calls)), duration(s.sum.Length)),
			fmt.Sprintf("%s of the instance's statement time (%s sessions on average)", percent(min(1, share)), digits(s.sum.Load(d.Busy))),
		},
		Next: "compare its plan with the one before (EXPLAIN): a lost index, stale statistics, a larger table; it may also wait for a lock of its own",
	}
	usual := v.usual(0.25, func(p *trend.Summary) (float64, bool) {
		if d := digestOf(p, s.id); d != nil {
			return rowsPerCall(d.Counts), true
		}
		return 0, false
	})
	if now := rowsPerCall(d.Counts); usual.known && now >= slowFactor.value()*max(usual.value, 1) {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s rows a call, normally %s", digits(now), digits(usual.value)))
		f.Next = "it returns more rows than before: look at what the application asks for, then at its plan (EXPLAIN)"
	}
	f.Evidence = append(f.Evidence, v.text(s.id)...)
	if share >= 0.5 && d.Mean().Seconds() >= slowCritical.value()*s.normal {
		f.Severity = Critical
	}
	return v.finding(s.run, f)
}

func (v *view) text(id string) []string {
	if t := v.h.Texts[id]; t != "" {
		return []string{"text: " + t}
	}
	return nil
}

// newDigests names digests that take a large part of the load and were not among
// the heaviest before. Whether they were called at all then is not known: their
// counts begin when they are shown. Of a history that is hardly longer than the
// window nothing is new.
func (v *view) newDigests() []Finding {
	if v.first == 0 || float64(v.first) < normalPoints.value() && v.points[v.first].Start.Sub(v.points[0].Start) < DefaultSince {
		return nil
	}
	var out []Finding
	for _, d := range v.window.Digests {
		if !named(d.ID) || d.BeforeCalls > 0 || slices.ContainsFunc(v.points[:v.first], func(p trend.Summary) bool { return digestOf(&p, d.ID) != nil }) {
			continue
		}
		r, ok := v.episode(lasting.time(), func(p *trend.Summary) bool {
			in := digestOf(p, d.ID)
			return in != nil && p.Load(in.Busy) >= newLoad.value() && in.Busy.Seconds() >= newShare.value()*p.Total.Busy.Seconds()
		})
		if !ok {
			continue
		}
		s := v.sum(r)
		in := digestOf(s, d.ID)
		out = append(out, v.finding(r, Finding{
			Kind: KindNewDigest, Severity: Warning, impact: s.Load(in.Busy),
			Title: fmt.Sprintf("a statement that was not among the heaviest takes %s of the load: digest %s", percent(min(1, ratio(in.Busy.Seconds(), s.Total.Busy.Seconds()))), d.ID),
			Evidence: append([]string{
				fmt.Sprintf("mean %s, p99 up to %s, %s (%s sessions on average) over %s", duration(in.Mean()), duration(in.P99), rate(s.Rate(in.Calls)), digits(s.Load(in.Busy)), duration(s.Length)),
				fmt.Sprintf("not among the heaviest in the %s before", duration(v.points[v.first].Start.Sub(v.points[0].Start))),
			}, v.text(d.ID)...),
			Next: "see whether it is new (what was released?), grew or runs now and then (a report?), and look at its plan (EXPLAIN)",
		}))
	}
	return heaviest(out)
}
