package agent

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/agent/state"
)

func TestAReaderIsToldAtItsOwnPaceAndOfChangesAtOnce(t *testing.T) {
	base := func() *state.Snapshot {
		return &state.Snapshot{
			PolicyDigest: "d1",
			Instances:    []state.InstanceStatus{{Instance: state.Instance{ID: "shop/orders-0/pg", Declared: &state.Declared{Role: "primary"}}}},
			Faults:       []state.Fault{{UID: "f1", Phase: state.FaultActive, Hits: 7}},
			Capabilities: []state.Capability{{Name: "freeze", OK: true}},
		}
	}
	now := time.Now()
	var p pace
	require.True(t, p.due(base(), time.Minute, now), "the first at once")
	for name, c := range map[string]struct {
		change func(*state.Snapshot)
		due    bool
	}{
		"nothing":                  {func(*state.Snapshot) {}, false},
		"a figure":                 {func(s *state.Snapshot) { s.Instances[0].Resources.CPUUsage = 9; s.Time = now.Add(time.Second) }, false},
		"a CPU limit":              {func(s *state.Snapshot) { s.Instances[0].Resources.CPUMillicores = 800 }, true},
		"a memory limit":           {func(s *state.Snapshot) { s.Instances[0].Resources.MemoryLimitBytes = 1 << 29 }, true},
		"a cpuset":                 {func(s *state.Snapshot) { s.Instances[0].Resources.CPUs = "0-1" }, true},
		"more hits":                {func(s *state.Snapshot) { s.Faults[0].Hits = 8 }, false},
		"hits that were none":      {func(s *state.Snapshot) { s.Faults[0].Hits = 0 }, true},
		"a phase":                  {func(s *state.Snapshot) { s.Faults[0].Phase = state.FaultEnded }, true},
		"residue":                  {func(s *state.Snapshot) { s.Faults[0].Residue = []string{"x"} }, true},
		"a fault more":             {func(s *state.Snapshot) { s.Faults = append(s.Faults, state.Fault{UID: "f2"}) }, true},
		"an instance less":         {func(s *state.Snapshot) { s.Instances = nil }, true},
		"a role":                   {func(s *state.Snapshot) { s.Instances[0].Declared = &state.Declared{Role: "replica"} }, true},
		"a placement":              {func(s *state.Snapshot) { s.Instances[0].Placement = &state.Placement{Node: 1} }, true},
		"a placement not had":      {func(s *state.Snapshot) { s.Instances[0].PlacementErr = "no room" }, true},
		"an unreadable instance":   {func(s *state.Snapshot) { s.Instances[0].Err = "gone" }, true},
		"the policy":               {func(s *state.Snapshot) { s.PolicyDigest = "d2" }, true},
		"a capability":             {func(s *state.Snapshot) { s.Capabilities[0].OK = false }, true},
		"who writes limits":        {func(s *state.Snapshot) { s.LimitsWriter = "kubelet" }, true},
		"a restarted container":    {func(s *state.Snapshot) { s.Instances[0].ContainerID = "c2" }, true},
		"something not resolved":   {func(s *state.Snapshot) { s.Unresolved = []string{"x"} }, true},
		"a lease that was renewed": {func(s *state.Snapshot) { s.Faults[0].LeaseUntil = now }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, q := base(), p
			c.change(s)
			require.Equal(t, c.due, q.due(s, time.Minute, now.Add(time.Second)))
		})
	}
	require.False(t, p.due(base(), 5*time.Second, now.Add(4*time.Second)))
	require.True(t, p.due(base(), 5*time.Second, now.Add(4990*time.Millisecond)), "a tick may be a little early")
	require.False(t, p.due(base(), 5*time.Second, now.Add(6*time.Second)), "counted from the last one")
}

// reader is one end of a Watch that the test empties.
type reader struct {
	grpc.ServerStream
	ctx  context.Context
	sent chan *agentpb.StatusReply
}

func (r *reader) Context() context.Context { return r.ctx }

func (r *reader) Send(s *agentpb.StatusReply) error {
	select {
	case r.sent <- s:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

func TestASlowReaderGetsTheNewestAndNothingIsKeptForIt(t *testing.T) {
	f := newFixture(t)
	f.instance(t, "/db/orders", "orders")
	a := f.agent(t)
	s := NewServer(a, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	r := &reader{ctx: ctx, sent: make(chan *agentpb.StatusReply)}
	ended := make(chan error)
	go func() { ended <- s.Watch(&agentpb.WatchRequest{Brief: true}, r) }()
	first := <-r.sent
	require.Len(t, first.GetInstances(), 1)
	require.Empty(t, first.GetNodes())
	require.Empty(t, first.GetCollectors())
	for range 100 {
		a.tick(ctx)
	}
	newest := a.Snapshot().Time
	// One reply may have been made before the newest snapshot.
	require.Eventually(t, func() bool { return (<-r.sent).GetTime().AsTime().Equal(newest) }, 10*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, ignoreCanceled(<-ended))
}

// ignoreCanceled drops the error of a reply that was under way.
func ignoreCanceled(err error) error {
	if err == context.Canceled {
		return nil
	}
	return err
}

func TestAWatchIntervalOutOfBoundsIsRefused(t *testing.T) {
	s := NewServer(newFixture(t).agent(t), slog.New(slog.DiscardHandler))
	for _, d := range []time.Duration{-time.Second, 0, 199 * time.Millisecond, time.Hour + 1} {
		err := s.Watch(&agentpb.WatchRequest{Interval: durationpb.New(d)}, nil)
		require.Equal(t, codes.InvalidArgument, status.Code(err), d)
		require.ErrorContains(t, err, "200ms and 1h0m0s")
	}
}

func TestAPanicInARequestIsAnAnswer(t *testing.T) {
	log := &logText{}
	s := NewServer(nil, slog.New(slog.NewTextHandler(log, nil)))
	err := s.guardStream(nil, nil, &grpc.StreamServerInfo{FullMethod: "/Watch"}, func(any, grpc.ServerStream) error { panic("boom") })
	require.Equal(t, codes.Internal, status.Code(err))
	require.ErrorContains(t, err, "boom")
	_, err = s.guard(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/Apply"}, func(context.Context, any) (any, error) { panic("boom") })
	require.Equal(t, codes.Internal, status.Code(err))
	require.Contains(t, log.String(), "request panicked")
}
