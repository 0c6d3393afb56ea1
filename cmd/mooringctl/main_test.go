package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// fakeAgent answers from memory and keeps what it was asked.
type fakeAgent struct {
	agentpb.UnimplementedAgentServer
	asked []*agentpb.ApplyRequest
	fail  error
}

func (f *fakeAgent) Apply(_ context.Context, r *agentpb.ApplyRequest) (*agentpb.ApplyReply, error) {
	f.asked = append(f.asked, r)
	if f.fail != nil {
		return nil, f.fail
	}
	reply := &agentpb.ApplyReply{Instance: "/db/orders", Changes: []string{`write cpu.max`}, Resources: &agentpb.Resources{CpuMillicores: 1500, Cpus: "0-1"}}
	if r.GetFault() != nil || r.GetWithdraw() {
		reply.Fault = &agentpb.Fault{Uid: r.GetUid(), Kind: "net-delay", Phase: "active", Started: timestamppb.Now(), Deadline: timestamppb.Now()}
	}
	return reply, nil
}

func (f *fakeAgent) Status(context.Context, *agentpb.StatusRequest) (*agentpb.StatusReply, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	node := int32(1)
	return &agentpb.StatusReply{
		PolicyDigest: "abc123", Epoch: 77, LimitsWriter: "kubelet",
		NodeName: "n1", Time: timestamppb.Now(), Probe: &agentpb.Probe{Mode: "tracepoint", Detail: "fentry refused"},
		Instances: []*agentpb.Instance{{
			Id: "/db/orders", Name: "orders", Engine: "postgresql", Ports: []uint32{5432}, NumaNode: &node,
			Policy: "shop/orders", Cluster: "orders", Role: "primary", Numa: "single-node", PlacementError: "no node\nis large enough",
			Resources:  &agentpb.Resources{MemoryLimitBytes: 1 << 30},
			Operations: []*agentpb.Operation{{Name: "select", Count: 10, Sum: durationpb.New(20 * time.Millisecond)}},
		}},
		Capabilities: []*agentpb.Capability{{Name: "io-error", Detail: "refused\nby the kernel"}},
		Faults:       []*agentpb.Fault{{Uid: "f1", Kind: "freeze", Phase: "ended", Reason: "deadline"}},
		Nodes:        []*agentpb.NumaNode{{Id: 0, Cpus: "0-1", TotalBytes: 4 << 30}},
	}, nil
}

func (f *fakeAgent) Capabilities(ctx context.Context, _ *agentpb.CapabilitiesRequest) (*agentpb.CapabilitiesReply, error) {
	s, err := f.Status(ctx, nil)
	return &agentpb.CapabilitiesReply{Capabilities: s.GetCapabilities()}, err
}

// serve runs f on a socket and returns its path.
func serve(t *testing.T, f agentpb.AgentServer) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	g := grpc.NewServer()
	agentpb.RegisterAgentServer(g, f)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return path
}

// ctl runs one command line and returns its exit status and output.
func ctl(socket string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"--socket", socket}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWrongUsageAsksNothingOfTheAgentAndExits2(t *testing.T) {
	f := &fakeAgent{}
	socket := serve(t, f)
	for _, c := range []struct{ args, says string }{
		{"--nonsense", "--nonsense"},
		{"frobnicate", "frobnicate"},
		{"status extra", "extra"},
		{"status -o yaml", "yaml"},
		{"pin", "INSTANCE"},
		{"pin orders --node x", `"x"`},
		{"pin orders --node -1", `"-1"`},
		{"pin orders --node 0 extra", "extra"},
		{"resize orders", "--cpu"},
		{"resize orders --cpu many", `"many"`},
		{"resize orders --memory 4Gib", `"4Gib"`},
		{"resize orders --memory 0", "more than zero"},
		{"resize orders --cpu -2", "more than zero"},
		{"fault start net-delay orders", "--duration"},
		{"fault start net-delay orders --duration 0s", "more than zero"},
		{"fault start net-delay orders --duration -5s", "more than zero"},
		{"fault start net-delay orders --duration soon", "soon"},
		{"fault start net-delay --duration 5s", "INSTANCE"},
		{"fault start net-delay orders --duration 5s --set delay", `"delay"`},
		{"fault start net-delay orders --duration 5s --set a=1 --set a=2", "twice"},
		{"fault stop", "UID"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, stdout, stderr := ctl(socket, strings.Fields(c.args)...)
			require.Equal(t, 2, code, stderr)
			require.Contains(t, stderr, c.says)
			require.Empty(t, stdout)
		})
	}
	require.Empty(t, f.asked)
}

