package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

func TestASnapshotIsPassedOnWhole(t *testing.T) {
	at := time.Date(2026, 11, 21, 7, 0, 0, 0, time.UTC)
	r := snapshotToPB(&state.Snapshot{
		Time: at, NodeName: "n1", Version: "v2", PolicyDigest: "d1", Epoch: 1 << 60, LimitsWriter: "kubelet",
		Instances: []state.InstanceStatus{{
			Instance: state.Instance{ID: "shop/orders-0/pg", PodUID: "u1", ContainerID: "c1", Declared: &state.Declared{
				Cluster: "orders", Role: "primary", Policy: "shop/orders", NUMA: state.NUMASingleNode,
			}},
			PlacementErr: "no room",
		}},
		Faults: []state.Fault{{UID: "f1", Phase: state.FaultEnded, Reason: "lease", LeaseUntil: at, Verified: true, Residue: []string{"cgroup.freeze: was 0, is 1"}}},
	})
	require.EqualValues(t, 2, r.GetProtocolVersion())
	require.Equal(t, "d1", r.GetPolicyDigest())
	require.EqualValues(t, 1<<60, r.GetEpoch())
	require.Equal(t, "kubelet", r.GetLimitsWriter())
	in := r.GetInstances()[0]
	require.Equal(t, []string{"u1", "c1", "orders", "primary", "shop/orders", "single-node", "no room"},
		[]string{in.GetPodUid(), in.GetContainerId(), in.GetCluster(), in.GetRole(), in.GetPolicy(), in.GetNuma(), in.GetPlacementError()})
	f := r.GetFaults()[0]
	require.True(t, f.GetVerified())
	require.Equal(t, []string{"cgroup.freeze: was 0, is 1"}, f.GetResidue())
	require.True(t, f.GetLeaseUntil().AsTime().Equal(at))
	require.Nil(t, f.GetDeadline(), "a time that was not set is absent")
}

func TestTimesThatCannotBeAreRefused(t *testing.T) {
	require.NoError(t, checkTimes(&agentpb.FaultSpec{}))
	require.NoError(t, checkTimes(&agentpb.FaultSpec{Duration: durationpb.New(time.Second), Lease: durationpb.New(time.Second), NotAfter: timestamppb.Now()}))
	for name, d := range map[string]*agentpb.FaultSpec{
		"duration": {Duration: &durationpb.Duration{Seconds: 1 << 62}},
		"lease":    {Lease: &durationpb.Duration{Seconds: 1, Nanos: -1}},
		"time":     {NotAfter: &timestamppb.Timestamp{Nanos: -1}},
	} {
		require.ErrorContains(t, checkTimes(d), name)
	}
}
