package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListenersAreCountedByProcess(t *testing.T) {
	n := newFakeNode(t, "v2").add(
		fakeProcess{pid: 100, parent: 1, group: "/a", exe: "/usr/sbin/nginx", tcp: map[uint64]uint16{8: 80, 9: 443}},
		fakeProcess{pid: 101, parent: 100, group: "/a", exe: "/usr/sbin/nginx", inherited: []uint64{8, 9}},
		fakeProcess{pid: 102, parent: 100, group: "/a", exe: "/usr/sbin/nginx", inherited: []uint64{8, 9}},
		fakeProcess{pid: 200, parent: 1, group: "/b", exe: "/usr/bin/java", netns: podNS, tcp: map[uint64]uint16{18: 8080}},
		fakeProcess{pid: 300, parent: 1, group: "/c", exe: "/usr/bin/mooring-agent", tcp: map[uint64]uint16{28: 9400}},
		postgres(400, 1, unit, 5432),
	)
	s := NewStandalone(n.options())
	n.link("proc/self", "300")
	scan := func() int {
		r, err := s.Instances(t.Context())
		require.NoError(t, err)
		require.Len(t, r.Instances, 1)
		return r.UnknownListeners
	}
	require.Equal(t, 2, scan())
	require.Equal(t, 2, scan(), "a second scan counts the same")

	n.remove(200)
	require.Equal(t, 1, scan(), "a listener that ended is not counted")

	n.remove(100)
	require.Equal(t, 1, scan(), "a socket whose first holder ended has another")
}

func TestTheSearchForOwnersIsBoundedAndGoesOn(t *testing.T) {
	n := newFakeNode(t, "v2")
	for pid := 100; pid < 104; pid++ {
		n.add(fakeProcess{pid: pid, parent: 1, group: "/a", exe: "/usr/bin/idle", plain: 10})
	}
	s := NewStandalone(n.options())
	s.scanner.sweep.later = 20
	_, err := s.Instances(t.Context())
	require.NoError(t, err)

	n.add(fakeProcess{pid: 200, parent: 1, group: "/a", exe: "/usr/bin/java", tcp: map[uint64]uint16{8: 80}})
	n.build()
	var counts []int
	for range 3 {
		r, err := s.Instances(t.Context())
		require.NoError(t, err)
		counts = append(counts, r.UnknownListeners)
	}
	require.Equal(t, []int{0, 0, 1}, counts)
}
