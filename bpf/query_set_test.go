package bpf

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckWatched(t *testing.T) {
	a := Watched{ID: "a", Protocol: ProtocolPostgres, CgroupID: 1, PIDs: []int{10}}
	for _, tt := range []struct {
		name string
		list []Watched
		err  string
	}{
		{"nothing", nil, ""},
		{"two servers", []Watched{a, {ID: "b", Protocol: ProtocolRedis, CgroupID: 2}}, ""},
		{"no ID", []Watched{{Protocol: ProtocolMySQL}}, "unnamed"},
		{"one ID twice", []Watched{a, a}, "named twice"},
		{"no protocol", []Watched{{ID: "b"}}, "protocol 0"},
		{"an unknown protocol", []Watched{{ID: "b", Protocol: 5}}, "protocol 5"},
		{"a shared cgroup", []Watched{a, {ID: "b", Protocol: ProtocolMySQL, CgroupID: 1}}, "same cgroup 1"},
		{"a shared process", []Watched{{ID: "b", Protocol: ProtocolMySQL, PIDs: []int{7}}, {ID: "c", Protocol: ProtocolMySQL, PIDs: []int{7}}}, "same process 7"},
		{"a process named twice", []Watched{{ID: "b", Protocol: ProtocolMySQL, PIDs: []int{7, 7}}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkWatched(tt.list)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
		})
	}
}

func TestPlan(t *testing.T) {
	s := &Statements{servers: map[string]*served{}}
	set := func(w ...Watched) map[string]bool {
		next, fresh := s.plan(w)
		s.servers = next
		return fresh
	}
	a := Watched{ID: "a", Protocol: ProtocolPostgres, CgroupID: 1, PIDs: []int{1, 2}, Ports: []uint16{5432}}
	b := Watched{ID: "b", Protocol: ProtocolMySQL, CgroupID: 2, Ports: []uint16{3306}}

	require.Equal(t, map[string]bool{"a": true, "b": true}, set(a, b))
	slotA, slotB := s.servers["a"].slot, s.servers["b"].slot
	require.NotEqual(t, slotA, slotB)

	t.Run("a server that stays keeps its slot", func(t *testing.T) {
		a.PIDs = []int{1, 2, 3}
		a.Ports = []uint16{5432, 5432}
		require.Equal(t, map[string]bool{"a": false, "b": false}, set(a, b))
		require.Equal(t, slotA, s.servers["a"].slot)
		require.Equal(t, []int{1, 2, 3}, s.servers["a"].PIDs)
	})
	t.Run("new ports make its sockets worth a look", func(t *testing.T) {
		a.Ports = []uint16{5433}
		require.True(t, set(a, b)["a"])
		require.Equal(t, slotA, s.servers["a"].slot)
	})
	t.Run("the list may be changed afterwards", func(t *testing.T) {
		a.Ports[0] = 1
		require.Equal(t, []uint16{5433}, s.servers["a"].Ports)
	})
	t.Run("a slot is never given again", func(t *testing.T) {
		set(a)
		require.NotContains(t, s.servers, "b")
		require.True(t, set(a, b)["b"])
		require.Greater(t, s.servers["b"].slot, slotB)
	})
	t.Run("another protocol is another server", func(t *testing.T) {
		old := s.servers["b"].slot
		b.Protocol = ProtocolRedis
		require.True(t, set(a, b)["b"])
		require.Greater(t, s.servers["b"].slot, old)
	})
}