func TestARefusalExits1AndAnInvalidRequest2WithTheAgentsWords(t *testing.T) {
	for code, exit := range map[codes.Code]int{codes.FailedPrecondition: 1, codes.Internal: 1, codes.InvalidArgument: 2} {
		socket := serve(t, &fakeAgent{fail: status.Error(code, `NUMA node 7 does not exist`)})
		got, _, stderr := ctl(socket, "pin", "orders", "--node", "7")
		require.Equal(t, exit, got)
		require.Equal(t, "mooringctl: NUMA node 7 does not exist\n", stderr)
	}
}

func TestNoAgentSaysWhereItWasLookedFor(t *testing.T) {
	code, _, stderr := ctl("/nonexistent/agent.sock", "status")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "/nonexistent/agent.sock")
	require.Contains(t, stderr, "is mooring-agent running")
}

func TestRequestsCarryWhatWasTyped(t *testing.T) {
	f := &fakeAgent{}
	socket := serve(t, f)
	last := func(args string) *agentpb.ApplyRequest {
		t.Helper()
		code, _, stderr := ctl(socket, strings.Fields(args)...)
		require.Zero(t, code, stderr)
		return f.asked[len(f.asked)-1]
	}
	r := last("resize orders --cpu 1500m --memory 2Gi --force --dry-run")
	require.EqualValues(t, 1500, r.GetSize().GetCpuMillicores())
	require.EqualValues(t, 2<<30, r.GetSize().GetMemoryBytes())
	require.True(t, r.GetForce() && r.GetDryRun() && !r.GetRaw())
	require.True(t, last("resize orders --cpu 2 --raw").GetRaw())
	require.Nil(t, last("resize orders --cpu 2").GetSize().MemoryBytes, "what was not typed stays as it is")
	require.EqualValues(t, 1, last("pin orders --node 1").GetPlacement().GetNode())
	require.True(t, last("pin orders --node all").GetPlacement().GetAllNodes())
	require.Nil(t, last("pin orders").GetPlacement().Node)
	r = last("fault start net-delay orders --duration 10s --set delay=100ms --uid f1")
	require.Equal(t, "f1", r.GetUid())
	require.Equal(t, map[string]string{"delay": "100ms"}, r.GetFault().GetParams())
	require.Equal(t, 10*time.Second, r.GetFault().GetDuration().AsDuration())
	require.True(t, r.GetFault().GetNotAfter().AsTime().After(time.Now().Add(10*time.Second)))
	first, second := last("pin orders"), last("pin orders")
	require.NotEqual(t, first.GetUid(), second.GetUid())
	r = last("fault stop f1")
	require.True(t, r.GetWithdraw())
	require.Equal(t, "f1", r.GetUid())
}

func TestOutputIsATableOrJSON(t *testing.T) {
	socket := serve(t, &fakeAgent{})
	for args, says := range map[string][]string{
		"status":         {"tracepoint", "fentry refused", "orders", "NUMA NODE", "f1", "policy abc123  controller epoch 77  limits of pods written by kubelet"},
		"instances":      {"orders", "postgresql", "5432", "1024Mi", "2ms"},
		"instances -l":   {"select", "ok", "10", "shop/orders", "primary", "no node; is large enough"},
		"fault list":     {"f1", "freeze", "ended", "deadline"},
		"doctor":         {"io-error", "no", "refused; by the kernel"},
		"fault --help":   {"ends by itself"},
		"fault start -h": {"net-delay", "--set delay", "io-error"},
		"--help":         {"Exit status"},
	} {
		t.Run(args, func(t *testing.T) {
			code, stdout, stderr := ctl(socket, strings.Fields(args)...)
			require.Zero(t, code, stderr)
			for _, s := range says {
				require.Contains(t, stdout, s)
			}
			if strings.HasSuffix(args, "-h") || strings.HasSuffix(args, "--help") || args == "instances -l" {
				return
			}
			code, stdout, stderr = ctl(socket, append(strings.Fields(args), "-o", "json")...)
			require.Zero(t, code, stderr)
			require.True(t, json.Valid([]byte(stdout)), stdout)
		})
	}
}
