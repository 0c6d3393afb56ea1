package trend

import (
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
)

// Wait is one thing that an instance waits for.
type Wait int

// The waits, in the order in which they are shown.
const (
	// Throttled is the time that the cgroup's run queues were held back by
	// cpu.max, added up over CPUs (cpu.stat, kernel/sched/fair.c).
	Throttled Wait = iota
	// RunQueue is the time that its threads were runnable and not running, added
	// up over threads.
	RunQueue
	// IO and Memory are the time in which at least one of its tasks stalled for
	// I/O and for memory ("some" of io.pressure and memory.pressure).
	IO
	Memory
	// Fsync is the time that its threads were within fsync, added up; a Sample
	// has it in its latency alone.
	Fsync
	// Client is the time that it waited for clients to take its replies.
	Client
	// WaitCount is how many there are.
	WaitCount
)

// waitNames are those used on the wire.
var waitNames = [WaitCount]string{"throttled", "run-queue", "io", "memory", "fsync", "client"}

// String returns the name used on the wire.
func (w Wait) String() string {
	if w < 0 || w >= WaitCount {
		return "unknown"
	}
	return waitNames[w]
}

// WaitOf is the wait of that name; false where there is none.
func WaitOf(name string) (Wait, bool) {
	i := slices.Index(waitNames[:], name)
	return Wait(i), i >= 0
}

// Meter is a time that adds up, where it is measured at all.
type Meter struct {
	Known bool
	Total time.Duration
}

// Counts are those of all statements of an instance, or of one digest's.
type Counts struct {
	Calls, Errors, Rows uint64
	// Busy is the time spent on all of them; per second it is the average number
	// of statements at work.
	Busy time.Duration
}

// minus is what was counted since old. If the calls fell, all of it was begun
// again.
func (c Counts) minus(old Counts) Counts {
	if c.Calls < old.Calls {
		return c
	}
	return Counts{Calls: c.Calls - old.Calls, Errors: grown(c.Errors, old.Errors), Rows: grown(c.Rows, old.Rows), Busy: grown(c.Busy, old.Busy)}
}

func (c *Counts) add(other Counts) {
	c.Calls += other.Calls
	c.Errors += other.Errors
	c.Rows += other.Rows
	c.Busy += other.Busy
}

// Mean is the mean duration, 0 where there were no calls.
func (c Counts) Mean() time.Duration {
	if c.Calls == 0 {
		return 0
	}
	return time.Duration(float64(c.Busy) / float64(c.Calls))
}

// Digest is what was counted of one digest.
type Digest struct {
	ID, Operation, Text string
	Counts
	Histogram Histogram
}

// Gauges are what is so at one moment. Of an interval, they are the highest.
type Gauges struct {
	InFlight, OpenTransactions, Connections int
	OldestInFlight, OldestTransaction       time.Duration
}

// highest is the higher of both, figure by figure.
func (g Gauges) highest(o Gauges) Gauges {
	return Gauges{
		InFlight: max(g.InFlight, o.InFlight), OpenTransactions: max(g.OpenTransactions, o.OpenTransactions),
		Connections: max(g.Connections, o.Connections), OldestInFlight: max(g.OldestInFlight, o.OldestInFlight),
		OldestTransaction: max(g.OldestTransaction, o.OldestTransaction),
	}
}

// Limits are what an instance may use and how much of its memory it does.
type Limits struct {
	// Known says that its cgroup could be read and is its own.
	Known bool
	// CPUMillicores and MemoryBytes are its limits, 0 for none.
	CPUMillicores, MemoryBytes int64
	// MemoryInUse is what reclaim cannot take back.
	MemoryInUse int64
	// LocalShare is the share of its memory on the NUMA node it is confined to;
	// LocalKnown is false where it is confined to none.
	LocalKnown bool
	LocalShare float64
}

// Latency is a distribution of how long something took, where it is measured.
type Latency struct {
	Known     bool
	Count     uint64
	Sum       time.Duration
	Histogram Histogram
}

// Replication is how far an instance is behind the one it follows.
type Replication struct {
	// Known is false where no probe asks, and on a primary.
	Known bool
	Delay time.Duration
	// Bytes are those not yet applied; 0 where only the delay is known.
	Bytes uint64
}

// Sample is what had been counted of one instance at one moment.
type Sample struct {
	Time             time.Time
	ID, Name, Engine string
	// Cgroup and MainPID tell a remade container and a restarted server.
	Cgroup  uint64
	MainPID int
	// Statements says that statements are timed and could be read; without it the
	// figures of statements are zero because nobody looked.
	Statements bool
	Total      Counts
	Histogram  Histogram
	Gauges
	Digests []Digest
	// Codes are errors by code.
	Codes  map[string]uint64
	Limits Limits
	CPU    Meter
	// OOMKills counts killed processes, where Limits are known.
	OOMKills int64
	Waits    [WaitCount]Meter
	// Fsync and Block are the latency of fsync and of block I/O.
	Fsync, Block Latency
	Replication  Replication
	// SeenBytes and SocketBytes are how much of the traffic was seen; 0 where
	// the kernel does not tell.
	SeenBytes, SocketBytes uint64
	// Lost is of the whole node.
	Lost Losses
}

// Losses are what the statement timer did not count as it should.
type Losses struct {
	// Known is false where nothing is timed and where the losses could not be read.
	Known bool
	// Uncounted is how often a connection could not be followed or a statement not
	// be counted: these are missing everywhere. Partial is how often a statement
	// was counted without its text, its record or its error code.
	Uncounted, Partial uint64
}

