package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/explain"
	"github.com/mooring-dev/mooring/agent/record"
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

func TestBytesFromOutsideCannotSpoilAReply(t *testing.T) {
	const bad = "a\xffb"
	notes := []string{bad}
	snap := &state.Snapshot{
		Unresolved: notes, Journal: bad, Probe: state.Probe{Mode: "fentry", Detail: bad},
		Instances: []state.InstanceStatus{{
			Instance:     state.Instance{ID: bad, Name: bad, DataDir: bad, Cgroup: state.Cgroup{Path: bad, Shared: bad}},
			PlacementErr: bad, Err: bad,
			Statements: &state.Statements{Digests: []state.Digest{{ID: "d", Text: "select a"}}, Errors: []state.ErrorCount{{Code: "1064"}}},
		}},
		Faults:       []state.Fault{{UID: "f", Instance: bad, Err: bad, Residue: notes}},
		Capabilities: []state.Capability{{Name: "pin", Detail: bad}},
		Collectors:   []state.Collector{{Name: "resources", Err: bad}},
	}
	told := recordToPB(record.Delivery{Record: record.Record{Instance: bad, User: bad, Database: bad, Statement: bad}})
	for name, m := range map[string]proto.Message{
		"status":   snapshotToPB(snap),
		"counters": countersToPB(snap, "", 100),
		"record":   told,
		"page":     pageToPB(explain.Page{ID: bad, Name: bad, Checked: notes, Findings: []explain.Finding{{Title: bad, Evidence: notes, Next: bad}}}),
		"outcome":  outcomeToPB(&Outcome{Instance: bad, Changes: notes, Reasons: notes}),
	} {
		_, err := proto.Marshal(m)
		require.NoError(t, err, name)
	}
	require.Equal(t, "a\uFFFDb", snapshotToPB(snap).GetInstances()[0].GetDataDir())
	require.Equal(t, bad, notes[0], "the snapshot is left as it is")
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
