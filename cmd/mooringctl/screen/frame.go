package screen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mooring-dev/mooring/agent/trend"
)

// Frame is one look at a node. Times are in seconds and rates per second.
type Frame struct {
	Time     time.Time `json:"time"`
	Node     string    `json:"node"`
	Agent    string    `json:"agent"`
	Probe    string    `json:"probe"`
	Interval float64   `json:"intervalSeconds"`
	// Lost is how often statements or connections went uncounted in the interval,
	// Partial how often a statement was counted without its text, its record or
	// its error code; both on the whole node.
	Lost      uint64     `json:"lost"`
	Partial   uint64     `json:"partlyCounted"`
	Instances []Instance `json:"instances"`
	Digests   []Digest   `json:"digests"`
}

// Instance is what one did in the interval; what is not measured is null.
type Instance struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Engine string `json:"engine"`
	// New says that it was not there at the interval's begin: it has no rates.
	New bool `json:"new,omitempty"`
	// Restarted says that its server was restarted in the interval.
	Restarted         bool     `json:"restarted,omitempty"`
	Timed             bool     `json:"statementsTimed"`
	Calls             float64  `json:"calls"`
	Errors            float64  `json:"errors"`
	Mean              float64  `json:"meanSeconds"`
	P99               float64  `json:"p99Seconds"`
	InFlight          int      `json:"inFlight"`
	Connections       int      `json:"connections"`
	Load              float64  `json:"load"`
	CPU               *float64 `json:"cpuCores"`
	CPUOfLimit        *float64 `json:"cpuOfLimit"`
	Throttled         *float64 `json:"throttledShare"`
	MemoryOfLimit     *float64 `json:"memoryOfLimit"`
	Blocked           *float64 `json:"blockedShare"`
	OpenTransactions  int      `json:"openTransactions"`
	OldestTransaction float64  `json:"oldestTransactionSeconds"`
	// Waits are average numbers of waiters, by wait.
	Waits     map[string]float64 `json:"waits"`
	FsyncMean *float64           `json:"fsyncMeanSeconds"`
}

// Digest is what one digest did in the interval.
type Digest struct {
	Instance  string  `json:"instance"`
	ID        string  `json:"digest"`
	Operation string  `json:"operation,omitempty"`
	Load      float64 `json:"load"`
	// Share is its part of its instance's load.
	Share   float64 `json:"share"`
	Calls   float64 `json:"calls"`
	Mean    float64 `json:"meanSeconds"`
	P99     float64 `json:"p99Seconds"`
	RowsPer float64 `json:"rowsPerCall"`
	Errors  float64 `json:"errors"`
	Text    string  `json:"text,omitempty"`
	name    string
}

// Sorts are what a frame can be sorted by. Names are sorted upwards, figures
// downwards.
func Sorts() []string { return []string{"load", "calls", "errors", "mean", "p99", "name"} }

// Build makes a frame of two looks at the same node. An instance that was not
// there at the first has no rates yet.
func Build(old, now []trend.Sample, digests int, by string) Frame {
	was := make(map[string]*trend.Sample, len(old))
	for i := range old {
		was[old[i].ID] = &old[i]
	}
	f := Frame{Instances: []Instance{}, Digests: []Digest{}}
	for i := range now {
		n := &now[i]
		o := was[n.ID]
		fresh := o == nil
		if fresh {
			o = n
		}
		s := trend.Between(o, n, len(n.Digests))
		f.Lost, f.Partial = max(f.Lost, s.Lost.Uncounted), max(f.Partial, s.Lost.Partial)
		in := instanceOf(n, &s)
		in.New = fresh
		f.Instances = append(f.Instances, in)
		f.Digests = append(f.Digests, digestsOf(n, &s)...)
	}
	f.sort(by)
	f.Digests = f.Digests[:min(max(digests, 0), len(f.Digests))]
	return f
}

