package main

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// ticks is how often a fakeAgent was asked for counters: each time it has one
// more second of 100 statements.
var ticks atomic.Int64

func (f *fakeAgent) Counters(_ context.Context, r *agentpb.CountersRequest) (*agentpb.CountersReply, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	if i := r.GetInstance(); i != "" && i != "orders" {
		return nil, status.Error(codes.InvalidArgument, `unknown instance "`+i+`"`)
	}
	n := ticks.Add(1)
	calls := func(n int64) *agentpb.CountedCalls {
		return &agentpb.CountedCalls{Calls: uint64(n), Busy: durationpb.New(time.Duration(n) * time.Millisecond)}
	}
	return &agentpb.CountersReply{
		Time: timestamppb.New(time.Unix(n, 0)), NodeName: "n1", Probe: &agentpb.Probe{Mode: "fentry"},
		Instances: []*agentpb.Counters{{
			Id: "/db/orders", Name: "orders", Engine: "postgresql", Statements: true, Total: calls(100 * n),
			Digests: []*agentpb.CountedDigest{{Id: "00000000000000aa", Text: "SELECT \x1b[2J?", Counts: calls(100 * n)}},
		}},
	}, nil
}

func (f *fakeAgent) Explain(_ context.Context, r *agentpb.ExplainRequest) (*agentpb.ExplainReply, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	return &agentpb.ExplainReply{
		Instance: r.GetInstance(), From: timestamppb.New(time.Now().Add(-r.GetSince().AsDuration())), To: timestamppb.Now(),
		Findings: []*agentpb.Finding{{Kind: "errors", Severity: "warning", Title: "errors rose", Since: timestamppb.Now(), Evidence: []string{"40001 9 times"}, Next: "look"}},
		Checked:  []string{"CPU: 1 core"},
	}, nil
}

func TestTopPrintsRatesOfTwoLooks(t *testing.T) {
	socket := serve(t, &fakeAgent{})
	code, out, errs := ctl(socket, "top", "--once", "--interval", "100ms")
	require.Zero(t, code, errs)
	require.NotContains(t, out, "\x1b")
	require.Contains(t, out, "SELECT ?[2J?")
	require.Contains(t, out, "over 1s")
	code, out, errs = ctl(socket, "top", "orders", "--once", "--interval", "100ms", "-o", "json", "--sort", "mean")
	require.Zero(t, code, errs)
	var f struct {
		Instances []struct {
			Calls, Load float64
			CPU         *float64 `json:"cpuCores"`
		}
		Digests []struct{ Share float64 }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &f), out)
	require.InDelta(t, 100, f.Instances[0].Calls, 1e-6)
	require.InDelta(t, 0.1, f.Instances[0].Load, 1e-6)
	require.Nil(t, f.Instances[0].CPU, "what is not measured is null")
	require.InDelta(t, 1, f.Digests[0].Share, 1e-6)
	code, _, errs = ctl(socket, "top", "nobody", "--once")
	require.Equal(t, 2, code)
	require.Contains(t, errs, `unknown instance "nobody"`)
}

func TestExplainPrintsAPageOrJSON(t *testing.T) {
	socket := serve(t, &fakeAgent{})
	code, out, errs := ctl(socket, "explain", "orders", "--since", "10m")
	require.Zero(t, code, errs)
	for _, s := range []string{"WARNING errors rose", "- 40001 9 times", "next: look", "Looked at:", "1 warning in the last 10m"} {
		require.Contains(t, out, s)
	}
	code, out, errs = ctl(socket, "explain", "orders", "-o", "json")
	require.Zero(t, code, errs)
	require.True(t, json.Valid([]byte(out)))
	_, out, _ = ctl(socket, "explain", "--help")
	require.Contains(t, out, "Thresholds:")
	require.Contains(t, out, "cpu.max throttles from")
}

func TestWrongUsageOfTopAndExplainExits2(t *testing.T) {
	socket := serve(t, &fakeAgent{})
	for args, says := range map[string]string{
		"top --interval 1ms": "100ms", "top --sort size": "size", "top --digests -1": "negative", "top a b": "accepts at most 1",
		"explain": "INSTANCE", "explain a b": "too many", "explain a --since soon": "soon",
	} {
		code, _, errs := ctl(socket, strings.Fields(args)...)
		require.Equal(t, 2, code, args)
		require.Contains(t, errs, says)
	}
}