// LossesOf adds up the reasons of Lost in package bpf. One that it does not know,
// of a newer agent, is taken for partial.
func LossesOf(reasons map[string]uint64) Losses {
	out := Losses{Known: len(reasons) > 0}
	for reason, n := range reasons {
		switch reason {
		case "connections_full", "operations_full", "pids_full", "unreadable", "tls_unseen":
			out.Uncounted += n
		case "aborted": // a client hung up; nothing is missing
		default:
			out.Partial += n
		}
	}
	return out
}

// minus is what was lost since old.
func (l Losses) minus(old Losses) Losses {
	if !l.Known || !old.Known {
		return Losses{}
	}
	return Losses{true, grown(l.Uncounted, old.Uncounted), grown(l.Partial, old.Partial)}
}

func (l Losses) plus(o Losses) Losses {
	return Losses{l.Known || o.Known, l.Uncounted + o.Uncounted, l.Partial + o.Partial}
}

// auth is the operation that is no statement.
const auth = "auth"

// operationSchema is the schema of state.Operation.Native.
const operationSchema = 3

// gaugesOf reads what is cheap to read in each tick.
func gaugesOf(in *state.InstanceStatus) Gauges {
	st := in.Statements
	if st == nil {
		return Gauges{}
	}
	return Gauges{
		InFlight: st.InFlight, OldestInFlight: st.OldestInFlight, Connections: st.Connections,
		OpenTransactions: st.OpenTransactions, OldestTransaction: st.OldestTransaction,
	}
}

// SampleOf takes an instance from a snapshot. It shares the snapshot's maps.
func SampleOf(s *state.Snapshot, in *state.InstanceStatus) Sample {
	out := Sample{
		Time: s.Time, ID: in.ID, Name: in.Name, Engine: string(in.Engine), Cgroup: in.Cgroup.ID, MainPID: in.MainPID,
		Gauges: gaugesOf(in), Histogram: Histogram{Schema: operationSchema}, Lost: LossesOf(s.Probe.Lost),
	}
	// Where they could not be read, some of the operations may be there.
	if in.Statements != nil {
		out.operations(in.Operations)
		out.statements(in.Statements)
	}
	out.usage(in.Usage)
	if a := in.Active; a != nil && a.Lag != nil {
		out.Replication = Replication{Known: true, Delay: *a.Lag}
		if a.LagBytes != nil {
			out.Replication.Bytes = uint64(max(0, *a.LagBytes))
		}
	}
	if in.Err == "" && in.Cgroup.Shared == "" {
		out.resources(in)
	}
	return out
}

func (s *Sample) operations(all []state.Operation) {
	for _, o := range all {
		if o.Name == auth {
			continue
		}
		c := Counts{Calls: o.Count, Rows: o.Rows, Busy: o.Sum}
		if o.Error {
			c.Errors = o.Count
		}
		s.Total.add(c)
		s.Histogram.add(o.Native)
	}
}

func (s *Sample) statements(st *state.Statements) {
	s.Statements = true
	s.SeenBytes, s.SocketBytes = st.Traffic.SeenBytes, st.Traffic.SocketBytes
	s.Waits[Client] = Meter{true, st.Traffic.Blocked}
	s.Digests = make([]Digest, 0, len(st.Digests))
	for _, d := range st.Digests {
		s.Digests = append(s.Digests, Digest{
			ID: d.ID, Operation: d.Operation, Text: d.Text,
			Counts:    Counts{Calls: d.Duration.Count, Errors: d.Errors, Rows: d.Rows, Busy: d.Duration.Sum},
			Histogram: Histogram{state.DistributionSchema, d.Duration.Native},
		})
	}
	s.Codes = make(map[string]uint64, len(st.Errors))
	for _, e := range st.Errors {
		s.Codes[e.Code] += e.Count
	}
}

func (s *Sample) resources(in *state.InstanceStatus) {
	r := in.Resources
	s.Limits = Limits{Known: true, CPUMillicores: r.CPUMillicores, MemoryBytes: r.MemoryLimitBytes, MemoryInUse: r.MemoryInUseBytes}
	s.Limits.LocalShare, s.Limits.LocalKnown = in.LocalShare()
	s.CPU = Meter{true, r.CPUUsage}
	s.OOMKills = r.OOMKills
	s.Waits[Throttled] = Meter{true, r.CPUThrottled}
}

// usage takes what the kernel says of the instance's waits, where it says it.
func (s *Sample) usage(u *state.Usage) {
	if u == nil {
		return
	}
	s.Waits[RunQueue] = Meter{u.Tasks.Threads > 0, u.Tasks.RunDelay}
	if g := u.Group; g != nil && g.Pressure != nil {
		s.Waits[IO] = Meter{true, g.Pressure.IO.Some}
		s.Waits[Memory] = Meter{true, g.Pressure.Memory.Some}
	}
	for _, o := range u.IO {
		l := &s.Block
		if o.Name == fsync {
			l = &s.Fsync
		}
		l.Known = true
		l.Count += o.Count
		l.Sum += o.Sum
		if l.Histogram.Schema == 0 {
			l.Histogram.Schema = operationSchema
		}
		l.Histogram.add(o.Native)
	}
}

// fsync is the name of its latency among those of I/O.
const fsync = "fsync"
