package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

func TestWhatProbesFoundIsShown(t *testing.T) {
	var out bytes.Buffer
	c := &client{out: &out}
	require.NoError(t, c.printActive([]*agentpb.Instance{{Name: "quiet"}}))
	require.Empty(t, out.String(), "nothing where nobody is asked")
	yes, bytesBehind := true, int64(8192)
	require.NoError(t, c.printActive([]*agentpb.Instance{
		{Name: "quiet"},
		{Name: "pg-1", Active: &agentpb.Active{
			Up: &yes, Role: "replica", ReadOnly: &yes, Lag: durationpb.New(1500 * time.Millisecond), LagBytes: &bytesBehind,
			HeartbeatAge: durationpb.New(12 * time.Second), Probes: []*agentpb.ActiveProbe{{Kind: "read", Took: durationpb.New(3 * time.Millisecond)}},
		}},
		{Name: "my-0", Active: &agentpb.Active{Stopped: "refused three times", Probes: []*agentpb.ActiveProbe{{Kind: "read", Error: "auth: error 1045"}}}},
	}))
	for _, s := range []string{"pg-1", "replica", "1.5s", "8192 B", "12s", "read 3ms", "my-0", "refused three times; read: auth: error 1045"} {
		require.Contains(t, out.String(), s)
	}
	require.NotContains(t, out.String(), "quiet")
}
