package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

// maxErrorCodes is how many error codes of an instance are told apart; the rest
// are "other".
const maxErrorCodes = 40

// readStatements copies what the kernel has counted into the snapshot.
func (a *Agent) readStatements(next *state.Snapshot) error {
	if a.statements == nil {
		return errors.New("statement probe is off: " + a.probe.Detail)
	}
	codes, err := a.statements.Errors()
	errs := []error{err}
	open, err := a.statements.Open()
	errs = append(errs, err)
	digests, err := a.digests.Tick()
	errs = append(errs, err)
	for i := range next.Instances {
		in := &next.Instances[i]
		if protocolOf(in.Engine) == 0 {
			continue
		}
		s := &state.Statements{
			Errors:           a.errorCounts(in.ID, codes[in.ID]),
			OpenTransactions: open[in.ID].Transactions, OldestTransaction: open[in.ID].OldestTransaction,
			InFlight: open[in.ID].InFlight, OldestInFlight: open[in.ID].OldestInFlight,
			Connections: open[in.ID].Connections,
			Digests:     digests[in.ID],
			Threshold:   a.statementsPolicy(&in.Instance).Slow,
		}
		if err := a.readInstance(in, s); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in.ID, err))
			in.Operations = nil // nothing is told rather than a part
			continue
		}
		in.Statements = s
	}
	health, err := a.statements.Health()
	errs = append(errs, err)
	next.Probe.Events, next.Probe.RunTime = health.Events, health.RunTime
	next.Probe.Maps = make(map[string]state.MapFill, len(health.Maps))
	for name, fill := range health.Maps {
		next.Probe.Maps[name] = state.MapFill{Entries: fill.Entries, Capacity: fill.Capacity}
	}
	lost, err := a.statements.Lost()
	next.Probe.Lost = lost
	return errors.Join(append(errs, err)...)
}

// readInstance copies the counters of one instance.
func (a *Agent) readInstance(in *state.InstanceStatus, s *state.Statements) error {
	ops, err := a.statements.Read(in.ID)
	if err != nil {
		return err
	}
	for _, o := range ops {
		in.Operations = append(in.Operations, state.Operation{
			Name: o.Name, Error: o.Error, Count: o.Count,
			Sum: time.Duration(o.SumNanoseconds), Classic: o.Classic, Native: o.Native,
			FirstByte: distribution(o.FirstByte), Blocked: time.Duration(o.BlockedNanoseconds),
			RequestBytes: o.RequestBytes, ResponseBytes: o.ResponseBytes, Rows: o.Rows,
		})
		s.Traffic.Requests += o.Count
		s.Traffic.Statements += o.Statements
		s.Traffic.RequestBytes += o.RequestBytes
		s.Traffic.ResponseBytes += o.ResponseBytes
		s.Traffic.Blocked += time.Duration(o.BlockedNanoseconds)
	}
	traffic, err := a.statements.Traffic(in.ID)
	if err != nil {
		return err
	}
	s.Traffic.StreamInBytes, s.Traffic.StreamOutBytes = traffic.StreamInBytes, traffic.StreamOutBytes
	s.Traffic.SeenBytes, s.Traffic.SocketBytes = traffic.SeenBytes, traffic.SocketBytes
	s.Slow = traffic.Slow
	transactions, err := a.statements.Transactions(in.ID)
	if err != nil {
		return err
	}
	for _, t := range transactions {
		s.Transactions = append(s.Transactions, state.Transaction{Outcome: t.Outcome, Duration: distribution(t.Distribution)})
	}
	return nil
}

func distribution(d bpf.Distribution) state.Distribution {
	return state.Distribution{Count: d.Count, Sum: time.Duration(d.SumNanoseconds), Native: d.Native}
}

// errorCounts bounds the codes of an instance, which come from outside: those that
// came first are told apart, the rest are one. A code that has been shown stays, so
// that no count ever falls.
func (a *Agent) errorCounts(id string, codes []bpf.ErrorCount) []state.ErrorCount {
	shown := a.collector.codes[id]
	if shown == nil {
		shown = map[string]bool{}
		a.collector.codes[id] = shown
	}
	slices.SortFunc(codes, func(a, b bpf.ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code))
	})
	var out []state.ErrorCount
	other := state.ErrorCount{Code: "other"}
	for _, c := range codes {
		if c.Code != "" && len(shown) < maxErrorCodes {
			shown[c.Code] = true
		}
		if shown[c.Code] {
			out = append(out, state.ErrorCount{Code: c.Code, Count: c.Count})
		} else {
			other.Count += c.Count
		}
	}
	if other.Count > 0 {
		out = append(out, other)
	}
	return out
}
