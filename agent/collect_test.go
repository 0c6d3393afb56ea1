package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

func TestEveryEngineIsWatchedByItsProtocol(t *testing.T) {
	protocols := map[state.Wire]bpf.Protocol{
		state.WirePostgreSQL: bpf.ProtocolPostgres, state.WireMySQL: bpf.ProtocolMySQL, state.WireRedis: bpf.ProtocolRedis,
		state.WireMongoDB: bpf.ProtocolMongo,
	}
	for _, f := range state.Engines() {
		w := watched(&state.Instance{ID: "a", Engine: f.Engine}, state.StatementsPolicy{})
		require.Equal(t, protocols[f.Wire], w.Protocol, f.Engine)
	}
	require.Zero(t, protocolOf("oracle"))
}