func instanceOf(n *trend.Sample, s *trend.Summary) Instance {
	in := Instance{
		ID: n.ID, Name: n.Name, Engine: n.Engine, Restarted: s.Restarts > 0, Timed: s.Statements,
		Calls: s.Rate(s.Total.Calls), Errors: s.Rate(s.Total.Errors), Mean: s.Total.Mean().Seconds(), P99: s.P99.Seconds(),
		InFlight: n.InFlight, Connections: n.Connections, Load: s.Load(s.Total.Busy),
		OpenTransactions: n.OpenTransactions, OldestTransaction: n.OldestTransaction.Seconds(), Waits: map[string]float64{},
	}
	for w, m := range s.Waits {
		if m.Known {
			in.Waits[trend.Wait(w).String()] = s.Load(m.Total)
		}
	}
	if s.CPU.Known {
		used := s.Load(s.CPU.Total)
		in.CPU = &used
		in.CPUOfLimit = share(used*1000, float64(s.Limits.CPUMillicores))
		if t := s.Waits[trend.Throttled]; t.Known {
			in.Throttled = share(s.Load(t.Total), s.Load(t.Total)+used)
		}
	}
	in.MemoryOfLimit = share(float64(s.Limits.MemoryInUse), float64(s.Limits.MemoryBytes))
	if c := s.Waits[trend.Client]; c.Known {
		blocked := 0.0
		if p := share(c.Total.Seconds(), s.Total.Busy.Seconds()); p != nil {
			blocked = min(1, *p)
		}
		in.Blocked = &blocked
	}
	if s.Fsync.Known {
		mean := s.Fsync.Mean().Seconds()
		in.FsyncMean = &mean
	}
	return in
}

// share is a/b, nil where b says nothing.
func share(a, b float64) *float64 {
	if b <= 0 {
		return nil
	}
	r := a / b
	return &r
}

func digestsOf(n *trend.Sample, s *trend.Summary) []Digest {
	known := make(map[string]*trend.Digest, len(n.Digests))
	for i := range n.Digests {
		known[n.Digests[i].ID] = &n.Digests[i]
	}
	var out []Digest
	for _, d := range s.Digests {
		r := Digest{
			Instance: n.ID, name: n.Name, ID: d.ID, Operation: known[d.ID].Operation, Text: known[d.ID].Text,
			Load: s.Load(d.Busy), Calls: s.Rate(d.Calls), Mean: d.Mean().Seconds(), P99: d.P99.Seconds(), Errors: s.Rate(d.Errors),
		}
		if p := share(float64(d.Rows), float64(d.Calls)); p != nil {
			r.RowsPer = *p
		}
		if p := share(d.Busy.Seconds(), s.Total.Busy.Seconds()); p != nil {
			r.Share = min(1, *p)
		}
		out = append(out, r)
	}
	return out
}

