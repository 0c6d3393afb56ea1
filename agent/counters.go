package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/explain"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
)

const (
	// textBytes is how much of a digest's text is sent unless it is asked for
	// otherwise.
	textBytes = 256
	// The bounds of ExplainRequest.since: three steps of the history, and its
	// length.
	minSince = 3 * trend.Step
	maxSince = 6 * time.Hour
)

// Counters implements agentpb.AgentServer.
func (s *Server) Counters(_ context.Context, r *agentpb.CountersRequest) (*agentpb.CountersReply, error) {
	snap := s.agent.Snapshot()
	if snap == nil {
		return nil, status.Error(codes.FailedPrecondition, stillProbing)
	}
	only := ""
	if r.GetInstance() != "" {
		in, err := snap.Find(r.GetInstance())
		if err != nil {
			return nil, statusOf(invalid(err))
		}
		only = in.ID
	}
	text := int(r.GetTextBytes())
	if text <= 0 {
		text = textBytes
	}
	return countersToPB(snap, only, text), nil
}

// Explain implements agentpb.AgentServer.
func (s *Server) Explain(_ context.Context, r *agentpb.ExplainRequest) (*agentpb.ExplainReply, error) {
	snap := s.agent.Snapshot()
	if snap == nil {
		return nil, status.Error(codes.FailedPrecondition, stillProbing)
	}
	since := explain.DefaultSince
	if r.Since != nil {
		since = r.GetSince().AsDuration()
		if r.Since.CheckValid() != nil || since < minSince || since > maxSince {
			return nil, statusOf(invalid(fmt.Errorf("since %v is not between %v and %v", since, minSince, maxSince)))
		}
	}
	in, err := snap.Find(r.GetInstance())
	if err != nil {
		return nil, statusOf(invalid(err))
	}
	h, err := s.agent.trends.History(in.ID)
	if errors.Is(err, trend.ErrUnknown) {
		return nil, statusOf(refused(err))
	}
	if err != nil {
		return nil, statusOf(err)
	}
	return pageToPB(explain.Explain(h, explain.Options{Now: time.Now(), Since: since})), nil
}

// countersToPB leaves out all instances but one where an ID is given.
func countersToPB(snap *state.Snapshot, only string, text int) *agentpb.CountersReply {
	whole := snapshotToPB(&state.Snapshot{Time: snap.Time, NodeName: snap.NodeName, Version: snap.Version, Probe: snap.Probe})
	r := &agentpb.CountersReply{Time: whole.Time, NodeName: whole.NodeName, Version: whole.Version, Probe: whole.Probe}
	for i := range snap.Instances {
		if in := &snap.Instances[i]; only == "" || in.ID == only {
			r.Instances = append(r.Instances, sampleToPB(trend.SampleOf(snap, in), text))
		}
	}
	return r
}

func sampleToPB(s trend.Sample, text int) *agentpb.Counters {
	r := &agentpb.Counters{
		Id: utf8Only(s.ID), Name: utf8Only(s.Name), Engine: s.Engine, CgroupId: s.Cgroup, MainPid: int32(s.MainPID), Statements: s.Statements,
		Total: callsToPB(s.Total, s.Histogram), InFlight: int32(s.InFlight), OpenTransactions: int32(s.OpenTransactions),
		Connections: int32(s.Connections), OldestInFlight: durationpb.New(s.OldestInFlight), OldestTransaction: durationpb.New(s.OldestTransaction),
		ErrorCodes: s.Codes, Resources: s.Limits.Known, CpuMillicores: s.Limits.CPUMillicores, MemoryLimitBytes: s.Limits.MemoryBytes,
		MemoryInUseBytes: s.Limits.MemoryInUse, OomKills: s.OOMKills, Waits: map[string]*durationpb.Duration{},
		Fsync: latencyToPB(s.Fsync), Block: latencyToPB(s.Block), SeenBytes: s.SeenBytes, SocketBytes: s.SocketBytes,
	}
	if s.Limits.LocalKnown {
		r.LocalShare = &s.Limits.LocalShare
	}
	if s.CPU.Known {
		r.CpuUsed = durationpb.New(s.CPU.Total)
	}
	for w, m := range s.Waits {
		if m.Known {
			r.Waits[trend.Wait(w).String()] = durationpb.New(m.Total)
		}
	}
	if s.Replication.Known {
		r.Replication = &agentpb.CountedReplication{Delay: durationpb.New(s.Replication.Delay), Bytes: s.Replication.Bytes}
	}
	for _, d := range s.Digests {
		r.Digests = append(r.Digests, &agentpb.CountedDigest{Id: d.ID, Operation: d.Operation, Text: cut(d.Text, text), Counts: callsToPB(d.Counts, d.Histogram)})
	}
	return r
}

func callsToPB(c trend.Counts, h trend.Histogram) *agentpb.CountedCalls {
	return &agentpb.CountedCalls{Calls: c.Calls, Errors: c.Errors, Rows: c.Rows, Busy: durationpb.New(c.Busy), Histogram: histogramToPB(h)}
}

func histogramToPB(h trend.Histogram) *agentpb.CountedHistogram {
	r := &agentpb.CountedHistogram{Schema: int32(h.Schema), Buckets: make(map[int32]uint64, len(h.Buckets))}
	for i, n := range h.Buckets {
		r.Buckets[int32(i)] = n
	}
	return r
}

func latencyToPB(l trend.Latency) *agentpb.CountedLatency {
	if !l.Known {
		return nil
	}
	return &agentpb.CountedLatency{Count: l.Count, Sum: durationpb.New(l.Sum), Histogram: histogramToPB(l.Histogram)}
}

func pageToPB(p explain.Page) *agentpb.ExplainReply {
	r := &agentpb.ExplainReply{
		Instance: utf8Only(p.ID), Name: utf8Only(p.Name), Engine: p.Engine, From: timeToPB(p.From), To: timeToPB(p.To), History: durationpb.New(p.History),
		Checked: onlyUTF8(p.Checked), NotMeasured: onlyUTF8(p.NotMeasured),
	}
	for _, f := range p.Findings {
		r.Findings = append(r.Findings, &agentpb.Finding{
			Kind: f.Kind, Severity: f.Severity.String(), Title: utf8Only(f.Title), Since: timeToPB(f.Since), SinceAtLeast: f.SinceAtLeast,
			Until: timeToPB(f.Until), Evidence: onlyUTF8(f.Evidence), Next: utf8Only(f.Next),
		})
	}
	return r
}

// cut shortens a text to so many bytes, at the border of a character. A text in
// another encoding than UTF-8 cannot be sent as it is.
func cut(s string, n int) string {
	s = utf8Only(s)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// onlyUTF8 makes strings fit for the wire, which takes nothing but UTF-8.
func onlyUTF8(in []string) []string {
	if len(in) == 0 {
		return nil
	}
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = utf8Only(s)
	}
	return out
}

// utf8Only is onlyUTF8 for one string: one that is not UTF-8 would cost the whole
// reply. Paths, names of cgroups and whatever clients choose may be any bytes.
func utf8Only(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
