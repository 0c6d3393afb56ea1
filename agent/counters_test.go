package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/agent/trend"
	"github.com/mooring-dev/mooring/cmd/mooringctl/screen"
)

// busy is a node with one instance that was watched for so long.
func busy(at time.Time, seconds int) *state.Snapshot {
	n := uint64(100 * seconds)
	return &state.Snapshot{
		Time: at, NodeName: "n1", Version: "v", Probe: state.Probe{Mode: "fentry", Lost: map[string]uint64{"ring": 3}},
		Instances: []state.InstanceStatus{{
			Instance:   state.Instance{ID: "shop/orders-0/pg", Name: "orders", Engine: state.PostgreSQL, MainPID: 7, Cgroup: state.Cgroup{ID: 9}},
			Resources:  state.Resources{CPUMillicores: 1000, CPUUsage: time.Duration(seconds) * time.Second / 2, CPUThrottled: time.Duration(seconds) * time.Second, MemoryLimitBytes: 8, MemoryInUseBytes: 4, OOMKills: 1, NodeBytes: map[int]int64{0: 4}},
			Placement:  &state.Placement{Node: 0},
			Operations: []state.Operation{{Name: "select", Count: n, Sum: time.Duration(n) * time.Millisecond, Rows: n, Native: map[int]uint64{-80: n}}},
			Statements: &state.Statements{
				Traffic: state.Traffic{Blocked: time.Second, SeenBytes: 5, SocketBytes: 6}, InFlight: 1, OldestInFlight: 2, OpenTransactions: 3, OldestTransaction: 4, Connections: 5,
				Errors:  []state.ErrorCount{{Code: "40001", Count: n / 10}},
				Digests: []state.Digest{{ID: "d", Operation: "select", Text: "SELECT \xff" + strings.Repeat("é", 300), Rows: n, Duration: state.Distribution{Count: n, Sum: time.Duration(n) * time.Millisecond, Native: map[int]uint64{-20: n}}}},
			},
		}, {Instance: state.Instance{ID: "other"}}},
	}
}

func TestCountersArriveAsTheyWereCounted(t *testing.T) {
	snap := busy(time.Now().UTC(), 5)
	pb := countersToPB(snap, "", 100)
	wire, err := proto.Marshal(pb)
	require.NoError(t, err)
	var back agentpb.CountersReply
	require.NoError(t, proto.Unmarshal(wire, &back))
	require.LessOrEqual(t, len(pb.Instances[0].Digests[0].Text), 100)
	got := screen.Samples(&back)
	require.Len(t, got, 2)
	want := trend.SampleOf(snap, &snap.Instances[0])
	want.Digests[0].Text = got[0].Digests[0].Text
	require.Equal(t, want, got[0])
	require.Len(t, countersToPB(snap, "other", 1).Instances, 1)
	for w := range trend.WaitCount {
		name, ok := trend.WaitOf(w.String())
		require.True(t, ok)
		require.Equal(t, w, name)
	}
}

func TestMeasuredWaitsArriveToo(t *testing.T) {
	s := trend.Sample{Fsync: trend.Latency{Known: true, Count: 3, Sum: 4, Histogram: trend.Histogram{Schema: 1, Buckets: map[int]uint64{2: 3}}}, Replication: trend.Replication{Known: true, Delay: 5, Bytes: 6}}
	s.Waits[trend.IO] = trend.Meter{Known: true, Total: 7}
	got := screen.Samples(&agentpb.CountersReply{Instances: []*agentpb.Counters{sampleToPB(s, 1)}})[0]
	require.Equal(t, s.Fsync, got.Fsync)
	require.Equal(t, s.Replication, got.Replication)
	require.Equal(t, s.Waits, got.Waits)
	require.False(t, got.Block.Known)
}

func TestExplainAndCountersOverTheServer(t *testing.T) {
	a := &Agent{trends: trend.NewBook()}
	s := NewServer(a, nil)
	ctx := context.Background()
	code := func(err error) codes.Code { return status.Code(err) }
	_, err := s.Explain(ctx, &agentpb.ExplainRequest{Instance: "orders"})
	require.Equal(t, codes.FailedPrecondition, code(err))
	_, err = s.Counters(ctx, &agentpb.CountersRequest{})
	require.Equal(t, codes.FailedPrecondition, code(err))
	now := time.Now()
	look := func(i int) {
		snap := busy(now.Add(time.Duration(i-60)*time.Second), i)
		a.trends.Add(snap)
		a.snapshot.Store(snap)
	}
	look(0)
	_, err = s.Explain(ctx, &agentpb.ExplainRequest{Instance: "orders"})
	require.Equal(t, codes.FailedPrecondition, code(err))
	require.ErrorContains(t, err, "no history yet")
	for i := 1; i <= 60; i++ {
		look(i)
	}
	page, err := s.Explain(ctx, &agentpb.ExplainRequest{Instance: "orders"})
	require.NoError(t, err)
	require.Equal(t, "cpu-throttled", page.Findings[0].Kind)
	require.Equal(t, "critical", page.Findings[0].Severity)
	_, err = proto.Marshal(page)
	require.NoError(t, err)
	for _, d := range []time.Duration{0, -time.Second, time.Second, 100 * time.Hour} {
		_, err = s.Explain(ctx, &agentpb.ExplainRequest{Instance: "orders", Since: durationpb.New(d)})
		require.Equal(t, codes.InvalidArgument, code(err))
	}
	_, err = s.Explain(ctx, &agentpb.ExplainRequest{Instance: "nobody"})
	require.Equal(t, codes.InvalidArgument, code(err))
	r, err := s.Counters(ctx, &agentpb.CountersRequest{Instance: "orders"})
	require.NoError(t, err)
	require.Len(t, r.Instances, 1)
	require.LessOrEqual(t, len(r.Instances[0].Digests[0].Text), textBytes)
	_, err = s.Counters(ctx, &agentpb.CountersRequest{Instance: "nobody"})
	require.Equal(t, codes.InvalidArgument, code(err))
}
