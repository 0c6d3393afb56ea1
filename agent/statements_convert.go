package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/record"
	"github.com/mooring-dev/mooring/agent/state"
)

// statementsToPB fills what r says of statements; nothing for nil.
func statementsToPB(r *agentpb.Instance, s *state.Statements) {
	if s == nil {
		return
	}
	t := s.Traffic
	r.Traffic = &agentpb.Traffic{
		Requests: t.Requests, Statements: t.Statements, RequestBytes: t.RequestBytes, ResponseBytes: t.ResponseBytes,
		StreamInBytes: t.StreamInBytes, StreamOutBytes: t.StreamOutBytes, Blocked: durationpb.New(t.Blocked),
		SeenBytes: t.SeenBytes, SocketBytes: t.SocketBytes, Slow: s.Slow, SlowThreshold: durationpb.New(s.Threshold),
	}
	for _, x := range s.Transactions {
		r.Transactions = append(r.Transactions, &agentpb.Transactions{Outcome: x.Outcome, Duration: distributionToPB(x.Duration)})
	}
	r.Open = &agentpb.OpenWork{
		Transactions: int32(s.OpenTransactions), OldestTransaction: durationpb.New(s.OldestTransaction),
		Requests: int32(s.InFlight), OldestRequest: durationpb.New(s.OldestInFlight), Connections: int32(s.Connections),
	}
	for _, e := range s.Errors {
		r.Errors = append(r.Errors, &agentpb.ErrorCount{Code: e.Code, Count: e.Count})
	}
	for i := range s.Digests {
		d := &s.Digests[i]
		r.Digests = append(r.Digests, &agentpb.Digest{
			Id: d.ID, Operation: d.Operation, Text: d.Text, Since: timeToPB(d.Since),
			Errors: d.Errors, Rows: d.Rows, Duration: distributionToPB(d.Duration),
		})
	}
}

func distributionToPB(d state.Distribution) *agentpb.Distribution {
	r := &agentpb.Distribution{Count: d.Count, Sum: durationpb.New(d.Sum), Native: make(map[int32]uint64, len(d.Native))}
	for i, n := range d.Native {
		r.Native[int32(i)] = n
	}
	return r
}

// statementsOf reads how statements are to be watched, as strictly as declaredOf.
func statementsOf(p *agentpb.StatementsPolicy) (state.StatementsPolicy, error) {
	if p == nil {
		return state.StatementsPolicy{}, nil
	}
	if p.Slow != nil && p.Slow.CheckValid() != nil {
		return state.StatementsPolicy{}, fmt.Errorf("slow %v cannot be", p.Slow)
	}
	audit, err := auditOf(p.GetAudit())
	if err != nil {
		return state.StatementsPolicy{}, err
	}
	s := state.StatementsPolicy{
		Set: true, DigestsOff: p.GetDigestsOff(), Top: int(p.GetTop()), NoText: p.GetNoText(), Slow: p.GetSlow().AsDuration(), Audit: audit,
	}
	return s, checkStatements(s)
}

// statementsPolicy is how an instance's statements are watched: as its policy
// says, else as the agent's flags do.
func (a *Agent) statementsPolicy(in *state.Instance) state.StatementsPolicy {
	if in.Declared != nil && in.Declared.Statements.Set {
		return in.Declared.Statements
	}
	p := a.cfg.Statements
	more, _ := auditOf(a.cfg.Audit) // Validate has refused others
	p.Audit |= more
	return p
}

// auditOf reads the names of audit classes.
func auditOf(names []string) (state.Audit, error) {
	known := state.AuditClasses()
	var set state.Audit
	for _, n := range names {
		class, ok := known[n]
		if !ok {
			return 0, fmt.Errorf("audit class %q is none of %q", n, slices.Sorted(maps.Keys(known)))
		}
		set |= class
	}
	return set, nil
}

// checkStatements returns what is wrong with a policy of statements.
func checkStatements(s state.StatementsPolicy) error {
	const longest = 24 * time.Hour
	switch {
	case s.Top < 0 || s.Top > state.MaxTop:
		return fmt.Errorf("top %d is not 0 to %d", s.Top, state.MaxTop)
	case s.Slow < 0 || s.Slow > longest:
		return fmt.Errorf("slow threshold %v is not 0 to %v", s.Slow, longest)
	case s.Audit >= state.AuditAll<<1:
		return fmt.Errorf("audit classes %#x are unknown", uint8(s.Audit))
	}
	return nil
}

func recordToPB(d record.Delivery) *agentpb.Record {
	inSeconds := func(s float64) *durationpb.Duration { return durationpb.New(time.Duration(s * float64(time.Second))) }
	return &agentpb.Record{
		Time: timeToPB(d.Time), Node: d.Node, Namespace: d.Namespace, Pod: d.Pod, Instance: utf8Only(d.Instance), Engine: d.Engine,
		Kind: d.Kind, User: utf8Only(d.User), Database: utf8Only(d.Database), Client: d.Client, Digest: d.Digest, Statement: utf8Only(d.Statement),
		Operation: d.Operation, Code: d.Code, Duration: inSeconds(d.DurationSeconds), FirstByte: inSeconds(d.FirstByteSeconds),
		Blocked: inSeconds(d.BlockedSeconds), Rows: d.Rows, RequestBytes: d.RequestBytes, ResponseBytes: d.ResponseBytes, Lost: d.Lost,
	}
}
