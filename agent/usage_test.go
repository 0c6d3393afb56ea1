package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

func TestUsageIsNotCarriedToAnotherServer(t *testing.T) {
	in := func(id string, pid int, cgroup uint64, u *state.Usage) state.InstanceStatus {
		return state.InstanceStatus{Instance: state.Instance{ID: id, MainPID: pid, Cgroup: state.Cgroup{ID: cgroup}}, Usage: u}
	}
	usage := &state.Usage{}
	before := &state.Snapshot{Machine: &state.Machine{Running: 7}, Instances: []state.InstanceStatus{
		in("same", 1, 10, usage), in("restarted", 2, 20, usage), in("made again", 3, 30, usage), in("gone", 4, 40, usage),
	}}
	next := &state.Snapshot{Instances: []state.InstanceStatus{
		in("same", 1, 10, nil), in("restarted", 5, 20, nil), in("made again", 3, 31, nil), in("new", 6, 60, nil),
	}}
	carryUsage(before, next)
	require.Same(t, usage, next.Instances[0].Usage)
	for _, other := range next.Instances[1:] {
		require.Nil(t, other.Usage, other.ID)
	}
	require.Equal(t, 7, next.Machine.Running)
}
