package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

func TestAPolicyOfStatementsIsReadStrictly(t *testing.T) {
	good := &agentpb.StatementsPolicy{Top: 20, NoText: true, Slow: durationpb.New(time.Second), Audit: []string{"ddl", "session"}}
	got, err := statementsOf(good)
	require.NoError(t, err)
	require.Equal(t, state.StatementsPolicy{Set: true, Top: 20, NoText: true, Slow: time.Second, Audit: state.AuditDDL | state.AuditSession}, got)
	none, err := statementsOf(nil)
	require.NoError(t, err)
	require.Zero(t, none)
	for name, bad := range map[string]*agentpb.StatementsPolicy{
		"top":        {Top: 501},
		"a week":     {Slow: durationpb.New(7 * 24 * time.Hour)},
		"slow":       {Slow: durationpb.New(-time.Second)},
		"impossible": {Slow: &durationpb.Duration{Seconds: 1, Nanos: -1}},
		"audit":      {Audit: []string{"everything"}},
	} {
		_, err := statementsOf(bad)
		require.Error(t, err, name)
	}
}

func TestStatementsPolicyOfAnInstance(t *testing.T) {
	a := &Agent{cfg: Default()}
	a.cfg.Audit = []string{"ddl"}
	in := &state.Instance{}
	require.Equal(t, state.StatementsPolicy{Set: true, Top: 100, Slow: 100 * time.Millisecond, Audit: state.AuditDDL}, a.statementsPolicy(in))
	in.Declared = &state.Declared{}
	require.Equal(t, 100, a.statementsPolicy(in).Top, "a policy that does not say leaves the flags")
	in.Declared.Statements = state.StatementsPolicy{Set: true, Top: 3}
	require.Equal(t, in.Declared.Statements, a.statementsPolicy(in))
}

func TestStatementsGoOverTheWire(t *testing.T) {
	few := state.Distribution{Count: 3, Sum: time.Second, Native: map[int]uint64{-4: 3}}
	r := instanceToPB(&state.InstanceStatus{Statements: &state.Statements{
		Traffic: state.Traffic{Statements: 4}, Slow: 2, Threshold: time.Second, InFlight: 5,
		Transactions: []state.Transaction{{Outcome: state.TransactionCommit, Duration: few}},
		Errors:       []state.ErrorCount{{Code: "23505", Count: 6}},
		Digests:      []state.Digest{{ID: "00c0ffee00c0ffee", Text: "select ?", Duration: few}},
	}})
	require.Equal(t, uint64(4), r.GetTraffic().GetStatements())
	require.Equal(t, uint64(2), r.GetTraffic().GetSlow())
	require.Equal(t, int32(5), r.GetOpen().GetRequests())
	require.Equal(t, uint64(3), r.GetTransactions()[0].GetDuration().GetNative()[-4])
	require.Equal(t, "23505", r.GetErrors()[0].GetCode())
	require.Equal(t, "select ?", r.GetDigests()[0].GetText())
	require.Nil(t, instanceToPB(&state.InstanceStatus{}).GetTraffic())
}
