package state

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryEngineHasOneRowWithAProtocol(t *testing.T) {
	seen := map[Engine]bool{}
	for _, f := range Engines() {
		require.False(t, seen[f.Engine], "%s has two rows", f.Engine)
		seen[f.Engine] = true
		require.Contains(t, []Wire{WirePostgreSQL, WireMySQL, WireRedis, WireMongoDB}, f.Wire, f.Engine)
		require.Contains(t, []Support{Certified, Compatible}, f.Support, f.Engine)
		require.Equal(t, f.Wire, f.Engine.Wire())
		got, ok := f.Engine.Facts()
		require.True(t, ok)
		require.Equal(t, f, got)
	}
	for engine, wire := range map[Engine]Wire{
		OpenGauss: WirePostgreSQL, TDSQLPG: WirePostgreSQL, TDSQL: WireMySQL, OceanBase: WireMySQL,
		Valkey: WireRedis, FerretDB: WireMongoDB,
	} {
		require.Equal(t, wire, engine.Wire(), engine)
	}
}

func TestAnUnknownEngineHasNoProtocol(t *testing.T) {
	_, ok := Engine("oracle").Facts()
	require.False(t, ok)
	require.Empty(t, Engine("oracle").Wire())
}

func TestTheTableOfEnginesCannotBeChangedFromOutside(t *testing.T) {
	Engines()[0].Wire = "x"
	require.Equal(t, WirePostgreSQL, Engines()[0].Wire)
}
