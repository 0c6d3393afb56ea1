package exporter

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/mooring-dev/mooring/agent/state"
)

func newLedger() *ledger {
	return &ledger{
		seen:   make(map[string]seenFault),
		hits:   make(map[faultKey]uint64),
		phases: make(map[phaseKey]uint64),
	}
}

func at(second int, faults ...state.Fault) *state.Snapshot {
	return &state.Snapshot{
		Time:      taken().Add(time.Duration(second) * time.Second),
		Instances: []state.InstanceStatus{{Instance: state.Instance{ID: "db"}}},
		Faults:    faults,
	}
}

func fault(uid string, phase state.Phase, hits uint64) state.Fault {
	return state.Fault{UID: uid, Kind: "net-drop", Instance: "db", Phase: phase, Hits: hits}
}

func TestLedger(t *testing.T) {
	hits := faultKey{"db", "net-drop"}
	active := phaseKey{"net-drop", state.FaultActive}
	ended := phaseKey{"net-drop", state.FaultEnded}
	stuck := phaseKey{"net-drop", state.FaultStuck}

	t.Run("counters keep what a fault that left the snapshot contributed", func(t *testing.T) {
		l := newLedger()
		l.observe(at(0, fault("a", state.FaultActive, 10)))
		l.observe(at(1, fault("a", state.FaultEnded, 15), fault("b", state.FaultActive, 1)))
		l.observe(at(2, fault("b", state.FaultActive, 4)))
		l.observe(at(3))
		require.EqualValues(t, 19, l.hits[hits])
		require.EqualValues(t, 2, l.phases[active])
		require.EqualValues(t, 1, l.phases[ended])
	})
	t.Run("a fault first seen at its end was active before", func(t *testing.T) {
		l := newLedger()
		l.observe(at(0, fault("a", state.FaultEnded, 3)))
		require.EqualValues(t, 1, l.phases[active])
		require.EqualValues(t, 1, l.phases[ended])
		require.EqualValues(t, 3, l.hits[hits])
	})
	t.Run("a stuck fault that a person mended is counted in every phase once", func(t *testing.T) {
		l := newLedger()
		for i, p := range []state.Phase{state.FaultActive, state.FaultStuck, state.FaultStuck, state.FaultEnded} {
			l.observe(at(i, fault("a", p, 0)))
		}
		require.Equal(t, map[phaseKey]uint64{active: 1, stuck: 1, ended: 1}, l.phases)
	})
	t.Run("the same snapshot twice counts once, an older one not at all", func(t *testing.T) {
		l := newLedger()
		l.observe(at(5, fault("a", state.FaultActive, 10)))
		l.observe(at(5, fault("a", state.FaultActive, 10)))
		l.observe(at(4))
		l.observe(at(5, fault("a", state.FaultActive, 10)))
		require.EqualValues(t, 10, l.hits[hits])
		require.EqualValues(t, 1, l.phases[active])
	})
	t.Run("hits that began again from nothing are added", func(t *testing.T) {
		l := newLedger()
		l.observe(at(0, fault("a", state.FaultActive, 10)))
		l.observe(at(1, fault("a", state.FaultActive, 2)))
		require.EqualValues(t, 12, l.hits[hits])
	})
	t.Run("an instance that is gone is forgotten with its faults", func(t *testing.T) {
		l := newLedger()
		l.observe(at(0, fault("a", state.FaultActive, 10)))
		gone := at(1, fault("a", state.FaultEnded, 10))
		gone.Instances = nil
		l.observe(gone)
		require.Contains(t, l.hits, hits, "its fault is still in the snapshot")
		empty := at(2)
		empty.Instances = nil
		l.observe(empty)
		require.Empty(t, l.hits)
		require.EqualValues(t, 1, l.phases[ended])
	})
}

func TestLedgerNeverFallsWhileTheInstanceLives(t *testing.T) {
	phases := []state.Phase{state.FaultActive, state.FaultEnded, state.FaultStuck}
	rapid.Check(t, func(r *rapid.T) {
		l := newLedger()
		var before uint64
		for second := range rapid.IntRange(1, 12).Draw(r, "snapshots") {
			var all []state.Fault
			for _, uid := range []string{"a", "b"} {
				if rapid.Bool().Draw(r, "present") {
					all = append(all, fault(uid, rapid.SampledFrom(phases).Draw(r, "phase"), rapid.Uint64Range(0, 9).Draw(r, "hits")))
				}
			}
			l.observe(at(second, all...))
			now := l.hits[faultKey{"db", "net-drop"}]
			require.GreaterOrEqual(r, now, before)
			before = now
		}
	})
}
