package screen

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/trend"
)

// Samples reads an agent's counters.
func Samples(r *agentpb.CountersReply) []trend.Sample {
	out := make([]trend.Sample, 0, len(r.GetInstances()))
	for _, in := range r.GetInstances() {
		s := sampleOf(in)
		s.Time = r.GetTime().AsTime()
		s.Lost = trend.LossesOf(r.GetProbe().GetLost())
		out = append(out, s)
	}
	return out
}

func sampleOf(c *agentpb.Counters) trend.Sample {
	s := trend.Sample{
		ID: c.GetId(), Name: c.GetName(), Engine: c.GetEngine(), Cgroup: c.GetCgroupId(), MainPID: int(c.GetMainPid()), Statements: c.GetStatements(),
		Total: callsOf(c.GetTotal()), Histogram: histogramOf(c.GetTotal().GetHistogram()),
		Gauges: trend.Gauges{
			InFlight: int(c.GetInFlight()), OpenTransactions: int(c.GetOpenTransactions()), Connections: int(c.GetConnections()),
			OldestInFlight: c.GetOldestInFlight().AsDuration(), OldestTransaction: c.GetOldestTransaction().AsDuration(),
		},
		Codes: c.GetErrorCodes(),
		Limits: trend.Limits{
			Known: c.GetResources(), CPUMillicores: c.GetCpuMillicores(), MemoryBytes: c.GetMemoryLimitBytes(),
			MemoryInUse: c.GetMemoryInUseBytes(), LocalKnown: c.LocalShare != nil, LocalShare: c.GetLocalShare(),
		},
		CPU: meterOf(c.GetCpuUsed()), OOMKills: c.GetOomKills(), Fsync: latencyOf(c.GetFsync()), Block: latencyOf(c.GetBlock()),
		SeenBytes: c.GetSeenBytes(), SocketBytes: c.GetSocketBytes(),
	}
	for name, d := range c.GetWaits() {
		if w, ok := trend.WaitOf(name); ok {
			s.Waits[w] = meterOf(d)
		}
	}
	if r := c.GetReplication(); r != nil {
		s.Replication = trend.Replication{Known: true, Delay: r.GetDelay().AsDuration(), Bytes: r.GetBytes()}
	}
	for _, d := range c.GetDigests() {
		s.Digests = append(s.Digests, trend.Digest{
			ID: d.GetId(), Operation: d.GetOperation(), Text: d.GetText(),
			Counts: callsOf(d.GetCounts()), Histogram: histogramOf(d.GetCounts().GetHistogram()),
		})
	}
	return s
}

func meterOf(d *durationpb.Duration) trend.Meter {
	return trend.Meter{Known: d != nil, Total: d.AsDuration()}
}

func callsOf(c *agentpb.CountedCalls) trend.Counts {
	return trend.Counts{Calls: c.GetCalls(), Errors: c.GetErrors(), Rows: c.GetRows(), Busy: c.GetBusy().AsDuration()}
}

func histogramOf(h *agentpb.CountedHistogram) trend.Histogram {
	out := trend.Histogram{Schema: int(h.GetSchema()), Buckets: make(map[int]uint64, len(h.GetBuckets()))}
	for i, n := range h.GetBuckets() {
		out.Buckets[int(i)] = n
	}
	return out
}

func latencyOf(l *agentpb.CountedLatency) trend.Latency {
	if l == nil {
		return trend.Latency{}
	}
	return trend.Latency{Known: true, Count: l.GetCount(), Sum: l.GetSum().AsDuration(), Histogram: histogramOf(l.GetHistogram())}
}
