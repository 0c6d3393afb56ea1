package agent

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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

func TestTopologyIsReadAsOftenAsInstancesAreLookedFor(t *testing.T) {
	f := newFixture(t)
	a := f.agent(t)
	before := a.snapshot.Load().Nodes
	require.NotEmpty(t, before)
	meminfo := filepath.Join(f.root, "sys/devices/system/node/node0/meminfo")
	b, err := os.ReadFile(meminfo)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(meminfo, regexp.MustCompile(`MemFree: +\d+`).ReplaceAll(b, []byte("MemFree: 7")), 0o644))
	a.tick(t.Context())
	require.Equal(t, before, a.snapshot.Load().Nodes)
	a.collector.mapped = a.collector.mapped.Add(-a.cfg.Discover)
	a.tick(t.Context())
	require.EqualValues(t, 7<<10, a.snapshot.Load().Nodes[0].FreeBytes)
	require.NotEqualValues(t, 7<<10, before[0].FreeBytes, "a snapshot does not change")
}

func TestKillsOfAPodOutliveItsContainers(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/pod/db", "pg-0").PodUID = "u-1"
	f.instance(t, "/pod/alone", "alone")
	write(t, filepath.Join(f.root, "cgroup/pod/memory.events"), "oom 4\noom_kill 2\n")
	all := f.agent(t).Snapshot().Instances
	require.Len(t, all, 2)
	require.Zero(t, all[0].Resources.OOMKills, "its container was made after the kills")
	require.Equal(t, pointer(int64(2)), all[0].Resources.PodOOMKills)
	require.Nil(t, all[1].Resources.PodOOMKills, "what is above a unit is not its own")
}

func TestUnreadableKillsOfAPodLeaveTheRest(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/pod/db", "pg-0").PodUID = "u-1"
	write(t, filepath.Join(f.root, "cgroup/pod/memory.events"), "oom_kill many\n")
	s := f.agent(t).Snapshot()
	require.Len(t, s.Instances, 1)
	require.Empty(t, s.Instances[0].Err)
	require.EqualValues(t, 500, s.Instances[0].Resources.CPUMillicores)
	require.Nil(t, s.Instances[0].Resources.PodOOMKills)
	require.True(t, slices.ContainsFunc(s.Collectors, func(c state.Collector) bool {
		return c.Name == "resources" && strings.Contains(c.Err, "is not a key and a number")
	}), "%v", s.Collectors)
}

func TestTheSnapshotNamesDeclaredPodsWithoutAServer(t *testing.T) {
	f := newFixture(t)
	f.result.Missing = []state.Declared{{Namespace: "db", Pod: "pg-0", Container: "pg", PodUID: "u-1"}}
	require.Equal(t, f.result.Missing, f.agent(t).Snapshot().Missing)
}
