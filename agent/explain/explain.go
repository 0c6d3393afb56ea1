package explain

import (
	"cmp"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/trend"
)

// Severity says how soon to act.
type Severity int

// The severities.
const (
	Notice Severity = iota + 1
	Warning
	Critical
)

// String returns the severity in lower case.
func (s Severity) String() string {
	switch s {
	case Notice:
		return "notice"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return "unknown"
}

// Kinds of findings, causes before what they make others suffer.
const (
	KindOOM         = "oom-kill"
	KindRestart     = "restarted"
	KindThrottled   = "cpu-throttled"
	KindMemory      = "memory-pressure"
	KindIO          = "io-slow"
	KindLock        = "lock-shaped-wait"
	KindQueue       = "cpu-contended"
	KindClient      = "client-blocked"
	KindRemote      = "remote-memory"
	KindSlowDigest  = "slow-digest"
	KindNewDigest   = "new-digest"
	KindTransaction = "old-transaction"
	KindReplication = "replication-behind"
	KindErrors      = "errors"
	KindCoverage    = "coverage"
)

// order is the rank of a kind among findings of one severity.
var order = []string{KindOOM, KindRestart, KindThrottled, KindMemory, KindIO, KindLock, KindQueue, KindClient, KindRemote,
	KindSlowDigest, KindNewDigest, KindTransaction, KindReplication, KindErrors, KindCoverage}

// Finding is one thing that is wrong.
type Finding struct {
	Kind     string
	Severity Severity
	// Title says it in one line.
	Title string
	// Since is when it began. SinceAtLeast means that it is as old as what is
	// remembered, and may be older.
	Since        time.Time
	SinceAtLeast bool
	// Until is when it was over; zero while it goes on.
	Until time.Time
	// Evidence are figures with their units and the time they are taken over.
	Evidence []string
	// Next is what to do or look at next.
	Next string
	// impact ranks findings of one kind: average sessions that it costs.
	impact float64
	run    run
}

// Page is all that can be said of one instance.
type Page struct {
	ID, Name, Engine string
	// From and To bound what was asked about; History is how far back before To
	// the begin of a finding can be told.
	From, To time.Time
	History  time.Duration
	Findings []Finding
	// Checked are the figures that were looked at, NotMeasured what is not
	// measured for this instance or on this node, with the reason.
	Checked     []string
	NotMeasured []string
}

// Options are what a page is asked for.
type Options struct {
	Now   time.Time
	Since time.Duration
}

// DefaultSince is how far back a page looks unless it is told.
const DefaultSince = 5 * time.Minute

// Explain judges a history.
func Explain(h trend.History, o Options) Page {
	if o.Since <= 0 {
		o.Since = DefaultSince
	}
	v := newView(h, o)
	p := Page{ID: h.ID, Name: h.Name, Engine: h.Engine, From: v.from, To: o.Now, History: v.span()}
	if v.first >= len(v.points) {
		p.NotMeasured = []string{"anything: the agent has no figures of this instance from the last " + duration(o.Since)}
		return p
	}
	p.Findings = v.findings()
	p.Checked, p.NotMeasured = v.checked(), v.notMeasured()
	return p
}

// findings are all of them, in the order in which a person should read them.
func (v *view) findings() []Finding {
	var all []Finding
	for _, judge := range []func() []Finding{
		v.oomKills, v.restarts, v.throttling, v.memory, v.io, v.locks, v.queue, v.client, v.remote,
		v.newDigests, v.replication, v.errors, v.coverage,
	} {
		all = append(all, judge()...)
	}
	all = append(all, v.transactions(all)...)
	all = append(all, v.slowDigests(all)...)
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(b.Severity, a.Severity),
			cmp.Compare(boolInt(!a.Until.IsZero()), boolInt(!b.Until.IsZero())),
			cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)),
			cmp.Compare(b.impact, a.impact),
			cmp.Compare(a.Title, b.Title))
	})
	return all
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
