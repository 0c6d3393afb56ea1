package agent

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/record"
	"github.com/mooring-dev/mooring/agent/state"
)

// Records implements agentpb.AgentServer: it streams records from now on.
func (s *Server) Records(r *agentpb.RecordsRequest, stream grpc.ServerStreamingServer[agentpb.Record]) error {
	id, err := s.recorded(r)
	if err != nil {
		return err
	}
	sub, cancel := s.agent.records.Subscribe(id, r.GetKinds())
	defer cancel()
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case d := <-sub.C:
			if err := stream.Send(recordToPB(d)); err != nil {
				return err
			}
		}
	}
}

// recorded returns the ID of the instance that a request is about, "" for all. It
// refuses what would be waited for in vain.
func (s *Server) recorded(r *agentpb.RecordsRequest) (id string, err error) {
	snap := s.agent.Snapshot()
	if snap == nil {
		return "", status.Error(codes.FailedPrecondition, stillProbing)
	}
	for _, k := range r.GetKinds() {
		if known := record.Kinds(); !slices.Contains(known, k) {
			return "", statusOf(invalid(fmt.Errorf("kind %q is none of %q", k, known)))
		}
	}
	if ref := r.GetInstance(); ref != "" {
		in, err := snap.Find(ref)
		if err != nil {
			return "", statusOf(invalid(err))
		}
		id = in.ID
	}
	if snap.Probe.Mode == "off" {
		return "", statusOf(refused(errors.New("nothing is recorded while the statement probe is off: " + snap.Probe.Detail)))
	}
	return id, nil
}

// sinkQuiet is how long no record must have been lost before the sink is said to
// work again.
const sinkQuiet = time.Minute

// sinkWatch tells a sink's turn from right to wrong and back.
type sinkWatch struct {
	lost    uint64
	last    time.Time
	failing bool
}

// look compares with what was counted before. began and ended are each true once.
func (w *sinkWatch) look(s record.Stats, now time.Time) (began, ended bool) {
	lost := s.SinkFailed + s.SinkFull
	switch {
	case lost > w.lost:
		began = !w.failing
		w.lost, w.last, w.failing = lost, now, true
	case w.failing && s.SinkErr == nil && now.Sub(w.last) >= sinkQuiet:
		w.failing, ended = false, true
	}
	return began, ended
}

// readRecords puts into the snapshot what became of records and what the table of
// digests did, after the statements were read.
func (a *Agent) readRecords(next *state.Snapshot) {
	s := a.records.Stats()
	next.Records = recordsOf(s)
	began, ended := a.sinkWatch.look(s, time.Now())
	switch {
	case began:
		a.log.Error("records are lost: they are not written, or not fast enough", "component", "records", "path", a.cfg.Records, "err", s.SinkErr)
	case ended:
		a.log.Info("records are all written again", "component", "records", "path", a.cfg.Records, "count", a.sinkWatch.lost)
	}
	if a.sink != nil {
		run := state.Collector{Name: state.CollectorRecords}
		if a.sinkWatch.failing {
			run.Err = fmt.Sprintf("%d records could not be written since the agent started", a.sinkWatch.lost)
			if s.SinkErr != nil {
				run.Err += ": " + oneLine(s.SinkErr)
			}
		}
		a.collector.runs = append(a.collector.runs, run)
	}
	if a.digests == nil {
		return
	}
	t := a.digests.Stats()
	next.DigestTable = &state.DigestTable{
		Numbers: t.Numbers, Shown: t.Shown, Texts: t.Texts, Records: t.Records, Overflowed: t.Overflowed, Evicted: t.Evicted,
		KernelFull: t.KernelFull, KernelErrors: t.KernelErrors,
	}
	bugs, err := a.heard.tell()
	next.Records.Bugs = bugs
	a.collector.runs = append(a.collector.runs, state.Collector{Name: state.CollectorEvents, Err: oneLine(err)})
	if lost := next.Probe.Lost["sessions"]; lost > a.sessionsLost {
		a.sessionsLost = lost
		a.records.SessionsLost()
	}
}

func recordsOf(s record.Stats) state.Records {
	return state.Records{
		Made: s.Made,
		Lost: map[string]uint64{
			state.RecordsLimited: s.Limited, state.RecordsSinkFull: s.SinkFull, state.RecordsSinkFailed: s.SinkFailed,
			state.RecordsSubscriber: s.SubscriberLost,
		},
		Limited: s.LimitedOf, Sessions: s.Sessions,
	}
}
