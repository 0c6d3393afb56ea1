package exporter

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

// recorded is what became of records of the fixed snapshot.
func recorded() state.Records {
	return state.Records{
		Made: map[string]uint64{"slow": 12, "ddl": 0, "refused": 3},
		Lost: map[string]uint64{state.RecordsLimited: 7, state.RecordsSinkFull: 0, state.RecordsSinkFailed: 2, state.RecordsSubscriber: 0},
		// An instance that is gone has no series.
		Limited: map[string]uint64{"db/pg-0/postgres": 7, "db/gone-0/postgres": 1}, Sessions: 41, Bugs: 1,
	}
}

// digestTable is the table of digests of the fixed snapshot.
func digestTable() *state.DigestTable {
	return &state.DigestTable{Numbers: 1000, Shown: 140, Texts: 5000, Records: 90, Overflowed: 44, Evicted: 16, KernelFull: 3, KernelErrors: 1}
}

func TestWithoutTheProbeThereIsNoTableOfDigests(t *testing.T) {
	snap := snapshot()
	snap.DigestTable = nil
	got := text(t, gather(t, New(hold(snap), bounds(), WithClock(clock))))
	require.Contains(t, got, `mooring_records_lost_total{reason="sink_failed"} 2`)
	require.NotContains(t, got, "mooring_digest")
	require.Equal(t, 1, strings.Count(got, "mooring_records_limited_total{"), "of an instance that is gone nothing is told")
}