// sort orders both lists. Equal figures go by name, so that lines do not jump.
func (f *Frame) sort(by string) {
	slices.SortStableFunc(f.Instances, func(a, b Instance) int {
		var c int
		switch by {
		case "load":
			c = cmp.Compare(b.Load, a.Load)
		case "calls":
			c = cmp.Compare(b.Calls, a.Calls)
		case "errors":
			c = cmp.Compare(b.Errors, a.Errors)
		case "mean":
			c = cmp.Compare(b.Mean, a.Mean)
		case "p99":
			c = cmp.Compare(b.P99, a.P99)
		}
		return cmp.Or(c, cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	slices.SortStableFunc(f.Digests, func(a, b Digest) int {
		var c int
		switch by {
		case "load":
			c = cmp.Compare(b.Load, a.Load)
		case "calls":
			c = cmp.Compare(b.Calls, a.Calls)
		case "errors":
			c = cmp.Compare(b.Errors, a.Errors)
		case "mean":
			c = cmp.Compare(b.Mean, a.Mean)
		case "p99":
			c = cmp.Compare(b.P99, a.P99)
		}
		return cmp.Or(c, cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
	})
}

// Lines draws the frame, each line at most so many columns wide.
func (f *Frame) Lines(columns int) []string {
	head := fmt.Sprintf("node %s  agent %s  probe %s  %s  over %s", f.Node, f.Agent, f.Probe, f.Time.Local().Format(time.TimeOnly), span(toSpan(f.Interval)))
	if f.Lost > 0 {
		head += fmt.Sprintf("  %d not counted", f.Lost)
	}
	if f.Partial > 0 {
		head += fmt.Sprintf("  %d without text or record", f.Partial)
	}
	lines := []string{Clean(head), ""}
	lines = append(lines, f.instanceLines()...)
	lines = append(lines, "")
	lines = append(lines, f.digestLines()...)
	lines = append(lines, "")
	lines = append(lines, f.waitLines()...)
	for i := range lines {
		lines[i] = Cut(lines[i], columns)
	}
	return lines
}

func toSpan(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func (f *Frame) instanceLines() []string {
	t := table{head: strings.Fields("INSTANCE ENGINE CALLS/S ERR/S MEAN P99 INFL LOAD CPU% THR% MEM% BLK% TX OLDEST NOTE"), left: map[int]bool{0: true, 1: true, 14: true}}
	part := func(p *float64) string {
		if p == nil {
			return "-"
		}
		return percent(*p)
	}
	for _, in := range f.Instances {
		rates, known := !in.New && in.Timed, in.Blocked != nil
		note := ""
		switch {
		case in.New:
			note = "new"
		case in.Restarted:
			note = "restarted"
		case !in.Timed:
			note = "not timed"
		}
		cpu := part(in.CPUOfLimit)
		if in.CPUOfLimit == nil && in.CPU != nil {
			cpu = number(*in.CPU) + "c"
		}
		t.add(in.Name, in.Engine, dash(rates, number(in.Calls)), dash(rates, number(in.Errors)), dash(rates, span(toSpan(in.Mean))), dash(rates, span(toSpan(in.P99))),
			dash(known, fmt.Sprint(in.InFlight)), dash(rates, number(in.Load)), cpu, part(in.Throttled), part(in.MemoryOfLimit), part(in.Blocked),
			dash(known, fmt.Sprint(in.OpenTransactions)), dash(known, span(toSpan(in.OldestTransaction))), note)
	}
	if len(f.Instances) == 0 {
		return append(t.lines(), "no instance")
	}
	return t.lines()
}

func (f *Frame) digestLines() []string {
	t := table{head: strings.Fields("LOAD SHARE CALLS/S MEAN P99 ROWS/CALL ERR/S INSTANCE DIGEST TEXT"), left: map[int]bool{7: true, 8: true, 9: true}}
	for _, d := range f.Digests {
		t.add(number(d.Load), percent(d.Share), number(d.Calls), span(toSpan(d.Mean)), span(toSpan(d.P99)), number(d.RowsPer), number(d.Errors), d.name, d.ID, d.Text)
	}
	if len(f.Digests) == 0 {
		return append(t.lines(), "no digest was called")
	}
	return t.lines()
}

// waitLines shows how many were waiting on average, and for what.
func (f *Frame) waitLines() []string {
	t := table{head: []string{"WAITING FOR", "THROTTLED", "RUN QUEUE", "I/O", "MEMORY", "FSYNC", "CLIENT", "FSYNC MEAN"}, left: map[int]bool{0: true}}
	for _, in := range f.Instances {
		row := []string{in.Name}
		for w := range trend.WaitCount {
			n, known := in.Waits[w.String()]
			row = append(row, dash(known && !in.New, number(n)))
		}
		mean := "-"
		if in.FsyncMean != nil && !in.New {
			mean = span(toSpan(*in.FsyncMean))
		}
		t.add(append(row, mean)...)
	}
	return t.lines()
}
